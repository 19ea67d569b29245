"""What the images of a survey are, whatever their names and wherever they lie: a hash of their content."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from rarezoo.data.images import ImageSource
from rarezoo.errors import RarezooError
from rarezoo.runs import Stamped

# Reading small files waits for the disk or the network most of the time, so that several threads read faster.
_THREADS = 8
_AT_ONCE = 4096
_UNREADABLE = b"unreadable"
# Seconds after which progress is shown.
_SILENT = 5


def images_identity(images: ImageSource, ids: Sequence[str] | np.ndarray, rows: Sequence[int] | np.ndarray) -> Stamped:
    """Return the identity of the images of some galaxies.

    Its stamp follows from the sizes of the image files and from when they were last changed; the content is read only
    if the stamp has changed. Images that cannot be read have a content of their own, so that repairing one is a change.

    Parameters
    ----------
    images
        Cutouts by row of the catalogue.
    ids
        Ids of all galaxies of the catalogue.
    rows
        Rows of the galaxies whose images count, in their order.
    """
    stamps = _digest(rows, lambda row: images.stamp(row).encode()) if len(rows) and images.stamp(int(rows[0])) else ""
    return Stamped(stamps, lambda: _digest(rows, lambda row: str(ids[row]).encode() + b"\0" + _content(images, row)))


def _content(images: ImageSource, row: int) -> bytes:
    try:
        return hashlib.sha256(images.content(row)).digest()
    except (OSError, ValueError, RarezooError):
        return _UNREADABLE


def _digest(rows: Sequence[int] | np.ndarray, value: Callable[[int], bytes]) -> str:
    state = hashlib.sha256()
    progress = tqdm(_in_order(rows, value), "comparing images", len(rows), unit="galaxy", leave=False, delay=_SILENT)
    for part in progress:
        state.update(len(part).to_bytes(4, "little") + part)
    return state.hexdigest()


def _in_order(rows: Sequence[int] | np.ndarray, value: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the value of each row, computed by several threads, without holding all of them in memory."""
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(rows), _AT_ONCE):
            yield from threads.map(value, map(int, rows[start : start + _AT_ONCE]))
