"""The pages of a comparison in a real browser: what is marked in one map is marked in the other."""

import csv

import numpy as np
import pytest

from rarezoo.report.compare import write_comparison
from rarezoo.searches.compare import ComparedSearch, SearchPair
from rarezoo.searches.matching import ClassOverlap, agreement

pytestmark = pytest.mark.browser

ALONE, MEMBERS = 200, 40
IDS = np.array([f"g{row:04d}" + ', "é<b>' * (row == 207) for row in range(ALONE + 4 * MEMBERS)], dtype=object)
# B calls A's 0 and 1 by other names, does not see A's 2, and splits A's 3.
LABELS_A = np.repeat([-1, 0, 1, 2, 3], [ALONE] + 4 * [MEMBERS])
LABELS_B = np.repeat([-1, 5, 4, -1, 6, 7], [ALONE, MEMBERS, MEMBERS, MEMBERS, MEMBERS - 15, 15])
CENTRES = np.array([[0, 0], [8, 8], [-8, 8], [8, -8], [-8, -8]])


def positions(seed):
    random = np.random.default_rng(seed)
    centres = CENTRES[LABELS_A + 1] @ np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), seed)
    xy = centres + random.normal(size=(len(IDS), 2)) * np.where(LABELS_A < 0, 1.5, 0.2)[:, None]
    xy[:2] = [[-13, -13], [13, 13]]
    return xy.astype(np.float32)


def run(letter, labels, seed):
    classes = np.unique(labels[labels >= 0])
    result = {int(class_id): ("bar_strong 0.61 (sample 0.12)",) for class_id in classes}
    return ComparedSearch(
        letter, f"search {letter}", f"net.{letter}", len(IDS), classes, labels, positions(seed), result, ""
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The comparison of two searches of one survey."""
    first, second = run("A", LABELS_A, 0), run("B", LABELS_B, 1)
    comparison = ClassOverlap.of_labels(LABELS_A, LABELS_B, old_classes=first.classes, new_classes=second.classes)
    pair = SearchPair(first, second, comparison, agreement(LABELS_A, LABELS_B), None)

    def cutouts(wanted):
        return [np.full((32, 32, 3), 90, np.uint8) for _ in wanted]

    folder = tmp_path_factory.mktemp("compared")
    return write_comparison(folder, IDS, (first, second), (pair,), cutouts=cutouts).parent


@pytest.fixture
def visit(tab, folder):
    """Opens a page of the comparison."""

    def opened(name="A-B.html", **settings):
        page = tab(folder, name, **settings)
        if name == "A-B.html":
            page.wait_for_function("window.rarezooMaps")
        return page

    return opened


def marked_text(page):
    return page.inner_text("#brushed")


def place(page, side, row):
    """Where a galaxy is drawn in one of the maps, px of the window."""
    x, y = page.evaluate("([side, row]) => rarezooMaps.at(side, row)", [side, row])
    box = page.locator(f'.map[data-side="{side}"] .points').bounding_box()
    return box["x"] + x, box["y"] + y


def drawn(page, side):
    """The pixels of one of the maps."""
    return page.evaluate("side => document.querySelector(`[data-side=${side}] .points`).toDataURL()", side)


def middle(labels, value, seed):
    xy = positions(seed)
    return int(np.argmin(np.linalg.norm(xy - xy[labels == value].mean(axis=0), axis=1)))


@pytest.mark.parametrize("name", ["index.html", "A-B.html"])
def test_pages_open_without_a_problem_and_fit(visit, name, view):
    page = visit(name, **view)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("name", ["index.html", "A-B.html"])
def test_axe_finds_no_serious_fault(visit, faults, name, scheme):
    page = visit(name, color_scheme=scheme)
    if name == "A-B.html":
        page.locator("button.cutout").first.click()
    assert not faults(page)


def test_a_lasso_in_one_map_marks_the_galaxies_in_both(visit):
    page = visit()
    page.locator(".map").first.scroll_into_view_if_needed()
    x, y = place(page, "first", middle(LABELS_A, 1, 0))
    page.mouse.move(x - 30, y - 30)
    page.mouse.down()
    for across, down in ((30, -30), (30, 30), (-30, 30)):
        page.mouse.move(x + across, y + down, steps=4)
    page.mouse.up()
    assert marked_text(page) == "40 galaxies marked. In A: A 1 40; In B: B 4 40."
    assert page.evaluate("[...rarezooMaps.marked].flatMap((one, row) => one ? [row] : [])") == list(
        map(int, np.flatnonzero(LABELS_A == 1))
    )


def test_a_class_clicked_in_one_map_is_marked_in_the_other(visit):
    page = visit()
    page.locator(".map").first.scroll_into_view_if_needed()
    before = drawn(page, "first")
    page.mouse.click(*place(page, "second", middle(LABELS_B, 6, 1)))
    assert marked_text(page) == "25 galaxies marked. In A: A 3 25; In B: B 6 25."
    page.wait_for_timeout(200)
    assert drawn(page, "first") != before
    page.click("#clear")
    page.wait_for_timeout(200)
    assert marked_text(page) == "No galaxy is marked."
    assert drawn(page, "first") == before


def test_keyboards_choose_classes_and_move_the_map(visit):
    page = visit()
    page.select_option('select[data-side="first"]', "2")
    assert marked_text(page) == "40 galaxies marked. In A: A 2 40; In B: no class 40."
    page.locator('.map[data-side="first"] .points').focus()
    page.wait_for_timeout(200)
    before = drawn(page, "first")
    page.keyboard.press("+")
    page.wait_for_timeout(200)
    assert drawn(page, "first") != before
    page.keyboard.press("0")
    page.wait_for_timeout(200)
    assert drawn(page, "first") == before


def test_ribbons_cells_and_galaxies_mark_what_they_stand_for(visit):
    page = visit()
    page.locator('.flows path[data-first="3"][data-second="7"]').click()
    assert marked_text(page) == "15 galaxies marked. In A: A 3 15; In B: B 7 15."
    page.locator('.matrix rect[data-first="0"][data-second="5"]').click()
    assert marked_text(page) == "40 galaxies marked. In A: A 0 40; In B: B 5 40."
    button = page.locator("#alone button.cutout").first
    row = int(button.get_attribute("data-row"))
    button.click()
    assert marked_text(page) == "1 galaxy marked. In A: A 2 1; In B: no class 1."
    assert LABELS_A[row] == 2
    assert str(IDS[row]) in page.inner_text("#alone .chosen:not([hidden])")
    page.locator("#both button.show").first.click()
    assert marked_text(page).startswith("40 galaxies marked.")


def test_what_is_marked_can_be_saved(visit, tmp_path):
    page = visit()
    page.select_option('select[data-side="second"]', "5")
    with page.expect_download() as waiting:
        page.click("#save")
    waiting.value.save_as(tmp_path / "marked.csv")
    with (tmp_path / "marked.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id_str"] for row in rows] == list(IDS[LABELS_B == 5])
    assert {(row["A"], row["B"]) for row in rows} == {("0", "5")}
