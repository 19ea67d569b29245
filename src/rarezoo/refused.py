"""A command that is refused leaves nothing behind: neither its log nor Hydra's record of the run.

Hydra writes both into the output folder before a command has looked at its settings. If the command then refuses them
and has computed nothing, the folder becomes what it was before: a new one is removed, and one that held a run holds
the record and the log of that run again.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rarezoo.runs import SETTINGS_FILE

LOG, RECORD = "run.log", ".hydra"
# The file of the record that Hydra writes first.
_FIRST = "config.yaml"


@dataclass(frozen=True)
class FolderBefore:
    """What an output folder held before a command began.

    Attributes
    ----------
    folder
        The folder.
    missing
        The folder and those above it that did not exist, the innermost first.
    claimed
        Whether it held ``settings.json``, the mark of a run.
    log_bytes
        Size of the log; None if there was none.
    record
        Content of the files of Hydra's record by their names; None if there was no record.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> out = Path(mkdtemp(), "runs", "mine")
    >>> before = FolderBefore.of(out)
    >>> (out / ".hydra").mkdir(parents=True)
    >>> _ = (out / ".hydra" / "config.yaml").write_text("seed: 1")
    >>> before.put_back()
    >>> out.parent.exists()
    False
    """

    folder: Path
    missing: tuple[Path, ...]
    claimed: bool
    log_bytes: int | None
    record: Mapping[str, bytes] | None

    @classmethod
    def of(cls, folder: Path | str) -> "FolderBefore":
        """Look at a folder."""
        folder = Path(folder).absolute()
        log, record = folder / LOG, folder / RECORD
        return cls(
            folder,
            tuple(path for path in (folder, *folder.parents) if not path.exists()),
            (folder / SETTINGS_FILE).exists(),
            log.stat().st_size if log.is_file() else None,
            {file.name: file.read_bytes() for file in record.iterdir()} if record.is_dir() else None,
        )

    def put_back(self) -> None:
        """Make the folder what it was, unless the command has written a result into it."""
        with suppress(OSError):  # Where nothing can be written, nothing can be put back.
            if not self._has_result():
                self._remove_traces()

    def _has_result(self) -> bool:
        """Return whether there is a file as new as Hydra's record, which is written first, or any in a new folder."""
        started = (self.folder / RECORD / _FIRST).stat().st_mtime_ns
        traces = {self.folder / LOG} | (set() if self.claimed else {self.folder / SETTINGS_FILE})
        for place, folders, files in os.walk(self.folder):
            if Path(place) == self.folder and RECORD in folders:
                folders.remove(RECORD)
            paths = {Path(place, name) for name in files} - traces
            if any(self.missing or path.lstat().st_mtime_ns >= started for path in paths):
                return True
        return False

    def _remove_traces(self) -> None:
        log, record = self.folder / LOG, self.folder / RECORD
        shutil.rmtree(record)
        if self.record is not None:
            record.mkdir()
            for name, content in self.record.items():
                (record / name).write_bytes(content)
        if self.log_bytes is None:
            log.unlink(missing_ok=True)
        else:
            os.truncate(log, self.log_bytes)
        if not self.claimed:
            (self.folder / SETTINGS_FILE).unlink(missing_ok=True)
        if self.missing:
            # Only folders without any file are left in it.
            shutil.rmtree(self.folder)
        for path in self.missing[1:]:
            path.rmdir()
