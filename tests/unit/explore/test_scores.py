"""Scores: cosine and probe are those of their definitions, and a probe finds what no distance finds."""

import numpy as np
import pytest

from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import ConfigError
from rarezoo.explore import scores as module
from rarezoo.explore.scores import AGAINST, scores_of, whitening_of

pytestmark = pytest.mark.unit
# Rare galaxies differ from the others along the last axis alone, which has a third of the scale of every other axis.
RARE = 40


@pytest.fixture(scope="module")
def world():
    vectors = np.random.default_rng(0).normal(size=(3000, 20))
    vectors[:RARE, -1] += 4
    vectors[:, :-1] *= 3
    index = NeighbourIndex(vectors.astype(np.float32), metric="cosine", exact=True)
    return index, (vectors - index.centred.mean).astype(np.float32)


def found(scores, among=RARE, leave_out=()):
    values = scores.values.copy()
    values[list(leave_out)] = -np.inf
    return float(np.mean(np.argsort(-values)[:20] < among))


def test_the_cosine_with_one_example_is_that_of_the_definition(world):
    index, centred = world
    scores = scores_of(index, centred[:1], by="cosine")
    expected = centred @ centred[0] / np.linalg.norm(centred, axis=1) / np.linalg.norm(centred[0])
    np.testing.assert_allclose(scores.values, expected, atol=1e-5)
    assert scores.way.startswith("cosine with the example")


def test_several_examples_are_asked_by_their_mean_direction(world):
    index, centred = world
    directions = centred[:2] / np.linalg.norm(centred[:2], axis=1, keepdims=True)
    scores = scores_of(index, centred[:2], by="cosine")
    assert np.argmax(scores.values) in (0, 1)
    mean = directions.mean(axis=0) / np.linalg.norm(directions.mean(axis=0))
    np.testing.assert_allclose(scores.values[5], centred[5] @ mean / np.linalg.norm(centred[5]), atol=1e-5)
    assert "mean direction of 2 examples" in scores.way


def test_a_probe_finds_what_no_distance_finds(world):
    index, centred = world
    examples = centred[:8]
    by_cosine, by_probe = (scores_of(index, examples, by=by) for by in ("cosine", "probe"))
    assert found(by_probe, leave_out=range(8)) > found(by_cosine, leave_out=range(8)) + 0.2


def test_one_example_is_enough_for_a_probe(world):
    index, centred = world
    shares = [
        [found(scores_of(index, centred[row : row + 1], by=by), leave_out=[row]) for row in range(RARE)]
        for by in ("cosine", "auto")
    ]
    assert np.mean(shares[1]) > np.mean(shares[0]) + 0.1


def test_a_probe_is_the_cosine_after_whitening(world):
    index, centred = world
    values = scores_of(index, centred[:3], centred[100:102]).values
    about = centred.astype(float)
    covariance = about.T @ about / len(about)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 20 * np.eye(20)
    whitened = about @ np.linalg.cholesky(np.linalg.inv(shrunk))
    units = whitened / np.linalg.norm(whitened, axis=1, keepdims=True)
    direction = units[:3].mean(axis=0) - AGAINST * units[100:102].mean(axis=0)
    np.testing.assert_allclose(values, units @ direction / np.linalg.norm(direction), atol=1e-4)
    # The same from a whitening that was made before.
    whitening = whitening_of(centred)
    again = scores_of(
        index, centred[:3], centred[100:102], whitening=whitening, whitened=whitening.lengths(index)
    ).values
    np.testing.assert_allclose(again, values, atol=1e-5)


def test_few_galaxies_have_a_probe_too():
    for vectors in (np.eye(3), np.array([[1.0, 2], [1, 1], [1, 1], [1, 1]]), np.array([[0.0, 1], [1, 0]])):
        index = NeighbourIndex(vectors.astype(np.float32), metric="cosine", exact=True)
        about = (vectors - index.centred.mean).astype(np.float32)
        scores = scores_of(index, about[:1]).values
        assert np.isfinite(scores).all()
        assert np.argmax(scores) == 0


def test_what_is_asked_by_a_probe(world):
    index, centred = world
    assert scores_of(index, centred[:1]).way.startswith("probe")
    counter = scores_of(index, centred[:1], centred[100:102])
    assert counter.way.startswith("probe")
    assert "cosine with the example, less 0.2 × the mean direction of 2 counter-examples" in counter.way
    assert scores_of(index, centred[:3], by="cosine").way.startswith("cosine")


def test_a_counter_example_lowers_the_score_of_galaxies_like_it(world):
    index, centred = world
    like = centred[500:501] + 0.01
    without = scores_of(index, centred[:3], by="probe").values
    with_it = scores_of(index, centred[:3], np.repeat(like, 3, axis=0)).values
    assert with_it[500] < without[500]


def test_the_same_seed_gives_the_same_scores(world, monkeypatch):
    monkeypatch.setattr(module, "BACKGROUND", 500)
    index, centred = world
    once, again, other = (scores_of(index, centred[:4], seed=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_vectors_that_are_not_finite_have_no_score():
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    vectors[7] = np.nan
    index = NeighbourIndex(vectors, metric="cosine", exact=True)
    centred = vectors - index.centred.mean
    for by in ("cosine", "probe"):
        scores = scores_of(index, centred[:3], by=by)
        assert np.flatnonzero(np.isnan(scores.values)).tolist() == [7]


def test_what_cannot_be_ranked_is_refused(world):
    index, centred = world
    with pytest.raises(ConfigError, match="counter-examples need a probe: by=cosine"):
        scores_of(index, centred[:1], centred[1:2], by="cosine")
    for by in ("cosine", "probe"):
        with pytest.raises(ConfigError, match="no common direction"):
            scores_of(index, np.stack([centred[0], -centred[0]]), by=by)
