"""The pages that compare searches: what they say of classes of which it is known who can see them."""

import base64
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.errors import ConfigError, OutputError, StoreError
from rarezoo.searches.compare import CompareRun

pytestmark = pytest.mark.unit

EVIL = ["</script><b>x", "é'&\"", "a,b"]
N = 500


def search(folder, labels, *, ids, network="net", width=2):
    """The files of a finished search that a comparison reads."""
    labels = np.asarray(labels, dtype=np.int32)
    random = np.random.default_rng(len(set(labels)))
    members = {
        tables.ID: ids, tables.CLASS_ID: labels, tables.PROBABILITY: np.ones(len(ids), np.float32),
        tables.OUTLIER_SCORE: np.zeros(len(ids), np.float32),
    }  # fmt: skip
    tables.write(pa.table(members), folder / "members.parquet", tables.MEMBERS)
    positions = random.normal(size=(len(ids), width)).astype(np.float32)
    drawn = pa.table({tables.ID: ids, tables.POSITION: tables.vectors(positions)})
    tables.write(drawn, folder / "map_2d.parquet", tables.MAP)
    rows = [
        {tables.CLASS_ID: int(class_id), tables.TOP_ANSWERS: [f"bar_<i>{class_id}"]}
        for class_id in sorted(set(labels.tolist()) - {-1})
    ]
    classes = pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items())))
    tables.write(classes, folder / "classes.parquet", tables.CLASSES)
    tables.write_json({"checkpoint": network, "settings": {"store": str(folder / "store")}}, folder / "run.json")
    return folder


def planted():
    """Labels of three searches: 0 and 1 all find, 2 the second splits, 3 only the first can see."""
    first = np.repeat([0, 1, 2, 3, -1], [60, 50, 50, 25, N - 185])
    second = np.select([first == 0, first == 1, first == 3], [7, 4, -1], first)
    second[110:135], second[135:160] = 5, 6
    third = np.where(np.isin(first, [0, 1, 2]), first, -1)
    return first, second, third


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    ids = np.array([*EVIL, *(f"g{row:04d}" for row in range(len(EVIL), N))], dtype=object)
    shuffled = np.random.default_rng(0).permutation(N)
    for name, labels in zip(("a", "b", "c"), planted(), strict=True):
        order = np.arange(N) if name == "a" else shuffled
        search(home / name, labels[order], ids=ids[order], network=f"net <{name}>")
    compare(home, "a", "b", out="two")
    compare(home, "a", "b", "c", out="three")
    return home


def compare(home, *names, out, **settings):
    searches = [str(home / name) for name in names]
    return CompareRun(searches=searches, out=str(home / out), embeddings=False, images=False, **settings).run()


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.elements, self.words, self.folder = [], [], path.parent
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def tags(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def section(page, name):
    """Headings of the classes in one section of a pair's page."""
    html = page.read_text().split(f'<section id="{name}"', 1)[1].split("</section>", 1)[0]
    plain = re.sub(r"<[^>]+>", " ", " ".join(re.findall(r"<h3>.*?</h3>", html, re.DOTALL)))
    return " ".join(plain.split())


def test_a_class_that_only_one_search_can_see_is_reported_as_its_own(home):
    about = json.loads((home / "two" / "compare.json").read_text())
    assert about["alone"] == {"A": [3], "B": []}
    (pair,) = about["pairs"]
    assert pair["relations"] == {
        "A": {"0": "both", "1": "both", "2": "both", "3": "own"},
        "B": {"4": "both", "5": "both", "6": "related", "7": "both"},
    }  # fmt: skip
    page = home / "two" / "A-B.html"
    assert section(page, "both") == "A 0 = B 7 A 1 = B 4 A 2 = B 5"
    assert section(page, "parts") == "A 2 split B 6"
    assert section(page, "alone") == "Only in A a A 3 Only in B b"
    assert "25 galaxies; in B: no class 25" in Page(page).text


def test_a_class_of_one_search_among_three_is_in_neither_of_the_others(home):
    about = json.loads((home / "three" / "compare.json").read_text())
    assert [(pair["first"], pair["second"]) for pair in about["pairs"]] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert about["alone"] == {"A": [3], "B": [], "C": []}
    assert about["pairs"][1]["agreement"]["ari_both"] == 1
    assert {path.name for path in (home / "three").glob("*.html")} == {"index.html", "A-B.html", "A-C.html", "B-C.html"}


def test_shuffled_labels_find_nothing_in_common(home):
    first = planted()[0]
    ids = [f"g{row:04d}" for row in range(N)]
    search(home / "s", first, ids=ids)
    search(home / "t", np.random.default_rng(1).permutation(first), ids=ids)
    compare(home, "s", "t", out="shuffled")
    about = json.loads((home / "shuffled" / "compare.json").read_text())
    assert about["alone"] == {"A": [0, 1, 2, 3], "B": [0, 1, 2, 3]}
    assert about["pairs"][0]["events"] == {"new": 4, "lost": 4}
    assert section(home / "shuffled" / "A-B.html", "both") == ""


def test_tables_hold_counts_and_jaccards_of_every_pair_of_classes(home):
    lines = (home / "two" / "A-B" / "contingency.csv").read_text().splitlines()
    assert lines == ["class,B 4,B 5,B 6,B 7", "A 0,0,0,0,60", "A 1,50,0,0,0", "A 2,0,25,25,0", "A 3,0,0,0,0"]
    assert (home / "two" / "A-B" / "jaccard.csv").read_text().splitlines()[3] == "A 2,0.0,0.5,0.5,0.0"
    matches = tables.read(home / "two" / "A-B" / "matches.parquet", tables.MATCHES).to_pylist()
    assert [row["event"] for row in matches] == ["kept"] * 3 + ["split", "lost"]
    assert all(row["p_corrected"] < 1e-10 for row in matches[:4])


def test_both_maps_hold_the_same_galaxies_in_the_same_order(home):
    def script(name):
        text = (home / "two" / "assets" / f"{name}.js").read_text()
        return json.loads(text.split("] = ", 1)[1].removesuffix(";\n"))

    ids = script("ids")
    assert ids[:3] == EVIL
    first, second, _ = planted()
    for name, expected in (("run-A", first), ("run-B", second)):
        labels = np.frombuffer(base64.b64decode(script(name)["labels"]), "<i4")
        np.testing.assert_array_equal(labels, expected)
        assert len(base64.b64decode(script(name)["positions"])) == 8 * N
    table = tables.read(home / "b" / "map_2d.parquet", tables.MAP)
    place = dict(zip(table[tables.ID].to_pylist(), tables.matrix(table, tables.POSITION).tolist(), strict=True))
    positions = np.frombuffer(base64.b64decode(script("run-B")["positions"]), "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(positions, [place[galaxy_id] for galaxy_id in ids])


@pytest.mark.parametrize("name", ["index", "A-B"])
def test_pages_open_from_disk_can_be_read_aloud_and_take_nothing_for_html(home, name):
    path = home / "three" / f"{name}.html"
    page = Page(path)
    ids = [values["id"] for _, values in page.elements if "id" in values]
    assert len(ids) == len(set(ids))
    assert page.tags("html")[0]["lang"] == "en"
    assert len(page.tags("h1")) == 1
    for _, attributes in page.elements:
        for target in (attributes.get("href", ""), attributes.get("src", "")):
            assert "//" not in target
            if target.startswith("#"):
                assert target[1:] in ids
            elif target and not target.startswith("data:"):
                assert (page.folder / unquote(target.split("#")[0])).exists(), target
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    assert len(page.tags("script")) == (0 if name == "index" else 4)
    assert not page.tags("i")
    assert not re.search(r"https?://|@import|\bfetch\(", path.read_text())
    assert ("net <a>" in page.text) is (name == "index")


def test_every_flow_cell_and_choice_leads_to_the_maps(home):
    page = Page(home / "two" / "A-B.html")
    ribbons = [attributes for attributes in page.tags("path") if "data-first" in attributes]
    assert {(ribbon["data-first"], ribbon["data-second"]) for ribbon in ribbons} == {
        ("0", "7"), ("1", "4"), ("2", "5"), ("2", "6"),
    }  # fmt: skip
    assert [option["value"] for option in page.tags("option")] == ["", "0", "1", "2", "3", "", "4", "5", "6", "7"]


def test_galaxies_shown_are_of_whom_it_is_said_and_the_same_every_time(home):
    page = (home / "two" / "A-B.html").read_text()
    both = page.split("in both <", 1)[1].split("</ul>", 1)[0]
    shown = re.findall(r'aria-label="Galaxy (g\d+|[^"]+)"', both)
    assert len(shown) == 8
    inside = {f"g{row:04d}" for row in range(60)}
    assert sum(galaxy_id in inside for galaxy_id in shown) >= 6
    compare(home, "a", "b", out="again")
    files = [path.relative_to(home / "two") for path in (home / "two").rglob("*") if path.is_file()]
    for file in files:
        assert (home / "two" / file).read_bytes() == (home / "again" / file).read_bytes(), file


def test_galaxies_that_one_search_lacks_are_left_out(home):
    first = planted()[0]
    ids = np.array([*EVIL, *(f"g{row:04d}" for row in range(len(EVIL), N))], dtype=object)
    search(home / "few", first[:150], ids=ids[:150])
    about = json.loads(compare(home, "a", "few", out="fewer").page.with_name("compare.json").read_text())
    assert about["galaxies"] == 150
    assert about["pairs"][0]["relations"]["A"] == {"0": "both", "1": "both", "2": "both", "3": "unseen"}


def test_a_comparison_is_a_table(home):
    frame = compare(home, "a", "b", "c", out="table").to_pandas()
    assert frame["pair"].tolist() == ["A B", "A C", "B C"]
    assert frame.loc[1, ["both", "related", "only_first", "only_second"]].tolist() == [3, 0, 1, 0]
    assert frame.loc[1, "ari"] == 1
    assert frame["cka"].isna().all(), "the embeddings were not compared"


def test_mistakes_are_refused(home):
    with pytest.raises(ConfigError, match="2 to 26 searches: 1"):
        compare(home, "a", out="x")
    with pytest.raises(ConfigError, match=r"level.*1\.0"):
        compare(home, "a", "b", out="x", level=1.0)
    with pytest.raises(StoreError, match="no finished search"):
        compare(home, "a", "nowhere", out="x")
    search(home / "other", [0, 0], ids=["x", "y"])
    with pytest.raises(StoreError, match="no galaxy in common"):
        compare(home, "a", "other", out="x")
    search(home / "deep", planted()[0], ids=[f"g{row:04d}" for row in range(N)], width=3)
    with pytest.raises(StoreError, match="only a map of two dimensions"):
        compare(home, "a", "deep", out="x")
    (home / "file").write_text("")
    with pytest.raises(OutputError, match=r"out=DIR"):
        compare(home, "a", "b", out="file")


def test_grades_are_shown_where_they_are_known(home, tmp_path):
    import shutil

    shutil.copytree(home / "a", tmp_path / "a")
    classes = tables.read(tmp_path / "a" / "classes.parquet", tables.CLASSES)
    grades = pa.array(["significant and stable", "candidate", "candidate", "significant"][: classes.num_rows])
    place = classes.column_names.index(tables.GRADE)
    tables.write(classes.set_column(place, tables.GRADE, grades), tmp_path / "a" / "classes.parquet", tables.CLASSES)
    compared = CompareRun(
        searches=[str(tmp_path / "a"), str(home / "b")], out=str(tmp_path / "out"), images=False, embeddings=False
    ).run()
    text = compared.page.read_text()
    assert text.count(">candidate</span>") == 2
    assert text.count('<th scope="col">grade</th>') == 1
    assert ">significant and stable</span>" in (tmp_path / "out" / "A-B.html").read_text()
    written = json.loads((tmp_path / "out" / "compare.json").read_text())["searches"]
    assert [search["grades"] for search in written] == [
        {"significant and stable": 1, "significant": 1, "candidate": 2}, {},
    ]  # fmt: skip
