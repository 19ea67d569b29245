"""Near-identical images, which must not be in different splits.

Two cutouts are near-identical when their luminance, at 24 × 24 pixels with mean and contrast removed, correlates above
a threshold. Smooth round galaxies correlate strongly with each other too. The threshold is between the highest
correlation of different galaxies and the lowest of a picture that was saved again; ``python -m benchmarks duplicates``
measures both. A false match has no other effect than that two galaxies share a split.

We do not use the perceptual hashes of imagehash or imagededup: their distances were not measured on galaxies, and other
groups would move galaxies between the splits of published checkpoints.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from rarezoo.cache import kept_array
from rarezoo.data.images import ImageSource
from rarezoo.errors import DataError

_SIDE = 24
# Correlation above which two cutouts are near-identical.
CORRELATION = 0.9965
_BLOCK = 1024
# Pairs of similar images after which groups are merged; a block adds up to _BLOCK² pairs of 16 bytes.
_MOST_PAIRS = 2**18


def fingerprints(
    images: ImageSource, galaxies: int, *, cache: Path | None = None
) -> Float32[np.ndarray, "galaxies pixels"]:
    """Return the luminance of each cutout as a unit vector.

    Parameters
    ----------
    images
        Cutouts by row.
    galaxies
        Number of rows.
    cache
        File that keeps the fingerprints for the next time.

    Returns
    -------
    numpy.ndarray
        (galaxies, 576) float32. An even image has a random vector that follows from its grey level, because without
        its mean nothing would be left of it; a row is zero if the image is unreadable.
    """

    def measure() -> Float32[np.ndarray, "galaxies pixels"]:
        prints = np.zeros((galaxies, _SIDE * _SIDE), dtype=np.float32)
        for row in tqdm(range(galaxies), desc="looking for near-identical images", unit="galaxy", leave=False):
            try:
                prints[row] = fingerprint(images.cutout(row))
            except DataError:
                continue
        return prints

    return kept_array(cache, measure)


def fingerprint(pixels: np.ndarray) -> Float32[np.ndarray, " pixels"]:
    """Return the luminance of one cutout, uint8 (height, width, 3), as a unit vector of 576 values.

    The product of two of them is the correlation of the cutouts: see :data:`CORRELATION`.
    """
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    flat = np.asarray(grey, dtype=np.float32).reshape(-1)
    if flat.min() == flat.max():
        flat = np.random.default_rng(int(flat[0])).normal(size=flat.size).astype(np.float32)
    flat = flat - flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), dtype=np.float32)


def near_identical(prints: Float32[np.ndarray, "galaxies pixels"]) -> Int64[np.ndarray, " galaxies"]:
    """Return a group number per galaxy: galaxies of a group are near-identical, directly or through others.

    Examples
    --------
    >>> prints = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    >>> near_identical(prints).tolist()
    [0, 1, 0]
    """
    # Copies of one picture are compared once. Rows of zeros are unreadable images, which are like no other.
    number_of: dict[bytes, int] = {}
    copy_of = np.empty(len(prints), dtype=np.int64)
    for row, values in enumerate(prints):
        key = hashlib.sha256(values.tobytes() if values.any() else str(row).encode()).digest()
        copy_of[row] = number_of.setdefault(key, len(number_of))
    different = prints[np.unique(copy_of, return_index=True)[1]]
    groups = np.arange(len(different))
    pairs: list[np.ndarray] = []
    waiting = 0
    for start in range(0, len(different), _BLOCK):
        for other in range(start, len(different), _BLOCK):
            similar = different[start : start + _BLOCK] @ different[other : other + _BLOCK].T > CORRELATION
            left, right = np.nonzero(similar)
            linked = np.stack([groups[left + start], groups[right + other]])
            # Thousands of nearly equal pictures have millions of pairs: they are merged before there are more, and
            # pairs within a group that is known already are left out.
            pairs.append(linked[:, linked[0] != linked[1]])
            waiting += pairs[-1].shape[1]
            if waiting > _MOST_PAIRS:
                groups, pairs, waiting = _merged(groups, pairs), [], 0
    return _merged(groups, pairs)[copy_of]


def _merged(groups: Int64[np.ndarray, " galaxies"], pairs: list[np.ndarray]) -> Int64[np.ndarray, " galaxies"]:
    """Join groups that are linked by pairs (2, n); groups are numbered by their first galaxies."""
    left, right = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), dtype=np.int64)
    links = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(groups), len(groups)))
    _, joined = connected_components(links, directed=False)
    return np.asarray(joined[groups], dtype=np.int64)


def highest_between(prints: Float32[np.ndarray, "galaxies pixels"]) -> float:
    """Return the highest correlation between two different galaxies."""
    highest = -1.0
    for start in range(0, len(prints), _BLOCK):
        similar = prints[start : start + _BLOCK] @ prints[start:].T
        np.fill_diagonal(similar, -1.0)
        highest = max(highest, float(similar.max()))
    return highest


def lowest_after_saving_again(images: ImageSource, galaxies: int, *, quality: int) -> float:
    """Return the lowest correlation of a cutout with itself after it was saved as JPEG of that quality."""
    lowest = 1.0
    for row in range(galaxies):
        pixels, stream = images.cutout(row), io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=quality)
        again = np.asarray(Image.open(stream))
        lowest = min(lowest, float(fingerprint(pixels) @ fingerprint(again)))
    return lowest
