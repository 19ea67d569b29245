"""What many searches have in common, made once: by whichever of them comes first, in whatever process."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from rarezoo import __version__, tables
from rarezoo.errors import OutputError
from rarezoo.runs import digest

log = logging.getLogger(__name__)
_NAMED_BY = 16


@dataclass(frozen=True)
class Shelf:
    """A folder of things that are named by what they were made with.

    A lock that ends with its process keeps two from making the same thing; what a killed process left half made is made
    anew.
    """

    folder: Path

    def fetch(self, made_with: Mapping[str, Any], target: Path, *, last: str, make: Callable[[Path], object]) -> None:
        """Bring a thing's files into a folder, the last last; make it first if it is not on the shelf.

        The files are links where the file system knows them: nobody may write into them, only replace them.

        Args:
            made_with: what names the thing; another version of rarezoo makes its own.
            target: where its files go.
            last: name of the file that is written last.
            make: writes the thing into a folder.

        Raises:
            OutputError: the shelf or the target cannot be written.
        """
        place = self.folder / digest({**made_with, "version": __version__})[:_NAMED_BY]
        try:
            place.mkdir(parents=True, exist_ok=True)
            target.mkdir(parents=True, exist_ok=True)
            with held(place):
                if not (place / last).exists():
                    make(place)
            whole = (one for one in place.iterdir() if not one.name.startswith("."))
            for file in sorted(whole, key=lambda one: one.name == last):
                _link(file, target / file.name)
        except OSError as problem:
            raise tables.unwritable(place, problem) from problem


def held(place: Path) -> AcquireReturnProxy:
    """The lock of a place, given back at the end of a with block; whoever has to wait for it is told.

    Raises:
        OutputError: the file system knows no locks.
    """
    lock = FileLock(place.with_suffix(".lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.info("another process makes %s; waiting …", place)
        return lock.acquire()
    except NotImplementedError as problem:
        raise OutputError("no locks in this file system", value=place, fix="Put cache= somewhere else.") from problem


def _link(file: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:
        with tables.atomic(target) as temporary:
            shutil.copyfile(file, temporary)
