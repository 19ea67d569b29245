"""What no profile library draws: spiral arms, rings, bars, shells and tidal streams, as maps of light."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy.special import expit

Map = Float32[np.ndarray, "grid grid"]
# A disk has thickness: below this cosine of its inclination, deprojecting would magnify noise.
THINNEST = 0.17


@dataclass(frozen=True)
class Plane:
    """Polar coordinates in a disk's own plane, per pixel.

    Attributes:
        radius: (grid, grid) distance from the centre, arcsec.
        azimuth: (grid, grid) angle from the major axis, radians.
    """

    radius: Map
    azimuth: Map


def plane_of(x: Map, y: Map, *, inclination: float, position_angle: float) -> Plane:
    """The plane of a disk seen at an inclination (degrees) with its major axis at an angle (degrees, from +x)."""
    angle = np.radians(position_angle)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) / max(np.cos(np.radians(inclination)), THINNEST)
    return Plane(np.hypot(along, across).astype(np.float32), np.arctan2(across, along).astype(np.float32))


def on_sky(x: np.ndarray, y: np.ndarray, *, inclination: float, position_angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a disk's plane as the sky shows them; the inverse of :func:`plane_of`."""
    angle = np.radians(position_angle)
    across = y * max(np.cos(np.radians(inclination)), THINNEST)
    return x * np.cos(angle) - across * np.sin(angle), x * np.sin(angle) + across * np.cos(angle)


def texture(rng: np.random.Generator, side: int, *, smoothness: float) -> Map:
    """A smooth random field of unit variance; smoothness in pixels."""
    from scipy.ndimage import gaussian_filter, zoom

    # Drawn coarsely and enlarged: what is smooth needs no fine pixels.
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
    """Logarithmic arms between two radii (arcsec), each with its own strength and reach; crests near 1.

    Args:
        plane: the disk.
        rng: random numbers for what differs from arm to arm.
        arms: how many.
        pitch: angle between arm and circle, degrees.
        start: where arms begin.
        end: where they fade.
        phase: azimuth at which the first begins, radians.
        warp: (grid, grid) displacement in azimuth, radians: real arms are no perfect spirals.
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
    """One arm that winds once around the disk and ends; the crest is 1.

    Args:
        plane: the disk.
        pitch: angle between arm and circle, degrees.
        start: radius at which it begins, arcsec.
        turns: how far it winds, in turns.
        phase: azimuth at which it begins, radians.
        warp: (grid, grid) displacement in azimuth, radians.
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
    """1 between two radii, soft at both."""
    return expit((radius - start) / (0.12 * start)) * expit((end - radius) / (0.15 * end))


def ring(plane: Plane, *, radius: float, width: float) -> Map:
    """A circle of light in the disk's plane, crest 1; radius and width (σ) in arcsec."""
    return np.exp(-0.5 * ((plane.radius - radius) / width) ** 2)


def bar(plane: Plane, *, length: float, breadth: float, angle: float) -> Map:
    """A boxy bar of semi-axes length and breadth (arcsec) at an azimuth (radians) in the disk's plane; centre 1."""
    along = plane.radius * np.cos(plane.azimuth - angle)
    across = plane.radius * np.sin(plane.azimuth - angle)
    # Generalised ellipse of index 2.6: boxy, as real bars are (Athanassoula+ 1990); flat inside, steep at the ends.
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
    """Nested arcs on alternating sides of an axis (degrees), sharp outside and fading inwards; radii in arcsec.

    Args:
        x: pixel positions, arcsec.
        y: pixel positions, arcsec.
        rng: random numbers.
        shells: how many arcs.
        inner: smallest radius.
        outer: largest radius.
        axis: direction in which they open, degrees.
        flattening: axis ratio of the arcs.
        blur: softness of the sharp edge.
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
        # Fainter outside, but slower than the galaxy itself: that is why shells are seen.
        light += inside * window * rng.uniform(0.7, 1.3) * (inner / edge) ** 1.3
    return light.astype(np.float32)


def dust_lane(plane: Plane, *, height: float, thickness: float, length: float, depth: float) -> Map:
    """What a lane of dust along an edge-on disk lets through, 0-1.

    Args:
        plane: the disk.
        height: of the lane above the middle, arcsec on the sky.
        thickness: of the lane (σ), arcsec.
        length: of the lane (σ), arcsec.
        depth: share of light taken at its middle.
    """
    above = plane.radius * np.sin(plane.azimuth) * THINNEST
    along = plane.radius * np.cos(plane.azimuth)
    taken = np.exp(-0.5 * (((above - height) / thickness) ** 2 + (along / length) ** 2))
    return (1 - depth * taken).astype(np.float32)


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
    """Stars along a curved tidal tail: x, y (arcsec from the galaxy's centre) and weights that fade outwards.

    Args:
        rng: random numbers.
        start: distance at which the tail leaves the galaxy, arcsec.
        length: how far out it reaches, arcsec.
        angle: direction in which it leaves, degrees.
        curl: how far it turns on its way, radians.
        breadth: scatter across it at its end, arcsec.
        points: how many.
    """
    along = rng.beta(1.5, 1.7, points)
    out = start + length * along
    turned = np.radians(angle) + curl * along**0.8
    scatter = rng.standard_normal((2, points)) * breadth * (0.35 + 0.65 * along)
    return out * np.cos(turned) + scatter[0], out * np.sin(turned) + scatter[1], 1 - 0.7 * along
