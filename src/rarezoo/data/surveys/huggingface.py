"""Galaxy data sets in the layout of mwalmsley/gz_evo and gz_desi: image, id_str, dataset_name, ra, dec, votes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from rarezoo import tables
from rarezoo.data.images import WAY_OUT, ImageSource, decoded
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.surveys.catalogue import ids_of
from rarezoo.data.trees import named_tree
from rarezoo.data.votes import votes_of
from rarezoo.errors import DataError
from rarezoo.settings import option, setting


@option("data", "huggingface")
@dataclass
class HuggingFace(Survey):
    """A Hugging Face data set of galaxies, by its hub name or as a folder (saved to disk, or of Parquet files)."""

    name: str = setting("mwalmsley/gz_evo", "hub name, or a folder on disk")
    config: str = setting("", "configuration of the data set, if it has several")
    part: str = setting("train", "which part of the data set")
    votes: str = setting("desi", "question tree of the vote columns; empty: no votes")
    id_column: str = setting("id_str", "column of galaxy ids")
    image_column: str = setting("image", "column of images")

    def _read(self) -> Galaxies:
        data_set = self._data_set()
        absent = {self.id_column, self.image_column} - set(data_set.column_names)
        if absent:
            raise DataError(
                f"{self.name} has no column", value=", ".join(sorted(absent)),
                fix=f"Set data.id_column and data.image_column; there are: {', '.join(data_set.column_names[:12])}.",
            )  # fmt: skip
        table = data_set.remove_columns([self.image_column]).with_format("arrow")[:]
        ids = ids_of(table, self.id_column, source=self.name)
        tree = named_tree(self.votes) if self.votes else None
        return Galaxies(
            catalogue=self._catalogue(table, ids),
            images=HuggingFaceImages(data_set.select_columns([self.image_column]), self.image_column, ids),
            tree=tree,
            votes=None if tree is None else votes_of(table, tree, source=self.name),
        )

    def _data_set(self) -> Any:
        import datasets

        folder = Path(self.name)
        try:
            if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
                found = datasets.load_from_disk(str(folder))
                return found[self.part] if isinstance(found, datasets.DatasetDict) else found
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

    def _catalogue(self, table: pa.Table, ids: list[str]) -> pa.Table:
        size = len(ids)
        ours = {
            tables.ID: pa.array(ids, pa.string()),
            tables.RA: _float_column(table, "ra"),
            tables.DEC: _float_column(table, "dec"),
            tables.IMAGE: pa.array([f"{self.part}[{row}]" for row in range(size)]),
            tables.SURVEY: _survey_names(table, self.name),
            tables.SPLIT: pa.nulls(size, pa.string()),
        }  # fmt: skip
        skipped = {*ours, self.id_column, "dataset_name"}
        kept = {name: table[name] for name in table.column_names if name not in skipped}
        return tables.check(pa.table({**ours, **kept}), tables.CATALOGUE, source=self.name)


class HuggingFaceImages(ImageSource):
    """Images of a data set, decoded by our one rule rather than the data set's."""

    def __init__(self, data_set: Any, column: str, ids: list[str]) -> None:
        import datasets

        self.data_set, self.column = data_set.cast_column(column, datasets.Image(decode=False)), column
        self.ids = np.array(ids, dtype=np.str_)

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """One galaxy's pixels."""
        found = self.data_set[int(row)][self.column] or {}
        try:
            content = found.get("bytes") or Path(found.get("path") or "").read_bytes()
            return decoded(content, name=str(found.get("path") or ""))
        except (OSError, ValueError, SyntaxError) as problem:
            raise DataError(
                f"unreadable image ({problem})", value=f"row {row}", fix=WAY_OUT, ids=[str(self.ids[row])]
            ) from problem


def _survey_names(table: pa.Table, name: str) -> Any:
    return table["dataset_name"] if "dataset_name" in table.column_names else pa.array([name] * table.num_rows)


def _float_column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        return pa.nulls(table.num_rows, pa.float64())
    return table[name].cast(pa.float64())
