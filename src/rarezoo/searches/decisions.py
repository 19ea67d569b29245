"""Apply a reader's decisions about the classes of a search: keep, drop, merge, name. ``rarezoo classes apply``.

The atlas writes the decisions, and they can be written by hand. The file is JSON
(``{"rarezoo": "decisions", "schema": 1, "search": …, "classes": [{…}]}``) or CSV with the same columns: search,
class_id, size, decision (keep, drop, merge or empty), name, merge_into.
"""

import csv
import difflib
import hashlib
import io
import json
import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from rarezoo import tables
from rarezoo.errors import ConfigError, RarezooError, StoreError
from rarezoo.searches.classes import nearest_to_medoid, share_in_no_class, top_answers
from rarezoo.searches.grades import counts, renumbered
from rarezoo.searches.previous import PreviousSearch
from rarezoo.searches.result import TABLES, Search
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)

KEEP, DROP, MERGE = "keep", "drop", "merge"
MERGED = "merged"
SCHEMA = 1
_CHOICES = ("", KEEP, DROP, MERGE)
_COLUMNS = ("search", "class_id", "size", "decision", "name", "merge_into")
# Columns of CLASSES that hold for a class as HDBSCAN found it, but not for one that was merged by hand.
UNMEASURED = (
    tables.NODE,
    tables.BIRTH,
    tables.DEATH,
    tables.PERSISTENCE,
    tables.SIGNIFICANCE,
    tables.STABILITY,
    tables.BEYOND,
    tables.BEYOND_LOW,
    tables.BEYOND_HIGH,
    tables.BEYOND_VERDICT,
    tables.BEYOND_REASON,
    tables.CAUSE,
    tables.CAUSE_REASON,
    tables.SURVIVED,
    tables.ISOLATION,
    tables.P_VALUE,
    tables.FALSE_DISCOVERY,
    tables.GROUP,
    tables.GRADE,
)
# Tables that do not change when classes are dropped, merged or added.
COPIED = ("map", "map_2d", "tree", "linkage", "main_groups", "nodes")


def search_key(ids: Iterable[object], labels: Int[np.ndarray, " galaxies"]) -> str:
    """Return sixteen hexadecimal digits that two searches share if they put the same galaxies into the same classes.

    >>> search_key(["a", "b"], np.array([0, -1])) == search_key(["b", "a"], np.array([-1, 0]))
    True
    """
    names = np.asarray(list(map(str, ids)), dtype=object)
    order = np.argsort(names.astype(str), kind="stable")
    state = hashlib.sha256("\n".join(names[order]).encode())
    state.update(np.ascontiguousarray(labels[order], dtype="<i4").tobytes())
    return state.hexdigest()[:16]


@dataclass(frozen=True)
class Decision:
    """Decision about one class.

    Attributes
    ----------
    class_id
        Id of the class.
    decision
        keep, drop, merge, or empty for none.
    name
        Name of the class; empty for none.
    merge_into
        Id of the class that it becomes part of, for merge.
    """

    class_id: int
    decision: str = ""
    name: str = ""
    merge_into: int | None = None


@dataclass(frozen=True)
class Decisions:
    """Decisions about the classes of a search.

    Attributes
    ----------
    search
        Key of the search, see :func:`search_key`; empty if the file does not name it.
    items
        At most one decision per class.

    Examples
    --------
    >>> Decisions("", (Decision(0, "merge", merge_into=2), Decision(1, "drop"))).targets([0, 1, 2])
    {0: 2, 1: -1, 2: 2}
    """

    search: str
    items: tuple[Decision, ...]

    @classmethod
    def read(cls, path: Path | str) -> "Decisions":
        """Read a JSON or CSV file; the ending of its name says which.

        Raises
        ------
        ConfigError
            There is no such file, or it does not hold decisions.
        """
        path = Path(path)
        try:
            # Spreadsheets begin a file with a mark of its encoding.
            content = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as problem:
            reason = "it is not UTF-8" if isinstance(problem, UnicodeDecodeError) else problem.strerror
            raise ConfigError(
                f"no file of decisions ({reason})", value=path, fix="Save one from the atlas, as JSON or CSV."
            ) from problem
        read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
        rows, search = read(content, path)
        items = tuple(decision_of(row, source=path) for row in rows)
        ids = [item.class_id for item in items]
        doubled = sorted({class_id for class_id in ids if ids.count(class_id) > 1})
        if doubled:
            raise ConfigError(
                f"{path}: more than one decision about a class", value=doubled, fix="Leave one line for each class."
            )
        return cls(search, items)

    def content(self, *, title: str, sizes: Mapping[int, int]) -> dict[str, Any]:
        """Return what a JSON file of these decisions holds.

        Parameters
        ----------
        title
            Title of the search.
        sizes
            Number of members of each class, for readers of the file.

        Examples
        --------
        >>> from tempfile import mkdtemp
        >>> decisions = Decisions("", (Decision(0, "keep", "rings"),))
        >>> file = tables.write_json(decisions.content(title="", sizes={0: 12}), Path(mkdtemp()) / "decisions.json")
        >>> Decisions.read(file) == decisions
        True
        """
        classes = [{**asdict(item), "size": sizes.get(item.class_id)} for item in self.items]
        return {"rarezoo": "decisions", "schema": SCHEMA, "search": self.search, "title": title, "classes": classes}

    def require_search(self, *keys: str) -> None:
        """Raise ConfigError unless the decisions are about one of these searches, or do not name their search."""
        if self.search and self.search not in keys:
            raise ConfigError(
                "these decisions are about another search, which has other classes",
                value=self.search,
                fix="Use decisions about this search; a search with previous= also takes those about that one.",
            )

    def targets(self, ids: Sequence[int]) -> dict[int, int]:
        """Return the class that each class becomes part of: itself, another one, or −1 if it is dropped.

        Raises
        ------
        ConfigError
            A class does not exist, or classes are merged in a circle.
        """
        known = set(ids)
        named = {item.class_id for item in self.items}
        named |= {item.merge_into for item in self.items if item.merge_into is not None}
        if named - known:
            raise ConfigError(
                "decisions about classes that this search does not have",
                value=sorted(named - known),
                fix=f"It has {len(known)} classes: {', '.join(map(str, sorted(known)[:20]))}.",
            )
        by_class = {item.class_id: item for item in self.items}
        return {class_id: self._target(class_id, by_class) for class_id in ids}

    def _target(self, class_id: int, by_class: Mapping[int, Decision]) -> int:
        """Follow the merges of a class to the last one."""
        chain = [class_id]
        item = by_class.get(class_id)
        while item is not None and item.decision == MERGE and item.merge_into is not None:
            if item.merge_into in chain:
                raise ConfigError(
                    "classes are merged in a circle", value=chain, fix="Do not merge the last of them into another."
                )
            chain.append(item.merge_into)
            item = by_class.get(chain[-1])
        return tables.NO_CLASS if item is not None and item.decision == DROP else chain[-1]

    @property
    def names(self) -> dict[int, str]:
        """Names of classes."""
        return {item.class_id: item.name for item in self.items if item.name}

    @property
    def kept(self) -> set[int]:
        """Classes that are explicitly kept."""
        return {item.class_id for item in self.items if item.decision == KEEP}


@dataclass(frozen=True)
class DecidedTables:
    """MEMBERS and CLASSES tables after the decisions."""

    members: pa.Table
    classes: pa.Table


def apply_decisions(
    decisions: Decisions,
    *,
    members: pa.Table,
    classes: pa.Table,
    positions: Float[np.ndarray, "galaxies k"],
    predictions: pa.Table | None = None,
) -> DecidedTables:
    """Drop, merge and name classes in the tables of a search; the other classes stay as they are.

    The members of a dropped class are in no class. A merged class has the id of the class that it is merged into; its
    size, exemplars and answers are computed again, and the measurements of its parts, also their grade, become null.
    The ranks are numbered again from 1. CLASSES gains the columns ``name`` and ``decision`` (keep, merged or empty).

    Parameters
    ----------
    decisions
        Decisions about the search.
    members
        MEMBERS table of n galaxies.
    classes
        CLASSES table.
    positions
        (n, k) positions on the map that was clustered, in the order of the members.
    predictions
        n rows with the predicted fraction columns; None leaves the answers of merged classes empty.

    Raises
    ------
    ConfigError
        See :meth:`Decisions.targets`.
    """
    targets = decisions.targets(classes.column(tables.CLASS_ID).to_pylist())
    before = members.column(tables.CLASS_ID).to_numpy()
    labels = np.array([targets.get(int(label), tables.NO_CLASS) for label in before], dtype=np.int32)
    strengths = members.column(tables.PROBABILITY).to_numpy()
    strengths = np.where(labels == tables.NO_CLASS, 0, strengths).astype(np.float32)
    rows = []
    all_rows = classes.to_pylist()
    for row in all_rows:
        class_id = row[tables.CLASS_ID]
        if targets[class_id] != class_id:
            continue
        merged = list(targets.values()).count(class_id) > 1
        kept = KEEP if class_id in decisions.kept else ""
        parts = [other for other in all_rows if targets[other[tables.CLASS_ID]] == class_id]
        changes = _merged_row(parts, class_id, labels, members, positions, predictions) if merged else {}
        names = {tables.NAME: decisions.names.get(class_id, ""), tables.DECISION: MERGED if merged else kept}
        rows.append({**row, **changes, **names})
    new = [pa.field(name, pa.string()) for name in (tables.NAME, tables.DECISION) if name not in classes.column_names]
    schema = pa.schema([*classes.schema, *new], metadata=classes.schema.metadata)
    members = _replaced(_replaced(members, tables.CLASS_ID, labels), tables.PROBABILITY, strengths)
    decided = pa.Table.from_pylist(rows, schema)
    return DecidedTables(members, renumbered(decided) if tables.RANK in decided.column_names else decided)


def _merged_row(
    parts: Sequence[Mapping[str, Any]],
    class_id: int,
    labels: np.ndarray,
    members: pa.Table,
    positions: np.ndarray,
    predictions: pa.Table | None,
) -> dict[str, Any]:
    """Return the columns of CLASSES that change for a class that others were merged into; ``parts`` are their rows.

    Sizes are added up, because a search out of core shows only some of the members of a large class.
    """
    rows = np.flatnonzero(labels == class_id)
    names = tables.strings(members, tables.ID)
    rows = rows[np.argsort(names[rows].astype(str), kind="stable")]
    return {
        **{name: None for name in UNMEASURED if name in parts[0]},
        tables.SIZE: sum(part[tables.SIZE] for part in parts),
        tables.FRACTION: sum(part[tables.FRACTION] for part in parts),
        tables.EXEMPLARS: [str(name) for name in names[nearest_to_medoid(positions, rows)]],
        tables.TOP_ANSWERS: [] if predictions is None else top_answers(predictions, [rows])[0],
    }


def _replaced(table: pa.Table, column: str, values: np.ndarray) -> pa.Table:
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(values, table.schema.field(column).type))


@dataclass(kw_only=True)
class ApplyRun(Settings):
    """Apply a file of decisions to a search; the result is a search in another folder, with its report.

    Without the embedding store the answers of merged classes stay empty; without the survey the report has no images.
    """

    search: str = setting(help="folder of a finished search", positional=True)
    file: str = setting(help="decisions that were saved from the atlas, JSON or CSV", positional=True)
    out: str = setting("", "output folder; empty: the folder decided inside that of the search")

    def run(self) -> "AppliedDecisions":
        """Apply the decisions and write the new search.

        Raises
        ------
        StoreError
            The folder holds no finished search.
        ConfigError
            The file holds no decisions, or decisions about another search, or they contradict each other.
        OutputError
            The output folder cannot be written.
        """
        search = Search.open(self.search)
        folder = Path(self.out) if self.out else search.folder / "decided"
        if folder.resolve() == search.folder.resolve():
            raise ConfigError(
                "the output would overwrite the search itself", value=folder, fix="Choose another folder: out=DIR."
            )
        decisions, members = Decisions.read(self.file), search.table("members")
        decisions.require_search(search_key(search.ids, search.labels))
        positions = tables.aligned(search.table("map"), search.ids, source="the map")
        predictions = _predictions(search)
        decided = apply_decisions(
            decisions,
            members=members,
            classes=search.table("classes"),
            positions=tables.matrix(positions, tables.POSITION),
            predictions=predictions,
        )
        about = {
            **search.about,
            "settings": {**search.settings, "store": search.store_folder, "decisions": str(Path(self.file).resolve())},
            "folder": str(folder.resolve()),
            "classes": decided.classes.num_rows,
            "grades": counts(decided.classes.column(tables.GRADE).to_pylist()),
            "unassigned": share_in_no_class(decided.classes, searched=search.searched),
        }
        for file, _ in (TABLES[name] for name in COPIED):
            if (search.folder / file).exists():
                with tables.atomic(folder / file) as temporary:
                    shutil.copyfile(search.folder / file, temporary)
        after = Search.write(
            folder,
            about,
            {"members": decided.members, "classes": decided.classes},
            free_class_id=PreviousSearch.read(search.folder).free,
            predictions=predictions,
        )
        after.report(images=_has_survey(after))
        after.finish()
        return AppliedDecisions(search, after)


@dataclass(frozen=True)
class AppliedDecisions:
    """A search before and after decisions."""

    before: Search
    after: Search

    def summary(self) -> str:
        """Return the text for a terminal."""
        galaxies = [int(np.sum(search.labels != tables.NO_CLASS)) for search in (self.before, self.after)]
        named = sum(bool(name) for name in self.after.table("classes")[tables.NAME].to_pylist())
        return (
            f"{len(self.before)} classes of {galaxies[0]:,} galaxies before, {len(self.after)} of {galaxies[1]:,} now; "
            f"{len(self.before) - len(self.after)} dropped or merged, {named} named\n{self.after.page}"
        )


def _predictions(search: Search) -> pa.Table:
    """Return the predicted fractions of the galaxies; only their ids if the embedding store does not exist any more."""
    try:
        return search.predictions
    except StoreError as problem:
        log.warning("the answers of merged classes are left empty: %s", problem)
        return search.table("members").select([tables.ID])


def _has_survey(search: Search) -> bool:
    try:
        search.survey()
    except RarezooError as problem:
        log.warning("the report has no images: %s", problem)
        return False
    return True


def _json_rows(content: str, path: Path) -> tuple[list[Mapping[str, Any]], str]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_columns([key for key, _ in pairs], path)
        return dict(pairs)

    try:
        parsed = json.loads(content, object_pairs_hook=unique)
        if parsed["rarezoo"] != "decisions" or parsed["schema"] != SCHEMA:
            raise ValueError("another kind of file")
        return list(parsed["classes"]), str(parsed.get("search", ""))
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise ConfigError(
            f"no file of decisions ({problem})",
            value=path,
            fix="Save one from the atlas. A CSV file needs a name that ends in .csv.",
        ) from problem


def _csv_rows(content: str, path: Path) -> tuple[list[Mapping[str, Any]], str]:
    try:
        reader = csv.DictReader(io.StringIO(content, newline=""))
        header = list(reader.fieldnames or ())
        # Spreadsheets and people change case and spaces.
        reader.fieldnames = [name.strip().casefold() for name in header]
        rows = list(reader)
    except csv.Error as problem:
        raise ConfigError(f"no file of decisions ({problem})", value=path, fix="Save it again as CSV.") from problem
    if not any(reader.fieldnames):
        raise ConfigError(
            "no file of decisions (it is empty)", value=path, fix="Save one from the atlas, or give it a header."
        )
    _refuse_columns(reader.fieldnames, path)
    # Cells beyond the header, which may be those of another column, have the key None.
    beyond = [row for row in rows if any(row.get(None) or ())]
    if beyond:
        raise ConfigError(
            f"{path}: a row with more cells than the header", value=list(beyond[0].values())[:6], fix="Correct it."
        )
    searches = {row["search"] for row in rows if row.get("search")}
    if len(searches) > 1:
        raise ConfigError(
            "decisions about several searches in one file", value=sorted(searches), fix="Use one file for each search."
        )
    filled: list[Mapping[str, Any]] = [
        row for row in rows if any(value for key, value in row.items() if key is not None)
    ]
    return filled, next(iter(searches), "")


def _refuse_columns(names: Sequence[str], path: Path) -> None:
    """Raise ConfigError for a column or key that occurs twice, or that is nearly one of those that exist."""
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{path}: a column or key occurs twice", value=doubled, fix="Leave one of them.")
    for name in names:
        near = difflib.get_close_matches(name.casefold(), _COLUMNS, n=1, cutoff=0.8)
        if near and name not in _COLUMNS and near[0] not in names:
            raise ConfigError(f"{path}: no such column or key", value=name, fix=f"Did you mean {near[0]}?")


def decision_of(row: Mapping[str, Any], *, source: object) -> Decision:
    """Return the decision that a row of a file or a message holds.

    Parameters
    ----------
    row
        ``class_id``, and where they apply ``decision``, ``name`` and ``merge_into``.
    source
        Where it was read, for the message.

    Raises
    ------
    ConfigError
        It is no decision.

    Examples
    --------
    >>> decision_of({"class_id": "3", "decision": "Keep"}, source="a message")
    Decision(class_id=3, decision='keep', name='', merge_into=None)
    """
    try:
        into = row.get("merge_into")
        item = Decision(
            class_id=_class_id(row["class_id"]),
            decision=str(row.get("decision") or "").strip().lower(),
            name=str(row.get("name") or "").strip(),
            merge_into=None if into in (None, "") else _class_id(into),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ConfigError(
            f"{source}: not a decision",
            value=dict(row) if isinstance(row, Mapping) else row,
            fix="Each decision needs class_id, and where they apply decision (keep, drop, merge), name and merge_into.",
        ) from problem
    try:
        item.name.encode()
    except UnicodeEncodeError as problem:
        raise ConfigError(
            f"{source}: the name of class {item.class_id} holds half a character", value=ascii(item.name),
            fix="Write it again.",
        ) from problem  # fmt: skip
    if item.decision not in _CHOICES or (item.decision == MERGE) != (item.merge_into is not None):
        raise ConfigError(
            f"{source}: the decision about class {item.class_id} is not valid",
            value=item.decision or f"merge_into {item.merge_into}",
            fix="Write keep, drop, or merge with the id of another class in merge_into.",
        )
    return item


def _class_id(value: object) -> int:
    """Return the id of a class; numbers such as 1.5, True and 1_0 are none."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d+(\.0)?\s*", value, re.ASCII):
        return int(value.strip().removesuffix(".0"))
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no id of a class")
    return value
