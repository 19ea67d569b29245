"""The structure of a galaxy is what was drawn, and is finite whatever it is shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from rarezoo.data.images import ImageSource
from rarezoo.data.structure import COLUMNS, measurements, structure
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit

SIDE = 160


def galaxy(*parts, side=SIDE, sky=6.0, noise=0.0, seed=0):
    """Draw round parts (x, y, peak, scale) with exponential profiles, in px from the centre, as a grey image."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    light = sum(peak * np.exp(-np.hypot(x - left, y - up) / scale) for left, up, peak, scale in parts) + sky
    light = light[..., None] + np.random.default_rng(seed).normal(size=(side, side, 3)) * noise
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def measured(pixels):
    return dict(zip(COLUMNS, measurements(pixels), strict=True))


ALONE = (0, 0, 200, 8)


def test_a_round_galaxy_alone_has_no_structure():
    numbers = measured(galaxy(ALONE))
    assert all(numbers[f"asymmetry_{ring}"] < 0.01 for ring in range(1, 5))
    assert numbers["centroid_offset"] < 0.001
    assert numbers["colour_scatter"] < 0.001


@pytest.mark.parametrize(("distance", "ring"), [(24, 2), (40, 3), (65, 4)])
def test_a_companion_makes_the_ring_asymmetric_in_which_it_is(distance, ring):
    alone, pair = (measured(galaxy(*parts)) for parts in ((ALONE,), (ALONE, (distance, 0, 150, 3))))
    growth = {number: pair[f"asymmetry_{number}"] - alone[f"asymmetry_{number}"] for number in range(1, 5)}
    assert max(growth, key=growth.get) == ring
    assert growth[ring] > 0.2


def test_a_companion_is_the_brightest_outside_and_moves_the_centroid():
    alone, pair = (measured(galaxy(*parts)) for parts in ((ALONE,), (ALONE, (0, -45, 180, 4))))
    assert pair["brightest_outside"] > alone["brightest_outside"] + 0.5
    assert pair["centroid_offset"] > alone["centroid_offset"] + 0.05


def test_knots_make_a_galaxy_clumpy():
    knots = [(18 * np.cos(angle), 18 * np.sin(angle), 90, 1.5) for angle in np.linspace(0, 2 * np.pi, 7)[:-1]]
    assert measured(galaxy(ALONE, *knots))["clumpiness"] > 2 * measured(galaxy(ALONE))["clumpiness"]


def test_a_galaxy_of_two_colours_has_scattered_colours():
    red = galaxy(ALONE).copy()
    red[:, : SIDE // 2, 2] //= 2
    assert measured(red)["colour_scatter"] > 0.1


def test_turning_and_mirroring_change_nothing():
    pixels = galaxy(ALONE, (30, 12, 120, 4), (-20, 25, 60, 6), noise=3)
    expected = measurements(pixels)
    for other in (np.rot90(pixels), np.rot90(pixels, 2), pixels[::-1], pixels.transpose(1, 0, 2)):
        np.testing.assert_allclose(measurements(np.ascontiguousarray(other)), expected, atol=1e-5)


def test_a_brighter_sky_changes_nothing():
    parts = (ALONE, (30, 12, 120, 4))
    bright, dark = (measurements(np.minimum(galaxy(*parts, sky=sky), 255)) for sky in (6, 40))
    np.testing.assert_allclose(bright, dark, atol=1e-4)


def plainly_measured(pixels):
    """The same numbers, written as the module describes them: in double precision, one mask per ring."""
    height, width, _ = pixels.shape
    side = min(height, width)
    y, x = (axis - (length - 1) / 2 for axis, length in zip(np.indices((height, width)), (height, width), strict=True))
    radius = np.hypot(x, y) / (side / 2)
    rows, columns = np.indices((height, width))
    to_edge = np.minimum.reduce([rows, height - 1 - rows, columns, width - 1 - columns])
    border = pixels[to_edge < max(1, round(side / 32))].astype(float)
    sky = np.median(border, axis=0)
    values = pixels - sky
    light = values.mean(axis=2)
    noise = np.median(np.abs(border - sky).mean(axis=1)) + 0.5

    def inside(low, high):
        return (radius >= low) & (radius < high)

    def share(what, ring):
        return what[ring].sum() / (np.abs(light[ring]).sum() + noise * ring.sum())

    turned, rough = np.abs(light - light[::-1, ::-1]), np.abs(light - gaussian_filter(light, 3 / 160 * side))
    rings = [inside(*edges) for edges in ((0, 0.2), (0.2, 0.4), (0.4, 0.65), (0.65, 1))]
    weights = np.maximum(light, 0) * inside(0, 0.65)
    offset = np.hypot((weights * x).sum(), (weights * y).sum()) / (weights.sum() + 0.5) / (side / 2)
    inner = inside(0, 0.38)
    return [
        *(share(turned, ring) for ring in rings), share(rough, inside(0.08, 0.5)),
        np.log10(1 + max(light[inside(0.38, 0.9)].max(), 0)), offset,
        (values[..., 0] - values[..., 2])[inner].std() / (np.abs(light[inner]).mean() + 1),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(160, 160), (61, 61), (120, 160)])
def test_the_numbers_are_those_of_their_definition(shape):
    random = np.random.default_rng(1)
    for seed in range(3):
        pixels = galaxy(ALONE, *random.uniform([-40, -40, 20, 2], [40, 40, 200, 9], (3, 4)), noise=4, seed=seed)
        pixels[..., 1] //= 1 + seed
        pixels = np.ascontiguousarray(pixels[: shape[0], : shape[1]])
        np.testing.assert_allclose(measurements(pixels), plainly_measured(pixels), atol=1e-3)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)), elements=st.integers(0, 255)),
)
def test_the_numbers_are_finite_for_any_image(pixels):
    numbers = measurements(pixels)
    assert len(numbers) == len(COLUMNS)
    assert np.isfinite(numbers).all()


class Some(ImageSource):
    """Three cutouts, of which the second cannot be read."""

    def cutout(self, row):
        if row == 1:
            raise DataError("the image cannot be read", value=row, fix="Leave it out.")
        return galaxy(ALONE, (30, 0, 10 * row, 4))


def test_galaxies_are_measured_in_the_order_of_the_rows_and_the_result_is_kept(tmp_path):
    numbers = structure(Some(), [2, 0], cache=tmp_path / "structure.npy")
    np.testing.assert_allclose(numbers[0], measurements(Some().cutout(2)), rtol=1e-5)
    np.testing.assert_array_equal(structure(None, [2, 0], cache=tmp_path / "structure.npy"), numbers)


def test_an_unreadable_image_is_an_error_or_not_a_number():
    with pytest.raises(DataError, match="cannot be read"):
        structure(Some(), [0, 1])
    numbers = structure(Some(), [0, 1, 2], skip_unreadable=True)
    assert np.isnan(numbers[1]).all()
    assert np.isfinite(numbers[[0, 2]]).all()


def test_no_galaxies_have_no_numbers():
    assert structure(Some(), []).shape == (0, len(COLUMNS))
