"""Marks of classes: told apart by colour-blind readers, and never by colour alone."""

import itertools

import numpy as np
import pytest

from rarezoo.report import palette

pytestmark = pytest.mark.unit

# Machado, Oliveira & Fernandes (2009), table 1, full severity; on linear RGB.
SEEN_BY = {
    "everyone": np.eye(3),
    "protanopes": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deuteranopes": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritanopes": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}
# Just noticeable is 2.3 (CIE 1976).
CLEARLY_DIFFERENT = 9.0


def linear(colour):
    values = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE 1976 L*a*b* (D65) of linear sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ rgb / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("reader", SEEN_BY)
@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_colours_are_told_apart(colours, reader):
    seen = [lab(np.clip(SEEN_BY[reader] @ linear(colour), 0, 1)) for colour in colours]
    assert min(np.linalg.norm(colour - other) for colour, other in itertools.combinations(seen, 2)) > CLEARLY_DIFFERENT


def test_forty_eight_classes_have_a_mark_each():
    marks = [palette.mark(number) for number in range(48)]
    assert len(set(marks)) == 48
    assert all(mark.colour != other.colour for mark, other in itertools.pairwise(marks))
    assert len(palette.LIGHT) == len(palette.DARK)
