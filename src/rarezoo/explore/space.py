"""What galaxies are compared by: the embedding, with measurements of images and predicted answers beside it.

The embedding, the measurements and the answers have the same weight: the mean squared length of each is 1. With one
example this finds more of most kinds than the embedding alone (docs/explanation/explore.md).

Shape letters: n galaxies of the store, d width of all that is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from rarezoo.embeddings.neighbours import NeighbourIndex, centred
from rarezoo.errors import ConfigError
from rarezoo.explore.features import PHOTOMETRY, STRUCTURE, Features, default_cache, parts_beside
from rarezoo.explore.scores import Whitening, background_of, whitening_of

if TYPE_CHECKING:
    from rarezoo.explore.pool import Pool

AUTO, ANSWERS = "auto", "answers"
# Galaxies whose images are measured without being asked for: about two minutes.
MOST_MEASURED = 50_000


@dataclass(frozen=True)
class Space:
    """What galaxies are compared by.

    Attributes
    ----------
    index : NeighbourIndex
        Index of the cosine over all galaxies of the store.
    beside : tuple of str
        What stands beside the embedding; empty: nothing.
    notes : tuple of str
        What was asked for and is not there, with the reason.
    """

    index: NeighbourIndex
    beside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    _whitenings: dict[int, tuple[Whitening, Float32[np.ndarray, " n"]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def whitening(self, seed: int) -> tuple[Whitening, Float32[np.ndarray, " n"]]:
        """Return the whitening by galaxies drawn with a seed, and the whitened lengths of all; they are made once."""
        if seed not in self._whitenings:
            made = whitening_of(background_of(self.index, seed=seed))
            self._whitenings[seed] = made, made.lengths(self.index)
        return self._whitenings[seed]

    @property
    def words(self) -> str:
        """What is compared, in words.

        >>> Space(NeighbourIndex(np.eye(2, dtype=np.float32)), ("photometry", "answers")).words
        'the embedding, photometry and predicted answers'
        """
        names = ["predicted answers" if name == ANSWERS else name for name in self.beside]
        return " and ".join([", ".join(["the embedding", *names[:-1]]), *names[-1:]])


def space_of(pool: "Pool", beside: Sequence[str] = (AUTO,)) -> Space:
    """Return what galaxies of a pool are compared by.

    Parameters
    ----------
    pool : Pool
        The galaxies.
    beside : sequence of str
        What stands beside the embedding: ``photometry``, ``structure``, ``answers`` (the predicted vote fractions), or
        names of numeric catalogue columns. ``auto``: the first three, if there are images of at most 50,000 galaxies.

    Raises
    ------
    ConfigError
        A column is not there or holds no numbers, or answers are asked for and none are predicted.
    """
    wanted = list(dict.fromkeys(name for name in beside if name))
    if wanted == [AUTO]:
        if pool.galaxies is None or len(pool.ids) > MOST_MEASURED:
            return Space(pool.store.index)
        # Where the images cannot be measured, answers alone would add nothing to the embedding.
        measured, notes = _measured(pool, [PHOTOMETRY, STRUCTURE])
        answers = [ANSWERS] if pool.answers else []
        return _joined(pool, measured, [PHOTOMETRY, STRUCTURE], answers) if not notes else Space(pool.store.index)
    if AUTO in wanted:
        raise ConfigError(
            "auto cannot be combined with other names", value=f"beside={','.join(wanted)}", fix="Leave auto out."
        )
    names = [name for name in wanted if name != ANSWERS]
    answers = [ANSWERS] if ANSWERS in wanted else []
    if answers and not pool.answers:
        raise ConfigError(
            "this store has no predicted answers", value=pool.store.folder, fix=f"Leave {ANSWERS} out of beside=."
        )
    measured, notes = _measured(pool, names)
    left = [name for name in names if not any(note.startswith(f"{name} (") for note in notes)]
    space = _joined(pool, measured, left, answers)
    return Space(space.index, space.beside, notes)


def _measured(pool: "Pool", names: Sequence[str]) -> tuple[Float32[np.ndarray, "n c"] | None, tuple[str, ...]]:
    """Return standardised measurements and catalogue columns, None if there are none, and what was left out."""
    if not names:
        return None, ()
    if pool.galaxies is None:
        raise ConfigError(
            "the survey is not there, so nothing can stand beside the embedding", value=f"beside={','.join(names)}",
            fix="Bring the survey back to where it was, or leave beside= out.",
        )  # fmt: skip
    parts, left_out = parts_beside(pool.store, names, weight=1, galaxies=pool.galaxies, cache=default_cache(pool.store))
    return (Features.of(parts).matrix if parts else None), tuple(left_out)


def _joined(
    pool: "Pool", measured: Float32[np.ndarray, "n c"] | None, names: Sequence[str], answers: Sequence[str]
) -> Space:
    """Put the embedding, measurements and predicted answers beside each other, with the same weight."""
    if measured is None and not answers:
        return Space(pool.store.index)
    blocks = [_of_unit_length(pool.store.embeddings())]
    if measured is not None:
        blocks.append(_of_unit_length(measured))
    if answers:
        table = pool.predicted_answers()
        blocks.append(_of_unit_length(np.column_stack([column.to_numpy() for column in table.columns]), unknown=0.0))
    matrix = np.hstack(blocks)
    index = NeighbourIndex.of(centred(lambda: [matrix], shape=(len(matrix), matrix.shape[1])))
    return Space(index, (*(names if measured is not None else ()), *answers))


def _of_unit_length(values: Float32[np.ndarray, "n c"], *, unknown: float = np.nan) -> Float32[np.ndarray, "n c"]:
    """Return values about their mean, scaled so that the mean squared length of a row is 1; NaN becomes ``unknown``."""
    values = values.astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    about = values - (values[finite].mean(axis=0, dtype=np.float64).astype(np.float32) if finite.any() else 0)
    length = np.sqrt(np.einsum("ij,ij->", about[finite], about[finite], dtype=np.float64) / max(finite.sum(), 1))
    scaled = about / np.float32(length or 1)
    return np.where(np.isfinite(scaled), scaled, np.float32(unknown))
