"""``data=huggingface``: data sets like mwalmsley/gz_evo and gz_desi (image, id_str, dataset_name, ra, dec, votes)."""

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rarezoo.data.images import StoredImages, file_bytes, file_stamp, refuse_range, unreadable_image
from rarezoo.data.pixels import stored_pixels
from rarezoo.data.positions import positions_of
from rarezoo.data.reading import ids_of, parquet_files, plain_columns, refuse_doubled
from rarezoo.data.survey import FileSurvey, Galaxies, catalogue_table
from rarezoo.data.trees import named_tree
from rarezoo.data.votes import MOST_VOTES, votes_of
from rarezoo.errors import DataError, MissingDependency
from rarezoo.settings import option, setting


@option("data", "huggingface")
@dataclass
class HuggingFace(FileSurvey):
    """A Hugging Face data set of galaxies, by its name on the hub, as a folder or as a Parquet file.

    A folder was saved with ``save_to_disk`` or holds Parquet files. Needs ``pip install "rarezoo[huggingface]"``.
    """

    name: str = setting("mwalmsley/gz_evo", "name on the hub, or a folder or Parquet file on disk", positional=True)
    _: KW_ONLY
    config: str = setting("", "configuration of the data set, if it has several")
    part: str = setting("train", "part of the data set")
    votes: str = setting("desi", "question tree of the vote columns; empty: no votes")
    votes_scale: float = setting(
        0.0, "number of volunteers that vote fractions stand for; 0: the votes are counts; 1: kept as they are",
        unit="votes", ge=0, le=MOST_VOTES,
    )  # fmt: skip
    id_column: str = setting("id_str", "column of galaxy ids")
    image_column: str = setting("image", "column of images")

    def _absolute_paths(self) -> dict[str, str]:
        return {"name": str(Path(self.name).resolve())} if Path(self.name).exists() else {}

    def _read(self) -> Galaxies:
        data_set = self._data_set()
        absent = {self.id_column, self.image_column} - set(data_set.column_names)
        if absent:
            raise DataError(
                f"{self.name} has no column", value=", ".join(sorted(absent)),
                fix=f"Set data.id_column and data.image_column; there are: {', '.join(data_set.column_names[:12])}.",
            )  # fmt: skip
        table = plain_columns(data_set.remove_columns([self.image_column]).with_format("arrow")[:])
        ids = ids_of(table, self.id_column, source=self.name)
        refuse_doubled(ids, source=self.name)
        tree = named_tree(self.votes) if self.votes else None
        survey = table["dataset_name"] if "dataset_name" in table.column_names else None
        positions = positions_of(table, ids=ids, source=self.name)
        used = {self.id_column, "dataset_name", *positions.columns}
        return Galaxies(
            catalogue=catalogue_table(
                ids,
                [f"{self.part}[{row}]" for row in range(len(ids))],
                survey=self.name if survey is None else survey,
                source=self.name,
                ra=positions.ra,
                dec=positions.dec,
                columns=table.drop_columns([name for name in table.column_names if name in used]),
            ),
            images=self._images(data_set, ids),
            tree=tree,
            votes=None if tree is None else votes_of(table, tree, source=self.name, scale=self.votes_scale, ids=ids),
        )

    def _images(self, data_set: Any, ids: list[str]) -> "HuggingFaceImages":
        place = Path(self.name)
        root = None if self.allow_outside else os.path.realpath(place if place.is_dir() else place.parent)
        return HuggingFaceImages(
            data_set.select_columns([self.image_column]), self.image_column, ids, pixel_range=self.pixel_range,
            root=root,
        )  # fmt: skip

    def _data_set(self) -> Any:
        datasets = _datasets()
        place = Path(self.name)
        try:
            if (place / "dataset_info.json").is_file() or (place / "dataset_dict.json").is_file():
                saved = datasets.load_from_disk(str(place))
                return saved[self.part] if isinstance(saved, datasets.DatasetDict) else saved
            if place.is_dir() or place.is_file():
                files = [str(path) for path in (parquet_files(place) if place.is_dir() else [place])]
                return datasets.load_dataset("parquet", data_files={self.part: files}, split=self.part)
            return datasets.load_dataset(self.name, self.config or None, split=self.part)
        except Exception as problem:
            reason = " ".join(str(problem).split())[:200] or type(problem).__name__
            raise DataError(
                f"cannot open the data set ({reason})", value=self.name,
                fix="Without a network, download it elsewhere with `hf download --repo-type dataset "
                f"{self.name}` and give the folder: data.name=DIR. With one, check data.name, data.config, data.part.",
            ) from problem  # fmt: skip


class HuggingFaceImages(StoredImages):
    """Images of a data set, decoded by the rules of :mod:`rarezoo.data.pixels` and not by those of the data set.

    Parameters
    ----------
    data_set
        Data set with a column of images, of encoded bytes or of arrays.
    column
        Its name.
    ids
        Ids of the galaxies, for messages.
    pixel_range
        See :class:`rarezoo.data.images.StoredImages`.
    root
        Folder that files must be in to which the data set refers by their paths; None if they may be anywhere.

    Raises
    ------
    DataError
        The column holds neither images nor arrays of numbers, or arrays of a type without a scale.
    """

    def __init__(
        self, data_set: Any, column: str, ids: list[str], *, pixel_range: Sequence[float] = (), root: str | None = None
    ) -> None:
        super().__init__([f"row {row}" for row in range(len(ids))], ids, pixel_range=pixel_range)
        self.column, self.root, self.pixel_type = column, root, _number_type(data_set.features[column])
        if self.pixel_type == np.uint8:
            refuse_range(self.pixel_range)
        self.data_set = data_set
        if self.pixel_type is None:
            try:
                self.data_set = data_set.cast_column(column, _datasets().Image(decode=False))
            except Exception as problem:
                raise DataError(
                    f"column {column} holds no images", value=data_set.features[column],
                    fix="Name the column of images with data.image_column.",
                ) from problem  # fmt: skip

        inside = bool(ids) and (self.pixel_type is not None or bool((self._first() or {}).get("bytes")))
        self._files = [file_stamp(file["filename"]) for file in data_set.cache_files] if inside else []

    def _first(self) -> Any:
        """Return the first image; None if it cannot be read, which is reported when it is needed."""
        try:
            return self.data_set[0][self.column]
        except Exception:
            return None

    def stamp(self, row: int) -> str:
        """Return sizes and times of the data set's files; empty if the images lie outside of them."""
        return f"{self._files} {row} {self.scale}" if self._files else ""

    def content(self, row: int) -> bytes:
        """Return the bytes of an image file and the range of its pixels, from which the pixels follow."""
        if self.pixel_type is not None:
            return super().content(row)
        try:
            return self._encoded(row) + self.scale.encode()
        except Exception as problem:
            raise unreadable_image(str(self.ids[row]), str(self.names[row]), problem) from problem

    def stored(self, row: int) -> np.ndarray:
        """Return the pixels of one galaxy in the type that they have in the data set."""
        if self.pixel_type is None:
            return stored_pixels(self._encoded(row))
        return np.asarray(self.data_set[int(row)][self.column], dtype=self.pixel_type)

    def _encoded(self, row: int) -> bytes:
        image = self.data_set[int(row)][self.column] or {}
        if not (image.get("bytes") or image.get("path")):
            raise FileNotFoundError("no image")
        return image["bytes"] or file_bytes(Path(image["path"]), root=self.root)


def _number_type(feature: Any) -> np.dtype | None:
    """Return the type of the numbers in a column of arrays; None for a column of anything else."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    try:
        return np.dtype(feature.dtype)
    except (AttributeError, TypeError):
        return None


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as problem:
        raise MissingDependency("datasets", extra="huggingface", purpose="A Hugging Face survey") from problem
    return datasets
