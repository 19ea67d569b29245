"""Has a new population appeared among new galaxies? Whether too many are far from all that is known, and together.

Shape letters: f far galaxies, k dimensions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import betabinom, nbinom

# A galaxy is far from everything known if at most this share of the known are as far from the rest.
FAR = 0.01
# Chance of a false alarm, of either test.
ALARM = 0.01
# A clump reaches as far as this many-th nearest known galaxy: two strays may lie in its midst.
REACH = 3
# All pairs of far galaxies are looked at: 32 MB of distances.
MOST_FAR = 2_000


@dataclass(frozen=True)
class Clump:
    """Far galaxies together: how many, and which (an index among the far) lies in their midst."""

    size: int
    middle: int


@dataclass(frozen=True)
class Novelty:
    """What is far from everything known among new galaxies.

    Attributes:
        galaxies: looked at.
        far: of them in no class and far from everything known.
        expected: as many at most, if they are like the known.
        p_value: of so many far galaxies if they are like the known; 1 if too few are known to tell.
        clumps: far galaxies more densely together than the known around them, the biggest first.
        p_clump: of the densest clump, corrected for the number of far galaxies.
    """

    galaxies: int
    far: int
    expected: float
    p_value: float
    clumps: tuple[Clump, ...] = ()
    p_clump: float = 1.0

    @property
    def appeared(self) -> bool:
        """Whether there is a population of its own: far from everything known, and together."""
        return bool(self.clumps)

    def sentence(self, names: np.ndarray | None = None) -> str:
        """What a reader is told.

        Args:
            names: (f,) ids of the far galaxies that clumps were sought among; None names none.
        """
        if not self.expected:
            return "Too few galaxies were searched to tell whether a new population has appeared."
        numbers = (
            f"{self.far:,} of {self.galaxies:,} galaxies are none of these and farther from everything searched than "
            f"{1 - FAR:.0%} of the searched are from each other, where at most {self.expected:,.1f} are expected "
            f"(p = {self.p_value:.2g})"
        )
        if self.appeared:
            return f"A new population has appeared: {numbers}; {self._clumped(names)}."
        if self.p_value <= ALARM:
            return (
                f"Something is new, but no population of its own: {numbers}, and they form no clump; look at the "
                "images for another depth, another selection or artifacts."
            )
        return f"No new population: {numbers}."

    def _clumped(self, names: np.ndarray | None) -> str:
        biggest = self.clumps[0]
        around = f" around galaxy {names[biggest.middle]}" if names is not None else ""
        others = f", and {len(self.clumps) - 1} more clumps" if len(self.clumps) > 1 else ""
        return f"{biggest.size:,} of them lie together{around}{others} (p = {self.p_clump:.2g})"


def novelty(far: int, *, galaxies: int, known: int) -> Novelty:
    """Test of the number of far galaxies.

    If all are exchangeable, the chance of being far is itself known only as well as from ``known`` galaxies: the number
    follows a beta-binomial distribution, exactly so for scores that do not depend on each other.

    Args:
        far: galaxies with a conformal p-value of at most :data:`FAR` (and in no class, which can only be fewer).
        galaxies: looked at.
        known: galaxies whose distances the p-values came from.
    """
    quantile = int(np.floor(FAR * (known + 1) + 1e-9))
    if not quantile or not galaxies:
        return Novelty(galaxies, far, 0.0, 1.0)
    p_value = float(betabinom.sf(far - 1, galaxies, quantile, known + 1 - quantile))
    return Novelty(galaxies, far, galaxies * quantile / (known + 1), p_value)


def clumps(
    positions: Float[np.ndarray, "f k"],
    reaches: Float64[np.ndarray, " f"],
    *,
    known: int,
    galaxies: float,
) -> tuple[tuple[Clump, ...], float]:
    """Clumps among far galaxies, and the p-value of the densest.

    How many of the new lie nearer to a galaxy than its :data:`REACH`-th nearest known one is, if all are exchangeable,
    a negative binomial number. A clump is made of galaxies for which it is too large, after Bonferroni's correction,
    each within reach of another, and of all within reach of one of them.

    Args:
        positions: of the far galaxies.
        reaches: (f,) distances to their :data:`REACH`-th nearest known galaxy.
        known: galaxies among which that is.
        galaxies: new ones looked at; if the far are a random draw, thinned by the same share.
    """
    if len(positions) < 2:
        return (), 1.0
    distances = squareform(pdist(np.asarray(positions, dtype=np.float64)))
    near = distances <= reaches[:, None]
    company = near.sum(axis=1) - 1
    p_values = np.asarray(nbinom.sf(company - 1, REACH, known / (known + galaxies))) * len(positions)
    crowded = p_values <= ALARM
    found = [_clump(np.asarray(positions), rows) for rows in _together(near, crowded)]
    return tuple(sorted(found, key=lambda one: (-one.size, one.middle))), float(min(p_values.min(), 1.0))


def _together(near: Bool[np.ndarray, "f f"], crowded: Bool[np.ndarray, " f"]) -> list[Int64[np.ndarray, " members"]]:
    """Groups of the crowded, with all that is in reach of one of them."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    centres = np.flatnonzero(crowded)
    count, group = connected_components(csr_array(near[np.ix_(centres, centres)]), directed=False)
    return [np.flatnonzero(near[centres[group == one]].any(axis=0)) for one in range(count)]


def _clump(positions: np.ndarray, rows: np.ndarray) -> Clump:
    middle = rows[np.argmin(cdist(positions[rows], positions[rows]).sum(axis=1))]
    return Clump(len(rows), int(middle))
