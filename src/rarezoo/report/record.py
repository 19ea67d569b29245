"""The record of a search that is logged to W&B, CSV or TensorBoard."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32
from PIL import Image, ImageColor

from rarezoo import tables
from rarezoo.errors import CheckpointError
from rarezoo.report import gallery, palette
from rarezoo.report.gallery import Cutouts
from rarezoo.searches.grades import in_order
from rarezoo.searches.result import Search
from rarezoo.track import ClassMosaic, SearchRecord, TrainingRecord
from rarezoo.zoo.cards import identity, is_checkpoint, read_card

# Side of the map's picture and of a point of a galaxy in a class, px.
_PICTURE, _POINT = 900, 3


def search_record(search: Search, *, images: bool = True, checkpoint: Path | str | None = None) -> SearchRecord:
    """Make the record of a search, with its pictures.

    Parameters
    ----------
    search
        The search.
    images
        Make a mosaic per class. This opens the survey.
    checkpoint
        Folder of the checkpoint of the network; None: the folder of that name in ``checkpoints/``.
    """
    classes, map_2d = in_order(search.table("classes")), search.table("map_2d")
    members = tables.aligned(search.table("members"), map_2d.column(tables.ID), source="the members")
    labels = members.column(tables.CLASS_ID).to_numpy()
    place = Path(checkpoint) if checkpoint else Path("checkpoints") / Path(str(search.about.get("checkpoint", ""))).name
    return SearchRecord(
        name=search.folder.name, classes=classes, about=search.about,
        map=map_picture(tables.matrix(map_2d, tables.POSITION), labels=labels),
        mosaics=class_mosaics(classes, search.cutouts) if images else (),
        training=training_behind(search.about, places=[place]),
    )  # fmt: skip


def training_behind(about: Mapping[str, Any], *, places: Sequence[Path]) -> TrainingRecord | None:
    """Find the training of the network that made the embeddings of a search.

    Parameters
    ----------
    about
        The content of ``run.json``.
    places
        Folders that may hold the checkpoint.

    Returns
    -------
    TrainingRecord or None
        None if none of the folders holds exactly that network.
    """
    for place in filter(is_checkpoint, places):
        try:
            card = read_card(place)
            if identity(card) == about.get("checkpoint_sha256"):
                return TrainingRecord(place, card)
        except (CheckpointError, KeyError):
            continue
    return None


def class_mosaics(classes: pa.Table, cutouts: Cutouts) -> Iterator[ClassMosaic]:
    """Make a mosaic of the exemplars of each class of a CLASSES table, one at a time, in the order of the table."""
    for row in classes.to_pylist():
        ids = row[tables.EXEMPLARS][: gallery.SHOWN]
        images = cutouts(ids)
        grade = f"{row[tables.GRADE]}; " if row[tables.GRADE] else ""
        caption = f"{grade}{row[tables.SIZE]} galaxies; {', '.join(ids)}"
        first_row = gallery.mosaic(images[: gallery.COLUMNS])
        yield ClassMosaic(row[tables.CLASS_ID], caption, gallery.mosaic(images), first_row)


def map_picture(positions: Float32[np.ndarray, "galaxies 2"], *, labels: Int32[np.ndarray, " galaxies"]) -> Image.Image:
    """Draw the map as a square picture on white.

    Galaxies in no class are grey; the others are drawn over them in the colour of their class.

    Parameters
    ----------
    positions
        float32 (galaxies, 2) positions on the map.
    labels
        (galaxies,) class of each galaxy, -1 for no class.
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
