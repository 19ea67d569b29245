"""Does a class come back: refits by a pipeline that is known, kept as they are made."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.stability import Refit, Stability, stabilities

pytestmark = pytest.mark.unit

IDS = np.array([f"g{row:03d}" for row in range(100)], dtype=object)
EMBEDDINGS = np.arange(100, dtype=np.float32)[:, None]


def thirds(embeddings, *, ids, seed):
    """Below 30: one class. 30 to 60: a class in every other seed only. The rest: none."""
    values = embeddings[:, 0]
    return np.where(values < 30, 0, np.where((values < 60) & (seed % 2 == 0), 1, -1))


def refits(setting, pipeline=thirds, **about):
    return setting.refits_of(EMBEDDINGS, pipeline, ids=IDS, **about)


def test_every_second_refit_is_of_a_subsample():
    repeated = refits(Stability(refits=4, share=0.8), seed=3)
    assert [refit.name for refit in repeated] == ["other seed 1", "subsample 2", "other seed 3", "subsample 4"]
    assert [len(refit.rows) for refit in repeated] == [100, 80, 100, 80]
    assert set(repeated[1].rows) != set(repeated[3].rows)


def test_a_class_that_always_comes_back_and_one_that_does_not():
    labels = thirds(EMBEDDINGS, ids=IDS, seed=0)
    others = [Refit(str(seed), np.arange(100), thirds(EMBEDDINGS, ids=IDS, seed=seed)) for seed in (2, 3, 4, 5)]
    measured = stabilities(labels, others)
    np.testing.assert_allclose(measured.means, [1.0, 0.5])
    np.testing.assert_allclose(measured.survived, [1.0, 0.5])


def test_jaccard_is_over_the_galaxies_of_the_refit():
    labels = np.array([0, 0, 0, 0, -1, -1])
    measured = stabilities(labels, [Refit("part", np.array([0, 1, 4]), np.array([7, 7, 7]))])
    np.testing.assert_allclose(measured.jaccards, [[2 / 3]])


def test_a_class_that_no_refit_saw_is_not_measured():
    labels = np.array([0, 0, 1, 1])
    measured = stabilities(labels, [Refit("part", np.array([0, 1]), np.array([0, 0]))])
    assert measured.means[0] == 1
    assert np.isnan(measured.means[1])
    assert np.isnan(measured.survived[1])
    assert measured.table().to_pylist()[1] == {"class_id": 1, "refit": "part", "jaccard": None}


def test_subsamples_do_not_depend_on_the_order_of_the_rows():
    turned = np.random.default_rng(0).permutation(100)
    straight = refits(Stability(refits=2))[1]
    other = Stability(refits=2).refits_of(EMBEDDINGS[turned], thirds, ids=IDS[turned])[1]
    assert set(IDS[straight.rows]) == set(IDS[turned][other.rows])


def test_a_killed_measurement_goes_on(tmp_path):
    calls = []

    def killed(embeddings, *, ids, seed):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return thirds(embeddings, ids=ids, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        refits(Stability(refits=4), killed, folder=tmp_path)
    repeated = refits(Stability(refits=4), killed, folder=tmp_path)
    assert len(calls) == 5, "two were kept"
    for refit, other in zip(repeated, refits(Stability(refits=4)), strict=True):
        np.testing.assert_array_equal(refit.labels, other.labels)
        np.testing.assert_array_equal(refit.rows, other.rows)


def test_refits_of_another_pipeline_are_made_again(tmp_path, caplog):
    refits(Stability(refits=1), folder=tmp_path, made_with={"n_neighbors": 15})
    repeated = refits(
        Stability(refits=1), lambda values, **_: np.full(len(values), -1), folder=tmp_path, made_with={"n_neighbors": 9}
    )
    assert (repeated[0].labels == -1).all()
    assert "is made again" in caplog.text


def test_a_refit_of_too_few_galaxies_is_left_out_and_said(caplog):
    def choosy(embeddings, *, ids, seed):
        if len(ids) < 100:
            raise ConfigError("80 galaxies are too few", value=80, fix="Search more.")
        return thirds(embeddings, ids=ids, seed=seed)

    assert [refit.name for refit in refits(Stability(refits=2), choosy)] == ["other seed 1"]
    assert "left out of stability, subsample 2 of 80 galaxies: 80 galaxies are too few" in caplog.text


def store(folder, ids, values):
    manifest = Manifest(
        survey="mock", survey_sha256="s", survey_settings={}, checkpoint="other", checkpoint_sha256="c",
        precision="float32", width=1, dtype="float32", rows=len(ids), shard_rows=40, answers=(),
    )  # fmt: skip
    written = EmbeddingStore.create(folder, manifest)
    for shard in range(manifest.shards):
        rows = manifest.rows_of(shard)
        written.write_shard(shard, ids=ids[rows], embeddings=values[rows], fractions=np.empty((len(ids[rows]), 0)))
    return str(folder)


def test_another_network_is_aligned_by_id(tmp_path):
    turned = np.random.default_rng(0).permutation(100)[:60]
    folder = store(tmp_path / "store", list(IDS[turned]), EMBEDDINGS[turned])
    (repeated,) = refits(Stability(refits=0, stores=[folder]), seed=1)
    np.testing.assert_array_equal(repeated.rows, np.sort(turned))
    np.testing.assert_array_equal(repeated.labels, np.where(repeated.rows < 30, 0, -1))


def test_what_cannot_be_refitted_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"stability\.refits must be at least 0: -1"):
        Stability(refits=-1)
    with pytest.raises(ConfigError, match=r"stability\.share must be more than 0: 0"):
        Stability(share=0)
    with pytest.raises(StoreError, match="no embedding store"):
        Stability(stores=[str(tmp_path)]).check_stores()
    folder = store(tmp_path / "store", ["x", "y"], EMBEDDINGS[:2])
    with pytest.raises(StoreError, match="no galaxy in common with this search"):
        refits(Stability(refits=0, stores=[folder]))


def test_stability_is_added_to_classes():
    labels = np.array([0, 0, 1, 1, -1])
    measured = stabilities(labels, [Refit("one", np.arange(5), np.array([0, 0, 1, -1, -1]))])
    blank = {name: pa.nulls(2, kind) for name, kind in tables.CLASSES.columns.items()}
    classes = pa.table({**blank, tables.CLASS_ID: pa.array([1, 0], pa.int32())})
    added = tables.check(measured.added_to(classes), tables.CLASSES)
    assert added[tables.STABILITY].to_pylist() == [0.5, 1.0]
    assert added[tables.SURVIVED].to_pylist() == [1.0, 1.0]
