"""Filters before a ranking keep what they say, and say what they left out."""

import pytest

from rarezoo.errors import ConfigError
from rarezoo.explore.filters import Filters
from rarezoo.explore.pool import Pool

pytestmark = pytest.mark.unit


def kept(store, **filters):
    filtered = Filters(**filters).of(Pool(store))
    return [galaxy for galaxy, inside in zip(store.ids, filtered.mask, strict=True) if inside], filtered.results


def test_a_condition_may_use_catalogue_columns_and_predicted_fractions(sky):
    assert kept(sky, where="redshift < 0.04 and bar_strong_fraction > 0.1")[0] == ["g2", "g3"]
    assert kept(sky, where="id_str == 'g5'")[0] == ["g5"]


def test_a_galaxy_whose_value_is_unknown_is_left_out_and_counted(sky):
    names, (result,) = kept(sky, where="not (redshift > 0.05)")
    assert names == ["g1", "g2", "g3", "g4", "g5"]
    assert (result.kept, result.undecided) == (5, 1)
    assert "5 (1 left out" in str(result)


def test_a_cone_is_a_circle_on_the_sphere(sky):
    assert kept(sky, cone="10 0 60")[0] == ["g0", "g1"]
    assert kept(sky, cone="00:40:00, +00:00:00, 20")[0] == ["g0"]
    names, (result,) = kept(sky, cone="12 1 36000")
    assert {"g2", "g3"} <= set(names)
    assert "g15" not in names
    assert result.undecided == 1


def test_filters_are_joined(sky):
    names, results = kept(sky, cone="10 0 60", where="redshift > 0")
    assert names == ["g1"]
    assert [result.kept for result in results] == [14, 2]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"where": "redshift > 9"}, r"none of 15 galaxies passes.*redshift > 9 keeps 0.*Loosen"),
        ({"where": "redshift < 0.02", "cone": "14 2 10"}, r"none of 15.*keeps 1.*keeps 1"),
        ({"where": "redshfit < 1"}, "unknown column: redshfit. Did you mean redshift"),
        ({"where": "redshift <"}, "unreadable filter: redshift <"),
        ({"where": "redshift + 1"}, "filter must be true or false"),
        ({"cone": "10 0"}, "unreadable cone: 10 0. Give a position and a radius"),
        ({"cone": "10 0 wide"}, "unreadable cone"),
        ({"cone": "10 0 -5"}, "unreadable cone"),
        ({"cone": "200 70 60"}, r"no galaxy of the survey is within 60.0 arcsec.*nearest is"),
        ({"classes": [3]}, "classes are those of a search"),
    ],
)
def test_filters_that_cannot_be_used_are_refused_with_a_way_out(sky, filters, message):
    with pytest.raises(ConfigError, match=message):
        kept(sky, **filters)


def test_a_cone_needs_positions(plain_store):
    with pytest.raises(ConfigError, match="positions of the galaxies are not known"):
        kept(plain_store, cone="10 0 60")


def test_a_cone_may_be_given_as_numbers(sky):
    assert kept(sky, cone=(10, 0, 60))[0] == ["g0", "g1"]
