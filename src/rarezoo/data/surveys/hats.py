"""``data=hats``: a survey from a HATS catalogue, read partition by partition and never whole."""

import hashlib
from collections import OrderedDict
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from rarezoo.data.hats import HatsCatalogue
from rarezoo.data.images import EncodedImages, FolderImages, ImageSource
from rarezoo.data.reading import ids_of, no_column, refuse_doubled
from rarezoo.data.survey import FileSurvey, Galaxies, Outline, catalogue_table
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import option, setting

_ALL = "all"


@option("data", "hats")
@dataclass
class Hats(FileSurvey):
    """A HATS catalogue: ids, positions and columns of galaxies, and their cutouts as a column or as files.

    Galaxies are in the order of the catalogue, which is that of the sky. Embedding opens only the partitions that a
    part needs. Needs ``pip install "rarezoo[hats]"``.

    Examples
    --------
    >>> Hats("surveys/legacy", image_column="rgb").id_column
    'id_str'
    """

    path_settings = ("catalogue", "images")

    catalogue: str = setting(help="folder of a HATS catalogue or collection", positional=True)
    _: KW_ONLY
    id_column: str = setting("id_str", "column of galaxy ids")
    image_column: str = setting("image", "column of images: encoded files, or their names; empty: no images")
    images: str = setting("", "folder of the files that the image column names")
    columns: list[str] = setting(
        [], "further columns to read, such as redshift; all = every column of one value per galaxy"
    )

    def check(self) -> None:
        """Raise ConfigError for a folder of images without a column that names them."""
        super().check()
        if self.images and not self.image_column:
            raise ConfigError("data.images needs the column that names the files", value="data.image_column=",
                              fix="Name it, such as data.image_column=file.")  # fmt: skip

    @property
    def in_partitions(self) -> bool:
        """Whether only what is asked for is read: always."""
        return True

    def outline(self) -> Outline:
        """Return number and hash of the galaxies; ids and names of images are read partition by partition.

        Raises
        ------
        DataError
            Ids are missing, or one is there twice, in one partition or in two.
        """
        catalogue = self._opened()
        rows = min(len(catalogue), self.limit) if self.limit else len(catalogue)
        state, seen, left = hashlib.sha256(), [], rows
        for part in catalogue.partitions([self.id_column]):
            ids = ids_of(part.slice(0, left), self.id_column, source=self.catalogue) if left and len(part) else []
            left -= len(ids)
            for galaxy in ids:
                state.update(f"{galaxy!r}\n".encode())
            seen.append(np.array([_hash(galaxy) for galaxy in ids], dtype=np.uint64))
        hashes = np.concatenate([np.empty(0, np.uint64), *seen])
        values, counts = np.unique(hashes, return_counts=True)
        if (counts > 1).any():
            self._refuse_doubled(catalogue, set(values[counts > 1].tolist()))
        if not rows:
            raise DataError("the survey has no galaxy", value=self.catalogue, fix="Give a catalogue with rows.")
        state.update(f"{self.image_column}".encode())
        return Outline(rows, state.hexdigest())

    def open_at(self, rows: Int64[np.ndarray, " m"]) -> Galaxies:
        """Open some of the galaxies, in the order that is given; only the partitions that hold them are read."""
        galaxies = self._at(self._opened(), np.asarray(rows, dtype=np.int64))
        return galaxies.with_splits(self._splits(galaxies.ids))

    def _read(self) -> Galaxies:
        outline, catalogue = self.outline(), self._opened()
        return replace(self._at(catalogue, np.arange(outline.rows)), known_sha256=outline.sha256)

    def _opened(self) -> HatsCatalogue:
        catalogue = HatsCatalogue.open(self.catalogue)
        for name, setting_name in (
            (self.id_column, "data.id_column"),
            *((c, "data.columns") for c in self._further(catalogue)),
        ):
            if name not in catalogue.schema.names:
                raise no_column(catalogue.schema.empty_table(), name, source=self.catalogue, setting_name=setting_name)
        return catalogue

    def _further(self, catalogue: HatsCatalogue) -> list[str]:
        """Return the names of the further columns."""
        if self.columns != [_ALL]:
            return self.columns
        used = {self.id_column, self.image_column, catalogue.ra_column, catalogue.dec_column}
        return [
            field.name
            for field in catalogue.schema
            if field.name not in used and not field.name.startswith("_") and not pa.types.is_nested(field.type)
            and not pa.types.is_binary(field.type) and not pa.types.is_large_binary(field.type)
        ]  # fmt: skip

    def _at(self, catalogue: HatsCatalogue, rows: np.ndarray) -> Galaxies:
        schema, further = catalogue.schema, self._further(catalogue)
        kind = schema.field(self.image_column).type if self.image_column in schema.names else None
        named = kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
        wanted = [self.id_column, catalogue.ra_column, catalogue.dec_column, *further]
        table = catalogue.take(rows, list(dict.fromkeys([*wanted, *([self.image_column] if named else [])])))
        ids = ids_of(table, self.id_column, source=self.catalogue)
        refuse_doubled(ids, source=self.catalogue)
        if named:
            names = [str(name or "") for name in table.column(self.image_column).to_pylist()]
            place = Path(self.images or ".")
            images: ImageSource = FolderImages(
                place, names, ids, pixel_range=self.pixel_range, allow_outside=self.allow_outside or not self.images
            )
        elif kind is not None:
            names = [f"row {row}" for row in rows]
            images = HatsImages(catalogue, self.image_column, rows, ids, pixel_range=self.pixel_range)
        else:
            names = [""] * len(ids)
            images = NoImages(ids, self.image_column, self.catalogue)
        return Galaxies(
            catalogue=catalogue_table(
                ids, names, survey=Path(self.catalogue).name, source=self.catalogue,
                ra=table.column(catalogue.ra_column), dec=table.column(catalogue.dec_column),
                columns=table.select(further),
            ),
            images=images,
        )  # fmt: skip

    def _refuse_doubled(self, catalogue: HatsCatalogue, doubled: set[int]) -> None:
        """Raise DataError for ids that are there twice; equal hashes of different ids are none."""
        found: dict[str, list[int]] = {}
        for number, part in enumerate(catalogue.partitions([self.id_column])):
            for galaxy in ids_of(part, self.id_column, source=self.catalogue) if len(part) else []:
                if _hash(galaxy) in doubled:
                    found.setdefault(galaxy, []).append(number)
        twice = {galaxy: places for galaxy, places in found.items() if len(places) > 1}
        if twice:
            places = sorted({place for places in twice.values() for place in places})
            raise DataError(
                "ids occur more than once in the catalogue", value=f"{len(twice)} ids, in partitions {places[:6]}",
                fix="Keep one row per galaxy, or name another column of ids: data.id_column=COLUMN.", ids=list(twice),
            )  # fmt: skip


def _hash(galaxy: str) -> int:
    return int.from_bytes(hashlib.blake2b(galaxy.encode(), digest_size=8).digest(), "little")


class NoImages(ImageSource):
    """What stands for the images of a survey that has none: each is an unreadable image."""

    def __init__(self, ids: list[str], column: str, source: str) -> None:
        self.ids, self.column, self.source = ids, column, source

    def cutout(self, row: int) -> np.ndarray:
        """Raise DataError, because there is no image."""
        raise DataError(
            "the catalogue has no images", value=f"{self.source}: no column {self.column!r}",
            fix="Name the column of images with data.image_column.", ids=[self.ids[row]],
        )  # fmt: skip

    def stamp(self, row: int) -> str:
        """Return the same text for every galaxy."""
        return "none"


class HatsImages(EncodedImages):
    """Images in a column of a HATS catalogue: encoded files, alone or as ``bytes`` of a struct.

    One group of rows of a partition is in memory at a time, so galaxies that follow each other are read fast.

    Parameters
    ----------
    catalogue
        The catalogue.
    column
        Its column of images.
    rows
        (m,) row of the catalogue of each galaxy.
    ids
        Their ids, for messages.
    pixel_range
        See :class:`rarezoo.data.images.StoredImages`.
    """

    kept_groups = 4

    def __init__(
        self, catalogue: HatsCatalogue, column: str, rows: np.ndarray, ids: list[str], *, pixel_range: Any = ()
    ) -> None:
        super().__init__([f"row {row} of {column}" for row in rows], ids, pixel_range=pixel_range)
        kind = catalogue.schema.field(column).type
        field = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        if not (pa.types.is_binary(field) or pa.types.is_large_binary(field)):
            raise DataError(
                f"column {column} holds no images", value=kind,
                fix="Name a column of encoded images, or of file names, with data.image_column.",
            )  # fmt: skip
        self.catalogue, self.column, self.rows = catalogue, column, np.asarray(rows, dtype=np.int64)
        self._catalogue_stamp = catalogue.stamp
        self._groups: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()
        self._ends: dict[str, np.ndarray] = {}

    def encoded(self, row: int) -> bytes:
        """Return the bytes of an image file."""
        at = int(self.rows[row])
        partition = int(np.searchsorted(self.catalogue.starts, at, side="right") - 1)
        at -= int(self.catalogue.starts[partition])
        for file in self.catalogue.files[partition]:
            ends = self._row_ends(str(file))
            if at < ends[-1]:
                break
            at -= int(ends[-1])
        group = int(np.searchsorted(ends, at, side="right"))
        column = self._group(str(file), group)
        value = column[at - (int(ends[group - 1]) if group else 0)].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        if not value:
            raise FileNotFoundError("no image")
        return bytes(value)

    def stamp(self, row: int) -> str:
        """Return sizes and times of the catalogue's files, and the row."""
        return f"{self._catalogue_stamp} {self.rows[row]}{self.scale}"

    def _row_ends(self, file: str) -> np.ndarray:
        if file not in self._ends:
            about = pq.read_metadata(file)
            self._ends[file] = np.cumsum([about.row_group(group).num_rows for group in range(about.num_row_groups)])
        return self._ends[file]

    def _group(self, file: str, group: int) -> pa.ChunkedArray:
        key, groups = (file, group), self._groups
        found = groups.get(key)
        if found is None:
            found = pq.ParquetFile(file).read_row_group(group, columns=[self.column]).column(self.column)
            groups[key] = found
            while len(groups) > self.kept_groups:
                groups.popitem(last=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": OrderedDict()}
