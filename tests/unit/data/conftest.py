"""What the tests of surveys share."""

import pytest

from rarezoo.data.images import ImageSource


class Stack(ImageSource):
    """Cutouts in memory, (n, height, width, 3)."""

    def __init__(self, pixels):
        self.pixels = pixels

    def cutout(self, row):
        return self.pixels[row]


@pytest.fixture
def stack():
    """Make an image source of an array."""
    return Stack
