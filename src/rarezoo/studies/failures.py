"""Record why a job of a multirun failed: one file in the job's folder, which every summary of the multirun reads."""

import json
from pathlib import Path

from rarezoo import tables

FAILED_FILE = "failed.json"


def note_failure(folder: Path | str, problem: BaseException | None) -> None:
    """Write why a job failed into its folder; None removes an earlier note.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    path = Path(folder) / FAILED_FILE
    if problem is None:
        path.unlink(missing_ok=True)
    else:
        tables.write_json({"what": str(problem) or type(problem).__name__}, path)


def failure_of(folder: Path | str) -> str:
    """Return why the job of a folder failed; empty if there is no note."""
    try:
        return str(json.loads((Path(folder) / FAILED_FILE).read_text())["what"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
