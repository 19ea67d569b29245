"""Run folders: an output folder belongs to one command with one set of settings, so the same command can resume."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarezoo import tables
from rarezoo.errors import ConfigError, OutputError

SETTINGS_FILE = "settings.json"


def digest(content: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a mapping; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(tables.plain(content), sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path | str) -> str:
    """Return the sha256 (hex) of the bytes of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(values: np.ndarray, *, ids: Sequence[str] | np.ndarray) -> str:
    """Return the sha256 (hex) of ids (n,) and of the numbers (n, k) that belong to them, in their order."""
    state = hashlib.sha256("\n".join(map(str, ids)).encode())
    state.update(np.ascontiguousarray(values).data)
    return state.hexdigest()


def refuse_seed(seed: int) -> None:
    """Raise ConfigError for a negative seed, which no random generator accepts."""
    if seed < 0:
        raise ConfigError("a seed must not be negative", value=seed, fix="Choose 0 or more.")


def claim(out: Path | str, *, verb: str, settings: Mapping[str, Any]) -> Path:
    """Claim an output folder for one command with one set of settings, so that the same command can continue in it.

    Parameters
    ----------
    out : Path or str
        The folder; it is created if it does not exist.
    verb : str
        Name of the command.
    settings : mapping
        Settings that affect the result. They are kept in ``settings.json``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        The folder cannot be written, or holds a run with other settings (the message names them).

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = claim(mkdtemp(), verb="train", settings={"seed": 1})
    >>> claim(folder, verb="train", settings={"seed": 1}) == folder
    True
    """
    if not str(out):
        raise OutputError("no output folder", value="out=", fix="Name one: out=DIR.")
    out = Path(out)
    wanted = {"verb": verb, "settings": tables.plain(settings)}
    record = out / SETTINGS_FILE
    if record.exists():
        before, now = _flat(json.loads(record.read_text())), _flat(wanted)
        keys = sorted({*before, *now})
        changed = [f"{key} {before.get(key)} → {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
        if changed:
            raise OutputError(
                f"{out} holds a run with other settings", value="; ".join(changed[:6]),
                fix="Choose another out=DIR, or delete that folder if you no longer need it.",
            )  # fmt: skip
        return out
    if out.exists() and not out.is_dir():
        raise OutputError("the output path is a file", value=out, fix="Choose a folder: out=DIR.")
    tables.write_json(wanted, record)
    return out


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one level of dotted keys."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    parts = [_flat(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in content.items()]
    return {key: value for part in parts for key, value in part.items()}
