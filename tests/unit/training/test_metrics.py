"""Metrics against numbers worked out by hand, and calibration against draws from the model itself."""

import numpy as np
import pytest

from rarezoo.data.trees import Question, QuestionTree
from rarezoo.training.metrics import (
    QuestionMetrics,
    card_rows,
    galaxy_scores,
    linear_concentrations,
    mean_concentrations,
)

pytestmark = pytest.mark.unit
TREE = QuestionTree("two", (Question("shape", ("shape_a", "shape_b")), Question("bar", ("bar_a", "bar_b"))))


def question_metrics(alpha, votes, tree):
    scores = galaxy_scores(alpha, votes, tree)
    return [QuestionMetrics.of(question.name, of) for question, of in zip(tree.questions, scores, strict=True)]


def test_errors_are_over_well_observed_galaxies_only():
    alpha = np.array([[5, 5, 1, 1], [8, 2, 1, 1], [1, 9, 1, 1]], np.float32)
    votes = np.array([[30, 10, 0, 0], [16, 4, 0, 0], [3, 0, 0, 0]], np.float32)
    shape, bar = question_metrics(alpha, votes, TREE)
    assert (shape.galaxies, shape.well_observed) == (3, 2)
    assert shape.mae == pytest.approx(0.125)  # |0.5 − 0.75| twice, |0.8 − 0.8| twice
    assert shape.rmse == pytest.approx(np.sqrt(0.25**2 / 2))
    assert (bar.galaxies, bar.loss, bar.rmse, bar.coverage_50) == (0, None, None, None)


def drawn(alpha, galaxies, votes, seed=0):
    random = np.random.default_rng(seed)
    shares = random.dirichlet(alpha, galaxies)
    return np.array([random.multinomial(votes, share) for share in shares], np.float32)


@pytest.mark.parametrize("spread", [1.0, 8.0, 50.0])
def test_coverage_of_draws_from_the_model_itself_is_nominal(spread):
    alpha = np.array([3.0, 2.0]) * spread
    votes = np.hstack([drawn(alpha, 4000, 40), np.zeros((4000, 2), np.float32)])
    shape, _ = question_metrics(np.tile([*alpha, 1, 1], (4000, 1)).astype(np.float32), votes, TREE)
    # Votes come in whole numbers: intervals that take in their edges cover a little more.
    assert 0.48 <= shape.coverage_50 <= 0.62
    assert 0.88 <= shape.coverage_90 <= 0.96


def test_overconfident_predictions_cover_too_little():
    votes = np.hstack([drawn(np.array([3.0, 2.0]), 1000, 40), np.zeros((1000, 2), np.float32)])
    shape, _ = question_metrics(np.tile([60.0, 40, 1, 1], (1000, 1)).astype(np.float32), votes, TREE)
    assert shape.coverage_90 < 0.7


def test_the_mean_baseline_finds_mean_and_spread_of_what_it_saw():
    votes = np.hstack([drawn(np.array([6.0, 2.0]), 3000, 40), np.zeros((3000, 2), np.float32)])
    alpha = mean_concentrations(votes, TREE, galaxies=2)
    assert alpha.shape == (2, 4)
    assert alpha[0, 0] / alpha[0, :2].sum() == pytest.approx(0.75, abs=0.02)
    assert 6 < alpha[0, :2].sum() < 11


def test_the_linear_baseline_reads_votes_off_features_and_beats_the_mean():
    random = np.random.default_rng(0)
    features = random.normal(size=(900, 3)).astype(np.float32)
    share = 1 / (1 + np.exp(-2 * features[:, 0]))
    smooth = random.binomial(40, share)
    votes = np.stack([smooth, 40 - smooth, 0 * smooth, 0 * smooth], axis=1).astype(np.float32)
    training, wanted = np.arange(600), np.arange(600, 900)
    linear = linear_concentrations(features, training, votes[training], TREE, wanted=wanted)
    mean = mean_concentrations(votes[training], TREE, galaxies=300)
    ours, theirs = (question_metrics(predicted, votes[wanted], TREE)[0] for predicted in (linear, mean))
    assert ours.rmse < 0.12 < 0.25 < theirs.rmse
    assert ours.loss < theirs.loss


def test_card_rows_stand_beside_the_baselines_with_paired_gains():
    votes = np.array([[20, 5, 1, 0], [5, 20, 0, 0], [12, 13, 0, 0]], np.float32)
    good, poor = (galaxy_scores(alpha, votes, TREE) for alpha in (votes + 1, np.full((3, 4), 50, np.float32)))
    shape, bar = card_rows(good, {"mean": poor}, TREE)
    assert shape["question"] == "shape"
    assert shape["mean_gain"] == pytest.approx(shape["mean_loss"] - shape["loss"])
    low, high = shape["mean_gain_interval"]
    assert low <= shape["mean_gain"] <= high
    assert (bar["galaxies"], bar["mean_gain_interval"], bar["rmse"]) == (1, None, None)
