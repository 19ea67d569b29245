"""Your own galaxies: a table (CSV, Parquet, FITS, VOTable, ECSV) and images in a folder, tar shards or HDF5."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from rarezoo import tables
from rarezoo.data.images import (
    EXTENSIONS,
    FolderImages,
    Hdf5Images,
    ImageSource,
    TarImages,
    missing_images,
    tar_members,
)
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import QuestionTree, named_tree
from rarezoo.data.votes import votes_of
from rarezoo.errors import DataError
from rarezoo.settings import option, setting

_ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".votable": "votable",
    ".ecsv": "ascii.ecsv",
}
_HDF5 = (".h5", ".hdf5")


@option("data", "catalogue")
@dataclass
class Catalogue(Survey):
    """A user's table and images.

    Ids become strings whatever they were (123, 123.0 and b"123" are "123"; leading zeros of text are kept). Without an
    image column the image of galaxy ID is ID.jpg, .png, .fits … in the folder or archive. Every column is kept.
    """

    table: str = setting("???", "CSV, Parquet, FITS, VOTable or ECSV file")
    images: str = setting("???", "folder of JPEG/PNG/FITS files, folder of .tar shards or one .tar, or an HDF5 file")
    id_column: str = setting("id_str", "column of galaxy ids")
    image_column: str = setting("image", "column of image file names; where absent, names follow the ids")
    ra_column: str = setting("ra", "column of right ascension, if there is one", unit="deg")
    dec_column: str = setting("dec", "column of declination, if there is one", unit="deg")
    votes: str = setting("", "question tree of the votes: a published name or a YAML file; empty: no votes")
    votes_table: str = setting("", "file that holds the votes, if not the table itself; matched by id")
    votes_scale: float = setting(0.0, "volunteers that vote fractions stand for; 0: the votes are counts", unit="votes")

    def _read(self) -> Galaxies:
        table = read_any_table(Path(self.table))
        ids = ids_of(table, self.id_column, source=self.table)
        if not ids:
            raise DataError("the catalogue is empty", value=self.table, fix="Give it at least one row.")
        _refuse_doubled(ids, source=self.table)
        names = self._image_names(table)
        images, names = self._image_source(ids, names)
        tree = named_tree(self.votes) if self.votes else None
        self.table, self.images = str(Path(self.table).resolve()), str(Path(self.images).resolve())
        return Galaxies(
            catalogue=self._catalogue(table, ids, names),
            images=images,
            tree=tree,
            votes=None if tree is None else self._votes(table, ids, tree),
        )

    def _votes(self, table: pa.Table, ids: list[str], tree: QuestionTree) -> np.ndarray:
        source = self.votes_table or self.table
        return votes_of(self._vote_table(table, ids), tree, source=source, scale=self.votes_scale)

    def _image_names(self, table: pa.Table) -> list[str] | None:
        if self.image_column in table.column_names:
            return [str(one) for one in table[self.image_column].to_pylist()]
        if self.image_column != type(self).image_column:
            raise _no_column(table, self.image_column, source=self.table, setting_name="data.image_column")
        return None

    def _image_source(self, ids: list[str], names: list[str] | None) -> tuple[ImageSource, list[str]]:
        place = Path(self.images)
        if not place.exists():
            raise DataError("no images", value=place, fix="Say where they are: data.images=FOLDER_OR_FILE.")
        if place.suffix.lower() in _HDF5:
            return Hdf5Images(place, ids), [place.name] * len(ids)
        shards = [place] if place.suffix.lower() == ".tar" else sorted(place.glob("*.tar"))
        if shards:
            found = self._names_among(list(tar_members(shards)), ids, names, place)
            return TarImages(shards, found, ids), found
        listed = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
        found = self._names_among(listed, ids, names, place)
        return FolderImages(place, found, ids), found

    def _names_among(self, listed: Sequence[str], ids: list[str], names: list[str] | None, place: Path) -> list[str]:
        """Each galaxy's file among those there are; what is missing is refused now, or met (and skipped) later."""
        found = _named(set(listed), names, place) if names else _named_after_ids(listed, ids)
        missing = [one for one, name in zip(ids, found, strict=True) if name is None]
        if missing and (self.on_bad_image != "skip" or len(missing) == len(ids)):
            raise missing_images(missing, where=str(place))
        return [name or f"{one} (missing)" for one, name in zip(ids, found, strict=True)]

    def _vote_table(self, table: pa.Table, ids: list[str]) -> pa.Table:
        if not self.votes_table:
            return table
        votes = read_any_table(Path(self.votes_table))
        theirs = ids_of(votes, self.id_column, source=self.votes_table)
        _refuse_doubled(theirs, source=self.votes_table)
        place = {one: row for row, one in enumerate(theirs)}
        if not place.keys() & set(ids):
            raise DataError(
                f"no id of {self.votes_table} is in {self.table}", value=f"{theirs[:2]} against {ids[:2]}",
                fix="Check data.id_column in both tables.",
            )  # fmt: skip
        return votes.take(pa.array([place.get(one) for one in ids], pa.int64()))

    def _catalogue(self, table: pa.Table, ids: list[str], names: list[str]) -> pa.Table:
        ours = {
            tables.ID: pa.array(ids, pa.string()),
            tables.RA: _degrees(table, self.ra_column),
            tables.DEC: _degrees(table, self.dec_column),
            tables.IMAGE: pa.array(names, pa.string()),
            tables.SURVEY: pa.array([Path(self.table).stem] * len(ids)),
            tables.SPLIT: pa.nulls(len(ids), pa.string()),
        }
        mapped = {self.id_column, self.image_column, self.ra_column, self.dec_column}
        theirs = {
            f"{name}_given" if name in ours else name: table[name] for name in table.column_names if name not in mapped
        }
        return tables.check(pa.table({**ours, **theirs}), tables.CATALOGUE, source=self.table)


def read_any_table(path: Path) -> pa.Table:
    """A table by its file's extension.

    Raises:
        DataError: no such file, an unknown extension, or contents that do not fit it.
    """
    if not path.is_file():
        raise DataError("no such table", value=path, fix="Give the path of a CSV, Parquet, FITS, VOTable or ECSV file.")
    suffix = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    try:
        table = _read_by_suffix(path, suffix)
    except (OSError, ValueError, pa.ArrowInvalid, TypeError) as problem:
        raise DataError(f"unreadable table ({problem})", value=path, fix="Check that it opens elsewhere.") from problem
    return table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])


def _read_by_suffix(path: Path, suffix: str) -> pa.Table:
    if suffix in (".parquet", ".pq"):
        return pq.read_table(path)
    if suffix in (".csv", ".tsv", ".txt"):
        return _read_csv(path, "\t" if suffix == ".tsv" else ",")
    if suffix in _ASTROPY_FORMATS:
        from astropy.table import Table

        frame = Table.read(path, format=_ASTROPY_FORMATS[suffix]).to_pandas()
        return pa.Table.from_pandas(frame.map(_as_text), preserve_index=False)
    raise DataError("unknown kind of table", value=path, fix="Give CSV, Parquet, FITS, VOTable or ECSV.")


def _read_csv(path: Path, delimiter: str) -> pa.Table:
    """A CSV file; a column with leading zeros stays text, so that no id loses its own."""
    if not path.stat().st_size:
        raise DataError("the catalogue is empty", value=path, fix="Give it a header and at least one row.")
    frame = pd.read_csv(path, sep=delimiter, dtype=str, keep_default_na=True, na_values=[""])
    return pa.Table.from_pandas(frame.apply(_typed), preserve_index=False)


def _typed(column: Any) -> Any:
    text = column.dropna().astype(str)
    if len(text) and text.str.match(r"^[+-]?0\d").any():
        return column
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column


def _as_text(value: Any) -> Any:
    return value.decode().strip() if isinstance(value, bytes) else value


def ids_of(table: pa.Table, column: str, *, source: str) -> list[str]:
    """Ids as strings.

    Raises:
        DataError: no such column, or rows without an id.
    """
    if column not in table.column_names:
        raise _no_column(table, column, source=source, setting_name="data.id_column")
    values = table[column].to_pylist()
    blank = [row for row, value in enumerate(values) if value is None or value != value or value == ""]
    if blank:
        raise DataError(f"{source}: rows without an id", value=blank[:5], fix=f"Fill column {column}.")
    return [_id_text(value) for value in values]


def _id_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode().strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _degrees(table: pa.Table, column: str) -> pa.Array:
    if column not in table.column_names:
        return pa.nulls(table.num_rows, pa.float64())
    values = pd.to_numeric(pd.Series(table[column].to_pylist(), dtype=object), errors="coerce").to_numpy(np.float64)
    return pa.array(values, pa.float64(), from_pandas=True)


def _named(listed: set[str], names: list[str], place: Path) -> list[str | None]:
    by_base = {Path(name).name: name for name in listed}
    resolved = [name if name in listed else by_base.get(Path(name).name) for name in names]
    return [
        found or (given if Path(given).is_absolute() and Path(given).is_file() else None)
        for found, given in zip(resolved, names, strict=True)
    ]


def _named_after_ids(listed: Sequence[str], ids: list[str]) -> list[str | None]:
    by_stem = {_stem(name): name for name in sorted(listed, reverse=True) if name.lower().endswith(EXTENSIONS)}
    return [by_stem.get(one) for one in ids]


def _stem(name: str) -> str:
    base = Path(name).name
    suffix = next((one for one in EXTENSIONS[::-1] if base.lower().endswith(one)), "")
    return base[: len(base) - len(suffix)]


def _no_column(table: pa.Table, column: str, *, source: str, setting_name: str) -> DataError:
    return DataError(
        f"{source} has no column", value=column,
        fix=f"Name it with {setting_name}=; there are: {', '.join(table.column_names[:12])}.",
    )  # fmt: skip


def _refuse_doubled(ids: list[str], *, source: str) -> None:
    seen: set[str] = set()
    doubled = sorted({one for one in ids if one in seen or seen.add(one)})  # type: ignore[func-returns-value]
    if doubled:
        raise DataError(
            f"{source}: ids occur more than once", value=len(doubled), fix="Keep one row per galaxy.", ids=doubled
        )
