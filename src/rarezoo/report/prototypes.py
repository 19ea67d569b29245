"""Prototypes of classes on the pages: what :mod:`rarezoo.distillation.prototype` left in the folder of a search.

Only files are read, so the report needs no torch.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarezoo import tables
from rarezoo.statistics import Interval

_FOLDER, _RECORD = "prototypes", "prototype.json"


@dataclass(frozen=True)
class ShownPrototype:
    """A prototype as a page shows it.

    Attributes
    ----------
    passed
        Whether a judge that did not make it found it worth more than the medoid and the mean image.
    over_medoid, over_mean
        Its accuracy on held-out galaxies, less that of the two.
    held_out
        Number of these galaxies.
    encoder, judged_by
        What made it, and what judged it.
    images
        Prototype, medoid, mean and the picture of the matched galaxies, as addresses of the data themselves.
    """

    passed: bool
    over_medoid: Interval
    over_mean: Interval
    held_out: int
    encoder: str
    judged_by: str
    images: dict[str, str]


def shown_prototype(search: Path, class_id: int) -> ShownPrototype | None:
    """Return the prototype of a class of the search in a folder; None if none was made."""
    folder = search / _FOLDER / f"class-{class_id:03d}"
    if not (folder / _RECORD).is_file():
        return None
    content: dict[str, Any] = tables.read_json(folder / _RECORD, fix="Make the prototype again, or delete its folder.")
    images = {
        name: "data:image/png;base64," + base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        for name in ("prototype", "medoid", "mean", "others")
        if (folder / f"{name}.png").is_file()
    }
    return ShownPrototype(
        bool(content["passed"]), Interval(*content["over_medoid"]), Interval(*content["over_mean"]),
        int(content["held_out"]), str(content["encoder"]), str(content["judged_by"]), images,
    )  # fmt: skip
