"""Votes that volunteers would give to a galaxy: drawn down the question tree, with the volunteers' confusion.

The votes on a question follow a Dirichlet-multinomial distribution. The truth, and how clearly it shows, give the
expected fractions; a Dirichlet distribution scatters them from galaxy to galaxy; and each volunteer who gave the answer
above draws from the result.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from mocksky.populations import GalaxyModel

# Concentration of the Dirichlet distribution: how similar the votes on galaxies of the same truth are.
_CONCENTRATION = 18.0
# The least share of any answer: every answer is given now and then.
_SLIP = 0.015


@runtime_checkable
class AskedQuestion(Protocol):
    """A question: its name, the labels of its answers, and the answer that leads to it (None: always asked)."""

    @property
    def name(self) -> str:
        """Name of the question."""

    @property
    def answers(self) -> Sequence[str]:
        """Labels of its answers."""

    @property
    def asked_after(self) -> str | None:
        """Label of the answer that leads to it."""


@runtime_checkable
class VoteTree(Protocol):
    """Questions in the order in which they are asked."""

    @property
    def questions(self) -> Sequence[AskedQuestion]:
        """The questions, each after the one that leads to it."""

    @property
    def answers(self) -> Sequence[str]:
        """Labels of all answers, question by question."""


def clarity(galaxy: GalaxyModel) -> float:
    """Return how clearly a galaxy shows its features, 0 to 1, from its size, the seeing and its surface brightness."""
    resolved = _rise(np.log(galaxy.radius / galaxy.seeing) - np.log(2.3), width=0.3)
    return resolved * _brightness_share(galaxy)


def expected_fractions(galaxy: GalaxyModel) -> dict[str, Float[np.ndarray, " answers"]]:
    """Return the mean conditional vote fractions of each DECaLS question, its answers in the published order."""
    clear = clarity(galaxy)
    blur = 0.10 + 0.14 * (1 - clear)
    edge_on = galaxy.is_disk * _rise(galaxy.inclination - 77, width=3.0)
    rounded = 0.1 + 0.8 * _rise(galaxy.bulge_fraction - 0.12, width=0.04)
    return {
        "smooth-or-featured": _smooth_or_featured(galaxy, clear=clear, edge_on=edge_on),
        "disk-edge-on": _yes(0.02 + 0.96 * edge_on),
        "has-spiral-arms": _yes(0.06 + 0.92 * _rise(_arms_seen(galaxy) - 0.27, width=0.08)),
        "bar": _bar_answers(galaxy),
        "bulge-size": _ordered(np.sqrt(galaxy.bulge_fraction), at=(0.95, 0.72, 0.50, 0.28, 0.06), width=blur),
        "how-rounded": _ordered(apparent_axis_ratio(galaxy), at=(0.95, 0.62, 0.26), width=0.12),
        "edge-on-bulge": _normed(np.array([0.06, 0.94 - rounded, rounded])),
        "spiral-winding": _ordered(galaxy.pitch, at=(11.0, 20.0, 30.0), width=4.5 + 5 * (1 - clear)),
        "spiral-arm-count": _arm_count_answers(galaxy, clear=clear),
        "merging": _merging_answers(galaxy),
    }


def _brightness_share(galaxy: GalaxyModel) -> float:
    """Return the share of a feature's contrast that the noise leaves, 0 to 1."""
    return 0.35 + 0.65 * _rise(23.0 - galaxy.surface_brightness, width=0.5)


def _surviving(galaxy: GalaxyModel, *, period: float) -> float:
    """Return the share of the contrast of a pattern (period in arcsec) that a Gaussian seeing leaves, 0 to 1."""
    sigma = galaxy.seeing / 2.355
    return float(np.exp(-2 * (np.pi * sigma / max(period, 1e-3)) ** 2))


def _arms_seen(galaxy: GalaxyModel) -> float:
    """Return the contrast of the arms in the picture, 0 to 1: tight, many, small or inclined arms blur together."""
    if not galaxy.arms:
        return 0.0
    tilt = np.cos(np.radians(galaxy.inclination))
    spacing = 2 * np.pi * galaxy.radius * np.tan(np.radians(galaxy.pitch)) / galaxy.arms * (0.3 + 0.7 * tilt)
    return galaxy.arm_contrast * _surviving(galaxy, period=spacing) * _brightness_share(galaxy) * (0.4 + 0.6 * tilt)


def _bar_seen(galaxy: GalaxyModel) -> float:
    """Return the contrast of the bar in the picture, 0 to 1."""
    tilt = np.cos(np.radians(min(galaxy.inclination, 80)))
    length = 2 * galaxy.bar_length * galaxy.radius
    return galaxy.bar_strength * _surviving(galaxy, period=length) * _brightness_share(galaxy) * (0.3 + 0.7 * tilt)


def apparent_axis_ratio(galaxy: GalaxyModel) -> float:
    """Return the axis ratio of the galaxy as it appears on the sky, 0 to 1."""
    if not galaxy.is_disk:
        return galaxy.roundness
    thickness, tilt = 0.22, np.cos(np.radians(galaxy.inclination))
    return float(np.sqrt(thickness**2 + (1 - thickness**2) * tilt**2))


def _rise(value: float, *, width: float) -> float:
    """Return a soft step from 0 to 1 at zero."""
    return float(1 / (1 + np.exp(-np.clip(value / width, -40, 40))))


def _normed(weights: np.ndarray) -> np.ndarray:
    weights = np.maximum(weights, _SLIP)
    return weights / weights.sum()


def _yes(fraction: float) -> np.ndarray:
    return _normed(np.array([fraction, 1 - fraction]))


def _ordered(value: float, *, at: tuple[float, ...], width: float) -> np.ndarray:
    """Return fractions of answers on a scale: an answer is likelier the closer its place is to the truth."""
    return _normed(np.exp(-0.5 * ((value - np.array(at)) / width) ** 2))


def _smooth_or_featured(galaxy: GalaxyModel, *, clear: float, edge_on: float) -> np.ndarray:
    plain = (1 - _arms_seen(galaxy)) * (1 - 0.5 * _bar_seen(galaxy)) * (1 - 0.5 * galaxy.ring * clear)
    patchy = 0.4 * galaxy.young_share * clear
    shown = 1 - plain * (1 - patchy) * (1 - 0.75 * edge_on * (0.4 + 0.6 * clear))
    disk = float(galaxy.is_disk)
    featured = 0.04 + 0.07 * disk + 0.84 * disk * _rise(shown - 0.36, width=0.09)
    featured = min(featured + 0.2 * galaxy.disturbance, 0.96)
    whole = 1 - min(galaxy.spoiled, 0.9)
    return _normed(np.array([whole * (1 - featured), whole * featured, galaxy.spoiled]))


def _bar_answers(galaxy: GalaxyModel) -> np.ndarray:
    seen = _bar_seen(galaxy)
    any_bar = 0.05 + 0.9 * _rise(seen - 0.30, width=0.07)
    strong = any_bar * _rise(seen - 0.55, width=0.08)
    return _normed(np.array([strong, any_bar - strong, 1 - any_bar]))


def _arm_count_answers(galaxy: GalaxyModel, *, clear: float) -> np.ndarray:
    """Return fractions of 1, 2, 3, 4, more than 4, cannot tell: who sees badly cannot tell, or counts one too many."""
    count = max(galaxy.arms, 1)
    near = np.exp(-0.5 * ((np.array([1, 2, 3, 4, 5.5]) - count) / (0.4 + 0.5 * (1 - clear))) ** 2)
    unsure = 0.12 + 0.35 * (1 - clear) + 0.15 * (galaxy.arms > 4) + 0.4 * (galaxy.arms == 0)
    return _normed(np.append((1 - unsure) * near / near.sum(), unsure))


def _merging_answers(galaxy: GalaxyModel) -> np.ndarray:
    crowd = min(0.03 * galaxy.neighbours, 0.15)
    minor = 0.04 + 0.8 * galaxy.disturbance + 0.3 * crowd
    major = 0.015 + 0.25 * galaxy.disturbance
    return _normed(np.array([1 - minor - major - 0.5 * crowd, minor, major, 0.01 + 0.5 * crowd]))


def drawn_votes(
    galaxy: GalaxyModel, tree: VoteTree, rng: np.random.Generator, *, volunteers: int
) -> Float32[np.ndarray, " answers"]:
    """Draw the votes on one galaxy; a question that no volunteer reached has no votes.

    Parameters
    ----------
    galaxy
        What the volunteers believe the galaxy to be.
    tree
        The DECaLS DR5 questions under the names that published predictions use (``desi`` in rarezoo).
    rng
        Random numbers.
    volunteers
        Number of volunteers who look at a galaxy, on average.

    Returns
    -------
    numpy.ndarray
        (answers,) float32, number of volunteers per answer of the tree.
    """
    expected: Mapping[str, np.ndarray] = expected_fractions(galaxy)
    votes = dict[str, int]()
    asked = 1 + int(rng.poisson(max(volunteers - 1, 0)))
    for question in tree.questions:
        reached = asked if question.asked_after is None else votes[question.asked_after]
        fractions = rng.dirichlet(_CONCENTRATION * expected[question.name])
        votes.update(zip(question.answers, map(int, rng.multinomial(reached, fractions)), strict=True))
    return np.array([votes[answer] for answer in tree.answers], dtype=np.float32)
