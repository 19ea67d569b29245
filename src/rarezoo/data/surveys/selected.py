"""``data=selected``: some galaxies of another survey, such as the sample of a large search."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.data.survey import Galaxies, Survey, open_survey
from rarezoo.errors import DataError
from rarezoo.settings import option, setting

ROW = "row"


@option("data", "selected")
@dataclass
class Selected(Survey):
    """The galaxies of another survey whose rows and ids a Parquet file lists, in the order of the file."""

    path_settings = ("rows",)

    rows: str = setting(help="Parquet file with id_str and row, the row of each galaxy in the survey", positional=True)
    _: KW_ONLY
    survey: dict[str, Any] = setting({}, "settings of the survey, with its name as option")

    def _read(self) -> Galaxies:
        listed = tables.read(Path(self.rows), tables.SELECTED)
        galaxies = open_survey(self.survey).open_at(listed.column(ROW).to_numpy())
        if galaxies.ids.tolist() != listed.column(tables.ID).to_pylist():
            raise DataError(
                "the survey has changed since galaxies were selected from it", value=self.survey.get("option"),
                fix="Bring it back as it was.",
            )  # fmt: skip
        return galaxies


def write_selected(path: Path, ids: pa.Array | pa.ChunkedArray, rows: np.ndarray) -> Path:
    """Write the file that :class:`Selected` reads."""
    return tables.write(pa.table({tables.ID: ids, ROW: pa.array(rows, pa.int64())}), path, tables.SELECTED)
