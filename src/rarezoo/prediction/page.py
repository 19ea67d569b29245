"""The page of published predictions: one static file that opens from disk, with its pictures beside it.

index.html            what is predicted, how good it is, how many there are, galaxies to look at
images/               mosaics and figures
predictions.parquet   the table (and .fits, .csv, .vot if they were wanted)
evaluation.json       the numbers of the page
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from rarezoo import __version__, tables
from rarezoo.data.images import shown_cutouts
from rarezoo.data.own_labels import CLASSES, COUNTS, NUMBER, TAGS
from rarezoo.escapes import figure_text
from rarezoo.prediction.evaluation import THRESHOLDS, Evaluation
from rarezoo.prediction.publish import EVALUATED, Published, given_values
from rarezoo.report import gallery, palette
from rarezoo.report.compare import asset
from rarezoo.report.gallery import Gallery, Thumbnail
from rarezoo.report.pages import environment
from rarezoo.statistics import Interval

PAGE = "index.html"
_SHOWN, _MOST_ERRORS = 24, 24
# Labels, classes or tags that have figures and galleries of their own; the table has all of them.
_MOST_SECTIONS = 8
# Thresholds that the table of a label lists.
_LISTED = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def write_page(published: Published, folder: Path) -> Path:
    """Write ``index.html`` with its pictures, and return its path.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / "images").glob("*.*"):
        old.unlink()
    sections = [
        _section(published, found, number, folder)
        for number, found in enumerate(published.evaluations[:_MOST_SECTIONS])
    ]
    if not sections:
        sections = [_number_section(published, column, folder) for column in range(len(published.labels.names))][
            :_MOST_SECTIONS
        ]
    page = (
        environment()
        .get_template("published.html.jinja")
        .render(
            about={"version": __version__},
            palette=palette,
            title=published.title,
            summary=published.labels.summary(),
            notes=published.notes,
            evaluated=EVALUATED[published.by],
            coverage=published.coverage,
            sections=sections,
            overview=[_row(found) for found in published.evaluations],
            counted=any(np.isfinite(found.count.value) for found in published.evaluations),
            pure=any(np.isfinite(found.purity).any() for found in published.evaluations),
            kind=published.labels.kind,
            strength=published.strength.text(".2f"),
            covered=published.covered.text(".2f"),
            errors=_errors(published, folder),
            made=published.about,
            galaxies=len(published.labels),
            files=sorted(path.name for path in folder.glob("predictions.*")),
            style="\n".join(asset(name) for name in ("style.css", "similar.css")),
        )
    )
    with tables.atomic(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / PAGE


def _row(found: Evaluation) -> dict[str, Any]:
    half = found.at(0.5)
    return {
        "name": found.name,
        "positives": found.positives,
        "others": found.others,
        "auc": found.auc.text(".2f"),
        "completeness": Interval(*found.completeness[half]).text(".2f"),
        "purity": Interval(*found.purity[half]).text(".2f"),
        "count": found.count.text(",.0f"),
        "adjusted": found.adjusted.text(",.0f"),
        "share": found.share.text(".2%"),
        "labelled": f"{found.labelled_share:.1%}",
        "error": f"{found.reliability.error:.3f}",
        "brier": f"{found.reliability.brier:.3f}",
        "coverage": found.coverage.text(".2f"),
    }


def _section(published: Published, found: Evaluation, number: int, folder: Path) -> dict[str, Any]:
    """Return what the page says about one label, class or tag, with its figure and its galleries."""
    labels = published.labels
    column = labels.names.index(found.name) if labels.kind in (CLASSES, TAGS) else 0
    probability = published.probabilities[:, column]
    order = np.argsort(-probability, kind="stable")
    unlabelled = order[~np.isfinite(labels.values[order, column])]
    unsure = unlabelled[np.argsort(np.abs(probability[unlabelled] - 0.5), kind="stable")][:_SHOWN]
    captions = {row: f"probability {probability[row]:.2f}" for row in [*unlabelled[:_SHOWN], *unsure]}
    listed = []
    for threshold in _LISTED:
        place = found.at(threshold)
        listed.append(
            {
                "threshold": f"{threshold:g}",
                "selected": f"{found.selected[place]:,}",
                "completeness": Interval(*found.completeness[place]).text(".2f"),
                "purity": Interval(*found.purity[place]).text(".2f"),
            }
        )
    image = f"images/label-{number}.webp"
    _draw(found, folder / image)
    return {
        **_row(found),
        "figure": image,
        "listed": listed,
        "id": f"label-{number}",
        "galleries": [
            _gallery(
                published,
                folder,
                f"surest-{number}",
                "The surest",
                "Galaxies without a label that have the largest probability.",
                unlabelled[:_SHOWN],
                captions,
            ),
            _gallery(
                published,
                folder,
                f"unsure-{number}",
                "The least sure",
                "Galaxies without a label whose probability is nearest to 0.5. Labels of these help most.",
                unsure,
                captions,
            ),
        ],
    }


def _number_section(published: Published, column: int, folder: Path) -> dict[str, Any]:
    """Return what the page says about a number or the share of an answer."""
    labels, values = published.labels, published.probabilities[:, column]
    order = np.argsort(-values, kind="stable")
    captions = {row: f"{values[row]:.3g}" for row in [*order[:_SHOWN], *order[::-1][:_SHOWN]]}
    width = np.inf if published.half_widths is None else float(published.half_widths[column])
    image = None
    if published.unseen is not None:
        image = f"images/label-{column}.webp"
        found, truth = published.unseen[:, column], given_values(labels)[:, column]
        _draw_numbers(truth[np.isfinite(found)], found[np.isfinite(found)], width, labels.names[column], folder / image)
    return {
        "id": f"label-{column}",
        "name": labels.names[column],
        "width": f"{width:.3g}" if np.isfinite(width) else "unbounded",
        "figure": None,
        "scatter": image,
        "galleries": [
            _gallery(
                published,
                folder,
                f"largest-{column}",
                "The largest",
                "Galaxies with the largest predicted values.",
                order[:_SHOWN],
                captions,
            ),
            _gallery(
                published,
                folder,
                f"smallest-{column}",
                "The smallest",
                "Galaxies with the smallest predicted values.",
                order[::-1][:_SHOWN],
                captions,
            ),
        ],
    }


def _errors(published: Published, folder: Path) -> dict[str, Any]:
    errors = published.errors[:_MOST_ERRORS]
    captions = {error.row: f"labelled {error.given}, seems {error.seems}" for error in errors}
    rows = np.array([error.row for error in errors], dtype=np.int64)
    what = (
        "Galaxies whose label is far from what a model that has not seen it predicts."
        if published.labels.kind in (NUMBER, COUNTS)
        else "Galaxies that a model which has not seen their label takes for another class, by confident learning "
        "(Northcutt et al. 2021). Look at them again; a rare galaxy may be right and unusual."
    )
    shown = _gallery(published, folder, "errors", "Likely label errors", what, rows, captions)
    return {"gallery": shown, "total": len(published.errors)}


def _gallery(
    published: Published,
    folder: Path,
    name: str,
    title: str,
    about: str,
    rows: Int64[np.ndarray, " g"],
    captions: Mapping[int, str],
) -> Gallery:
    """Return a gallery of some galaxies, with a mosaic if the survey has images."""
    ids = [str(published.labels.ids[row]) for row in rows]
    image = None
    if published.galaxies is not None and len(rows):
        places = tables.rows_of(ids, published.galaxies.catalogue, source="the survey")
        cutouts = shown_cutouts(published.galaxies.images, places.tolist(), named=set())
        image = f"images/{name}.jpg"
        gallery.save(gallery.mosaic(cutouts), folder / image)
    thumbnails = tuple(
        Thumbnail(galaxy, index, captions[row], *gallery.place(index, len(ids)))
        for index, (galaxy, row) in enumerate(zip(ids, rows, strict=True))
    )
    return Gallery(name, title, about, thumbnails, image, *gallery.shape(len(ids)))


def _draw(found: Evaluation, path: Path) -> None:
    """Draw completeness and purity against the threshold, and the reliability diagram."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for values, colour, name in (
        (found.completeness, palette.LIGHT[0], "completeness"),
        (found.purity, palette.LIGHT[1], "purity"),
    ):
        if np.isnan(values).all():
            continue
        left.plot(THRESHOLDS, values[:, 0], color=colour, label=name, linestyle="-" if name == "completeness" else "--")
        left.fill_between(THRESHOLDS, values[:, 1], values[:, 2], color=colour, alpha=0.15, linewidth=0)
    left.set(
        xlabel="threshold on the probability",
        ylabel="share",
        xlim=(0, 1),
        ylim=(0, 1.02),
        title=figure_text(found.name),
    )
    left.legend(frameon=False)
    about = found.reliability
    right.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    low, high = np.clip(about.observed - about.low, 0, 1), np.clip(about.high - about.observed, 0, 1)
    right.errorbar(
        about.predicted, about.observed, yerr=[low, high], color=palette.LIGHT[0], fmt="o", markersize=4, capsize=2
    )
    right.set(
        xlabel="predicted probability",
        ylabel="observed share",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        title="reliability",
    )
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="webp", dpi=110)


def _draw_numbers(
    truth: Float64[np.ndarray, " m"], found: Float64[np.ndarray, " m"], width: float, name: str, path: Path
) -> None:
    """Draw the predictions of the evaluated galaxies against their labels, and the differences, with the interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    both = np.concatenate([truth, found])
    edge = 0.04 * max(float(np.ptp(both)), 1e-9)
    ends = np.array([both.min() - edge, both.max() + edge])
    left.plot(ends, ends, color="#999999", linestyle=":", linewidth=1)
    if np.isfinite(width):
        left.fill_between(ends, ends - width, ends + width, color=palette.LIGHT[0], alpha=0.12, linewidth=0)
        right.axvspan(-width, width, color=palette.LIGHT[0], alpha=0.12, linewidth=0)
    left.plot(truth, found, "o", color=palette.LIGHT[0], markersize=4, alpha=0.7, markeredgewidth=0)
    left.set(xlim=ends, ylim=ends, xlabel="label", ylabel="prediction", title=figure_text(name))
    right.hist(found - truth, bins=30, color=palette.LIGHT[0])
    right.axvline(0, color="#999999", linestyle=":", linewidth=1)
    right.set(xlabel="prediction − label", ylabel="evaluated galaxies", title="differences")
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="webp", dpi=110)
