"""The rows of the table of ``rarezoo judge``: how each is measured, and how the result is kept for the next time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from rarezoo.cache import Cache
from rarezoo.embeddings import measures, quality
from rarezoo.embeddings.answers import Answer
from rarezoo.embeddings.contestants import Contestant
from rarezoo.embeddings.measures import DRAWS, FEW_LABEL_SCORES, FEWEST, GALAXIES, QUERIES, Sample
from rarezoo.runs import fingerprint

LIKE_THIS, TEN_SHOT, PROBE, NDCG, FEW_LABELS = MEASURES = ("like_this", "ten_shot", "probe", "ndcg", "few_labels")
# Labels of the kind and others of the row that is called 10-shot.
_TEN, _TEN_OTHERS = 10, 100
# Labels of the kind of the curve, and others for each: a subset of those of Walmsley et al. (2022, MNRAS 513, 1581).
_CURVE, _OTHERS_PER_LABEL = (5, 13, 33, 60), 5
_EXAMPLES, _RETURNED = (1, 3, 10), 10


@dataclass(frozen=True)
class Step:
    """One measurement, which makes one or several rows of the table.

    Attributes
    ----------
    rows : tuple of str
        Names of the rows.
    over : str
        What the intervals describe.
    run : callable
        Takes features (m, d), an answer of these galaxies, and metrics; returns a sample for each row.
    settings : dict
        Settings that the result depends on.
    needs, needs_others : int
        Smallest number of galaxies of the kind, and of others.
    """

    rows: tuple[str, ...]
    over: str
    run: Callable[[Float[np.ndarray, "m d"], Answer, Sequence[str]], Sequence[Sample]]
    settings: dict[str, Any] = field(default_factory=dict)
    needs: int = FEWEST
    needs_others: int = FEWEST

    @property
    def name(self) -> str:
        """Name of the measurement."""
        return self.rows[0].partition(":")[0]

    def suits(self, answer: Answer) -> bool:
        """Return whether there are enough galaxies of the kind and others."""
        return answer.positives >= self.needs and answer.galaxies - answer.positives >= self.needs_others

    def samples(self, contestant: Contestant, answer: Answer, cache: Cache) -> dict[str, Sample]:
        """Return the samples of a contestant by row; they are measured only if they are not in the cache."""
        features = contestant.features[answer.known]
        key = {
            "rows": self.rows, "settings": self.settings, "features": fingerprint(features, ids=contestant.metrics),
            "answer": fingerprint(answer.fraction, ids=answer.positive.astype(str)),
        }  # fmt: skip

        def measure() -> np.ndarray:
            found = self.run(features, answer, contestant.metrics)
            return np.array([[sample.value, sample.chance, *sample.values] for sample in found])

        kept = cache.array(key, measure, code=[measures, quality])
        return {
            name: Sample(float(line[0]), line[2:], self.over, float(line[1]))
            for name, line in zip(self.rows, kept, strict=True)
        }


def steps(wanted: Sequence[str], *, draws: int, seeds: int, strength: float) -> list[Step]:
    """Return the measurements in the order of the table.

    Parameters
    ----------
    wanted : sequence of str
        Some of :data:`MEASURES`.
    draws : int
        Number of draws of labels.
    seeds : int
        Number of divisions into folds.
    strength : float
        Inverse strength of the regularisation of the classifiers.

    Examples
    --------
    >>> [step.rows for step in steps(["probe", "like_this"], draws=15, seeds=3, strength=1.0)]
    [('like this',), ('probe',)]
    """
    found = []
    if LIKE_THIS in wanted:
        found.append(Step(("like this",), QUERIES, _like_this))
    if TEN_SHOT in wanted:
        found.append(_few_labels(_TEN, _TEN_OTHERS, ["10-shot"], draws=draws, strength=strength))
    if PROBE in wanted:
        found.append(_probe(seeds=seeds, strength=strength))
    if NDCG in wanted:
        found += [_retrieval(examples) for examples in _EXAMPLES]
    if FEW_LABELS in wanted:
        for labels in _CURVE:
            names = [f"{labels} labels: {score}" for score in FEW_LABEL_SCORES]
            found.append(_few_labels(labels, labels * _OTHERS_PER_LABEL, names, draws=draws, strength=strength))
    return found


def _like_this(features: np.ndarray, answer: Answer, metrics: Sequence[str]) -> list[Sample]:
    return [measures.like_this(features, answer.positive, metrics=metrics)]


def _probe(*, seeds: int, strength: float) -> Step:
    def run(features: np.ndarray, answer: Answer, _: Sequence[str]) -> list[Sample]:
        return [measures.probe(features, answer.positive, seeds=seeds, strength=strength)]

    return Step(("probe",), GALAXIES, run, {"seeds": seeds, "strength": strength})


def _retrieval(examples: int) -> Step:
    def run(features: np.ndarray, answer: Answer, metrics: Sequence[str]) -> list[Sample]:
        return [measures.retrieval(features, answer.fraction, examples=examples, k=_RETURNED, metrics=metrics)]

    name = f"nDCG@{_RETURNED}, {examples} example{'s' if examples > 1 else ''}"
    return Step((name,), QUERIES, run, needs=max(FEWEST, examples), needs_others=_RETURNED + 1)


def _few_labels(labels: int, others: int, names: Sequence[str], *, draws: int, strength: float) -> Step:
    """Return the step of some number of labels; a single name stands for the average precision."""
    settings = {"labels": labels, "others": others, "draws": draws, "strength": strength}

    def run(features: np.ndarray, answer: Answer, _: Sequence[str]) -> list[Sample]:
        scores = measures.few_labels(
            features, answer.positive, labels=labels, others=others, draws=draws, strength=strength
        )  # fmt: skip
        return list(scores.values()) if len(names) > 1 else [scores["average precision"]]

    return Step(tuple(names), DRAWS, run, settings, needs=labels + FEWEST, needs_others=others + FEWEST)
