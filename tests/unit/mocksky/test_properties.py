"""Properties of mock galaxies follow from mass and population, and from the galaxy alone."""

import numpy as np
import pyarrow as pa
import pytest

from mocksky.properties import OFFSETS, UNITS, properties
from rarezoo.data.surveys.mock import PLANTED_PROPERTIES, planted_offset

pytestmark = pytest.mark.unit


def truth(count, population="ordinary"):
    return pa.table(
        {
            "id_str": [f"mock-{row}" for row in range(count)], "population": [population] * count,
            "kind": ["spiral"] * count, "magnitude": np.linspace(14, 17.7, count), "radius": np.full(count, 4.0),
            "seeing": np.full(count, 1.2),
        }
    )  # fmt: skip


def test_a_galaxy_has_the_same_properties_in_a_larger_survey_and_others_under_another_seed():
    assert properties(truth(5), seed=1).equals(properties(truth(20), seed=1).slice(0, 5))
    assert not properties(truth(5), seed=1).equals(properties(truth(5), seed=2))


@pytest.mark.parametrize("population", sorted(OFFSETS))
def test_a_population_adds_its_offsets_and_nothing_else(population):
    ordinary, planted = (properties(truth(50, name), seed=0) for name in ("ordinary", population))
    for name in UNITS:
        apart = np.array(planted[name].cast(pa.float64())) - np.array(ordinary[name].cast(pa.float64()))
        assert apart == pytest.approx(planted_offset(population, name) or 0.0, abs=1e-9)


def test_low_mass_galaxies_differ_by_their_mass_alone():
    low = properties(truth(50, "low_mass_barred_clumpy"), seed=0)
    assert np.median(low["log_stellar_mass"]) < 9.8
    assert {planted_offset("low_mass_barred_clumpy", name) for name in PLANTED_PROPERTIES} == {0.0}


def test_columns_have_units():
    fields = properties(truth(2), seed=0).schema
    assert fields.field("u_r_colour").metadata == {b"unit": b"mag"}
    assert fields.field("is_active").type == pa.bool_()
