"""Cutouts from folders, tar shards and HDF5 files; :mod:`rarezoo.data.pixels` has the rules for their pixels.

Whatever a decoder raises is an unreadable image, because decoders raise errors of many kinds.

The readers are our own: an image column of Hugging Face ``datasets`` would copy a survey into Arrow files first, while
tar shards are read in place here, and ``datasets`` is an optional dependency.
"""

import logging
import os
import posixpath
import stat
import tarfile
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from rarezoo.data.matching import files_by_name, is_inside
from rarezoo.data.pixels import MOST_BYTES, SCALE_HINT, UnknownScale, refuse_large, rgb, stored_pixels
from rarezoo.data.reading import ids_of, spelling_hint
from rarezoo.errors import DataError, MissingDependency, RarezooError

log = logging.getLogger(__name__)
SKIP_HINT = "Repair or remove it, or continue without such galaxies: data.on_bad_image=skip lists those that it skips."
OUTSIDE_HINT = "Allow names and links that lead out of data.images: data.allow_outside=true."
Place = tuple[int, int, int]  # of a file in tar shards: number of the shard, offset and size in bytes
_LOOKED_AT = 16
_MOST_LINKS = 40
_MOST_CHUNK = 2**30
_PLACEHOLDER = 64
_NAMED = 5


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


class TakenImages(ImageSource):
    """Some images of another source.

    Parameters
    ----------
    source
        The other source.
    rows
        (m,) its row for each galaxy.
    """

    def __init__(self, source: ImageSource, rows: np.ndarray) -> None:
        self.source, self.rows = source, np.asarray(rows, dtype=np.int64)

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one galaxy."""
        return self.source.cutout(int(self.rows[row]))

    def stamp(self, row: int) -> str:
        """Return the stamp of the other source."""
        return self.source.stamp(int(self.rows[row]))

    def content(self, row: int) -> bytes:
        """Return the bytes that decide the pixels of one galaxy."""
        return self.source.content(int(self.rows[row]))


class StoredImages(ImageSource):
    """Images of a user in the types that they have in their files; subclasses read them.

    Parameters
    ----------
    names
        What messages call the image of each galaxy.
    ids
        Ids of the galaxies, for messages.
    pixel_range
        The two values that become black and white; empty: the type of the pixels decides. See
        :func:`rarezoo.data.pixels.rgb`.
    """

    def __init__(self, names: Sequence[str], ids: Sequence[str], *, pixel_range: Sequence[float] = ()) -> None:
        # Fixed-width numpy strings: forked workers then share them instead of copying Python objects.
        self.names, self.ids = np.array(names, dtype=np.str_), np.array(ids, dtype=np.str_)
        self.pixel_range = tuple(pixel_range)

    @property
    def scale(self) -> str:
        """The range of black and white as text, part of every stamp; empty if there is none."""
        return " ".join(map(str, self.pixel_range))

    @abstractmethod
    def stored(self, row: int) -> np.ndarray:
        """Return the pixels of one galaxy in the type that they have in the file; any exception means unreadable."""

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one galaxy; see :meth:`ImageSource.cutout`."""
        try:
            return rgb(self.stored(row), pixel_range=self.pixel_range)
        except Exception as problem:
            raise unreadable_image(str(self.ids[row]), str(self.names[row]), problem) from problem

    def check_scale(self) -> None:
        """Look at a few images, spread evenly over the survey, and refuse a survey whose pixels have no known scale.

        Raises
        ------
        DataError
            An image is of a type without a scale; or images are of 16 bits, and none has a value above 1/16 of the
            range, so that fewer than 16 grey levels would be left.
        """
        if self.pixel_range:
            return
        brightest = {}
        for row in np.unique(np.linspace(0, len(self.ids) - 1, _LOOKED_AT).astype(int)):
            try:
                pixels = self.stored(row)
                rgb(pixels)
            except UnknownScale as problem:
                raise unreadable_image(str(self.ids[row]), str(self.names[row]), problem) from problem
            except Exception:  # reported when the image is read
                continue
            if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
                brightest[str(self.ids[row])] = int(pixels.max())
        if brightest and max(brightest.values()) <= np.iinfo(np.uint16).max // 16:
            raise DataError(
                "images of 16 bits use only a small part of their range and would be black",
                value=f"none of {len(brightest)} images has a value above {max(brightest.values())}, of 65535",
                fix=f"{SCALE_HINT} data.pixel_range=[0,65535] takes them as they are.", ids=list(brightest),
            )  # fmt: skip


class EncodedImages(StoredImages):
    """Images that are read as bytes and decoded; subclasses say where the bytes are."""

    @abstractmethod
    def encoded(self, row: int) -> bytes:
        """Return the bytes of an image file."""

    def content(self, row: int) -> bytes:
        """Return the bytes of an image file and the range of its pixels, from which the pixels follow."""
        return self.encoded(row) + self.scale.encode()

    def stored(self, row: int) -> np.ndarray:
        """Return the pixels of one galaxy in the type that they have in the file."""
        return stored_pixels(self.encoded(row))


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
    pixel_range
        See :class:`StoredImages`.
    allow_outside
        Whether names and links may lead out of the folder; otherwise such an image is unreadable.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], ids: Sequence[str], *, pixel_range: Sequence[float] = (),
        allow_outside: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(names, ids, pixel_range=pixel_range)
        self.folder, self.root, self.allow_outside = folder.absolute(), os.path.realpath(folder), allow_outside

    def encoded(self, row: int) -> bytes:
        """Return the bytes of an image file."""
        return file_bytes(self.folder / str(self.names[row]), root=None if self.allow_outside else self.root)

    def stamp(self, row: int) -> str:
        """Return size and times of the file."""
        return file_stamp(self.folder / str(self.names[row])) + self.scale


class TarImages(EncodedImages):
    """Files inside uncompressed tar shards, read in place; nothing is unpacked.

    Parameters
    ----------
    shards
        The tar files.
    names
        Name of each galaxy's file inside them, as :func:`tar_members` returns it.
    ids
        Ids of the galaxies, for messages.
    pixel_range
        See :class:`StoredImages`.
    skip_absent
        Whether galaxies without a file are unreadable when they are read; otherwise they are refused at once.
    members
        What :func:`tar_members` returned for the shards, if it is known.

    Raises
    ------
    DataError
        A shard is unreadable; a file is in none of them, or in them more than once.
    """

    def __init__(
        self, shards: Sequence[Path], names: Sequence[str], ids: Sequence[str], *, pixel_range: Sequence[float] = (),
        skip_absent: bool = False, members: Mapping[str, Place] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(names, ids, pixel_range=pixel_range)
        self.shards = [str(shard.absolute()) for shard in shards]
        members = tar_members(shards) if members is None else members
        absent = [row for row, name in enumerate(names) if name not in members]
        # A name that is in the shards more than once is in none of them under that name alone, and is refused here.
        files_by_name(members, [names[row] for row in absent], [ids[row] for row in absent], same=members.get)
        refuse_absent([ids[row] for row in absent], ids, where=", ".join(self.shards[:3]), skip=skip_absent)
        self.places = np.array([members.get(name, (-1, 0, 0)) for name in names], dtype=np.int64).reshape(-1, 3)
        self._descriptors: dict[tuple[int, int], int] = {}

    def encoded(self, row: int) -> bytes:
        """Return the bytes of an image file by one positioned read, which is safe for several workers at once."""
        shard, offset, size = self.places[row].tolist()
        if shard < 0:
            raise FileNotFoundError("not in the tar files")
        if size > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
        key = (os.getpid(), shard)
        if key not in self._descriptors:
            self._descriptors[key] = os.open(self.shards[shard], os.O_RDONLY)
        return os.pread(self._descriptors[key], size, offset)

    def stamp(self, row: int) -> str:
        """Return size and times of the shard, and the place of the file in it."""
        shard, offset, size = self.places[row].tolist()
        return f"{file_stamp(self.shards[shard])} {offset} {size}{self.scale}" if shard >= 0 else "absent"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}


class Hdf5Images(StoredImages):
    """Images of one HDF5 file: data set ``images`` (n, height, width[, 3]) beside ``id_str`` (n,).

    Parameters
    ----------
    path
        The file.
    ids
        Ids of the galaxies, in the order of the catalogue. Spaces around ids, here and in the file, do not matter.
    pixel_range
        See :class:`StoredImages`.
    skip_absent
        Whether galaxies without an image are unreadable when they are read; otherwise they are refused at once.
    allow_outside
        Whether the data sets may be in other files, to which the file links.

    Raises
    ------
    DataError
        The file is unreadable, a data set is missing or of another kind, or a galaxy is not in ``id_str`` or twice.
    MissingDependency
        h5py is not installed.
    """

    def __init__(
        self, path: Path, ids: Sequence[str], *, pixel_range: Sequence[float] = (), skip_absent: bool = False,
        allow_outside: bool = False,
    ) -> None:  # fmt: skip
        self.path = path.absolute()
        super().__init__([f"{path}"] * len(ids), ids, pixel_range=pixel_range)
        h5py = _h5py()
        try:
            with h5py.File(self.path, "r") as file:
                absent = {"images", "id_str"} - set(file)
                if absent:
                    raise DataError(
                        f"{path} needs data sets images and id_str", value=f"missing {sorted(absent)}", fix="Add them."
                    )
                for name in ("images", "id_str"):
                    if not getattr(file.get(name), "shape", ()):
                        kind = type(file.get(name)).__name__
                        raise DataError(f"{name} of {path} is not an array", value=kind, fix="Store a row per galaxy.")
                if not allow_outside:
                    _refuse_other_files(file, h5py, path)
                _refuse_absent_sources(file["images"], path)
                self._check_images(file["images"])
                stored_ids = _hdf5_ids(file["id_str"], images=len(file["images"]), path=path)
        except RarezooError:
            raise
        except Exception as problem:
            raise DataError(
                f"unreadable HDF5 file ({problem})", value=path, fix="Check that it opens elsewhere."
            ) from problem
        spaced = [galaxy for galaxy, count in Counter(galaxy.strip() for galaxy in ids).items() if count > 1]
        if spaced:
            raise DataError(
                "ids that differ only in spaces, which do not matter in HDF5", value=len(spaced),
                fix="Give each galaxy an id of its own.", ids=spaced,
            )  # fmt: skip
        rows_of = defaultdict(list)
        for row, galaxy in enumerate(stored_ids):
            rows_of[galaxy].append(row)
        rows = [rows_of.get(galaxy.strip(), []) for galaxy in ids]
        doubled = [galaxy for galaxy, known in zip(ids, rows, strict=True) if len(known) > 1]
        if doubled:
            raise DataError(
                f"{len(doubled)} galaxies have several images", value=path, fix="Keep one row per id.", ids=doubled
            )
        missing = [galaxy for galaxy, known in zip(ids, rows, strict=True) if not known]
        hint = f"{spelling_hint(missing, stored_ids)}{SKIP_HINT}"
        refuse_absent(missing, ids, where=str(path), skip=skip_absent, hint=hint)
        self.rows = np.array([known[0] if known else -1 for known in rows], dtype=np.int64)
        self._files: dict[int, Any] = {}

    def _check_images(self, images: Any) -> None:
        """Refuse images of a shape or type that cannot be pictures before any is read."""
        if images.dtype.kind not in "buif":
            raise DataError(
                "data set images does not hold numbers", value=images.dtype, fix="Store arrays (n, height, width[, 3])."
            )
        if images.dtype == np.uint8:
            refuse_range(self.pixel_range)
        try:
            refuse_large(images.shape[1:])
            # A few pixels of the same type and number of axes, because the images may be large.
            few = np.zeros([min(side, 5) for side in images.shape[1:]], dtype=images.dtype)
            rgb(few, pixel_range=self.pixel_range)
            if images.chunks and np.prod(images.chunks, dtype=float) * images.dtype.itemsize > _MOST_CHUNK:
                raise ValueError(f"chunks of {images.chunks} are larger than {_MOST_CHUNK >> 20} MiB")
        except ValueError as problem:
            fix = SCALE_HINT if isinstance(problem, UnknownScale) else "Store arrays (n, height, width[, 3])."
            raise DataError(f"data set images cannot be used ({problem})", value=self.path, fix=fix) from problem

    def stored(self, row: int) -> np.ndarray:
        """Return the pixels of one galaxy in the type that they have in the file."""
        if self.rows[row] < 0:
            raise KeyError("not in id_str")
        # Handles of HDF5 do not survive a fork: each process opens its own.
        process = os.getpid()
        if process not in self._files:
            self._files[process] = _h5py().File(self.path, "r")
        images = self._files[process]["images"]
        if not _is_written(images, int(self.rows[row])):
            raise ValueError("nothing was written at its place in the data set")
        return np.asarray(images[self.rows[row]])

    def stamp(self, row: int) -> str:
        """Return size and times of the file, and the row in it."""
        return f"{file_stamp(self.path)} {self.rows[row]} {self.scale}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


def file_stamp(path: Path | str) -> str:
    """Return size and times of a file as text: whoever writes into the file changes the text."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return "absent"
    # The time of change of the inode cannot be set by copying programs, unlike that of the content.
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as problem:
        raise MissingDependency("h5py", extra="hdf5", purpose="A survey of images in HDF5") from problem
    return h5py


def _refuse_other_files(file: Any, h5py: Any, path: Path) -> None:
    """Refuse data sets that are stored in other files than the one that was given."""
    for name in ("images", "id_str"):
        linked = isinstance(file.get(name, getlink=True), h5py.ExternalLink)
        if linked or file[name].external or file[name].is_virtual:
            raise DataError(f"data set {name} is stored in another file", value=path, fix=OUTSIDE_HINT)


def _refuse_absent_sources(images: Any, path: Path) -> None:
    """Refuse a virtual data set whose files do not exist: HDF5 would read black images from it."""
    for source in images.virtual_sources() if images.is_virtual else ():
        # A name with % stands for several files.
        if source.file_name != "." and "%" not in source.file_name:
            file = path.absolute().parent / source.file_name
            if not file.exists() and not Path(source.file_name).exists():
                raise DataError(
                    f"data set images of {path} is stored in a file that does not exist", value=source.file_name,
                    fix="Bring that file back.",
                )  # fmt: skip


def _is_written(images: Any, row: int) -> bool:
    """Return whether an image was ever written: HDF5 reads zeros where nothing was, and that is a black picture."""
    if images.is_virtual or images.external:
        return True
    if images.chunks is None:
        return bool(images.id.get_storage_size())
    return bool(images.id.get_chunk_info_by_coord((row,) + (0,) * (images.ndim - 1)).size)


def _hdf5_ids(column: Any, *, images: int, path: Path) -> list[str]:
    """Return the ids of an HDF5 file as texts without spaces around them."""
    values = column[:]
    if values.shape != (images,):
        raise DataError(
            "id_str needs one id per image", value=f"{values.shape} ids, {images} images in {path}", fix="Add them."
        )
    return [galaxy.strip() for galaxy in ids_of(pa.table({"id_str": list(values)}), "id_str", source=str(path))]


def file_bytes(path: Path, *, root: str | None) -> bytes:
    """Return the bytes of a file.

    Parameters
    ----------
    path
        The file.
    root
        True path of the folder that the file must be in; None if it may be anywhere.

    Raises
    ------
    OSError, ValueError
        It does not exist, is no regular file, is too large, or is outside of the folder.
    """
    about = os.lstat(path)
    link = stat.S_ISLNK(about.st_mode)
    # Most files are no links: then it is enough to know where their folder is.
    if root is not None and not (is_inside(path, root) if link else _folder_is_inside(path.parent, root)):
        raise ValueError(f"outside of {root}. {OUTSIDE_HINT.removesuffix('.')}")
    about = path.stat() if link else about
    # A pipe would be waited for without end.
    if not stat.S_ISREG(about.st_mode):
        raise FileNotFoundError("no regular file")
    if about.st_size > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    return path.read_bytes()


_folder_is_inside = lru_cache(maxsize=4096)(is_inside)


def tar_members(shards: Sequence[Path]) -> dict[str, Place]:
    """Return where the files of several tar shards are.

    Links inside a shard lead to the file that they name in the same shard; other links are left out, because nothing
    outside of the shards is read. Names are only names: ``/a.jpg`` and ``../a.jpg`` are ``a.jpg``.

    Returns
    -------
    dict
        Name → (shard, offset of its bytes, size). A name that occurs more than once is listed as ``SHARD/NAME``, and
        where that is not enough as ``SHARD/COUNT/NAME``, once for each file.

    Raises
    ------
    DataError
        A shard is missing, compressed or no tar file.
    """
    places: dict[str, set[Place]] = defaultdict(set)
    for index, shard in enumerate(shards):
        try:
            with tarfile.open(shard, "r:") as archive:
                for name, offset, size in _files_of(archive):
                    places[name].add((index, offset, size))
        except Exception as problem:
            raise DataError(
                f"unreadable tar shard ({problem})", value=shard,
                fix="Give whole, uncompressed tar files; gunzip unpacks .tar.gz to .tar.",
            ) from problem  # fmt: skip
    members: dict[str, Place] = {}
    for name, several in places.items():
        if len(several) == 1:
            members[name] = next(iter(several))
            continue
        for count, place in enumerate(sorted(several), start=1):
            archive_name = shards[place[0]].name
            qualified = f"{archive_name}/{name}"
            members[qualified if qualified not in members else f"{archive_name}/{count}/{name}"] = place
    return members


def _files_of(archive: tarfile.TarFile) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each file of a tar file, and of each link to one of them."""
    links: dict[str, str] = {}
    inside: dict[str, tuple[int, int]] = {}
    end = -1
    for member in archive:
        if member.offset <= end or member.size < 0:
            raise tarfile.ReadError("a member begins inside another one")
        end, name = member.offset, _member_name(member.name)
        if member.issym():
            links[name] = _member_name(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            links[name] = _member_name(member.linkname)
        elif member.isfile() and not member.issparse():
            inside[name] = (member.offset_data, member.size)
            yield name, *inside[name]
    for name, target in links.items():
        for _ in range(_MOST_LINKS):
            target = links.get(target, target)
        if target in inside:
            yield name, *inside[target]


def _member_name(name: str) -> str:
    """Return the name of a member of a tar file without a root, ``.`` and ``..`` that lead out of the archive."""
    parts = posixpath.normpath(name).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def refuse_absent(missing: Sequence[str], ids: Sequence[str], *, where: str, skip: bool, hint: str = "") -> None:
    """Raise DataError for galaxies without an image, unless such galaxies are skipped and others have one."""
    if missing and (not skip or len(missing) == len(ids)):
        raise DataError(f"{len(missing)} galaxies have no image", value=where, fix=hint or SKIP_HINT, ids=missing)


def refuse_range(pixel_range: Sequence[float]) -> None:
    """Raise DataError for a range of black and white that would not be used, because all images are of 8 bits."""
    if len(pixel_range):
        raise DataError(
            "images of 8 bits are taken as they are", value=f"data.pixel_range={list(pixel_range)}",
            fix="Leave data.pixel_range out, or store the images as another type.",
        )  # fmt: skip


def unreadable_image(galaxy: str, name: str, problem: Exception) -> DataError:
    """Return the error for the image file of a galaxy that cannot be read."""
    fix = SCALE_HINT if isinstance(problem, UnknownScale) else SKIP_HINT
    reason = " ".join(str(problem).split())[:300] or type(problem).__name__
    return DataError(f"unreadable image ({reason})", value=name, fix=fix, ids=[galaxy])


def shown_cutouts(images: ImageSource, rows: Iterable[int], *, named: set[str]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Return cutouts for people to look at: a crossed square stands for an unreadable image, and a warning names it.

    Parameters
    ----------
    images
        Cutouts by row.
    rows
        Rows of the galaxies.
    named
        Ids of galaxies that a warning has named already; those of this warning are added.
    """
    cutouts, problems = [], []
    for row in rows:
        try:
            cutouts.append(images.cutout(row))
        except DataError as problem:
            cutouts.append(_crossed_square())
            if not named.issuperset(problem.ids) or not problem.ids:
                problems.append(problem)
                named.update(problem.ids)
    if problems:
        galaxies = [galaxy for problem in problems for galaxy in problem.ids]
        more = f" and {len(galaxies) - _NAMED} more" if len(galaxies) > _NAMED else ""
        log.warning(
            "a crossed square stands for images that cannot be read: %s%s (%s)",
            ", ".join(galaxies[:_NAMED]), more, problems[0].what,
        )  # fmt: skip
    return cutouts


def _crossed_square() -> UInt8[np.ndarray, "side side 3"]:
    square = Image.new("RGB", (_PLACEHOLDER, _PLACEHOLDER), (40, 40, 40))
    pen, last = ImageDraw.Draw(square), _PLACEHOLDER - 1
    for line in ((0, 0, last, last), (0, last, last, 0)):
        pen.line(line, fill=(150, 150, 150), width=2)
    return np.asarray(square)
