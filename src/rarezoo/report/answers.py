"""What the network answers about a class, against what it answers about the whole sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64


@dataclass(frozen=True)
class Answer:
    """Mean predicted fraction of one answer, 0–1, in a class and in the sample."""

    name: str
    inside: float
    sample: float

    @property
    def difference(self) -> float:
        """Inside minus sample."""
        return self.inside - self.sample


@dataclass(frozen=True)
class Question:
    """A question and its answers, in the tree's order."""

    name: str
    answers: tuple[Answer, ...]

    @property
    def difference(self) -> float:
        """The largest of its answers' differences, without sign."""
        return max(abs(answer.difference) for answer in self.answers)


def questions(
    answers: Sequence[str], *, inside: Float64[np.ndarray, " answers"], sample: Float64[np.ndarray, " answers"]
) -> tuple[Question, ...]:
    """Every question that was predicted, the one that sets the class apart most first.

    Args:
        answers: labels such as ``bar_strong``: question and answer are parted by the last ``_``.
        inside: mean fractions in the class; an answer with NaN is left out.
        sample: mean fractions in the whole sample.
    """
    asked: dict[str, list[Answer]] = {}
    for label, ours, theirs in zip(answers, inside, sample, strict=True):
        question, _, answer = label.rpartition("_")
        if np.isfinite(ours):
            asked.setdefault(question, []).append(Answer(answer, float(ours), float(theirs)))
    found = [Question(name, tuple(given)) for name, given in asked.items()]
    return tuple(sorted(found, key=lambda question: -question.difference))


def mean_fractions(fractions: Float32[np.ndarray, "galaxies answers"]) -> Float64[np.ndarray, " answers"]:
    """Mean of each column without its NaN; NaN where there is nothing else."""
    known = np.isfinite(fractions)
    counts = known.sum(axis=0)
    sums = np.where(known, fractions, 0).sum(axis=0, dtype=np.float64)
    return np.where(counts, sums / np.maximum(counts, 1), np.nan)
