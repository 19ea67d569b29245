"""Metrics against numbers worked out by hand, and calibration against draws from the model itself."""

import numpy as np
import pytest

from rarezoo.data.trees import Question, QuestionTree
from rarezoo.train.metrics import card_rows, mean_concentrations, question_metrics

pytestmark = pytest.mark.unit
TREE = QuestionTree("two", (Question("shape", ("shape_a", "shape_b")), Question("bar", ("bar_a", "bar_b"))))


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
    return np.array([random.multinomial(votes, one) for one in shares], np.float32)


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


def test_card_rows_stand_beside_the_mean():
    metrics = question_metrics(np.ones((1, 4), np.float32), np.array([[20, 5, 1, 0]], np.float32), TREE)
    row = card_rows(metrics, metrics)[0]
    assert row["loss"] == row["mean_loss"]
    assert row["question"] == "shape"
