"""Near-identical images, found so that they never straddle train and test.

Two cutouts are near-identical when their luminance, at 24 × 24 pixels with mean and contrast taken out, correlates
above a threshold. Smooth round galaxies correlate well with each other too: the threshold stands between the highest
correlation of different galaxies and the lowest of a picture saved again: `python -m benchmarks duplicates` measures
both.
A false hit costs no more than that two galaxies share a split.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image
from tqdm import tqdm

from rarezoo.data.images import ImageSource
from rarezoo.errors import DataError
from rarezoo.tables import atomic

_SIDE = 24
_CORRELATION = 0.9965
_BLOCK = 2048


def fingerprints(
    images: ImageSource, galaxies: int, *, cache: Path | None = None
) -> Float32[np.ndarray, "galaxies pixels"]:
    """Unit vectors (n, 576) of each cutout's luminance; all zero for an unreadable image.

    Args:
        images: cutouts by row.
        galaxies: how many.
        cache: where to keep them for the next time.
    """
    if cache is not None and cache.exists():
        return np.asarray(np.load(cache))
    rows = tqdm(range(galaxies), desc="looking for near-identical images", unit="galaxy", leave=False)
    prints = np.stack([_fingerprint(images, row) for row in rows])
    if cache is not None:
        with atomic(cache) as temporary, temporary.open("wb") as stream:
            np.save(stream, prints)
    return prints


def _fingerprint(images: ImageSource, row: int) -> Float32[np.ndarray, " pixels"]:
    try:
        pixels = images.cutout(row)
    except DataError:
        return np.zeros(_SIDE * _SIDE, dtype=np.float32)
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    flat = np.asarray(grey, dtype=np.float32).reshape(-1)
    flat = flat - flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), dtype=np.float32)


def near_identical(prints: Float32[np.ndarray, "galaxies pixels"]) -> Int64[np.ndarray, " galaxies"]:
    """Group number of each galaxy; galaxies of one group are near-identical, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [_pairs_of_block(prints, start) for start in range(0, len(prints), _BLOCK)]
    left, right = np.concatenate(pairs, axis=1)
    links = coo_array((np.ones(len(left)), (left, right)), shape=(len(prints), len(prints)))
    _, groups = connected_components(links, directed=False)
    return np.asarray(groups, dtype=np.int64)


def _pairs_of_block(prints: np.ndarray, start: int) -> Int64[np.ndarray, "2 pairs"]:
    similar = prints[start : start + _BLOCK] @ prints[start:].T
    left, right = np.nonzero(similar > _CORRELATION)
    kept = right > left
    return np.stack([left[kept], right[kept]]).astype(np.int64) + start


def highest_between(prints: Float32[np.ndarray, "galaxies pixels"]) -> float:
    """The highest correlation between two different galaxies."""
    highest = -1.0
    for start in range(0, len(prints), _BLOCK):
        similar = prints[start : start + _BLOCK] @ prints[start:].T
        np.fill_diagonal(similar, -1.0)
        highest = max(highest, float(similar.max()))
    return highest


def lowest_after_saving_again(images: ImageSource, galaxies: int, *, quality: int) -> float:
    """The lowest correlation of a cutout with itself saved again as JPEG of that quality."""
    again = [_saved_again(images.cutout(row), quality) for row in range(galaxies)]
    return min(float(_fingerprint(images, row) @ _fingerprint(_One(pixels), 0)) for row, pixels in enumerate(again))


class _One(ImageSource):
    """A single cutout."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def cutout(self, row: int) -> np.ndarray:
        return self.pixels


def _saved_again(pixels: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=quality)
    return np.asarray(Image.open(stream))
