"""Files of ratings: tables that people and programs write, and the JSON files that the atlas saves.

A table has one row for each rating, with the columns of LABELS. Only ``id_str`` and ``value`` must be there; upper and
lower case and spaces in names of columns do not matter, and other columns are not read. The JSON file is
``{"rarezoo": "ratings", "schema": 1, "survey": KEY, "ratings": [{"id_str": …, "label": …, "value": …, …}]}``; a file of
decisions may have such a list too.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from rarezoo import tables
from rarezoo.data.reading import ids_of, no_column, read_any_table
from rarezoo.errors import ConfigError, StoreError
from rarezoo.explore.rating import ANSWER, ARTIFACT, FIELDS, GRADE, IMPORT, INTERESTING, TAG, Rating, checked

SCHEMA = 1
SURVEY = "survey_sha256"
_WORDS: dict[str, float | None] = {
    "yes": 1.0, "y": 1.0, "true": 1.0, "no": 0.0, "n": 0.0, "false": 0.0, "unsure": None, "u": None, "?": None,
}  # fmt: skip
_WHOLE = (tables.ROUND, tables.ENTRY, tables.UNDOES)
# Names that are shorter are near to too many others.
_SHORTEST_SLIP = 4


def write(table: pa.Table, path: Path, *, survey: str) -> Path:
    """Write a LABELS table as CSV or Parquet; the ending of the name says which.

    Raises
    ------
    ConfigError
        The name has another ending.
    OutputError
        The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return tables.write_csv(table, path)
    if suffix in (".parquet", ".pq"):
        return tables.write(table, path, tables.LABELS, **{SURVEY: survey})
    raise ConfigError("no such kind of file for ratings", value=path, fix="Let its name end in .csv or .parquet.")


def read(path: Path, defaults: Rating, *, id_column: str = tables.ID, survey: str = "") -> list[Rating]:
    """Read the ratings of a file.

    Parameters
    ----------
    path
        JSON of the atlas, or a table.
    defaults
        Its label, person and kind are those of rows that do not name theirs; they may be empty.
    id_column
        Name of the column of ids.
    survey
        Key of the survey. A file that names another one is refused; empty: it is not compared.

    Returns
    -------
    list of Rating
        Valid ratings; ``at`` is None where the file does not say when, ``entry`` is the number in the file. They are in
        the order of these numbers, or of the rows where there are none.

    Raises
    ------
    DataError
        The file cannot be read.
    ConfigError
        A column is missing or doubled, or a row is not valid; the message names the row.
    StoreError
        The file holds ratings of another survey.
    """
    rows, recorded = (
        _json_rows(path) if path.suffix.lower() == ".json" else _table_rows(path, id_column, tags=defaults.kind == TAG)
    )
    if survey and recorded and recorded != survey:
        raise StoreError(
            "the file holds ratings of another survey", value=path,
            fix="Where both have the same galaxies, export the ratings as CSV and import that.",
        )  # fmt: skip
    numbered = list(enumerate(rows, start=1))
    parsed = [_in_row(path, number, lambda row: _parsed(row, defaults), row) for number, row in numbered]
    kinds = _kinds(parsed)
    ratings = []
    for (number, row), rating in zip(numbered, parsed, strict=True):
        kind = rating.kind or kinds[rating.label]
        said = str(row.get(tables.VALUE) or "").strip().casefold()
        if not rating.kind and kind == GRADE and said in _WORDS:
            raise ConfigError(
                f"{path}, row {number}: an answer in words among grades", value=said,
                fix="Give the grades and the answers labels of their own, or import them from two files.",
            )  # fmt: skip
        if rating.value is None and not rating.undoes and not _is_unsure(row, kind):
            raise ConfigError(
                f"{path}, row {number}: no value", value=rating.id_str,
                fix="Write the grade, yes, no or unsure, or leave the row out.",
            )  # fmt: skip
        ratings.append(_in_row(path, number, checked, replace(rating, kind=kind)))
    if all(rating.entry is not None for rating in ratings):
        ratings.sort(key=lambda rating: rating.entry or 0)
    _refuse_contradictions(path, ratings)
    return ratings


def _table_rows(path: Path, id_column: str, *, tags: bool) -> tuple[list[Mapping[str, Any]], str]:
    """Return the rows of a table under the names of FIELDS, and the survey that it names. Tags need no values."""
    table = read_any_table(path, text=lambda name: _plain(name) in (*FIELDS, _plain(id_column)))
    names = _columns(path, table.column_names, id_column)
    recorded = str(tables.provenance(table).get(SURVEY, ""))
    if not table.num_rows:
        return [], recorded
    if tables.ID not in names:
        raise no_column(table, id_column, source=str(path), setting_name="id_column")
    if tables.VALUE not in names and not tags:
        raise ConfigError(
            f"{path} has no column value", value=", ".join(table.column_names[:12]),
            fix="Name the column of ratings value, or say that every row is a tag: kind=tag.",
        )  # fmt: skip
    try:
        columns = {name: table.column(column).to_pylist() for name, column in names.items()}
    except (OverflowError, ValueError) as problem:
        raise ConfigError(
            f"{path} holds a time that is not between the years 1 and 9999", value=problem, fix="Correct or drop it."
        ) from problem
    columns[tables.ID] = ids_of(table, names[tables.ID], source=str(path))
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows], recorded


def _columns(path: Path, names: Sequence[str], id_column: str) -> dict[str, str]:
    """Return the column of the file for each of FIELDS that it has."""
    found: dict[str, str] = {}
    for name in names:
        field = tables.ID if _plain(name) == _plain(id_column) else _plain(name)
        if field in FIELDS and not (field == tables.ID and _plain(name) != _plain(id_column)):
            if field in found:
                raise ConfigError(f"{path}: a column occurs twice", value=name, fix="Leave one of them.")
            found[field] = name
    for name in names:
        near = difflib.get_close_matches(_plain(name), FIELDS, n=1, cutoff=0.8)
        # The column of ids has the name that was given, and no other.
        if near == [tables.ID] and _plain(id_column) != tables.ID:
            continue
        if near and near[0] not in found and len(near[0]) >= _SHORTEST_SLIP:
            raise ConfigError(f"{path}: no such column", value=name, fix=f"Did you mean {near[0]}?")
    return found


def _json_rows(path: Path) -> tuple[list[Mapping[str, Any]], str]:
    """Return the ratings of a JSON file that the atlas has saved, and the survey that it names."""
    fix = "Save one from the atlas, or give a CSV or Parquet file."
    content = tables.read_json(path, fix=fix)
    kind, rows = content.get("rarezoo"), content.get("ratings")
    if kind == "decisions" and not rows:
        raise ConfigError(
            "the file holds decisions about classes, and no ratings of galaxies", value=path,
            fix="Apply them with: rarezoo classes apply SEARCH FILE",
        )  # fmt: skip
    if kind not in ("ratings", "decisions") or not isinstance(rows, list):
        raise ConfigError("no file of ratings", value=path, fix=fix)
    if content.get("schema") != SCHEMA:
        raise ConfigError(
            "a file of ratings of another version of rarezoo", value=f"{path}: {content.get('schema')}",
            fix="Install the newest rarezoo, or save the file again.",
        )  # fmt: skip
    cleaned: list[Mapping[str, Any]] = []
    columns: dict[tuple[str, ...], dict[str, str]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, row {number}: not a rating", value=str(row)[:80], fix=fix)
        names = columns.get(tuple(row)) or columns.setdefault(tuple(row), _columns(path, tuple(row), tables.ID))
        cleaned.append({field: row[name] for field, name in names.items()})
    return cleaned, str(content.get("survey") or "")


def _parsed(row: Mapping[str, Any], defaults: Rating) -> Rating:
    """Return a row as a rating that is not checked yet; a kind that the row does not name is empty."""

    def text(name: str) -> str:
        return "" if row.get(name) is None else str(row[name])

    label = text(tables.LABEL) or defaults.label or INTERESTING
    by = text(tables.BY) or defaults.by
    if not by.strip():
        raise ConfigError("a rating needs the name of a person", value="by=", fix="Give it: by=NAME.")
    whole = {name: _whole(name, row.get(name)) for name in _WHOLE}
    if whole[tables.UNDOES] is not None and not text(tables.AT):
        raise ConfigError(
            "an entry that takes back another one needs its time", value=whole[tables.UNDOES], fix="Fill column at."
        )
    tagged = defaults.kind == TAG and tables.VALUE not in row
    at = _time(row.get(tables.AT))
    return Rating(
        text(tables.ID),
        label,
        1.0 if tagged else _number(tables.VALUE, row.get(tables.VALUE)),
        text(tables.KIND).strip().casefold() or defaults.kind or (ARTIFACT if label.strip() == ARTIFACT else ""),
        by,
        at=at,
        why=text(tables.WHY) or ("" if at is not None and tables.WHY in row else IMPORT),
        round=whole[tables.ROUND] or 0,
        seconds=_number(tables.SECONDS, row.get(tables.SECONDS)),
        entry=whole[tables.ENTRY],
        undoes=whole[tables.UNDOES],
    )


def _kinds(ratings: Sequence[Rating]) -> dict[str, str]:
    """Return the kind of the ratings of each label that do not name theirs."""
    graded = {rating.label for rating in ratings if not rating.kind and rating.value not in (None, 0, 1)}
    return {rating.label: GRADE if rating.label in graded else ANSWER for rating in ratings}


def _is_unsure(row: Mapping[str, Any], kind: str) -> bool:
    """Return whether a row without a number says that the person was unsure, and is not merely empty."""
    said = str(row.get(tables.VALUE) or "").strip(), str(row.get(tables.KIND) or "").strip()
    return kind == ANSWER and any(said)


def _number(name: str, value: Any) -> float | None:
    """Return a number; yes, no and unsure are values too."""
    if isinstance(value, str):
        word = value.strip().casefold()
        if name == tables.VALUE and word in _WORDS:
            return _WORDS[word]
        try:
            return float(word) if word else None
        except ValueError:
            raise ConfigError(
                f"not a number in column {name}", value=value,
                fix="Write a number with a decimal point, or as a value yes, no or unsure.",
            ) from None  # fmt: skip
    if value is None or value != value:
        return None
    if isinstance(value, (bool, int, float, Decimal)):
        return float(value)
    raise ConfigError(f"not a number in column {name}", value=str(value)[:80], fix="Write a number.")


def _whole(name: str, value: Any) -> int | None:
    number = _number(name, value)
    if number is not None and not (number.is_integer() and 0 <= number < 2**53):
        raise ConfigError(f"not a whole number in column {name}", value=value, fix="Write 0, 1, 2 and so on.")
    return None if number is None else int(number)


def _time(value: Any) -> datetime | None:
    """Return a time: of a table that has times, or a text as ISO 8601 has it. Without a time zone it is in UTC."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    try:
        return datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise ConfigError(
            "not a time in column at", value=str(value)[:80], fix="Write it as 2026-11-29 13:46:00, in UTC."
        ) from None


def _refuse_contradictions(path: Path, ratings: Sequence[Rating]) -> None:
    """Raise ConfigError for ratings of one galaxy by one person that differ, if no time says which one is newer."""
    said: dict[tuple[str, ...], float | None] = {}
    numbers: set[int] = set()
    for rating in ratings:
        key = rating.id_str, rating.label, rating.kind, rating.by, rating.why
        if rating.at is None and said.setdefault(key, rating.value) != rating.value:
            raise ConfigError(
                f"{path}: {rating.by} has rated one galaxy twice and differently, and no time says when",
                value=f"{rating.id_str}, {rating.label}",
                fix="Leave one of the rows, or fill column at.",
            )
        if rating.undoes is not None and rating.undoes not in numbers:
            raise ConfigError(
                f"{path} takes back an entry that it does not hold before", value=rating.undoes,
                fix="Import the whole log.",
            )  # fmt: skip
        if rating.entry is not None:
            if rating.entry in numbers:
                raise ConfigError(f"{path}: two entries have one number", value=rating.entry, fix="Leave one of them.")
            numbers.add(rating.entry)


def _plain(name: str) -> str:
    """Return the name of a column as it is compared: spreadsheets and people change case and spaces."""
    return name.strip().casefold()


def _in_row(path: Path, number: int, step: Callable[[Any], Rating], content: Any) -> Rating:
    """Do something with a row; a message names the row."""
    try:
        return step(content)
    except ConfigError as problem:
        raise ConfigError(f"{path}, row {number}: {problem.what}", value=problem.value, fix=problem.fix) from problem
