"""A class of two physical kinds splits; skewed properties, correlated ones and random groups do not."""

import numpy as np
import pytest
from physical_skies import sky

from rarezoo.physical.properties import Property
from rarezoo.physical.substructure import splits

pytestmark = pytest.mark.unit


def galaxies(random, *, apart=0.0):
    labels, covariates, colour = sky(random, galaxies=1500, members=80, classes=2)
    further = np.exp(random.normal(size=1500)) + colour
    second = (labels == 1) & (np.arange(1500) % 2 == 0)
    given = [Property("colour", "number", colour + apart * second), Property("skewed", "number", further)]
    return given, covariates, labels


def test_only_the_class_of_two_kinds_splits_and_the_property_is_named():
    one, two = splits(*galaxies(np.random.default_rng(0), apart=2.0))
    assert two.splits
    assert not one.splits
    assert two.share > 0.3
    assert "most in colour" in str(two)


def test_random_groups_with_skewed_and_correlated_properties_do_not_split():
    random = np.random.default_rng(1)
    assert not [one for _ in range(12) for one in splits(*galaxies(random)) if one.splits]


def test_a_class_with_few_members_or_no_numbers_is_not_tested():
    given, covariates, labels = galaxies(np.random.default_rng(2))
    labels[20:80] = -1
    few, _ = splits(given, covariates, labels)
    assert "20 members" in few.why
    (one, _) = splits([Property("bar", "share", np.ones(1500))], covariates, labels)
    assert "no number" in str(one)
