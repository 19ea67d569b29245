"""How a class is marked wherever it is drawn: a colour and a shape, never a colour alone."""

from dataclasses import dataclass

# Okabe & Ito (2008), safe for colour-blind readers, with yellow darkened for a light page, blues lightened for a dark
# one, and a violet in place of their black.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#451f80")
DARK = ("#4a9fe0", "#f0743a", "#1fc18e", "#e59ac4", "#f5b93d", "#9adcff", "#f0e442", "#c7b5ff")
# For numbers: cividis (Nuñez, Anderton & Renslow 2018), alike to all readers and even in lightness.
RAMP = ("#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838")
# In the order in which the map numbers them.
SHAPES = ("circle", "square", "triangle", "diamond", "ring", "plus")


@dataclass(frozen=True)
class Mark:
    """Indices into the colours and into ``SHAPES``."""

    colour: int
    shape: int


def mark(class_id: int) -> Mark:
    """A class's mark; the first 48 classes have one each, and neighbours in number differ in colour."""
    colour, turn = class_id % len(LIGHT), class_id // len(LIGHT)
    return Mark(colour, (colour + turn) % len(SHAPES))
