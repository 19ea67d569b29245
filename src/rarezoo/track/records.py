"""The content of a log, independent of where it is written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from PIL import Image

from rarezoo import tables

# The central intervals of the predicted fractions whose coverage a checkpoint's card lists, per cent.
_INTERVALS = (50, 90)
_METRICS_FILE = "metrics.csv"


def epoch_metrics(folder: Path) -> list[dict[str, int | float]]:
    """Read the metrics that a training measured after each epoch.

    Parameters
    ----------
    folder
        Checkpoint folder.

    Returns
    -------
    list of dict
        Metrics by name, one dictionary per epoch. Empty if the folder has no ``metrics.csv``.
    """
    path = folder / _METRICS_FILE
    if not path.is_file():
        return []
    return [{str(key): value for key, value in row.dropna().items()} for _, row in pd.read_csv(path).iterrows()]


@dataclass(frozen=True)
class TrainingRecord:
    """A finished training, as its checkpoint folder describes it.

    Attributes
    ----------
    folder
        The checkpoint folder.
    card
        The content of ``card.json``.

    Examples
    --------
    >>> row = {"question": "bar", "loss": 1.5, "rmse": 0.2, "well_observed": 40, "coverage_90": 0.8}
    >>> training = TrainingRecord(Path("checkpoints/b0.v1"), {"metrics": [row]})
    >>> training.name
    'b0.v1'
    >>> training.scores
    {'loss/bar': 1.5, 'rmse/bar': 0.2}
    >>> training.coverages
    {'calibration/bar/90%': 0.8}
    """

    folder: Path
    card: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return str(self.card.get("name", self.folder.name))

    @cached_property
    def epochs(self) -> list[dict[str, int | float]]:
        """Metrics by name, one dictionary per epoch."""
        return epoch_metrics(self.folder)

    @property
    def scores(self) -> dict[str, int | float]:
        """Loss (nats per galaxy asked) and RMSE (of the vote fraction) of each question on the test split."""
        return {
            f"{score}/{row['question']}": row[score]
            for row in self.card.get("metrics", [])
            for score in ("loss", "rmse")
            if row.get(score) is not None
        }

    @property
    def calibration(self) -> list[dict[str, Any]]:
        """Share of observed vote fractions inside each central interval, expected and found (0-1), per question."""
        rows = []
        for row in self.card.get("metrics", []):
            for interval in _INTERVALS:
                coverage = row.get(f"coverage_{interval}")
                if coverage is not None:
                    low, high = row.get(f"coverage_{interval}_interval") or (None, None)
                    rows.append(
                        {
                            "question": row["question"], "galaxies": row["well_observed"], "expected": interval / 100,
                            "found": coverage, "low": low, "high": high,
                        }
                    )  # fmt: skip
        return rows

    @property
    def coverages(self) -> dict[str, int | float]:
        """The calibration as one number per question and interval, by name."""
        return {f"calibration/{row['question']}/{row['expected']:.0%}": row["found"] for row in self.calibration}

    @property
    def origin(self) -> dict[str, Any]:
        """The parts of the card that say how the network was made."""
        return {key: self.card[key] for key in ("name", "encoder", "training", "data", "width") if key in self.card}


@dataclass(frozen=True)
class ClassMosaic:
    """Cutouts of the exemplars of a class.

    Attributes
    ----------
    class_id
        The class.
    caption
        The grade and the size of the class, and the ids of the exemplars.
    image
        All exemplars.
    row
        The first row of the image, for a table of classes.
    """

    class_id: int
    caption: str
    image: Image.Image
    row: Image.Image


@dataclass(frozen=True)
class SearchRecord:
    """A finished search, ready to be logged.

    Attributes
    ----------
    name
        Name of the search, which is the name of its folder.
    classes
        CLASSES table, in the order in which the classes are shown.
    about
        The content of ``run.json``. It becomes the config of a W&B run.
    map
        The two-dimensional map as a picture.
    mosaics
        A mosaic per class. An iterator may make each one when it is needed. Empty if there are no images.
    training
        The training of the network; None if its checkpoint cannot be found.
    """

    name: str
    classes: pa.Table
    about: Mapping[str, Any]
    map: Image.Image
    mosaics: Iterable[ClassMosaic] = ()
    training: TrainingRecord | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Settings and origin of the search, with the origin of its network if that is known."""
        return {**self.about, **({} if self.training is None else {"trained": self.training.origin})}

    @property
    def store(self) -> Path | None:
        """Folder of the embedding store that was searched; None if it is not there any more."""
        folder = (self.about.get("settings") or {}).get("store")
        return Path(folder) if folder and Path(folder).is_dir() else None

    @property
    def numbers(self) -> dict[str, int | float]:
        """Numbers by name: galaxies, classes, classes of each grade, seconds per stage, the largest persistence."""
        counts = {name: self.about[name] for name in ("galaxies", "searched", "classes", "unassigned")
                  if name in self.about}  # fmt: skip
        grades = {
            f"grades/{grade.replace(' ', '_')}": number for grade, number in (self.about.get("grades") or {}).items()
        }
        seconds = {f"seconds/{stage}": spent for stage, spent in (self.about.get("seconds") or {}).items()}
        persistences = [value for value in self.classes.column(tables.PERSISTENCE).to_pylist() if value is not None]
        return {**counts, **grades, **seconds, **({"persistence/most": max(persistences)} if persistences else {})}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the CLASSES table, with lists joined to text."""
        return [
            {name: "; ".join(value) if isinstance(value, list) else value for name, value in row.items()}
            for row in self.classes.to_pylist()
        ]
