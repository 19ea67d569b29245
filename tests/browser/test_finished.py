"""Reports that searches left, of the demo and of real galaxies: RAREZOO_REPORTS names their folders, with : between."""

import csv
import os
from pathlib import Path

import pytest

from rarezoo.searches.decisions import Decisions

pytestmark = pytest.mark.browser

FOLDERS = [Path(folder) for folder in os.environ.get("RAREZOO_REPORTS", "").split(os.pathsep) if folder]


@pytest.fixture(params=FOLDERS or [None], ids=lambda folder: "none" if folder is None else folder.parent.name)
def report(request):
    if request.param is None:
        pytest.skip("NO TEST OF FINISHED REPORTS: RAREZOO_REPORTS names none")
    return request.param.resolve()


def pages_of(folder):
    return sorted(page.name for page in folder.glob("*.html"))


def test_every_page_opens_without_a_problem_and_fits(tab, report, view):
    for name in pages_of(report):
        page = tab(report, name, **view)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name


def test_axe_finds_no_serious_fault(tab, faults, report, scheme):
    for name in ("index.html", "atlas.html", *[page for page in pages_of(report) if page.startswith("class-")][:2]):
        assert not faults(tab(report, name, color_scheme=scheme)), name


def test_a_class_is_walked_to_by_keyboard_judged_and_saved(tab, report, tmp_path):
    page = tab(report, "atlas.html")
    page.wait_for_function("window.rarezooAtlas && rarezooAtlas.painter")
    page.keyboard.press("]")
    page.wait_for_selector("#card .sheet")
    shown = page.inner_text("#class-title")
    assert shown.startswith("Class ")
    page.locator("#card .sheet button").first.click()
    page.wait_for_selector("#galaxy *")
    page.keyboard.press("k")
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    waiting.value.save_as(tmp_path / "decisions.json")
    (kept,) = Decisions.read(tmp_path / "decisions.json").items
    assert (f"Class {kept.class_id}", kept.decision) == (shown, "keep")


def test_a_lasso_around_the_middle_of_the_map_is_listed_and_saved(tab, report, tmp_path):
    page = tab(report, "atlas.html")
    page.wait_for_function("window.rarezooAtlas && rarezooAtlas.painter")
    page.click("[data-tool=lasso]")
    box = page.locator("#map, canvas").first.bounding_box()
    x, y, reach = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, min(box["width"], box["height"]) / 3
    page.mouse.move(x - reach, y - reach)
    page.mouse.down()
    for across, down in ((reach, -reach), (reach, reach), (-reach, reach)):
        page.mouse.move(x + across, y + down, steps=5)
    page.mouse.up()
    page.wait_for_selector("#save-selection")
    status = page.inner_text("#selected [role=status]")
    with page.expect_download() as waiting:
        page.click("#save-selection")
    waiting.value.save_as(tmp_path / "selection.csv")
    with (tmp_path / "selection.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) - 1 == int(status.split()[0].replace(",", "")) > 0
