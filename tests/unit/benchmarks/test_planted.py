"""Planted vectors: what is said of the groups is true of them."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from benchmarks import search
from rarezoo.benchmark.planted import GENERATION, WIDTH, planted_vectors
from rarezoo.errors import ConfigError, OutputError

pytestmark = pytest.mark.unit


def test_groups_have_the_sizes_asked_for_and_the_bulk_is_the_rest():
    planted = planted_vectors(3, galaxies=1500, groups=5, largest=100)
    assert planted.embeddings.shape == (1500, WIDTH)
    assert planted.embeddings.dtype == np.float32
    assert planted.sizes.tolist() == [20, 30, 45, 67, 100]
    assert np.bincount(planted.groups + 1).tolist() == [1500 - 262, 20, 30, 45, 67, 100]


def test_a_seed_is_a_sky():
    first, again, other = (planted_vectors(seed, galaxies=600, groups=3, largest=60).embeddings for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_groups_nothing_is_planted():
    planted = planted_vectors(0, galaxies=400, groups=0)
    assert set(planted.groups) == {-1}
    assert len(planted.sizes) == len(planted.places) == 0


def test_the_bulk_is_redundant():
    """Eight latent directions bent into 128: most variance lies in few components, as in a vote-trained embedding."""
    values = planted_vectors(1, galaxies=1000, groups=0).embeddings
    variances = np.linalg.eigvalsh(np.cov(values.T))[::-1]
    assert variances[:24].sum() / variances.sum() > 0.9


@pytest.mark.parametrize(("bulk", "skies"), [("normal", 5), ("mixture", 16)])
def test_strong_groups_stand_apart_and_faint_ones_hardly(bulk, skies):
    """Within a group's middle half lie the more galaxies of the bulk the fainter it is."""
    crowds, contrasts = [], []
    for seed in range(skies):
        planted = planted_vectors(seed, galaxies=6000, groups=8, smallest=80, largest=120, bulk=bulk)
        for group in np.flatnonzero(np.array(planted.places) != "off"):
            members = planted.embeddings[planted.groups == group]
            radii = np.linalg.norm(planted.embeddings - members.mean(axis=0), axis=1)
            half = np.median(radii[planted.groups == group])
            crowds.append(np.sum((radii < half) & (planted.groups < 0)) / len(members))
            contrasts.append(planted.contrasts[group])
    assert spearmanr(contrasts, crowds, alternative="less").pvalue < 0.01


def test_groups_off_the_manifold_lie_off_it():
    """The directions that the bulk does not use are those of noise, but for groups that were moved."""
    planted = planted_vectors(8, galaxies=3000, groups=9, largest=100)
    bulk = planted.embeddings[planted.groups < 0]
    axes = np.linalg.eigh(np.cov(bulk.T))[1][:, :64]
    off_it = np.linalg.norm((planted.embeddings - bulk.mean(axis=0)) @ axes, axis=1)
    away = [off_it[planted.groups == group].mean() for group in range(9)]
    moved = np.array(planted.places) == "off"
    assert 0 < moved.sum() < 9
    assert min(np.array(away)[moved]) > 1.2 > max(np.array(away)[~moved])


def test_a_mixture_is_another_bulk_with_groups_of_the_same_sizes():
    normal, mixture, again, other = (
        planted_vectors(seed, galaxies=1500, groups=4, largest=80, bulk=bulk)
        for seed, bulk in ((4, "normal"), (4, "mixture"), (4, "mixture"), (5, "mixture"))
    )
    assert mixture.embeddings.shape == (1500, WIDTH)
    assert mixture.embeddings.dtype == np.float32
    assert mixture.sizes.tolist() == normal.sizes.tolist()
    assert np.bincount(mixture.groups + 1).tolist() == [1500 - mixture.sizes.sum(), *mixture.sizes]
    assert np.array_equal(again.embeddings, mixture.embeddings)
    assert not np.array_equal(other.embeddings, mixture.embeddings)
    assert not np.array_equal(normal.embeddings, mixture.embeddings)


def test_the_kinds_of_a_mixture_are_several_and_overlap():
    """Eight normal distributions describe other galaxies of a mixture better than one does."""
    gains = {}
    for bulk in ("normal", "mixture"):
        values = planted_vectors(2, galaxies=4000, groups=0, bulk=bulk).embeddings
        scores = PCA(8, random_state=0).fit_transform(values)
        one, several = (GaussianMixture(kinds, random_state=0).fit(scores[:2000]) for kinds in (1, 8))
        gains[bulk] = several.score(scores[2000:]) - one.score(scores[2000:])
    assert gains["mixture"] > max(0.3, 2 * gains["normal"])
    # Of many galaxies it cannot be said with certainty which kind they are.
    certainties = several.predict_proba(scores[2000:]).max(axis=1)
    assert np.mean(certainties < 0.9) > 0.01


def test_an_unknown_bulk_is_refused():
    with pytest.raises(ConfigError, match=r"unknown bulk: flat\. Choose one of: normal, mixture"):
        planted_vectors(0, galaxies=400, groups=0, bulk="flat")


# By generation, of four groups of 20 to 200 in 2,000: sizes, contrasts, places, mean norms of the bulk and the groups.
SKIES = {
    2: (
        [20, 43, 93, 200],
        [1.61, 25.26, 6.8, 42.11],
        ("edge", "off", "inside", "off"),
        [12.509, 17.489, 11.919, 7.693, 8.245],
    )
}


def test_a_generation_is_a_sky():
    """Whoever changes what is drawn must raise GENERATION, and write down here what it draws."""
    planted = planted_vectors(0, galaxies=2000, groups=4, largest=200)
    norms = np.linalg.norm(planted.embeddings, axis=1)
    means = [round(float(norms[planted.groups == group].mean()), 3) for group in range(-1, 4)]
    result = (planted.sizes.tolist(), planted.contrasts.round(2).tolist(), planted.places, means)
    assert result == SKIES[GENERATION]


@pytest.mark.parametrize(("generation", "words"), [({}, "unknown"), ({"generation": 1}, "1")])
def test_a_search_measured_on_older_skies_is_refused(tmp_path, generation, words):
    job = search.SearchJob(way="ours", galaxies=2000, sky=0, seed=0, threads=1, min_samples=10)
    path = tmp_path / f"{job.name}.json"
    path.write_text(json.dumps({"search s": 1.0, **generation}))
    message = rf"another generator drew: .*\(generation {words}, now {GENERATION}\)[.] Choose another out="
    with pytest.raises(OutputError, match=message):
        search.measured(job, tmp_path)
    path.write_text(json.dumps({"search s": 1.0, "generation": GENERATION}))
    assert search.measured(job, tmp_path)["search s"] == 1.0


@pytest.mark.parametrize("wrong", [{"galaxies": 300}, {"smallest": 200}, {"groups": -1}, {"smallest": 0}])
def test_groups_without_a_bulk_are_refused(wrong):
    with pytest.raises(ConfigError, match="must leave a bulk"):
        planted_vectors(0, **{"galaxies": 1000, "groups": 4, "largest": 100, **wrong})
