"""``data=catalogue``: a table (CSV, Parquet, FITS, VOTable, ECSV) and images in a folder, tar shards or HDF5."""

import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rarezoo.data.images import (
    OUTSIDE_HINT,
    SKIP_HINT,
    FolderImages,
    Hdf5Images,
    ImageSource,
    TarImages,
    refuse_absent,
    tar_members,
)
from rarezoo.data.matching import EXTENSIONS, Folder, files_by_id, files_by_name, is_inside
from rarezoo.data.positions import positions_of
from rarezoo.data.reading import ids_of, matched_rows, no_column, read_any_table, refuse_doubled, spelling_hint
from rarezoo.data.survey import FileSurvey, Galaxies, catalogue_table
from rarezoo.data.trees import QuestionTree, named_tree
from rarezoo.data.votes import MOST_VOTES, votes_of
from rarezoo.errors import DataError, DataNotFound
from rarezoo.settings import option, setting

_HDF5, _HDF5_SIGNATURE = (".h5", ".hdf5"), b"\x89HDF\r\n\x1a\n"
_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".zip", ".7z", ".rar")
_DEFAULT_IMAGE_COLUMN = "image"


@option("data", "catalogue")
@dataclass
class Catalogue(FileSurvey):
    r"""Your own table and images.

    Ids become text (123, 123.0 and b"123" are "123"; leading zeros of texts are kept). Without an
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
        0.0, "number of volunteers that vote fractions stand for; 0: the votes are counts; 1: kept as they are",
        unit="votes", ge=0, le=MOST_VOTES,
    )  # fmt: skip
    least_matched: float = setting(
        0.1, "smallest share of the ids, of the smaller table, that table and votes_table must have in common", ge=0,
        le=1,
    )  # fmt: skip

    def _absolute_paths(self) -> dict[str, str]:
        own_tree = {"votes": str(Path(self.votes).resolve())} if Path(self.votes).is_file() else {}
        return {**super()._absolute_paths(), **own_tree}

    def _read(self) -> Galaxies:
        table = read_any_table(Path(self.table), text=(self.id_column, self.image_column))
        ids = ids_of(table, self.id_column, source=self.table)
        if not ids:
            raise DataError("the catalogue is empty", value=self.table, fix="Give it at least one row.")
        refuse_doubled(ids, source=self.table)
        images, names = self._images(ids, self._image_names(table))
        tree = named_tree(self.votes) if self.votes else None
        positions = positions_of(
            table, ids=ids, source=self.table, ra_column=self.ra_column, dec_column=self.dec_column
        )
        used = {self.id_column, self.image_column, *positions.columns}
        return Galaxies(
            catalogue=catalogue_table(
                ids,
                names,
                survey=Path(self.table).stem,
                source=self.table,
                ra=positions.ra,
                dec=positions.dec,
                columns=table.drop_columns([name for name in table.column_names if name in used]),
            ),
            images=images,
            tree=tree,
            votes=None if tree is None else self._read_votes(table, ids, tree),
        )

    def _read_votes(self, table: pa.Table, ids: list[str], tree: QuestionTree) -> np.ndarray:
        """Return (galaxies, answers) votes, from the table itself or from the table of votes."""
        if not self.votes_table:
            return votes_of(table, tree, source=self.table, scale=self.votes_scale, ids=ids)
        votes = read_any_table(Path(self.votes_table), text=(self.id_column,))
        voted = ids_of(votes, self.id_column, source=self.votes_table)
        refuse_doubled(voted, source=self.votes_table)
        rows = matched_rows(
            ids, voted, source=self.table, other_source=self.votes_table, least=self.least_matched,
            fix="Check data.id_column in both tables; data.least_matched=0 accepts any number of votes.",
        )  # fmt: skip
        # A galaxy without votes gets a row of nulls.
        matched = votes.take(pa.array(rows, mask=rows < 0))
        return votes_of(matched, tree, source=self.votes_table, scale=self.votes_scale, ids=ids)

    def _image_names(self, table: pa.Table) -> list[str] | None:
        """Return the names of the images, empty where a row has none; None if there is no column of names."""
        if self.image_column in table.column_names:
            column = table[self.image_column]
            kind = column.type
            if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                raise DataError(
                    f"column {self.image_column} of {self.table} holds the images themselves, not their names",
                    value=kind,
                    fix=f"Read it with data=huggingface data.name={self.table} data.image_column={self.image_column}.",
                )
            if pa.types.is_fixed_size_binary(kind):
                # Pictures differ in size: these are names.
                try:
                    column = column.cast(pa.binary()).cast(pa.string())
                except pa.ArrowInvalid as problem:
                    raise DataError(
                        f"column {self.image_column} of {self.table} holds names that are not UTF-8", value=kind,
                        fix="Write the names as text.",
                    ) from problem  # fmt: skip
                return ["" if name is None else str(name).strip(" \0") for name in column.to_pylist()]
            return ["" if name is None or name != name else str(name).strip() for name in column.to_pylist()]
        if self.image_column != _DEFAULT_IMAGE_COLUMN:
            raise no_column(table, self.image_column, source=self.table, setting_name="data.image_column")
        return None

    def _images(self, ids: list[str], names: list[str] | None) -> tuple[ImageSource, list[str]]:
        """Return the source of the images and the name of each galaxy's image in it."""
        place, skip = Path(self.images), self.on_bad_image == "skip"
        if not os.path.exists(place):
            raise DataNotFound("no images", value=place, fix="Say where they are: data.images=FOLDER_OR_FILE.")
        if _is_hdf5(place):
            images = Hdf5Images(
                place, ids, pixel_range=self.pixel_range, skip_absent=skip, allow_outside=self.allow_outside
            )
            return images, [place.name] * len(ids)
        if os.path.isdir(place):
            shards = sorted(path for path in place.iterdir() if path.suffix.lower() == ".tar" and path.is_file())
            root = os.path.realpath(place)
            leaving = [] if self.allow_outside else [path for path in shards if not is_inside(path, root)]
            if leaving:
                raise DataError("a link that leads out of data.images", value=leaving[0], fix=OUTSIDE_HINT)
        elif place.suffix.lower() == ".tar":
            shards = [place]
        else:
            raise DataError(
                "data.images is no folder, no .tar file and no HDF5 file", value=place,
                fix="Unpack compressed archives first, for example with gunzip, tar or unzip.",
            )  # fmt: skip
        if shards:
            members = tar_members(shards)
            files = (
                files_by_id(members, ids, same=members.get)
                if names is None
                else files_by_name(members, names, ids, same=members.get)
            )
            absent = [(names or ids)[row] for row, file in enumerate(files) if file is None]
            hint = _spelled_otherwise(absent, members)
            if not hint and any(Path(file).suffix.lower() in EXTENSIONS for file in _files_beside(place)):
                hint = f"Only the .tar files of this folder are read, not the images beside them. {SKIP_HINT}"
        else:
            folder = Folder(place, outside=self.allow_outside)
            files = folder.by_id(ids) if names is None else folder.by_name(names, ids)
            absent = [(names or ids)[row] for row, file in enumerate(files) if file is None]
            hint = _way_out(folder, absent if names else []) or _spelled_otherwise(absent, folder.files)
        rows = [row for row, file in enumerate(files) if file is None]
        looked_for = f" (such as {(names or ids)[rows[0]]!r})" if rows else ""
        refuse_absent([ids[row] for row in rows], ids, where=f"{place}{looked_for}", skip=skip, hint=hint)
        # With data.on_bad_image=skip a missing image is reported when it is read.
        image_names = [file or f"{galaxy} (missing)" for galaxy, file in zip(ids, files, strict=True)]
        if shards:
            source: ImageSource = TarImages(
                shards, image_names, ids, pixel_range=self.pixel_range, skip_absent=skip, members=members
            )
        else:
            source = FolderImages(
                place, image_names, ids, pixel_range=self.pixel_range, allow_outside=self.allow_outside
            )
        return source, image_names


def _is_hdf5(place: Path) -> bool:
    """Return whether a path is a file that its ending or its first bytes call HDF5."""
    if not os.path.isfile(place):
        return False
    with place.open("rb") as stream:
        return place.suffix.lower() in _HDF5 or stream.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE


def _files_beside(place: Path) -> list[str]:
    """Return the names of the files in a folder; none of a file."""
    return [entry.name for entry in os.scandir(place) if entry.is_file()] if place.is_dir() else []


def _spelled_otherwise(absent: Sequence[str], files: Iterable[str]) -> str:
    """Return what to do about missing images if there are files whose names differ only in spelling; empty if not."""
    bases = [posixpath.basename(file) for file in files] if absent else []
    stems = [base.split(".")[0] for base in bases]
    hint = spelling_hint([posixpath.basename(name) for name in absent], [*bases, *stems]).replace("Ids", "Names")
    return f"{hint}{SKIP_HINT}" if hint else ""


def _way_out(folder: Folder, missing: Sequence[str]) -> str:
    """Return what to do about missing images if they are outside of the folder or in archives; empty if neither."""
    outside = [name for name in missing if name and os.path.isfile(os.path.join(folder.root, name))]
    if outside or folder.leaving:
        kind = "The table names files" if outside else "Links lead"
        return f"{kind} outside of the folder, such as {(outside or folder.leaving)[0]}. {OUTSIDE_HINT}"
    archives = [file for file in folder.files if file.lower().endswith(_ARCHIVES)]
    if archives:
        return f"Archives are not read in there: unpack {archives[0]}, or give the folder of .tar files. {SKIP_HINT}"
    return ""
