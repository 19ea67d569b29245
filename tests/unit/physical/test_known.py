"""Classes against lists of known galaxies: verdicts, coverage, and one message for each mistake."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_up import survey_on_disk

from rarezoo import tables
from rarezoo.errors import ConfigError, DataError
from rarezoo.physical.known import KIND, MIX, NEW, NOT_COVERED, PART, KnownRun, compare
from rarezoo.physical.known_list import KnownList, Label, list_names
from rarezoo.physical.own_labels import catalogue_labels
from rarezoo.searches.listing import classes_table
from rarezoo.searches.result import Search

pytestmark = pytest.mark.unit

ROWS = 1000
LABELS = np.where(np.arange(ROWS) < 100, 0, -1)


def label(members, others, *, covered=None, name="ring"):
    """A label that so many of the 100 members and of the 900 others have."""
    has = np.isin(np.arange(ROWS), [*range(members), *range(100, 100 + others)])
    return Label("mine", name, np.ones(ROWS, dtype=bool) if covered is None else covered | has, has)


def verdict(*labels):
    return compare(LABELS, labels, classes=[0]).verdicts.to_pylist()[0]


@pytest.mark.parametrize(
    ("members", "others", "expected"), [(80, 20, KIND), (80, 300, PART), (30, 30, MIX), (10, 5, NEW), (12, 100, NEW)]
)
def test_the_verdict_follows_the_shares_on_both_sides(members, others, expected):
    row = verdict(label(members, others))
    assert row[tables.VERDICT] == expected
    assert bool(row[tables.KNOWN_AS]) == (expected != NEW)


def test_a_mix_names_its_labels_the_most_frequent_first():
    row = verdict(label(30, 30), label(40, 20, name="merger"))
    assert row[tables.VERDICT] == MIX
    assert [text.split(" ")[1] for text in row[tables.KNOWN_AS]] == ["merger", "ring"]


def test_a_label_that_nearly_all_galaxies_have_is_no_kind():
    assert verdict(label(100, 850))[tables.VERDICT] == NEW


def test_one_covered_member_gives_no_verdict():
    row = verdict(label(1, 200, covered=np.arange(ROWS) >= 100))
    assert row[tables.VERDICT] == NOT_COVERED
    assert "at most 1 members" in row[tables.REASON]


def test_galaxies_that_the_list_does_not_cover_do_not_count():
    covered = np.arange(ROWS) % 2 == 0
    has = covered & (LABELS == 0)
    pair = compare(LABELS, [Label("mine", "ring", covered, has)], classes=[0]).pairs.to_pylist()[0]
    assert (pair[tables.COVERED], pair[tables.OVERLAP], pair[tables.GALAXIES]) == (50, 50, 500)
    assert pair[tables.PURITY] == pair[tables.COMPLETENESS] == 1
    assert pair[tables.LIFT] == pytest.approx(10)
    assert pair[tables.LIFT_LOW] < 10


def test_random_labels_are_hardly_ever_a_known_kind():
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(20):
        labels = random.choice(5, ROWS) - 1
        known = [Label("mine", str(k), np.ones(ROWS, dtype=bool), random.random(ROWS) < 0.05) for k in range(10)]
        wrong += sum(
            row != NEW for row in compare(labels, known, classes=range(4)).verdicts[tables.VERDICT].to_pylist()
        )
    assert wrong <= 2


# --- named lists


def test_every_named_list_is_described():
    assert {"efigi", "gz2", "desi_rings", "gz_mergers", "nair_abraham", "lenses", "polar_rings", "tidal_features",
            "low_surface_brightness", "sga2020", "euclid_artifacts"} == set(list_names())  # fmt: skip
    for name in list_names():
        known = KnownList.named(name)
        assert known.citation
        assert known.download
        assert known.columns
        assert known.labels
        assert known.id or (known.ra and known.dec)


GALAXIES = np.array([f"g{row:03d}" for row in range(40)], dtype=object)
SKY = (np.linspace(10, 12, 40), np.full(40, 5.0))


def written(folder, columns, name="list.csv"):
    from pyarrow import csv

    csv.write_csv(pa.table(columns), folder / name)
    return folder / name


def read(kind, file, **settings):
    return KnownList.named(kind).read(file, ids=GALAXIES, sky=SKY, **settings)


def test_a_list_is_matched_by_position_and_null_is_not_covered(tmp_path):
    odd = [0.9] * 10 + [0.0] * 10 + [None] * 10
    file = written(
        tmp_path,
        {
            "dr7objid": [str(587725 + row) for row in range(30)], "ra": SKY[0][:30], "dec": SKY[1][:30],
            "t06_odd_a14_yes_debiased": odd, "t08_odd_feature_a19_ring_debiased": odd,
        },
    )  # fmt: skip
    labels, about = read("gz2", file)
    assert [found.label for found in labels] == ["ring"]
    assert labels[0].has.sum() == 10
    assert labels[0].covered.sum() == 20
    assert "30 of 40 galaxies by position" in about


def test_a_list_of_ones_own_is_matched_by_the_usual_names_of_positions(tmp_path):
    file = written(tmp_path, {"RAJ2000": SKY[0], "DEJ2000": SKY[1], "label": ["ring"] * 10 + [""] * 30})
    labels, about = read("table", file)
    assert labels[0].has.sum() == 10
    assert "40 of 40 galaxies by position" in about


def test_columns_may_be_spelled_a_little_otherwise(tmp_path):
    bars = np.repeat([0.0, 1.0], 20)
    file = written(tmp_path, {"ra": SKY[0], "dec": SKY[1], "bar length": bars, "t": np.repeat([-5.0, 4.0], 20)})
    labels, _ = read("efigi", file)
    assert {found.label: found.has.sum() for found in labels} == {"elliptical": 20, "late spiral": 20, "long bar": 20}


def test_a_list_of_members_only_covers_the_sky_where_it_has_entries(tmp_path):
    near = {"RA [deg]": SKY[0][:6], "DEC [deg]": SKY[1][:6], "grading": ["confident"] * 3 + ["probable"] * 3}
    labels, about = read("lenses", written(tmp_path, near))
    found = next(label for label in labels if label.label == "confident strong lens")
    assert found.has.sum() == 3
    assert 6 <= found.covered.sum() < 40
    assert "members only" in about


def test_labels_of_ones_own_table(tmp_path):
    file = written(tmp_path, {"id_str": GALAXIES[:20], "label": ["ring"] * 5 + ["merger"] * 5 + [""] * 10})
    labels, _ = read("table", file)
    assert {(found.label, int(found.has.sum()), int(found.covered.sum())) for found in labels} == {
        ("ring", 5, 20), ("merger", 5, 20),
    }  # fmt: skip
    only = written(tmp_path, {"id_str": GALAXIES[:5], "label": ["ring"] * 5})
    assert read("table", only)[0][0].covered.sum() == 40


@pytest.mark.parametrize(
    ("kind", "columns", "error", "contains"),
    [
        ("table", {"id_str": ["x1", "x2"], "label": ["a", "b"]}, DataError, ["list.csv", "x1"]),
        ("gz2", {"ra": [200.0], "dec": [80.0], "t06_odd_a14_yes_debiased": [1.0],
                 "t08_odd_feature_a19_ring_debiased": [1.0]}, DataError, ["list.csv", "arcsec"]),
        ("lenses", {"RA": SKY[0], "DEC": SKY[1], "gradng": ["confident"] * 40}, DataError, ["grading", "gradng"]),
        ("table", {"id_str": GALAXIES, "labels": ["a"] * 40}, DataError, ["label", "labels", "label_column"]),
        ("gz_mergers", {"RA": SKY[0], "DEC": SKY[1], "P_MG": ["much"] * 40}, ConfigError, ["P_MG"]),
        ("gz_mergers", {"RA": SKY[0], "DEC": SKY[1], "P_MG": [float("nan")] * 40}, DataError, ["list.csv", "merger"]),
        ("gz_mergers", {"RA": SKY[0], "DEC": SKY[1], "P_MG": [0.1] * 40}, DataError, ["list.csv", "merger"]),
        ("table", {"id_str": [*GALAXIES, "g000"], "label": ["a"] * 41}, DataError, ["list.csv", "g000"]),
        ("table", {"id_str": GALAXIES, "label": [""] * 40}, DataError, ["label", "empty"]),
        ("table", {"id_str": np.repeat(GALAXIES, 2)[:80:2], "label": np.arange(400.0)[::10] / 7}, DataError, []),
        ("table", {"name": GALAXIES, "label": ["a"] * 40}, DataError, ["id_column", "name"]),
        ("tidal_features", {"RAJ2000": SKY[0], "DEJ2000": SKY[1], "C": [4] * 40}, ConfigError, ["label_column", "C"]),
    ],
)  # fmt: skip
def test_each_mistake_in_a_list_has_one_message(tmp_path, kind, columns, error, contains):
    many = {"id_str": [f"g{row:03d}" for row in range(40)] + [f"h{row}" for row in range(20)],
            "label": [f"value {row}" for row in range(60)]}  # fmt: skip
    file = written(tmp_path, columns if contains else many)
    with pytest.raises(error) as caught:
        read(kind, file)
    for text in contains or ["60", "YAML"]:
        assert text in str(caught.value)


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean efigi"):
        KnownList.named("efigy")


def test_a_list_of_ones_own_is_a_yaml_file(tmp_path):
    (tmp_path / "own.yaml").write_text("coverage: rows\nid: [name]\nlabels:\n  bright: '`mag` < 15'\n")
    file = written(tmp_path, {"name": GALAXIES, "mag": np.linspace(10, 20, 40)})
    labels, _ = read(str(tmp_path / "own.yaml"), file)
    assert labels[0].label == "bright"
    assert labels[0].has.sum() == 20
    (tmp_path / "own.yaml").write_text("id: name\nlabels:\n  bright: '`mag` < 15'\n")
    assert KnownList.named(str(tmp_path / "own.yaml")).id == ("name",)


@pytest.mark.parametrize(
    "content", ["labels: {}", "- ring\n- merger\n", "labels: ring", "coverage: some\nlabels: {a: b}"]
)
def test_a_file_that_describes_no_list_is_named(tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        KnownList.named(str(tmp_path / "bad.yaml"))


# --- a whole search


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return Search.open(survey_on_disk(tmp_path_factory.mktemp("known"), galaxies=120))


def test_the_verdict_stands_on_a_page_in_the_list_and_in_the_report(search, tmp_path):
    ids, labels = search.ids, search.labels
    file = written(tmp_path, {"id_str": ids, "label": np.where(labels == 0, "ring", "").tolist()})
    known = search.known(file, "table")
    assert known.to_pandas().loc[0, tables.VERDICT] == KIND
    assert known.page == search.folder / "known" / "index.html"
    page = known.page.read_text()
    assert "known kind" in page
    assert 'id="class-1"' in page
    again = Search.open(search.folder)
    assert "known kind (list: ring 100 %)" in classes_table(again)
    report = again.report(images=False, survey=False)
    assert "known kind: list: ring 100 %" in report.read_text()
    assert "../known/index.html#class-0" in (report.parent / "class-000.html").read_text()
    votes = known.pairs.filter(pc.equal(known.pairs[tables.LIST], "votes"))
    assert votes.num_rows
    assert len(known.verdicts) == 2


def test_numbers_of_lists_and_kinds_must_fit(search, tmp_path):
    with pytest.raises(ConfigError, match="2 and 3"):
        KnownRun(search=str(search.folder), list=["a", "b"], kind=["gz2", "gz2", "gz2"], out=str(tmp_path)).run()


def test_a_search_that_shows_a_sample_of_its_galaxies_says_so(search, tmp_path):
    whole = (search.folder / "run.json").read_text()
    sampled = {**json.loads(whole), "searched": 9000, "shown": 120}
    (search.folder / "run.json").write_text(json.dumps(sampled))
    try:
        known = search.known(columns=["note"], votes=False, out=str(tmp_path / "sampled"))
    finally:
        (search.folder / "run.json").write_text(whole)
    assert "120 of 9,000" in known.summary()
    assert "120 of 9,000" in known.page.read_text()


@pytest.mark.parametrize(
    ("words", "says"), [({"kind": ["gz2"]}, "kind= needs a table: gz2"), ({"list": ["a.csv", "a.csv"]}, "twice: a.csv")]
)
def test_a_kind_needs_a_list_and_each_list_is_given_once(search, tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        KnownRun(search=str(search.folder), out=str(tmp_path), **words).run()


def test_types_of_the_catalogue_are_labels_and_other_columns_are_refused(search, tmp_path):
    known = search.known(columns=["note"], votes=False, out=str(tmp_path / "types"))
    assert set(known.pairs[tables.LIST].to_pylist()) == {"catalogue"}
    with pytest.raises(ConfigError, match="Did you mean note"):
        search.known(columns=["notes"], out=str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="mass"):
        search.known(columns=["mass"], out=str(tmp_path / "b"))


def test_names_of_files_are_no_types():
    ids = [f"g{row}" for row in range(20)]
    catalogue = pa.table({"id_str": ids, "shard": ["images-00.tar", "images-01.tar"] * 10, "kind": ["Sb", "E"] * 10})
    made_up = SimpleNamespace(ids=np.array(ids), survey=lambda: SimpleNamespace(catalogue=catalogue))
    assert {label.label for label in catalogue_labels(made_up)} == {"kind Sb", "kind E"}


def test_the_reference_names_every_list_with_its_citation_and_labels():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "known-lists.md").read_text()
    for name in list_names():
        known = KnownList.named(name)
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        for text in (known.title, known.citation, known.coverage, ", ".join(known.labels)):
            assert text in row
