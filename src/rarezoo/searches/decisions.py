"""What a reader decided of the classes of a search: keep, drop, merge, name. Written by the atlas, applied here.

The file is JSON ({"rarezoo": "decisions", "schema": 1, "search": …, "classes": [{…}]}) or CSV with the same columns:
search, class_id, size, decision (keep, drop, merge or empty), name, merge_into. It can be written by hand.
"""

import csv
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, RarezooError, StoreError
from rarezoo.searches.classes import nearest_to_medoid, top_answers

log = logging.getLogger(__name__)
# What the decisions leave as it was.
_COPIED = ("map.parquet", "map_2d.parquet", "tree.parquet", "linkage.parquet")
# What tables.write says of every table by itself.
_WRITTEN = ("kind", "schema", "version")
KEEP, DROP, MERGE = "keep", "drop", "merge"
SCHEMA = 1
_KINDS = ("", KEEP, DROP, MERGE)
# What is true of a class as HDBSCAN found it, and no longer of one that was merged by hand.
_UNMEASURED = (
    tables.NODE, tables.BIRTH, tables.DEATH, tables.PERSISTENCE, tables.SIGNIFICANCE, tables.STABILITY, tables.BEYOND,
    tables.BEYOND_LOW, tables.BEYOND_HIGH, tables.BEYOND_VERDICT, tables.BEYOND_REASON, tables.CAUSE,
    tables.CAUSE_REASON, tables.SURVIVED, tables.ISOLATION, tables.P_VALUE, tables.FALSE_DISCOVERY, tables.GROUP,
)  # fmt: skip


def search_key(ids: Iterable[object], labels: Int32[np.ndarray, " galaxies"]) -> str:
    """Sixteen hexadecimal digits that two searches share if they put the same galaxies into the same classes."""
    names = np.asarray(list(map(str, ids)), dtype=object)
    order = np.argsort(names.astype(str), kind="stable")
    state = hashlib.sha256("\n".join(names[order]).encode())
    state.update(np.ascontiguousarray(labels[order], dtype="<i4").tobytes())
    return state.hexdigest()[:16]


@dataclass(frozen=True)
class Decision:
    """Of one class.

    Attributes:
        class_id: of the class.
        decision: keep, drop, merge, or empty for none.
        name: given to it; empty for none.
        merge_into: id of the class that it becomes part of, for merge.
    """

    class_id: int
    decision: str = ""
    name: str = ""
    merge_into: int | None = None


@dataclass(frozen=True)
class Decisions:
    """All of a search's.

    Attributes:
        search: key of the search, as :func:`search_key` gives it; empty if its writer did not say.
        made: one per class at most.
    """

    search: str
    made: tuple[Decision, ...]

    @classmethod
    def read(cls, path: Path | str) -> "Decisions":
        """From JSON or CSV, told apart by the name's ending.

        Raises:
            ConfigError: no such file, or it is none of decisions.
        """
        path = Path(path)
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigError(
                "no file of decisions", value=path, fix="Save one from the atlas: JSON or CSV."
            ) from problem
        rows, search = _csv_rows(content) if path.suffix.lower() == ".csv" else _json_rows(content, path)
        made = tuple(_decision(row, path) for row in rows)
        ids = [one.class_id for one in made]
        doubled = sorted({one for one in ids if ids.count(one) > 1})
        if doubled:
            raise ConfigError(f"{path}: two decisions of a class", value=doubled, fix="Leave one line for each class.")
        return cls(search, made)

    def refuse_other_search(self, *keys: str) -> None:
        """Raise ConfigError unless the decisions are of one of these searches; those that do not say are believed."""
        if self.search and self.search not in keys:
            raise ConfigError(
                "the decisions are of another search, whose classes are others", value=self.search,
                fix="Give the decisions of this search, or, for a search with previous=, of that one.",
            )  # fmt: skip

    def ends(self, ids: Sequence[int]) -> dict[int, int]:
        """For each class what it becomes part of: itself, another, or −1 if it is dropped.

        Raises:
            ConfigError: a class is not there, or classes are merged in a circle.
        """
        known = set(ids)
        concerned = {one.class_id for one in self.made} | {
            one.merge_into for one in self.made if one.merge_into is not None
        }
        if concerned - known:
            raise ConfigError(
                "decisions of classes that this search does not have", value=sorted(concerned - known),
                fix=f"It has {len(known)} classes: {', '.join(map(str, sorted(known)[:20]))}.",
            )  # fmt: skip
        made = {one.class_id: one for one in self.made}
        return {one: self._end(one, made) for one in ids}

    def _end(self, class_id: int, made: Mapping[int, Decision]) -> int:
        seen = [class_id]
        while (one := made.get(seen[-1])) is not None and one.decision == MERGE and one.merge_into is not None:
            if one.merge_into in seen:
                raise ConfigError("classes merged in a circle", value=seen, fix="Let one of them be the last.")
            seen.append(one.merge_into)
        return tables.NO_CLASS if one is not None and one.decision == DROP else seen[-1]

    @property
    def names(self) -> dict[int, str]:
        """Names that were given, by class."""
        return {one.class_id: one.name for one in self.made if one.name}

    @property
    def kept(self) -> set[int]:
        """Classes of which a reader said keep."""
        return {one.class_id for one in self.made if one.decision == KEEP}


@dataclass(frozen=True)
class Decided:
    """MEMBERS and CLASSES after the decisions."""

    members: pa.Table
    classes: pa.Table


def decided(
    decisions: Decisions,
    *,
    members: pa.Table,
    classes: pa.Table,
    positions: Float32[np.ndarray, "galaxies k"],
    predictions: pa.Table | None = None,
) -> Decided:
    """A search's tables with classes dropped, merged and named; the others stay as they are.

    Members of a dropped class are in none. A merged class has the id of the one that it is merged into, its size,
    exemplars and answers are counted anew, and what was measured of its parts is null. CLASSES gains ``name`` and
    ``decision`` (keep, merged or empty).

    Args:
        decisions: to be applied.
        members: MEMBERS table of n galaxies.
        classes: CLASSES table.
        positions: (n, k) on the map that was clustered, in the members' order.
        predictions: n rows with the predicted fraction columns; None leaves a merged class's answers empty.

    Raises:
        ConfigError: see :meth:`Decisions.ends`.
    """
    ends = decisions.ends(classes.column(tables.CLASS_ID).to_pylist())
    labels = members.column(tables.CLASS_ID).to_numpy()
    after = np.array([ends.get(int(one), tables.NO_CLASS) for one in labels], dtype=np.int32)
    strengths = np.where(after == tables.NO_CLASS, 0, members.column(tables.PROBABILITY).to_numpy()).astype(np.float32)
    relabelled = _replaced(_replaced(members, tables.CLASS_ID, after), tables.PROBABILITY, strengths)
    rows = []
    for row in classes.to_pylist():
        one = row[tables.CLASS_ID]
        if ends[one] != one:
            continue
        merged = list(ends.values()).count(one) > 1
        told = {tables.NAME: decisions.names.get(one, ""), tables.DECISION: "merged" if merged else ""}
        told[tables.DECISION] = told[tables.DECISION] or (KEEP if one in decisions.kept else "")
        rows.append({**row, **(_merged(one, after, members, positions, predictions, row) if merged else {}), **told})
    extra = [pa.field(name, pa.string()) for name in (tables.NAME, tables.DECISION) if name not in classes.column_names]
    schema = pa.schema([*classes.schema, *extra], metadata=classes.schema.metadata)
    return Decided(relabelled, pa.Table.from_pylist(rows, schema))


def _merged(
    class_id: int,
    labels: np.ndarray,
    members: pa.Table,
    positions: np.ndarray,
    predictions: pa.Table | None,
    row: Mapping[str, Any],
) -> dict[str, Any]:
    """What is known of classes that became one."""
    rows = np.flatnonzero(labels == class_id)
    names = tables.strings(members, tables.ID)
    rows = rows[np.argsort(names[rows].astype(str), kind="stable")]
    return {
        **{name: None for name in _UNMEASURED if name in row},
        tables.SIZE: len(rows),
        tables.FRACTION: len(rows) / max(len(labels), 1),
        tables.EXEMPLARS: [str(one) for one in names[nearest_to_medoid(positions, rows)]],
        tables.TOP_ANSWERS: [] if predictions is None else top_answers(predictions, [rows])[0],
    }


def _replaced(table: pa.Table, column: str, values: np.ndarray) -> pa.Table:
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(values, table.schema.field(place).type))


def _json_rows(content: str, path: Path) -> tuple[list[Mapping[str, Any]], str]:
    try:
        told = json.loads(content)
        if told["rarezoo"] != "decisions" or told["schema"] != SCHEMA:
            raise ValueError("another kind of file")
        return list(told["classes"]), str(told.get("search", ""))
    except (ValueError, KeyError, TypeError) as problem:
        fix = "Save one from the atlas; CSV is known by its ending .csv."
        raise ConfigError(f"no file of decisions ({problem})", value=path, fix=fix) from problem


def _csv_rows(content: str) -> tuple[list[Mapping[str, Any]], str]:
    rows = list(csv.DictReader(io.StringIO(content)))
    searches = {row["search"] for row in rows if row.get("search")}
    if len(searches) > 1:
        raise ConfigError("decisions of several searches in one file", value=sorted(searches), fix="Apply each alone.")
    return [row for row in rows if any(row.values())], next(iter(searches), "")


def _decision(row: Mapping[str, Any], path: Path) -> Decision:
    try:
        into = row.get("merge_into")
        one = Decision(
            int(row["class_id"]), str(row.get("decision") or ""), str(row.get("name") or "").strip(),
            None if into in (None, "") else int(into),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ConfigError(
            f"{path}: not a decision", value=dict(row) if isinstance(row, Mapping) else row,
            fix="Each needs class_id, and decision (keep, drop, merge), name, merge_into where they are made.",
        ) from problem  # fmt: skip
    if one.decision not in _KINDS or (one.decision == MERGE) != (one.merge_into is not None):
        raise ConfigError(
            f"{path}: class {one.class_id}", value=one.decision or f"merge_into {one.merge_into}",
            fix="Write keep, drop, or merge with the id of another class in merge_into.",
        )  # fmt: skip
    return one


def apply_decisions(search: Path | str, file: Path | str, *, out: str = "") -> str:
    """Write the search that a reader's decisions leave, with its report; what changed, for a terminal.

    Without the search's store the answers of merged classes stay empty; without its survey the report has no images.

    Args:
        search: folder of a finished search.
        file: decisions as the atlas saves them, JSON or CSV.
        out: folder; empty: ``decided`` in the search's.

    Raises:
        StoreError: no finished search there.
        ConfigError: the file holds no decisions, or those of another search, or they do not fit together.
        OutputError: the folder cannot be written.
    """
    from rarezoo.searches.result import read_members, read_run

    source, folder = Path(search), Path(out or Path(search) / "decided")
    if folder.resolve() == source.resolve():
        raise ConfigError("the search itself would be overwritten", value=folder, fix="Give another folder: --out DIR.")
    run, members = read_run(source), read_members(source)
    classes = tables.read(source / "classes.parquet", tables.CLASSES)
    decisions = Decisions.read(file)
    decisions.refuse_other_search(search_key(members[tables.ID].to_pylist(), members[tables.CLASS_ID].to_numpy()))
    positions = tables.aligned(tables.read(source / "map.parquet", tables.MAP), members[tables.ID], source="the map")
    predictions = _predictions(run, members)
    after = decided(
        decisions, members=members, classes=classes, positions=tables.matrix(positions, tables.POSITION),
        predictions=predictions,
    )  # fmt: skip
    about = _about(run, after, decisions=Path(file).resolve())
    _write(folder, source, after, about)
    page = _report(folder)
    return "\n".join([_change_text(classes, after, members), str(page)])


def _predictions(run: Mapping[str, Any], members: pa.Table) -> pa.Table:
    """The predictions of the search's store in the members' order; ids only if the store is gone."""
    try:
        stored = EmbeddingStore.open(run["settings"]["store"]).read()
        return tables.aligned(stored, members[tables.ID], source="the store").drop_columns([tables.EMBEDDING])
    except StoreError as problem:
        log.warning("no answers are counted: %s", problem)
        return members.select([tables.ID])


def _about(run: Mapping[str, Any], after: Decided, *, decisions: Path) -> dict[str, Any]:
    unassigned = float(np.mean(after.members[tables.CLASS_ID].to_numpy() == tables.NO_CLASS))
    settings = {**run["settings"], "decisions": str(decisions)}
    return {**run, "settings": settings, "classes": after.classes.num_rows, "unassigned": unassigned}


def _write(folder: Path, source: Path, after: Decided, about: Mapping[str, Any]) -> None:
    from rarezoo.searches.result import RUN_FILE

    for name, table, kind in (("members", after.members, tables.MEMBERS), ("classes", after.classes, tables.CLASSES)):
        keep = {key: value for key, value in tables.provenance(table).items() if key not in _WRITTEN}
        tables.write(table, folder / f"{name}.parquet", kind, **{**keep, "settings": about["settings"]})
    for name in _COPIED:
        if (source / name).exists():
            with tables.atomic(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)
    tables.write_json(about, folder / RUN_FILE)


def _report(folder: Path) -> Path:
    from rarezoo.searches.result import Search

    search, images = Search.open(folder), True
    try:
        search.survey()
    except RarezooError as problem:
        log.warning("a report without images: %s", problem)
        images = False
    return search.report(images=images)


def _change_text(before: pa.Table, after: Decided, members: pa.Table) -> str:
    ids = set(after.classes[tables.CLASS_ID].to_pylist())
    named = sum(bool(name) for name in after.classes[tables.NAME].to_pylist())
    counts = [int(np.sum(one[tables.CLASS_ID].to_numpy() != tables.NO_CLASS)) for one in (members, after.members)]
    return (
        f"{before.num_rows} classes of {counts[0]:,} galaxies before, {len(ids)} of {counts[1]:,} now; "
        f"{before.num_rows - len(ids)} dropped or merged, {named} named"
    )
