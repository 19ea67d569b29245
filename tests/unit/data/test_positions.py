"""Positions: read whatever the column is called and written in, unknown with a warning, and never impossible."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from rarezoo.data.positions import positions_of
from rarezoo.data.reading import read_any_table
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit


def degrees(columns, **settings):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    ids = [f"g{row}" for row in range(table.num_rows)]
    positions = positions_of(table, ids=ids, source="own.csv", **settings)
    return positions.ra.to_pylist(), positions.dec.to_pylist()


@pytest.mark.parametrize(("ra", "dec"), [("ra", "dec"), ("RA", "DEC"), ("Ra", "Dec"), (" ra", "dec "), ("RA ", " Dec")])
def test_columns_are_found_in_any_case_and_with_spaces(ra, dec):
    assert degrees({ra: [10.5], dec: [-3.0], "radius": [1.0]}) == ([10.5], [-3.0])


@settings(max_examples=50, deadline=None)
@given(ra=st.floats(0, 359.99), dec=st.floats(-90, 90))
def test_every_way_of_writing_a_position_gives_the_same_one(ra, dec):
    place = SkyCoord(ra, dec, unit="deg")
    for style in ({"sep": ":"}, {"sep": " "}, {"sep": "hms"}):
        right = place.ra.to_string(unit=units.hourangle, precision=6, **style)
        declination = place.dec.to_string(precision=6, **{"sep": "dms"} if style["sep"] == "hms" else style)
        position = degrees({"ra": [right], "dec": [declination]})
        assert position[0][0] % 360 == pytest.approx(ra, abs=1e-7) or abs(position[0][0] - ra) == pytest.approx(360)
        assert position[1][0] == pytest.approx(dec, abs=1e-7)
    assert degrees({"ra": [repr(ra)], "dec": [repr(dec)]}) == ([ra], [dec])


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".ecsv", ".parquet"])
@pytest.mark.parametrize("unit", [None, "deg", "rad", "hourangle", "arcsec"])
def test_units_of_a_table_are_used(tmp_path, suffix, unit):
    shown = 1 if unit is None else units.deg.to(unit)
    table = Table({"id_str": ["a", "b"], "ra": np.array([185.25, 1.5]) * shown, "dec": np.array([15.0, -2.0])})
    # Hours have another name in FITS.
    table["ra"].unit = "h" if (suffix, unit) == (".fits", "hourangle") else unit
    path = tmp_path / f"own{suffix}"
    formats = {".fits": "fits", ".vot": "votable", ".ecsv": "ascii.ecsv", ".parquet": "parquet"}
    table.write(path, format=formats[suffix])
    ra, dec = degrees(read_any_table(path))
    np.testing.assert_allclose(ra, [185.25, 1.5])
    assert dec == [15.0, -2.0]


def test_a_column_of_quantities_has_its_unit_too(tmp_path):
    table = QTable({"id_str": ["a"], "ra": [12.0] * units.hourangle, "dec": [0.5] * units.rad})
    table.write(tmp_path / "own.ecsv", format="ascii.ecsv")
    ra, dec = degrees(read_any_table(tmp_path / "own.ecsv"))
    np.testing.assert_allclose([*ra, *dec], [180.0, np.degrees(0.5)])


@pytest.mark.parametrize(("ra", "read"), [(-10.0, 350.0), (-180.0, 180.0), (360.0, 0.0), (0.0, 0.0), (359.5, 359.5)])
def test_right_ascensions_are_turned_into_0_to_360(ra, read):
    assert degrees({"ra": [ra], "dec": [0.0]}) == ([read], [0.0])


@pytest.mark.parametrize(
    ("ra", "dec", "named"),
    [
        (400.0, 0.0, "ra must be .*400"), (-181.0, 0.0, "ra must be .*-181"), (10.0, 95.0, "dec must be .*95"),
        (-999.0, -999.0, "ra must be .*-999"), (10.0, -99.0, "dec must be .*-99"), (np.inf, 0.0, "ra must be .*inf"),
        ("1:00:00", "95:00:00", "dec must be .*95"),
    ],
)  # fmt: skip
def test_impossible_positions_are_refused_with_the_galaxy(ra, dec, named):
    with pytest.raises(DataError, match=rf"{named}.*galaxies g1"):
        degrees({"ra": [None, ra], "dec": [None, dec]})


@pytest.mark.parametrize("blank", [None, "", "nan", "--", " "])
def test_blank_positions_are_unknown_without_a_warning(blank, caplog):
    assert degrees({"ra": ["10.5", blank], "dec": ["1", blank]}) == ([10.5, None], [1.0, None])
    assert not caplog.text


def test_values_that_cannot_be_read_are_unknown_with_a_warning(caplog):
    assert degrees({"ra": ["10.5", "north"], "dec": ["1_0", "x"]}) == ([10.5, None], [None, None])
    assert "1 of 2 values of column ra" in caplog.text
    assert "no value of column dec could be read" in caplog.text


def test_columns_that_may_be_positions_are_named(caplog):
    assert degrees({"RAJ2000": [1.0], "DEJ2000": [2.0]}) == ([None], [None])
    assert "data.ra_column=RAJ2000" in caplog.text
    assert "data.dec_column=DEJ2000" in caplog.text
    assert degrees({"RAJ2000": [1.0], "DEJ2000": [2.0]}, ra_column="RAJ2000", dec_column="dej2000") == ([1.0], [2.0])


def test_one_coordinate_alone_causes_a_warning(caplog):
    assert degrees({"ra": [1.0]}) == ([1.0], [None])
    assert "no column dec" in caplog.text


def test_numbers_that_may_be_hours_cause_a_warning(caplog):
    degrees({"ra": np.linspace(0, 23.9, 40), "dec": np.zeros(40)})
    assert "hours" in caplog.text


@pytest.mark.parametrize(
    ("columns", "settings", "named"),
    [
        ({"RA": [1.0], "Ra": [2.0], "dec": [0.0]}, {}, "several columns fit ra"),
        ({"ra": [1.0], "dec": [0.0]}, {"ra_column": "alpha"}, "no column: alpha"),
    ],
)
def test_columns_that_are_not_certain_are_refused(columns, settings, named):
    with pytest.raises(DataError, match=named):
        degrees(columns, **settings)


@pytest.mark.parametrize("ra", ["25:00:00", "12:75:00"])
def test_impossible_text_is_refused(ra):
    with pytest.raises(DataError, match=f"impossible.*{ra}"):
        degrees({"ra": [ra], "dec": ["0"]})


def test_a_unit_that_is_no_angle_is_refused():
    schema = pa.schema([pa.field("ra", pa.float64(), metadata={"unit": "Jy"}), pa.field("dec", pa.float64())])
    with pytest.raises(DataError, match="not an angle: Jy"):
        degrees(pa.table({"ra": [1.0], "dec": [2.0]}, schema=schema))


def test_a_position_of_a_data_frame_is_read_without_change():
    ra = np.random.default_rng(0).uniform(0, 360, 100)
    frame = pd.DataFrame({"ra": ra, "dec": ra / 4 - 45})
    assert degrees(pa.Table.from_pandas(frame)) == (ra.tolist(), (ra / 4 - 45).tolist())


def test_sexagesimal_right_ascensions_are_degrees_if_the_unit_says_so():
    for unit, ra in (("deg", 5.5), ("d:m:s", 5.5), ("h:m:s", 82.5), ("hourangle", 82.5)):
        field = pa.field("ra", pa.string(), metadata={"unit": unit})
        table = pa.table({"ra": ["05:30:00"], "dec": ["-05:30:00"]}, schema=pa.schema([field, ("dec", pa.string())]))
        assert degrees(table) == ([ra], [-5.5]), unit


def test_numbers_that_may_be_radians_cause_a_warning(caplog):
    ra, dec = np.linspace(0, 6.2, 40), np.linspace(-1.5, 1.5, 40)
    degrees({"ra": ra, "dec": dec})
    assert "radians" in caplog.text
    caplog.clear()
    degrees({"ra": ra, "dec": dec * 2})
    degrees({"ra": ra / 3, "dec": dec})
    assert "radians" not in caplog.text
