"""``data=catalogue``: a table (CSV, Parquet, FITS, VOTable, ECSV) and images in a folder, tar shards or HDF5."""

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from rarezoo.data.images import (
    EXTENSIONS,
    FolderImages,
    Hdf5Images,
    ImageSource,
    TarImages,
    missing_images,
    tar_members,
)
from rarezoo.data.survey import Galaxies, Survey, catalogue_table
from rarezoo.data.trees import QuestionTree, named_tree
from rarezoo.data.votes import votes_of
from rarezoo.errors import DataError, DataNotFound
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
_DEFAULT_IMAGE_COLUMN = "image"


@option("data", "catalogue")
@dataclass
class Catalogue(Survey):
    r"""Your own table and images.

    Ids become texts whatever they were (123, 123.0 and b"123" are "123"; leading zeros of texts are kept). Without an
    image column the image of galaxy ID is ID.jpg, .png, .fits … in the folder or archive. Every column is kept.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 8)).save(f"{folder}/007.png")
    ...     _ = Path(folder, "galaxies.csv").write_text("id_str,mag\n007,17.5\n")
    ...     galaxies = Catalogue(f"{folder}/galaxies.csv", images=folder).open()
    ...     galaxies.ids.tolist(), galaxies.images.cutout(0).shape
    (['007'], (8, 8, 3))
    """

    path_settings = ("table", "images", "votes_table")

    table: str = setting(help="CSV, Parquet, FITS, VOTable or ECSV file", positional=True)
    _: KW_ONLY
    images: str = setting(help="folder of JPEG, PNG or FITS files, folder of .tar shards, one .tar, or an HDF5 file")
    id_column: str = setting("id_str", "column of galaxy ids")
    image_column: str = setting(
        _DEFAULT_IMAGE_COLUMN, "column of image file names; if there is none, names follow the ids"
    )
    ra_column: str = setting("ra", "column of right ascension, if there is one", unit="deg")
    dec_column: str = setting("dec", "column of declination, if there is one", unit="deg")
    votes: str = setting("", "question tree of the votes: a published name or a YAML file; empty: no votes")
    votes_table: str = setting("", "file that holds the votes, if they are not in the table itself; matched by id")
    votes_scale: float = setting(
        0.0, "number of volunteers that vote fractions stand for; 0: the votes are counts", unit="votes", ge=0
    )

    def _absolute_paths(self) -> dict[str, str]:
        own_tree = {"votes": str(Path(self.votes).resolve())} if Path(self.votes).is_file() else {}
        return {**super()._absolute_paths(), **own_tree}

    def _read(self) -> Galaxies:
        table = read_any_table(Path(self.table))
        ids = ids_of(table, self.id_column, source=self.table)
        if not ids:
            raise DataError("the catalogue is empty", value=self.table, fix="Give it at least one row.")
        _refuse_doubled(ids, source=self.table)
        images, names = self._images(ids, self._image_names(table))
        tree = named_tree(self.votes) if self.votes else None
        used = {self.id_column, self.image_column, self.ra_column, self.dec_column}
        return Galaxies(
            catalogue=catalogue_table(
                ids,
                names,
                survey=Path(self.table).stem,
                source=self.table,
                ra=_degrees(table, self.ra_column),
                dec=_degrees(table, self.dec_column),
                columns=table.drop_columns([name for name in table.column_names if name in used]),
            ),
            images=images,
            tree=tree,
            votes=None if tree is None else self._read_votes(table, ids, tree),
        )

    def _read_votes(self, table: pa.Table, ids: list[str], tree: QuestionTree) -> np.ndarray:
        """Return (galaxies, answers) votes, from the table itself or from the table of votes."""
        if not self.votes_table:
            return votes_of(table, tree, source=self.table, scale=self.votes_scale)
        votes = read_any_table(Path(self.votes_table))
        voted = ids_of(votes, self.id_column, source=self.votes_table)
        _refuse_doubled(voted, source=self.votes_table)
        row_of = {galaxy: row for row, galaxy in enumerate(voted)}
        if not row_of.keys() & set(ids):
            raise DataError(
                f"no id of {self.votes_table} is in {self.table}", value=f"{voted[:2]} and {ids[:2]}",
                fix="Check data.id_column in both tables.",
            )  # fmt: skip
        # A galaxy without votes gets a row of nulls.
        matched = votes.take(pa.array([row_of.get(galaxy) for galaxy in ids], pa.int64()))
        return votes_of(matched, tree, source=self.votes_table, scale=self.votes_scale)

    def _image_names(self, table: pa.Table) -> list[str] | None:
        if self.image_column in table.column_names:
            return [str(name) for name in table[self.image_column].to_pylist()]
        if self.image_column != _DEFAULT_IMAGE_COLUMN:
            raise _no_column(table, self.image_column, source=self.table, setting_name="data.image_column")
        return None

    def _images(self, ids: list[str], names: list[str] | None) -> tuple[ImageSource, list[str]]:
        """Return the source of the images and the name of each galaxy's image in it."""
        place = Path(self.images)
        if not place.exists():
            raise DataNotFound("no images", value=place, fix="Say where they are: data.images=FOLDER_OR_FILE.")
        if place.suffix.lower() in _HDF5:
            return Hdf5Images(place, ids), [place.name] * len(ids)
        shards = [place] if place.suffix.lower() == ".tar" else sorted(place.glob("*.tar"))
        if shards:
            listed = list(tar_members(shards))
        else:
            listed = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
        files = _files_by_name(listed, names) if names else _files_by_id(listed, ids)
        missing = [galaxy for galaxy, file in zip(ids, files, strict=True) if file is None]
        if missing and (self.on_bad_image != "skip" or len(missing) == len(ids)):
            raise missing_images(missing, where=str(place))
        # With data.on_bad_image=skip a missing image is reported when it is read.
        image_names = [file or f"{galaxy} (missing)" for galaxy, file in zip(ids, files, strict=True)]
        images = TarImages(shards, image_names, ids) if shards else FolderImages(place, image_names, ids)
        return images, image_names


def read_any_table(path: Path) -> pa.Table:
    """Read a table; the extension of the file says what it is.

    Raises
    ------
    DataNotFound
        There is no such file.
    DataError
        The extension is unknown, or the content does not fit it.
    """
    if not path.is_file():
        raise DataNotFound(
            "no such table", value=path, fix="Give the path of a CSV, Parquet, FITS, VOTable or ECSV file."
        )
    suffix = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    try:
        table = _read_by_suffix(path, suffix)
    except DataError:
        raise
    except (OSError, ValueError, pa.ArrowInvalid, TypeError) as problem:
        raise DataError(f"unreadable table ({problem})", value=path, fix="Check that it opens elsewhere.") from problem
    return table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])


def _read_by_suffix(path: Path, suffix: str) -> pa.Table:
    if suffix in (".parquet", ".pq"):
        return pq.read_table(path)
    if suffix in (".csv", ".tsv", ".txt"):
        if not path.stat().st_size:
            raise DataError("the catalogue is empty", value=path, fix="Give it a header and at least one row.")
        delimiter = "\t" if suffix == ".tsv" else ","
        frame = pd.read_csv(path, sep=delimiter, dtype=str, keep_default_na=True, na_values=[""])
        return pa.Table.from_pandas(frame.apply(_typed), preserve_index=False)
    if suffix in _ASTROPY_FORMATS:
        from astropy.table import Table

        frame = Table.read(path, format=_ASTROPY_FORMATS[suffix]).to_pandas()
        return pa.Table.from_pandas(frame.map(_as_text), preserve_index=False)
    raise DataError("unknown kind of table", value=path, fix="Give CSV, Parquet, FITS, VOTable or ECSV.")


def _typed(column: Any) -> Any:
    """Return a column of texts as numbers if it is one; texts with leading zeros, such as ids, stay texts."""
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
    """Return the ids of a table as texts.

    Raises
    ------
    DataError
        There is no such column, or a row has no id.

    Examples
    --------
    >>> ids_of(pa.table({"id_str": [1.0, 2.0]}), "id_str", source="mine.csv")
    ['1', '2']
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


def _files_by_name(listed: Iterable[str], names: Sequence[str]) -> list[str | None]:
    """Return the file of each named image: at its path, anywhere under its base name, or at an absolute path."""
    files = set(listed)
    by_base = {Path(file).name: file for file in files}
    inside = [name if name in files else by_base.get(Path(name).name) for name in names]
    return [
        file or (name if Path(name).is_absolute() and Path(name).is_file() else None)
        for file, name in zip(inside, names, strict=True)
    ]


def _files_by_id(listed: Iterable[str], ids: Sequence[str]) -> list[str | None]:
    """Return the file of each galaxy that is named after its id, with any extension of an image."""
    by_stem = {_stem(file): file for file in sorted(listed, reverse=True) if file.lower().endswith(EXTENSIONS)}
    return [by_stem.get(galaxy) for galaxy in ids]


def _stem(name: str) -> str:
    base = Path(name).name
    suffix = next((known for known in EXTENSIONS[::-1] if base.lower().endswith(known)), "")
    return base[: len(base) - len(suffix)]


def _no_column(table: pa.Table, column: str, *, source: str, setting_name: str) -> DataError:
    return DataError(
        f"{source} has no column", value=column,
        fix=f"Name it with {setting_name}=; there are: {', '.join(table.column_names[:12])}.",
    )  # fmt: skip


def _refuse_doubled(ids: list[str], *, source: str) -> None:
    galaxies, counts = np.unique(np.array(ids, dtype=object).astype(str), return_counts=True)
    doubled = galaxies[counts > 1].tolist()
    if doubled:
        raise DataError(
            f"{source}: ids occur more than once", value=len(doubled), fix="Keep one row per galaxy.", ids=doubled
        )
