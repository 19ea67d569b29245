"""What is logged of a training and of a search, wherever it is logged to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float32, Int32
from PIL import Image, ImageColor

from rarezoo import tables
from rarezoo.errors import CheckpointError
from rarezoo.report import gallery, palette
from rarezoo.report.sample import rows_of
from rarezoo.zoo.cards import identity, is_checkpoint, read_card

# Sides of the map's picture, px, and of a point that is in a class.
_PICTURE, _POINT = 900, 3
# Central intervals of the predicted fractions whose coverage a card tells, per cent.
_CENTRAL = (50, 90)
_CURVES = "metrics.csv"


def curves(folder: Path) -> list[dict[str, float]]:
    """What was measured after each epoch of a training, by name; empty where its folder has no metrics.csv."""
    path = folder / _CURVES
    if not path.is_file():
        return []
    return [{str(key): value for key, value in row.dropna().items()} for _, row in pd.read_csv(path).iterrows()]


@dataclass(frozen=True)
class Training:
    """A finished training, as its checkpoint folder tells of it."""

    folder: Path
    card: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path | str) -> "Training":
        """That of a checkpoint folder.

        Raises:
            CheckpointError: see :func:`read_card`.
        """
        return cls(Path(folder), read_card(folder))

    @classmethod
    def behind(cls, about: Mapping[str, Any], *, places: Sequence[Path]) -> "Training | None":
        """The training of the network that a search's galaxies were embedded by; None where it is not at hand.

        Args:
            about: run.json of the search.
            places: folders in which its checkpoint may lie.
        """
        for place in filter(is_checkpoint, places):
            try:
                found = cls.read(place)
                if identity(found.card) == about.get("checkpoint_sha256"):
                    return found
            except (CheckpointError, KeyError):
                continue
        return None

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return str(self.card.get("name", self.folder.name))

    @cached_property
    def curves(self) -> list[dict[str, float]]:
        """What was measured after each epoch, by name."""
        return curves(self.folder)

    @property
    def scores(self) -> dict[str, float]:
        """Loss (nats per galaxy asked) and RMSE (of the vote fraction) on the test split, by question."""
        return {
            f"{score}/{row['question']}": row[score]
            for row in self.card.get("metrics", [])
            for score in ("loss", "rmse")
            if row.get(score) is not None
        }

    @property
    def calibration(self) -> list[dict[str, Any]]:
        """Per question and central interval: the share of observed fractions inside, expected and found, 0–1."""
        rows = []
        for row in self.card.get("metrics", []):
            for central in _CENTRAL:
                found, bounds = row.get(f"coverage_{central}"), row.get(f"coverage_{central}_interval")
                if found is not None:
                    low, high = bounds or (None, None)
                    rows.append(
                        {
                            "question": row["question"], "galaxies": row["well_observed"], "expected": central / 100,
                            "found": found, "low": low, "high": high,
                        }
                    )  # fmt: skip
        return rows

    @property
    def coverages(self) -> dict[str, float]:
        """Its calibration as numbers by name."""
        return {f"calibration/{row['question']}/{row['expected']:.0%}": row["found"] for row in self.calibration}


@dataclass(frozen=True)
class Mosaic:
    """Exemplars of a class: all of them, and those of the first row."""

    class_id: int
    caption: str
    whole: Image.Image
    row: Image.Image


@dataclass(frozen=True)
class Search:
    """A search about to be logged.

    Attributes:
        name: of its folder.
        classes, members: CLASSES and MEMBERS tables.
        map_2d: MAP table, two-dimensional.
        cutouts: ids → uint8 (H, W, 3) each; None leaves the mosaics out.
        about: what run.json will hold.
        training: of the network; None if its checkpoint is not at hand.
    """

    name: str
    classes: pa.Table
    members: pa.Table
    map_2d: pa.Table
    cutouts: Callable[[Sequence[str]], list[np.ndarray]] | None
    about: Mapping[str, Any]
    training: Training | None = None

    @property
    def store(self) -> Path | None:
        """The embedding store searched, if it is where it was."""
        told = self.about.get("settings", {}).get("store")
        return Path(told) if told and Path(told).is_dir() else None

    @property
    def numbers(self) -> dict[str, float]:
        """Its metrics by name."""
        known = {key: self.about[key] for key in ("galaxies", "searched", "classes", "unassigned") if key in self.about}
        seconds = {f"seconds/{stage}": spent for stage, spent in (self.about.get("seconds") or {}).items()}
        persistence = [value for value in self.classes.column(tables.PERSISTENCE).to_pylist() if value is not None]
        most = {"persistence/most": max(persistence)} if persistence else {}
        return {**known, **seconds, **most}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """CLASSES with lists as text."""
        return [
            {key: "; ".join(value) if isinstance(value, list) else value for key, value in row.items()}
            for row in self.classes.to_pylist()
        ]

    @property
    def map(self) -> Image.Image:
        """The map as a picture."""
        ids = self.map_2d.column(tables.ID)
        labels = rows_of(ids, self.members, source="the members").column(tables.CLASS_ID).to_numpy()
        return map_picture(tables.matrix(self.map_2d, tables.POSITION), labels=labels)

    def mosaics(self) -> Iterator[Mosaic]:
        """A mosaic per class, each made when it is asked for; none without images."""
        for one in self.classes.to_pylist() if self.cutouts is not None else []:
            ids = one[tables.EXEMPLARS][: gallery.SHOWN]
            cutouts = self.cutouts(ids)  # type: ignore[misc]
            caption = f"{one[tables.SIZE]} galaxies; {', '.join(ids)}"
            row = gallery.mosaic(cutouts[: gallery.COLUMNS])
            yield Mosaic(one[tables.CLASS_ID], caption, gallery.mosaic(cutouts), row)


def map_picture(positions: Float32[np.ndarray, "galaxies 2"], *, labels: Int32[np.ndarray, " galaxies"]) -> Image.Image:
    """The map as a square picture on white: galaxies in no class grey, the others in their class's colour over them.

    Args:
        positions: float32 (galaxies, 2).
        labels: class of each, −1 for none.
    """
    low, span = positions.min(axis=0), max(np.ptp(positions, axis=0).max(), 1e-9)
    pixels = ((positions - low) / span * (_PICTURE - 1 - 2 * _POINT)).astype(int) + _POINT
    colours = np.array([ImageColor.getrgb(colour) for colour in palette.LIGHT], dtype=np.uint8)
    picture = np.full((_PICTURE, _PICTURE, 3), 255, dtype=np.uint8)
    grey, coloured = labels == tables.NO_CLASS, labels != tables.NO_CLASS
    picture[_PICTURE - 1 - pixels[grey, 1], pixels[grey, 0]] = 200
    for down in range(_POINT):
        for right in range(_POINT):
            at = (_PICTURE - 1 - pixels[coloured, 1] + down - 1, pixels[coloured, 0] + right - 1)
            picture[at] = colours[[palette.mark(int(label)).colour for label in labels[coloured]]]
    return Image.fromarray(picture)
