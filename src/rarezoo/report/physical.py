"""The physical card of a class: its properties against matched controls, on the page of the class and on a page of all.

``rarezoo physical`` writes the cards as JSON into ``physical/`` of the folder of a search, and the report shows them.
Pages that exist already get their cards between two marks, so that the report need not be written again; written
again, it is the same.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rarezoo import __version__, tables
from rarezoo.errors import RarezooError
from rarezoo.report import palette
from rarezoo.report.contents import file_name

log = logging.getLogger(__name__)

FILE, PAGE = "cards.json", "index.html"
_FOLDER = "physical"
_MARKS = re.compile(r"<!-- physical -->.*?<!-- /physical -->", re.DOTALL)
# Size of a histogram and of the Love plot, in the units of their drawings; the latter ends at its limit.
_WIDE, _HIGH, _LOVE_WIDE, _LOVE_LIMIT = 200.0, 70.0, 320.0, 2.0
Card = Mapping[str, Any]


def read_cards(folder: Path) -> dict[int, Card]:
    """Return the cards in the folder of a search by class id; none if there are none, or they cannot be read."""
    path = folder / _FOLDER / FILE
    if not path.exists():
        return {}
    try:
        cards = tables.read_json(path, fix="Run rarezoo physical again.")
        return {int(class_id): card for class_id, card in cards.items() if card["size"] >= 0}
    except (RarezooError, ValueError, TypeError, KeyError) as problem:
        log.warning("the report shows no physical cards: %s", problem)
        return {}


def link_of(report: Path, search: Path) -> str:
    """Return the address of the page of all cards from the pages of a report, or an empty text if it lies elsewhere."""
    page = search / _FOLDER / PAGE
    inside = report.resolve().parent == search.resolve()
    return Path(os.path.relpath(page, report)).as_posix() if inside and page.exists() else ""


def section(card: Card, *, link: str = "") -> Markup:
    """Return the section of a page that shows a card.

    Parameters
    ----------
    card
        See :meth:`rarezoo.physical.result.Physical.card`.
    link
        Address of the page of all cards; empty for none.
    """
    from rarezoo.report.pages import environment

    module: Any = environment().get_template("physical_card.html.jinja").module
    histograms = [{**one, **_paths(one)} for one in card["histograms"]]
    return Markup(module.physical(card, histograms, _love_rows(card["covariates"]), link))


def write_page(
    folder: Path,
    cards: Mapping[int, Card],
    *,
    title: str,
    lines: Sequence[str],
    covariates: Sequence[str],
    back: str = "",
) -> Path:
    """Write the page of all cards, and return its path.

    Parameters
    ----------
    folder
        Where.
    cards
        Cards by class id.
    title
        Name of the search.
    lines
        What was joined and found.
    covariates
        Columns in which controls were matched.
    back
        Address of the report's index page; empty for none.
    """
    # Pages that show a card import this module.
    from rarezoo.report.compare import asset
    from rarezoo.report.pages import environment

    differing = [
        {**row, "class_id": class_id, "anchor": file_name(class_id)}
        for class_id, card in cards.items()
        for row in card["rows"]
        if row["verdict"] == "differs"
    ]
    page = environment().get_template("physical.html.jinja").render(
        about={"version": __version__}, palette=palette, title=title, lines=lines, covariates=covariates, back=back,
        cards=[(class_id, file_name(class_id), section(card)) for class_id, card in cards.items()],
        differing=differing, style=asset("style.css"),
    )  # fmt: skip
    with tables.atomic(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / PAGE


def show_on_pages(report: Path, cards: Mapping[int, Card]) -> int:
    """Show cards on the class pages of a report that has been written; return the number of pages."""
    link, changed, without = link_of(report, report.parent), 0, 0
    for class_id, card in cards.items():
        path = report / f"{file_name(class_id)}.html"
        if not path.exists():
            continue
        page = path.read_text(encoding="utf-8")
        shown = f"<!-- physical -->{section(card, link=link)}<!-- /physical -->"
        if not _MARKS.search(page):
            without += 1
            continue
        with tables.atomic(path) as temporary:
            before, after = _MARKS.split(page, maxsplit=1)
            temporary.write_text(f"{before}{shown}{after}", encoding="utf-8")
        changed += 1
    if without:
        log.warning("%d pages of the report are of an earlier rarezoo and show no card: rarezoo report SEARCH", without)
    return changed


def _paths(histogram: Mapping[str, Any]) -> dict[str, str]:
    """Return the outlines of the histograms of members and controls as SVG paths."""
    highest = max([*histogram["members"], *histogram["controls"], 1e-9])
    step = _WIDE / len(histogram["members"])

    def outline(shares: Sequence[float]) -> str:
        heights = [f"{_HIGH - 2 - (_HIGH - 8) * share / highest:.1f}" for share in shares]
        steps = " ".join(
            f"L{place * step:.1f} {height} L{(place + 1) * step:.1f} {height}" for place, height in enumerate(heights)
        )
        return f"M0 {_HIGH - 2:.1f} {steps} L{_WIDE:.1f} {_HIGH - 2:.1f}"

    return {"members_path": outline(histogram["members"]), "controls_path": outline(histogram["controls"])}


def _love_rows(covariates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the covariates with the places of their absolute differences in the Love plot."""
    limit = min(_LOVE_LIMIT, max([0.3, *(abs(one["before"] or 0) for one in covariates)]) * 1.05)

    def place(value: float | None) -> float | None:
        return None if value is None else round(min(abs(value), limit) / limit * _LOVE_WIDE, 1)

    return [
        {**one, "at_before": place(one["before"]), "at_after": place(one["after"]), "at_limit": place(0.1)}
        for one in covariates
    ]
