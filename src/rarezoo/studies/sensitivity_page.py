"""The page of a sensitivity study: one static file that opens from disk, with its style beside it.

Shape letters: s settings, c classes of the centre.
"""

from importlib import resources
from pathlib import Path

import numpy as np

from rarezoo import __version__, tables
from rarezoo.report import palette
from rarezoo.report.pages import environment
from rarezoo.studies.sensitivity import Sensitivity


def write_sensitivity_page(folder: Path, result: Sensitivity) -> Path:
    """Write ``index.html`` and ``assets/style.css``, and return the path of the page.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    with tables.atomic(folder / "assets" / "style.css") as temporary:
        temporary.write_bytes((resources.files("rarezoo.report") / "assets" / "style.css").read_bytes())
    # The classes that are kept in most settings come first.
    order = np.lexsort((result.classes, -result.lived_through))
    labels = result.centre.labels
    sizes = np.unique(labels[labels != tables.NO_CLASS], return_counts=True)[1]
    page = (
        environment()
        .get_template("sensitivity.html.jinja")
        .render(
            about={"title": "How the classes depend on the settings", "version": __version__},
            palette=palette,
            settings=result.summaries,
            names=[setting.name for setting in result.settings],
            missing=dict(result.missing),
            galaxies=len(labels),
            centre=result.centre,
            co_assignment=_cells(result.co_assignment),
            classes=result.classes[order].tolist(),
            living=_cells(result.living[order]),
            sizes=sizes[order].tolist(),
            lived=result.lived_through[order].tolist(),
        )
    )
    with tables.atomic(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "index.html"


def _cells(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
