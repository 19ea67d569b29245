"""Cutouts of the mock sky: drawn in blocks by several processes, kept on disk, read back by row."""

import numpy as np
from jaxtyping import UInt8

from rarezoo.data.sky.artifacts import spoiled
from rarezoo.data.sky.arms import on_sky
from rarezoo.data.sky.populations import Galaxy, galaxy_at, stream
from rarezoo.data.sky.profiles import Scene, add_companion, add_galaxy, add_neighbours, picture_of, with_noise


def cutout_of(galaxy: Galaxy, rng: np.random.Generator, *, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The picture of one galaxy: light, PSF, artifact, noise, colours."""
    scene = Scene(side=side, field=galaxy.field, seeing=galaxy.seeing)
    if galaxy.companion:
        add_companion(scene, galaxy, rng)
    else:
        x, y = _centre(galaxy, rng)
        add_galaxy(scene, galaxy, rng, x=x, y=y)
    add_neighbours(scene, galaxy, rng)
    light = with_noise(spoiled(scene.light(), galaxy, rng, scale=scene.scale), rng, scale=scene.scale)
    return picture_of(light)


def _centre(galaxy: Galaxy, rng: np.random.Generator) -> tuple[float, float]:
    """Where the galaxy's centre lies, arcsec: in the middle, but for a fragment of a big one."""
    if not galaxy.fragment:
        return 0.0, 0.0
    angle, away = rng.uniform(0, 2 * np.pi), galaxy.fragment * galaxy.radius
    x, y = on_sky(
        np.array(away * np.cos(angle)), np.array(away * np.sin(angle)),
        inclination=galaxy.inclination, position_angle=galaxy.position_angle,
    )  # fmt: skip
    return float(x), float(y)
