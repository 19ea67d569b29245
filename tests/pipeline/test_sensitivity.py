"""The sensitivity study through its door: searches side by side that share their maps, one of which cannot be made."""

import hydra
import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo import cli as apps
from rarezoo.embeddings.store import EmbeddingStore, Manifest

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

GALAXIES, WIDTH = 240, 8
SEARCH = [
    "compress=fast_umap", "compress.n_neighbors=10", "compress.n_epochs=50", "compress@drawing=fast_umap_2d",
    "drawing.n_neighbors=10", "drawing.n_epochs=20", "clusterer=fast_hdbscan", "clusterer.min_samples=5",
    "clusterer.min_cluster_size=10", "preset=medium", "seed=0,1",
]  # fmt: skip
CENTRE, OTHER, TOO_MANY = "{}", "{clusterer.min_samples:9}", "{clusterer.min_samples:500}"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a store of galaxies in three groups."""
    folder, random = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    embeddings = (np.arange(GALAXIES) % 3)[:, None] * 5 + random.normal(size=(GALAXIES, WIDTH))
    manifest = Manifest(
        survey="mock", survey_sha256="s" * 64, survey_settings={"option": "mock"}, checkpoint="b0.v1",
        checkpoint_sha256="c" * 64, precision="float32", width=WIDTH, dtype="float32", rows=GALAXIES,
        shard_rows=GALAXIES, answers=("bar_no", "bar_yes"),
    )  # fmt: skip
    EmbeddingStore.create(folder / "store", manifest).write_shard(
        0, ids=[f"g{row:03d}" for row in range(GALAXIES)], embeddings=embeddings.astype(np.float32),
        fractions=np.full((GALAXIES, 2), 0.5, np.float32),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def swept(start_process, ended, home):
    """What a sweep says that runs two searches at a time."""
    words = ["experiment=sensitivity", "store=store", "out=sweep", *SEARCH, f"vary={CENTRE},{OTHER},{TOO_MANY}"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    # The launcher sends the state of Hydra to processes of its own; that of a test's process does not travel.
    return ended(start_process("cluster.py", *words, *launcher, cwd=home), expect=2)


def test_a_search_that_cannot_be_made_is_missing_and_the_rest_becomes_a_page(home, swept):
    out, err = swept.out, swept.err
    assert "240 galaxies are too few for clusterer.min_samples: 500" in err
    assert "| min_samples 9 | 2 " in " ".join(out.split())
    page = (home / "sweep" / "index.html").read_text()
    assert "2 searches were not finished" in page
    assert "240 galaxies are too few" in page
    rows = pq.read_table(home / "sweep" / "searches.parquet").to_pylist()
    assert sorted((str(row["setting"]), str(row["seed"])) for row in rows) == sorted(
        [("centre", "0"), ("centre", "1"), ("min_samples 9", "0"), ("min_samples 9", "1"), *[("None", "None")] * 2]
    )
    assert all(row["classes"] >= 2 for row in rows if row["setting"])
    for link in (home / "sweep" / row["search"] / "report" / "index.html" for row in rows if row["setting"]):
        assert link.exists()


def test_every_map_and_linkage_was_made_once(home, swept):
    maps = home / "sweep" / ".maps"
    assert len(list(maps.glob("*/map.json"))) == 4, "two seeds, each with a map to search and one to draw"
    assert len(list(maps.glob("*/linkage.parquet"))) == 4, "two seeds, each with two min_samples"
    logs = "".join(log.read_text() for log in (home / "sweep").glob("*/run.log"))
    assert logs.count("compress …") == 2
    searches = [file.parent for file in (home / "sweep").glob("*/run.json")]
    assert len(searches) == 4
    assert all((folder / "fitted_map" / "map.json").exists() for folder in searches)


def test_the_same_command_goes_on_and_does_nothing_twice(cli, home, swept):
    before = {file: file.stat().st_mtime_ns for file in (home / "sweep").glob("*/run.json")}
    words = ["experiment=sensitivity", "store=store", "out=sweep", *SEARCH, f"vary={CENTRE},{OTHER}"]
    finished = cli("cluster.py", *words, cwd=home)
    assert finished.err.count("already searched") == 4
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert finished.out == swept.out


def test_the_page_is_written_again_from_files_alone(cli, home, swept):
    page = home / "sweep" / "index.html"
    before = page.read_text()
    page.unlink()
    command = ["rarezoo", "sensitivity", "sweep"]
    assert cli(*command, cwd=home).out == swept.out
    assert page.read_text() == before
    assert "nowhere" in cli(*command, "centre=nowhere", cwd=home, expect=2).message


def test_a_setting_that_does_not_exist_is_reported(cli, home):
    words = ["store=store", "out=one", "vary={compress.neighbours:3}"]
    assert "compress.neighbours:3" in cli("cluster.py", *words, cwd=home, expect=2).message


def test_the_preset_changes_the_settings_of_the_issue_around_any_centre():
    apps.register()
    with hydra.initialize_config_dir(str(apps.conf_dir().resolve()), version_base="1.3"):
        config = hydra.compose("cluster", ["experiment=sensitivity", "preset=paper"], return_hydra_config=True)
    assert (config.compress.n_neighbors, config.clusterer.min_samples) == (50, 300)
    for name in ("compress.n_neighbors", "compress.n_components", "compress.min_dist", "compress.metric",
                 "clusterer.min_samples", "clusterer.min_cluster_size", "clusterer.selection"):  # fmt: skip
        assert f"{{{name}:" in config.hydra.sweeper.params.vary
    assert config.hydra.sweeper.params.seed == "0,1,2"
    assert (config.hydra.callbacks.sweeps.study, config.stability.refits) == ("sensitivity", 0)
