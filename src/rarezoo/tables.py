"""Every table that leaves a room: its columns, its checks, its provenance. The only place that spells column names.

A table is a ``pyarrow.Table`` whose metadata key ``rarezoo`` holds kind, schema version and provenance as JSON.
Columns beyond the schema are kept as they are.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rarezoo import __version__
from rarezoo.errors import OutputError, StoreError

SCHEMA_VERSION = 1
METADATA_KEY = b"rarezoo"

ID = "id_str"
RA, DEC = "ra", "dec"
IMAGE, SURVEY, SPLIT = "image", "survey", "split"
POPULATION = "population"
GIVEN_VOTES = "votes"
EMBEDDING = "embedding"
POSITION = "position"
LEFT, RIGHT, DISTANCE, SIZE = "left", "right", "distance", "size"
PARENT, CHILD, LAMBDA, CHILD_SIZE = "parent", "child", "lambda_val", "child_size"
CLASS_ID, PROBABILITY, OUTLIER_SCORE = "class_id", "probability", "outlier_score"
FRACTION = "fraction"
BIRTH, DEATH = "lambda_birth", "lambda_death"
PERSISTENCE, SIGNIFICANCE, STABILITY = "persistence", "significance", "stability"
NODE, TOP_ANSWERS, EXEMPLARS, FLAGS = "node", "top_answers", "exemplars", "flags"
SURVIVED, REFIT = "survived", "refit"
CLASS_A, CLASS_B, SIZE_A, SIZE_B = "class_a", "class_b", "size_a", "size_b"
OVERLAP, JACCARD, P_VALUE, EVENT = "overlap", "jaccard", "p_value", "event"
P_CORRECTED = "p_corrected"
NEAREST_CLASS, P_NONE, P_CLASS, P_KNOWN = "nearest_class", "p_none", "p_class", "p_known"
ISOLATION, FALSE_DISCOVERY, GROUP = "isolation", "false_discovery", "group_node"
BEYOND, BEYOND_LOW, BEYOND_HIGH = "beyond", "beyond_low", "beyond_high"
BEYOND_VERDICT, BEYOND_REASON = "beyond_verdict", "beyond_reason"
CAUSE, CAUSE_REASON = "cause", "cause_reason"
SEARCH, SETTING, SEED, MISSING = "search", "setting", "seed", "missing"
CLASS_COUNT, SIZES, UNASSIGNED = "classes", "sizes", "unassigned"
SEARCH_A, SEARCH_B, SETTING_A, SETTING_B = "search_a", "search_b", "setting_a", "setting_b"
SEED_A, SEED_B = "seed_a", "seed_b"
CO_ASSIGNMENT, ARI_BOTH, AMI_BOTH, ASSIGNED_BOTH = "co_assignment", "ari_both", "ami_both", "assigned"
KEPT, MATCHED = "kept", "matched"
NAME, DECISION = "name", "decision"
NO_CLASS = -1
_FRACTION_SUFFIX = "_fraction"


@dataclass(frozen=True)
class Kind:
    """A table's name, its required columns with types (None: any type), and the columns that must not be null."""

    name: str
    columns: Mapping[str, pa.DataType | None]
    key: str | None = None
    not_null: tuple[str, ...] = ()

    def narrowed(self, columns: Sequence[str]) -> "Kind":
        """The kind of a table of which only some columns were read."""
        wanted = {name: self.columns.get(name) for name in columns}
        not_null = tuple(name for name in self.not_null if name in wanted)
        return Kind(self.name, wanted, key=self.key if self.key in wanted else None, not_null=not_null)


_strings = pa.list_(pa.string())
CATALOGUE = Kind(
    "catalogue",
    {ID: pa.string(), RA: pa.float64(), DEC: pa.float64(), IMAGE: pa.string(), SURVEY: pa.string(), SPLIT: pa.string()},
    key=ID,
)
# Votes are float32 where the design said int32: weighted votes are fractional, and rounding them would lose them.
VOTES = Kind("votes", {ID: pa.string()}, key=ID)
TRUTH = Kind("truth", {ID: pa.string(), POPULATION: pa.string()}, key=ID)
RECORDS = Kind(
    "mock records",
    {ID: pa.string(), POPULATION: pa.string(), RA: pa.float64(), DEC: pa.float64(), GIVEN_VOTES: None},
    key=ID,
    not_null=(GIVEN_VOTES,),
)
EMBEDDINGS = Kind("embeddings", {ID: pa.string(), EMBEDDING: None}, key=ID, not_null=(EMBEDDING,))
MAP = Kind("map", {ID: pa.string(), POSITION: None}, key=ID, not_null=(POSITION,))
LINKAGE = Kind("linkage", {LEFT: pa.int64(), RIGHT: pa.int64(), DISTANCE: pa.float64(), SIZE: pa.int64()})
TREE = Kind("tree", {PARENT: pa.int64(), CHILD: pa.int64(), LAMBDA: pa.float64(), CHILD_SIZE: pa.int64()})
MEMBERS = Kind(
    "members",
    {ID: pa.string(), CLASS_ID: pa.int32(), PROBABILITY: pa.float32(), OUTLIER_SCORE: pa.float32()},
    key=ID,
    not_null=(CLASS_ID,),
)
CLASSES = Kind(
    "classes",
    {
        CLASS_ID: pa.int32(),
        NODE: pa.int64(),
        SIZE: pa.int64(),
        FRACTION: pa.float64(),
        BIRTH: pa.float64(),
        DEATH: pa.float64(),
        PERSISTENCE: pa.float64(),
        SIGNIFICANCE: pa.float64(),
        ISOLATION: pa.float64(),
        P_VALUE: pa.float64(),
        FALSE_DISCOVERY: pa.float64(),
        GROUP: pa.int64(),
        STABILITY: pa.float64(),
        TOP_ANSWERS: _strings,
        EXEMPLARS: _strings,
        FLAGS: _strings,
        BEYOND: pa.float64(),
        BEYOND_LOW: pa.float64(),
        BEYOND_HIGH: pa.float64(),
        BEYOND_VERDICT: pa.string(),
        BEYOND_REASON: pa.string(),
        CAUSE: pa.string(),
        CAUSE_REASON: pa.string(),
    },
    key=CLASS_ID,
)

MATCHES = Kind(
    "matches",
    {
        CLASS_A: pa.int32(),
        CLASS_B: pa.int32(),
        SIZE_A: pa.int64(),
        SIZE_B: pa.int64(),
        OVERLAP: pa.int64(),
        JACCARD: pa.float64(),
        P_VALUE: pa.float64(),
        EVENT: pa.string(),
    },
)
STABILITIES = Kind("stabilities", {CLASS_ID: pa.int32(), REFIT: pa.string(), JACCARD: pa.float64()})
REFITS = Kind("refits", {ID: pa.string(), CLASS_ID: pa.int32()}, key=ID, not_null=(CLASS_ID,))
SEARCHES = Kind(
    "searches",
    {
        SEARCH: pa.string(),
        SETTING: pa.string(),
        SEED: pa.int64(),
        CLASS_COUNT: pa.int64(),
        SIZES: pa.list_(pa.int64()),
        UNASSIGNED: pa.float64(),
        MISSING: pa.string(),
    },
    key=SEARCH,
)
AGREEMENTS = Kind(
    "agreements",
    {
        SEARCH_A: pa.string(),
        SEARCH_B: pa.string(),
        SETTING_A: pa.string(),
        SETTING_B: pa.string(),
        SEED_A: pa.int64(),
        SEED_B: pa.int64(),
        CO_ASSIGNMENT: pa.float64(),
        ARI_BOTH: pa.float64(),
        AMI_BOTH: pa.float64(),
        ASSIGNED_BOTH: pa.float64(),
        KEPT: pa.int64(),
        MATCHED: pa.float64(),
    },
)
LIVES = Kind(
    "lives",
    {CLASS_ID: pa.int32(), SEARCH: pa.string(), SETTING: pa.string(), SEED: pa.int64(), JACCARD: pa.float64()},
)
ASSIGNED = Kind(
    "assigned",
    {
        ID: pa.string(),
        CLASS_ID: pa.int32(),
        PROBABILITY: pa.float32(),
        NEAREST_CLASS: pa.int32(),
        P_NONE: pa.float64(),
        P_CLASS: pa.float64(),
        P_KNOWN: pa.float64(),
    },
    key=ID,
    not_null=(CLASS_ID, PROBABILITY),
)


def fraction_column(answer: str) -> str:
    """Column of an answer's predicted vote fraction, as the paper spells it: ``smooth-or-featured_smooth_fraction``."""
    return f"{answer}{_FRACTION_SUFFIX}"


def answer_of(column: str) -> str | None:
    """The answer whose predicted fraction a column holds, or None if it holds something else."""
    return column.removesuffix(_FRACTION_SUFFIX) if is_fraction_column(column) else None


def is_fraction_column(column: str) -> bool:
    """Whether a column holds a predicted vote fraction (a class's own share, ``fraction``, does not)."""
    return column.endswith(_FRACTION_SUFFIX) and column != FRACTION


def vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    """A float16 or float32 matrix (n, D) as a column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def matrix(table: pa.Table, column: str) -> np.ndarray:
    """A column of fixed-size lists as a matrix (n, D) of the stored float type."""
    kind = table.schema.field(column).type
    flat = table.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(table.num_rows, kind.list_size)


def strings(table: pa.Table, column: str) -> np.ndarray:
    """A string column as an object array (n,)."""
    return np.asarray(table.column(column).to_pylist(), dtype=object)


def check(table: pa.Table, kind: Kind, *, source: str = "table") -> pa.Table:
    """The table, with its columns of the kind's types.

    Raises:
        StoreError: a column is missing or cannot be cast, a key is null or doubled, a value that must not be null is.
    """
    for column, wanted in kind.columns.items():
        if column not in table.column_names:
            raise StoreError(f"{source}: a {kind.name} table needs a column", value=column, fix="Write the table anew.")
        table = _cast(table, column, wanted, source=source) if wanted is not None else table
    for column in (*kind.not_null, *([kind.key] if kind.key else [])):
        if table.column(column).null_count:
            raise StoreError(f"{source}: null values in column", value=column, fix="Fill or drop those rows.")
    if kind.key and pc.count_distinct(table.column(kind.key)).as_py() != table.num_rows:
        raise StoreError(
            f"{source}: doubled keys", value=_first_doubled(table, kind.key), fix="Give every row its own."
        )
    return table


def _cast(table: pa.Table, column: str, wanted: pa.DataType, *, source: str) -> pa.Table:
    index = table.column_names.index(column)
    if table.schema.field(index).type == wanted:
        return table
    try:
        return table.set_column(index, column, table.column(index).cast(wanted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
        raise StoreError(f"{source}: column {column} must be {wanted}", value=problem, fix="Convert it.") from problem


def _first_doubled(table: pa.Table, key: str) -> Any:
    counts = pc.value_counts(table.column(key))
    return next(row["values"] for row in counts.to_pylist() if row["counts"] > 1)


def write(table: pa.Table, path: Path | str, kind: Kind, **provenance: Any) -> Path:
    """Check a table and write it as Parquet in one step: the file appears whole or not at all.

    Raises:
        StoreError: the table does not fit its kind.
        OutputError: the folder cannot be written or is full.
    """
    path = Path(path)
    about = {"kind": kind.name, "schema": SCHEMA_VERSION, "version": __version__, **provenance}
    table = check(table, kind, source=path.name)
    metadata = {**(table.schema.metadata or {}), METADATA_KEY: json.dumps(about).encode()}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    return path


def read(path: Path | str, kind: Kind, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table and check it.

    Args:
        path: Parquet file.
        kind: what it must be.
        columns: read only these; None reads all.

    Raises:
        StoreError: the file is missing, unreadable, of another kind, or does not fit its kind.
    """
    path = Path(path)
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except FileNotFoundError as problem:
        raise StoreError(f"no {kind.name} table", value=path, fix="Run the step that writes it first.") from problem
    except (pa.ArrowInvalid, OSError) as problem:
        raise StoreError(f"unreadable {kind.name} table", value=path, fix="Delete it and write it anew.") from problem
    found = provenance(table).get("kind", kind.name)
    if found != kind.name:
        raise StoreError(f"{path} is a {found} table", value=found, fix=f"Point to a {kind.name} table.")
    return check(table, kind if columns is None else kind.narrowed(columns), source=path.name)


def provenance(table: pa.Table) -> dict[str, Any]:
    """What the metadata says of a table: kind, schema, version, and what its writer added; empty if foreign."""
    found: dict[str, Any] = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    return found


class atomic:
    """Context manager: a temporary path beside the target, renamed onto it only if all went well.

    Raises:
        OutputError: the folder cannot be written or is full.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise unwritable(self.path, problem) from problem
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: object) -> None:
        if problem is None:
            os.replace(self.temporary, self.path)
            return
        self.temporary.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            raise unwritable(self.path, problem) from problem


def unwritable(path: Path, problem: OSError) -> OutputError:
    """The error for a path that the system refuses to write."""
    reason = problem.strerror or str(problem)
    return OutputError(f"cannot write ({reason})", value=path, fix="Choose another out=DIR or make room there.")


def write_json(content: Mapping[str, Any], path: Path | str) -> Path:
    """Write JSON in one step; NaN becomes null so that any reader takes it."""
    path = Path(path)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
    return path


def plain(value: Any) -> Any:
    """Numpy values, paths and NaN as what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
