"""Controls are alike in the covariates, belong to no class, and do not depend on the order of the rows."""

import numpy as np
import pytest

from rarezoo.errors import ConfigError
from rarezoo.physical.controls import BALANCED, Matching, Roles, chosen_covariates

pytestmark = pytest.mark.unit
IDS = [f"g{row:04d}" for row in range(4000)]


def galaxies(*, shift=0.6, members=50, count=1500, seed=0):
    random = np.random.default_rng(seed)
    labels = np.where(np.arange(count) < members, 3, np.where(np.arange(count) < members + 100, 7, -1))
    mass = random.normal(10, 0.5, count) + shift * (labels == 3)
    return labels, {"log_mass": mass, "size": random.gamma(4, 1, count) + (mass - 10)}


@pytest.mark.parametrize("distance", ["mahalanobis", "propensity"])
def test_controls_balance_a_class_that_is_more_massive(distance):
    labels, covariates = galaxies()
    matched = Matching(distance=distance).match(covariates, labels, 3, ids=IDS[:1500])
    assert matched.is_balanced
    assert max(abs(one.before) for one in matched.balance) > 0.8
    assert max(abs(one.after) for one in matched.balance) < BALANCED
    assert set(labels[matched.pool]) == {-1}
    assert len(set(matched.pool)) == len(matched.pool) >= 2 * len(matched.members)
    assert set(matched.members) <= set(np.flatnonzero(labels == 3))


def test_controls_do_not_depend_on_the_order_of_the_rows():
    labels, covariates = galaxies()
    ids = np.array(IDS[:1500])
    order = np.random.default_rng(1).permutation(1500)
    one = Matching().match(covariates, labels, 3, ids=ids)
    other = Matching().match({name: values[order] for name, values in covariates.items()}, labels[order], 3,
                             ids=ids[order])  # fmt: skip
    pairs = [
        {(ids_[member], ids_[control]) for member, row in zip(found.members, found.controls, strict=True)
         for control in row if control >= 0}
        for found, ids_ in ((one, ids), (other, ids[order]))
    ]  # fmt: skip
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shift": 6.0}, "members have a like galaxy"),
        ({"members": 1}, "only 1 of 1 members"),
        ({"members": 5}, "only 5 of 5 members"),
    ],
)
def test_a_class_that_cannot_be_matched_says_why(changes, says):
    labels, covariates = galaxies(**changes)
    matched = Matching().match(covariates, labels, 3, ids=IDS[:1500])
    assert not matched.is_balanced
    assert says in matched.reason
    assert not len(matched.members)


def test_galaxies_with_unknown_covariates_are_neither_members_nor_controls():
    labels, covariates = galaxies()
    covariates["log_mass"][::3] = np.nan
    matched = Matching().match(covariates, labels, 3, ids=IDS[:1500])
    assert np.isfinite(covariates["log_mass"][np.concatenate([matched.members, matched.pool])]).all()
    covariates["log_mass"][10:50] = np.nan
    reason = Matching().match(covariates, labels, 3, ids=IDS[:1500]).reason
    assert "known for only 6 of 50" in reason


def test_covariates_that_are_the_same_for_all_galaxies_are_left_out_or_refused():
    labels, covariates = galaxies()
    flat = np.full(1500, 0.1)
    assert Matching().match({**covariates, "psf": flat}, labels, 3, ids=IDS[:1500]).is_balanced
    assert "same for all" in Matching().match({"psf": flat}, labels, 3, ids=IDS[:1500]).reason


def test_default_covariates_are_recognised_by_their_names():
    inside = np.arange(10) < 5
    known = np.arange(10.0)
    names = ["ra_error", "z_spec", "petroMag_r", "log_stellar_mass", "petroR50_r", "seeing", "colour", "psfdepth_r"]
    values = dict.fromkeys(names, known)
    expected = ["z_spec", "log_stellar_mass", "petroR50_r", "seeing", "psfdepth_r"]
    assert chosen_covariates([], values, inside) == expected
    del values["log_stellar_mass"]
    assert "petroMag_r" in chosen_covariates([], values, inside)
    assert chosen_covariates(["colour"], values, inside) == ["colour"]
    assert Roles.of(["something"]).defaults() == []
    with pytest.raises(ConfigError, match="no_such"):
        chosen_covariates(["no_such"], values, inside)
    with pytest.raises(ConfigError, match="covariates="):
        chosen_covariates([], {"colour": known}, inside)
