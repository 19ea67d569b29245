"""The picture of one galaxy of the mock sky."""

import numpy as np
from jaxtyping import UInt8

from mocksky.arms import on_sky
from mocksky.artifacts import spoiled
from mocksky.populations import GalaxyModel
from mocksky.profiles import Scene, add_companion, add_galaxy, add_neighbours, picture_of, with_noise

# Coarser pixels would undersample the PSF, for which GalSim needs huge transforms: we draw finer, then average.
_FINE_SIDE = 64


def cutout_of(galaxy: GalaxyModel, rng: np.random.Generator, *, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Draw the picture of a galaxy: its light, the PSF, an artifact if it has one, noise, colours.

    Parameters
    ----------
    galaxy
        What to draw.
    rng
        Random numbers for what the model leaves open: neighbours, knots, noise.
    side
        Side of the cutout in pixels.

    Returns
    -------
    numpy.ndarray
        (side, side, 3) uint8, red, green, blue.
    """
    finer = -(-_FINE_SIDE // side)
    scene = Scene(side=side * finer, field=galaxy.field, seeing=galaxy.seeing)
    if galaxy.companion:
        add_companion(scene, galaxy, rng)
    else:
        x, y = _centre(galaxy, rng)
        add_galaxy(scene, galaxy, rng, x=x, y=y)
    add_neighbours(scene, galaxy, rng)
    scale = galaxy.field / side
    light = scene.light().reshape(3, side, finer, side, finer).mean(axis=(2, 4))
    return picture_of(with_noise(spoiled(light, galaxy, rng, scale=scale), rng, scale=scale))


def _centre(galaxy: GalaxyModel, rng: np.random.Generator) -> tuple[float, float]:
    """Return where the galaxy's centre is, in arcsec: in the middle, except for a fragment of a large galaxy."""
    if not galaxy.fragment:
        return 0.0, 0.0
    angle, distance = rng.uniform(0, 2 * np.pi), galaxy.fragment * galaxy.radius
    x, y = on_sky(
        np.array(distance * np.cos(angle)), np.array(distance * np.sin(angle)),
        inclination=galaxy.inclination, position_angle=galaxy.position_angle,
    )  # fmt: skip
    return float(x), float(y)
