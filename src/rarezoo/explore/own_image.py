"""An image of the user's own is embedded as the galaxies of a store were, so that it can be compared with them.

This is the one place of the package ``rarezoo.explore`` where torch is imported, when an image is embedded.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from rarezoo.data.images import StoredImages, file_bytes
from rarezoo.data.pixels import SCALE_HINT, UnknownScale, decoded
from rarezoo.embeddings.store import IMPORTED
from rarezoo.errors import CheckpointError, CheckpointNotFound, ConfigError, DataError, DataNotFound
from rarezoo.explore.pool import Pool
from rarezoo.zoo.cards import find_checkpoint, identity, read_card

# An image is unlike every galaxy if it is farther from them than this share of galaxies are from their nearest.
_FAR = 0.999


def embed_file(pool: Pool, path: Path | str, *, checkpoint: str = "") -> Float32[np.ndarray, " d"]:
    """Return the embedding of an image file under the network of a store.

    Parameters
    ----------
    pool : Pool
        The galaxies that it will be compared with.
    path : Path or str
        PNG, JPEG, TIFF, FITS or another image that :mod:`rarezoo.data.pixels` reads, with the galaxy at its centre.
    checkpoint : str
        Folder or name of the network; empty: the name that the store recorded.

    Raises
    ------
    DataError
        The file is no image.
    ConfigError
        The embeddings of the store were imported, so that no network is known.
    CheckpointError
        The checkpoint is not here, or is not the one that the store was embedded with.
    """
    about = pool.store.manifest
    if about.precision == IMPORTED:
        raise ConfigError(
            "the embeddings of this store were imported, so no network is known that could embed an image",
            value=about.checkpoint, fix="Give the id of a galaxy, or use a store that rarezoo embedded.",
        )  # fmt: skip
    pixels = own_pixels(pool, Path(path))
    try:
        folder = find_checkpoint(checkpoint or about.checkpoint)
    except CheckpointNotFound as problem:
        raise CheckpointNotFound(
            "the network that embedded this store is not here", value=checkpoint or about.checkpoint,
            fix="Name its folder: checkpoint=DIR.",
        ) from problem  # fmt: skip
    if identity(read_card(folder)) != about.checkpoint_sha256:
        raise CheckpointError(
            "this is not the network that embedded the store", value=folder,
            fix=f"Name the folder of {about.checkpoint} as it was then: checkpoint=DIR.",
        )  # fmt: skip
    from rarezoo.embeddings.embed import embed_pixels
    from rarezoo.zoo.checkpoint import Checkpoint

    return embed_pixels(pixels, Checkpoint.open(folder), precision=about.precision, turns=about.turns)


def unlike_every_galaxy(pool: Pool, vector: Float32[np.ndarray, " d"]) -> str:
    """Return a sentence if an embedding is farther from every galaxy than galaxies are from each other, else nothing.

    Parameters
    ----------
    pool : Pool
        The galaxies.
    vector : (d,) array of floats
        An embedding, not centred.
    """
    distance = float(pool.store.index.nearest_distances(vector[None])[0])
    usual = float(np.quantile(pool.store.nearest_distances, _FAR))
    if distance <= usual:
        return ""
    return (
        f"No galaxy of this survey looks like it: the nearest is at a distance of {distance:.3g} in the embedding, and "
        f"{100 * _FAR:g} % of the galaxies have another one within {usual:.3g}."
    )


def own_pixels(pool: Pool, path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pixels of an image file, scaled as those of the survey.

    Raises
    ------
    DataError
        The file is no image.
    """
    images = None if pool.galaxies is None else pool.galaxies.images
    pixel_range = images.pixel_range if isinstance(images, StoredImages) else ()
    try:
        return decoded(file_bytes(path, root=None), pixel_range=pixel_range)
    except FileNotFoundError as problem:
        raise DataNotFound("there is no such image file", value=path, fix="Correct the path.") from problem
    except UnknownScale as problem:
        raise DataError(f"an image without a scale ({problem})", value=path, fix=SCALE_HINT) from problem
    except Exception as problem:  # Decoders raise errors of many kinds.
        reason = " ".join(str(problem).split())[:300] or type(problem).__name__
        raise DataError(
            f"this file is no image that can be read ({reason})",
            value=path,
            fix="Give a PNG, JPEG, TIFF or FITS image.",
        ) from problem
