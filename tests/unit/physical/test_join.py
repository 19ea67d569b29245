"""Catalogues are joined by id or position, with the matches that chance makes, and units are kept."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.table import Table

from rarezoo.errors import ConfigError, DataError
from rarezoo.physical.join import join

pytestmark = pytest.mark.unit
COUNT = 400


def galaxies(seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return [f"g{row}" for row in range(COUNT)], random.uniform(150, 151, COUNT), random.uniform(-0.5, 0.5, COUNT)


def test_most_galaxies_match_and_few_do_by_chance_where_the_sky_is_sparse():
    ids, ra, dec = galaxies()
    random = np.random.default_rng(1)
    catalogue = pd.DataFrame(
        {"RA_ICRS": ra[:300] + random.normal(0, 0.1, 300) / 3600, "DE_ICRS": dec[:300], "mass": np.arange(300.0)}
    )
    joined = join(ids, ra, dec, [catalogue])
    assert joined.match_rate == pytest.approx(0.75)
    assert joined.chance_rate < 0.01
    assert not joined.ambiguous
    assert joined.table.column("mass").to_pylist()[:300] == list(np.arange(300.0))
    assert joined.table.column("mass").null_count == 100


def test_the_chance_rate_is_that_of_a_random_catalogue_of_the_same_density():
    ids, ra, dec = galaxies()
    random = np.random.default_rng(2)
    entries, radius = 30_000, 5.0
    catalogue = pa.table(
        {"ra": random.uniform(150, 151, entries), "dec": random.uniform(-0.5, 0.5, entries), "x": np.zeros(entries)}
    )
    joined = join(ids, ra, dec, [catalogue], radius)
    expected = 1 - np.exp(-entries * np.pi * radius**2 / 3600**2)
    assert joined.chance_rate == pytest.approx(expected, abs=0.05)


def test_an_entry_belongs_to_the_nearest_galaxy_and_both_galaxies_are_called_ambiguous():
    step = 0.3 / 3600
    catalogue = pa.table({"ra": [10.0, 20.0, 20.0 + 2 * step], "dec": [0.0] * 3, "flag": ["first", "second", "third"]})
    joined = join(["a", "b", "c"], [10.0, 10.0 + step, 20.0], [0.0] * 3, [catalogue])
    assert joined.table.column("flag").to_pylist() == ["first", None, "second"]
    assert joined.ambiguous == ["a", "b", "c"]


def test_positions_match_across_right_ascension_zero_and_at_a_pole():
    catalogue = pa.table({"ra": [359.9999, 200.0], "dec": [0.0, 89.9999], "x": [1.0, 2.0]})
    joined = join(["a", "b"], [0.0, 20.0], [0.0, 89.9999], [catalogue])
    assert joined.table.column("x").to_pylist() == [1.0, 2.0]


def test_sexagesimal_text_is_read_as_hours_and_degrees():
    catalogue = pa.table({"RAJ2000": ["12:00:00.0"], "DEJ2000": ["-00:30:00"], "z": [0.1]})
    assert join(["a"], [180.0], [-0.5], [catalogue]).table.column("z").to_pylist() == [0.1]


def test_units_are_kept_and_a_column_of_two_catalogues_is_in_the_unit_of_the_first():
    north = Table({"id_str": ["a"], "size": [2.0]}, units={"size": "arcmin"})
    south = Table({"id_str": ["b"], "size": [30.0]}, units={"size": "arcsec"})
    joined = join(["a", "b"], None, None, [north, south])
    assert joined.qtable["size"].to_value("arcsec").tolist() == [120.0, 30.0]
    assert joined.units == {"size": "arcmin"}
    assert joined.match_rate == 1.0


@pytest.mark.parametrize("other", ["", "Jy"])
def test_units_that_do_not_fit_are_refused(other):
    one = Table({"id_str": ["a"], "r": [2.0]}, units={"r": "mag"})
    two = Table({"id_str": ["b"], "r": [30.0]}, units={"r": other} if other else {})
    with pytest.raises(DataError, match=f"(?s)column r.*mag and {other or 'no unit'}"):
        join(["a", "b"], None, None, [one, two])


IDS, RA, DEC = galaxies()
PLACED = {"ra": RA, "dec": DEC}


@pytest.mark.parametrize(
    ("catalogue", "settings", "says"),
    [
        ({"ra": RA / 15, "dec": DEC}, {}, "hours.*Multiply ra by 15"),
        ({"ra": RA - 30, "dec": DEC}, {}, "search covers ra 150.* catalogue ra 120"),
        ({"ra": np.full(COUNT, np.nan), "dec": DEC}, {}, "no known position"),
        ({"mass": DEC}, {}, "neither ids nor positions.*mass"),
        ({"id_str": ["x"] * COUNT}, {}, "no id of catalogue 1"),
        ({"id_str": np.empty(0, dtype=str)}, {}, "no rows"),
        ({"id_str": ["g1", "g1", *IDS[2:]]}, {}, "more than once"),
        (PLACED, {"by": "id"}, "id_column"),
        (PLACED, {"ra_column": "alpha", "dec_column": "dec"}, "alpha"),
    ],
)
def test_a_catalogue_that_cannot_be_joined_has_one_message(catalogue, settings, says):
    with pytest.raises(DataError, match=says):
        join(IDS, RA, DEC, [pa.table(catalogue)], **settings)


@pytest.mark.parametrize(
    "settings", [{"radius": 0}, {"radius": "1"}, {"radius": 1000.0}, {"by": "name"}, {"catalogues": []}]
)
def test_settings_of_a_join_are_checked(settings):
    with pytest.raises(ConfigError):
        join(**{"ids": IDS, "ra": RA, "dec": DEC, "catalogues": [pa.table(PLACED)], **settings})
