"""Images of galaxies for the page: stretched, encoded, and kept in memory."""

import io
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rarezoo.errors import ConfigError
from rarezoo.report.gallery import thumbnail

# Brightness curves from 0–1 to 0–1, the same as in web/src/stretch.js.
STRETCHES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda values: values,
    "sqrt": np.sqrt,
    "asinh": lambda values: np.arcsinh(10 * values) / np.arcsinh(10),
    "log": lambda values: np.log1p(1000 * values) / np.log(1001),
}
FORMATS = ("webp", "png")
# Sides of a thumbnail, px.
SMALLEST, LARGEST = 16, 1024
_MOST_BYTES = 64 << 20
_QUALITY = 90


class Pictures:
    r"""Encoded images of galaxies; those that were asked for last are kept in memory, up to 64 MiB.

    Parameters
    ----------
    cutout
        Function from an id to pixels, uint8 (height, width, 3).
    most_bytes
        How much is kept.

    Examples
    --------
    >>> pictures = Pictures(lambda galaxy: np.zeros((8, 8, 3), np.uint8))
    >>> pictures.encoded("J1", kind="png")[:4]
    b'\x89PNG'
    """

    def __init__(self, cutout: Callable[[str], np.ndarray], *, most_bytes: int = _MOST_BYTES) -> None:
        self._cutout, self._most_bytes = cutout, most_bytes
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._size = 0
        # Readers of images need not be safe for several threads.
        self._reading, self._keeping = Lock(), Lock()

    def encoded(self, galaxy: str, *, stretch: str = "linear", side: int | None = None, kind: str = "webp") -> bytes:
        """Return an image file.

        Parameters
        ----------
        galaxy
            Id of the galaxy.
        stretch
            ``linear``, ``sqrt``, ``asinh`` or ``log``.
        side
            The central square in this many px; None: the whole image as it is.
        kind
            ``webp`` or ``png``.

        Raises
        ------
        ConfigError
            There is no such stretch, side or kind.
        """
        if stretch not in STRETCHES:
            raise ConfigError("there is no such stretch", value=stretch, fix=f"Choose one of: {', '.join(STRETCHES)}.")
        if kind not in FORMATS:
            raise ConfigError("there is no such format", value=kind, fix=f"Choose one of: {', '.join(FORMATS)}.")
        if side is not None and not SMALLEST <= side <= LARGEST:
            raise ConfigError("there is no such size", value=side, fix=f"Choose {SMALLEST} to {LARGEST} px.")
        key = (galaxy, stretch, side, kind)
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._reading:
            pixels = stretched(self._cutout(galaxy), stretch)
        image = Image.fromarray(np.ascontiguousarray(pixels)) if side is None else thumbnail(pixels, side=side)
        stream = io.BytesIO()
        image.save(stream, kind, quality=_QUALITY)
        self._keep(key, stream.getvalue())
        return stream.getvalue()

    def _keep(self, key: tuple[object, ...], content: bytes) -> None:
        with self._keeping:
            self._size += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._size > self._most_bytes:
                self._size -= len(self._kept.popitem(last=False)[1])


def stretched(pixels: UInt8[np.ndarray, "height width 3"], stretch: str) -> UInt8[np.ndarray, "height width 3"]:
    """Return pixels under a brightness curve.

    >>> stretched(np.array([[[0, 64, 255]]], np.uint8), "sqrt").tolist()
    [[[0, 128, 255]]]
    """
    if stretch == "linear":
        return pixels
    table = np.round(255 * STRETCHES[stretch](np.arange(256) / 255)).astype(np.uint8)
    return np.asarray(table[pixels])
