"""Embeddings with planted groups, which a search should find, in a bulk in which it should find nothing.

The bulk is smooth and redundant, as the embeddings of vote-trained networks are: 8 latent directions, bent into 128 by
a random network with one layer of waves. In the latent space the bulk is one normal distribution, or a mixture of
several broad ones that overlap, as the common kinds of galaxies do. Groups are normal clouds in the same latent space,
so that they lie on the bulk's manifold, or such clouds moved off it.

Shape letters: n galaxies, D embedding width, g groups, k components of the bulk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from rarezoo.errors import ConfigError, OutputError

# Must grow when anything about the skies changes, so that older results are not used for new skies.
GENERATION = 2
WIDTH, LATENT = 128, 8
PLACES = ("inside", "edge", "off")
NORMAL, MIXTURE = "normal", "mixture"
BULKS = (NORMAL, MIXTURE)
# Components of a mixture; spread of their centres and scatter of each along its axes, so that neighbours overlap;
# smallest and largest of their weights, before these are divided by their sum.
_COMPONENTS, _SPREAD, _SCATTERS, _WEIGHTS = 8, 0.8, (0.35, 0.7), (0.7, 1.4)
# Smallest and largest distance of groups of each place from the middle of the bulk, in its σ.
_RADII = {"inside": (0.0, 2.0), "edge": (3.0, 4.0), "off": (0.0, 2.5)}
# Distance off the manifold; the bulk is about 16 across.
_AWAY = (2.0, 10.0)
# Density of a group at a typical member (√8 scatters out, in 8 dimensions) over the bulk's at its centre: from hardly
# visible to obvious.
_CONTRASTS = (1.5, 60.0)
# Largest latent scatter of a group, because a wider one would be part of the bulk; spread of its axes' logarithms.
_WIDEST, _ELONGATION = 0.6, 0.25
# Waves that bend the bulk, their amplitude, and the scatter of every embedding in all directions; rows scattered at a
# time.
_WAVES, _BEND, _NOISE, _AT_ONCE = 64, 0.84, 0.05, 10_000
_SMALLEST, _LARGEST = 20, 2000


@dataclass(frozen=True)
class Planted:
    """Embeddings with their planted groups.

    Attributes
    ----------
    embeddings
        (n, D) embeddings.
    groups
        (n,) group of each galaxy, from 0; −1 for the bulk.
    sizes
        (g,) number of galaxies in each group.
    contrasts
        (g,) density of the group at a typical member divided by the density of the bulk at the centre of the group.
    places
        (g,) where each group lies, one of :data:`PLACES`.
    """

    embeddings: Float32[np.ndarray, "n D"]
    groups: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " g"]
    contrasts: Float64[np.ndarray, " g"]
    places: tuple[str, ...]


def planted_vectors(
    seed: int, *, galaxies: int = 30_000, groups: int = 30, smallest: int = _SMALLEST, largest: int = _LARGEST,
    bulk: str = NORMAL,
) -> Planted:  # fmt: skip
    """Draw a bulk with groups inside it, at its edge, and off it; with ``groups=0`` there is only the bulk.

    It takes at most about 20 n × D bytes of memory while it draws.

    Parameters
    ----------
    seed
        Seed of everything, the shape of the bulk included.
    galaxies
        Number of galaxies n, groups included.
    groups
        Number of groups g; their sizes are evenly spaced in the logarithm.
    smallest, largest
        Number of galaxies in the smallest and the largest group.
    bulk : {"normal", "mixture"}
        Latent distribution of the bulk: one normal distribution, or a mixture of eight that overlap.

    Raises
    ------
    ConfigError
        The groups leave a bulk of less than half of the galaxies, or there is no such bulk.

    Examples
    --------
    >>> planted_vectors(0, galaxies=500, groups=2, smallest=20, largest=50).embeddings.shape
    (500, 128)
    """
    possible = 1 <= smallest <= largest and groups >= 0
    sizes = np.round(np.geomspace(smallest, largest, groups)).astype(np.int64) if possible else np.empty(0, np.int64)
    if not possible or 2 * sizes.sum() > galaxies or galaxies < 1:
        raise ConfigError(
            "planted groups must leave a bulk of half the galaxies",
            value=f"{groups} groups of {smallest} to {largest} in {galaxies}",
            fix="Plant fewer or smaller groups, or take more galaxies.",
        )  # fmt: skip
    if bulk not in BULKS:
        raise ConfigError("unknown bulk", value=bulk, fix=f"Choose one of: {', '.join(BULKS)}.")
    random = np.random.default_rng(seed)
    bent = _bend(random)
    latent = _Bulk.normal() if bulk == NORMAL else _Bulk.mixture(random)
    remaining = int(galaxies - sizes.sum())
    embeddings = [bent(latent.draw(remaining, random))]
    faintest, strongest = np.log(_CONTRASTS)
    contrasts = np.exp(random.uniform(faintest, strongest, size=groups))
    places = tuple(PLACES[number] for number in random.integers(0, len(PLACES), groups))
    for size, contrast, place in zip(sizes, contrasts, places, strict=True):
        centre = latent.centre(place, random)
        # Solved from size · exp(−8 / 2) / scatter⁸ = contrast · density of the bulk at the centre.
        scatter = (size * np.exp(-LATENT / 2) / (contrast * remaining * latent.density(centre))) ** (1 / LATENT)
        embeddings.append(_group(bent, random, size=int(size), centre=centre, scatter=scatter, off=place == "off"))
    values = _scattered(embeddings, random)
    order = random.permutation(galaxies)
    truth = np.concatenate([np.full(remaining, -1), np.repeat(np.arange(groups), sizes)])
    return Planted(values[order], truth[order], sizes, contrasts, places)


@dataclass(frozen=True)
class PlantedSurvey:
    """A survey of any size with planted groups, which is drawn shard by shard and never held in memory.

    The vectors are of the same kind as those of :func:`planted_vectors`, but not the same ones.

    Attributes
    ----------
    galaxies
        Number of galaxies n.
    sizes
        Number of galaxies in each group.
    places
        Where each group lies, one of :data:`PLACES`.
    contrasts
        Density of each group at a typical member over that of the bulk at its centre.
    seed
        Seed of everything.

    Examples
    --------
    >>> survey = PlantedSurvey(1000, sizes=(40,), places=("off",), contrasts=(20.0,), seed=1)
    >>> embeddings, groups = survey.shard(0, 500)
    >>> embeddings.shape, len(groups)
    ((500, 128), 500)
    """

    galaxies: int
    sizes: tuple[int, ...]
    places: tuple[str, ...]
    contrasts: tuple[float, ...]
    seed: int = 0

    def shard(self, start: int, stop: int) -> tuple[Float32[np.ndarray, "rows D"], Int64[np.ndarray, " rows"]]:
        """Return embeddings and groups (−1 for the bulk) of the galaxies from row ``start`` to before ``stop``."""
        shape, drawn = np.random.default_rng([self.seed, 0]), np.random.default_rng([self.seed, 1, start])
        bent, latent = _bend(shape), _Bulk.normal()
        groups = self.groups()[start:stop]
        values = bent(latent.draw(stop - start, drawn))
        for group, (size, place, contrast) in enumerate(zip(self.sizes, self.places, self.contrasts, strict=True)):
            own = np.random.default_rng([self.seed, 2, group])
            centre = latent.centre(place, own)
            remaining = self.galaxies - sum(self.sizes)
            scatter = (size * np.exp(-LATENT / 2) / (contrast * remaining * latent.density(centre))) ** (1 / LATENT)
            axes = np.exp(own.normal(size=LATENT) * _ELONGATION)
            axes *= min(scatter, _WIDEST) / np.exp(np.log(axes).mean())
            away = _unit(own.normal(size=WIDTH)) * own.uniform(*_AWAY) if place == "off" else 0.0
            rows = np.flatnonzero(groups == group)
            values[rows] = bent(centre + axes * drawn.normal(size=(len(rows), LATENT))) + away
        return (values + _NOISE * drawn.normal(size=values.shape)).astype(np.float32), groups

    def groups(self) -> Int64[np.ndarray, " n"]:
        """Return the group of every galaxy, −1 for the bulk."""
        total = sum(self.sizes)
        rows = np.random.default_rng([self.seed, 3]).choice(self.galaxies, total, replace=False)
        groups = np.full(self.galaxies, -1, dtype=np.int64)
        groups[rows] = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return groups


@dataclass(frozen=True)
class _Bulk:
    """Latent distribution of the bulk: k round normal distributions with their centres, scatters and weights."""

    centres: Float64[np.ndarray, "k 8"]
    scatters: Float64[np.ndarray, " k"]
    weights: Float64[np.ndarray, " k"]

    @classmethod
    def normal(cls) -> "_Bulk":
        return cls(np.zeros((1, LATENT)), np.ones(1), np.ones(1))

    @classmethod
    def mixture(cls, random: np.random.Generator) -> "_Bulk":
        weights = random.uniform(*_WEIGHTS, size=_COMPONENTS)
        centres = _SPREAD * random.normal(size=(_COMPONENTS, LATENT))
        return cls(centres, random.uniform(*_SCATTERS, size=_COMPONENTS), weights / weights.sum())

    def draw(self, galaxies: int, random: np.random.Generator) -> Float64[np.ndarray, "galaxies 8"]:
        """Return latent positions of galaxies."""
        if len(self.weights) == 1:
            return random.normal(size=(galaxies, LATENT))
        component = random.choice(len(self.weights), size=galaxies, p=self.weights)
        return self.centres[component] + self.scatters[component, None] * random.normal(size=(galaxies, LATENT))

    def density(self, position: Float64[np.ndarray, " 8"]) -> float:
        """Return the share of the bulk per unit of volume, times (2π)⁴."""
        squares = np.square(position - self.centres).sum(axis=1) / self.scatters**2
        return float((self.weights * np.exp(-squares / 2) / self.scatters**LATENT).sum())

    def centre(self, place: str, random: np.random.Generator) -> Float64[np.ndarray, " 8"]:
        """Draw the centre of a group: from the middle in σ of the bulk, or within or between two components."""
        if len(self.weights) == 1 or place == "edge":
            sigma = float(np.sqrt((self.weights * (np.square(self.centres).mean(axis=1) + self.scatters**2)).sum()))
            return _unit(random.normal(size=LATENT)) * random.uniform(*_RADII[place]) * sigma
        first, second = self.centres[random.choice(len(self.weights), size=2, replace=False)]
        return first + random.uniform(0, 0.5) * (second - first)


def refuse_other_skies(found: int | str | None, *, now: int | str, where: Path) -> None:
    """Raise OutputError if results belong to skies of another generation than the present one."""
    if found != now:
        raise OutputError(
            "results on skies that another generator drew",
            value=f"{where} (generation {found or 'unknown'}, now {now})",
            fix="Choose another out=DIR, or delete that folder if you no longer need it.",
        )


def _bend(random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return a smooth map of latent positions (m, 8) into embeddings (m, D)."""
    linear = random.normal(size=(LATENT, WIDTH)) / np.sqrt(LATENT)
    waves, phases = random.normal(size=(LATENT, _WAVES)) / np.sqrt(LATENT), random.uniform(-np.pi, np.pi, _WAVES)
    mixed = random.normal(size=(_WAVES, WIDTH)) / np.sqrt(_WAVES)
    return lambda latent: latent @ linear + _BEND * np.sin(latent @ waves + phases) @ mixed


def _group(
    bent: Callable[[np.ndarray], np.ndarray],
    random: np.random.Generator,
    *,
    size: int,
    centre: Float64[np.ndarray, " 8"],
    scatter: float,
    off: bool,
) -> Float64[np.ndarray, "members D"]:
    axes = np.exp(random.normal(size=LATENT) * _ELONGATION)
    axes *= min(scatter, _WIDEST) / np.exp(np.log(axes).mean())
    members = bent(centre + axes * random.normal(size=(size, LATENT)))
    return members + _unit(random.normal(size=WIDTH)) * random.uniform(*_AWAY) if off else members


def _scattered(parts: Sequence[Float64[np.ndarray, "_ D"]], random: np.random.Generator) -> Float32[np.ndarray, "n D"]:
    """Return the parts in one array, with noise."""
    blocks = (block for part in parts for block in np.array_split(part, len(part) // _AT_ONCE + 1))
    return np.concatenate([(block + _NOISE * random.normal(size=block.shape)).astype(np.float32) for block in blocks])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
