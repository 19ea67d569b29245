"""How much of what sets a class apart is left once the predicted answers have been regressed out of the embedding.

Separation is the d′ of a linear discriminant, class against rest, on galaxies that it was not fitted on: the distance
between the two means of its score over their common scatter. It is measured in the embedding, in the predicted answers
alone, and in what is left of the embedding after a flexible regression on the answers. ``beyond`` is the last over the
larger of the first two.

A network reads its answers off the embedding, so that their last digits tell nearly all of it, whatever volunteers
could see. The regression is therefore on answers as uncertain as they are: each is drawn anew from the Beta
distribution that it stands for. Such a regression leaves some of what the answers say behind; how much it leaves of
embeddings that the answers make, and nothing else, is measured too, and a class is called beyond the labels only where
its share lies above that.

Shape letters: n galaxies, d width of the embedding, a answers, m galaxies measured, c classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.errors import StoreError

BEYOND, NAMED, UNCLEAR = "beyond", "named by the votes", "unclear"
# A share below this is not called beyond, however sure: a quarter of the distance is 6 % of the information (d′²).
_FLOOR = 0.25
# A class that no linear discriminant tells from the rest of the embedding has no separation to share out.
_SEPARATE = 1.0
_FEWEST = 10
_FOLDS, _DRAWS, _ENDS = 5, 1000, (2.5, 97.5)
# At most so many galaxies of the whole sample, and members of one class, are measured; the rest changes little.
_SAMPLE, _MEMBERS, _ALL_MEMBERS = 8000, 300, 8000
_LANDMARKS = 300
_PENALTIES = np.logspace(-3, 4, 8)
# Fractions at 0 or 1 have no logit; a prediction is not that sure.
_SUREST = 0.005
# Fewer votes than this would drive a Beta distribution's draws to 0 and 1; two leave it flat.
_FEWEST_VOTES = 2
# Votes that a predicted fraction is taken to stand for where its concentration is not known: Galaxy Zoo's usual number.
VOLUNTEERS = 40


@dataclass(frozen=True)
class Remainder:
    """What is left of one class; None where it was not measured.

    Attributes:
        share: of its separation that is left, 0–1.
        low, high: 95 % interval over its members.
        verdict: ``beyond``, ``named by the votes``, ``unclear``, or None.
        reason: the same in words and numbers.
    """

    share: float | None
    low: float | None
    high: float | None
    verdict: str | None
    reason: str


def remainders(
    embeddings: Float[np.ndarray, "n d"],
    *,
    labels: Int32[np.ndarray, " n"],
    classes: int,
    fractions: Float[np.ndarray, "n a"],
    concentrations: Float[np.ndarray, "n a"] | None = None,
    volunteers: float | Float[np.ndarray, "n a"] = VOLUNTEERS,
    seed: int = 0,
) -> list[Remainder]:
    """What is left of each class beyond the answers.

    At most 8,000 galaxies drawn from all, and 300 members of each class beside them (fewer of many classes), are
    measured, so that the cost does not grow with the survey.

    Args:
        embeddings: one row per galaxy.
        labels: class of each galaxy, −1 for none.
        classes: how many there are.
        fractions: predicted, NaN where unknown.
        concentrations: α ≥ 1 of the same answers (they then give the predictions' uncertainty, and are regressed out
            as well); None takes every fraction to be as uncertain as that of ``volunteers`` votes.
        volunteers: see there.
        seed: of every random draw.

    Raises:
        StoreError: embeddings that are not finite.
    """
    if not np.isfinite(embeddings).all():
        raise StoreError("embeddings that are not finite", value=embeddings.shape, fix="Embed those galaxies again.")
    if not classes:
        return []
    random = np.random.default_rng(seed)
    drawn = _drawn(labels, classes, random)
    totals = np.broadcast_to(volunteers, fractions.shape)[drawn.rows]
    alphas = None if concentrations is None else concentrations[drawn.rows]
    answers = _Answers.of(fractions[drawn.rows], totals, alphas)
    if not answers.told:
        return [Remainder(None, None, None, None, "no predicted answers at hand")] * classes
    return _measured(embeddings[drawn.rows].astype(np.float64), answers, drawn, classes, random)


class _Drawn(NamedTuple):
    """Galaxies that are measured: their rows and classes, whether each is of the random sample, and its fold."""

    rows: Int64[np.ndarray, " m"]
    labels: Int32[np.ndarray, " m"]
    base: np.ndarray
    folds: Int64[np.ndarray, " m"]

    def parts(self, class_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks of the class's members and of the rest, which is of the random sample only."""
        inside = self.labels == class_id
        return inside, self.base & ~inside


def _drawn(labels: np.ndarray, classes: int, random: np.random.Generator) -> _Drawn:
    base = random.choice(len(labels), min(len(labels), _SAMPLE), replace=False)
    most = min(_MEMBERS, max(_ALL_MEMBERS // classes, _FEWEST))
    extra = [_extra(np.setdiff1d(np.flatnonzero(labels == one), base), labels[base] == one, most, random)
             for one in range(classes)]  # fmt: skip
    rows = np.concatenate([base, *extra])
    folds = random.permutation(np.arange(len(rows)) % _FOLDS)
    return _Drawn(rows, labels[rows], np.arange(len(rows)) < len(base), folds)


def _extra(others: np.ndarray, there: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return random.choice(others, min(len(others), max(most - int(there.sum()), 0)), replace=False)


@dataclass(frozen=True)
class _Answers:
    """Predicted fractions (m, a) that vary, how many votes each stands for, and concentrations if they are known."""

    fractions: Float64[np.ndarray, "m a"]
    totals: Float64[np.ndarray, "m a"]
    concentrations: Float64[np.ndarray, "m a"] | None

    @classmethod
    def of(cls, fractions: np.ndarray, totals: np.ndarray, concentrations: np.ndarray | None) -> "_Answers":
        """Without the answers that are the same for all; a fraction that is not known is the mean of those that are."""
        known = np.isfinite(fractions)
        means = np.where(known, fractions, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, fractions, means).astype(np.float64)
        varied = filled.std(axis=0) > 0
        sure = np.clip(filled[:, varied], _SUREST, 1 - _SUREST)
        if concentrations is None:
            return cls(sure, totals[:, varied].astype(np.float64), None)
        alphas = concentrations[:, varied].astype(np.float64)
        return cls(sure, alphas / sure, alphas)

    @property
    def told(self) -> bool:
        """Whether there is anything to regress on."""
        return self.fractions.shape[1] > 0

    def features(self) -> Float64[np.ndarray, "m features"]:
        """Fractions, their logits, and the logarithms of concentrations if they are known."""
        columns = [self.fractions, np.log(self.fractions / (1 - self.fractions))]
        return np.hstack(columns if self.concentrations is None else [*columns, np.log(self.concentrations)])

    def blurred(self, random: np.random.Generator) -> "_Answers":
        """The fractions as they may be in truth: drawn from the Beta distributions that the predictions stand for.

        The marginal of an answer with concentration α among α₀ is Beta(α, α₀ − α), and α / α₀ its fraction.
        """
        totals = np.maximum(self.totals, _FEWEST_VOTES)
        drawn = random.beta(self.fractions * totals, (1 - self.fractions) * totals)
        return replace(self, fractions=np.clip(drawn, _SUREST, 1 - _SUREST))


def _measured(
    embeddings: Float64[np.ndarray, "m d"], answers: _Answers, drawn: _Drawn, classes: int, random: np.random.Generator
) -> list[Remainder]:
    features = answers.blurred(random).features()
    left, made = _regressed(embeddings, features, answers.features(), drawn.folds)
    # Embeddings that the answers make, with scatter that has nothing to do with any class.
    made += left[random.permutation(len(left))]
    lost, _ = _regressed(made, answers.blurred(random).features(), features, drawn.folds)
    scores = [_scores(one, drawn, classes) for one in (embeddings, features, left, lost)]
    return [_remainder(drawn, one, [score[:, one] for score in scores], random) for one in range(classes)]


def _regressed(
    embeddings: Float64[np.ndarray, "m d"],
    blurred: Float64[np.ndarray, "m f"],
    exact: Float64[np.ndarray, "m f"],
    folds: Int64[np.ndarray, " m"],
) -> tuple[Float64[np.ndarray, "m d"], Float64[np.ndarray, "m d"]]:
    """What a regression on blurred answers leaves of embeddings, and what it expects at the exact ones.

    Ridge regression on the features and on Gaussian bumps among them (Nyström's approximation of kernel ridge), fitted
    for each fold on the others; generalised cross-validation chooses the penalty.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import FeatureUnion, make_pipeline
    from sklearn.preprocessing import StandardScaler

    bumps = Nystroem(gamma=1 / (2 * blurred.shape[1]), n_components=min(_LANDMARKS, len(folds) // 4), random_state=0)
    both = FeatureUnion([("linear", "passthrough"), ("bumps", bumps)])
    left, expected = np.empty_like(embeddings), np.empty_like(embeddings)
    for fold in range(_FOLDS):
        held = folds == fold
        fitted = make_pipeline(StandardScaler(), both, RidgeCV(_PENALTIES)).fit(blurred[~held], embeddings[~held])
        left[held] = embeddings[held] - fitted.predict(blurred[held])
        expected[held] = fitted.predict(exact[held])
    return left, expected


def _scores(values: Float64[np.ndarray, "m d"], drawn: _Drawn, classes: int) -> Float32[np.ndarray, "m c"]:
    """Each class's discriminant of each galaxy, fitted on the other folds."""
    from sklearn.covariance import ledoit_wolf

    scores = np.empty((len(values), classes), np.float32)
    for fold in range(_FOLDS):
        held = drawn.folds == fold
        scatter, _ = ledoit_wolf(values[drawn.base & ~held])
        shifts = np.column_stack([_shift(values, *drawn.parts(one), ~held) for one in range(classes)])
        scores[held] = values[held] @ np.linalg.lstsq(scatter, shifts, rcond=None)[0]
    return scores


def _shift(values: np.ndarray, inside: np.ndarray, rest: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    if not (inside & fitted).any() or not (rest & fitted).any():
        return np.zeros(values.shape[1])
    return np.asarray(values[inside & fitted].mean(axis=0) - values[rest & fitted].mean(axis=0))


def _remainder(drawn: _Drawn, class_id: int, scores: Sequence[np.ndarray], random: np.random.Generator) -> Remainder:
    """One class, from its scores in the embedding, the answers, what they leave, and what they leave of their own."""
    inside, rest = drawn.parts(class_id)
    members = int(inside.sum())
    if members < _FEWEST or rest.sum() < _FEWEST:
        return Remainder(None, None, None, None, f"{members} members are too few")
    whole, told, left, lost = (_separation(score[inside], score[rest]) for score in scores)
    words = f"d′ {whole:.1f} in the embedding, {told:.1f} by the answers alone, {left:.1f} left"
    if whole < _SEPARATE:
        return Remainder(None, None, None, UNCLEAR, f"{words}: nothing tells it from the rest linearly")
    level = max(_FLOOR, _share(lost, max(whole, told)))
    draws = _bootstrapped(scores[:3], inside, rest, random)
    low, high = (float(end) for end in np.percentile(draws, _ENDS))
    verdict = BEYOND if low > level else NAMED if high < level else UNCLEAR
    return Remainder(_share(left, max(whole, told)), low, high, verdict, f"{words}; {level:.0%} is the level to pass")


def _share(left: float, whole: float) -> float:
    return float(np.clip(left / max(whole, 1e-9), 0, 1))


def _separation(inside: np.ndarray, rest: np.ndarray) -> float:
    """d′: difference of the means over the root mean variance."""
    scatter = np.sqrt((inside.var() + rest.var()) / 2)
    return float((inside.mean() - rest.mean()) / scatter) if scatter > 0 else 0.0


def _bootstrapped(
    scores: Sequence[np.ndarray], inside: np.ndarray, rest: np.ndarray, random: np.random.Generator
) -> Float64[np.ndarray, " draws"]:
    """The share over draws of the members, who are few; the rest are many and stay."""
    members = np.flatnonzero(inside)
    picked = members[random.integers(len(members), size=(_DRAWS, len(members)))]

    def separations(score: np.ndarray) -> np.ndarray:
        chosen, others = score[picked], score[rest]
        scatter = np.sqrt((chosen.var(axis=1) + others.var()) / 2)
        return np.asarray((chosen.mean(axis=1) - others.mean()) / np.where(scatter > 0, scatter, np.inf))

    whole, told, left = map(separations, scores)
    return np.clip(left / np.maximum(np.maximum(whole, told), 1e-9), 0, 1)


def beyond_columns(found: Sequence[Remainder]) -> dict[str, list[object]]:
    """Columns of CLASSES."""
    return {
        tables.BEYOND: [one.share for one in found],
        tables.BEYOND_LOW: [one.low for one in found],
        tables.BEYOND_HIGH: [one.high for one in found],
        tables.BEYOND_VERDICT: [one.verdict for one in found],
        tables.BEYOND_REASON: [one.reason or None for one in found],
    }
