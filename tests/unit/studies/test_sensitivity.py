"""How classes depend on settings: the centre, the pairs that are compared, the classes that are followed."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.studies.failures import note_failure
from rarezoo.studies.sensitivity import Sensitivity, read_sensitivity, write_sensitivity
from rarezoo.studies.sensitivity_page import write_sensitivity_page
from rarezoo.studies.swept import SweptSearch

pytestmark = pytest.mark.unit

GALAXIES = 200
CENTRE = {"compress.n_neighbors": 15, "clusterer.min_samples": 20, "clusterer.selection": "leaf"}
BOTH = np.repeat([0, 1, -1], [60, 40, GALAXIES - 100])
FIRST = np.where(BOTH == 0, 0, -1)
SPLIT = np.where(BOTH == 0, np.arange(GALAXIES) % 2 + 1, np.where(BOTH == 1, 0, -1))


def search(labels, *, seed=0, name="", **changed):
    settings = {**CENTRE, **{key.replace("__", "."): value for key, value in changed.items()}}
    return SweptSearch(name or f"{changed}{seed}", settings, seed, labels)


def swept():
    """The centre, one setting that loses the second class, one that splits the first; two seeds of each."""
    return [
        run
        for seed in (0, 1)
        for run in (
            search(SPLIT, seed=seed, clusterer__min_samples=5),
            search(BOTH, seed=seed),
            search(FIRST, seed=seed, compress__n_neighbors=100),
        )
    ]


def test_the_centre_differs_least_from_all_settings():
    sensitivity = Sensitivity(swept(), {})
    assert sensitivity.varied == ("clusterer.min_samples", "compress.n_neighbors")
    assert [setting.name for setting in sensitivity.settings] == ["centre", "min_samples 5", "n_neighbors 100"]
    assert (sensitivity.centre.settings, sensitivity.centre.seed) == (CENTRE, 0)


def test_in_a_full_grid_the_centre_is_in_the_middle():
    grid = [
        search(BOTH, clusterer__min_samples=samples, compress__n_neighbors=neighbors)
        for samples in (100, 5, 20)
        for neighbors in (15, 9, 50)
    ]
    assert Sensitivity(grid, {}).settings[0].values == ("20", "15")


def test_the_centre_may_be_named():
    searches = swept()
    sensitivity = Sensitivity(searches, {}, named=searches[2].name)
    assert [setting.name for setting in sensitivity.settings] == [
        "centre",
        "n_neighbors 15",
        "min_samples 5, n_neighbors 15",
    ]
    with pytest.raises(StoreError, match="no finished search has this name: nowhere"):
        _ = Sensitivity(searches, {}, named="nowhere").settings


def test_the_same_search_twice_counts_once():
    searches = swept()
    sensitivity = Sensitivity([*searches, search(FIRST, name="again")], {})
    assert sensitivity.table.num_rows == len(searches)


def test_classes_are_followed_through_every_setting():
    sensitivity = Sensitivity(swept(), {})
    # Columns: the centre's other seed, the split, the loss.
    np.testing.assert_allclose(sensitivity.living, [[1, 0.5, 1], [1, 1, 0]])
    assert sensitivity.lived_through.tolist() == [2, 1]
    assert sensitivity.lives.num_rows == 2 * 5, "every class in every search but its own"


def test_seeds_are_compared_within_a_setting_and_settings_within_a_seed():
    sensitivity = Sensitivity(swept(), {})
    rows = sensitivity.agreements.to_pylist()
    assert len(rows) == 2 * 3 + 3
    assert all(
        row[tables.SETTING_A] == row[tables.SETTING_B] or row[tables.SEED_A] == row[tables.SEED_B] for row in rows
    )
    matrix = sensitivity.co_assignment
    np.testing.assert_allclose(np.diag(matrix), 1)
    np.testing.assert_allclose(matrix, matrix.T)
    assert 0 < matrix[0, 2] < 1


def test_one_seed_gives_no_agreement_between_seeds():
    sensitivity = Sensitivity([run for run in swept() if run.seed == 0], {})
    assert np.isnan(np.diag(sensitivity.co_assignment)).all()
    assert np.isnan(sensitivity.living[:, 0]).all()
    assert sensitivity.summaries[0].co_assignment is None


def test_numbers_and_sizes_of_classes_are_those_of_the_searches():
    row = Sensitivity(swept(), {}).table.to_pylist()[0]
    assert (row["classes"], row["sizes"], row["unassigned"]) == (2, [60, 40], 0.5)
    assert (row["setting"], row["seed"], row["clusterer.min_samples"]) == ("centre", 0, "20")
    shown = Sensitivity(swept(), {}).summaries[1]
    assert (shown.classes, shown.size, shown.unassigned) == ((3, 3, 3), (30, 30, 40), 0.5)


def test_settings_without_any_class_are_shown_as_such(tmp_path):
    nothing = np.full(GALAXIES, -1)
    sensitivity = Sensitivity([search(nothing), search(nothing, compress__n_neighbors=100)], {})
    page = write_sensitivity_page(tmp_path, sensitivity).read_text()
    assert "The centre found no class." in page
    assert "100 %" in page


def test_the_page_lists_missing_searches_and_needs_no_network(tmp_path):
    sensitivity = Sensitivity(swept(), {"min_samples=<b>": "too few & far"})
    page = write_sensitivity_page(tmp_path, sensitivity).read_text()
    assert "1 search was not finished" in page
    assert "<code>min_samples=&lt;b&gt;</code>: too few &amp; far" in page
    assert "://" not in page
    assert "<script" not in page
    assert (tmp_path / "assets" / "style.css").read_text().startswith("/*")


def finished(folder, name, labels, *, store="store", ids=None, **changed):
    """A job's folder as cluster.py leaves it."""
    place = folder / name
    place.mkdir(parents=True)
    settings = {"store": store, "seed": 0, "clusterer": {"min_samples": 20, **changed}}
    (place / "settings.json").write_text(json.dumps({"verb": "cluster", "settings": settings}))
    run = {"settings": settings, "survey_sha256": "s", "checkpoint_sha256": "c"}
    (place / "run.json").write_text(json.dumps(run))
    names = [f"g{row}" for row in range(GALAXIES)] if ids is None else ids
    zeros = pa.array(np.zeros(GALAXIES, np.float32))
    columns = {"id_str": names, "class_id": pa.array(labels, pa.int32()), "probability": zeros, "outlier_score": zeros}
    tables.write(pa.table(columns), place / "members.parquet", tables.MEMBERS)
    return place


@pytest.fixture
def sweep(tmp_path):
    """A folder with two finished jobs, one that failed and one that was killed."""
    finished(tmp_path, "centre", BOTH)
    finished(tmp_path, "min_samples=5", SPLIT, min_samples=5)
    (tmp_path / "min_samples=999" / ".hydra").mkdir(parents=True)
    note_failure(tmp_path / "min_samples=999", ValueError("200 galaxies are too few"))
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "settings.json").write_text("{}")
    return tmp_path


def test_a_sweep_becomes_a_page_tables_and_a_text(sweep):
    summary = write_sensitivity(sweep, centre="centre")
    assert "missing: killed (not finished)\nmissing: min_samples=999 (200 galaxies are too few)" in summary
    assert "2 of the 2 classes of the centre are kept in every other setting (1)" in summary
    assert "200 galaxies are too few" in (sweep / "index.html").read_text()
    rows = pq.read_table(sweep / "searches.parquet").to_pylist()
    assert [row["search"] for row in rows] == ["centre", "min_samples=5", "killed", "min_samples=999"]
    assert rows[1]["clusterer.min_samples"] == "5"
    assert '"centre","centre",0,2,"60 40",0.5,,"20"' in (sweep / "searches.csv").read_text()
    for name in ("agreements", "lives"):
        rows = pq.read_table(sweep / f"{name}.parquet").num_rows
        assert len((sweep / f"{name}.csv").read_text().splitlines()) == rows + 1
    assert write_sensitivity(sweep, centre="centre") == summary, "the same result from the same files"


def test_searches_of_other_stores_or_galaxies_are_not_mixed(sweep):
    finished(sweep, "stranger", BOTH, ids=[f"x{row}" for row in range(GALAXIES)])
    with pytest.raises(StoreError, match="different galaxies cannot be compared"):
        read_sensitivity(sweep)
    finished(sweep, "other", BOTH, store="elsewhere")
    with pytest.raises(StoreError, match="these differ in store"):
        read_sensitivity(sweep)


def test_a_folder_without_searches_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no finished search in the folder"):
        read_sensitivity(tmp_path)


def test_the_result_is_a_table(sweep):
    frame = read_sensitivity(sweep, centre="centre").to_pandas()
    assert frame["setting"].tolist() == ["centre", "min_samples 5"]
    assert frame["classes"].tolist() == [2, 3]
    assert np.isnan(frame.loc[0, "co_assignment"]), "one seed"
    assert 0 < frame.loc[1, "co_assignment"] < 1
