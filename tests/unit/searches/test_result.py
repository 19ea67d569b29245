"""A finished search, opened as one object."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rarezoo import tables
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.errors import ConfigError, DataError, StoreError, StoreNotFound
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.result import Search
from rarezoo.searches.run import SearchRun
from rarezoo.searches.significance import Significance
from rarezoo.searches.stability import Stability
from rarezoo.track import Tracker

pytestmark = pytest.mark.unit

GALAXIES, WIDTH = 120, 4
IDS = [f"g{row:03d}" for row in range(GALAXIES)]
GROUP = np.arange(GALAXIES) % 3


def write_survey(folder):
    """A catalogue whose images are as bright as the galaxy's group says."""
    (folder / "images").mkdir(parents=True)
    for row, galaxy in enumerate(IDS):
        Image.new("RGB", (8, 8), (80 * GROUP[row],) * 3).save(folder / "images" / f"{galaxy}.png")
    pd.DataFrame({"id_str": IDS, "magnitude": 15.0 + GROUP}).to_csv(folder / "galaxies.csv", index=False)
    return Catalogue(table=str(folder / "galaxies.csv"), images=str(folder / "images"))


def write_store(folder, survey):
    random = np.random.default_rng(0)
    embeddings = (8 * np.eye(WIDTH)[GROUP] + random.normal(size=(GALAXIES, WIDTH))).astype(np.float32)
    manifest = Manifest(
        survey="catalogue", survey_sha256=survey.open().sha256, survey_settings=survey.settings(), checkpoint="b0.v1",
        checkpoint_sha256="c" * 64, precision="float32", width=WIDTH, dtype="float32", rows=GALAXIES,
        shard_rows=GALAXIES, answers=("bar_no", "bar_yes"),
    )  # fmt: skip
    store = EmbeddingStore.create(folder, manifest)
    fractions = np.column_stack([GROUP == 0, GROUP != 0]).astype(np.float32)
    store.write_shard(0, ids=IDS, embeddings=embeddings, fractions=fractions)
    return store.finish()


def search_run(home, out="search"):
    return SearchRun(
        store=str(home / "store"), compress=Pca(n_components=3), drawing=Pca(n_components=2),
        clusterer=Hdbscan(min_samples=5, min_cluster_size=10), logger=Tracker(mode="none"),
        significance=Significance(surveys=0), stability=Stability(refits=2), out=str(home / out),
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("result")
    write_store(home / "store", write_survey(home / "survey"))
    search_run(home).run()
    return home


@pytest.fixture
def search(home):
    return Search.open(home / "search")


def test_a_folder_without_a_search_is_a_missing_file_too(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished search"):
        Search.open(tmp_path)
    with pytest.raises(StoreError, match=str(tmp_path)):
        Search.open(tmp_path)


def test_running_again_returns_the_finished_search(home, search):
    again = search_run(home).run()
    assert again.folder == search.folder
    assert again.about == search.about


def test_one_run_object_runs_twice(home):
    run = search_run(home, "twice")
    first, second = run.run(), run.run()
    assert first.table("members").equals(second.table("members"))


def test_every_table_is_checked_against_its_schema(search):
    for name in ("classes", "members", "map", "map_2d", "tree", "linkage", "stability"):
        assert search.table(name).num_rows > 0
    with pytest.raises(ConfigError, match="galaxies"):
        search.table("galaxies")
    with pytest.raises(StoreError, match="evolution"):
        search.table("evolution")


def test_a_search_without_main_groups_has_an_empty_table_of_them(tmp_path):
    search = Search(tmp_path, {})
    assert search.main_groups.num_rows == 0
    assert search.main_groups.column_names == list(tables.MAIN_GROUPS.columns)


def test_classes_are_found_by_their_id(search):
    assert len(search) == len(search.classes) == 3
    assert [item.id for item in search] == [0, 1, 2]
    found_class = search[1]
    assert found_class.size == len(found_class.members) == found_class.row[tables.SIZE]
    assert list(found_class.members[tables.PROBABILITY]) == sorted(
        found_class.members[tables.PROBABILITY], reverse=True
    )
    with pytest.raises(KeyError, match="no class 7"):
        search[7]


def test_a_gallery_shows_the_most_typical_members_or_random_ones(search, monkeypatch):
    shown = []
    monkeypatch.setattr(Search, "cutouts", lambda self, ids: shown.append(ids) or [np.zeros((8, 8, 3), np.uint8)])
    for settings in ({}, {"random": True}, {"random": True}, {"random": True, "seed": 1}):
        search[1].gallery(6, **settings)
    typical, random, again, other = shown
    assert typical == search[1].row[tables.EXEMPLARS][:6]
    assert random == again
    assert random not in (typical, other)
    members = set(search[1].members[tables.ID])
    assert all(len(set(ids)) == 6 and members.issuperset(ids) for ids in (random, other))
    search[1].gallery(10_000, random=True)
    assert sorted(shown[-1]) == sorted(members)


def test_members_and_classes_are_pandas_tables(search):
    assert list(search.members[tables.ID]) == IDS
    counts = search.members.query("class_id >= 0").groupby("class_id").size()
    assert list(search.classes.to_pandas()[tables.SIZE]) == list(counts)


def test_a_gallery_shows_the_members(search):
    for found_class in search:
        row = IDS.index(found_class.members[tables.ID][0])
        picture = np.asarray(found_class.gallery(1))
        assert abs(int(picture[64, 64, 0]) - 80 * GROUP[row]) < 5


def test_a_notebook_shows_a_table_with_pictures_and_escapes_names(search):
    shown = search._repr_html_()
    assert shown.count("data:image/jpeg;base64") == 3
    assert "bar_yes" in shown
    renamed = search.table("classes").append_column(tables.NAME, [["<script>", None, None]])
    search._tables["classes"] = renamed
    assert "<script>" not in search._repr_html_()


def test_without_its_images_a_notebook_shows_the_table_alone(home, tmp_path):
    about = json.loads((home / "search" / "run.json").read_text())
    about["survey_sha256"] = "0" * 64
    search = Search(home / "search", about)
    assert "<table" in search.classes._repr_html_()
    assert "<img" not in search.classes._repr_html_()


def test_the_survey_may_have_moved(home, tmp_path):
    moved = write_survey(tmp_path / "moved")
    search = Search.open(home / "search", survey=moved)
    assert list(search.survey().ids) == IDS
    (tmp_path / "moved" / "galaxies.csv").write_text("id_str,magnitude\ng000,1\n")
    with pytest.raises(StoreError, match="another survey"):
        Search.open(home / "search", survey=moved).survey()
    (tmp_path / "moved" / "galaxies.csv").unlink()
    with pytest.raises(DataError, match="Look elsewhere"):
        Search.open(home / "search", survey=moved).survey(way_out="Look elsewhere.")


def test_a_store_that_has_changed_is_refused(home, search):
    changed = Search(search.folder, {**search.about, "checkpoint_sha256": "d" * 64})
    with pytest.raises(StoreError, match="checkpoint_sha256"):
        _ = changed.store


def test_what_was_computed_in_the_run_is_computed_again_when_reopened(home):
    run = search_run(home, "fresh")
    fresh = run.run()
    reopened = Search.open(home / "fresh")
    assert {key: list(value) for key, value in fresh.tests.items()} == {
        key: list(value) for key, value in reopened.tests.items()
    }
    assert fresh.predictions.select(reopened.predictions.column_names).equals(reopened.predictions)
    pages = {path.name: path.read_bytes() for path in (home / "fresh" / "report").glob("*.html")}
    reopened.report()
    assert {path.name: path.read_bytes() for path in (home / "fresh" / "report").glob("*.html")}.keys() == pages.keys()


@pytest.mark.parametrize("colour", ["class", None, "bar_yes", "magnitude"])
def test_the_map_is_drawn_in_any_colour(search, colour):
    drawn = search.plot_map(colour)
    assert sum(len(points.get_offsets()) for points in drawn.axes[0].collections) == GALAXIES


def test_a_colour_that_is_no_number_is_refused(search):
    for name in ("nowhere", "id_str"):
        with pytest.raises(ConfigError, match=name):
            search.plot_map(name)


@pytest.mark.parametrize("settings", ["é ", [], None, 3, {"store": 3}])
def test_a_record_whose_settings_are_something_else_is_no_finished_search(tmp_path, settings):
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    with pytest.raises(StoreNotFound, match="no finished search"):
        Search.open(tmp_path)
