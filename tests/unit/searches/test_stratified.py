"""The sample of a large store: of the wanted size, with the rare corners, and independent of the order."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.data.survey import Galaxies, catalogue_table
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.select import Select
from rarezoo.searches.stratified import (
    Counts,
    Strata,
    drawn_rows,
    exact_sample,
    hashes_of,
    kept_rows,
    keys_of,
    refuse_doubled_ids,
)

pytestmark = pytest.mark.unit
GALAXIES = 20_000


def sample_of(ids, codes, size):
    values, numbers = np.unique(codes, return_counts=True)
    counts = dict(zip(values.tolist(), numbers.tolist(), strict=True))
    allotted = Counts(counts, len(ids), len(ids)).allotted(size)
    keys = keys_of(ids, seed=1)
    candidates = drawn_rows(codes, keys, allotted, counts)
    chosen = candidates[exact_sample(codes[candidates], keys[candidates], allotted)]
    return set(ids[chosen].tolist()), len(candidates)


def test_the_sample_has_its_size_and_the_rare_strata_whatever_the_order():
    ids = np.array([f"g{row}" for row in range(GALAXIES)], dtype=object)
    codes = np.where(np.arange(GALAXIES) < 15, 7, np.arange(GALAXIES) % 3).astype(np.uint64)
    sample, candidates = sample_of(ids, codes, 2000)
    assert len(sample) == 2000
    assert candidates < 2600
    assert {f"g{row}" for row in range(15)} <= sample
    order = np.random.default_rng(0).permutation(GALAXIES)
    assert sample_of(ids[order], codes[order], 2000)[0] == sample


@pytest.mark.parametrize("strata", [5, 700, 5000])
def test_the_sample_has_exactly_its_size_also_if_most_strata_are_too_small_for_one_galaxy(strata):
    ids = np.array([f"g{row}" for row in range(6000)], dtype=object)
    groups = np.random.default_rng(3).zipf(1.3, 6000) % strata
    codes = hashes_of(groups.astype(str).astype(object))
    chosen = np.isin(ids, list(sample_of(ids, codes, 700)[0]))
    assert chosen.sum() == 700
    # Small strata together have their share, or more: none of them is forgotten.
    count_of = dict(zip(*np.unique(codes, return_counts=True), strict=True))
    small = np.array([count_of[code] <= 5 for code in codes])
    if small.any():
        assert chosen[small].mean() > 0.8 * 700 / 6000


def test_a_sample_larger_than_the_survey_is_the_survey():
    ids = np.array([f"g{row}" for row in range(50)], dtype=object)
    assert len(sample_of(ids, np.zeros(50, dtype=np.uint64), 100)[0]) == 50


def test_answers_sky_and_magnitude_make_strata():
    fractions = pa.table({"id_str": ["a", "b", "c", "d"], "bar_yes_fraction": [0.1, 0.9, 0.1, float("nan")]})
    positions = {"ra": [0.0, 0.0, 359.9, 0.0], "dec": [90.0, 90.0, 90.0, 90.0]}
    catalogue = catalogue_table(
        list("abcd"), list("abcd"), survey="s", source="s", columns=pa.table({"mag": [17.0, 17, 17, 21]}), **positions
    )
    galaxies = Galaxies(catalogue, None)
    codes = Strata(magnitude="mag").codes(fractions, galaxies)
    assert len(set(codes.tolist())) == 4
    assert len(set(Strata().codes(fractions, None).tolist())) == 2
    assert set(Strata().codes(fractions.select(["id_str"]), None).tolist()) == {0}


@pytest.mark.parametrize(("magnitude", "message"), [("mug", "mug.*mag"), ("name", "numbers.*name")])
def test_a_column_that_holds_no_magnitudes_is_refused(magnitude, message):
    columns = pa.table({"mag": [17.0], "name": ["a"]})
    catalogue = catalogue_table(["a"], ["a"], survey="s", source="s", ra=[0.0], dec=[0.0], columns=columns)
    with pytest.raises(ConfigError, match=message):
        Strata(magnitude=magnitude).codes(pa.table({tables.ID: ["a"]}), Galaxies(catalogue, None))


def test_ids_in_two_parts_are_refused(tmp_path):
    ids = np.array([f"g{row}" for row in range(1000)], dtype=object)
    for number, part in enumerate((ids[:500], ids[500:])):
        np.save(tmp_path / f"{number}.npy", hashes_of(part))
    refuse_doubled_ids(sorted(tmp_path.glob("*.npy")))
    np.save(tmp_path / "2.npy", hashes_of(ids[7:8]))
    with pytest.raises(StoreError, match=r"1 ids, in parts \[0, 2\]"):
        refuse_doubled_ids(sorted(tmp_path.glob("*.npy")))


def test_embeddings_that_are_not_finite_stop_the_search_or_are_left_out(tmp_path):
    shard = pa.table({tables.ID: ["a", "b"]})
    vectors = np.array([[1.0, np.nan], [1.0, 2.0]])
    with pytest.raises(StoreError, match=r"a.*not_finite=drop"):
        kept_rows(Select(), shard, vectors, folder=tmp_path)
    assert kept_rows(Select(not_finite="drop"), shard, vectors, folder=tmp_path).tolist() == [False, True]
