"""What a notebook shows of a search: a table of its classes with small pictures, a gallery of a class, and the map."""

import base64
import html
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64
from PIL import Image

from rarezoo import tables
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.escapes import figure_text, visible
from rarezoo.report import gallery, palette
from rarezoo.searches.grades import in_order
from rarezoo.searches.result import Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# Columns of CLASSES in a notebook; those without any value are left out.
_COLUMNS = (
    tables.NAME, tables.GRADE, tables.SIZE, tables.SIGNIFICANCE, tables.FALSE_DISCOVERY, tables.STABILITY,
    tables.CAUSE, tables.TOP_ANSWERS,
)  # fmt: skip
# Number of exemplars in a row, number of classes with pictures, and side of a picture, px.
_EXEMPLARS, _ILLUSTRATED, _SIDE = 5, 40, 56
# Colour of the galaxies in no class on the map.
_GREY = "#cccccc"


def classes_frame(search: Search) -> pd.DataFrame:
    """Return the classes of a search as a data frame, with the columns that a notebook shows.

    Parameters
    ----------
    search
        A finished search.

    Returns
    -------
    pandas.DataFrame
        One row per class, indexed by class id, in the order of their ranks.
    """
    classes = in_order(search.table("classes")).to_pandas().set_index(tables.CLASS_ID)
    shown = classes[[name for name in _COLUMNS if name in classes]].copy()
    shown[tables.TOP_ANSWERS] = ["; ".join(list(answers)[:3]) for answers in shown[tables.TOP_ANSWERS]]
    return shown.dropna(axis="columns", how="all")


def classes_html(search: Search) -> str:
    """Return the classes of a search as an HTML table with a few exemplars of each class.

    All texts are escaped. If the survey cannot be opened, the table has no pictures and a warning says why.

    Parameters
    ----------
    search
        A finished search.
    """
    shown = classes_frame(search)
    for name in shown.columns:
        if not pd.api.types.is_numeric_dtype(shown[name]):
            shown[name] = [html.escape(visible(text)) if isinstance(text, str) else "" for text in shown[name]]
    try:
        pictures = {}
        for row in in_order(search.table("classes")).slice(0, _ILLUSTRATED).to_pylist():
            images = search.cutouts(row[tables.EXEMPLARS][:_EXEMPLARS])
            pictures[row[tables.CLASS_ID]] = _inline(gallery.mosaic(images, side=_SIDE), alt="exemplars")
        shown.insert(0, "exemplars", [pictures.get(class_id, "") for class_id in shown.index])
    except (RarezooError, OSError) as problem:
        log.warning("classes are shown without pictures: %s", problem)
    return str(shown.to_html(escape=False, float_format="{:.3g}".format, na_rep=""))


def gallery_image(images: Sequence[np.ndarray], *, columns: int = gallery.COLUMNS) -> Image.Image:
    """Return images of galaxies as one picture.

    Parameters
    ----------
    images
        uint8 (height, width, 3) each.
    columns
        Largest number of galaxies in a row.

    Examples
    --------
    >>> gallery_image([np.zeros((40, 40, 3), np.uint8)] * 3).size
    (390, 130)
    """
    return gallery.mosaic(images, columns=columns)


def map_figure(search: Search, colour: str | None = "class") -> "Figure":
    """Draw the two-dimensional map of a search.

    Parameters
    ----------
    search
        A finished search.
    colour
        ``class``: galaxies in no class are grey, the others have the colours of the report. A predicted answer, such as
        ``bar_strong``, or a numerical column of the survey's catalogue: a colour scale. None: one colour.

    Raises
    ------
    ConfigError
        There is no such answer or column, or it does not hold numbers.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A figure that Jupyter shows although pyplot, which keeps every figure in memory, did not make it."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=80, bbox_inches="tight")
            return stream.getvalue()

    x, y = tables.matrix(search.table("map_2d"), tables.POSITION).T
    ids = search.table("map_2d").column(tables.ID)
    figure = NotebookFigure(figsize=(7, 7), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xticks=[], yticks=[], aspect="equal", title=figure_text(search.folder.name))
    size = max(0.3, min(12.0, 2e4 / max(len(x), 1)))
    if colour == "class":
        members = tables.aligned(search.table("members"), ids, source="the members")
        labels = members.column(tables.CLASS_ID).to_numpy()
        inside = labels != tables.NO_CLASS
        colours = [palette.LIGHT[palette.mark(int(label)).colour] for label in labels[inside]]
        axes.scatter(x[~inside], y[~inside], color=_GREY, s=size, linewidths=0)
        axes.scatter(x[inside], y[inside], c=colours, s=size, linewidths=0)
    elif colour is None:
        axes.scatter(x, y, color="0.4", s=size, linewidths=0)
    else:
        scale = LinearSegmentedColormap.from_list("cividis of the report", palette.RAMP)
        points = axes.scatter(x, y, c=_values(search, colour, ids), cmap=scale, s=size, linewidths=0)
        figure.colorbar(points, label=figure_text(colour), shrink=0.6)
    return figure


def _values(search: Search, name: str, ids: pa.ChunkedArray) -> Float64[np.ndarray, " galaxies"]:
    """Return a predicted answer or a numerical column of the catalogue."""
    table, column = search.predictions, tables.fraction_column(name)
    if column not in table.column_names:
        table, column = search.survey().catalogue, name
    kind = table.schema.field(column).type if column in table.column_names else None
    if kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        answers = ", ".join(search.store.manifest.answers)
        raise ConfigError(
            "no predicted answer and no column of numbers in the catalogue", value=name,
            fix=f"Choose class, a column of the catalogue, or an answer: {answers}.",
        )  # fmt: skip
    values = tables.aligned(table.select([tables.ID, column]), ids, source=name).column(column)
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy())


def _inline(image: Image.Image, *, alt: str) -> str:
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=80)
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}">'
