"""Galaxies with properties that depend on their mass, for the tests of this folder."""

import numpy as np


def sky(random, *, galaxies=700, members=40, mass_of_members=0.0, offset=0.0, classes=1):
    """Return labels, covariates and one property of galaxies; the members of classes are shifted in mass and property.

    The property rises by 1 per dex of mass and has a scatter of 0.3; ``offset`` is what a class adds at a given mass.
    """
    labels = np.full(galaxies, -1)
    for number in range(classes):
        labels[number * members : (number + 1) * members] = number
    inside = labels >= 0
    mass = random.normal(10.2, 0.5, galaxies) + mass_of_members * inside
    redshift = np.abs(random.normal(0.06, 0.02, galaxies)) + 0.02 * (mass - 10.2)
    colour = 2 + 1.0 * (mass - 10.2) + 0.3 * random.normal(size=galaxies) + offset * inside
    return labels, {"redshift": redshift, "log_mass": mass}, colour
