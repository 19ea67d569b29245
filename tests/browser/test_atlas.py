"""The pages in a real browser: headless Chromium opens them from disk and does what a reader does."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from made_up import survey_on_disk, write_report
from PIL import Image

from rarezoo import tables
from rarezoo.report import pages
from rarezoo.searches.decisions import Decision, Decisions, search_key
from rarezoo.searches.result import Search

pytestmark = pytest.mark.browser

CLASSES, MEMBERS, ALONE = 4, 40, 240
# Of every made-up cutout; nothing else on a page is like it.
PURPLE = (200, 30, 160)
LABELS = np.repeat(np.arange(-1, CLASSES), [ALONE] + [MEMBERS] * CLASSES).astype(np.int32)
IDS = [f"g{row:04d} é<b>" if row % 50 == 7 else f"g{row:04d}" for row in range(len(LABELS))]
CENTRES = np.array([[0, 0], [8, 8], [-8, 8], [8, -8], [-8, -8]])


def search():
    """Four classes in the corners of a map, ordinary galaxies in its middle, everywhere on the sky."""
    random = np.random.default_rng(0)
    positions = CENTRES[LABELS + 1] + random.normal(size=(len(LABELS), 2)) * np.where(LABELS < 0, 1.5, 0.2)[:, None]
    rows = [
        {
            tables.CLASS_ID: number, tables.NODE: 1001 + number, tables.SIZE: MEMBERS,
            tables.FRACTION: MEMBERS / len(LABELS),
            tables.BIRTH: 1.0 + number, tables.DEATH: 8.0, tables.PERSISTENCE: float(np.log(8 / (1 + number))),
            tables.TOP_ANSWERS: [], tables.FLAGS: ["coincident"] if number == 3 else [],
            tables.EXEMPLARS: [IDS[row] for row in np.flatnonzero(number == LABELS)[:24]],
        }
        for number in range(CLASSES)
    ]  # fmt: skip
    tree = {
        tables.PARENT: [900, 900, 910, 910, 920, 920], tables.CHILD: [1001, 910, 1002, 920, 1003, 1004],
        tables.LAMBDA: [1.0, 1.0, 2.0, 2.0, 3.0, 3.0], tables.CHILD_SIZE: [40, 160, 40, 100, 40, 40],
    }  # fmt: skip
    strengths = random.random((2, len(LABELS))).astype(np.float32)
    return {
        "members": pa.table(
            {
                tables.ID: IDS,
                tables.CLASS_ID: LABELS,
                tables.PROBABILITY: strengths[0],
                tables.OUTLIER_SCORE: strengths[1],
            }
        ),
        "classes": pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items()))),
        "tree": pa.table(tree),
        "map_2d": pa.table({tables.ID: IDS, tables.POSITION: tables.vectors(positions.astype(np.float32))}),
        "predictions": pa.table({tables.ID: IDS, "bar_strong_fraction": (LABELS == 1).astype(np.float32)}),
        "catalogue": pa.table(
            {
                tables.ID: IDS,
                tables.RA: np.linspace(0, 359, len(LABELS)),
                tables.DEC: np.linspace(-80, 80, len(LABELS)),
                "band": [f"band {row % 3}" for row in range(len(LABELS))],
            }
        ),
        "cutouts": lambda wanted: [np.full((32, 32, 3), PURPLE, np.uint8) for _ in wanted],
        "about": {"title": "mock <b>sky</b>"},
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), **search()).parent


@pytest.fixture
def visit(tab, report):
    """Opens a page of the report and waits until its map is drawn."""

    def opened(name="atlas.html", **settings):
        page = tab(report, name, **settings)
        page.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
        page.evaluate("rarezooAtlas.drawn()")
        return page

    return opened


def screen(page, row):
    """Where a galaxy is drawn, px of the window."""
    at = "([row]) => { const { view, p } = rarezooAtlas; return view.screen(p.xy[2 * row], p.xy[2 * row + 1]); }"
    x, y = page.evaluate(at, [int(row)])
    box = page.locator(".map").bounding_box()
    return box["x"] + x, box["y"] + y


def is_drawn(page, row, colour):
    """Whether a pixel of (nearly) this colour lies within 4 px of where a galaxy is drawn."""
    x, y = screen(page, row)
    picture = page.screenshot(clip={"x": round(x) - 4, "y": round(y) - 4, "width": 9, "height": 9})
    seen = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    return bool((np.abs(seen - colour).max(axis=2) < 30).any())


def middle(value):
    """Row of a class's member nearest to its middle."""
    positions = tables.matrix(search()["map_2d"], tables.POSITION)
    return int(np.argmin(np.linalg.norm(positions - CENTRES[value + 1], axis=1)))


@pytest.mark.parametrize("name", ["index.html", "class-001.html", "atlas.html", "atlas.html#class-2"])
def test_pages_open_without_a_problem_and_fit(visit, name, view):
    page = visit(name, **view)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("name", ["index.html", "class-001.html", "atlas.html#class-3"])
def test_axe_finds_no_serious_fault(visit, faults, name, scheme):
    page = visit(name, color_scheme=scheme)
    if name.startswith("atlas"):
        page.wait_for_selector("#card .sheet")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        page.evaluate("rarezooAtlas.choose(300)")
    assert not faults(page)


@pytest.mark.parametrize("painter", ["pixels", "library"])
def test_both_painters_draw_classes_in_their_colours_at_their_places(visit, painter):
    page = visit(f"atlas.html?painter={painter}")
    assert page.evaluate("rarezooAtlas.painter") == painter
    page.wait_for_timeout(500)
    wanted = {0: (0, 114, 178), 1: (213, 94, 0), 2: (0, 158, 115), 3: (204, 121, 167)}
    assert all(is_drawn(page, middle(class_id), rgb) for class_id, rgb in wanted.items())
    assert not is_drawn(page, middle(0), wanted[1])


def test_click_on_a_class_opens_it(visit):
    page = visit()
    page.click("#tab-decisions")
    page.mouse.click(*screen(page, middle(0)))
    page.wait_for_selector("#card .sheet")
    assert page.inner_text("#class-title") == "Class 0"
    titles = page.eval_on_selector_all("#card details > summary", "all => all.map((one) => one.textContent)")
    assert titles[:4] == ["Exemplars", "Random draw", "Outskirts", "Nearest outside"]
    assert page.locator("#card .sheet").nth(0).locator("button").count() == 24
    page.locator("#card .sheet button").first.click()
    page.wait_for_selector("#galaxy a")
    row = int(page.locator("#card .sheet button").first.get_attribute("data-row"))
    links = page.eval_on_selector_all("#galaxy .links a", "all => all.map((one) => one.href)")
    ra, dec = np.linspace(0, 359, len(LABELS))[row], np.linspace(-80, 80, len(LABELS))[row]
    assert len(links) == 3
    assert all(f"{ra:.6f}" in link and f"{dec:.6f}" in link for link in links)


def test_branch_leads_to_other_classes(visit):
    page = visit("atlas.html#class-3")
    page.wait_for_selector("#branch-of svg")
    page.locator('#branch-of g[aria-label^="class 2,"]').click()
    page.wait_for_function("document.getElementById('class-title').textContent === 'Class 2'")
    own = page.locator("#branch-of g.own")
    assert own.get_attribute("aria-label").startswith("class 2,")


def test_lasso_selects_what_lies_inside_and_saves_it(visit, tmp_path):
    page = visit()
    page.click("[data-tool=lasso]")
    x, y = screen(page, middle(1))
    page.mouse.move(x - 38, y - 38)
    page.mouse.down()
    for across, down in ((38, -38), (38, 38), (-38, 38)):
        page.mouse.move(x + across, y + down, steps=5)
    page.mouse.up()
    page.wait_for_selector("#save-selection")
    assert page.inner_text("#selected [role=status]") == "40 galaxies; 0 in no class"
    assert page.locator("#selected .list li").count() == 40
    with page.expect_download() as waiting:
        page.click("#save-selection")
    waiting.value.save_as(tmp_path / "selection.csv")
    with (tmp_path / "selection.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["id_str"] for row in rows} == {IDS[row] for row in np.flatnonzero(LABELS == 1)}
    assert {row["class_id"] for row in rows} == {"1"}
    first = IDS.index(rows[0]["id_str"])
    assert float(rows[0]["dec"]) == pytest.approx(np.linspace(-80, 80, len(LABELS))[first])


def test_decisions_by_keyboard_are_saved_kept_and_read_back(visit, tmp_path):
    page = visit()
    page.keyboard.press("]")
    page.keyboard.press("k")
    page.keyboard.press("n")
    page.keyboard.type("red d spirals")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    page.keyboard.press("d")
    page.keyboard.press("]")
    page.select_option("#merge", "0")
    page.locator("#merge").blur()
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    waiting.value.save_as(tmp_path / "decisions.json")
    page.click("#tab-decisions")
    with page.expect_download() as waiting:
        page.click("#save-csv")
    waiting.value.save_as(tmp_path / "decisions.csv")
    decisions = Decisions.read(tmp_path / "decisions.json")
    expected = (Decision(0, "keep", "red d spirals"), Decision(1, "drop"), Decision(2, "merge", merge_into=0))
    assert decisions == Decisions(search_key(IDS, LABELS), expected) == Decisions.read(tmp_path / "decisions.csv")
    page.reload()
    page.click("#tab-decisions")
    assert page.inner_text("#tally") == "3 of 4 classes have a decision: 1 keep, 1 drop, 1 merge."
    page.keyboard.press("u")
    changed = {
        **json.loads((tmp_path / "decisions.json").read_text()),
        "classes": [{"class_id": 3, "decision": "drop"}],
    }
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    page.set_input_files("#load", tmp_path / "changed.json")
    page.wait_for_function("document.getElementById('tally').textContent.startsWith('1 of 4')")
    (tmp_path / "changed.json").write_text(json.dumps({**changed, "search": "another"}))
    page.set_input_files("#load", tmp_path / "changed.json")
    page.wait_for_function("document.getElementById('message').textContent.includes('another search')")
    assert page.inner_text("#tally").startswith("1 of 4")


def test_classes_are_not_merged_in_a_circle(visit):
    page = visit("atlas.html#class-0")
    page.select_option("#merge", "1")
    page.keyboard.press("Escape")
    page.locator("#merge").blur()
    page.keyboard.press("]")
    page.select_option("#merge", "0")
    assert "into itself" in page.inner_text("#message")
    assert page.input_value("#merge") == ""


RA, DEC = np.linspace(0, 359, len(LABELS)), np.linspace(-80, 80, len(LABELS))


def sexagesimal(degrees):
    whole = int(degrees)
    minutes = int(60 * (degrees - whole))
    return f"{whole:02d}:{minutes:02d}:{3600 * (degrees - whole) - 60 * minutes:.3f}"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (IDS[7], IDS[7]),
        ("g0123", "g0123"),
        (f"{RA[321]:.5f} {DEC[321]:+.5f}", IDS[321]),
        (f"{RA[30]:.5f}, {DEC[30]:.5f}", IDS[30]),
        (f"{sexagesimal(RA[30] / 15)} -{sexagesimal(-DEC[30])}", IDS[30]),
        ("12h00m00s +89d00m00s", "No galaxy of this search is within one arcminute."),
        ("nobody", "There is no such id, coordinate or class."),
        ("class 3", "Class 3"),
    ],
)
def test_search_finds_galaxies_and_classes(visit, wanted, message):
    page = visit()
    page.fill("#wanted", wanted)
    page.keyboard.press("Enter")
    page.wait_for_function(
        """wanted => ['galaxy', 'message', 'class-title'].map((id) => document.getElementById(id).textContent)
        .some((text) => text.includes(wanted))""",
        arg=message,
    )


def test_map_takes_the_colours_of_an_answer_and_a_column(visit):
    page = visit()
    page.select_option("#colour", label="bar_strong")
    page.wait_for_selector("#legend .ramp")
    page.wait_for_timeout(300)
    least, most = (0, 34, 78), (217, 194, 95)
    assert is_drawn(page, middle(1), most)
    assert not is_drawn(page, middle(1), least)
    assert is_drawn(page, middle(2), least)
    page.select_option("#colour", label="band")
    page.wait_for_function("document.querySelectorAll('#legend i').length === 3")
    page.select_option("#colour", label="class")
    page.wait_for_function("document.getElementById('legend').hidden")


def test_zoomed_in_galaxies_are_images(visit):
    page = visit()
    row = middle(3)
    assert not is_drawn(page, row, PURPLE)
    page.mouse.move(*screen(page, row))
    for _ in range(8):
        page.mouse.wheel(0, -120)
    page.wait_for_timeout(500)
    assert is_drawn(page, row, PURPLE)


def test_report_pages_share_the_map(visit):
    page = visit("index.html")
    page.locator(".card").first.hover()
    page.locator(".map").scroll_into_view_if_needed()
    page.mouse.click(*screen(page, middle(1)))
    page.wait_for_url("**/class-001.html")


def test_images_can_be_stretched(visit):
    page = visit("atlas.html#class-1")
    page.wait_for_selector("#card .sheet")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.select_option("#curve", "asinh")
    assert page.evaluate("getComputedStyle(document.querySelector('#card .cutout')).filter").startswith("url")
    curve = page.locator("#stretch feFuncR").get_attribute("tableValues").split()
    assert float(curve[8]) == pytest.approx(np.arcsinh(10 / 8) / np.arcsinh(10), abs=1e-3)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The report of the same search with grades; class 1 is a candidate, class 3 is to be looked at first."""
    parts = search()
    classes = parts["classes"]
    grades = ["significant", "candidate", "significant and stable", "significant and stable"]
    for name, values in ((tables.GRADE, grades), (tables.RANK, [3, 4, 2, 1]), (tables.FLAGS, [[]] * 4)):
        kind = tables.CLASSES.columns[name]
        classes = classes.set_column(classes.column_names.index(name), name, pa.array(values, kind))
    return write_report(tmp_path_factory.mktemp("graded"), **{**parts, "classes": classes}).parent


@pytest.fixture
def visit_graded(tab, graded):
    """Opens a page of the report with grades and waits until its map is drawn."""

    def opened(name="atlas.html", **settings):
        page = tab(graded, name, **settings)
        page.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
        page.evaluate("rarezooAtlas.drawn()")
        return page

    return opened


LISTED = "#class-picker option:not([value=''])"


def listed(page):
    return page.eval_on_selector_all(LISTED, "all => all.map((one) => Number(one.value))")


def test_classes_are_listed_by_grade_and_rank(visit_graded):
    page = visit_graded()
    assert listed(page) == [3, 2, 0, 1]
    groups = page.eval_on_selector_all("#class-picker optgroup", "all => all.map((one) => one.label)")
    assert groups == ["significant and stable", "significant", "candidate"]
    page.keyboard.press("]")
    page.wait_for_selector("#card .grade")
    assert page.inner_text("#class-title") == "Class 3"
    assert page.inner_text("#class-place") == "number 1 of 4 by grade: significant and stable"
    assert page.inner_text("#card .grade") == "significant and stable"


def test_candidates_can_be_hidden(visit_graded):
    page = visit_graded("atlas.html?painter=pixels#class-1")
    page.wait_for_selector("#card .grade.candidate")
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    assert is_drawn(page, middle(1), (213, 94, 0))
    page.uncheck("#candidates")
    page.wait_for_timeout(300)
    assert listed(page) == [3, 2, 0]
    assert not is_drawn(page, middle(1), (213, 94, 0))
    assert is_drawn(page, middle(0), (0, 114, 178))
    assert page.inner_text("#class-title") == "No class is open"
    assert page.locator("#card .sheet").count() == 0
    for class_id in (3, 2, 0, 3):
        page.keyboard.press("]")
        page.wait_for_function(
            "id => document.getElementById('class-title').textContent === `Class ${id}`", arg=class_id
        )
    page.mouse.move(*screen(page, middle(1)))
    page.wait_for_function("document.querySelector('.map .tip').textContent === 'in a hidden candidate'")
    page.fill("#wanted", "class 1")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('class-title').textContent === 'Class 1'")
    assert page.is_checked("#candidates"), "a candidate that is opened is shown"
    assert listed(page) == [3, 2, 0, 1]


def test_there_is_nothing_to_hide_without_candidates(visit):
    assert visit().is_hidden("#hiding")


@pytest.mark.parametrize("name", ["index.html", "class-001.html", "atlas.html#class-1"])
def test_axe_finds_no_serious_fault_in_grades(visit_graded, faults, name, scheme):
    page = visit_graded(name, color_scheme=scheme)
    if name.startswith("atlas"):
        page.wait_for_selector("#card .grade")
    assert not faults(page)


@pytest.mark.parametrize("name", ["index.html", "class-001.html", "atlas.html#class-1"])
def test_graded_pages_fit(visit_graded, name, view):
    page = visit_graded(name, **view)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_galaxies_most_like_one_are_shown_on_request(tab, tmp_path):
    search = Search.open(survey_on_disk(tmp_path))
    report = pages.write_report(search, tmp_path / "report", images=True, survey=True).parent
    page = tab(report, "atlas.html")
    page.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
    page.evaluate("rarezooAtlas.choose(20)")
    page.click("#galaxy button.alike")
    page.wait_for_selector("#galaxy .sheet")
    shown = page.eval_on_selector_all("#galaxy .sheet button", "all => all.map((button) => Number(button.dataset.row))")
    vectors = search.store.embeddings() - search.store.embeddings().mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.delete(vectors @ vectors[20], 20)
    expected = np.delete(np.arange(len(vectors)), 20)[np.argsort(-cosines)][:12]
    assert [search.store.ids[row] for row in expected] == [
        search.table("members")["id_str"].to_pylist()[row] for row in shown
    ]
    page.locator("#galaxy .sheet button").first.click()
    page.wait_for_function(
        f"document.querySelector('#galaxy h2').textContent === {json.dumps(str(search.store.ids[expected[0]]))}"
    )
