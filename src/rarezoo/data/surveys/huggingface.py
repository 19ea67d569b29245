"""``data=huggingface``: data sets like mwalmsley/gz_evo and gz_desi (image, id_str, dataset_name, ra, dec, votes)."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rarezoo.data.images import ImageSource, decoded, file_stamp, unreadable_image
from rarezoo.data.positions import positions_of
from rarezoo.data.reading import ids_of, plain_columns, refuse_doubled
from rarezoo.data.survey import Galaxies, Survey, catalogue_table
from rarezoo.data.trees import named_tree
from rarezoo.data.votes import votes_of
from rarezoo.errors import DataError, MissingDependency
from rarezoo.settings import option, setting


@option("data", "huggingface")
@dataclass
class HuggingFace(Survey):
    """A Hugging Face data set of galaxies, by its name on the hub or as a folder.

    A folder was saved with ``save_to_disk`` or holds Parquet files. Needs ``pip install "rarezoo[huggingface]"``.
    """

    name: str = setting("mwalmsley/gz_evo", "name on the hub, or a folder on disk", positional=True)
    _: KW_ONLY
    config: str = setting("", "configuration of the data set, if it has several")
    part: str = setting("train", "part of the data set")
    votes: str = setting("desi", "question tree of the vote columns; empty: no votes")
    votes_scale: float = setting(
        0.0, "number of volunteers that vote fractions stand for; 0: the votes are counts; 1: kept as they are",
        unit="votes", ge=0,
    )  # fmt: skip
    id_column: str = setting("id_str", "column of galaxy ids")
    image_column: str = setting("image", "column of images")

    def _absolute_paths(self) -> dict[str, str]:
        return {"name": str(Path(self.name).resolve())} if Path(self.name).is_dir() else {}

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
            images=HuggingFaceImages(data_set.select_columns([self.image_column]), self.image_column, ids),
            tree=tree,
            votes=None if tree is None else votes_of(table, tree, source=self.name, scale=self.votes_scale, ids=ids),
        )

    def _data_set(self) -> Any:
        datasets = _datasets()
        folder = Path(self.name)
        try:
            if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
                saved = datasets.load_from_disk(str(folder))
                return saved[self.part] if isinstance(saved, datasets.DatasetDict) else saved
            if folder.is_dir():
                files = [str(path) for path in sorted(folder.rglob("*.parquet"))]
                return datasets.load_dataset("parquet", data_files={self.part: files}, split=self.part)
            return datasets.load_dataset(self.name, self.config or None, split=self.part)
        except (OSError, ValueError, KeyError, ConnectionError) as problem:
            raise DataError(
                f"cannot open the data set ({str(problem).splitlines()[0][:200]})", value=self.name,
                fix="Without a network, download it elsewhere with `hf download --repo-type dataset "
                f"{self.name}` and give the folder: data.name=DIR. With one, check data.name, data.config, data.part.",
            ) from problem  # fmt: skip


class HuggingFaceImages(ImageSource):
    """Images of a data set, decoded by the rules of :mod:`rarezoo.data.images` and not by those of the data set.

    Parameters
    ----------
    data_set
        Data set with a column of images.
    column
        Its name.
    ids
        Ids of the galaxies, for messages.
    """

    def __init__(self, data_set: Any, column: str, ids: list[str]) -> None:
        self.data_set, self.column = data_set.cast_column(column, _datasets().Image(decode=False)), column
        self.ids = np.array(ids, dtype=np.str_)
        inside = bool(ids) and bool((self.data_set[0][column] or {}).get("bytes"))
        self._files = [file_stamp(file["filename"]) for file in data_set.cache_files] if inside else []

    def stamp(self, row: int) -> str:
        """Return sizes and times of the data set's files; empty if the images lie outside of them."""
        return f"{self._files} {row}" if self._files else ""

    def content(self, row: int) -> bytes:
        """Return the bytes of an image file, from which its pixels follow."""
        image = self.data_set[int(row)][self.column] or {}
        return image.get("bytes") or Path(image.get("path") or "").read_bytes()

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one galaxy; see :meth:`ImageSource.cutout`."""
        image = self.data_set[int(row)][self.column] or {}
        try:
            return decoded(self.content(row), name=str(image.get("path") or ""))
        except (OSError, ValueError, SyntaxError) as problem:
            raise unreadable_image(str(self.ids[row]), f"row {row}", problem) from problem


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as problem:
        raise MissingDependency("datasets", extra="huggingface", purpose="A Hugging Face survey") from problem
    return datasets
