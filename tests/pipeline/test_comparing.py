"""Two searches of one mock survey under two networks: their members exported, their classes compared."""

import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import validate
from astropy.table import Table

from rarezoo import tables
from rarezoo.data.surveys.huggingface import HuggingFace
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.result import Search
from rarezoo.searches.run import SearchRun
from rarezoo.searches.stability import Stability
from rarezoo.track import Tracker

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def home(two_networks, tmp_path_factory):
    """A folder with a search of the tiny survey under each of two networks."""
    home = tmp_path_factory.mktemp("home")
    for net in "ab":
        SearchRun(
            store=str(two_networks / net), compress=Pca(n_components=2), drawing=Pca(n_components=2),
            clusterer=Hdbscan(min_samples=3, min_cluster_size=5), stability=Stability(refits=0),
            logger=Tracker(mode="none"), images=False, out=str(home / f"{net}-search"),
        ).run()  # fmt: skip
    return home


@pytest.fixture
def command(cli):
    """Give a function that types a command in a folder and returns its standard output, or its one message."""

    def typed(home, *words, expect=0):
        finished = cli("rarezoo", *words, cwd=home, expect=expect)
        return finished.out if expect == 0 else finished.message

    return typed


def inside(home, search="a-search"):
    members = pq.read_table(home / search / "members.parquet")
    return members.filter(pa.compute.greater_equal(members[tables.CLASS_ID], 0))


def test_members_leave_with_class_place_and_the_answers_asked_for(command, home, two_networks, tiny_survey):
    command(home, "export", "a-search", "out=out/m.vot", "format=votable", "answers=[bar_strong,bar_no]")
    exported, members = Table.read(home / "out" / "m.vot"), inside(home)
    report = io.StringIO()
    assert validate(str(home / "out" / "m.vot"), output=report), report.getvalue()
    assert exported.colnames[-2:] == ["bar_strong_fraction", "bar_no_fraction"]
    labels = dict(zip(members[tables.ID].to_pylist(), members[tables.CLASS_ID].to_pylist(), strict=True))
    assert dict(zip(exported[tables.ID], exported[tables.CLASS_ID], strict=True)) == labels
    store = EmbeddingStore.open(two_networks / "a").read([tables.ID, "bar_strong_fraction"])
    predicted = dict(zip(store[tables.ID].to_pylist(), store["bar_strong_fraction"].to_pylist(), strict=True))
    np.testing.assert_allclose(
        exported["bar_strong_fraction"], [predicted[galaxy_id] for galaxy_id in exported[tables.ID]], rtol=1e-6
    )
    catalogue = tiny_survey.mock().open().catalogue
    places = dict(zip(catalogue[tables.ID].to_pylist(), catalogue[tables.RA].to_pylist(), strict=True))
    np.testing.assert_array_equal(exported[tables.RA], [places[galaxy_id] for galaxy_id in exported[tables.ID]])


def test_one_class_alone_by_its_members(command, home):
    command(home, "export", "a-search", "out=out/c.csv", "classes=[1]")
    exported = Table.read(home / "out" / "c.csv")
    assert set(exported[tables.CLASS_ID]) == {1}
    assert len(exported) == inside(home)[tables.CLASS_ID].to_pylist().count(1)
    assert list(exported[tables.PROBABILITY]) == sorted(exported[tables.PROBABILITY], reverse=True)


def test_a_data_set_of_members_is_a_survey_again(command, home, tiny_survey):
    command(home, "export", "a-search", "out=out/set", "format=huggingface", "classes=[0]", "answers=[all]")
    again = HuggingFace(name=str(home / "out" / "set"), votes="").open()
    survey = tiny_survey.mock().open()
    assert len(again) == inside(home)[tables.CLASS_ID].to_pylist().count(0)
    row = list(survey.ids).index(again.ids[0])
    np.testing.assert_array_equal(again.images.cutout(0), survey.images.cutout(row))


def test_mistakes_of_an_export_are_reported_before_anything_is_written(command, home, two_networks):
    assert "has no class: 99" in command(home, "export", "a-search", "out=x.csv", "classes=[99]", expect=2)
    assert "bars" in command(home, "export", "a-search", "out=x", "answers=[bars]", expect=2)
    assert "out=FILE" in command(home, "export", "a-search", expect=2)
    assert "two_networks/a" in command(home, "export", two_networks / "a", "out=x.csv", expect=2)
    (home / "few.csv").write_text("id_str,ra,dec\nx,1,2\n")
    assert "few.csv" in command(home, "export", "a-search", "out=x.csv", "positions=few.csv", expect=2)
    assert not list(home.glob("x*"))


def test_a_report_is_written_again_from_a_finished_search(command, home):
    command(home, "report", "a-search", "out=again", "images=false")
    index = (home / "again" / "index.html").read_text()
    assert "written without images" in index
    assert len(list((home / "again").glob("class-*.html"))) == len(Search.open(home / "a-search"))


def test_two_networks_are_compared_with_their_galaxies(command, home, tiny_survey):
    out = command(home, "compare", "a-search", "b-search", "a-search", "out=out/compared", "queries=0")
    about = json.loads((home / "out" / "compared" / "compare.json").read_text())
    other, same, _ = (pair["embeddings"] for pair in about["pairs"])
    assert (other["galaxies"], other["queries"], [overlap["k"] for overlap in other["overlaps"]]) == (
        tiny_survey.galaxies,
        tiny_survey.galaxies,
        [10, 30, 100],
    )
    assert all(overlap["chance"] < overlap["share"] < 1 for overlap in other["overlaps"])
    assert 0 < other["cka"] < same["cka"] == pytest.approx(1)
    assert [overlap["share"] for overlap in same["overlaps"]] == [1, 1, 1]
    assert about["pairs"][1]["agreement"]["ari_all"] == 1
    page = (home / "out" / "compared" / "A-B.html").read_text()
    pictures = set(re.findall(r"images/[^)]+\.jpg", page))
    assert pictures
    assert all((home / "out" / "compared" / picture).is_file() for picture in pictures)
    assert "in one search only: A: " in out
    assert out.splitlines()[-1] == "out/compared/index.html"
