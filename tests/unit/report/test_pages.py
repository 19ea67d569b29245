"""The report's pages: what they say, that their links lead somewhere, and that nothing in them is taken for HTML."""

import base64
import csv
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from made_up import write_report
from PIL import Image

from rarezoo import tables
from rarezoo.errors import DataError, OutputError, StoreError
from rarezoo.escapes import unescape

pytestmark = pytest.mark.unit

EVIL = ['<script>alert("x")</script>', "../../é'&\"", "a,b;c\td", "{{ 7 * 7 }}"]
ANSWERS = ["bar_strong", "bar_no", "merging_merger", "merging_none"]
ABOUT = {
    "title": "mock <b>sky</b>",
    "survey": "mock",
    "checkpoint": "efficientnet_b0.test",
    "version": "0.0.test",
    "galaxies": 200,
    "settings": {"compress": {"option": "umap", "n_neighbors": 30}, "select": {"drop": []}, "seed": 0},
    "cuts": [{"cut": "`bar_no_fraction` >= 0.5", "dropped": 77, "undecided": 3}],
}


def search(*, classes=3, members=30, unassigned=30, truth=False, seed=0):
    """A made-up search: `classes` compact groups of `members` galaxies, the first with evil ids."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(-1, classes), [unassigned] + [members] * classes).astype(np.int32)
    ids = [f"g{row:04d}" for row in range(len(labels))]
    ids[unassigned : unassigned + len(EVIL)] = EVIL if classes else ids[:0]
    ids = ids[: len(labels)]
    positions = (labels[:, None] * 5 + random.normal(size=(len(labels), 2))).astype(np.float32)
    fractions = {
        tables.fraction_column(answer): np.where(labels == 0, 0.1 * (index + 1), 0.5).astype(np.float32)
        for index, answer in enumerate(ANSWERS)
    }
    rows = [
        {
            tables.CLASS_ID: class_id, tables.NODE: 1000 + class_id, tables.SIZE: members,
            tables.FRACTION: members / len(labels), tables.BIRTH: 1.0, tables.DEATH: 2.0 + class_id,
            tables.PERSISTENCE: float(np.log(2.0 + class_id)),
            tables.TOP_ANSWERS: ["bar_strong 0.61 (sample 0.12)"], tables.FLAGS: [],
            tables.EXEMPLARS: [ids[row] for row in np.flatnonzero(labels == class_id)[:24]],
        }
        for class_id in range(classes)
    ]  # fmt: skip
    tree = {
        tables.PARENT: [900, 900, *([901] * max(classes - 1, 0))][: classes + 1],
        tables.CHILD: [1000, 901, *(1001 + number for number in range(classes - 1))][: classes + 1],
        tables.LAMBDA: [1.0] * (classes + 1),
        tables.CHILD_SIZE: [members] * (classes + 1),
    }
    populations = np.where(labels == 1, "ring", "ordinary")
    return {
        "members": pa.table(
            {
                tables.ID: ids,
                tables.CLASS_ID: labels,
                tables.PROBABILITY: np.where(labels >= 0, random.random(len(labels)), 0).astype(np.float32),
                tables.OUTLIER_SCORE: random.random(len(labels)).astype(np.float32),
            }
        ),
        "classes": pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items()))),
        "tree": pa.table({name: pa.array(column) for name, column in tree.items()}),
        "map_2d": pa.table({tables.ID: ids, tables.POSITION: tables.vectors(positions)}),
        "predictions": pa.table({tables.ID: ids, **fractions}),
        "cutouts": lambda wanted: [np.full((20, 20, 3), len(galaxy_id), np.uint8) for galaxy_id in wanted],
        "about": ABOUT,
        "truth": pa.table({tables.ID: ids, tables.POPULATION: populations}) if truth else None,
    }


def changed(parts, **columns):
    """A search whose class table has other columns."""
    classes = parts["classes"]
    for name, values in columns.items():
        index = classes.column_names.index(name)
        classes = classes.set_column(index, name, pa.array(values, classes.schema.field(index).type))
    return {**parts, "classes": classes}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, path):
        super().__init__()
        self.folder, self.elements, self.words = path.parent, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, attribute):
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    def tags(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]

    def targets(self):
        styled = [url for style in self.all("style") for url in re.findall(r"url\(([^)]*)\)", style)]
        return [*self.all("href"), *self.all("src"), *styled]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), **search(truth=True)).parent


@pytest.fixture(params=["index.html", "atlas.html", "class-000.html", "class-002.html"])
def page(report, request):
    return Page(report / request.param)


def test_every_link_leads_to_a_file_of_the_report(page):
    ids = set(page.all("id"))
    for target in page.targets():
        if target.startswith("#"):
            assert target[1:] in ids, target
        elif not target.startswith("data:"):
            assert "//" not in target, f"{target} would need a network"
            assert (page.folder / unquote(target.split("#")[0])).is_file(), target


# Pages that a reader may open, and names in the code of others that nothing is loaded from.
LINKS = (
    "https://www.legacysurvey.org/viewer?", "https://simbad.cds.unistra.fr/simbad/sim-coo?",
    "https://aladin.cds.unistra.fr/AladinLite/?", "http://www.w3.org/2000/svg", "http://get.webgl.org",
    "https://www.npmjs.com/package/glsl-read-float",
)  # fmt: skip


def test_nothing_is_loaded_from_a_network(report):
    for asset in report.rglob("*"):
        if asset.suffix in (".html", ".css", ".js"):
            text = asset.read_text()
            assert not re.search(r"@import|\bfetch\(|\bimport |XMLHttpRequest", text), asset.name
            assert all(url.startswith(LINKS) for url in re.findall(r"https?://\S{,60}", text)), asset.name


def script(report, name):
    """What a script of the atlas leaves behind."""
    text = (report / "assets" / f"{name}.js").read_text()
    return json.loads(text.removeprefix(f'rarezooData["{name}"]=').removesuffix(";\n"))


def numbers(report, name, kind="<f4"):
    return np.frombuffer(base64.b64decode(script(report, name)), kind)


def drawn(report):
    return json.loads(
        (report / "assets" / "map.js").read_text().removeprefix("window.rarezooMap = ").removesuffix(";\n")
    )


def test_every_answer_and_column_can_colour_the_map(tmp_path):
    parts = search()
    ids = parts["members"]["id_str"]
    depth = np.arange(len(ids)) % 7 + 0.5
    bands = [None if row == 3 else f"band {row % 10}" for row in range(len(ids))]
    catalogue = {tables.ID: ids, tables.RA: depth, tables.DEC: -depth, "depth": depth, "band": bands, "name": ids}
    shuffled = np.random.default_rng(1).permutation(len(ids))
    write_report(tmp_path, **{**parts, "catalogue": pa.table(catalogue).take(shuffled)})
    columns = {column["label"]: column for column in drawn(tmp_path)["columns"]}
    assert list(columns) == [*ANSWERS, "membership", "outlier score", "ra", "dec", "depth", "band"]
    np.testing.assert_allclose(numbers(tmp_path, columns["depth"]["file"]), depth)
    assert (columns["depth"]["low"], columns["depth"]["high"]) == (0.5, 6.5)
    strong = parts["predictions"]["bar_strong_fraction"].to_numpy()
    np.testing.assert_array_equal(numbers(tmp_path, columns["bar_strong"]["file"]), strong)
    codes = numbers(tmp_path, columns["band"]["file"], "u1")
    names = columns["band"]["names"]
    assert len(names) == 9
    assert codes[3] == 255
    shown = [names[code] for code in codes if code != 255]
    assert all(name in (band, "other") for name, band in zip(shown, filter(None, bands), strict=True))
    assert set(shown) == set(names)
    np.testing.assert_allclose(numbers(tmp_path, "dec", "<f8"), -depth)
    assert sum(script(tmp_path, "sky")["counts"]) == len(ids)


def test_card_says_what_sets_a_class_apart(report):
    card = script(report, "card-000")
    (strong,) = [answer for answer in card["answers"] if answer["name"] == "bar_strong"]
    assert round(strong["effect"], 2) == -1
    assert strong["q"] < 1e-3
    assert card["significance"] is None
    assert [gallery["name"] for gallery in card["galleries"]] == ["exemplars", "random", "outskirts", "outside"]


def test_nearest_outside_are_no_members_and_near(report):
    parts = search()
    labels, positions = parts["members"]["class_id"].to_numpy(), tables.matrix(parts["map_2d"], tables.POSITION)
    shown = [galaxy["row"] for galaxy in script(report, "card-001")["galleries"][3]["galaxies"]]
    assert shown
    assert not np.any(labels[shown] == 1)
    away = np.linalg.norm(positions[:, None] - positions[None, labels == 1], axis=2).min(axis=1)
    np.testing.assert_array_equal(np.sort(away[shown]), np.sort(away[labels != 1])[: len(shown)])


def test_thumbnails_are_where_the_atlas_looks_for_them(tmp_path):
    parts = search()
    # Neighbours are far from alike.
    shades = np.arange(len(parts["members"])) * 97 % 251
    shade = dict(zip(parts["members"]["id_str"].to_pylist(), shades.tolist(), strict=True))
    cutouts = lambda wanted: [np.full((20, 20, 3), shade[galaxy_id], np.uint8) for galaxy_id in wanted]  # noqa: E731
    write_report(tmp_path, **{**parts, "cutouts": cutouts, "thumbnails": 100})
    slots, about = numbers(tmp_path, "slots", "<i4"), drawn(tmp_path)["thumbnails"]
    labels = parts["members"]["class_id"].to_numpy()
    assert np.all(slots[labels >= 0] >= 0), "members come first"
    assert sorted(slots[slots >= 0]) == list(range(100))
    with Image.open(tmp_path / "images" / "sheet-0000.jpg") as picture:
        sheet = np.asarray(picture)
    for row in np.flatnonzero(slots >= 0):
        down, across = (about["pixels"] * place + about["pixels"] // 2 for place in divmod(slots[row], about["side"]))
        assert abs(int(sheet[down, across, 0]) - shades[row]) < 3


def test_tree_of_the_atlas_has_the_classes_at_their_nodes(report):
    tree = script(report, "tree")
    of = dict(zip(tree["node"], tree["class"], strict=True))
    assert {node: class_id for node, class_id in of.items() if class_id >= 0} == {1000: 0, 1001: 1, 1002: 2}
    parents = dict(zip(tree["node"], tree["parent"], strict=True))
    assert parents == {900: -1, 1000: 900, 901: 900, 1001: 901, 1002: 901}


def test_ids_and_titles_are_never_taken_for_html(report):
    page = Page(report / "class-000.html")
    assert len(page.tags("script")) == 2
    assert all("style" in attributes for attributes in page.tags("b")), "the title's <b> became an element"
    assert EVIL[0] in " ".join(page.all("title"))
    assert set(EVIL) <= {title.split(" · ")[0] for title in page.all("title")}
    assert page.text.startswith("Class 0 · mock <b>sky</b>")


def test_file_names_do_not_come_from_ids(report):
    names = {path.name for path in report.rglob("*") if path.is_file()}
    assert all(re.fullmatch(r"[a-z0-9_-]+\.(html|css|js|jpg|csv|fits|txt)", name) for name in names), names


def test_every_page_can_be_read_aloud(page):
    assert page.tags("html")[0]["lang"] == "en"
    assert len(page.tags("h1")) == 1
    assert len(page.tags("main")) == 1
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    assert set(page.all("aria-labelledby")) <= set(ids)
    for tag, attributes in page.elements:
        if tag == "canvas":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if "cutout" in attributes.get("class", "").split():
            assert attributes["aria-label"].startswith("Galaxy ")


def test_index_says_what_was_searched_and_how(report):
    text = Page(report / "index.html").text
    assert "3 classes among 120 galaxies searched; 25 % of them are in no class" in text
    assert "`bar_no_fraction` >= 0.5" in text
    assert " 77 3 " in text
    assert "compress.n_neighbors 30" in text
    assert "select.drop none" in text
    assert "sorted by persistence, highest first, because significance was not measured" in text


@pytest.mark.parametrize(
    ("rates", "sentence"),
    [
        ([0.001, 0.04, 0.3], "2 of the classes are significantly more isolated than groups in null surveys"),
        ([0.001, 0.2, None], "1 of the classes is significantly more isolated"),
        ([0.06, 0.2, 1.0], "None of the classes are significantly more isolated"),
    ],
)
def test_index_says_first_how_many_classes_noise_does_not_show(tmp_path, rates, sentence):
    write_report(tmp_path, **{**changed(search(), **{tables.FALSE_DISCOVERY: rates}), "cutouts": None})
    assert sentence in Page(tmp_path / "index.html").text


def test_index_says_nothing_of_noise_that_was_not_asked(report):
    assert "null surveys" not in Page(report / "index.html").text


@pytest.mark.parametrize(("unassigned", "warned"), [(30, True), (1500, False)])
def test_index_warns_of_a_sample_cut_into_pieces(tmp_path, unassigned, warned):
    write_report(tmp_path, **{**search(unassigned=unassigned), "cutouts": None})
    assert ("pieces of the ordinary population" in Page(tmp_path / "index.html").text) is warned


def cards(folder):
    return [
        attributes["data-class"] for attributes in Page(folder / "index.html").tags("li") if "data-class" in attributes
    ]


def test_most_persistent_class_comes_first(report):
    assert cards(report) == ["2", "1", "0"]


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        ({tables.SIGNIFICANCE: [3.0, None, 9.0]}, ["2", "0", "1"]),
        ({tables.SIGNIFICANCE: [3.0, 8.0, float("nan")]}, ["1", "0", "2"]),
        ({tables.PERSISTENCE: [1.0, 1.0, 1.0]}, ["0", "1", "2"]),
        ({tables.PERSISTENCE: [1.0, float("inf"), 2.0], tables.FLAGS: [[], ["coincident"], []]}, ["2", "0", "1"]),
    ],
)
def test_classes_are_ranked(tmp_path, columns, order):
    write_report(tmp_path, **{**changed(search(), **columns), "cutouts": None})
    assert cards(tmp_path) == order
    measured = tables.SIGNIFICANCE in columns
    assert ("sorted by significance" in Page(tmp_path / "index.html").text) is measured


def test_what_the_telescope_may_explain_comes_last_with_its_reason(tmp_path):
    columns = {
        tables.CAUSE: ["clean", None, "systematics"],
        tables.CAUSE_REASON: ["nothing large in psf", None, "psf: median 2 against 1"],
        tables.BEYOND: [0.75, None, 0.0], tables.BEYOND_LOW: [0.5, None, 0.0], tables.BEYOND_HIGH: [0.9, None, 0.1],
        tables.BEYOND_VERDICT: ["beyond", None, "named by the votes"],
        tables.BEYOND_REASON: ["d′ 4.0", "too few", "d′ 3"],
    }  # fmt: skip
    write_report(tmp_path, **{**changed(search(), **columns), "cutouts": None})
    assert cards(tmp_path) == ["1", "0", "2"]
    index = Page(tmp_path / "index.html").text
    assert "Systematics: psf: median 2 against 1" in index
    assert "beyond the answers 75 % telescope clean" in index
    clean, untested, flagged = (Page(tmp_path / f"class-00{class_id}.html").text for class_id in range(3))
    assert "Clean: nothing large in psf." in clean
    assert "Beyond the answers: beyond; 50 % to 90 % (95 % interval); d′ 4.0." in clean
    assert "beyond the answers not measured telescope not tested" in untested
    assert "Beyond the answers: too few." in untested
    assert "telescope systematics" in flagged


def test_class_page_says_what_was_not_measured(report):
    text = Page(report / "class-002.html").text
    names = ("significance", "chance in noise", "false discovery", "isolation", "stability")
    assert " ".join(f"{name} not measured" for name in names) in text
    assert "persistence 1.39" in text
    assert "30 galaxies, 25 % of the 120 searched. Number 1 of 3 by persistence." in text


NOISE = {
    tables.ISOLATION: [0.5, 0.9, 0.31], tables.SIGNIFICANCE: [4.25, 9.0, None], tables.P_VALUE: [0.02, 1e-9, 0.048],
    tables.FALSE_DISCOVERY: [0.012, 1e-9, 0.05],
}  # fmt: skip


def test_pages_say_how_a_class_compares_with_noise(tmp_path):
    write_report(tmp_path, **{**changed(search(), **NOISE), "cutouts": None})
    index = Page(tmp_path / "index.html").text
    assert "significance 4.25 chance in noise 2.0 % false discovery 1.2 %" in index
    assert "significance 9 chance in noise < 0.1 % false discovery < 0.1 %" in index
    assert "compared with groups of the same size in null surveys" in index
    first, last = (Page(tmp_path / f"class-00{class_id}.html").text for class_id in (0, 2))
    assert "significance 4.25 chance in noise 2.0 % false discovery 1.2 % isolation 50 %" in first
    assert "too few groups" not in first
    assert "significance not measured chance in noise 4.8 % false discovery 5.0 %" in last
    assert "too few groups of this size to measure a scatter, so there is no significance" in last
    card = script(tmp_path, "card-000")
    assert [card[key] for key in ("significance", "p_value", "false_discovery")] == [4.25, 0.02, 0.012]


def test_what_was_not_held_against_noise_does_not_explain_how(report):
    text = Page(report / "index.html").text
    assert "false discovery" not in text
    assert "null survey" not in text


STABLE, SIGNIFICANT, CANDIDATE = "significant and stable", "significant", "candidate"


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The report of a search of six classes with grades: class 2 has a warning, class 5 was merged by a reader."""
    columns = {
        tables.GRADE: [CANDIDATE, STABLE, STABLE, SIGNIFICANT, STABLE, None], tables.RANK: [5, 2, 1, 4, 3, 6],
        tables.FALSE_DISCOVERY: [0.4, 0.01, 0.01, 0.01, 0.01, None],
        tables.FLAGS: [[], [], ["coincident"], [], [], []],
    }  # fmt: skip
    parts = changed(search(classes=6, truth=True), **columns)
    ids = parts["members"]["id_str"].to_pylist()
    rows = [
        {"group": number, "node": 900, "size": 90 - number, "fraction": 0.25, "significance": 8.5, "p_value": 0.001,
         "top_answers": ["bar_no 0.9 (sample 0.5)"], "exemplars": ids[:12]}
        for number in range(2)
    ]  # fmt: skip
    main_groups = pa.Table.from_pylist(rows, pa.schema(list(tables.MAIN_GROUPS.columns.items())))
    return write_report(tmp_path_factory.mktemp("graded"), **parts, main_groups=main_groups).parent


def test_classes_are_listed_by_grade_then_doubt_then_rank(graded):
    assert cards(graded) == ["1", "4", "2", "3", "0", "5"]
    assert [entry["id"] for entry in drawn(graded)["classes"]] == [1, 4, 2, 3, 0, 5]
    links = [
        Page(graded / f"class-00{class_id}.html").text.split(" all classes")[0].split("\u2190 ")[-1]
        for class_id in (4, 2, 3, 0, 5)
    ]
    assert links == ["class 1", "class 4", "class 2", "class 3", "class 0"]


def test_index_counts_classes_by_grade_and_says_what_a_grade_means(graded):
    page = Page(graded / "index.html")
    assert "3 significant and stable 1 significant 1 candidate Only a significant and stable class" in page.text
    assert "sorted by grade, the strongest evidence first" in page.text
    titles = {"Significant and stable": 3, "Significant": 1, "Candidates": 1, "Without a grade": 1}
    headings = [page.text.index(f"{title} {number}") for title, number in titles.items()]
    assert headings == sorted(headings)
    badges = [attributes for attributes in page.tags("span") if "grade" in attributes.get("class", "").split()]
    assert len(badges) == 3 + 5
    assert all(badge["title"] for badge in badges)
    light = [attributes["data-class"] for attributes in page.tags("li") if "candidate" in attributes.get("class", "")]
    assert light == ["0"]


def test_page_of_a_candidate_begins_with_what_a_candidate_is(graded):
    text = Page(graded / "class-000.html").text
    assert "by grade. A candidate stands apart from other galaxies" in text
    assert "is no discovery" in text.split("In numbers")[0]
    assert all(name in text for name in ("Exemplars", "Random draw", "Outskirts", "Predicted answers of volunteers"))
    assert "candidate" not in Page(graded / "class-001.html").text.split("In numbers")[0]
    assert script(graded, "card-000")["grade"] == CANDIDATE


def test_main_groups_are_listed_apart(graded, report):
    page = Page(graded / "index.html")
    assert "Main groups: broad structure, not rare" in page.text
    assert "Main group 0 galaxies 90 share 25 % significance 8.5 chance in noise 0.1 %" in page.text
    assert {path.name for path in (graded / "images").glob("main-group-*")} == {
        "main-group-000-exemplars.jpg", "main-group-001-exemplars.jpg",
    }  # fmt: skip
    assert "Main group" not in Page(report / "index.html").text


@pytest.mark.parametrize("name", ["index.html", "atlas.html", "class-000.html", "class-005.html"])
def test_links_of_graded_pages_lead_somewhere_and_ids_are_unique(graded, name):
    page = Page(graded / name)
    test_every_link_leads_to_a_file_of_the_report(page)
    test_every_page_can_be_read_aloud(page)


def test_truth_says_what_was_found_and_which_grade_it_has(graded):
    text = Page(graded / "index.html").text
    assert "1 of 1 planted populations were found: ring." in text
    assert "ring 30 class 1 significant and stable 100 % 100 % yes" in text


def test_a_population_of_a_candidate_is_not_found(tmp_path):
    columns = {tables.GRADE: [STABLE, CANDIDATE, STABLE], tables.RANK: [1, 3, 2]}
    write_report(tmp_path, **{**changed(search(truth=True), **columns), "cutouts": None})
    text = Page(tmp_path / "index.html").text
    assert "0 of 1 planted populations were found. One was missed: ring is listed as a candidate" in text
    assert "ring 30 class 1 candidate 100 % 100 % as a candidate" in text


def test_downloads_know_the_grade(graded):
    with (graded / "tables" / "members.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["class_id"], row["grade"], row["rank"]) for row in rows} == {
        ("0", CANDIDATE, "5"), ("1", STABLE, "2"), ("2", STABLE, "1"), ("3", SIGNIFICANT, "4"), ("4", STABLE, "3"),
        ("5", "", "6"),
    }  # fmt: skip


def test_ranks_without_grades_order_the_classes(tmp_path):
    write_report(tmp_path, **{**changed(search(), **{tables.RANK: [2, 1, 3]}), "cutouts": None})
    assert cards(tmp_path) == ["1", "0", "2"]
    assert "candidate" not in Page(tmp_path / "index.html").text


def test_classes_of_one_group_name_each_other(tmp_path):
    """Node 901 holds classes 1 and 2; class 0 hangs elsewhere."""
    parts = changed(search(), **{tables.GROUP: [None, 901, 901]})
    tree = parts["tree"].set_column(3, tables.CHILD_SIZE, pa.array([30, 812, 30, 30]))
    write_report(tmp_path, **{**parts, "tree": tree, "cutouts": None})
    pages = [Page(tmp_path / f"class-00{class_id}.html") for class_id in range(3)]
    assert "One of 2 classes in group 901 (812 galaxies). The others: class 2 ." in pages[1].text
    assert "One of 2 classes in group 901 (812 galaxies). The others: class 1 ." in pages[2].text
    assert "classes in group" not in pages[0].text
    assert Page(tmp_path / "index.html").text.count("classes in group 901 (812 galaxies)") == 2
    assert script(tmp_path, "card-001")["group"] == {"node": 901, "size": 812, "classes": [1, 2]}
    assert {entry["id"]: entry["group"] for entry in drawn(tmp_path)["classes"]} == {0: None, 1: 901, 2: 901}


def test_a_class_left_alone_in_its_group_is_in_none(tmp_path):
    """Its sister was dropped or merged by hand."""
    parts = changed(search(), **{tables.GROUP: [None, None, 901], tables.NODE: [1000, None, 1002]})
    write_report(tmp_path, **{**parts, "cutouts": None})
    assert "classes in group" not in Page(tmp_path / "class-002.html").text


@pytest.mark.parametrize(
    ("selection", "said", "tip"),
    [("isolated", "is significantly more isolated than the groups in null surveys", "A smaller clusterer.min_cluster"),
     ("leaf", "found no group of galaxies that is denser than its surroundings", "A smaller clusterer.min_samples")],
)  # fmt: skip
def test_no_class_is_said_in_the_words_of_the_selection(tmp_path, selection, said, tip):
    about = {**ABOUT, "settings": {"clusterer": {"selection": selection}}}
    write_report(tmp_path, **{**search(classes=0, unassigned=60), "cutouts": None, "about": about})
    text = Page(tmp_path / "index.html").text
    assert said in text
    assert tip in text


def thumbnails(path, section):
    """Ids in one section of a class page, in order."""
    html = path.read_text().split(f'id="{section}"', 1)[1].split("</section>", 1)[0]
    return [json.loads(f'"{text}"') for text in re.findall(r'aria-label="Galaxy ([^",]+), membership', html)]


def test_galleries_show_whom_they_promise(report):
    members = search()["members"].to_pandas().query("class_id == 2")
    page = report / "class-002.html"
    assert thumbnails(page, "exemplars") == members["id_str"].to_list()[:24]
    lowest = members.sort_values("probability")["id_str"].to_list()[:24]
    assert thumbnails(page, "outskirts") == lowest
    drawn = thumbnails(page, "random")
    assert len(set(drawn)) == 24
    assert set(drawn) < set(members["id_str"])
    assert drawn != thumbnails(page, "exemplars")


def test_random_draw_depends_on_the_seed_and_not_on_the_order_of_rows(tmp_path):
    parts = {**search(), "cutouts": None}
    backwards = np.arange(parts["members"].num_rows)[::-1]
    turned = {**parts, **{name: parts[name].take(backwards) for name in ("members", "map_2d")}}
    runs = {"a": (parts, 0), "b": (turned, 0), "c": (parts, 1)}
    drawn = {}
    for name, (tables_, seed) in runs.items():
        write_report(tmp_path / name, **tables_, seed=seed)
        drawn[name] = thumbnails(tmp_path / name / "class-002.html", "random")
    assert drawn["a"] == drawn["b"] != drawn["c"]


def test_tables_in_another_order_are_joined_by_id(tmp_path):
    parts = {**search(), "cutouts": None}
    shuffled = np.random.default_rng(0).permutation(parts["members"].num_rows)
    other = {**parts, **{name: parts[name].take(shuffled) for name in ("map_2d", "predictions")}}
    write_report(tmp_path / "a", **parts)
    write_report(tmp_path / "b", **other)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_search_gives_the_same_bytes(report, tmp_path):
    write_report(tmp_path, **search(truth=True))
    assert contents(tmp_path) == contents(report)


def test_map_holds_every_point(report):
    parts = search()
    script = (report / "assets" / "map.js").read_text()
    content = json.loads(script.removeprefix("window.rarezooMap = ").removesuffix(";\n"))
    positions = np.frombuffer(base64.b64decode(content["positions"]), "<f4").reshape(-1, 2)
    labels = np.frombuffer(base64.b64decode(content["labels"]), "<u2").astype(int)
    np.testing.assert_array_equal(positions, tables.matrix(parts["map_2d"], tables.POSITION))
    np.testing.assert_array_equal(np.where(labels == 65535, -1, labels), parts["members"]["class_id"].to_numpy())
    assert content["points"] == 120
    middle = np.median(positions[labels == 2], axis=0)
    drawn = next(entry for entry in content["classes"] if entry["id"] == 2)
    np.testing.assert_allclose([drawn["x"], drawn["y"]], middle, atol=1e-6)
    assert (report / drawn["page"]).is_file()


def test_thumbnails_know_their_place_on_the_map(report):
    ids = search()["members"]["id_str"].to_pylist()
    buttons = [attributes for attributes in Page(report / "class-000.html").tags("button") if "data-row" in attributes]
    assert len(buttons) == 96
    assert all(ids[int(button["data-row"])] == button["title"].split(" · ")[0] for button in buttons)


@pytest.mark.parametrize(("name", "expected"), [("class-000", 0), ("class-002", 2), ("members", None)])
def test_downloads_hold_the_members(report, name, expected):
    members = search()["members"].to_pandas()
    members = members[members["class_id"] >= 0] if expected is None else members[members["class_id"] == expected]
    with (report / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["id_str"] for row in rows) == sorted(members["id_str"])
    assert {int(row["class_id"]) for row in rows} == set(members["class_id"])
    fits = Table.read(report / "tables" / f"{name}.fits")
    assert fits.colnames == list(rows[0])
    assert [row["id_str"] for row in rows] == [unescape(text) for text in fits["id_str"].astype(str)]
    np.testing.assert_allclose(fits["probability"], [float(row["probability"]) for row in rows])


def test_answers_that_differ_most_come_first(report):
    page = Page(report / "class-000.html")
    captions = re.findall(r"<caption>(.*?)</caption>", (report / "class-000.html").read_text())
    assert captions == ["bar", "merging"]
    assert "strong 0.10 0.40 no 0.20 0.43 merging" in page.text


def test_answers_without_a_number_are_left_out(tmp_path):
    parts = search()
    nothing = pa.array([float("nan")] * parts["predictions"].num_rows, pa.float32())
    predictions = parts["predictions"].set_column(1, "bar_strong_fraction", nothing)
    write_report(tmp_path, **{**parts, "predictions": predictions, "cutouts": None})
    assert "strong 0." not in Page(tmp_path / "class-000.html").text.split("answer")[1]


def test_relatives_share_the_deepest_branch(report):
    assert "Closest in the tree of HDBSCAN: class 2 ." in Page(report / "class-001.html").text
    assert "class 1 , class 2 ." in Page(report / "class-000.html").text


def test_mock_truth_is_marked_as_such(report):
    index, class_page = Page(report / "index.html").text, Page(report / "class-001.html").text
    assert "This sky was simulated" in index
    assert "ring 30 class 1 100 % 100 % yes" in index
    assert "ring 30 100 % 100 %" in class_page


def test_no_truth_no_word_of_it(tmp_path):
    write_report(tmp_path, **{**search(), "cutouts": None})
    assert "truth" not in Page(tmp_path / "index.html").text + Page(tmp_path / "class-001.html").text


def test_without_images_the_pages_say_so_and_list_ids(tmp_path):
    write_report(tmp_path, **{**search(), "cutouts": None})
    assert not list(tmp_path.glob("images/*"))
    for name in ("index.html", "class-000.html"):
        assert "written without images" in Page(tmp_path / name).text
    assert EVIL[0] in Page(tmp_path / "class-000.html").text


def test_no_class_at_all_says_what_to_try(tmp_path):
    page = Page(write_report(tmp_path, **search(classes=0)))
    assert "No class was found among 30 galaxies searched" in page.text
    assert "clusterer.min_samples" in page.text
    assert not list(tmp_path.glob("class-*"))


def test_small_class_is_shown_whole(tmp_path):
    write_report(tmp_path, **search(members=6))
    assert "All 6 members, in random order" in Page(tmp_path / "class-001.html").text


def test_second_report_leaves_no_page_of_a_class_that_is_gone(tmp_path):
    write_report(tmp_path, **search(classes=3))
    (tmp_path / "notes.txt").write_text("mine")
    write_report(tmp_path, **search(classes=1))
    assert not list(tmp_path.rglob("class-002*"))
    assert not list(tmp_path.rglob("class-001*"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_about_may_know_little(tmp_path):
    text = Page(write_report(tmp_path, **{**search(), "about": {}, "cutouts": None})).text
    assert "3 classes among 120 galaxies" in text
    assert "No galaxies were cut" in text


def test_galaxy_missing_from_the_map_is_named(tmp_path):
    parts = search()
    with pytest.raises(StoreError, match=r"the map.*g0000") as problem:
        write_report(tmp_path, **{**parts, "map_2d": parts["map_2d"].slice(1)})
    assert problem.value.ids == ("g0000",)


def test_map_of_three_dimensions_is_refused(tmp_path):
    parts = search()
    deep = pa.table({tables.ID: parts["members"]["id_str"], tables.POSITION: tables.vectors(np.ones((120, 3), "f4"))})
    with pytest.raises(StoreError, match=r"two dimensions.*drawing.n_components=2"):
        write_report(tmp_path, **{**parts, "map_2d": deep})


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "report").write_text("")
    with pytest.raises(OutputError, match="out=DIR"):
        write_report(tmp_path / "report", **search())


def test_an_image_that_was_damaged_after_embedding_is_a_crossed_square(tmp_path, caplog):
    parts = search()
    whole, damaged = parts["cutouts"], parts["members"][tables.ID].to_pylist()[3]

    def cutouts(ids):
        if damaged in ids:
            raise DataError("unreadable image", value="a.png", fix="Repair it.", ids=[damaged])
        return whole(ids)

    write_report(tmp_path, **{**parts, "cutouts": cutouts, "thumbnails": 100})
    assert (tmp_path / "images" / "sheet-0000.jpg").exists()
    assert caplog.text.count(damaged) == 1
