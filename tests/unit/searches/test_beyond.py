"""The share of a class beyond the answers is 0 if the answers make the class, and 1 if they do not."""

import numpy as np
import pytest
from scipy.special import logit, softmax

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.searches.beyond import BEYOND, NAMED, UNCLEAR, beyond_columns, beyond_labels

pytestmark = pytest.mark.unit

CLASSES, MEMBERS = 2, 60


def sky(*, hidden, seed=0, galaxies=700, width=16, curved=True):
    """Embeddings of three questions' answers, and two groups apart by their answers or by what is hidden."""
    random = np.random.default_rng(seed)
    kinds, secrets = random.normal(size=(galaxies, 4)), random.normal(size=(galaxies, 3))
    labels = np.full(galaxies, -1, dtype=np.int32)
    for number in range(CLASSES):
        rows = slice(number * MEMBERS, (number + 1) * MEMBERS)
        labels[rows] = number
        standing = secrets if hidden else kinds
        standing[rows] = (number - 0.5) * 4 + 0.3 * random.normal(size=(MEMBERS, standing.shape[1]))
    voted = kinds @ np.random.default_rng(99).normal(size=(4, 7))
    fractions = np.hstack([softmax(voted[:, part], axis=1) for part in (slice(3), slice(3, 5), slice(5, 7))])
    seen = logit(np.clip(fractions, 0.01, 0.99)) @ random.normal(size=(7, width)) * 0.3
    embeddings = (np.tanh(seen) if curved else seen) + fractions @ random.normal(size=(7, width))
    embeddings += 0.6 * secrets @ random.normal(size=(3, width)) if hidden else 0
    return embeddings + 0.4 * random.normal(size=embeddings.shape), fractions, labels


def measured(embeddings, fractions, labels, **settings):
    return beyond_labels(embeddings, labels=labels, classes=CLASSES, fractions=fractions, **settings)


@pytest.mark.parametrize("curved", [False, True])
def test_a_class_that_the_answers_make_is_named_by_the_votes(curved):
    for measurement in measured(*sky(hidden=False, curved=curved)):
        assert measurement.verdict == NAMED, measurement.reason
        assert measurement.low <= measurement.share <= measurement.high < 0.3


@pytest.mark.parametrize("curved", [False, True])
def test_a_class_that_a_hidden_factor_makes_is_beyond(curved):
    for measurement in measured(*sky(hidden=True, curved=curved)):
        assert measurement.verdict == BEYOND, measurement.reason
        assert measurement.share > 0.6
        assert measurement.low > 0.25


def test_concentrations_are_regressed_out_too():
    embeddings, fractions, labels = sky(hidden=True)
    alphas = 1 + 99 * fractions
    assert {measurement.verdict for measurement in measured(embeddings, fractions, labels, concentrations=alphas)} == {
        BEYOND
    }
    scale = np.where(labels[:, None] == 0, 8.0, 1.0) * np.ones_like(fractions)
    first, second = measured(embeddings, fractions, labels, concentrations=scale * alphas)
    assert first.verdict != BEYOND
    assert second.verdict == BEYOND


def test_a_random_group_has_no_separation_to_share_out():
    embeddings, fractions, labels = sky(hidden=False)
    blind = np.random.default_rng(1).permutation(labels)
    for measurement in measured(embeddings, fractions, blind):
        assert (measurement.share, measurement.verdict) == (None, UNCLEAR)
        assert "no linear separation" in measurement.reason


def test_the_same_seed_gives_the_same_result_with_unknown_fractions_too():
    embeddings, fractions, labels = sky(hidden=True)
    fractions[::7] = np.nan
    first, second = (measured(embeddings.astype(np.float16), fractions, labels, seed=3) for _ in range(2))
    assert first == second
    assert {judgement.verdict for judgement in first} == {BEYOND}


def test_without_answers_or_members_nothing_is_measured():
    embeddings, fractions, labels = sky(hidden=True)
    for empty in (np.empty((len(labels), 0)), np.full_like(fractions, 0.5), np.full_like(fractions, np.nan)):
        assert [measurement.reason for measurement in measured(embeddings, empty, labels)] == [
            "there are no predicted answers"
        ] * 2
    labels[labels == 1] = -1
    labels[:5] = 1
    few = measured(embeddings, fractions, labels)[1]
    assert (few.share, few.verdict, few.reason) == (None, None, "5 members are too few")
    assert beyond_labels(embeddings, labels=labels, classes=0, fractions=fractions) == []


def test_embeddings_that_are_not_finite_are_refused():
    embeddings, fractions, labels = sky(hidden=False)
    embeddings[3, 2] = np.nan
    with pytest.raises(StoreError, match="not finite"):
        measured(embeddings, fractions, labels)


def test_columns_fit_the_class_table():
    columns = beyond_columns(measured(*sky(hidden=True)))
    assert set(columns) <= set(tables.CLASSES.columns)
    assert columns[tables.BEYOND_VERDICT] == [BEYOND, BEYOND]
