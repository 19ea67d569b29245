"""What a person types for a galaxy is read: ids, positions, links and image files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarezoo.errors import ConfigError
from rarezoo.explore.places import Position, distance_text, nearest, read_position, read_targets, separations

pytestmark = pytest.mark.unit
VIEWER = "https://www.legacysurvey.org/viewer?ra=185.72875&dec=15.8225&layer=ls-dr10&zoom=16&mark=185.72875,15.8225"
SIMBAD = "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=185.72875%2015.8225&CooFrame=ICRS&Radius=10"


def targets(text, *ids):
    return read_targets(text, is_id=lambda name: name in ids)


@pytest.mark.parametrize(
    "text",
    [
        "185.72875 15.8225", "185.72875,15.8225", "185.72875, +15.8225", "185.72875d 15.8225d", "185.72875° +15.8225°",
        "12:22:54.9 +15:49:21", "12:22:54.9, +15:49:21", "12h22m54.9s +15d49m21s", "12h22m54.9s+15d49m21s",
        "12 22 54.9 +15 49 21", "J122254.9+154921", "SDSS J122254.9+154921", "12ʰ22ᵐ54.9ˢ +15°49′21″",
        VIEWER, SIMBAD, "www.legacysurvey.org/viewer/?dec=15.8225&ra=185.72875",
        "https://www.legacysurvey.org/viewer/#ra=185.72875&dec=15.8225",
        "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=12%3A22%3A54.9+%2B15%3A49%3A21",
        "https://aladin.cds.unistra.fr/AladinLite/?target=185.72875%2015.8225&fov=0.03",
    ],
)  # fmt: skip
def test_every_usual_form_of_a_position_is_read(text):
    (position,) = targets(text)
    assert position == pytest.approx(Position(185.72875, 15.8225), abs=1e-9)


@pytest.mark.parametrize(("text", "dec"), [("0:00:00 −0:00:36", -0.01), ("10 -0.5", -0.5), ("-10 3", 3)])
def test_signs_are_kept_and_right_ascensions_turned(text, dec):
    position = read_position(text)
    assert position.dec == pytest.approx(dec)
    assert 0 <= position.ra < 360


def test_a_galactic_position_of_a_link_is_turned():
    link = "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=0%20%2B90&CooFrame=Gal"
    assert read_position(link) == pytest.approx(Position(192.85948, 27.12825), abs=1e-4)


@pytest.mark.parametrize(
    "text", ["M87", "NGC 1052", "gz2_417063", "1237668", "587722981742084144", "1237-301-4-23", ""]
)
def test_names_and_numbers_are_no_positions(text):
    assert read_position(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12:22:54.9 -95:49:21", "none like it: 12:22"),
        ("25:61:00 +10:00:00", "none like it"),
        ("15.8 185.7", "no such position on the sky: 15.8 185.7. Right ascension comes first"),
        ("https://simbad.cds.unistra.fr/simbad/sim-basic?Ident=M+87", "names an object .M 87., .* coordinates"),
        ("https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=M+87", "names an object .M 87."),
        ("https://www.legacysurvey.org/viewer", "holds no position"),
        ("https://www.legacysurvey.org/viewer?ra=here&dec=there", "here there"),
        ("https://simbad.cds.unistra.fr/sim-coo?Coord=x&CooFrame=Gal", "no galactic position"),
        ("http://[", "not a link: http://"),
        ("no_such_galaxy.png", "no such image file: no_such_galaxy.png"),
    ],
)
def test_impossible_places_are_refused_with_a_way_out(text, message):
    with pytest.raises(ConfigError, match=message):
        targets(text)


def test_an_id_comes_before_any_other_meaning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("10 20").touch()
    assert targets("10 20", "10 20") == ["10 20"]
    assert targets("a, b", "a, b", "a", "b") == ["a, b"]
    assert targets("10,20", "10", "20") == ["10", "20"]
    assert targets("10,20") == [Position(10, 20)]
    assert targets(" a ", "a") == ["a"]
    assert targets("10 20") == [Path("10 20")]


def test_several_targets_stand_behind_each_other():
    assert targets(f"a,{VIEWER}, 10 20, b", "a", "b") == ["a", Position(185.72875, 15.8225), Position(10, 20), "b"]
    assert targets(f"{VIEWER},{SIMBAD}") == [Position(185.72875, 15.8225)] * 2
    assert targets("10 20, 30 40") == [Position(10, 20), Position(30, 40)]
    assert targets("a, unknown", "a") == ["a", "unknown"]
    assert targets("") == targets(" ") == []


@given(st.floats(0, 359.99), st.floats(-89.9, 89.9), st.floats(0.01, 3000), st.floats(0, 2 * np.pi))
def test_distances_are_those_on_the_sphere(ra, dec, arcsec, angle):
    """A step of known length on a great circle has that length, also near the poles and across 0 degrees."""
    step, north = np.radians(arcsec / 3600), np.radians(dec)
    lifted = np.arcsin(np.sin(north) * np.cos(step) + np.cos(north) * np.sin(step) * np.cos(angle))
    turned = np.arctan2(
        np.sin(angle) * np.sin(step) * np.cos(north), np.cos(step) - np.sin(north) * np.sin(lifted)
    )  # fmt: skip
    there = np.array([(ra + np.degrees(turned)) % 360]), np.array([np.degrees(lifted)])
    assert separations(*there, Position(ra, dec))[0] == pytest.approx(arcsec, abs=1e-4)


def test_the_nearest_galaxy_is_found_across_the_beginning_of_right_ascension():
    ra, dec = np.array([np.nan, 359.9999, 0.3]), np.array([0.0, 60.0, 60.0])
    assert nearest(Position(0.0001, 60.0), ra, dec, ids=list("abc"), radius=20)[0] == 1


def test_a_position_off_the_survey_is_refused_with_the_distance():
    with pytest.raises(ConfigError, match=r"within 20.0 arcsec.*nearest is g, 30 degrees away"):
        nearest(Position(40, 0), np.array([10.0]), np.array([0.0]), ids=["g"], radius=20)
    with pytest.raises(ConfigError, match="positions of the galaxies are not known"):
        nearest(Position(40, 0), np.array([np.nan]), np.array([0.0]), ids=["g"], radius=20)


def test_distances_are_written_in_a_unit_that_is_read_easily():
    assert [distance_text(value) for value in (0.02, 99, 101, 7200)] == [
        "0.0 arcsec", "99.0 arcsec", "1.7 arcmin", "2 degrees",
    ]  # fmt: skip
