"""``python -m benchmarks documents``: tables and figures of the documentation, from ``benchmarks/results``.

A table in a page stands between two comments, of which the first names the file and the columns::

    <!-- table: vectors_30000_scores | method | found | impure -->
    <!-- end of table -->
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.atlas import draw_class
from rarezoo import tables
from rarezoo.errors import DataError
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting

RESULTS = Path(__file__).with_name("results")
DOCS = Path(__file__).parents[1] / "docs"
_TABLE = re.compile(r"<!-- table: (.*?) -->\n.*?<!-- end of table -->", re.DOTALL)
_CELL = re.compile(r"^([+-]?[\d.]+)(?: \(([+-]?[\d.]+)–([+-]?[\d.]+)\))?$")
# Results of methods on data whose answers are known, each drawn as one figure.
FIGURES = ("vectors_30000", "galaxies_5000", "galaxies_50000", "galaxies_500000")
# Comparisons of embeddings, each drawn as one figure.
EMBEDDINGS = ("embeddings_gz2", "embeddings_mock")
# Measures of such a figure, from few labels to many, and their colours.
_SHOWN = {"like this": "#9db4c8", "10-shot": "#3c5a78", "probe": "#b3361b"}


@dataclass(kw_only=True)
class Documents(Settings):
    """Write the tables and figures of the documentation from the files in ``benchmarks/results``.

    The picture of the atlas, ``figures/mock_atlas.webp``, is drawn if a search is named; it needs Chromium. ``rarezoo
    demo`` makes such a search.
    """

    docs: str = setting(str(DOCS), "folder of the documentation")
    search: str = setting("", "folder of a finished search, such as runs/demo; empty: the atlas is not drawn")
    class_id: int = setting(0, "class that the picture of the atlas shows", ge=0)

    def run(self) -> str:
        """Write them, and return the names of the files that changed."""
        changed = []
        for page in sorted(Path(self.docs).rglob("*.md")):
            text = page.read_text(encoding="utf-8")
            filled = with_tables(text)
            if filled != text:
                page.write_text(filled, encoding="utf-8")
                changed.append(str(page))
        for name in FIGURES:
            path = Path(self.docs) / "figures" / f"benchmark_{name}.webp"
            draw_scores(RESULTS / f"{name}_scores.csv", path)
            changed.append(str(path))
        for name in EMBEDDINGS:
            if (RESULTS / f"{name}.csv").exists():
                path = Path(self.docs) / "figures" / f"{name}.webp"
                draw_embeddings(RESULTS / f"{name}.csv", path)
                changed.append(str(path))
        if self.search:
            path = Path(self.docs) / "figures" / "mock_atlas.webp"
            draw_class(Search.open(self.search).page.with_name("atlas.html"), path, class_id=self.class_id)
            changed.append(str(path))
        return "\n".join(changed)


def with_tables(text: str) -> str:
    """Return a page with the contents of its tables taken from the files of results.

    Raises
    ------
    DataError
        A table names a file or a column that does not exist.
    """

    def filled(match: re.Match[str]) -> str:
        name, *columns = [part.strip() for part in match[1].split("|")]
        path = RESULTS / f"{name}.csv"
        if not path.exists():
            raise DataError("no such file of results", value=path, fix="Name a file in benchmarks/results.")
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise DataError(f"{path.name} has no column", value=missing[0], fix=f"It has: {', '.join(table.columns)}.")
        rows = table[columns or list(table.columns)].to_numpy().tolist()
        block = tables.markdown(columns or list(table.columns), rows)
        return f"<!-- table: {match[1]} -->\n{block}\n<!-- end of table -->"

    return _TABLE.sub(filled, text)


def draw_scores(path: Path, target: Path) -> None:
    """Draw the discovery of each method, how many populations it finds, and how many of its classes are false.

    Rankings of galaxies have a discovery only.

    Parameters
    ----------
    path
        CSV file with the columns method, discovery, found, impure and pieces; a cell is a number, a number with its
        interval, or a dash.
    target
        Picture to write.
    """
    from matplotlib.figure import Figure

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table["discovery"].str.match(_CELL)]
    numbers = {
        name: np.array([_numbers(cell) if _CELL.match(cell) else (np.nan,) * 3 for cell in table[name]])
        for name in ("discovery", "found", "impure", "pieces")
    }
    # The highest place is the last one.
    order = np.argsort(numbers["discovery"][:, 0], kind="stable")
    numbers = {name: values[order] for name, values in numbers.items()}
    methods, places = table["method"].to_numpy()[order], np.arange(len(table))
    figure = Figure(figsize=(13, 0.34 * len(table) + 1.4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    colours = np.where([method.startswith("ours: ") for method in methods], "#b3361b", "#3c5a78")
    for panel, name in zip(axes, ("discovery", "found"), strict=False):
        values, low, high = numbers[name].T
        panel.hlines(places, low, high, color=colours, linewidth=2)
        panel.scatter(values, places, color=colours, zorder=3)
    axes[0].set(xlabel="discovery (95 % interval over skies)", yticks=places, xlim=(0, None))
    axes[0].set_yticklabels(methods)
    axes[1].set(xlabel="populations found", xlim=(0, None))
    axes[2].scatter((numbers["impure"] + numbers["pieces"])[:, 0], places, color=colours)
    axes[2].set(xlabel="false classes per sky (impure or pieces)", xscale="symlog", xlim=(0, None))
    for panel in axes:
        panel.grid(axis="x", color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
    with tables.atomic(target) as temporary:
        figure.savefig(temporary, format="webp", dpi=120)


def draw_embeddings(path: Path, target: Path) -> None:
    """Draw the average precision of each contestant with one example, ten labels and many labels, a panel per answer.

    Parameters
    ----------
    path
        CSV file of ``python -m benchmarks embeddings``.
    target
        Picture to write.
    """
    from matplotlib.figure import Figure

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table["measure"].isin(_SHOWN)]
    answers = [column for column in table.columns if column not in ("measure", "contestant")]
    contestants = [name for name in dict.fromkeys(table["contestant"]) if name != "chance"][::-1]
    rows = -(-len(answers) // 3)
    figure = Figure(figsize=(11, rows * (0.3 * len(contestants) + 1.1)), layout="constrained")
    panels = figure.subplots(rows, 3, sharey=True, squeeze=False).ravel()
    for panel, answer in zip(panels, answers, strict=False):
        for shift, (measure, colour) in zip((-0.2, 0, 0.2), reversed(_SHOWN.items()), strict=True):
            cells = table[table["measure"] == measure].set_index("contestant")[answer]
            known = [cells.get(name, "").rstrip(" *") for name in contestants]
            # A dash: not measured.
            numbers = np.array([_numbers(cell) if _CELL.match(cell) else (np.nan,) * 3 for cell in known])
            places = np.arange(len(contestants)) + shift
            panel.hlines(places, numbers[:, 1], numbers[:, 2], color=colour, linewidth=2)
            panel.scatter(numbers[:, 0], places, color=colour, s=16, zorder=3, label=measure)
        panel.set(title=answer, yticks=range(len(contestants)), xlim=(0, None))
        panel.set_yticklabels(contestants)
        panel.grid(axis="x", color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(answers) :]:
        panel.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("average precision (95 % interval)")
    with tables.atomic(target) as temporary:
        figure.savefig(temporary, format="webp", dpi=120)


def _numbers(cell: str) -> tuple[float, float, float]:
    """Return value, lower and upper end of a cell such as ``3.0 (2.4–3.6)``; a number alone has no width."""
    match = _CELL.match(cell)
    assert match, cell
    value = float(match[1])
    return value, float(match[2] or value), float(match[3] or value)
