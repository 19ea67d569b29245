"""Cutouts from folders, tar shards, HDF5 and memory; one rule for every kind of pixel.

Whatever is read comes out as uint8 (height, width, 3):

    greyscale, palette, CMYK     converted to RGB
    transparency                 laid on black, the colour of empty sky
    16-bit PNG or TIFF           divided by 257 (65535 → 255); the file says nothing better
    FITS, one plane              asinh stretch from the 1st to the 99.8th percentile
    FITS, three planes           Lupton et al. (2004) RGB of planes 3, 2, 1 (reddest last in the file, as in g, r, z)
    NaN in FITS                  the lowest value of the plane: black
"""

import io
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from rarezoo.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".fits", ".fit", ".fts", ".fits.gz")
_FITS = (".fits", ".fit", ".fts", ".fits.gz")
WAY_OUT = "Mend or remove it, or go on without such galaxies: data.on_bad_image=skip lists what it skips."
_ASINH_PERCENTILES = (1.0, 99.8)
_ASINH_SOFTENING = 0.1


class ImageSource(ABC):
    """Cutouts by row of the catalogue. Picklable, and safe to use from several worker processes."""

    @abstractmethod
    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """One galaxy's pixels, any size, 0–255.

        Raises:
            DataError: the image is missing or unreadable (``ids`` names the galaxy).
        """


class EncodedImages(ImageSource):
    """Images that are read as bytes and decoded; subclasses say where the bytes are."""

    def __init__(self, names: Sequence[str], ids: Sequence[str]) -> None:
        # Fixed-width numpy strings: forked workers then share them instead of copying Python objects.
        self.names, self.ids = np.array(names, dtype=np.str_), np.array(ids, dtype=np.str_)

    @abstractmethod
    def encoded(self, row: int) -> bytes:
        """The file's bytes."""

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """One galaxy's pixels."""
        try:
            return decoded(self.encoded(row), name=str(self.names[row]))
        except (OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError) as problem:
            raise _unreadable(str(self.ids[row]), str(self.names[row]), problem) from problem


class FolderImages(EncodedImages):
    """One file per galaxy below a folder; names are paths relative to it (or absolute)."""

    def __init__(self, folder: Path, names: Sequence[str], ids: Sequence[str]) -> None:
        super().__init__(names, ids)
        self.folder = folder

    def encoded(self, row: int) -> bytes:
        """The file's bytes."""
        return (self.folder / str(self.names[row])).read_bytes()


class TarImages(EncodedImages):
    """Files inside uncompressed tar shards, read in place."""

    def __init__(self, shards: Sequence[Path], names: Sequence[str], ids: Sequence[str]) -> None:
        super().__init__(names, ids)
        self.shards = [str(shard) for shard in shards]
        found = tar_members(shards)
        missing = [str(one) for one, name in zip(ids, names, strict=True) if name not in found]
        if missing:
            raise missing_images(missing, where=", ".join(self.shards[:3]))
        self.places = np.array([found[name] for name in names], dtype=np.int64)
        self._open: dict[tuple[int, int], int] = {}

    def encoded(self, row: int) -> bytes:
        """The file's bytes, by one positioned read: safe for several workers at once."""
        shard, offset, size = self.places[row].tolist()
        return os.pread(self._descriptor(shard), size, offset)

    def _descriptor(self, shard: int) -> int:
        key = (os.getpid(), shard)
        if key not in self._open:
            self._open[key] = os.open(self.shards[shard], os.O_RDONLY)
        return self._open[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


class ArrayImages(ImageSource):
    """Pixels already decoded, (n, height, width, 3) uint8: in memory, a memory map, or an HDF5 data set."""

    def __init__(self, pixels: Any, rows: np.ndarray, ids: Sequence[str]) -> None:
        self.pixels, self.rows, self.ids = pixels, rows, ids

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """One galaxy's pixels."""
        return rgb(np.asarray(self.pixels[int(self.rows[row])]))


class Hdf5Images(ImageSource):
    """Data set ``images`` (n, height, width[, 3]) beside ``id_str`` (n,) in one HDF5 file."""

    def __init__(self, path: Path, ids: Sequence[str]) -> None:
        import h5py

        self.path, self.ids = path, ids
        with h5py.File(path, "r") as file:
            absent = {"images", "id_str"} - set(file)
            if absent:
                raise DataError(
                    f"{path} needs data sets images and id_str", value=f"missing {sorted(absent)}", fix="Add them."
                )
            place = {_text(one): index for index, one in enumerate(file["id_str"][:])}
        missing = [one for one in ids if one not in place]
        if missing:
            raise missing_images(missing, where=str(path))
        self.rows = np.array([place[one] for one in ids], dtype=np.int64)
        self._file: dict[int, Any] = {}

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """One galaxy's pixels."""
        import h5py

        # HDF5 handles do not survive a fork: one per process.
        file = self._file.setdefault(os.getpid(), None) or h5py.File(self.path, "r")
        self._file[os.getpid()] = file
        try:
            return rgb(np.asarray(file["images"][self.rows[row]]))
        except (OSError, ValueError) as problem:
            raise _unreadable(self.ids[row], str(self.path), problem) from problem

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": {}}


def tar_members(shards: Sequence[Path]) -> dict[str, tuple[int, int, int]]:
    """Member name → (shard, offset of its bytes, size) over several tar files.

    Raises:
        DataError: a shard is missing, compressed or no tar file.
    """
    found = {}
    for index, shard in enumerate(shards):
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        found[member.name.removeprefix("./")] = (index, member.offset_data, member.size)
        except (OSError, tarfile.TarError) as problem:
            raise DataError(
                f"unreadable tar shard ({problem})", value=shard, fix="Give uncompressed tar files."
            ) from problem
    return found


def missing_images(ids: Sequence[str], *, where: str) -> DataError:
    """The error for galaxies whose image file is not there."""
    return DataError(f"{len(ids)} galaxies have no image", value=where, fix=WAY_OUT, ids=ids)


def decoded(content: bytes, *, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels of an image file.

    Raises:
        OSError, ValueError: the bytes are no image, or not a whole one.
    """
    if not content:
        raise OSError("the file is empty")
    if name.lower().endswith(_FITS):
        return _fits_pixels(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return _pil_pixels(image)
    except UnidentifiedImageError as problem:
        raise OSError("not an image that Pillow knows") from problem


def _pil_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return rgb(_eight_bit(np.asarray(image)))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        layered = image.convert("RGBA")
        black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, layered).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    wide = np.nan_to_num(pixels.astype(np.float64))
    top = wide.max(initial=0.0)
    if top > 255:
        wide = wide / 257
    elif 0 < top <= 1:
        wide = wide * 255
    return np.asarray(np.clip(np.rint(wide), 0, 255), dtype=np.uint8)


def rgb(pixels: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    """Grey (h, w), (h, w, 1), colour (h, w, 3 or 4) or channels first (3, h, w), as uint8 (h, w, 3).

    Raises:
        ValueError: any other shape.
    """
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype != np.uint8:
        pixels = _eight_bit(pixels)
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1):
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        return np.ascontiguousarray(pixels[:, :, :3])
    raise ValueError(f"an image has one, three or four channels, not shape {pixels.shape}")


def _fits_pixels(content: bytes) -> UInt8[np.ndarray, "height width 3"]:
    from astropy.io import fits
    from astropy.visualization import make_lupton_rgb

    with fits.open(io.BytesIO(content), memmap=False) as file:
        planes = next((np.asarray(unit.data, np.float64) for unit in file if _is_image(unit)), None)
    if planes is None:
        raise ValueError("no image in the FITS file")
    planes = np.stack([_without_nan(plane) for plane in planes.reshape(-1, *planes.shape[-2:])])
    if len(planes) < 3:
        return rgb(_asinh(planes[0]))
    blue, green, red = planes[:3]
    noise = float(np.median(np.abs(green - np.median(green)))) or 1.0
    sky = float(np.median(planes))
    with np.errstate(invalid="ignore", divide="ignore"):  # astropy divides before it masks pixels without light
        return np.asarray(make_lupton_rgb(red, green, blue, minimum=sky, stretch=20 * noise, Q=8))


def _is_image(unit: Any) -> bool:
    return unit.data is not None and getattr(unit.data, "dtype", np.dtype("V")).names is None and unit.data.ndim >= 2


def _without_nan(plane: np.ndarray) -> np.ndarray:
    finite = plane[np.isfinite(plane)]
    if not len(finite):
        raise ValueError("a plane of the FITS file has no finite value")
    return np.where(np.isfinite(plane), plane, finite.min())


def _asinh(plane: np.ndarray) -> np.ndarray:
    low, high = np.percentile(plane, _ASINH_PERCENTILES)
    scaled = np.clip((plane - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    stretched = np.arcsinh(scaled / _ASINH_SOFTENING) / np.arcsinh(1 / _ASINH_SOFTENING)
    return np.asarray(np.rint(255 * stretched), dtype=np.uint8)


def _unreadable(galaxy: str, name: str, problem: Exception) -> DataError:
    return DataError(f"unreadable image ({problem})", value=name, fix=WAY_OUT, ids=[galaxy])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
