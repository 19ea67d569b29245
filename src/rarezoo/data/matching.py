"""Which file belongs to which galaxy: by the name in the table, or by the id. What stays ambiguous is refused.

Files are given as paths with ``/`` inside a folder or an archive. A name and a file match if the shorter of both paths
is the end of the other one: ``ring/1.png`` in the table matches ``part1/ring/1.png`` and ``1.png``, but never
``merger/1.png``. Of several files the one with the longest common end is taken.
"""

import logging
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rarezoo.errors import DataError

log = logging.getLogger(__name__)
EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".fits", ".fit", ".fts", ".fits.gz", ".fit.gz",
    ".fts.gz", ".fits.fz",
)  # fmt: skip


def files_by_name(
    files: Iterable[str], names: Sequence[str], ids: Sequence[str], *, same: Callable[[str], object] = str
) -> list[str | None]:
    """Return the file of each named image; None where there is none.

    Parameters
    ----------
    files
        Paths of the files.
    names
        Name of each galaxy's image: the path of a file, or a path with the same end; empty if it has none.
    ids
        Ids of the galaxies, for messages.
    same
        Returns something that is equal for two paths of one file, such as a link and its target.

    Raises
    ------
    DataError
        Several files match a name equally well, or names with different folders lead to one file.

    Examples
    --------
    >>> files_by_name(["ring/1.png", "merger/1.png"], ["/home/me/ring/1.png", "2.png"], ["A", "B"])
    ['ring/1.png', None]
    """
    known = set(files)
    paths = [name if name in known else _parts_only(name) for name in names]
    longer_files = _files_that_end_with({path for path in paths if path and path not in known}, known)
    matched: list[str | None] = []
    ambiguous: dict[str, list[str]] = {}
    leading: dict[str, dict[str, str]] = defaultdict(dict)  # file → names that lead to it without being its path → id
    for path, galaxy in zip(paths, ids, strict=True):
        best = [path] if path in known else longer_files.get(path) or [end for end in _ends(path) if end in known][:1]
        matched.append(best[0] if best else None)
        if any(same(file) != same(best[0]) for file in best[1:]):
            ambiguous[galaxy] = best
        elif best and best != [path]:
            leading[best[0]][path] = galaxy
    if ambiguous:
        raise _ambiguous(ambiguous, "Give the path inside data.images in the table.")
    for file, led in leading.items():
        longest = f"/{max(led, key=len)}"
        if not all(longest.endswith(f"/{path}") for path in led):
            raise DataError(
                "images with different names would get one file", value=f"{', '.join(sorted(led)[:3])} → {file}",
                fix="Give paths inside data.images in the table.", ids=list(led.values()),
            )  # fmt: skip
    return matched


def _files_that_end_with(paths: set[str], files: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of which each path is the end, sorted; paths that are the end of none are left out."""
    longer = defaultdict(list)
    for file in sorted(files) if paths else ():
        for end in _ends(file):
            if end in paths:
                longer[end].append(file)
    return longer


def files_by_id(files: Iterable[str], ids: Sequence[str], *, same: Callable[[str], object] = str) -> list[str | None]:
    """Return the file of each galaxy that is named after its id, with an extension of an image.

    A name such as ``J1.rgb.jpg``, as webdataset writes it, belongs to ``J1`` if no file is named after that id alone,
    and no other galaxy is ``J1.rgb``.

    Raises
    ------
    DataError
        Several files are named after one id.

    Examples
    --------
    >>> files_by_id(["a/J1.fits.gz", "J2.txt"], ["J1", "J2"])
    ['a/J1.fits.gz', None]
    """
    by_stem, by_key, galaxies = defaultdict(list), defaultdict(list), set(ids)
    for file in sorted(files):
        base = posixpath.basename(file)
        suffix = max((known for known in EXTENSIONS if base.lower().endswith(known)), key=len, default="")
        if suffix:
            stem = base[: -len(suffix)]
            by_stem[stem].append(file)
            if stem not in galaxies:
                by_key[re.sub(r"(\.[A-Za-z_]+)+$", "", stem)].append(file)
    named = [by_stem.get(galaxy) or by_key.get(galaxy) or [] for galaxy in ids]
    ambiguous = {
        galaxy: paths
        for galaxy, paths in zip(ids, named, strict=True)
        if any(same(path) != same(paths[0]) for path in paths[1:])
    }
    if ambiguous:
        raise _ambiguous(ambiguous, "Keep one of them, or name the images in a column: data.image_column=COLUMN.")
    return [paths[0] if paths else None for paths in named]


def _parts_only(name: str) -> str:
    """Return a name with ``/`` between its parts, without a root and without ``.`` and ``..``."""
    path = posixpath.normpath(name.replace("\\", "/"))
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _ends(path: str) -> list[str]:
    """Return the ends of a path that are shorter than it, the longest first."""
    parts = path.split("/")
    return ["/".join(parts[first:]) for first in range(1, len(parts))]


def _ambiguous(files: dict[str, list[str]], fix: str) -> DataError:
    example = next(iter(files.values()))
    return DataError(
        f"{len(files)} galaxies have several images", value=", ".join(example[:3]), fix=fix, ids=list(files)
    )


class Folder:
    """The files below a folder; links are followed, but never twice to the same place, and only if allowed outside.

    Parameters
    ----------
    place
        The folder.
    outside
        Whether names and links may lead out of the folder.

    Attributes
    ----------
    files
        Paths of the files relative to the folder, sorted.
    leaving
        Links that lead out of the folder and were therefore not followed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     Path(place, "1.png").touch()
    ...     Folder(Path(place)).files
    ['1.png']
    """

    def __init__(self, place: Path, *, outside: bool = False) -> None:
        self.place, self.root, self.outside = os.path.abspath(place), os.path.realpath(place), outside
        self.leaving: list[str] = []
        self.files = sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        seen: set[str] = set()
        folders, links = [""], list[str]()
        # Links come after all folders, so that files have the path without links where there is one.
        while folders or links:
            folder = folders.pop() if folders else links.pop()
            if (target := os.path.realpath(os.path.join(self.root, folder))) in seen:
                continue
            seen.add(target)
            try:
                entries = sorted(os.scandir(os.path.join(self.root, folder)), key=lambda entry: entry.name)
            except OSError as problem:
                log.warning("a folder of images cannot be read and is left out: %s", problem)
                continue
            for entry in entries:
                path = posixpath.join(folder, entry.name)
                if not _is_text(path):
                    continue
                if entry.is_symlink() and not self.outside and not is_inside(entry.path, self.root):
                    self.leaving.append(path)
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    continue  # it leads nowhere, or to itself
                elif entry.is_dir():
                    (links if entry.is_symlink() else folders).append(path)
                elif entry.is_file():
                    yield path

    def by_name(self, names: Sequence[str], ids: Sequence[str]) -> list[str | None]:
        """Return the file of each named image: the one at its path, otherwise by :func:`files_by_name`."""
        known, at_path = set(self.files), {}
        for name in names:
            if name and name not in known and (path := self.exact(name)):
                at_path[name] = path
        wanted = [at_path.get(name) or ("" if self.is_absent(name) else name) for name in names]
        return files_by_name(known.union(at_path.values()), wanted, ids, same=self.same)

    def by_id(self, ids: Sequence[str]) -> list[str | None]:
        """Return the file of each galaxy; see :func:`files_by_id`."""
        return files_by_id(self.files, ids, same=self.same)

    def same(self, file: str) -> str:
        """Return the true path of a file, which is the same for a link and its target."""
        return os.path.realpath(os.path.join(self.root, file))

    def exact(self, name: str) -> str | None:
        """Return the file at a path in or, if that is allowed, outside of the folder; None if there is no such file."""
        path = os.path.join(self.root, name)
        if not name or not os.path.isfile(path) or not (self.outside or is_inside(path, self.root)):
            return None
        within = self._within(name)
        return name if within is None else within

    def is_absent(self, name: str) -> bool:
        """Return whether an absolute path inside of the folder is that of no file."""
        return os.path.isabs(name) and self._within(name) is not None and not os.path.isfile(name)

    def _within(self, name: str) -> str | None:
        """Return a path relative to the folder; None if it is not inside."""
        path = os.path.normpath(os.path.join(self.root, name))
        roots = [root for root in (self.root, self.place) if path.startswith(root.rstrip(os.sep) + os.sep)]
        return os.path.relpath(path, roots[0]) if roots else None


def is_inside(path: str | Path, root: str) -> bool:
    """Return whether the true path of a file is in a folder, whose true path is given."""
    target = os.path.realpath(path)
    return target == root or target.startswith(root.rstrip(os.sep) + os.sep)


def _is_text(path: str) -> bool:
    """Return whether a path can be in a table; other bytes than UTF-8 cannot."""
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False
