"""Intervals against what they promise and against scipy, and when a population counts as found."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from rarezoo import statistics
from rarezoo.statistics import Recovery, bootstrap_draws, bootstrap_interval, students_interval

pytestmark = pytest.mark.unit


def test_an_interval_holds_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        _, low, high = bootstrap_interval(random.exponential(2.0, 120), draws=1000)
        held += low <= 2.0 <= high
    assert 50 <= held <= 60


def test_the_interval_of_a_ratio_of_paired_samples_is_that_of_scipy():
    first = np.random.default_rng(5).exponential(size=137)
    second = first**2 + 1
    value, low, high = bootstrap_interval(
        first, second, statistic=lambda numerator, other: numerator.mean(axis=-1) / other.mean(axis=-1)
    )
    expected = bootstrap(
        (first, second), lambda numerator, other, axis: numerator.mean(axis=axis) / other.mean(axis=axis), paired=True,
        vectorized=True, n_resamples=2000, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert value == pytest.approx(first.mean() / second.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("size", [7, 50, 131])
def test_the_draws_do_not_depend_on_the_size_of_a_block(size, monkeypatch):
    values = np.random.default_rng(1).normal(size=size)
    whole = bootstrap_draws(values, draws=100)
    monkeypatch.setattr(statistics, "_BLOCK", 60)
    np.testing.assert_array_equal(bootstrap_draws(values, draws=100), whole)


def test_a_single_value_has_no_interval_and_an_empty_sample_no_value():
    for interval in (bootstrap_interval(np.array([2.0])), students_interval(np.array([2.0]))):
        assert interval.value == 2
        assert np.isnan(interval[1:]).all()
    assert np.isnan(bootstrap_interval(np.array([]))).all()


def test_students_interval_is_wider_than_the_bootstraps_where_values_are_few():
    values = np.array([1.0, 2.0, 4.0])
    student, resampled = students_interval(values), bootstrap_interval(values)
    assert student.low < resampled.low < resampled.high < student.high


def test_a_population_is_found_by_a_class_that_is_mostly_it_and_holds_most_of_it():
    counts = np.array([[6, 4, 0], [1, 0, 9], [0, 5, 0]])
    recovery = Recovery.of(counts, populations=np.array([10, 10, 10]), classes=np.array([11, 9, 20]))
    # The first is pure and complete, the second complete in an impure class; exactly half of the third is not enough.
    assert recovery.found.tolist() == [True, False, False]
    assert recovery.complete[1].tolist() == [False, False, True]
    assert recovery.pure[2].tolist() == [False, True, False]
