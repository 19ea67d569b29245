"""Cutouts from folders, tar shards and HDF5 files, with one rule for every kind of pixel.

Every image is returned as uint8 (height, width, 3):

    greyscale, palette, CMYK     converted to RGB
    transparency                 laid on black, the colour of empty sky
    16-bit PNG or TIFF           divided by 257 (65535 → 255), because the file says nothing about its scale
    FITS, one plane              asinh stretch from the 1st to the 99.8th percentile
    FITS, three planes           Lupton et al. (2004) RGB of planes 3, 2, 1 (reddest last in the file, as in g, r, z)
    NaN in FITS                  the lowest value of the plane: black

The readers are our own: an image column of Hugging Face ``datasets`` would copy a survey into Arrow files first, while
tar shards are read in place here, and ``datasets`` is an optional dependency.
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

from rarezoo.errors import DataError, MissingDependency

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".fits", ".fit", ".fts", ".fits.gz")
_FITS = (".fits", ".fit", ".fts", ".fits.gz")
SKIP_HINT = "Repair or remove it, or continue without such galaxies: data.on_bad_image=skip lists those that it skips."
_ASINH_PERCENTILES = (1.0, 99.8)
_ASINH_SOFTENING = 0.1


class ImageSource(ABC):
    """Cutouts by row of the catalogue. Sources can be pickled and used by several worker processes at once.

    Examples
    --------
    >>> class Black(ImageSource):
    ...     def cutout(self, row):
    ...         return np.zeros((8, 8, 3), dtype=np.uint8)
    >>> Black().cutout(3).shape
    (8, 8, 3)
    """

    @abstractmethod
    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one galaxy, of any size, 0 to 255.

        Raises
        ------
        DataError
            The image is missing or unreadable; ``ids`` names the galaxy.
        """

    def stamp(self, row: int) -> str:
        """Return a text that changes whenever the image changes, such as size and time of its file; empty: unknown.

        It must be cheap to get: much cheaper than the image itself.
        """
        return ""

    def content(self, row: int) -> bytes:
        """Return the bytes that decide the pixels of one galaxy: by default the pixels themselves.

        Raises
        ------
        DataError, OSError
            The image is missing or unreadable.
        """
        pixels = self.cutout(row)
        return f"{pixels.shape}".encode() + pixels.tobytes()


class EncodedImages(ImageSource):
    """Images that are read as bytes and decoded; subclasses say where the bytes are."""

    def __init__(self, names: Sequence[str], ids: Sequence[str]) -> None:
        # Fixed-width numpy strings: forked workers then share them instead of copying Python objects.
        self.names, self.ids = np.array(names, dtype=np.str_), np.array(ids, dtype=np.str_)

    @abstractmethod
    def encoded(self, row: int) -> bytes:
        """Return the bytes of an image file."""

    def content(self, row: int) -> bytes:
        """Return the bytes of an image file, from which its pixels follow."""
        return self.encoded(row)

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one galaxy; see :meth:`ImageSource.cutout`."""
        try:
            return decoded(self.encoded(row), name=str(self.names[row]))
        except (OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError) as problem:
            raise unreadable_image(str(self.ids[row]), str(self.names[row]), problem) from problem


class FolderImages(EncodedImages):
    """One file per galaxy below a folder.

    Parameters
    ----------
    folder
        The folder.
    names
        Path of each galaxy's file, relative to the folder or absolute.
    ids
        Ids of the galaxies, for messages.
    """

    def __init__(self, folder: Path, names: Sequence[str], ids: Sequence[str]) -> None:
        super().__init__(names, ids)
        self.folder = folder.absolute()

    def encoded(self, row: int) -> bytes:
        """Return the bytes of an image file."""
        return (self.folder / str(self.names[row])).read_bytes()

    def stamp(self, row: int) -> str:
        """Return size and times of the file."""
        return file_stamp(self.folder / str(self.names[row]))


class TarImages(EncodedImages):
    """Files inside uncompressed tar shards, read in place.

    Parameters
    ----------
    shards
        The tar files.
    names
        Name of each galaxy's file inside them.
    ids
        Ids of the galaxies, for messages.

    Raises
    ------
    DataError
        A shard is unreadable, or a file is in none of them.
    """

    def __init__(self, shards: Sequence[Path], names: Sequence[str], ids: Sequence[str]) -> None:
        super().__init__(names, ids)
        self.shards = [str(shard.absolute()) for shard in shards]
        members = tar_members(shards)
        missing = [galaxy for galaxy, name in zip(ids, names, strict=True) if name not in members]
        if missing:
            raise missing_images(missing, where=", ".join(self.shards[:3]))
        self.places = np.array([members[name] for name in names], dtype=np.int64)
        self._descriptors: dict[tuple[int, int], int] = {}

    def encoded(self, row: int) -> bytes:
        """Return the bytes of an image file by one positioned read, which is safe for several workers at once."""
        shard, offset, size = self.places[row].tolist()
        key = (os.getpid(), shard)
        if key not in self._descriptors:
            self._descriptors[key] = os.open(self.shards[shard], os.O_RDONLY)
        return os.pread(self._descriptors[key], size, offset)

    def stamp(self, row: int) -> str:
        """Return size and times of the shard, and the place of the file in it."""
        shard, offset, size = self.places[row].tolist()
        return f"{file_stamp(self.shards[shard])} {offset} {size}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}


class Hdf5Images(ImageSource):
    """Images of one HDF5 file: data set ``images`` (n, height, width[, 3]) beside ``id_str`` (n,).

    Parameters
    ----------
    path
        The file.
    ids
        Ids of the galaxies, in the order of the catalogue.

    Raises
    ------
    DataError
        A data set is missing, or a galaxy is not in ``id_str``.
    MissingDependency
        h5py is not installed.
    """

    def __init__(self, path: Path, ids: Sequence[str]) -> None:
        self.path, self.ids = path.absolute(), list(ids)
        with _h5py().File(self.path, "r") as file:
            absent = {"images", "id_str"} - set(file)
            if absent:
                raise DataError(
                    f"{path} needs data sets images and id_str", value=f"missing {sorted(absent)}", fix="Add them."
                )
            texts = (value.decode() if isinstance(value, bytes) else str(value) for value in file["id_str"][:])
            row_of = {galaxy: row for row, galaxy in enumerate(texts)}
        missing = [galaxy for galaxy in ids if galaxy not in row_of]
        if missing:
            raise missing_images(missing, where=str(path))
        self.rows = np.array([row_of[galaxy] for galaxy in ids], dtype=np.int64)
        self._files: dict[int, Any] = {}

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one galaxy; see :meth:`ImageSource.cutout`."""
        # Handles of HDF5 do not survive a fork: each process opens its own.
        process = os.getpid()
        if process not in self._files:
            self._files[process] = _h5py().File(self.path, "r")
        try:
            return rgb(np.asarray(self._files[process]["images"][self.rows[row]]))
        except (OSError, ValueError) as problem:
            raise unreadable_image(self.ids[row], str(self.path), problem) from problem

    def stamp(self, row: int) -> str:
        """Return size and times of the file, and the row in it."""
        return f"{file_stamp(self.path)} {self.rows[row]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


def file_stamp(path: Path | str) -> str:
    """Return size and times of a file as text: whoever writes into the file changes the text."""
    try:
        about = os.stat(path)
    except OSError:
        return "absent"
    # The time of change of the inode cannot be set by copying programs, unlike that of the content.
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as problem:
        raise MissingDependency("h5py", extra="hdf5", purpose="A survey of images in HDF5") from problem
    return h5py


def tar_members(shards: Sequence[Path]) -> dict[str, tuple[int, int, int]]:
    """Return where each file of several tar shards is: name → (shard, offset of its bytes, size).

    Raises
    ------
    DataError
        A shard is missing, compressed or no tar file.
    """
    members = {}
    for index, shard in enumerate(shards):
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        members[member.name.removeprefix("./")] = (index, member.offset_data, member.size)
        except (OSError, tarfile.TarError) as problem:
            raise DataError(
                f"unreadable tar shard ({problem})", value=shard, fix="Give uncompressed tar files."
            ) from problem
    return members


def missing_images(ids: Sequence[str], *, where: str) -> DataError:
    """Return the error for galaxies without an image file."""
    return DataError(f"{len(ids)} galaxies have no image", value=where, fix=SKIP_HINT, ids=ids)


def unreadable_image(galaxy: str, name: str, problem: Exception) -> DataError:
    """Return the error for the image file of a galaxy that cannot be read."""
    return DataError(f"unreadable image ({problem})", value=name, fix=SKIP_HINT, ids=[galaxy])


def decoded(content: bytes, *, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pixels of an image file.

    Parameters
    ----------
    content
        Bytes of the file.
    name
        Name of the file; its ending says whether it is FITS.

    Raises
    ------
    OSError, ValueError
        The bytes are not an image, or only a part of one.
    """
    if not content:
        raise OSError("the file is empty")
    if name.lower().endswith(_FITS):
        return _fits_pixels(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                return rgb(_eight_bit(np.asarray(image)))
            if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
                layered = image.convert("RGBA")
                black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
                return np.asarray(Image.alpha_composite(black, layered).convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as problem:
        raise OSError("not an image that Pillow knows") from problem


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(pixels.astype(np.float64))
    largest = values.max(initial=0.0)
    if largest > 255:
        values = values / 257
    elif 0 < largest <= 1:
        values = values * 255
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def rgb(pixels: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    """Return pixels as uint8 (h, w, 3).

    Parameters
    ----------
    pixels
        Grey (h, w) or (h, w, 1), colour (h, w, 3 or 4), or channels first (1 or 3, h, w).

    Raises
    ------
    ValueError
        The array has another shape.

    Examples
    --------
    >>> rgb(np.ones((4, 5), dtype=np.float32)).shape
    (4, 5, 3)
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
