"""Read the tables that a user gives: CSV, Parquet, FITS, VOTable and ECSV become Arrow tables with plain columns.

Columns of ids stay what they are: text of a CSV file is never read as a number, and an id that went through a
floating-point number is refused. Whatever the library that reads a format raises becomes one message.
"""

import csv
import gzip
import io
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from rarezoo.data.hats import HatsCatalogue, is_hats
from rarezoo.data.matching import Folder
from rarezoo.errors import DataError, DataNotFound, RarezooError
from rarezoo.tables import report_matched

log = logging.getLogger(__name__)

_CSV = {".csv": ",", ".txt": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".votable": "votable",
    ".ecsv": "ascii.ecsv",
}
# Key of the metadata of a column that holds its unit.
UNIT = b"unit"
# Cells of a CSV file that mean "unknown", as pandas has them.
_NULLS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[iI][nN][fF]([iI][nN][iI][tT][yY])?)$"
_WHOLE, _LEADING_ZERO, _WHOLE_FLOAT = r"^[+-]?\d+$", r"^[+-]?0\d", r"^[+-]?\d+\.0$"
# How floating-point numbers are written: by Python, pandas, spreadsheets, Java (5.88E17) and Fortran (5.88D+17).
_WRITTEN_FLOAT = re.compile(r"[+-]?(\d+|\d+\.\d+|\d(\.\d+)?[eEdD][+-]?\d{2,3})")
_WRITTEN_EXPONENT = re.compile(r"[+-]?\d\.\d+[eEdD]\+?\d{2,3}")
# The smallest whole numbers from which on a floating-point number of so many bits cannot hold all of them.
_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}
# Digits that every float64 holds, and those of the largest one.
_EXACT_DIGITS, _LONGEST_FLOAT = 15, 308
# First bytes of files that are not texts, although they may be called so.
_PACKED = {b"\x1f\x8b": "gzip file", b"PK\x03\x04": "zip file or a spreadsheet", b"PAR1": "Parquet file"}
# How Hive and Spark write an unknown value in the name of a folder.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_MOST_COLUMNS, _LONGEST_FOOTER, _CSV_BLOCK = 20_000, 2**25, 2**24
# A .gz file may not expand to more than this many times its size: tables shrink to a hundredth at most.
_MOST_EXPANSION, _ALWAYS_EXPANDED = 200, 2**26
_ROUNDED_IDS = 10


def read_any_table(
    path: Path,
    *,
    text: Sequence[str] | Callable[[str], bool] = (),
    choose: Callable[[list[str]], Sequence[str]] | None = None,
) -> pa.Table:
    r"""Read a table; the extension of the file says what it is. A folder of Parquet files, or a HATS catalogue, is one.

    Parameters
    ----------
    path
        The file or folder.
    text
        Columns that stay text in a CSV file, such as ids, or a function that says so for the name of a column: they are
        not read as numbers, and only blank cells are null.
    choose
        Function from the names of all columns to those that are read; None reads all of them.

    Returns
    -------
    pyarrow.Table
        Dictionaries and views become ordinary columns. A column with a unit has it in its metadata, key ``unit``.

    Raises
    ------
    DataNotFound
        There is no such file.
    DataError
        The extension is unknown, the content does not fit it, two columns have one name, or there are too many columns.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "own.csv").write_text("id_str,mag\n12e5,17.5\n")
    ...     read_any_table(Path(folder, "own.csv"), text=["id_str"]).to_pylist()
    [{'id_str': '12e5', 'mag': 17.5}]
    """
    kinds = "a CSV, Parquet, FITS, VOTable or ECSV file, or a folder of Parquet files"
    if not path.exists():
        raise DataNotFound("no such table", value=path, fix=f"Give the path of {kinds}.")
    suffix = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    try:
        if is_hats(path):
            # Its margins are files too, and repeat galaxies.
            table = HatsCatalogue.open(path).table()
        elif path.is_dir():
            table = _read_folder(path, choose)
        elif suffix in _PARQUET:
            table = _read_parquet(path, choose)
        elif suffix in _CSV:
            table = _read_csv(_content(path), _CSV[suffix], text=text, source=path)
        elif suffix in _ASTROPY_FORMATS:
            table = _read_with_astropy(path, _ASTROPY_FORMATS[suffix])
        else:
            raise DataError("unknown kind of table", value=path, fix=f"Give {kinds}.")
        table = table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])
        _refuse_columns(table.column_names, source=path)
        return plain_columns(table if choose is None else table.select(choose(table.column_names)))
    except RarezooError:
        raise
    except Exception as problem:
        # Decoders raise many kinds of error for damaged files; each means that the file cannot be read.
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:300]
        raise DataError(f"unreadable table ({reason})", value=path, fix="Check that it opens elsewhere.") from problem


def _refuse_columns(names: Sequence[str], *, source: object) -> None:
    """Raise DataError if there are too many columns, or two of the same name."""
    if len(names) > _MOST_COLUMNS:
        raise DataError(
            f"{source}: too many columns", value=f"{len(names):,}",
            fix=f"A table may have {_MOST_COLUMNS:,} columns; write those that are needed, or vectors in one column.",
        )  # fmt: skip
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        raise DataError(
            f"{source}: columns of the same name", value=", ".join(doubled[:5]), fix="Give each column its own name."
        )


# ── Parquet ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_parquet(path: Path, choose: Callable[[list[str]], Sequence[str]] | None) -> pa.Table:
    with path.open("rb") as stream:
        ends = stream.read(4), stream.seek(max(0, path.stat().st_size - 8)), stream.read()
    if ends[0] != b"PAR1" or ends[2][4:] not in (b"PAR1", b"PARE"):
        raise DataError(
            "unreadable table (not a Parquet file, or an incomplete one)", value=path, fix="Write it again."
        )
    # The description of the columns is read as a whole and takes some ten times its size in memory.
    footer, size = int.from_bytes(ends[2][:4], "little"), path.stat().st_size
    if footer > size:
        raise DataError(
            "unreadable table (a damaged or incomplete Parquet file)", value=path, fix="Copy or write it again."
        )
    if footer > _LONGEST_FOOTER:
        raise DataError(
            f"{path}: too many columns or row groups", value=f"{footer >> 20} MiB of names and types",
            fix=f"Write it with at most {_MOST_COLUMNS:,} columns, or vectors in one column.",
        )  # fmt: skip
    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    _refuse_columns(names, source=path)
    table = file.read(columns=None if choose is None else list(choose(names)))
    units = _units_of_astropy(table.schema.metadata or {})
    fields = [
        field.with_metadata({UNIT: units[field.name].encode()}) if field.name in units else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata)) if units else table


def _units_of_astropy(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the units that astropy writes into a Parquet file."""
    described = metadata.get(b"table_meta_yaml")
    if not described:
        return {}
    from astropy.table import meta

    header = meta.get_header_from_yaml(described.decode().split("\n"))
    return {column["name"]: str(column["unit"]) for column in header.get("datatype", ()) if column.get("unit")}


def _read_folder(folder: Path, choose: Callable[[list[str]], Sequence[str]] | None) -> pa.Table:
    """Read a data set folder: all its Parquet files in the order of their names.

    Parts of their paths such as ``split=train`` become columns, as Spark and Hive write them.
    """
    if (folder / "_delta_log").is_dir():
        raise DataError(
            "a Delta table, of which not every file counts", value=folder, fix="Export it as Parquet files of its own."
        )
    files = parquet_files(folder)
    if not files:
        raise DataError(
            "a folder without Parquet files is no table", value=folder,
            fix="Give a file. A Hugging Face data set is given as data=huggingface data.name=DIR.",
        )  # fmt: skip
    parts: list[pa.Table] = []
    names: list[str] = []
    for file in files:
        part = plain_columns(_read_parquet(file, None))
        for key, equals, value in (name.partition("=") for name in file.relative_to(folder).parts[:-1]):
            if equals and key not in part.column_names:
                text = None if value == _HIVE_NULL else unquote(value)
                part = part.append_column(key, pa.array([text] * part.num_rows, pa.string()))
        names = names or part.column_names
        if set(part.column_names) != set(names):
            other = sorted(set(part.column_names) ^ set(names))
            raise DataError(
                f"{folder}: files with different columns ({files[0].name} and {file.name})", value=", ".join(other[:5]),
                fix="Write them with the same columns.",
            )  # fmt: skip
        parts.append(part.select(names if choose is None else choose(names)))
    try:
        # Columns without any value take the type that they have elsewhere; other types must be equal, because a whole
        # number that is joined with floating-point numbers would be rounded.
        return pa.concat_tables([part.replace_schema_metadata() for part in parts], promote_options="default")
    except pa.ArrowException as problem:
        raise DataError(
            f"{folder}: files with different types ({str(problem).splitlines()[0]})", value=f"{len(files)} files",
            fix="Write them with the same types.",
        ) from problem  # fmt: skip


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files below a folder, also through links, in the order of their names.

    Names that begin with a dot or an underscore are left out, as Spark and Hive do.
    """
    names = (Path(file) for file in Folder(folder, outside=True).files)
    return sorted(
        folder / name
        for name in names
        if name.suffix.lower() in _PARQUET and not any(part.startswith((".", "_")) for part in name.parts)
    )


def plain_columns(table: pa.Table) -> pa.Table:
    """Return a table whose columns are ordinary: dictionaries and views are replaced by what they stand for."""
    for index, field in enumerate(table.schema):
        column, kind = table.column(index), field.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
            column = column.cast(pa.string())
        elif pa.types.is_binary_view(kind) or pa.types.is_large_binary(kind):
            column = column.cast(pa.binary())
        if column.type != field.type:
            table = table.set_column(index, field.with_type(column.type), column)
    return table


# ── CSV ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _content(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if its name ends in .gz."""
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    most = max(_MOST_EXPANSION * path.stat().st_size, _ALWAYS_EXPANDED)
    with gzip.open(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise DataError(
            "a compressed file that expands to more than a table would", value=f"{path}: more than {most >> 20} MiB",
            fix="Decompress it and give the file itself.",
        )  # fmt: skip
    return content


def _read_csv(content: bytes, delimiter: str, *, text: Sequence[str] | Callable[[str], bool], source: Path) -> pa.Table:
    content = _as_utf8(content, source=source)
    if not content.strip():
        raise DataError("the catalogue is empty", value=source, fix="Give it a header and at least one row.")
    names, first, start = _header(content, delimiter, source=source)
    # Some programs end each line with a delimiter, in the header or below it.
    if len(first) == len(names) + 1 and not first[-1]:
        names = [*names, ""]
    elif len(first) == len(names) - 1 and not names[-1]:
        names = names[:-1]
    ends_blank = not names[-1]
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(names)]
    _refuse_columns(names, source=source)
    ragged: list[pa.csv.InvalidRow] = []

    def note(row: pa.csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    try:
        table = pa.csv.read_csv(
            pa.BufferReader(pa.py_buffer(content).slice(start)),
            read_options=pa.csv.ReadOptions(column_names=names, block_size=_CSV_BLOCK, use_threads=False),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note
            ),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        ) if first else pa.table({name: pa.nulls(0, pa.string()) for name in names})  # fmt: skip
    except pa.ArrowInvalid as problem:
        if ragged:
            row = ragged[0]
            raise DataError(
                f"{source}: a row with another number of cells than the header",
                value=f"{row.actual_columns} instead of {row.expected_columns} in {row.text[:60]!r}",
                fix=_other_delimiter(names).strip()
                or "Correct it; a cell that holds the delimiter needs quotes, and comments stand above the header.",
            ) from problem  # fmt: skip
        if "UTF8" in str(problem):
            raise _not_utf8(source) from problem
        raise
    # A quote that is never closed makes one cell of all the rows behind it.
    if any(pc.any(pc.match_substring_regex(column, r"[\r\n]")).as_py() for column in table.columns):
        _refuse_open_quotes(content[start:], delimiter, source=source)
    if ends_blank and pc.all(pc.equal(table.column(len(names) - 1), "")).as_py() is not False:
        table = table.remove_column(len(names) - 1)
    stays = text if callable(text) else text.__contains__
    columns = {
        name: _text_cells(table[name]) if stays(name) else _typed(table[name]) for name in table.column_names
    }  # fmt: skip
    return pa.table(columns)


def _refuse_open_quotes(content: bytes, delimiter: str, *, source: Path) -> None:
    """Raise DataError if a cell of the rows has a quote at its beginning and none at its end."""
    before = ""
    limit = csv.field_size_limit(len(content) + 1)
    try:
        text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
        for row in csv.reader(text, delimiter=delimiter, strict=True):
            before = f"below the row {delimiter.join(row)[:60]!r}"
    except csv.Error as problem:
        raise DataError(
            f"{source}: a quote that is not closed ({problem})", value=before or "in the first row",
            fix='Correct that row: a quote within a cell is written twice, as in "5"" ring".',
        ) from problem  # fmt: skip
    finally:
        csv.field_size_limit(limit)


def _other_delimiter(names: Sequence[str]) -> str:
    """Say that cells seem to be separated by another character, if the header is one name that holds it."""
    characters = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
    separating = [name for character, name in characters.items() if len(names) == 1 and character in names[0]]
    return (
        f"The cells seem to be separated by {separating[0]}: save it with commas, or as .tsv with tabs, and with "
        "decimal points. "
        if separating
        else ""
    )


def _as_utf8(content: bytes, *, source: Path) -> bytes:
    """Return a text in UTF-8 without a mark at its beginning; UTF-16 and UTF-32 are recognised by their marks."""
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
    ):  # fmt: skip
        if content.startswith(mark):
            content = content.decode(encoding).encode() if "8" not in encoding else content[len(mark) :]
            break
    packed = next((kind for first, kind in _PACKED.items() if content.startswith(first)), "")
    if packed:
        raise DataError(
            f"not a text, but a {packed}",
            value=source,
            fix="Unpack it, or save it as CSV; CSV in gzip is called .csv.gz.",
        )
    if b"\0" in content:
        raise DataError("not a text, because it holds bytes of value zero", value=source, fix="Save it as UTF-8.")
    return content


def _not_utf8(source: Path) -> DataError:
    return DataError(
        "a text that is not UTF-8", value=source,
        fix="Save it as UTF-8, for example with: iconv -f latin1 -t utf-8 OLD > NEW.",
    )  # fmt: skip


def _header(content: bytes, delimiter: str, *, source: Path) -> tuple[list[str], list[str], int]:
    """Return the names of the columns, the cells of the first row, and where the rows begin.

    Lines above the header that begin with ``#`` are comments.
    """
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline=""):
            read += len(line.encode())
            yield line

    rows = csv.reader(lines(), delimiter=delimiter)
    try:
        names = next((row for row in rows if row and not row[0].startswith("#")), [])
        start = read
        first: list[str] = next((row for row in rows if row), [])
    except UnicodeDecodeError as problem:
        raise _not_utf8(source) from problem
    if not names:
        raise DataError("the catalogue is empty", value=source, fix="Give it a header and at least one row.")
    return names, first, start


def _text_cells(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the cells of a column that stays text; whole numbers that a program wrote as 1.0, 2.0 become 1, 2."""
    cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
    if cells.null_count < len(cells) and pc.all(pc.match_substring_regex(cells, _WHOLE_FLOAT)).as_py():
        whole = pc.replace_substring_regex(cells, r"\.0$", "")
        if pc.max(pc.abs(cells.cast(pa.float64()))).as_py() < _EXACT[64]:
            return whole
    return cells


def _typed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of texts as numbers if it is one; whole numbers with leading zeros stay text.

    So do whole numbers that no integer type can hold, and those among fractional numbers that float64 would change.
    Whole numbers with unknown ones among them become float64, unless that would change them.
    """
    cells = pc.if_else(pc.is_in(cells, pa.array(_NULLS)), pa.scalar(None, pa.string()), cells)
    numbers = pc.utf8_trim_whitespace(cells)
    numbers = pc.if_else(pc.is_in(numbers, pa.array(_NULLS)), pa.scalar(None, pa.string()), numbers)
    if numbers.null_count == len(numbers):
        return numbers.cast(pa.float64())
    if pc.any(pc.match_substring_regex(numbers, _LEADING_ZERO)).as_py():
        return cells
    if not pc.all(pc.match_substring_regex(numbers, _NUMBER)).as_py():
        return cells
    numbers = pc.replace_substring_regex(numbers, r"^\+", "")
    is_whole = pc.match_substring_regex(numbers, _WHOLE)
    if not pc.all(is_whole).as_py():
        long = numbers.filter(pc.and_(is_whole, pc.greater(pc.utf8_length(numbers), _EXACT_DIGITS))).to_pylist()
        if any(map(_is_rounded, long)):
            return cells
        values = numbers.cast(pa.float64())
        too_large = pc.and_(pc.is_inf(values), pc.match_substring_regex(numbers, r"\d"))
        return cells if pc.any(too_large).as_py() else values
    for kind in (pa.int64(), pa.uint64()):
        try:
            whole = numbers.cast(kind)
        except pa.ArrowInvalid:
            continue
        largest = max(abs(bound) for bound in pc.min_max(whole).as_py().values())
        return whole.cast(pa.float64()) if whole.null_count and largest < _EXACT[64] else whole
    return cells


def _is_rounded(whole: str) -> bool:
    """Return whether float64 cannot hold a whole number."""
    return len(whole) > _LONGEST_FLOAT or int(float(whole)) != int(whole)


# ── FITS, VOTable and ECSV ──────────────────────────────────────────────────────────────────────────────────────────


def _read_with_astropy(path: Path, kind: str) -> pa.Table:
    from astropy.table import Table, serialize
    from astropy.utils.exceptions import AstropyWarning

    compressed = path.suffix.lower() == ".gz"
    given: Any = io.BytesIO(_content(path)) if compressed else path
    if kind == "fits" and not compressed:
        _refuse_incomplete_fits(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Columns such as times and sky positions become ordinary ones.
        table = serialize.represent_mixins_as_columns(Table.read(given, format=kind))
    truncated = [str(warning.message) for warning in caught if "truncated" in str(warning.message).lower()]
    if truncated:
        raise DataError("unreadable table (it is not complete)", value=path, fix="Copy or write it again.")
    for warning in caught:
        if not issubclass(warning.category, AstropyWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return arrow_of(table, source=str(path))


def arrow_of(table: Any, *, source: str) -> pa.Table:
    """Return an astropy table as an Arrow table: masked values and NaN are null, a column's metadata has its unit.

    Parameters
    ----------
    table
        Table or QTable.
    source
        What it is, for the warning that names columns that Arrow cannot hold; these are left out.

    Examples
    --------
    >>> from astropy.table import Table
    >>> mass = arrow_of(Table({"mass": [1.0]}, units={"mass": "solMass"}), source="mine").schema.field("mass")
    >>> mass.metadata[UNIT]
    b'solMass'
    """
    from astropy.table import serialize

    table = serialize.represent_mixins_as_columns(table)
    columns, fields = [], []
    for name in table.colnames:
        column = table[name]
        try:
            values = _arrow_column(column)
        except (pa.ArrowException, TypeError, ValueError) as problem:
            log.warning("%s: column %s is left out: %s", source, name, str(problem).splitlines()[0])
            continue
        unit = {UNIT: str(column.unit).encode()} if getattr(column, "unit", None) is not None else None
        columns.append(values)
        fields.append(pa.field(name, values.type, metadata=unit))
    return pa.table(columns, schema=pa.schema(fields))


def _refuse_incomplete_fits(path: Path) -> None:
    """Raise DataError if the file is shorter than its headers say: astropy would take memory for all of it."""
    from astropy.io import fits

    size = path.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as units:
            end = max(unit.fileinfo()["datLoc"] + unit.size for unit in units)
    if end > size:
        raise DataError(
            "unreadable table (it is not complete)", value=f"{path}: {size:,} of {end:,} bytes",
            fix="Copy or write it again.",
        )  # fmt: skip


def _arrow_column(column: Any) -> pa.Array:
    """Return a column of an astropy table; masked values and NaN are null, vectors become lists."""
    values, mask = np.asarray(np.ma.getdata(column)), np.ma.getmaskarray(np.ma.asarray(column))
    if values.dtype.kind in "SUO":
        cells = [
            None if hidden else _decoded(cell) for cell, hidden in zip(values.tolist(), _by_row(mask), strict=True)
        ]
        return pa.array(cells)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.ndim > 1:
        width = int(np.prod(values.shape[1:]))
        flat = pa.array(values.reshape(-1), mask=mask.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.array(values, mask=mask, from_pandas=True)


def _by_row(mask: np.ndarray) -> list[bool]:
    return [bool(np.all(hidden)) for hidden in mask]


def _decoded(cell: Any) -> Any:
    if isinstance(cell, bytes):
        return cell.decode().strip(" \0")
    if isinstance(cell, str):
        return cell.rstrip(" \0")
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def ids_of(table: pa.Table, column: str, *, source: str, setting_name: str = "data.id_column") -> list[str]:
    """Return the ids of a table as texts; ``setting_name`` is the setting that names their column.

    Raises
    ------
    DataError
        There is no such column, a row has no id, or the ids went through a number that cannot hold them.

    Examples
    --------
    >>> ids_of(pa.table({"id_str": [1.0, 2.0]}), "id_str", source="mine.csv")
    ['1', '2']
    """
    if column not in table.column_names:
        raise no_column(table, column, source=source, setting_name=setting_name)
    values = plain_columns(table.select([column])).column(0)
    kind = values.type
    if pa.types.is_floating(kind):
        cells = _whole_ids(values.to_pylist(), bits=kind.bit_width, column=column, source=source)
    elif pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        cells = [value if value is None else _id_bytes(value, source=source) for value in values.to_pylist()]
    elif pa.types.is_decimal(kind):
        exact = [value if value is None else format(value, "f") for value in values.to_pylist()]
        cells = [text if text is None else re.sub(r"\.0*$", "", text) for text in exact]
    elif pa.types.is_nested(kind):
        raise DataError(f"{source}: column {column} cannot hold ids", value=str(kind), fix="Give one id in each row.")
    else:
        cells = [value if value is None else str(value) for value in values.to_pylist()]
    blank = [row for row, cell in enumerate(cells) if cell is None or not cell.strip()]
    if blank:
        raise DataError(
            f"{source}: rows without an id",
            value=f"{len(blank)}, row {', '.join(map(str, blank[:5]))} (from 0)", fix=f"Fill column {column}.",
        )  # fmt: skip
    ids = [str(cell) for cell in cells]
    _refuse_rounded(ids, column=column, source=source)
    return ids


def _whole_ids(values: Sequence[float | None], *, bits: int, column: str, source: str) -> list[str | None]:
    """Return ids that are floating-point numbers as text, if that is exact."""
    known = [value for value in values if value is not None and value == value]
    fractional = [value for value in known if not float(value).is_integer()]
    if fractional:
        raise DataError(
            f"{source}: ids that are not whole numbers", value=fractional[0], fix=f"Write column {column} as text."
        )
    if any(abs(value) >= _EXACT[bits] for value in known):
        raise _rounded(max(known, key=abs), column=column, source=source)
    return [str(int(value)) if value is not None and value == value else None for value in values]


def _rounded(value: object, *, column: str, source: str) -> DataError:
    return DataError(
        f"{source}: ids went through a floating-point number that cannot hold them, and became other ids", value=value,
        fix=f"Write column {column} again from the original table, as text or 64-bit integers "
        "(in pandas: read_csv(dtype={'" + column + "': str}); an outer merge makes floats of integers).",
    )  # fmt: skip


def _refuse_rounded(ids: Sequence[str], *, column: str, source: str) -> None:
    """Refuse ids that are written like floating-point numbers, and warn of whole numbers that all look rounded."""
    large = [text for text in ids if _WRITTEN_EXPONENT.fullmatch(text) or (text.endswith(".0") and len(text) > 17)]
    if large and all(_WRITTEN_FLOAT.fullmatch(text) for text in ids):
        raise _rounded(large[0], column=column, source=source)
    numbers = [int(text) for text in ids if len(text) > 15 and text.isascii() and text.isdigit()]
    shortened = [text for text in ids if len(text) > _EXACT_DIGITS and text.isascii() and text.isdigit()]
    if len(shortened) >= _ROUNDED_IDS and not any(text[_EXACT_DIGITS:].strip("0") for text in shortened):
        log.warning(
            "%s: all %d ids of column %s with more than %d digits have only zeros after the first %d, such as %s; a "
            "spreadsheet may have rounded them",
            source, len(shortened), column, _EXACT_DIGITS, _EXACT_DIGITS, shortened[0],
        )  # fmt: skip
        return
    numbers = [number for number in numbers if _EXACT[64] <= number < 2**64]
    if len(numbers) >= _ROUNDED_IDS and all(int(float(number)) == number for number in numbers):
        log.warning(
            "%s: all %d ids of column %s above 2^53 are numbers that a 64-bit floating-point number can hold, such as "
            "%d; they may have been rounded",
            source, len(numbers), column, numbers[0],
        )  # fmt: skip


def _id_bytes(value: bytes, *, source: str) -> str:
    """Return an id of fixed width without the spaces and zeros that pad it."""
    try:
        return value.decode().strip(" \0")
    except UnicodeDecodeError as problem:
        raise DataError(f"{source}: an id that is not UTF-8", value=value, fix="Write ids as text.") from problem


def refuse_doubled(ids: Sequence[str], *, source: str) -> None:
    """Raise DataError if an id occurs more than once."""
    galaxies, counts = np.unique(np.array(ids, dtype=object).astype(str), return_counts=True)
    doubled = galaxies[counts > 1].tolist()
    if doubled:
        raise DataError(
            f"{source}: ids occur more than once", value=len(doubled), fix="Keep one row per galaxy.", ids=doubled
        )


def matched_rows(
    ids: Sequence[str], others: Sequence[str], *, source: str, other_source: str, least: float = 0.0, fix: str
) -> np.ndarray:
    """Return the row of each galaxy in another table by its id, and report how many ids of each table matched.

    Parameters
    ----------
    ids
        Ids of n galaxies, each once.
    others
        Ids of the other table, each once.
    source, other_source
        What the tables are, for messages.
    least
        Smallest share of the ids of the smaller table that must match. Below a half a warning is given.
    fix
        What to do if too few match.

    Returns
    -------
    numpy.ndarray
        (n,) int64; −1 for a galaxy that the other table lacks.

    Raises
    ------
    DataError
        No id matches, or fewer than ``least``.

    Examples
    --------
    >>> matched_rows(["a", "b"], ["b", "c"], source="one table", other_source="the other", fix="").tolist()
    [-1, 0]
    """
    row_of = {galaxy: row for row, galaxy in enumerate(others)}
    rows = np.array([row_of.get(galaxy, -1) for galaxy in ids], dtype=np.int64)
    matched = int(np.sum(rows >= 0))
    if matched and matched >= least * min(len(ids), len(others)):
        report_matched(matched, {source: len(ids), other_source: len(others)})
        return rows
    what = f"only {matched:,} of {len(ids):,} ids of {source} and of {len(others):,} ids of {other_source} match"
    raise DataError(
        what if matched else f"no id of {other_source} is in {source}", value=f"{list(others[:2])} and {list(ids[:2])}",
        fix=f"{spelling_hint(ids, others)}{fix}",
    )  # fmt: skip


def spelling_hint(ids: Sequence[str], others: Sequence[str]) -> str:
    """Say what the ids of two tables differ in, if that is only a matter of spelling."""
    spellings: dict[str, Callable[[str], str]] = {
        "spaces around them": str.strip,
        "zeros before them": lambda text: text.strip().lstrip("0"),
        "upper and lower case": lambda text: text.strip().casefold(),
        "“.0” behind them": lambda text: text.strip().removesuffix(".0"),
        "the Unicode form of letters (NFC and NFD)": lambda text: unicodedata.normalize("NFC", text.strip()),
    }
    alike = len(set(ids) & set(others))
    for difference, spell in spellings.items():
        if len({spell(text) for text in ids} & {spell(text) for text in others}) > alike:
            return f"Ids differ in {difference}. "
    return ""


def no_column(table: pa.Table, column: str, *, source: str, setting_name: str) -> DataError:
    """Return the error for a column that a table lacks."""
    names = table.column_names
    separated = _other_delimiter(names)
    return DataError(
        f"{source} has no column", value=column,
        fix=f"{separated}Name it with {setting_name}=; there are: {', '.join(names[:12])}.",
    )  # fmt: skip
