"""A search as a function and as a job: what it takes, what it records, when it is the same search."""

from dataclasses import dataclass

import numpy as np
import pytest

import rarezoo as rz
from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, StoreNotFound
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.presets import preset
from rarezoo.searches.run import SearchRun, search
from rarezoo.searches.select import Select
from rarezoo.searches.significance import Significance
from rarezoo.searches.stability import Stability
from rarezoo.settings import option, setting
from rarezoo.track import Tracker

pytestmark = pytest.mark.unit

IDS = [f"g{row:03d}" for row in range(90)]
QUICK = {
    "compress": Pca(n_components=3), "drawing": Pca(n_components=2), "images": False, "logger": Tracker(mode="none"),
    "clusterer": Hdbscan(min_samples=5, min_cluster_size=10), "significance": Significance(surveys=0),
    "stability": Stability(refits=0),
}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    groups = np.arange(90) % 3
    embeddings = (8 * np.eye(4)[groups] + np.random.default_rng(0).normal(size=(90, 4))).astype(np.float32)
    return EmbeddingStore.from_array(IDS, embeddings, out=tmp_path / "store")


def test_a_store_or_its_folder_is_the_same_search(store, tmp_path):
    first = search(store, out=tmp_path / "found", preset="small", **QUICK)
    again = rz.search(str(store.folder), out=str(tmp_path / "found"), preset="small", **QUICK)
    assert len(first) == len(again) == 3
    assert again.about == first.about


def test_settings_replace_those_of_the_preset(store, tmp_path):
    settings = {name: value for name, value in QUICK.items() if name != "clusterer"}
    finished = search(store, out=tmp_path / "found", preset="small", **settings)
    assert finished.settings["compress"]["option"] == "pca"
    assert finished.settings["clusterer"]["min_samples"] == 20


def test_folders_are_recorded_whole_so_that_the_search_can_be_repeated_from_anywhere(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = SearchRun(
        store="store", select=Select(fractions_from="store"), stability=Stability(stores=["store"]),
        significance=Significance(kind="store", store="store"),
    ).settings()  # fmt: skip
    folder = str(store.folder.resolve())
    assert relative["store"] == relative["select"]["fractions_from"] == relative["significance"]["store"] == folder
    assert relative["stability"]["stores"] == [folder]


def test_the_same_folder_does_not_take_another_search(store, tmp_path):
    search(store, out=tmp_path / "found", preset="small", **QUICK)
    with pytest.raises(OutputError, match="seed"):
        search(store, out=tmp_path / "found", preset="small", seed=1, **QUICK)


def test_what_does_not_exist_is_refused_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError):
        search(tmp_path / "nowhere", out=tmp_path / "found")
    with pytest.raises(StoreNotFound):
        search(tmp_path, out=tmp_path / "found", previous=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="seed must be at least 0"):
        SearchRun(store="s", seed=-1)
    with pytest.raises(ConfigError, match="unknown preset"):
        search(tmp_path, preset="huge")


def test_a_random_subset_has_its_own_embeddings(store, tmp_path):
    finished = search(store, out=tmp_path / "found", preset="small", **{**QUICK, "select": Select(sample=60)})
    rows = [IDS.index(galaxy) for galaxy in finished.ids]
    assert len(rows) == 60
    again = Pca(n_components=3).fit(store.embeddings()[rows], ids=finished.ids).positions
    np.testing.assert_array_equal(tables.matrix(finished.table("map"), tables.POSITION), again)


def test_a_dictionary_changes_some_settings_and_keeps_the_others(store, tmp_path):
    quick = {name: value for name, value in QUICK.items() if name != "clusterer"}
    finished = rz.search(store, out=tmp_path / "found", preset="small", clusterer={"min_samples": 5}, **quick)
    assert finished.settings["clusterer"]["min_samples"] == 5
    assert finished.settings["clusterer"]["min_cluster_size"] == 20
    assert finished.settings["clusterer"]["selection"] == "leaf"


def test_a_name_chooses_a_component_which_keeps_the_settings_of_the_preset(store, tmp_path):
    quick = {name: value for name, value in QUICK.items() if name not in ("clusterer", "compress")}
    finished = rz.search(
        store, out=tmp_path / "found", preset="small", clusterer="fast_hdbscan", compress="none", **quick
    )  # fmt: skip
    assert finished.settings["clusterer"]["option"] == "fast_hdbscan"
    assert finished.settings["clusterer"]["min_samples"] == preset("small")["clusterer"].min_samples
    assert finished.settings["compress"]["option"] == "none"
    with pytest.raises(ConfigError, match="unknown clusterer: nothing"):
        rz.search(store, out=tmp_path / "found", clusterer="nothing")


@option("clusterer_of_this_test", "stretched")
@dataclass
class Stretched(Hdbscan):
    """A clusterer of another package, whose own setting changes the distances of the tree."""

    stretch: float = setting(1.0, "factor on distances", gt=0)

    def _merges(self, positions):
        return super()._merges(positions) * [1, 1, self.stretch, 1]


def test_a_saved_linkage_is_used_again_only_with_the_same_settings_of_the_clusterer(store, tmp_path):
    reuse = None
    for out, stretch in (("first", 1.0), ("again", 1.0), ("other", 2.0)):
        clusterer = Stretched(min_samples=5, min_cluster_size=10, stretch=stretch)
        search(store, out=tmp_path / out, preset="small", **{**QUICK, "clusterer": clusterer, "reuse": reuse})
        reuse = str(tmp_path / "first")
    first, other = (
        tables.read(tmp_path / out / "linkage.parquet", tables.LINKAGE)["distance"] for out in ("first", "other")
    )
    np.testing.assert_allclose(other, 2 * first.to_numpy())
    # A linkage that is used again is not written once more.
    assert not (tmp_path / "again" / "linkage.parquet").exists()


@pytest.mark.parametrize(
    ("settings", "hint"),
    [({"significant": {}}, "significance"), ({"clusterer": {"min_sample": 5}}, "min_samples")],
)
def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_name(store, tmp_path, settings, hint):
    with pytest.raises(ConfigError, match=hint):
        rz.search(store, out=tmp_path / "found", **settings)
