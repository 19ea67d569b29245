"""How alike two embeddings of the same galaxies are: the neighbours they share, and how they are aligned.

Shape letters: n galaxies, d and e widths of the embeddings, q galaxies asked, k neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import StoreError

KS = (10, 30, 100)
ASKED = 2000
# Galaxies whose embeddings are added to the sums of CKA at once: 32 MB in 128-D float32.
_BLOCK = 2**16


class Overlap(NamedTuple):
    """Share (0–1) of a galaxy's k nearest neighbours in one embedding that are among its k nearest in the other.

    ``chance`` is what embeddings that have nothing to do with each other would share.
    """

    k: int
    share: float
    chance: float


@dataclass(frozen=True)
class Likeness:
    """How alike two embeddings of the same galaxies are.

    Attributes:
        galaxies: n.
        asked: q of them, drawn blindly, were asked for their neighbours among all n.
        overlaps: mutual k nearest neighbours (Huh et al. 2024, arXiv:2405.07987, who call it alignment), mean over
            the galaxies asked.
        cka: linear centred kernel alignment over all n, 0–1 (Kornblith et al. 2019, arXiv:1905.00414).
    """

    galaxies: int
    asked: int
    overlaps: tuple[Overlap, ...]
    cka: float


def likeness(
    first: Float[np.ndarray, "n d"],
    second: Float[np.ndarray, "n e"],
    *,
    ks: Sequence[int] = KS,
    asked: int = ASKED,
    seed: int = 0,
) -> Likeness:
    """How alike two embeddings are; rows are the same galaxies.

    Neighbours are by cosine about the mean embedding, exact, ``asked`` against all: nothing n × n is ever held.

    Args:
        first: one embedding.
        second: the other; may be of another width.
        ks: numbers of neighbours; those of n or more are left out.
        asked: how many galaxies are asked for their neighbours; 0 = all.
        seed: of that draw.

    Raises:
        StoreError: fewer than three galaxies.
    """
    galaxies = len(first)
    if galaxies < 3:
        raise StoreError("too few galaxies in common", value=galaxies, fix="Compare searches of the same survey.")
    ks = [k for k in sorted(ks) if k < galaxies]
    size = min(asked or galaxies, galaxies)
    rows = np.sort(np.random.default_rng(seed).choice(galaxies, size, replace=False))
    near = []
    for embeddings in (first, second):
        index = NeighbourIndex(embeddings, metric="cosine", exact=True)
        near.append(index.query(embeddings[rows], max(ks, default=1), itself=rows).rows)
    overlaps = tuple(Overlap(k, _shared(near[0][:, :k], near[1][:, :k]), k / (galaxies - 1)) for k in ks)
    return Likeness(galaxies, size, overlaps, linear_cka(first, second))


def _shared(first: Int64[np.ndarray, "q k"], second: Int64[np.ndarray, "q k"]) -> float:
    """Mean share of a row's entries that the same row of the other has too."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum() / first.size)


def linear_cka(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "n e"]) -> float:
    """‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of the centred embeddings, 0–1; NaN if all galaxies have one embedding."""
    means = [one.mean(axis=0, dtype=np.float64) for one in (first, second)]
    widths = (first.shape[1], second.shape[1])
    cross, ours, theirs = (np.zeros(shape) for shape in (widths, (widths[0],) * 2, (widths[1],) * 2))
    for start in range(0, len(first), _BLOCK):
        x, y = (one[start : start + _BLOCK] - mean for one, mean in zip((first, second), means, strict=True))
        cross += x.T @ y
        ours += x.T @ x
        theirs += y.T @ y
    scale = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(np.sum(cross**2) / scale) if scale > 0 else float("nan")
