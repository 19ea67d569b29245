"""The page of a sensitivity study: one static file that opens from disk, its style beside it.

Shape letters: s settings, c classes of the centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from rarezoo import __version__, tables
from rarezoo.report import palette
from rarezoo.report.pages import environment
from rarezoo.studies.sensitivity import Sensitivity, Setting


@dataclass(frozen=True)
class ShownSetting:
    """A row of the page's first table; numbers are means over the seeds.

    Attributes:
        name: how it differs from the centre.
        seeds: that are finished, with the folder of each.
        classes: how many; and the fewest and most over the seeds.
        size: median size of all classes; and the smallest and largest.
        unassigned: share of the galaxies, 0–1.
        co_assignment, ari_both, ami_both, assigned, matched: with the centre, same seed; for the centre, between its
            seeds. None if there is no such pair or no class.
    """

    name: str
    seeds: tuple[tuple[int, str], ...]
    classes: tuple[float, int, int]
    size: tuple[float, int, int] | None
    unassigned: float
    co_assignment: float | None
    ari_both: float | None
    ami_both: float | None
    assigned: float | None
    matched: float | None


def shown_settings(found: Sensitivity) -> list[ShownSetting]:
    """The rows of the first table, the centre first."""
    return [_shown(one, found) for one in found.settings]


def _shown(setting: Setting, found: Sensitivity) -> ShownSetting:
    counts = [len(one.sizes) for one in setting.searches]
    sizes = np.concatenate([one.sizes for one in setting.searches])
    pair = {found.settings[0].name, setting.name}
    rows = [row for row in found.agreements.to_pylist() if {row[tables.SETTING_A], row[tables.SETTING_B]} == pair]
    columns = (tables.CO_ASSIGNMENT, tables.ARI_BOTH, tables.AMI_BOTH, tables.ASSIGNED_BOTH, tables.MATCHED)
    return ShownSetting(
        setting.name,
        tuple((one.seed, one.name) for one in setting.searches),
        (float(np.mean(counts)), min(counts), max(counts)),
        (float(np.median(sizes)), int(sizes.min()), int(sizes.max())) if len(sizes) else None,
        float(np.mean([one.unassigned for one in setting.searches])),
        *(_mean([row[name] for row in rows]) for name in columns),
    )


def _mean(values: Sequence[float]) -> float | None:
    known = [one for one in values if not np.isnan(one)]
    return float(np.mean(known)) if known else None


def write_sensitivity_page(folder: Path, found: Sensitivity) -> Path:
    """Write ``index.html`` and ``assets/style.css``; the path of the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    with tables.atomic(folder / "assets" / "style.css") as temporary:
        temporary.write_bytes((resources.files("rarezoo.report") / "assets" / "style.css").read_bytes())
    # Hardest to lose first.
    order = np.lexsort((found.classes, -found.lived_through))
    page = environment().get_template("sensitivity.html.jinja").render(
        about={"title": "What hangs on the settings", "version": __version__}, palette=palette,
        settings=shown_settings(found), names=[one.name for one in found.settings], missing=dict(found.missing),
        galaxies=len(found.centre.labels), centre=found.centre, co_assignment=_cells(found.co_assignment),
        classes=found.classes[order].tolist(), living=_cells(found.living[order]),
        sizes=_class_sizes(found)[order].tolist(), lived=found.lived_through[order].tolist(),
    )  # fmt: skip
    with tables.atomic(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "index.html"


def _class_sizes(found: Sensitivity) -> np.ndarray:
    labels = found.centre.labels
    return np.unique(labels[labels != tables.NO_CLASS], return_counts=True)[1]


def _cells(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(one) else float(one) for one in row] for row in matrix]
