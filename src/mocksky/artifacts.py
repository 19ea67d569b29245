"""Artifacts of telescopes and pipelines: satellite trails, spikes, bleeds, ghosts, missing bands."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from mocksky.populations import GalaxyModel

Bands = Float[np.ndarray, "bands side side"]
# Surface brightness (nanomaggies / arcsec²) at which the camera's wells are full, as the pictures show it.
_FULL = 60.0
# g, r, i of light that the pictures show as white.
_WHITISH = np.array([0.6, 1.0, 1.3], dtype=np.float32)


def spoiled(light: Bands, galaxy: GalaxyModel, rng: np.random.Generator, *, scale: float) -> Bands:
    """Add the galaxy's artifact to the light, if it has one.

    Parameters
    ----------
    light
        (3, side, side) surface brightness in g, r, i, nanomaggies / arcsec².
    galaxy
        The galaxy; its population names the artifact.
    rng
        Random numbers.
    scale
        Size of a pixel in arcsec.

    Returns
    -------
    numpy.ndarray
        The light itself if there is no artifact, otherwise a new float32 array of the same shape, NaN where nothing
        was observed.
    """
    spoil = _ARTIFACTS.get(galaxy.population)
    return light if spoil is None else spoil(light, rng, galaxy.severity, galaxy.seeing / scale).astype(np.float32)


def _ticks(light: Bands) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel positions from the middle: x and y of shape (side, side)."""
    ticks = np.arange(light.shape[1], dtype=np.float32) - (light.shape[1] - 1) / 2
    x, y = np.meshgrid(ticks, ticks)
    return x, y


def _satellite_trail(light: Bands, rng: np.random.Generator, severity: float, seeing: float) -> Bands:
    """Add a straight streak across the frame, bright in one band and faint in the others."""
    x, y = _ticks(light)
    angle = rng.uniform(0, np.pi)
    away = x * np.sin(angle) - y * np.cos(angle) - rng.uniform(-0.28, 0.28) * light.shape[1]
    width = 0.42 * max(seeing, 2.0) * rng.uniform(0.8, 1.3)
    along = x * np.cos(angle) + y * np.sin(angle)
    glint = 1 + 0.15 * np.sin(along / rng.uniform(8, 25) + rng.uniform(0, 6))
    colour = np.full(3, 0.12)
    colour[rng.integers(3)] = 1.0
    return light + colour[:, None, None] * (0.25 + 0.9 * severity) * glint * np.exp(-0.5 * (away / width) ** 2)


def _star_place(light: Bands, rng: np.random.Generator, *, near: float, far: float) -> tuple[float, float]:
    """Return a position in pixels at a random distance (near to far, in sides) from the middle."""
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(near, far) * light.shape[1]
    return float(reach * np.cos(angle)), float(reach * np.sin(angle))


def _bright_star(light: Bands, rng: np.random.Generator, *, x0: float, y0: float, core: float) -> Bands:
    """Add a saturated star: wide wings of the PSF around a core (radius in pixels) at full well."""
    x, y = _ticks(light)
    radius = np.hypot(x - x0, y - y0)
    tint = rng.uniform(0.8, 1.2) * _WHITISH ** rng.uniform(0.5, 1.5)
    wings = _FULL / (1 + (radius / core) ** 2) ** 1.7
    return light + tint[:, None, None] * wings


def _saturation_spike(light: Bands, rng: np.random.Generator, severity: float, seeing: float) -> Bands:
    """Add a bright star whose four diffraction spikes cross the frame."""
    x, y = _ticks(light)
    x0, y0 = _star_place(light, rng, near=0.18, far=0.42)
    spoilt = _bright_star(light, rng, x0=x0, y0=y0, core=1.6 + 1.6 * severity)
    # The vanes of the secondary mirror: a cross at 45° on the sky, up to a small turn of the camera.
    turn = np.pi / 4 + rng.normal(0, 0.06)
    reach = (0.16 + 0.22 * severity) * light.shape[1]
    for angle in (turn, turn + np.pi / 2):
        along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
        across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
        spike = np.exp(-np.abs(along) / reach) * np.exp(-0.5 * (across / (0.42 * max(seeing, 2))) ** 2)
        spoilt = spoilt + _WHITISH[:, None, None] * (1.0 + 2.5 * severity) * spike
    return spoilt


def _bleed(light: Bands, rng: np.random.Generator, severity: float, seeing: float) -> Bands:
    """Add charge that a saturated star spills along a column: full in some bands, interpolated away in others."""
    x, y = _ticks(light)
    x0, y0 = rng.uniform(-0.3, 0.3) * light.shape[1], _star_place(light, rng, near=0.25, far=0.5)[1]
    spoilt = _bright_star(light, rng, x0=x0, y0=y0, core=1.5 + 1.5 * severity)
    length = (0.45 + 0.5 * severity) * light.shape[1]
    fading = expit((length - np.abs(y - y0)) / 3)
    width = rng.uniform(0.9, 1.5) + 2.0 * severity * np.exp(-np.abs(y - y0) / (0.25 * length))
    for band, shift in enumerate(rng.normal(0, 0.5, 3)):
        spilt = expit((width - np.abs(x - x0 - shift)) / 0.25) * fading
        level = rng.choice([0.0, 1.0, 3.0], p=[0.2, 0.3, 0.5]) * _WHITISH[band]
        spoilt[band] = spoilt[band] * (1 - spilt) + level * spilt
    return spoilt


def _missing_band(light: Bands, rng: np.random.Generator, severity: float, seeing: float) -> Bands:
    """Remove one band, over the whole frame or beyond the edge of a chip: NaN there."""
    spoilt = light.copy()
    band = int(rng.integers(3))
    if rng.uniform() < 0.6:
        spoilt[band] = np.nan
        return spoilt
    x, y = _ticks(light)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.03)
    edge = rng.uniform(-0.12, 0.3) * light.shape[1] * rng.choice([-1, 1])
    spoilt[band][(x * np.cos(angle) + y * np.sin(angle)) * np.sign(edge) < abs(edge)] = np.nan
    return spoilt


def _ghost(light: Bands, rng: np.random.Generator, severity: float, seeing: float) -> Bands:
    """Add an out-of-focus image of a bright star outside the frame: a pale ring, different in each band."""
    x, y = _ticks(light)
    x0, y0 = _star_place(light, rng, near=0.05, far=0.35)
    outer = rng.uniform(0.20, 0.42) * light.shape[1]
    spoilt = light.copy()
    level = 0.2 + 0.4 * severity
    for band in range(3):
        radius = np.hypot(x - x0 - rng.normal(0, 1.2), y - y0 - rng.normal(0, 1.2))
        size = outer * rng.uniform(0.94, 1.06)
        disc = expit((size - radius) / 0.8) - expit((0.38 * size - radius) / 0.8)
        spoilt[band] += disc * level * _WHITISH[band] * rng.uniform(0.75, 1.25) * (0.85 + 0.3 * radius / size)
    return spoilt


_ARTIFACTS: Mapping[str, Callable[[Bands, np.random.Generator, float, float], Bands]] = {
    "satellite_trail": _satellite_trail,
    "clumpy_with_trail": _satellite_trail,
    "saturation_spike": _saturation_spike,
    "missing_band": _missing_band,
    "bleed": _bleed,
    "ghost": _ghost,
}
