"""Mosaics: each galaxy's thumbnail lies where the page looks for it."""

import numpy as np
import pytest

from rarezoo.report import gallery

pytestmark = pytest.mark.unit


def plain(value, *, height=40, width=40):
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize(("galaxies", "wide", "high"), [(1, 1, 1), (5, 5, 1), (8, 8, 1), (9, 8, 2), (24, 8, 3)])
def test_mosaic_is_as_wide_as_needed(galaxies, wide, high):
    image = gallery.mosaic([plain(200)] * galaxies)
    cell = gallery.SIDE + gallery.GAP
    assert gallery.shape(galaxies) == (wide, high)
    assert image.size == (wide * cell, high * cell)


def test_thumbnail_lies_where_css_places_it():
    """CSS moves the image by (per cent) x (image − cell): the cell seen there must be the galaxy's own."""
    values = [10 * index for index in range(11)]
    pixels = np.asarray(gallery.mosaic([plain(value) for value in values], columns=4))
    cell = gallery.SIDE + gallery.GAP
    for index, value in enumerate(values):
        across, down = gallery.place(index, len(values), columns=4)
        left, top = round(across / 100 * (pixels.shape[1] - cell)), round(down / 100 * (pixels.shape[0] - cell))
        seen = pixels[top : top + cell, left : left + cell]
        assert (seen[1:-1, 1:-1] == value).all()
        assert (seen[0] == 0).all()
        assert (seen[:, -1] == 0).all()


@pytest.mark.parametrize("size", [(40, 40), (30, 90), (424, 424), (1, 1)])
def test_cutouts_of_any_size_become_square(size):
    assert gallery.thumbnail(plain(50, height=size[0], width=size[1])).size == (gallery.SIDE, gallery.SIDE)


def test_thumbnail_is_the_centre_not_a_squeezed_whole():
    wide = plain(0, height=20, width=60)
    wide[:, 20:40] = 255
    assert np.asarray(gallery.thumbnail(wide)).min() > 250


def test_same_galaxies_give_the_same_bytes(tmp_path):
    cutouts = [np.random.default_rng(index).integers(0, 255, (30, 30, 3), dtype=np.uint8) for index in range(9)]
    first, second = (gallery.save(gallery.mosaic(cutouts), tmp_path / f"{name}.jpg").read_bytes() for name in "ab")
    assert first == second
