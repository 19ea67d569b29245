"""The light of a galaxy: profiles, knots, PSF and noise by GalSim, arms by ourselves, Lupton scaling by astropy."""

from dataclasses import dataclass, replace
from typing import Any

import galsim
import numpy as np
from astropy.visualization import make_lupton_rgb
from jaxtyping import Float32, UInt8
from scipy import fft
from scipy.ndimage import gaussian_filter

from mocksky import arms
from mocksky.populations import LENTICULAR, SPIRAL, GalaxyModel

# (g − r, r − i) of old and young light, mag: passive galaxies and star-forming regions at z ~ 0.05 (Strateva+ 2001).
_OLD, _DISK, _YOUNG, _HALO = (0.84, 0.44), (0.60, 0.31), (0.10, 0.00), (0.72, 0.37)
# Sky noise (σ) of one arcsec² in nanomaggies, g r i: Legacy Surveys depths (Dey+ 2019, Table 4); i is taken from z.
_SKY = np.array([0.030, 0.042, 0.070], dtype=np.float32)
# Photon noise of the source, as variance per nanomaggy: smaller than the noise of the sky except at bright centres.
_SHOT = 0.0006
# Pixel of DECam in arcsec. Finer cutouts were interpolated, so their noise is correlated.
_NATIVE = 0.262
# Weight of each band in the picture: a galaxy of g − r = 0.58, r − i = 0.30 becomes white.
_WHITE = 10 ** (0.4 * np.array([0.58, 0.0, -0.30], dtype=np.float32))
# Lupton scaling: surface brightness (nanomaggies / arcsec²) that appears at mid-grey, and softening.
_STRETCH, _SOFTENING = 1.0, 8.0
# The map is wider than the cutout so that the PSF does not wrap light round its edges.
_MARGIN = 10
# Thickness of disks: scale height over scale length of edge-on spirals (Kregel+ 2002).
_THICKNESS = 0.13


# Accuracy of GalSim's stamps: errors of a few percent at the edge of the frame are far below the noise, and drawing is
# ten times as fast as with GalSim's defaults.
_ACCURACY = galsim.GSParams(folding_threshold=0.05, maxk_threshold=1e-2, stepk_minimum_hlr=2, maximum_fft_size=2048)


class _MoffatPsf(galsim.Moffat):
    """A Moffat profile that keeps its Fourier transform: most stamps of a scene need the same one.

    The transform needs a Bessel function per pixel, which took a third of the time to draw a galaxy.
    """

    def _drawKImage(self, image: Any, jac: np.ndarray | None = None) -> None:  # noqa: N802 (GalSim's name)
        kept = self.__dict__.setdefault("_kept", {})
        bounds = image.bounds
        key = (
            bounds.xmin, bounds.xmax, bounds.ymin, bounds.ymax, image.scale, image.array.dtype.char,
            None if jac is None else jac.tobytes(),
        )  # fmt: skip
        if key not in kept:
            super()._drawKImage(image, jac)
            kept[key] = image.array.copy()
        else:
            image.array[:] = kept[key]


def band_fluxes(colour: tuple[float, float], *, redness: float = 0.0) -> Float32[np.ndarray, " bands"]:
    """Return fluxes in g, r, i relative to r.

    Parameters
    ----------
    colour
        g − r and r − i in magnitudes.
    redness
        By how much the light is redder in g − r, magnitudes; by half of that in r − i.

    Examples
    --------
    >>> band_fluxes((0.0, 0.0)).tolist()
    [1.0, 1.0, 1.0]
    """
    blue, red = colour[0] + redness, colour[1] + 0.5 * redness
    return np.array([10 ** (-0.4 * blue), 1.0, 10 ** (0.4 * red)], dtype=np.float32)


class Scene:
    """A patch of sky that is filled with light; positions are in arcsec from its middle, fluxes in nanomaggies.

    Parameters
    ----------
    side
        Pixels along a side.
    field
        Width in arcsec.
    seeing
        FWHM of the PSF in arcsec.

    Examples
    --------
    >>> scene = Scene(side=32, field=16.0, seeing=1.2)
    >>> star, grey = np.zeros(1), np.ones(3, dtype=np.float32)
    >>> scene.add_points(star, star, np.ones(1), flux=5.0, colour=grey)
    >>> scene.light().shape
    (3, 32, 32)
    """

    def __init__(self, *, side: int, field: float, seeing: float) -> None:
        self.side, self.scale, self.seeing = side, field / side, seeing
        self.grid = side + 2 * _MARGIN
        ticks = ((np.arange(self.grid) - (self.grid - 1) / 2) * self.scale).astype(np.float32)
        self.x, self.y = np.meshgrid(ticks, ticks)
        # Moffat β 3: the wings of ground-based seeing.
        self.psf = _MoffatPsf(beta=3, fwhm=seeing, gsparams=_ACCURACY)
        # Light of each band per pixel: one array without the PSF, one with it.
        self.sharp = np.zeros((3, self.grid, self.grid), dtype=np.float32)
        self.blurred = np.zeros((3, side, side), dtype=np.float32)

    def add_map(self, light: arms.Map, *, flux: float, colour: np.ndarray) -> None:
        """Add a map of light, scaled to a total flux in r."""
        self.sharp += colour[:, None, None] * (light * (flux / max(float(light.sum()), 1e-12)))

    def add_points(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, *, flux: float, colour: np.ndarray) -> None:
        """Add point sources that share a total flux in r; the flux of those outside the patch is lost."""
        column = np.asarray(x) / self.scale + (self.grid - 1) / 2
        row = np.asarray(y) / self.scale + (self.grid - 1) / 2
        shares = np.asarray(weights) * (flux / max(float(np.sum(weights)), 1e-12))
        self.sharp += colour[:, None, None] * _deposited(column, row, shares, grid=self.grid)

    def add_profile(
        self, profile: Any, *, x: float, y: float, flux: float, colour: np.ndarray, reach: float = np.inf
    ) -> None:
        """Add a GalSim profile, convolved with the PSF and the pixel, drawn out to a distance ``reach`` in arcsec."""
        middle = np.array([x, y]) / self.scale + (self.side - 1) / 2
        low = np.maximum(np.floor(middle - reach / self.scale), 0).astype(int)
        high = np.minimum(np.ceil(middle + reach / self.scale), self.side - 1).astype(int)
        if np.any(high < low):
            return
        stamp = galsim.ImageF(galsim.BoundsI(low[0], high[0], low[1], high[1]), scale=self.scale)
        blurred = galsim.Convolve([profile.withFlux(flux), self.psf], gsparams=_ACCURACY)
        light = blurred.drawImage(stamp, center=galsim.PositionD(*middle)).array
        self.blurred[:, low[1] : high[1] + 1, low[0] : high[0] + 1] += colour[:, None, None] * light

    def light(self) -> Float32[np.ndarray, "bands side side"]:
        """Return all light as the telescope sees it: (3, side, side) float32, nanomaggies / arcsec²."""
        # An even stamp's middle lies between pixels, the transform's origin on one.
        stamp = galsim.ImageF(self.grid, self.grid, scale=self.scale)
        kernel = self.psf.drawImage(stamp, offset=(0.5, 0.5)).array
        transfer = fft.rfft2(fft.ifftshift(kernel / kernel.sum()))
        convolved = fft.irfft2(fft.rfft2(self.sharp) * transfer, s=(self.grid, self.grid))
        inner = slice(_MARGIN, _MARGIN + self.side)
        return ((convolved[:, inner, inner] + self.blurred) / self.scale**2).astype(np.float32)


def _deposited(column: np.ndarray, row: np.ndarray, shares: np.ndarray, *, grid: int) -> arms.Map:
    """Return a map of point sources, each shared among its four nearest pixels."""
    left, low = np.floor(column).astype(int), np.floor(row).astype(int)
    right_part, high_part = column - left, row - low
    light = np.zeros(grid * grid)
    for step_x, part_x in ((0, 1 - right_part), (1, right_part)):
        for step_y, part_y in ((0, 1 - high_part), (1, high_part)):
            at_x, at_y = left + step_x, low + step_y
            seen = (at_x >= 0) & (at_x < grid) & (at_y >= 0) & (at_y < grid)
            light += np.bincount(
                at_y[seen] * grid + at_x[seen], (shares * part_x * part_y)[seen], minlength=grid * grid
            )
    return light.reshape(grid, grid).astype(np.float32)


@dataclass(frozen=True)
class _Disk:
    """A disk in its scene: the galaxy, its place and plane, and the phase and warp of its arms."""

    galaxy: GalaxyModel
    x: float
    y: float
    plane: arms.Plane
    phase: float
    warp: arms.Map


def add_galaxy(scene: Scene, galaxy: GalaxyModel, rng: np.random.Generator, *, x: float = 0.0, y: float = 0.0) -> None:
    """Add a galaxy to a scene, its centre at (x, y) in arcsec."""
    flux = _flux(galaxy.magnitude)
    if galaxy.is_disk:
        _add_disk(scene, galaxy, rng, flux=flux * (1 - galaxy.bulge_fraction), x=x, y=y)
    if galaxy.bulge_fraction > 0.005:
        _add_bulge(scene, galaxy, rng, flux=flux * galaxy.bulge_fraction, x=x, y=y)
    if galaxy.shells:
        _add_shells(scene, galaxy, rng, flux=flux)


def _flux(magnitude: float) -> float:
    """Return the flux of an AB magnitude in nanomaggies."""
    return float(10 ** (-0.4 * (magnitude - 22.5)))


def _add_bulge(scene: Scene, galaxy: GalaxyModel, rng: np.random.Generator, *, flux: float, x: float, y: float) -> None:
    # Bulges are smaller than their disks; the more light they have, the smaller the difference.
    size = galaxy.radius * (1.0 if not galaxy.is_disk else 0.18 + 0.45 * galaxy.bulge_fraction)
    index = round(2 * galaxy.bulge_index) / 2  # GalSim prepares each index once
    flattening = galaxy.roundness if not galaxy.is_disk else _bulge_axis_ratio(galaxy)
    profile = galsim.Sersic(n=index, half_light_radius=size, gsparams=_ACCURACY)
    profile = profile.shear(q=flattening, beta=galaxy.position_angle * galsim.degrees)
    if galaxy.bulge_offset:
        angle = rng.uniform(0, 2 * np.pi)
        reach = galaxy.bulge_offset * galaxy.radius
        dx, dy = arms.on_sky(
            np.array(reach * np.cos(angle)), np.array(reach * np.sin(angle)),
            inclination=galaxy.inclination, position_angle=galaxy.position_angle,
        )  # fmt: skip
        x, y = x + float(dx), y + float(dy)
    scene.add_profile(profile, x=x, y=y, flux=flux, colour=band_fluxes(_OLD, redness=galaxy.redness))


def _bulge_axis_ratio(galaxy: GalaxyModel) -> float:
    """Return the apparent axis ratio of a bulge of intrinsic axis ratio 0.65 at the inclination of its disk."""
    tilt = np.cos(np.radians(galaxy.inclination))
    return float(np.sqrt(0.65**2 + (1 - 0.65**2) * tilt**2))


def _add_disk(scene: Scene, galaxy: GalaxyModel, rng: np.random.Generator, *, flux: float, x: float, y: float) -> None:
    plane = arms.plane_of(
        scene.x - np.float32(x), scene.y - np.float32(y),
        inclination=galaxy.inclination, position_angle=galaxy.position_angle,
    )  # fmt: skip
    ragged = 0.10 + 0.35 * (galaxy.arms > 4) + 0.6 * galaxy.disturbance
    warp = np.float32(ragged) * arms.texture(rng, scene.grid, smoothness=9)
    disk = _Disk(galaxy, x, y, plane, float(rng.uniform(0, 2 * np.pi)), warp)
    young = flux * galaxy.young_share
    smooth = _smooth_disk(scene, disk)
    crests = _crests(disk, rng)
    bar_flux = 0.32 * galaxy.bar_strength * (flux - young)
    old = smooth * (1 + 1.1 * galaxy.arm_contrast * (crests - 0.35)).clip(0.1)
    colour = _DISK if galaxy.kind == SPIRAL else _OLD
    scene.add_map(
        old * _dimming(disk, rng), flux=flux - young - bar_flux, colour=band_fluxes(colour, redness=galaxy.redness)
    )
    if galaxy.bar_strength:
        _add_bar(scene, disk, flux=bar_flux)
    if galaxy.young_share:
        _add_young(scene, disk, rng, smooth=smooth, crests=crests, flux=young)


def _smooth_disk(scene: Scene, disk: _Disk) -> arms.Map:
    """Return an inclined exponential disk before the PSF, lopsided if the galaxy is."""
    galaxy = disk.galaxy
    profile = galsim.InclinedExponential(
        galaxy.inclination * galsim.degrees, half_light_radius=galaxy.radius, scale_h_over_r=_THICKNESS,
        gsparams=_ACCURACY,
    )  # fmt: skip
    profile = profile.rotate(galaxy.position_angle * galsim.degrees).shift(disk.x, disk.y)
    stamp = galsim.ImageF(scene.grid, scene.grid, scale=scene.scale)
    light = profile.drawImage(stamp, method="no_pixel").array.clip(0)
    reach = np.minimum(disk.plane.radius / (1.5 * galaxy.radius), 1)
    uneven = max(galaxy.lopsidedness, galaxy.disturbance)
    return (light * (1 + 0.8 * uneven * reach * np.cos(disk.plane.azimuth - disk.phase))).astype(np.float32)


def _crests(disk: _Disk, rng: np.random.Generator) -> arms.Map:
    """Return where arms and rings are, 0 to 1.2."""
    galaxy, plane = disk.galaxy, disk.plane
    radius = galaxy.radius
    crests = np.zeros_like(plane.radius)
    barred = galaxy.bar_strength > 0.2
    start = radius * (galaxy.bar_length if barred else 0.35)
    if galaxy.arms == 1:
        crests = arms.single_arm(
            plane, pitch=galaxy.pitch, start=0.45 * radius, turns=rng.uniform(0.75, 1.15), phase=disk.phase,
            warp=disk.warp,
        )  # fmt: skip
    elif galaxy.arms:
        crests = arms.spiral_arms(
            plane, rng, arms=galaxy.arms, pitch=galaxy.pitch, start=start, end=radius * 2.1, phase=disk.phase,
            warp=disk.warp,
        )  # fmt: skip
    if galaxy.ring:
        # Either a lone ring around an empty middle, or an ordinary ring at the end of the bar.
        alone = galaxy.bulge_offset > 0.35
        place = radius * (1.35 if alone else galaxy.bar_length + 0.45)
        circle = arms.ring(plane, radius=place, width=(0.17 if alone else 0.13) * radius)
        crests = np.maximum(crests, galaxy.ring * circle)
    return crests.clip(0, 1.2).astype(np.float32)


def _dimming(disk: _Disk, rng: np.random.Generator) -> arms.Map | float:
    """Return the share of the light that dust lets through, 0 to 1: a lane if the disk is seen edge-on."""
    galaxy = disk.galaxy
    if galaxy.inclination < 78 or not galaxy.dust:
        return 1.0
    thickness = 0.06 * galaxy.radius
    height = thickness * float(rng.uniform(-0.6, 0.6))
    return arms.dust_lane(
        disk.plane, height=height, thickness=thickness, length=galaxy.radius, depth=0.75 * galaxy.dust
    )


def _add_bar(scene: Scene, disk: _Disk, *, flux: float) -> None:
    galaxy = disk.galaxy
    length = galaxy.bar_length * galaxy.radius
    light = arms.bar(disk.plane, length=length, breadth=0.30 * length, angle=disk.phase)
    old = band_fluxes(_DISK if galaxy.bulge_fraction < 0.05 else _OLD, redness=galaxy.redness)
    scene.add_map(light, flux=flux, colour=old)


def _add_young(
    scene: Scene, disk: _Disk, rng: np.random.Generator, *, smooth: arms.Map, crests: arms.Map, flux: float
) -> None:
    """Add young light: patchy along the crests, and in knots."""
    galaxy = disk.galaxy
    colour = band_fluxes(_YOUNG, redness=galaxy.redness)
    structured = max(galaxy.arm_contrast, galaxy.ring if galaxy.arms == 0 else 0.0)
    patches = np.exp(0.55 * arms.texture(rng, scene.grid, smoothness=3))
    # The crests carry young light further out than the old disk reaches.
    wide = np.sqrt(smooth / max(float(smooth.max()), 1e-12))
    spread = (1 - structured) * smooth / max(float(smooth.max()), 1e-12) + structured * crests * wide
    in_knots = galaxy.clump_share or min(0.012 * galaxy.clumps, 0.25)
    scene.add_map(spread * patches, flux=flux * (1 - in_knots), colour=colour)
    if galaxy.clumps:
        _add_knots(scene, disk, rng, spread=spread, flux=flux * in_knots, colour=colour)


def _add_knots(
    scene: Scene, disk: _Disk, rng: np.random.Generator, *, spread: arms.Map, flux: float, colour: np.ndarray
) -> None:
    """Add star-forming knots: a random walk of GalSim through an exponential disk, kept where young light is."""
    galaxy = disk.galaxy
    follow = galsim.Exponential(half_light_radius=1.15 * galaxy.radius)
    walk = galsim.RandomKnots(12 * galaxy.clumps, profile=follow, rng=galsim.BaseDeviate(int(rng.integers(1, 2**31))))
    x, y = arms.on_sky(*walk.points.T, inclination=galaxy.inclination, position_angle=galaxy.position_angle)
    column = ((x + disk.x) / scene.scale + scene.grid / 2).astype(int).clip(0, scene.grid - 1)
    row = ((y + disk.y) / scene.scale + scene.grid / 2).astype(int).clip(0, scene.grid - 1)
    chance = spread[row, column] / max(float(spread.max()), 1e-12)
    kept = np.argsort(rng.exponential(size=len(chance)) / np.maximum(chance, 1e-6))[: galaxy.clumps]
    # Luminosities of H II regions follow a power law; a log-normal distribution stands for its core.
    weights = rng.lognormal(0, 0.8 if not galaxy.clump_share else 0.5, len(kept))
    scene.add_points(x[kept] + disk.x, y[kept] + disk.y, weights, flux=flux, colour=colour)


def _add_shells(scene: Scene, galaxy: GalaxyModel, rng: np.random.Generator, *, flux: float) -> None:
    """Add shells and a stream, about ten percent of the light of the galaxy."""
    colour = band_fluxes(_HALO, redness=galaxy.redness)
    light = arms.shell_arcs(
        scene.x, scene.y, rng, shells=galaxy.shells, inner=1.1 * galaxy.radius, outer=3.4 * galaxy.radius,
        axis=galaxy.position_angle, flattening=0.5 + 0.5 * galaxy.roundness, blur=0.03 * galaxy.radius,
    )  # fmt: skip
    scene.add_map(light, flux=0.16 * galaxy.severity * flux, colour=colour)
    x, y, weights = arms.tail(
        rng, start=1.5 * galaxy.radius, length=2.4 * galaxy.radius, angle=rng.uniform(0, 360),
        curl=rng.choice([-1, 1]) * rng.uniform(0.2, 1.0), breadth=0.3 * galaxy.radius, points=1500,
    )  # fmt: skip
    scene.add_points(x, y, weights, flux=0.02 * galaxy.severity * flux, colour=colour)


def add_companion(scene: Scene, galaxy: GalaxyModel, rng: np.random.Generator) -> None:
    """Add a galaxy and a second one that merges with it: overlapping disks and a tail from each."""
    angle = rng.uniform(0, 360)
    apart = galaxy.radius * rng.uniform(1.2, 2.3)
    half_x, half_y = 0.5 * apart * np.cos(np.radians(angle)), 0.5 * apart * np.sin(np.radians(angle))
    other = replace(
        galaxy,
        magnitude=galaxy.magnitude - 2.5 * float(np.log10(galaxy.companion)),
        radius=galaxy.radius * galaxy.companion**0.4 * float(rng.uniform(0.75, 1.0)),
        inclination=float(rng.uniform(15, 70)),
        position_angle=float(rng.uniform(0, 180)),
        kind=SPIRAL if rng.uniform() < 0.6 else LENTICULAR,
        redness=float(rng.normal(0, 0.06)),
    )
    for member, x, y, away in ((galaxy, -half_x, -half_y, 180.0), (other, half_x, half_y, 0.0)):
        add_galaxy(scene, replace(member, disturbance=0.6), rng, x=x, y=y)
        _add_tail(scene, member, rng, x=x, y=y, angle=angle + away + rng.uniform(20, 70))


def _add_tail(scene: Scene, galaxy: GalaxyModel, rng: np.random.Generator, *, x: float, y: float, angle: float) -> None:
    dx, dy, weights = arms.tail(
        rng, start=0.6 * galaxy.radius, length=galaxy.radius * rng.uniform(2.2, 3.6), angle=angle,
        curl=rng.uniform(0.2, 1.3), breadth=0.26 * galaxy.radius, points=1500,
    )  # fmt: skip
    share = 0.09 * galaxy.severity * rng.uniform(0.6, 1.2)
    scene.add_points(
        x + dx,
        y + dy,
        weights,
        flux=share * _flux(galaxy.magnitude),
        colour=band_fluxes((0.42, 0.2), redness=galaxy.redness),
    )


def add_neighbours(scene: Scene, galaxy: GalaxyModel, rng: np.random.Generator) -> None:
    """Add stars and small galaxies of the field, except on the middle of the galaxy."""
    width = scene.side * scene.scale
    # About 9 objects per arcmin² are bright enough to see (r < 22) at high latitude.
    for _ in range(min(rng.poisson(9 * galaxy.neighbours * (width / 60) ** 2), 12)):
        x, y = rng.uniform(-width / 2, width / 2, 2)
        flux = _flux(max(22 - float(rng.exponential(1.3)), 16.5))
        if np.hypot(x, y) < 0.9 * galaxy.radius:
            continue
        if rng.uniform() < 0.45:
            scene.add_points(np.array([x]), np.array([y]), np.ones(1), flux=flux, colour=_star_colour(rng))
            continue
        small = galsim.Sersic(
            n=float(rng.choice([1.0, 1.5, 2.5])), half_light_radius=float(rng.uniform(0.5, 1.2)), gsparams=_ACCURACY
        )
        small = small.shear(q=float(rng.uniform(0.35, 1)), beta=float(rng.uniform(0, 180)) * galsim.degrees)
        colour = band_fluxes(_DISK, redness=float(rng.normal(0.1, 0.25)))
        scene.add_profile(small, x=x, y=y, flux=flux, colour=colour, reach=7.0)


def _star_colour(rng: np.random.Generator) -> Float32[np.ndarray, " bands"]:
    """Draw a colour along the stellar locus, from F to M (Covey+ 2007)."""
    blue = float(rng.uniform(0.25, 1.45))
    return band_fluxes((blue, 0.05 + 0.4 * blue if blue < 1.3 else 0.9))


def with_noise(
    light: Float32[np.ndarray, "bands side side"], rng: np.random.Generator, *, scale: float
) -> Float32[np.ndarray, "bands side side"]:
    """Add noise of sky and source, correlated if the pixels are finer than those of the camera.

    Parameters
    ----------
    light
        (3, side, side) surface brightness, nanomaggies / arcsec²; NaN where nothing was observed.
    rng
        Random numbers.
    scale
        Size of a pixel in arcsec.

    Returns
    -------
    numpy.ndarray
        The same shape; 0 where nothing was observed.
    """
    deviate = galsim.BaseDeviate(int(rng.integers(1, 2**31)))
    noise = galsim.ImageF(light.shape[2], light.shape[1] * len(light))
    variance = ((_SKY[:, None, None] ** 2 + _SHOT * np.nan_to_num(light).clip(0)) / scale**2).astype(np.float32)
    noise.addNoise(galsim.VariableGaussianNoise(deviate, galsim.Image(variance.reshape(-1, light.shape[2]))))
    grain = noise.array.reshape(light.shape)
    smoothing = 0.42 * _NATIVE / scale
    return np.nan_to_num(light + gaussian_filter(grain, (0, smoothing, smoothing), mode="reflect"))


def picture_of(bands: Float32[np.ndarray, "bands side side"]) -> UInt8[np.ndarray, "side side 3"]:
    """Return g, r, i surface brightness (nanomaggies / arcsec²) as a colour picture, by Lupton scaling."""
    blue, green, red = bands * _WHITE[:, None, None]
    with np.errstate(invalid="ignore", divide="ignore"):  # astropy divides before it masks pixels without light
        return make_lupton_rgb(red, green, blue, minimum=0.0, stretch=_STRETCH, Q=_SOFTENING)
