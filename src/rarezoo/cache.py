"""One cache for everything that is computed once and used again, by any process.

A result is filed under a hash of its key. The key holds the settings and inputs that the result depends on, and a hash
of the source code that computes it: when that code changes, the result is computed again.
"""

import errno
import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout

from rarezoo import tables
from rarezoo.errors import OutputError, StoreError
from rarezoo.runs import digest

log = logging.getLogger(__name__)
# Hexadecimal digits of the hash that name a result: two of 10^9 results share them with a probability of 3 in 100.
_DIGITS = 16


@dataclass(frozen=True)
class Cache:
    """A folder of results that are named by what they were computed from.

    A lock keeps two processes from computing the same result. The lock ends with its process, and what a killed
    process left unfinished is computed again.

    Parameters
    ----------
    folder : Path
        Created when it is first needed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> cache = Cache(Path(mkdtemp()))
    >>> cache.array({"n": 3}, lambda: np.arange(3))
    array([0, 1, 2])
    >>> cache.array({"n": 3}, lambda: 1 / 0)  # not computed again
    array([0, 1, 2])
    """

    folder: Path

    def place(self, key: Mapping[str, Any], *, code: Iterable[object] = ()) -> Path:
        """Return the folder of one result, whether it exists or not."""
        return Path(self.folder) / digest({**key, "code": code_sha256(*code)})[:_DIGITS]

    def fetch(
        self, key: Mapping[str, Any], target: Path, *, last: str, make: Callable[[Path], object],
        read: Callable[[Path], Any] = lambda target: None, code: Iterable[object] = (),
    ) -> Any:  # fmt: skip
        """Bring the files of a result into ``target`` and read it; compute it first if it is not cached.

        The files are hard links where the file system has them: replace them, but never write into them.

        Parameters
        ----------
        key : mapping
            Settings and inputs that the result depends on.
        target : Path
            Folder to which the files go.
        last : str
            Name of the file that ``make`` writes last: where it exists, the result is complete.
        make : callable
            Computes the result and writes it into the folder that it is called with.
        read : callable
            Reads the result from the folder that it is called with. Where it raises StoreError the result is damaged,
            and is computed again.
        code : iterable of modules, classes, objects or names of modules
            Source code that computes the result: see :func:`code_sha256`.

        Returns
        -------
        What ``read`` returns.

        Raises
        ------
        OutputError
            The cache or the target cannot be written.
        """
        self._refuse_unwritable()
        place = self.place(key, code=code)

        def cached_result(*, recompute: bool) -> Any:
            with locked(place):
                if recompute or not (place / last).exists():
                    make(place)
            files = [file for file in place.iterdir() if not file.name.startswith(".")]
            for file in sorted(files, key=lambda file: file.name == last):
                _link(file, target / file.name)
            tables.sync(target, inside=False)
            return read(target)

        try:
            place.mkdir(parents=True, exist_ok=True)
            target.mkdir(parents=True, exist_ok=True)
            try:
                return cached_result(recompute=False)
            except StoreError as problem:
                log.warning("%s is computed again: %s", place, problem.what)
                return cached_result(recompute=True)
        except OSError as problem:
            raise tables.unwritable(place, problem) from problem

    def array(
        self, key: Mapping[str, Any], make: Callable[[], np.ndarray], *, code: Iterable[object] = ()
    ) -> np.ndarray:
        """Return a cached array; compute it first if it is not cached.

        Parameters are those of :meth:`fetch`; ``make`` returns the array.
        """
        self._refuse_unwritable()
        path = self.place(key, code=code).with_suffix(".npy")
        with locked(path):
            return kept_array(path, make)

    def mapped(
        self,
        key: Mapping[str, Any],
        *,
        shape: tuple[int, ...],
        blocks: Callable[[], Iterable[np.ndarray]],
        code: Iterable[object] = (),
    ) -> np.ndarray:
        """Return a cached float32 array that stays on the disk and may be larger than the memory.

        The array is mapped into memory: the system reads the parts that are used. If it is not cached, it is computed
        and written block by block.

        Parameters
        ----------
        key : mapping
            Settings and inputs that the array depends on.
        shape : tuple of int
            Shape of the array.
        blocks : callable
            Returns the array's rows in order, in blocks of any number of rows.
        code : iterable of modules, classes, objects or names of modules
            Source code that computes the array: see :func:`code_sha256`.

        Raises
        ------
        OutputError
            The cache cannot be written or is full.

        Examples
        --------
        >>> from tempfile import mkdtemp
        >>> cache = Cache(Path(mkdtemp()))
        >>> cache.mapped({"n": 3}, shape=(3, 2), blocks=lambda: [np.zeros((2, 2)), np.ones((1, 2))]).sum()
        np.float32(2.0)
        """
        self._refuse_unwritable()
        path = self.place(key, code=code).with_suffix(".npy")
        with locked(path):
            return mapped_array(path, shape=shape, blocks=blocks)

    def _refuse_unwritable(self) -> None:
        """Raise OutputError if the folder cannot be written."""
        folder = Path(self.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as problem:
            raise tables.unwritable(folder, problem, setting="cache") from problem


def kept_array(path: Path | str | None, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array in a ``.npy`` file; compute and write it first if there is no such file.

    The file appears whole or not at all, also after a power failure. A damaged file is computed again.

    Parameters
    ----------
    path : Path, str or None
        Its name must identify the array. None computes the array and keeps nothing.
    make : callable
        Returns the array.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    if path is None:
        return make()
    path = Path(path)
    try:
        return np.asarray(np.load(path))
    except FileNotFoundError:
        pass
    except (ValueError, EOFError):
        log.warning("%s is damaged and is computed again", path)
    values = make()
    with tables.atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values)
    return values


def mapped_array(path: Path, *, shape: tuple[int, ...], blocks: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """Return the float32 array of a ``.npy`` file without reading it into memory; write it first if there is none.

    The file appears whole or not at all, also after a power failure. A damaged file is written again. The process that
    writes must hold the lock of the file: what a killed one has left of it is deleted.

    Parameters
    ----------
    path : Path
        Its name must identify the array.
    shape : tuple of int
        Shape of the array.
    blocks : callable
        Returns the array's rows in order, in blocks of any number of rows.

    Raises
    ------
    OutputError
        The file cannot be written.
    ValueError
        The blocks have another number of rows than the array.
    """
    try:
        mapped = np.load(path, mmap_mode="r")
        if mapped.shape == shape and mapped.dtype == np.float32:
            return np.asarray(mapped)
    except FileNotFoundError:
        pass
    except (ValueError, EOFError):
        log.warning("%s is damaged and is computed again", path)
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)
    # Writing through a map of the file would end the process where the disk is full.
    with tables.atomic(path) as temporary, temporary.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        rows = 0
        for block in blocks():
            stream.write(np.ascontiguousarray(block, dtype=np.float32).data)
            rows += len(block)
        if rows != shape[0]:
            raise ValueError(f"{rows} rows for an array of shape {shape}")
    return np.asarray(np.load(path, mmap_mode="r"))


def code_sha256(*components: object) -> str:
    """Return a hash of the source code of some components.

    Parameters
    ----------
    *components : modules, names of modules, classes or objects
        A package counts with all its modules. A class or object counts with the modules of its class and of the base
        classes of that, and with the modules that its attribute ``computed_by`` names.

    Examples
    --------
    >>> code_sha256("rarezoo.cache") == code_sha256(Cache)
    True
    """
    names: set[str] = set()
    for component in components:
        if isinstance(component, str):
            names.add(component)
        elif isinstance(component, ModuleType):
            names.add(component.__name__)
        else:
            kind = component if isinstance(component, type) else type(component)
            names |= {base.__module__ for base in kind.__mro__} - {"abc", "builtins", "typing"}
            names |= set(getattr(kind, "computed_by", ()))
    state = hashlib.sha256()
    for name in sorted(names):
        state.update(f"{name} {_module_sha256(name)}\n".encode())
    return state.hexdigest()


@cache
def _module_sha256(name: str) -> str:
    """Hash of the source files of a module or package; empty if there are none."""
    spec = importlib.util.find_spec(name)
    if spec is None or name == "__main__":
        return ""
    if spec.submodule_search_locations:
        files = sorted(file for folder in spec.submodule_search_locations for file in Path(folder).rglob("*.py"))
    else:
        files = [Path(spec.origin)] if spec.origin and Path(spec.origin).exists() else []
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def locked(place: Path) -> AcquireReturnProxy:
    """Take the lock of a place until the end of a ``with`` block; a log line says so if another process has it.

    Raises
    ------
    OutputError
        The file system has no locks.
    """
    while True:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _acquired(place)
        except FileNotFoundError:
            # A process that has finished removed the folder since it was made.
            log.debug("the folder of the lock of %s is made again", place)


def _acquired(place: Path) -> AcquireReturnProxy:
    lock = FileLock(place.with_suffix(".lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.info("another process computes %s; waiting …", place)
        return lock.acquire()
    except NotImplementedError as problem:
        raise OutputError(
            "the file system has no locks", value=place, fix="Put the cache on another file system: cache=DIR."
        ) from problem


def _link(file: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:
        with tables.atomic(target) as temporary:
            shutil.copyfile(file, temporary)
