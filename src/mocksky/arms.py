"""Spiral arms, rings, bars, shells and tidal streams as maps of light, which no profile library draws."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit

Map = Float[np.ndarray, "grid grid"]
# A disk has thickness: below this cosine of its inclination, deprojecting would magnify noise.
THINNEST = 0.17


@dataclass(frozen=True)
class Plane:
    """Polar coordinates of points, usually pixels, in the plane of a disk.

    Attributes
    ----------
    radius
        Distance of each point from the centre in arcsec, float32 of any shape.
    azimuth
        Its angle from the major axis in radians, of the same shape.
    """

    radius: Float[np.ndarray, "*shape"]
    azimuth: Float[np.ndarray, "*shape"]


def plane_of(
    x: Float[np.ndarray, "*shape"], y: Float[np.ndarray, "*shape"], *, inclination: float, position_angle: float
) -> Plane:
    """Return the plane of a disk seen at an inclination (degrees), its major axis at an angle (degrees from +x)."""
    angle = np.radians(position_angle)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) / max(np.cos(np.radians(inclination)), THINNEST)
    return Plane(np.hypot(along, across).astype(np.float32), np.arctan2(across, along).astype(np.float32))


def on_sky(x: np.ndarray, y: np.ndarray, *, inclination: float, position_angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where points of a disk's plane appear on the sky; the inverse of :func:`plane_of`.

    >>> x, y = on_sky(np.array([1.0]), np.array([1.0]), inclination=60.0, position_angle=0.0)
    >>> float(x[0]), round(float(y[0]), 3)
    (1.0, 0.5)
    """
    angle = np.radians(position_angle)
    across = y * max(np.cos(np.radians(inclination)), THINNEST)
    shown_x, shown_y = x * np.cos(angle) - across * np.sin(angle), x * np.sin(angle) + across * np.cos(angle)
    return np.asarray(shown_x), np.asarray(shown_y)


def texture(rng: np.random.Generator, side: int, *, smoothness: float) -> Map:
    """Return a smooth random field of unit variance, (side, side); the smoothness is in pixels."""
    from scipy.ndimage import gaussian_filter, zoom

    # The field is drawn coarsely and enlarged: a smooth field needs no fine pixels.
    step = max(int(smoothness / 2), 1)
    coarse = rng.standard_normal((side // step + 2, side // step + 2)).astype(np.float32)
    field = gaussian_filter(coarse, smoothness / step, mode="wrap")
    field = zoom(field, step, order=1)[:side, :side] if step > 1 else field[:side, :side]
    return (field / field.std()).astype(np.float32)


def spiral_arms(
    plane: Plane,
    rng: np.random.Generator,
    *,
    arms: int,
    pitch: float,
    start: float,
    end: float,
    phase: float,
    warp: Map,
) -> Map:
    """Return logarithmic arms between two radii, each with its own strength and reach; crests are near 1.

    Parameters
    ----------
    plane
        The disk.
    rng
        Random numbers for what differs from arm to arm.
    arms
        Number of arms.
    pitch
        Angle between an arm and a circle, degrees.
    start
        Radius at which arms begin, arcsec.
    end
        Radius at which they fade, arcsec.
    phase
        Azimuth at which the first arm begins, radians.
    warp
        (grid, grid) displacement in azimuth, radians, because real arms are not perfect spirals.
    """
    slope = np.tan(np.radians(pitch))
    twisted = plane.azimuth - np.log(np.maximum(plane.radius, 0.1 * start) / start) / slope - phase + warp
    crossing = plane.radius * np.sin(np.radians(pitch))
    light = np.zeros_like(plane.radius)
    for arm in range(arms):
        away = _wrapped(twisted - 2 * np.pi * (arm + rng.normal(0, 0.05)) / arms)
        reach = end * rng.uniform(0.8, 1.1)
        width = rng.uniform(0.8, 1.2) * (0.04 + 0.075 * plane.radius / end) * end / max(arms / 2, 1) ** 0.5
        ridge = np.exp(-0.5 * (away * crossing / width) ** 2)
        light += rng.uniform(0.75, 1) * ridge * _between(plane.radius, start, reach)
    return light


def single_arm(plane: Plane, *, pitch: float, start: float, turns: float, phase: float, warp: Map) -> Map:
    """Return one arm that winds around the disk and ends; its crest is 1.

    Parameters
    ----------
    plane
        The disk.
    pitch
        Angle between the arm and a circle, degrees.
    start
        Radius at which it begins, arcsec.
    turns
        How far it winds, in turns.
    phase
        Azimuth at which it begins, radians.
    warp
        (grid, grid) displacement in azimuth, radians.
    """
    slope = np.tan(np.radians(pitch))
    light = np.zeros_like(plane.radius)
    around = np.mod(plane.azimuth - phase + warp, 2 * np.pi)
    for turn in range(int(np.ceil(turns))):
        angle = around + 2 * np.pi * turn
        crest = start * np.exp(angle * slope)
        width = 0.10 * start + 0.11 * crest
        fading = expit((2 * np.pi * turns - angle) / 0.45) * (1 - np.exp(-angle / 0.5))
        light = np.maximum(light, np.exp(-0.5 * ((plane.radius - crest) / width) ** 2) * fading)
    return light


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return np.mod(angle + np.pi, 2 * np.pi) - np.pi


def _between(radius: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return 1 between two radii and 0 outside, with soft edges."""
    return expit((radius - start) / (0.12 * start)) * expit((end - radius) / (0.15 * end))


def ring(plane: Plane, *, radius: float, width: float) -> Map:
    """Return a circle of light in the plane of the disk, its crest 1; radius and width (σ) in arcsec."""
    return np.exp(-0.5 * ((plane.radius - radius) / width) ** 2)


def bar(plane: Plane, *, length: float, breadth: float, angle: float) -> Map:
    """Return a boxy bar of semi-axes length and breadth (arcsec) at an azimuth (radians); its centre is 1."""
    along = plane.radius * np.cos(plane.azimuth - angle)
    across = plane.radius * np.sin(plane.azimuth - angle)
    # A generalised ellipse of index 2.6: real bars are boxy (Athanassoula+ 1990). Flat inside, steep at the ends.
    inside = (np.abs(along / length) ** 2.6 + np.abs(across / breadth) ** 2.6) ** (1 / 2.6)
    return (np.exp(-0.9 * inside) * expit((1 - inside) / 0.12)).astype(np.float32)


def shell_arcs(
    x: Map,
    y: Map,
    rng: np.random.Generator,
    *,
    shells: int,
    inner: float,
    outer: float,
    axis: float,
    flattening: float,
    blur: float,
) -> Map:
    """Return nested arcs on alternating sides of an axis, sharp outside and fading inwards.

    Parameters
    ----------
    x, y
        (grid, grid) pixel positions, arcsec.
    rng
        Random numbers.
    shells
        Number of arcs.
    inner
        Smallest radius, arcsec.
    outer
        Largest radius, arcsec.
    axis
        Direction in which they open, degrees.
    flattening
        Axis ratio of the arcs.
    blur
        Softness of the sharp edge, arcsec.
    """
    angle = np.radians(axis)
    along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / flattening
    radius, azimuth = np.hypot(along, across), np.arctan2(across, along)
    light = np.zeros_like(radius)
    radii = np.geomspace(inner, outer, shells) * rng.uniform(0.92, 1.08, shells)
    for number, edge in enumerate(radii):
        side = np.pi * (number % 2) + rng.normal(0, 0.25)
        away = _wrapped(azimuth - side) / rng.uniform(0.5, 0.85)
        window = np.exp(-0.5 * np.abs(away) ** 3)
        inside = np.exp((radius - edge).clip(None, 4 * blur) / (0.14 * edge)) * expit((edge - radius) / blur)
        # Shells fade outwards more slowly than the galaxy itself, which is why they are seen.
        light += inside * window * rng.uniform(0.7, 1.3) * (inner / edge) ** 1.3
    return light.astype(np.float32)


def dust_lane(plane: Plane, *, height: float, thickness: float, length: float, depth: float) -> Map:
    """Return the share of the light that a lane of dust along an edge-on disk lets through, 0 to 1.

    Parameters
    ----------
    plane
        The disk.
    height
        Height of the lane above the middle, arcsec on the sky.
    thickness
        Thickness of the lane (σ), arcsec.
    length
        Length of the lane (σ), arcsec.
    depth
        Share of the light that its middle absorbs.
    """
    above = plane.radius * np.sin(plane.azimuth) * THINNEST
    along = plane.radius * np.cos(plane.azimuth)
    absorbed = np.exp(-0.5 * (((above - height) / thickness) ** 2 + (along / length) ** 2))
    return (1 - depth * absorbed).astype(np.float32)


def tail(
    rng: np.random.Generator,
    *,
    start: float,
    length: float,
    angle: float,
    curl: float,
    breadth: float,
    points: int = 900,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw stars along a curved tidal tail.

    Parameters
    ----------
    rng
        Random numbers.
    start
        Distance at which the tail leaves the galaxy, arcsec.
    length
        Length of the tail, arcsec.
    angle
        Direction in which it leaves, degrees.
    curl
        How far it turns on its way, radians.
    breadth
        Scatter across it at its end, arcsec.
    points
        Number of stars.

    Returns
    -------
    tuple
        x and y in arcsec from the centre of the galaxy, and weights that fade outwards.
    """
    along = rng.beta(1.5, 1.7, points)
    out = start + length * along
    turned = np.radians(angle) + curl * along**0.8
    scatter = rng.standard_normal((2, points)) * breadth * (0.35 + 0.65 * along)
    return out * np.cos(turned) + scatter[0], out * np.sin(turned) + scatter[1], 1 - 0.7 * along
