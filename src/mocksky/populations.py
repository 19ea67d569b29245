"""The galaxies of the mock sky: ordinary ones, drawn from priors, and rare populations planted among them.

Every planted galaxy begins as an ordinary galaxy, its *host*. Volunteers vote on the host, and the cutout shows the
planted galaxy. So the votes cannot name a planted population: they are drawn before it is planted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

ORDINARY = "ordinary"
ELLIPTICAL, LENTICULAR, SPIRAL = "elliptical", "lenticular", "spiral"
# Approximate shares of a magnitude-limited local sample (Nair & Abraham 2010, Table 4).
_TYPES = {ELLIPTICAL: 0.27, LENTICULAR: 0.13, SPIRAL: 0.60}
# Shares of arm counts among spirals: mostly two in Galaxy Zoo DECaLS (Walmsley+ 2022); 6 stands for flocculent.
_ARMS = {0: 0.16, 2: 0.46, 3: 0.15, 4: 0.08, 6: 0.15}
# Width of a cutout in half-light radii (with scatter), because Galaxy Zoo scales its images by Petrosian radius.
_FIELD = 8.0


@dataclass(frozen=True)
class GalaxyModel:
    """The hidden truth of one galaxy.

    Units: ``magnitude`` is an r AB magnitude; ``radius`` (half-light), ``seeing`` (FWHM) and ``field`` (width of the
    cutout) are in arcsec; ``inclination``, ``position_angle`` and ``pitch`` in degrees; ``bar_length``,
    ``bulge_offset`` and ``fragment`` in half-light radii; strengths and shares run from 0 to 1.
    """

    population: str
    kind: str
    magnitude: float
    radius: float
    seeing: float
    field: float
    inclination: float
    position_angle: float
    roundness: float
    bulge_fraction: float
    bulge_index: float
    redness: float
    arms: int = 0
    pitch: float = 20.0
    arm_contrast: float = 0.0
    young_share: float = 0.0
    clumps: int = 0
    bar_strength: float = 0.0
    bar_length: float = 0.5
    ring: float = 0.0
    dust: float = 0.0
    disturbance: float = 0.0
    neighbours: float = 1.0
    spoiled: float = 0.02
    # Only planted populations have these.
    clump_share: float = 0.0
    bulge_offset: float = 0.0
    lopsidedness: float = 0.0
    shells: int = 0
    companion: float = 0.0
    fragment: float = 0.0
    severity: float = 0.0

    @property
    def is_disk(self) -> bool:
        """Whether the galaxy has a disk, which can be seen edge-on."""
        return self.kind != ELLIPTICAL

    @property
    def surface_brightness(self) -> float:
        """Mean r surface brightness within the half-light radius, mag / arcsec²."""
        return self.magnitude + 2.5 * float(np.log10(2 * np.pi * self.radius**2))


@dataclass(frozen=True)
class GalaxyPair:
    """A galaxy as volunteers see it (``host``) and as its cutout shows it (``shown``); equal for ordinary galaxies."""

    host: GalaxyModel
    shown: GalaxyModel


def ordinary_galaxy(rng: np.random.Generator, *, kind: str = "") -> GalaxyModel:
    """Draw an ordinary galaxy of the local universe, of a random type or of the given one."""
    kind = kind or str(rng.choice(list(_TYPES), p=list(_TYPES.values())))
    magnitude = _magnitude(rng)
    radius = _radius(rng, magnitude, kind=kind)
    galaxy = GalaxyModel(
        population=ORDINARY,
        kind=kind,
        magnitude=magnitude,
        radius=radius,
        # Legacy Surveys DR8 seeing: median 1.2 arcsec, rarely below 0.9 or above 1.8 (Dey+ 2019, Fig. 8).
        seeing=float(np.clip(rng.lognormal(np.log(1.2), 0.14), 0.85, 1.9)),
        field=radius * _FIELD * float(rng.lognormal(0, 0.12)),
        inclination=float(np.degrees(np.arccos(rng.uniform(0, 1)))),
        position_angle=float(rng.uniform(0, 180)),
        roundness=float(np.clip(rng.normal(0.76, 0.15), 0.3, 1.0)),
        bulge_fraction=1.0,
        bulge_index=float(np.clip(rng.normal(3.6, 0.7), 2.0, 5.0)),
        redness=float(rng.normal(0, 0.05)),
        neighbours=float(rng.gamma(2.0, 0.5)),
        disturbance=float(rng.beta(1, 12)),
        spoiled=float(rng.beta(1, 40)),
    )
    if kind == ELLIPTICAL:
        return galaxy
    return _lenticular(galaxy, rng) if kind == LENTICULAR else _spiral(galaxy, rng)


def _magnitude(rng: np.random.Generator) -> float:
    """Draw an r magnitude between 13.8 and 17.77, the limit of Galaxy Zoo; faint ones prevail, less than on the sky."""
    bright, faint, slope = 13.8, 17.77, 0.28 * np.log(10)
    place = rng.uniform(0, 1)
    return float(np.log(np.exp(slope * bright) * (1 - place) + np.exp(slope * faint) * place) / slope)


def _radius(rng: np.random.Generator, magnitude: float, *, kind: str) -> float:
    """Draw a half-light radius in arcsec: the surface brightness is nearly constant, and disks are larger."""
    median = (3.0 if kind == ELLIPTICAL else 4.7) * 10 ** (-0.16 * (magnitude - 17.0))
    return float(np.clip(rng.lognormal(np.log(median), 0.24), 1.8, 14.0))


def _lenticular(galaxy: GalaxyModel, rng: np.random.Generator) -> GalaxyModel:
    return replace(
        galaxy,
        bulge_fraction=float(np.clip(rng.normal(0.5, 0.12), 0.25, 0.75)),
        bulge_index=float(rng.uniform(2, 4)),
        bar_strength=_bar(rng, share=0.25),
        ring=float(rng.uniform(0.3, 1)) if rng.uniform() < 0.08 else 0.0,
    )


def _spiral(galaxy: GalaxyModel, rng: np.random.Generator) -> GalaxyModel:
    """Make a disk along the Hubble sequence: late ones are bluer, looser, clumpier, with smaller bulges."""
    stage = rng.uniform(0, 1)
    arms = int(rng.choice(list(_ARMS), p=list(_ARMS.values())))
    return replace(
        galaxy,
        bulge_fraction=float(np.clip(0.42 * (1 - stage) ** 1.6 + rng.normal(0.02, 0.03), 0.0, 0.6)),
        bulge_index=float(rng.uniform(1.0, 3.2)),
        redness=galaxy.redness + 0.12 * (0.5 - stage),
        arms=arms,
        pitch=float(np.clip(13 + 17 * stage + rng.normal(0, 4), 8, 38)),
        arm_contrast=float(rng.beta(4, 1.3)) if arms else 0.0,
        young_share=float(np.clip(0.15 + 0.35 * stage + rng.normal(0, 0.06), 0.05, 0.6)),
        clumps=int(rng.poisson(6 + 26 * stage)),
        bar_strength=_bar(rng, share=0.42),
        bar_length=float(rng.uniform(0.35, 0.75)),
        ring=float(rng.uniform(0.3, 1)) if rng.uniform() < 0.10 else 0.0,
        dust=float(rng.uniform(0.3, 1)) if rng.uniform() < 0.5 else 0.0,
    )


def _bar(rng: np.random.Generator, *, share: float) -> float:
    return float(rng.uniform(0.4, 1)) if rng.uniform() < share else 0.0


def _clear_spiral(rng: np.random.Generator, *, arms: int, tilt: tuple[float, float] = (5, 58)) -> GalaxyModel:
    """Draw an ordinary spiral that is seen well: large, bright and not too inclined."""
    return replace(
        _resolved(ordinary_galaxy(rng, kind=SPIRAL), rng),
        arms=arms,
        arm_contrast=float(rng.uniform(0.5, 0.95)),
        inclination=float(rng.uniform(*tilt)),
        ring=0.0,
    )


def _resolved(galaxy: GalaxyModel, rng: np.random.Generator) -> GalaxyModel:
    """Bring a galaxy nearer, because a planted feature must be large enough to show."""
    magnitude = min(galaxy.magnitude, float(rng.uniform(14.8, 16.6)))
    radius = max(galaxy.radius, float(rng.uniform(4.5, 8)))
    return replace(galaxy, magnitude=magnitude, radius=radius, field=galaxy.field / galaxy.radius * radius)


def _one_armed(rng: np.random.Generator) -> GalaxyPair:
    """Draw one dominant arm around a disk with an offset nucleus; the host is an ordinary two-armed spiral."""
    host = replace(
        _clear_spiral(rng, arms=2), pitch=float(rng.uniform(13, 24)), bar_strength=0.0, arm_contrast=rng.uniform(0.6, 1)
    )
    shown = replace(
        host,
        arms=1,
        arm_contrast=1.0,
        young_share=float(rng.uniform(0.25, 0.5)),
        bulge_fraction=min(host.bulge_fraction, 0.2),
        bulge_offset=float(rng.uniform(0.1, 0.3)),
        lopsidedness=float(rng.uniform(0.35, 0.8)),
    )
    return GalaxyPair(host, shown)


def _off_centre_ring(rng: np.random.Generator) -> GalaxyPair:
    """Draw a blue knotty ring around an offset nucleus, as after a collision; the host is a tightly wound spiral."""
    host = replace(_clear_spiral(rng, arms=2, tilt=(5, 60)), pitch=float(rng.uniform(8, 15)), bar_strength=0.0)
    shown = replace(
        host,
        arms=0,
        arm_contrast=0.0,
        ring=1.0,
        bulge_fraction=float(rng.uniform(0.16, 0.34)),
        bulge_offset=float(rng.uniform(0.55, 1.0)),
        young_share=float(rng.uniform(0.5, 0.7)),
        clumps=int(rng.integers(16, 36)),
        lopsidedness=float(rng.uniform(0.1, 0.6)),
    )
    return GalaxyPair(host, shown)


def _low_mass_barred_clumpy(rng: np.random.Generator) -> GalaxyPair:
    """Draw a faint blue Magellanic disk: offset bar, bright clumps, no bulge; the host is a late barred spiral."""
    late = _clear_spiral(rng, arms=2, tilt=(5, 55))
    magnitude = 20.7 - 2.5 * float(np.log10(late.radius**2)) + float(rng.normal(0, 0.3))
    host = replace(
        late,
        magnitude=magnitude,
        bulge_fraction=float(rng.uniform(0, 0.05)),
        bar_strength=float(rng.uniform(0.5, 0.8)),
        bar_length=float(rng.uniform(0.5, 0.8)),
        arm_contrast=float(rng.uniform(0.1, 0.3)),
        field=6.4 * late.radius * float(rng.lognormal(0, 0.08)),
        redness=-0.03 + float(rng.normal(0, 0.04)),
        pitch=float(rng.uniform(24, 36)),
    )
    shown = replace(
        host,
        arms=0,
        bulge_fraction=0.0,
        young_share=float(rng.uniform(0.3, 0.45)),
        clumps=int(rng.integers(9, 18)),
        clump_share=float(rng.uniform(0.3, 0.45)),
        bar_strength=float(rng.uniform(0.7, 1)),
        bulge_offset=float(rng.uniform(0.15, 0.35)),
        lopsidedness=float(rng.uniform(0.4, 0.9)),
    )
    return GalaxyPair(host, shown)


def _shells(rng: np.random.Generator) -> GalaxyPair:
    """Draw nested arcs and a stream around an elliptical; the host is an ordinary elliptical."""
    host = _resolved(ordinary_galaxy(rng, kind=ELLIPTICAL), rng)
    host = replace(host, magnitude=float(rng.uniform(14.2, 15.8)), field=host.field * 1.25, disturbance=0.05)
    return GalaxyPair(host, replace(host, shells=int(rng.integers(3, 8)), severity=float(rng.uniform(0.5, 1))))


def _merging_pair(rng: np.random.Generator) -> GalaxyPair:
    """Draw two similar galaxies that overlap, with tails; the host is one galaxy with a mild disturbance."""
    kind = SPIRAL if rng.uniform() < 0.7 else LENTICULAR
    host = _resolved(ordinary_galaxy(rng, kind=kind), rng)
    host = replace(host, inclination=float(rng.uniform(10, 65)))
    merging = _merging(GalaxyPair(host, host), rng)
    return replace(merging, shown=replace(merging.shown, arm_contrast=0.4))


def _merging(pair: GalaxyPair, rng: np.random.Generator) -> GalaxyPair:
    """Add a companion to a pair; its host then shows a mild disturbance."""
    disturbance, field = float(rng.uniform(0.1, 0.25)), pair.host.field * 1.2
    host, shown = (replace(model, disturbance=disturbance, field=field) for model in (pair.host, pair.shown))
    return GalaxyPair(host, replace(shown, companion=float(rng.uniform(0.4, 1)), severity=float(rng.uniform(0.5, 1))))


def _shredded(rng: np.random.Generator) -> GalaxyPair:
    """Draw a piece of a large spiral that was catalogued as a galaxy: the spiral fills the frame off-centre."""
    host = replace(_clear_spiral(rng, arms=2), pitch=float(rng.uniform(20, 34)), clumps=30)
    big = host.radius * float(rng.uniform(2.8, 3.8))
    shown = replace(
        host,
        magnitude=host.magnitude + 0.4 - 5 * float(np.log10(big / host.radius)),
        radius=big,
        arm_contrast=float(rng.uniform(0.7, 1)),
        bulge_fraction=min(host.bulge_fraction, 0.25),
        fragment=float(rng.uniform(1.2, 1.9)),
        clumps=int(rng.integers(30, 60)),
        clump_share=0.12,
    )
    return GalaxyPair(host, shown)


def _artifact(rng: np.random.Generator) -> GalaxyPair:
    """Draw an ordinary galaxy on a bad frame; the share of volunteers who say artifact is the same for every kind."""
    severity = float(rng.uniform(0.3, 1))
    galaxy = ordinary_galaxy(rng)
    return _spoiled(GalaxyPair(galaxy, galaxy), rng, severity=severity)


def _spoiled(pair: GalaxyPair, rng: np.random.Generator, *, severity: float) -> GalaxyPair:
    """Put a pair on a bad frame; the name of the population says which artifact it has."""
    spoiled = float(np.clip(0.4 * severity * rng.uniform(0.4, 1.2), 0.03, 0.45))
    return GalaxyPair(replace(pair.host, spoiled=spoiled), replace(pair.shown, spoiled=spoiled, severity=severity))


def _one_armed_merging(rng: np.random.Generator) -> GalaxyPair:
    """Draw two one-armed galaxies that merge."""
    return _merging(_one_armed(rng), rng)


def _ring_with_shells(rng: np.random.Generator) -> GalaxyPair:
    """Draw a ring within the shells of a galaxy that it has accreted; the host is a tightly wound spiral."""
    ring = _off_centre_ring(rng)
    magnitude, field = min(ring.host.magnitude, float(rng.uniform(14.2, 15.8))), ring.host.field * 1.25
    host, shown = (replace(model, magnitude=magnitude, field=field) for model in (ring.host, ring.shown))
    return GalaxyPair(host, replace(shown, shells=int(rng.integers(3, 8)), severity=float(rng.uniform(0.5, 1))))


def _clumpy_with_trail(rng: np.random.Generator) -> GalaxyPair:
    """Draw a low-mass barred clumpy galaxy under the trail of a satellite."""
    return _spoiled(_low_mass_barred_clumpy(rng), rng, severity=float(rng.uniform(0.3, 1)))


PLANTED: Mapping[str, Callable[[np.random.Generator], GalaxyPair]] = {
    "one_armed": _one_armed,
    "off_centre_ring": _off_centre_ring,
    "low_mass_barred_clumpy": _low_mass_barred_clumpy,
    "shells": _shells,
    "merging_pair": _merging_pair,
    "shredded": _shredded,
    "satellite_trail": _artifact,
    "saturation_spike": _artifact,
    "missing_band": _artifact,
    "bleed": _artifact,
    "ghost": _artifact,
}
# Two planted features in one galaxy; a sky has them only if its rates name them.
BLENDS: Mapping[str, Callable[[np.random.Generator], GalaxyPair]] = {
    "one_armed_merging": _one_armed_merging,
    "ring_with_shells": _ring_with_shells,
    "clumpy_with_trail": _clumpy_with_trail,
}
_EVERY = {**PLANTED, **BLENDS}


def planted_galaxy(rng: np.random.Generator, population: str) -> GalaxyPair:
    """Draw a galaxy of a planted population or blend, and the ordinary galaxy that volunteers believe it to be."""
    pair = _EVERY[population](rng)
    return GalaxyPair(pair.host, replace(pair.shown, population=population))


def galaxy_at(index: int, *, seed: int, rates: Mapping[str, float]) -> GalaxyPair:
    """Return the truth of one galaxy of a sky; it does not depend on the size of the survey.

    Parameters
    ----------
    index
        Number of the galaxy.
    seed
        Seed of the sky.
    rates
        Share of the sky's galaxies in each planted population or blend; the others are ordinary.

    Examples
    --------
    >>> galaxy_at(7, seed=0, rates={"shells": 1.0}).shown.population
    'shells'
    """
    rng = stream(seed, index, "truth")
    place, reached = float(rng.uniform()), 0.0
    for population in _EVERY:
        reached += rates.get(population, 0.0)
        if place < reached:
            return planted_galaxy(rng, population)
    galaxy = ordinary_galaxy(rng)
    return GalaxyPair(galaxy, galaxy)


_STREAMS = ("truth", "pixels", "votes", "position")


def stream(seed: int, index: int, name: str) -> np.random.Generator:
    """Return the random numbers of one galaxy for one purpose; they follow from seed, index and purpose alone.

    Parameters
    ----------
    seed
        Seed of the sky.
    index
        Number of the galaxy.
    name
        Purpose: ``truth``, ``pixels``, ``votes`` or ``position``.
    """
    return np.random.default_rng((seed, index, _STREAMS.index(name)))
