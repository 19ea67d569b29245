"""Test whether a new population has appeared among new galaxies.

Two questions are asked. Are more of the new galaxies far from everything that was searched than expected? Do these far
galaxies lie close together? Only together they mean a population: far galaxies alone may come from another depth,
another selection or artifacts.

Shape letters: f far galaxies, k dimensions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import betabinom, nbinom

# A galaxy is far from everything known if at most this share of the searched galaxies are as far from the others.
FAR = 0.01
# Probability of a false alarm, for each of the two tests.
ALARM = 0.01
# A clump reaches from a galaxy to its third nearest searched galaxy, so that two strays may lie inside.
REACH = 3
# Most far galaxies of which all pairs are compared: 32 MB of distances.
MOST_FAR = 2_000


@dataclass(frozen=True)
class Clump:
    """Far galaxies that lie together.

    Attributes
    ----------
    size
        Number of galaxies.
    middle
        Index, among the far galaxies, of the galaxy in the middle of the clump.
    """

    size: int
    middle: int


@dataclass(frozen=True)
class Novelty:
    """New galaxies that are far from everything searched, compared with expectation.

    Attributes
    ----------
    galaxies
        Number of new galaxies.
    far
        Number of them that are in no class and far from everything searched.
    expected
        Largest expected number of far galaxies if the new galaxies are like the searched ones; 0 if too few were
        searched to tell.
    p_value
        Probability of at least as many far galaxies if the new galaxies are like the searched ones.
    clumps
        Groups of far galaxies that are denser than the searched galaxies around them, the largest first.
    p_clump
        p-value of the densest clump, corrected for the number of far galaxies.

    Examples
    --------
    >>> find_novelty(15, galaxies=1500, known=1500).sentence()[:18]
    'No new population:'
    """

    galaxies: int
    far: int
    expected: float
    p_value: float
    clumps: tuple[Clump, ...] = ()
    p_clump: float = 1.0

    @property
    def appeared(self) -> bool:
        """Whether there is a new population: galaxies far from everything searched that lie together."""
        return bool(self.clumps)

    def sentence(self, names: np.ndarray | None = None) -> str:
        """Describe the result in one sentence.

        Parameters
        ----------
        names
            (f,) ids of the far galaxies in which clumps were sought; None names no galaxy.
        """
        if not self.expected:
            return "Too few galaxies were searched to tell whether a new population has appeared."
        numbers = (
            f"{self.far:,} of {self.galaxies:,} galaxies belong to no class and are farther from the searched galaxies "
            f"than {1 - FAR:.0%} of these are from each other; at most {self.expected:,.1f} are expected "
            f"(p = {self.p_value:.2g})"
        )
        if self.appeared:
            largest = self.clumps[0]
            around = f" around galaxy {names[largest.middle]}" if names is not None else ""
            others = f", and there are {len(self.clumps) - 1} more clumps" if len(self.clumps) > 1 else ""
            return (
                f"A new population has appeared: {numbers}; {largest.size:,} of them lie together{around}{others} "
                f"(p = {self.p_clump:.2g})."
            )
        if self.p_value <= ALARM:
            return (
                f"Something is new, but it is not one population: {numbers}, and they do not lie together. Check the "
                "images for another depth, another selection or artifacts."
            )
        return f"No new population: {numbers}."


def find_novelty(far: int, *, galaxies: int, known: int) -> Novelty:
    """Test the number of far galaxies.

    If all galaxies are exchangeable, the probability of being far is itself estimated from ``known`` galaxies, so the
    number of far galaxies follows a beta-binomial distribution, exactly if the scores are independent.

    Parameters
    ----------
    far
        Number of galaxies with a conformal p-value of at most :data:`FAR`; leaving out those in a class can only
        lower it.
    galaxies
        Number of new galaxies.
    known
        Number of searched galaxies that the p-values are calibrated with.
    """
    quantile = int(np.floor(FAR * (known + 1) + 1e-9))
    if not quantile or not galaxies:
        return Novelty(galaxies, far, 0.0, 1.0)
    p_value = float(betabinom.sf(far - 1, galaxies, quantile, known + 1 - quantile))
    return Novelty(galaxies, far, galaxies * quantile / (known + 1), p_value)


def find_clumps(
    positions: Float[np.ndarray, "f k"],
    reaches: Float64[np.ndarray, " f"],
    *,
    known: int,
    galaxies: float,
) -> tuple[tuple[Clump, ...], float]:
    """Find clumps among far galaxies.

    If all galaxies are exchangeable, the number of new galaxies that lie nearer to a galaxy than its
    :data:`REACH`-th nearest searched one follows a negative binomial distribution. The galaxies for which this number
    is too large, after Bonferroni's correction, are the centres of clumps. A clump consists of centres that are within
    reach of each other, and of all galaxies within reach of one of them.

    Parameters
    ----------
    positions
        (f, k) far galaxies.
    reaches
        (f,) distances from their :data:`REACH`-th nearest searched galaxy.
    known
        Number of searched galaxies.
    galaxies
        Number of new galaxies. If the far galaxies are a random draw of all far ones, thinned by the same factor.

    Returns
    -------
    clumps : tuple of Clump
        The largest first.
    p_value : float
        p-value of the densest clump, corrected.
    """
    if len(positions) < 2:
        return (), 1.0
    distances = squareform(pdist(np.asarray(positions, dtype=np.float64)))
    near = distances <= reaches[:, None]
    company = near.sum(axis=1) - 1
    p_values = np.asarray(nbinom.sf(company - 1, REACH, known / (known + galaxies))) * len(positions)
    clumps = []
    for rows in _groups(near, p_values <= ALARM):
        members = np.asarray(positions)[rows]
        clumps.append(Clump(len(rows), int(rows[np.argmin(cdist(members, members).sum(axis=1))])))
    return tuple(sorted(clumps, key=lambda clump: (-clump.size, clump.middle))), float(min(p_values.min(), 1.0))


def _groups(near: Bool[np.ndarray, "f f"], crowded: Bool[np.ndarray, " f"]) -> list[Int64[np.ndarray, " members"]]:
    """Return the rows of each group of crowded galaxies, with all galaxies within reach of one of them."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    centres = np.flatnonzero(crowded)
    count, group = connected_components(csr_array(near[np.ix_(centres, centres)]), directed=False)
    return [np.flatnonzero(near[centres[group == number]].any(axis=0)) for number in range(count)]
