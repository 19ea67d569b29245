"""The mark of a class wherever it is drawn: a colour and a shape, never a colour alone."""

from dataclasses import dataclass

# Okabe & Ito (2008), safe for colour-blind readers. Yellow is darker here for a light page, the blues are lighter for a
# dark one, and violet replaces their black.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#451f80")
DARK = ("#4a9fe0", "#f0743a", "#1fc18e", "#e59ac4", "#f5b93d", "#9adcff", "#f0e442", "#c7b5ff")
# For numbers: cividis (Nuñez, Anderton & Renslow 2018), which looks the same to all readers and has even lightness.
RAMP = ("#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838")
# In the order in which the map numbers them.
SHAPES = ("circle", "square", "triangle", "diamond", "ring", "plus")


@dataclass(frozen=True)
class Mark:
    """Colour and shape of a class, as indices into the colours and into ``SHAPES``."""

    colour: int
    shape: int


def mark(class_id: int) -> Mark:
    """Return the mark of a class; the first 48 classes have different marks, and successive ids different colours.

    >>> mark(0), mark(9)
    (Mark(colour=0, shape=0), Mark(colour=1, shape=2))
    """
    colour, turn = class_id % len(LIGHT), class_id // len(LIGHT)
    return Mark(colour, (colour + turn) % len(SHAPES))
