"""Photometry finds what was drawn, and is finite whatever it is shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rarezoo.data.images import ImageSource
from rarezoo.data.photometry import COLUMNS, measurements, photometry
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit

_FINE = 5


def drawn(profile, *, side=160, colours=(1.0, 1.0, 1.0), sky=6):
    """A round galaxy: the profile takes radii in px and gives grey levels; pixels are averaged over 5 × 5 points."""
    along = (np.arange(side * _FINE) + 0.5) / _FINE - side / 2
    light = profile(np.hypot(along[:, None], along)).reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    return np.clip(np.rint(light[..., None] * np.array(colours) + sky), 0, 255).astype(np.uint8)


def exponential(scale):
    return lambda radius: 200 * np.exp(-radius / scale)


def gaussian(sigma):
    return lambda radius: 200 * np.exp(-((radius / sigma) ** 2) / 2)


def de_vaucouleurs(effective):
    # The exponent in which half of the light lies within the effective radius.
    return lambda radius: np.minimum(6 * np.exp(-7.67 * ((radius / effective) ** 0.25 - 1)), 245)


def measured(pixels):
    return dict(zip(COLUMNS, measurements(pixels), strict=True))


@pytest.mark.parametrize("scale", [4, 7, 10])
def test_an_exponential_disc_has_its_half_light_radius(scale):
    # An exponential disc holds half of its light within 1.678 scale lengths.
    assert measured(drawn(exponential(scale)))["half_light_radius"] == pytest.approx(1.678 * scale / 80, rel=0.04)


@pytest.mark.parametrize("sigma", [6, 12])
def test_a_gaussian_has_its_radius_and_concentration(sigma):
    measurement = measured(drawn(gaussian(sigma)))
    assert measurement["half_light_radius"] == pytest.approx(sigma * np.sqrt(2 * np.log(2)) / 80, rel=0.02)
    assert measurement["concentration"] == pytest.approx(2.5 * np.log10(np.log(1 - 0.8) / np.log(1 - 0.2)), abs=0.05)


def test_concentration_orders_profiles():
    profiles = (gaussian(10), exponential(7), de_vaucouleurs(12))
    flat, disc, elliptical = (measured(drawn(profile))["concentration"] for profile in profiles)
    assert flat + 0.3 < disc < elliptical - 0.3


def test_colours_are_ratios_of_the_channels_whatever_the_sky():
    for sky in (0, 6, 40):
        measurement = measured(drawn(exponential(8), colours=(1.0, 0.8, 0.5), sky=sky))
        assert measurement["colour_red_green"] == pytest.approx(np.log10(1 / 0.8), abs=0.01)
        assert measurement["colour_green_blue"] == pytest.approx(np.log10(0.8 / 0.5), abs=0.01)


def test_a_finer_cutout_of_the_same_galaxy_measures_the_same():
    coarse, fine = measured(drawn(exponential(5), side=80)), measured(drawn(exponential(15), side=240))
    for column in COLUMNS:
        assert fine[column] == pytest.approx(coarse[column], abs=0.04 * max(abs(coarse[column]), 0.25)), column


def test_twice_the_light_is_brighter_by_log_two():
    dim, bright = (measured(drawn(lambda radius, share=share: share * exponential(8)(radius))) for share in (0.5, 1))
    assert bright["brightness"] - dim["brightness"] == pytest.approx(np.log10(2), abs=0.03)


def test_a_neighbour_beyond_the_galaxy_does_not_count():
    alone = drawn(exponential(4))
    crowded = alone.copy()
    crowded[20:30, 70:80] = (40, 40, 200)
    np.testing.assert_array_equal(measurements(crowded), measurements(alone))


@pytest.mark.parametrize("level", [0, 7, 255])
def test_an_even_frame_is_an_even_disc_without_colour(level):
    measurement = measured(np.full((64, 64, 3), level, dtype=np.uint8))
    assert measurement["colour_red_green"] == measurement["colour_green_blue"] == 0
    assert measurement["half_light_radius"] == pytest.approx(np.sqrt(0.5))
    assert measurement["concentration"] == pytest.approx(2.5 * np.log10(4))


@given(arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3))))
def test_any_pixels_give_finite_numbers(pixels):
    measurement = measurements(pixels)
    assert np.isfinite(measurement).all()
    assert 0 < measurement[2] <= 1
    assert measurement[3] >= 0


def test_rows_are_measured_in_their_order_and_kept(tmp_path, stack):
    pixels = np.stack([drawn(exponential(scale), side=64) for scale in (2, 4, 6)])
    images, kept = stack(pixels), tmp_path / "photometry.npy"
    table = photometry(images, [2, 0], cache=kept)
    assert table.shape == (2, len(COLUMNS))
    assert table.dtype == np.float32
    assert table[0, 2] > table[1, 2]
    np.testing.assert_array_equal(photometry(images, [2, 0], cache=kept), table)
    np.testing.assert_array_equal(np.load(kept), table)
    assert photometry(images, []).shape == (0, len(COLUMNS))


def test_an_unreadable_image_is_an_error():
    class Broken(ImageSource):
        def cutout(self, row):
            raise DataError("truncated image", value="g1.jpg", fix="Get it again.", ids=["g1"])

    with pytest.raises(DataError, match=r"truncated image: g1\.jpg"):
        photometry(Broken(), [0])
    assert np.isnan(photometry(Broken(), [0, 1], skip_unreadable=True)).all()
