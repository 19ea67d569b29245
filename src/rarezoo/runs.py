"""Run folders: an output folder belongs to one command with one set of settings and inputs, so that it can resume.

Inputs are known by their content, as a hash, and never by the path at which they lie: what lies elsewhere or has
another name is the same input, and what was made again at the same path is another one.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.errors import ConfigError, OutputError, StoreError

SETTINGS_FILE = "settings.json"
# Files by which a folder without a record of settings is known to be something that no run may be mixed with.
_OTHER_FOLDERS = {"manifest.json": "an embedding store", "card.json": "a checkpoint"}


def digest(content: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a mapping; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(tables.plain(content), sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path | str) -> str:
    """Return the sha256 (hex) of the bytes of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def path_sha256(path: Path | str) -> str:
    """Return the sha256 (hex) of a file, or of the names and bytes of all files in a folder."""
    path = Path(path)
    if not path.is_dir():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest({str(file.relative_to(path)): file_sha256(file) for file in files})


def fingerprint(values: np.ndarray, *, ids: Sequence[str] | np.ndarray) -> str:
    """Return the sha256 (hex) of ids (n,) and of the numbers (n, k) that belong to them, in their order."""
    state = hashlib.sha256("\n".join(map(str, ids)).encode())
    state.update(np.ascontiguousarray(values).data)
    return state.hexdigest()


def table_sha256(table: pa.Table) -> str:
    """Return the sha256 (hex) of the names, types and values of a table."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(stream.getvalue()).hexdigest()


def refuse_seed(seed: int) -> None:
    """Raise ConfigError for a negative seed, which no random generator accepts."""
    if seed < 0:
        raise ConfigError("a seed must not be negative", value=seed, fix="Choose 0 or more.")


@dataclass(frozen=True)
class Stamped:
    """An input whose content takes long to read: it is read only if its stamp has changed.

    Attributes
    ----------
    stamp : str
        Cheap to compute; the same stamp means the same content, but other stamps may mean the same content too.
        Empty: the content is read each time.
    read : callable
        Returns the hash of the content.
    """

    stamp: str
    read: Callable[[], str]


def claim(
    out: Path | str,
    *,
    verb: str,
    settings: Mapping[str, Any],
    inputs: Callable[[], Mapping[str, Any]] | None = None,
    places: Collection[str] = (),
    begun: Callable[[Path], bool] = lambda folder: True,
    writes: Collection[str] = (),
) -> Path:
    """Claim an output folder for one command with one set of settings and inputs, so that the command can continue.

    Parameters
    ----------
    out : Path or str
        The folder; it is created if it does not exist.
    verb : str
        Name of the command.
    settings : mapping
        Settings that affect the result. They are kept in ``settings.json``.
    inputs : callable, optional
        Returns what the run is made from: hashes, or :class:`Stamped`, by the names of the inputs. Mappings may be
        nested. It is called once the settings are known to be those of the folder.
    places : collection of str
        Dotted names of settings that only say where an input lies: they may change.
    begun : callable
        Whether the folder holds something that depends on settings and inputs. While it does not, both may change.
    writes : collection of str
        Names of the files that the command writes and another program may have written too. A folder that holds one
        of them, and no run, is refused.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        The folder cannot be written, or holds a run with other settings or from other inputs (the message names them).

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = claim(mkdtemp(), verb="train", settings={"seed": 1})
    >>> claim(folder, verb="train", settings={"seed": 1}) == folder
    True
    """
    out = _output_folder(out)
    wanted: dict[str, Any] = {"verb": verb, "settings": tables.plain(settings), "folder": str(out.resolve())}
    way_out = "Choose another out=DIR, or delete that folder if you no longer need it."
    before = _record(out, way_out=way_out)
    others = [name for name in writes if not before and (out / name).exists()]
    if others:
        raise OutputError(
            "the output folder holds a file that this command would replace", value=out / others[0],
            fix="Choose another out=DIR, or remove that file if you no longer need it.",
        )  # fmt: skip
    if before:
        ignored = {f"settings.{name}" for name in places}
        changed = _changes(*({name: record.get(name) for name in ("verb", "settings")} for record in (before, wanted)),
                           ignored=ignored)  # fmt: skip
        # What was refused for its settings can be tried again with others.
        if changed and (before["verb"] != verb or begun(out)):
            raise OutputError(f"{out} holds a run with other settings", value=changed, fix=way_out)
    if inputs is not None:
        earlier = before.get("inputs", {})
        wanted["inputs"] = hashed(inputs(), earlier)
        depends = bool(before) and begun(out)
        if depends and "inputs" not in before:
            raise OutputError(
                f"{out} holds a run of an earlier rarezoo, which did not record what it was made from", value=verb,
                fix=way_out,
            )  # fmt: skip
        changed = changed_inputs(earlier, wanted["inputs"])
        if depends and changed:
            raise OutputError(
                f"{out} holds a run that was made from other inputs", value=changed,
                fix=f"Bring them back as they were, or start again: {way_out[0].lower()}{way_out[1:]}",
            )  # fmt: skip
    if wanted != before:
        tables.write_json(wanted, out / SETTINGS_FILE)
    return out


def _output_folder(out: Path | str) -> Path:
    """Return the path of an output folder; raise OutputError if no folder can be there."""
    if not str(out):
        raise OutputError("no output folder", value="out=", fix="Name one: out=DIR.")
    out = Path(out)
    try:
        is_file = out.resolve().exists() and not out.is_dir()
    except (OSError, ValueError) as problem:
        # Names that are too long, or hold a byte of value zero.
        raise OutputError(
            f"no name of a folder ({problem})", value=repr(str(out))[:80], fix="Choose another out=DIR."
        ) from problem
    if is_file:
        raise OutputError("the output path is a file", value=out, fix="Choose a folder: out=DIR.")
    return out


def relocated(path: str, *, recorded_in: str, folder: Path | str) -> str:
    """Return where a recorded place is now, if it was moved together with the folder that recorded it.

    Parameters
    ----------
    path : str
        Absolute path of the place when it was recorded.
    recorded_in : str
        Absolute path of the recording folder at that time; empty if it is not known.
    folder : Path or str
        Where that folder is now.

    Returns
    -------
    str
        The same place relative to the folder, if something is there; otherwise ``path``.

    Examples
    --------
    >>> relocated("/old/survey", recorded_in="/old/runs/embed", folder="/not/there/runs/embed")
    '/old/survey'
    """
    if not (recorded_in and os.path.isabs(path)):
        return path
    moved = os.path.normpath(Path(folder).resolve() / os.path.relpath(path, recorded_in))
    return moved if os.path.exists(moved) else path


def _record(out: Path, *, way_out: str) -> dict[str, Any]:
    """Return what settings.json holds; empty if there is none, or a damaged one in a folder without results."""
    record = out / SETTINGS_FILE
    if not record.exists():
        others = [kind for name, kind in _OTHER_FOLDERS.items() if (out / name).exists()]
        if others:
            raise OutputError(f"the output folder is {others[0]}", value=out, fix="Choose another out=DIR.")
        return {}
    try:
        content = tables.read_json(record, fix=way_out)
        if "verb" not in content or not isinstance(content.get("settings"), dict):
            raise tables.damaged(record, fix=way_out)
        return content
    except StoreError as problem:
        of_hydra = {path for path in out.iterdir() if path.name == ".hydra" or path.suffix == ".log"}
        if {*out.iterdir()} - of_hydra - {record}:
            raise OutputError(
                f"it cannot be known what the run in {out} was made from: {problem.what}", value=record, fix=way_out
            ) from problem  # fmt: skip
        return {}


def hashed(inputs: Mapping[str, Any], before: Any) -> dict[str, Any]:
    """Return inputs with their hashes, as ``settings.json`` records them.

    A stamped input that has its stamp of ``before``, the recorded inputs, also has its hash of before.
    """
    record: dict[str, Any] = {}
    for name, content in inputs.items():
        known = before.get(name) if isinstance(before, Mapping) else None
        if isinstance(content, Stamped):
            kept = known if isinstance(known, Mapping) else {}
            same = bool(content.stamp) and kept.get("stamp") == content.stamp and "sha256" in kept
            record[name] = {"stamp": content.stamp, "sha256": kept["sha256"] if same else content.read()}
        else:
            record[name] = hashed(content, known) if isinstance(content, Mapping) else tables.plain(content)
    return record


def changed_inputs(before: Any, now: Any) -> str:
    """Describe how recorded inputs differ, whatever their stamps; empty if they are the same."""
    return _changes(_sha256_only(before), _sha256_only(now), shown=12)


def inputs_sha256(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a ``settings.json`` records, by name; empty for a run of an earlier rarezoo."""
    inputs: dict[str, Any] = _sha256_only(record.get("inputs", {}))
    return inputs


def _sha256_only(inputs: Any) -> Any:
    """Return recorded inputs without their stamps."""
    if not isinstance(inputs, Mapping):
        return inputs
    if "stamp" in inputs:
        return inputs.get("sha256")
    return {name: _sha256_only(content) for name, content in inputs.items()}


def _changes(before: Any, now: Any, *, ignored: Collection[str] = (), shown: int | None = None) -> str:
    """Describe the differences of two nested mappings, the first six of them; empty if there are none."""
    old, new = _flat(before), _flat(now)
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and key not in ignored]
    return "; ".join(f"{key} {str(old.get(key))[:shown]} → {str(new.get(key))[:shown]}" for key in changed[:6])


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one level of dotted keys."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    parts = [_flat(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in content.items()]
    return {key: value for part in parts for key, value in part.items()}
