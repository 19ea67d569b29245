"""Every table that rarezoo writes: its columns, its checks, its provenance. Column names are spelled only here.

A table is a ``pyarrow.Table`` whose metadata key ``rarezoo`` holds kind, schema version and provenance as JSON.
Columns beyond the schema are kept as they are.
"""

import json
import logging
import os
import platform
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from rarezoo import __version__
from rarezoo.errors import OutputError, RarezooError, StoreError, StoreNotFound
from rarezoo.escapes import visible

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
METADATA_KEY = b"rarezoo"

ID = "id_str"
RA, DEC = "ra", "dec"
IMAGE, SURVEY, SPLIT = "image", "survey", "split"
POPULATION = "population"
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
GRADE, RANK = "grade", "rank"
MAIN_GROUP = "group"
NULL_SURVEY, GALAXIES, USUAL, SCATTER = "null_survey", "galaxies", "usual", "scatter"
IS_CANDIDATE, EXPECTED = "is_candidate", "expected"
LABEL, VALUE, BY, AT, KIND = "label", "value", "by", "at", "kind"
WHY, ROUND, SECONDS, ENTRY, UNDOES = "why", "round", "seconds", "entry", "undoes"
SCORE, UNCERTAINTY, INTEREST, NEAREST_RATED = "score", "uncertainty", "interest", "nearest_rated"
SKY_DISTANCE = "distance_arcsec"
LIST, COVERED, LABELLED, PURITY, COMPLETENESS = "list", "covered", "labelled", "purity", "completeness"
LIFT, LIFT_LOW, LIFT_HIGH = "lift", "lift_low", "lift_high"
KNOWN_AS = "known_as"
PROPERTY, UNIT, WITHIN, WITHIN_LOW, WITHIN_HIGH = "property", "unit", "within", "within_low", "within_high"
SETS, OF_MEMBERS, OF_CONTROLS = "sets", "members", "controls"
DIFFERENCE, DIFFERENCE_LOW, DIFFERENCE_HIGH = "difference", "difference_low", "difference_high"
EFFECT, RAW_DIFFERENCE, RAW_P, RAW_P_CORRECTED = "effect", "raw_difference", "raw_p_value", "raw_p_corrected"
VERDICT, REASON = "verdict", "reason"
COVARIATE, BEFORE, AFTER, CONTROL = "covariate", "before", "after", "control"
DELTA_BIC, SMALLER_SHARE, SEPARATION, PROPERTIES = "delta_bic", "smaller_share", "separation", "properties"
NO_CLASS = -1
_FRACTION_SUFFIX = "_fraction"
# Seconds after which a file that another machine has not finished counts as left behind.
_FORGOTTEN = 86_400
# So many bytes of a file hold the names of its columns.
_HEAD = 65_536


@dataclass(frozen=True)
class Kind:
    """A kind of table: its name, its required columns with types (None: any type), and the columns without nulls.

    Columns in ``later`` did not exist in earlier versions: where a file lacks them, they are null.
    """

    name: str
    columns: Mapping[str, pa.DataType | None]
    key: str | None = None
    not_null: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    def narrowed(self, columns: Sequence[str]) -> "Kind":
        """Return the kind of a table of which only some columns were read."""
        wanted = {name: self.columns.get(name) for name in columns}
        not_null = tuple(name for name in self.not_null if name in wanted)
        later = tuple(name for name in self.later if name in wanted)
        return Kind(self.name, wanted, key=self.key if self.key in wanted else None, not_null=not_null, later=later)


_strings = pa.list_(pa.string())
CATALOGUE = Kind(
    "catalogue",
    {ID: pa.string(), RA: pa.float64(), DEC: pa.float64(), IMAGE: pa.string(), SURVEY: pa.string(), SPLIT: pa.string()},
    key=ID,
)
# Some galaxies of a survey, with their rows in it.
SELECTED = Kind("selected", {ID: pa.string(), "row": pa.int64()}, key=ID, not_null=("row",))
# Votes are float32: weighted votes are fractional, and rounding would lose them.
VOTES = Kind("votes", {ID: pa.string()}, key=ID)
TRUTH = Kind("truth", {ID: pa.string(), POPULATION: pa.string()}, key=ID)
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
        GRADE: pa.string(),
        RANK: pa.int32(),
    },
    key=CLASS_ID,
    later=(GRADE, RANK),
)

MAIN_GROUPS = Kind(
    "main_groups",
    {
        MAIN_GROUP: pa.int32(),
        NODE: pa.int64(),
        SIZE: pa.int64(),
        FRACTION: pa.float64(),
        SIGNIFICANCE: pa.float64(),
        P_VALUE: pa.float64(),
        TOP_ANSWERS: _strings,
        EXEMPLARS: _strings,
    },
    key=MAIN_GROUP,
)
# Nodes of the tree of a search and of its null surveys. Usual isolation and scatter are logits.
NODES = Kind(
    "nodes",
    {
        NULL_SURVEY: pa.int32(),
        NODE: pa.int64(),
        GALAXIES: pa.int64(),
        SIZE: pa.int64(),
        ISOLATION: pa.float64(),
        USUAL: pa.float64(),
        SCATTER: pa.float64(),
        SIGNIFICANCE: pa.float64(),
        IS_CANDIDATE: pa.bool_(),
        EXPECTED: pa.float64(),
    },
    not_null=(GALAXIES, SIZE, ISOLATION, IS_CANDIDATE),
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
# Entries of the log of ratings: several rows per galaxy.
LABELS = Kind(
    "labels",
    {
        ID: pa.string(),
        LABEL: pa.string(),
        VALUE: pa.float64(),
        BY: pa.string(),
        AT: pa.timestamp("us", tz="UTC"),
        KIND: pa.string(),
        WHY: pa.string(),
        ROUND: pa.int32(),
        SECONDS: pa.float64(),
        ENTRY: pa.int64(),
        UNDOES: pa.int64(),
    },
    not_null=(ID, LABEL, BY, AT),
    later=(KIND, WHY, ROUND, SECONDS, ENTRY, UNDOES),
)
RANKING = Kind(
    "ranking",
    {
        ID: pa.string(),
        SCORE: pa.float64(),
        RANK: pa.int64(),
        UNCERTAINTY: pa.float64(),
        INTEREST: pa.float64(),
        WHY: pa.string(),
        NEAREST_RATED: pa.string(),
    },
    key=ID,
    not_null=(SCORE, RANK),
    later=(UNCERTAINTY, INTEREST, WHY, NEAREST_RATED),
)
# Classes against the labels of lists of known galaxies: one row per class and label, and one row per class.
KNOWN = Kind(
    "known",
    {
        CLASS_ID: pa.int32(),
        LIST: pa.string(),
        LABEL: pa.string(),
        SIZE: pa.int64(),
        COVERED: pa.int64(),
        OVERLAP: pa.int64(),
        LABELLED: pa.int64(),
        GALAXIES: pa.int64(),
        PURITY: pa.float64(),
        COMPLETENESS: pa.float64(),
        LIFT: pa.float64(),
        LIFT_LOW: pa.float64(),
        LIFT_HIGH: pa.float64(),
        P_VALUE: pa.float64(),
        P_CORRECTED: pa.float64(),
    },
    not_null=(CLASS_ID, LIST, LABEL),
)
KINDS = Kind(
    "kinds", {CLASS_ID: pa.int32(), VERDICT: pa.string(), KNOWN_AS: _strings, REASON: pa.string()}, key=CLASS_ID
)
# Classes against their matched controls: one row per class, property and range of a column.
DIFFERENCES = Kind(
    "differences",
    {
        CLASS_ID: pa.int32(),
        PROPERTY: pa.string(),
        UNIT: pa.string(),
        KIND: pa.string(),
        WITHIN: pa.string(),
        WITHIN_LOW: pa.float64(),
        WITHIN_HIGH: pa.float64(),
        SETS: pa.int64(),
        OF_MEMBERS: pa.float64(),
        OF_CONTROLS: pa.float64(),
        DIFFERENCE: pa.float64(),
        DIFFERENCE_LOW: pa.float64(),
        DIFFERENCE_HIGH: pa.float64(),
        EFFECT: pa.float64(),
        P_VALUE: pa.float64(),
        P_CORRECTED: pa.float64(),
        RAW_DIFFERENCE: pa.float64(),
        RAW_P: pa.float64(),
        RAW_P_CORRECTED: pa.float64(),
        VERDICT: pa.string(),
        REASON: pa.string(),
    },
    not_null=(CLASS_ID, PROPERTY, VERDICT),
)
BALANCES = Kind("balances", {CLASS_ID: pa.int32(), COVARIATE: pa.string(), BEFORE: pa.float64(), AFTER: pa.float64()})
CONTROLS = Kind("controls", {CLASS_ID: pa.int32(), ID: pa.string(), CONTROL: pa.string()})
SPLITS = Kind(
    "splits",
    {
        CLASS_ID: pa.int32(),
        GALAXIES: pa.int64(),
        PROPERTIES: _strings,
        DELTA_BIC: pa.float64(),
        SMALLER_SHARE: pa.float64(),
        SEPARATION: pa.float64(),
        P_VALUE: pa.float64(),
        P_CORRECTED: pa.float64(),
        REASON: pa.string(),
    },
    key=CLASS_ID,
)
# Catalogues joined to the galaxies of a search; their columns follow.
JOINED = Kind("joined", {ID: pa.string()}, key=ID)

# What a label of one's own is predicted to be; the other columns depend on the kind of the label.
OWN_PREDICTIONS = Kind("own_predictions", {ID: pa.string()}, key=ID)


def fraction_column(answer: str) -> str:
    """Return the column of an answer's predicted vote fraction, spelled as in the paper.

    >>> fraction_column("smooth-or-featured_smooth")
    'smooth-or-featured_smooth_fraction'
    """
    return f"{answer}{_FRACTION_SUFFIX}"


def answer_of(column: str) -> str | None:
    """Return the answer whose predicted fraction a column holds, or None if it holds something else."""
    return column.removesuffix(_FRACTION_SUFFIX) if is_fraction_column(column) else None


def is_fraction_column(column: str) -> bool:
    """Return whether a column holds a predicted vote fraction; the column ``fraction`` of a class does not."""
    return column.endswith(_FRACTION_SUFFIX) and column != FRACTION


def vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    """Return a float16 or float32 matrix (n, D) as an Arrow column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def matrix(table: pa.Table, column: str) -> np.ndarray:
    """Return a column of fixed-size lists as a matrix (n, D) of the float type that is stored."""
    kind = table.schema.field(column).type
    flat = table.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(table.num_rows, kind.list_size)


def strings(table: pa.Table, column: str) -> np.ndarray:
    """Return a text column as an object array (n,)."""
    return np.asarray(table.column(column).to_pylist(), dtype=object)


def rows_of(
    ids: Sequence[str] | np.ndarray | pa.Array | pa.ChunkedArray, table: pa.Table, *, source: str
) -> np.ndarray:
    """Return the row of each galaxy in a table, found by id: the one way to align two tables.

    Parameters
    ----------
    ids
        Ids of m galaxies, in the order that is wanted.
    table
        Table with an ``id_str`` column without doubled ids.
    source
        What the table is, for the message: "the store".

    Returns
    -------
    numpy.ndarray
        (m,) int64, row of each galaxy.

    Raises
    ------
    StoreError
        The table lacks some of the galaxies; the message names the first of them.

    Examples
    --------
    >>> rows_of(["b", "a"], pa.table({"id_str": ["a", "b", "c"]}), source="the table")
    array([1, 0])
    """
    wanted = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(list(map(str, ids)), pa.string())
    places = pc.index_in(wanted, value_set=table.column(ID))
    if places.null_count:
        missing = wanted.filter(pc.is_null(places)).to_pylist()
        raise StoreError(
            f"{source} lacks galaxies that are needed",
            value=f"{len(missing)} of {len(wanted)}",
            fix="Use inputs that were made from the same survey.",
            ids=missing,
        )
    return np.asarray(places.to_numpy(zero_copy_only=False), dtype=np.int64)


def aligned(table: pa.Table, ids: Sequence[str] | np.ndarray | pa.Array | pa.ChunkedArray, *, source: str) -> pa.Table:
    """Return the table's rows of the given galaxies, in the given order; see :func:`rows_of`."""
    return table.take(rows_of(ids, table, source=source)).combine_chunks()


def report_matched(matched: int, sizes: Mapping[str, int]) -> str:
    """Log how many ids tables have in common, as a warning if it is less than half of the smallest table.

    Parameters
    ----------
    matched
        Number of ids that all of them have.
    sizes
        Number of ids of each table, by its name in the message.

    Returns
    -------
    str
        What was logged.

    Examples
    --------
    >>> report_matched(3, {"own.csv": 30, "votes.csv": 300})
    '3 of 30 ids of own.csv and of 300 ids of votes.csv match'
    """
    listed = " and ".join(f"of {size:,} ids of {name}" for name, size in sizes.items())
    report = f"{matched:,} {listed} match"
    log.log(logging.WARNING if matched < min(sizes.values()) / 2 else logging.INFO, "%s", report)
    return report


def check(table: pa.Table, kind: Kind, *, source: str = "table") -> pa.Table:
    """Return the table with its columns cast to the types of its kind.

    Parameters
    ----------
    table
        Any table.
    kind
        Columns that it must have.
    source
        What the table is, for the message.

    Raises
    ------
    StoreError
        A column is missing or cannot be cast, a key is null or doubled, or a value is null that must not be.
    """
    for column, wanted in kind.columns.items():
        if column in kind.later and column not in table.column_names:
            table = table.append_column(pa.field(column, wanted), pa.nulls(len(table), wanted))
        if column not in table.column_names:
            raise StoreError(
                f"{source}: a {kind.name} table needs a column", value=column, fix="Write the table again with it."
            )
        index = table.column_names.index(column)
        if wanted is None or table.schema.field(index).type == wanted:
            continue
        try:
            table = table.set_column(index, column, table.column(index).cast(wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
            raise StoreError(
                f"{source}: column {column} must be {wanted}", value=problem, fix="Convert it."
            ) from problem
    for column in (*kind.not_null, *([kind.key] if kind.key else [])):
        if table.column(column).null_count:
            raise StoreError(f"{source}: null values in column", value=column, fix="Fill or drop those rows.")
    if kind.key and pc.count_distinct(table.column(kind.key)).as_py() != table.num_rows:
        counts = pc.value_counts(table.column(kind.key))
        doubled = next(row["values"] for row in counts.to_pylist() if row["counts"] > 1)
        raise StoreError(f"{source}: doubled keys", value=doubled, fix="Give every row a key of its own.")
    return table


def write(table: pa.Table, path: Path | str, kind: Kind, **provenance: Any) -> Path:
    """Check a table and write it as Parquet; the file appears as a whole or not at all.

    Parameters
    ----------
    table
        The table.
    path
        Parquet file to write.
    kind
        Columns that the table must have.
    provenance
        Whatever its writer wants to record in the metadata: hashes of inputs, settings.

    Raises
    ------
    StoreError
        The table does not fit its kind.
    OutputError
        The folder cannot be written or is full.
    """
    return write_parts([table], path, kind, **provenance)


def write_parts(parts: Iterable[pa.Table], path: Path | str, kind: Kind, **provenance: Any) -> Path:
    """Check and write a table that comes in parts, of which only one is in memory at a time.

    The file appears as a whole or not at all. A key is checked within each part only.

    Parameters
    ----------
    parts
        Tables of the same columns, at least one.
    path, kind, provenance
        See :func:`write`.

    Raises
    ------
    StoreError
        A part does not fit the kind.
    OutputError
        The folder cannot be written or is full.
    """
    path, writer = Path(path), None
    about = {"kind": kind.name, "schema": SCHEMA_VERSION, "version": __version__, **provenance}
    with atomic(path) as temporary:
        try:
            for part in parts:
                table = check(part, kind, source=path.name)
                if writer is None:
                    metadata = {**(table.schema.metadata or {}), METADATA_KEY: json.dumps(about).encode()}
                    schema = table.schema.with_metadata(metadata)
                    writer = pq.ParquetWriter(temporary, schema, compression="zstd")
                writer.write_table(table.replace_schema_metadata(schema.metadata))
        finally:
            if writer is not None:
                writer.close()
    return path


def read(path: Path | str, kind: Kind, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table and check it.

    Parameters
    ----------
    path
        Parquet file.
    kind
        Columns that it must have.
    columns
        Read only these columns; None reads all of them.

    Raises
    ------
    StoreNotFound
        There is no such file.
    StoreError
        The file is unreadable, of another kind, or does not fit its kind.
    """
    path = Path(path)
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except FileNotFoundError as problem:
        raise StoreNotFound(f"no {kind.name} table", value=path, fix="Run the step that writes it first.") from problem
    except Exception as problem:
        # The library raises many kinds of error for damaged files.
        raise StoreError(f"unreadable {kind.name} table", value=path, fix="Delete it and write it again.") from problem
    recorded = provenance(table).get("kind", kind.name)
    if recorded != kind.name:
        raise StoreError(f"{path} is a {recorded} table", value=recorded, fix=f"Point to a {kind.name} table.")
    return check(table, kind if columns is None else kind.narrowed(columns), source=path.name)


def provenance(table: pa.Table) -> dict[str, Any]:
    """Return what a table's metadata records: kind, schema, version, and what its writer added.

    The dictionary is empty for a table that rarezoo did not write.

    Raises
    ------
    StoreError
        The metadata are damaged.
    """
    try:
        recorded = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except (ValueError, RecursionError):
        recorded = None
    if not isinstance(recorded, dict):
        raise StoreError("a table with damaged metadata", value=METADATA_KEY.decode(), fix="Write the table again.")
    return recorded


def refuse_other_file(path: Path | str, columns: Collection[str]) -> None:
    """Refuse to replace a file that is not a table with these columns.

    A command may write its own table again. What a user keeps under that name, and the tables of a search, stay as they
    are. Nothing is said where there is no such file.

    Parameters
    ----------
    path
        File that will be written.
    columns
        Names that a table of the same command has: columns of a CSV, Parquet, FITS or VOTable file.

    Raises
    ------
    OutputError
        Another file is there, or a folder.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "thesis.csv").write_text("chapter,pages")
    ...     refuse_other_file(Path(folder, "thesis.csv"), ["id_str"])
    Traceback (most recent call last):
    rarezoo.errors.OutputError: another file is there already: ...
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError("the output path is a folder", value=path, fix="Choose a file: out=FILE.")
    if not path.is_file():
        return
    if path.stat().st_size and not _column_names(path).issuperset(name.lower() for name in columns):
        raise OutputError(
            "another file is there already", value=path,
            fix="Choose another name (out=FILE), or remove that file if you no longer need it.",
        )  # fmt: skip


def _column_names(path: Path) -> set[str]:
    """Return the names of the columns of a CSV, Parquet, FITS or VOTable file in lower case, and the words of comments.

    It is a quick look at the head of the file: nothing is said of a file that cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head.startswith(b"PAR1"):
            return {name.lower() for name in pq.read_schema(path).names}
    except (OSError, pa.ArrowException):
        return set()
    text = head.decode("latin-1").lower()
    if text.startswith("simple"):
        return set(re.findall(r"ttype\d+ *= *'([^']*?) *'", text))
    if text.startswith("<?xml"):
        return set(re.findall(r'<field[^>]*\bname="([^"]*)"', text))
    named = text if text.startswith("#") else text.partition("\n")[0]
    return {name.strip('"') for name in re.split(r"[\s,:]+", named)}


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside the target; it is renamed onto the target only if all went well.

    A power failure leaves the old file or the new one, whole: see :func:`settle`.

    Raises
    ------
    OutputError
        The folder cannot be written or is full.
    """
    path = Path(path)
    # Processes of several machines may have the same number.
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        settle(temporary, path)
    except BaseException as problem:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(problem, OSError):
            raise unwritable(path, problem) from problem
        raise


def _host() -> str:
    """Return the name of this machine as a part of a file name."""
    return "".join(letter if letter.isalnum() else "_" for letter in platform.node())[:30]


def is_left_behind(partial: Path) -> bool:
    """Return whether a temporary file of :func:`atomic` belongs to no process that may still write it.

    Parameters
    ----------
    partial
        The file. Whether the process of another machine lives is not known: its file is left behind after a day.
    """
    writer = partial.name.removesuffix(".partial").rpartition(".")[2]
    host, _, number = writer.rpartition("-")
    if host and number.isdecimal() and host != _host():
        with suppress(OSError):
            return time.time() - partial.stat().st_mtime > _FORGOTTEN
        return False
    if not number.isdecimal() or not host:
        return True
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def settle(written: Path, path: Path) -> None:
    """Rename a file or folder that is written onto its target, so that it survives a power failure whole.

    The content reaches the disk before the rename, and the rename before this function returns.

    Raises
    ------
    OSError
        It cannot be written.
    """
    sync(written)
    os.replace(written, path)
    sync(path.parent, inside=False)


def sync(path: Path, *, inside: bool = True) -> None:
    """Wait until a file, or a folder with all that is ``inside`` it, is on the disk."""
    if path.is_dir():
        for file in path.iterdir() if inside else ():
            sync(file)
        # Some network file systems, and Windows, cannot do this for folders.
        with suppress(OSError):
            folder = os.open(path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def write_csv(table: pa.Table | Iterable[pa.Table], path: Path | str) -> Path:
    """Write a table, or its parts one after the other, as CSV (UTF-8) as a whole or not at all.

    Every text is in quotes, so that commas, quotes and ends of line in it stay what they are. Texts that a spreadsheet
    would take for formulas are not changed, because a changed id matches nothing.
    """
    path = Path(path)
    with atomic(path) as temporary:
        if isinstance(table, pa.Table):
            pyarrow.csv.write_csv(table, temporary)
            return path
        parts = iter(table)
        first = next(parts)
        with pyarrow.csv.CSVWriter(temporary, first.schema) as writer:
            writer.write_table(first)
            for part in parts:
                writer.write_table(part)
    return path


def unwritable(path: Path, problem: OSError, *, setting: str = "out") -> RarezooError:
    """Return the error for a path that the system refuses to write; an error of rarezoo is returned as it is.

    Parameters
    ----------
    path : Path
        The path.
    problem : OSError
        What the system says.
    setting : str
        Setting by which the user can choose another folder.
    """
    if isinstance(problem, RarezooError):
        return problem
    reason = problem.strerror or str(problem)
    return OutputError(
        f"cannot write ({reason})", value=path, fix=f"Choose another {setting}=DIR, or free some space there."
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up, so that it reads well in a terminal too.

    >>> print(markdown(["class", "galaxies"], [["0", "31"], ["1", "1204"]]))
    | class | galaxies |
    | ----- | -------- |
    | 0     | 31       |
    | 1     | 1204     |
    """
    # A cell may hold a name of the user's, which must not end its cell or its line.
    texts = [[visible(cell.replace("\n", " ")).replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in texts]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_json(content: Mapping[str, Any], path: Path | str) -> Path:
    """Write JSON as a whole or not at all; NaN becomes null, so that every reader accepts it."""
    path = Path(path)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
    return path


def read_json(path: Path | str, *, fix: str) -> dict[str, Any]:
    """Read a file that :func:`write_json` wrote.

    Parameters
    ----------
    path
        The file.
    fix
        What to do if it is damaged, for the message.

    Raises
    ------
    StoreNotFound
        There is no such file.
    StoreError
        It is empty, cut off, or does not hold a JSON object: a power failure can leave such a file.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise StoreNotFound("no such file", value=path, fix=fix) from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise damaged(path, fix=fix) from problem
    if not isinstance(content, dict):
        raise damaged(path, fix=fix)
    return content


def damaged(path: Path, *, fix: str) -> StoreError:
    """Return the error for a file of rarezoo that is empty, cut off or holds something else."""
    size = path.stat().st_size if path.exists() else 0
    return StoreError(f"damaged file ({size:,} bytes)", value=path, fix=fix)


def plain(value: Any) -> Any:
    """Return numpy values, paths and NaN as what JSON can hold; NaN and infinity become None.

    >>> plain({"mean": np.float32(0.5), "worst": float("nan")})
    {'mean': 0.5, 'worst': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
