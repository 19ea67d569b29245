"""Measure how much of what distinguishes a class is left when the predicted answers are regressed out of the embedding.

The separation of a class is the d′ of a linear discriminant, class against rest, on galaxies that it was not fitted on:
the difference of the two mean scores in units of their common scatter. It is measured three times: in the embedding, in
the predicted answers alone, and in the residual of the embedding after a flexible regression on the answers. The share
beyond the labels is the third separation over the larger of the first two.

A network derives its answers from the embedding, so that their last digits contain nearly all of it, whatever
volunteers could see. Therefore the regression is on answers that are as uncertain as they are in truth: each is drawn
from the Beta distribution that the prediction stands for. Such a regression leaves a part of what the
answers explain. How much it leaves of embeddings that consist of nothing but the answers is measured too, and a class
is called beyond the labels only if its share is above that::

    level = max(0.25, share that is left of embeddings made of the answers)
    beyond               if the 95 % interval of the share lies above level
    named by the votes   if it lies below level
    unclear              otherwise, or if d′ in the embedding is below 1

Shape letters: n galaxies, d width of the embedding, a answers, f features of them, m galaxies measured, c classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.statistics import bootstrap_draws

BEYOND, NAMED, UNCLEAR = "beyond", "named by the votes", "unclear"
# A share below this is never called beyond: a quarter of the separation is 6 % of the information (d′²).
_FLOOR = 0.25
# A class that no linear discriminant separates from the rest of the embedding has no separation to share out.
_SEPARATE = 1.0
_FEWEST = 10
_FOLDS, _DRAWS, _ENDS = 5, 1000, (2.5, 97.5)
# Most galaxies of the whole sample, of one class beside it, and of all classes together, that are measured; more change
# the result little.
_SAMPLE, _MEMBERS, _ALL_MEMBERS = 8000, 300, 8000
_LANDMARKS = 300
_PENALTIES = np.logspace(-3, 4, 8)
# Fractions of 0 and 1 have no logit, and no prediction is that certain.
_SUREST = 0.005
# With fewer votes than this the draws of a Beta distribution are near 0 and 1; with two it is flat.
_FEWEST_VOTES = 2
# Votes that a predicted fraction stands for if its concentration is not known: the usual number of Galaxy Zoo.
VOLUNTEERS = 40


@dataclass(frozen=True)
class BeyondLabels:
    """Share of a class's separation that the predicted answers do not explain; None where it was not measured.

    Attributes
    ----------
    share
        The share, 0–1.
    low, high
        95 % interval of the share over the members.
    verdict
        ``beyond``, ``named by the votes``, ``unclear``, or None.
    reason
        The numbers behind the verdict, in words.
    """

    share: float | None
    low: float | None
    high: float | None
    verdict: str | None
    reason: str


def beyond_labels(
    embeddings: Float[np.ndarray, "n d"],
    *,
    labels: Int[np.ndarray, " n"],
    classes: int,
    fractions: Float[np.ndarray, "n a"],
    concentrations: Float[np.ndarray, "n a"] | None = None,
    volunteers: float | Float[np.ndarray, "n a"] = VOLUNTEERS,
    seed: int = 0,
) -> list[BeyondLabels]:
    """Measure each class's share beyond the predicted answers.

    At most 8,000 galaxies drawn from all, and 300 members of each class beside them (fewer if there are many classes),
    are measured, so that the cost does not grow with the survey.

    Parameters
    ----------
    embeddings
        (n, d) one row per galaxy.
    labels
        (n,) class of each galaxy, −1 for none.
    classes
        Number of classes.
    fractions
        (n, a) predicted vote fractions, NaN where unknown.
    concentrations
        (n, a) concentrations α ≥ 1 of the same answers. They give the uncertainty of the predictions, and are regressed
        out too. With None every fraction is as uncertain as that of ``volunteers`` votes.
    volunteers
        Votes that a fraction stands for, see ``concentrations``.
    seed
        Seed of every random draw.

    Returns
    -------
    list of BeyondLabels
        One per class.

    Raises
    ------
    StoreError
        An embedding is not finite.

    Examples
    --------
    >>> result = beyond_labels(np.ones((3, 2)), labels=np.array([0, 0, -1]), classes=1, fractions=np.empty((3, 0)))
    >>> result[0].reason
    'there are no predicted answers'
    """
    if not np.isfinite(embeddings).all():
        raise StoreError("embeddings are not finite", value=embeddings.shape, fix="Embed those galaxies again.")
    if not classes:
        return []
    random = np.random.default_rng(seed)
    drawn = _draw(labels, classes, random)
    totals = np.broadcast_to(volunteers, fractions.shape)[drawn.rows]
    alphas = None if concentrations is None else concentrations[drawn.rows]
    answers = _Answers.of(fractions[drawn.rows], totals, alphas)
    if not answers.fractions.shape[1]:
        return [BeyondLabels(None, None, None, None, "there are no predicted answers")] * classes
    vectors = embeddings[drawn.rows].astype(np.float64)
    features = answers.blurred(random).features()
    residual, explained = _regressed(vectors, features, answers.features(), drawn.folds)
    # Embeddings that consist of the answers, with scatter that is unrelated to any class.
    explained += residual[random.permutation(len(residual))]
    lost, _ = _regressed(explained, answers.blurred(random).features(), features, drawn.folds)
    scores = [_scores(values, drawn, classes) for values in (vectors, features, residual, lost)]
    return [_judge(drawn, class_id, [values[:, class_id] for values in scores], random) for class_id in range(classes)]


class _Drawn(NamedTuple):
    """Galaxies that are measured: rows, classes, whether each belongs to the random sample, and its fold."""

    rows: Int64[np.ndarray, " m"]
    labels: Int[np.ndarray, " m"]
    base: Bool[np.ndarray, " m"]
    folds: Int64[np.ndarray, " m"]

    def parts(self, class_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return masks of the members of a class and of the other galaxies of the random sample."""
        inside = self.labels == class_id
        return inside, self.base & ~inside


def _draw(labels: np.ndarray, classes: int, random: np.random.Generator) -> _Drawn:
    """Draw galaxies from all, and further members of each class up to a number of members."""
    base = random.choice(len(labels), min(len(labels), _SAMPLE), replace=False)
    most = min(_MEMBERS, max(_ALL_MEMBERS // classes, _FEWEST))
    rows = [base]
    for class_id in range(classes):
        others = np.setdiff1d(np.flatnonzero(labels == class_id), base)
        wanted = max(most - int((labels[base] == class_id).sum()), 0)
        rows.append(random.choice(others, min(len(others), wanted), replace=False))
    drawn = np.concatenate(rows)
    folds = random.permutation(np.arange(len(drawn)) % _FOLDS)
    return _Drawn(drawn, labels[drawn], np.arange(len(drawn)) < len(base), folds)


@dataclass(frozen=True)
class _Answers:
    """Predicted fractions that vary, the number of votes that each stands for, and concentrations if they are known."""

    fractions: Float64[np.ndarray, "m a"]
    totals: Float64[np.ndarray, "m a"]
    concentrations: Float64[np.ndarray, "m a"] | None

    @classmethod
    def of(cls, fractions: np.ndarray, totals: np.ndarray, concentrations: np.ndarray | None) -> "_Answers":
        """Leave out constant answers, and replace an unknown fraction by the mean of the known ones."""
        known = np.isfinite(fractions)
        means = np.where(known, fractions, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, fractions, means).astype(np.float64)
        varied = filled.std(axis=0) > 0
        clipped = np.clip(filled[:, varied], _SUREST, 1 - _SUREST)
        if concentrations is None:
            return cls(clipped, totals[:, varied].astype(np.float64), None)
        alphas = concentrations[:, varied].astype(np.float64)
        return cls(clipped, alphas / clipped, alphas)

    def features(self) -> Float64[np.ndarray, "m f"]:
        """Return the fractions, their logits, and the logarithms of the concentrations if they are known."""
        columns = [self.fractions, np.log(self.fractions / (1 - self.fractions))]
        return np.hstack(columns if self.concentrations is None else [*columns, np.log(self.concentrations)])

    def blurred(self, random: np.random.Generator) -> "_Answers":
        """Draw the fractions from the Beta distributions that the predictions stand for.

        The marginal of an answer with concentration α among α₀ is Beta(α, α₀ − α); its fraction is α / α₀.
        """
        totals = np.maximum(self.totals, _FEWEST_VOTES)
        drawn = random.beta(self.fractions * totals, (1 - self.fractions) * totals)
        return replace(self, fractions=np.clip(drawn, _SUREST, 1 - _SUREST))


def _regressed(
    embeddings: Float64[np.ndarray, "m d"],
    blurred: Float64[np.ndarray, "m f"],
    exact: Float64[np.ndarray, "m f"],
    folds: Int64[np.ndarray, " m"],
) -> tuple[Float64[np.ndarray, "m d"], Float64[np.ndarray, "m d"]]:
    """Return the residual of a regression on blurred answers, and its prediction at the exact answers.

    Ridge regression on the features and on Gaussian bumps among them (Nyström's approximation of kernel ridge
    regression), fitted for each fold on the other folds; generalised cross-validation chooses the penalty.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import FeatureUnion, make_pipeline
    from sklearn.preprocessing import StandardScaler

    bumps = Nystroem(gamma=1 / (2 * blurred.shape[1]), n_components=min(_LANDMARKS, len(folds) // 4), random_state=0)
    both = FeatureUnion([("linear", "passthrough"), ("bumps", bumps)])
    residual, predicted = np.empty_like(embeddings), np.empty_like(embeddings)
    for fold in range(_FOLDS):
        held = folds == fold
        fitted = make_pipeline(StandardScaler(), both, RidgeCV(_PENALTIES)).fit(blurred[~held], embeddings[~held])
        residual[held] = embeddings[held] - fitted.predict(blurred[held])
        predicted[held] = fitted.predict(exact[held])
    return residual, predicted


def _scores(values: Float64[np.ndarray, "m k"], drawn: _Drawn, classes: int) -> Float32[np.ndarray, "m c"]:
    """Return the discriminant of each class for each galaxy, fitted on the other folds."""
    from sklearn.covariance import ledoit_wolf

    def shift(class_id: int, fitted: np.ndarray) -> np.ndarray:
        inside, rest = (part & fitted for part in drawn.parts(class_id))
        if not inside.any() or not rest.any():
            return np.zeros(values.shape[1])
        return np.asarray(values[inside].mean(axis=0) - values[rest].mean(axis=0))

    scores = np.empty((len(values), classes), np.float32)
    for fold in range(_FOLDS):
        held = drawn.folds == fold
        scatter, _ = ledoit_wolf(values[drawn.base & ~held])
        shifts = np.column_stack([shift(class_id, ~held) for class_id in range(classes)])
        scores[held] = values[held] @ np.linalg.lstsq(scatter, shifts, rcond=None)[0]
    return scores


def _judge(drawn: _Drawn, class_id: int, scores: Sequence[np.ndarray], random: np.random.Generator) -> BeyondLabels:
    """Judge a class by its scores in the embedding, the answers, the residual, and the residual of the answers."""
    inside, rest = drawn.parts(class_id)
    members = int(inside.sum())
    if members < _FEWEST or rest.sum() < _FEWEST:
        return BeyondLabels(None, None, None, None, f"{members} members are too few")
    whole, answers, residual, lost = (_separation(values[inside], values[rest]) for values in scores)
    words = f"d′ {whole:.1f} in the embedding, {answers:.1f} by the answers alone, {residual:.1f} left"
    if whole < _SEPARATE:
        return BeyondLabels(None, None, None, UNCLEAR, f"{words}: no linear separation from the rest")
    level = max(_FLOOR, _share(lost, max(whole, answers)))
    low, high = (float(end) for end in np.percentile(_share_draws(scores[:3], inside, rest, random), _ENDS))
    verdict = BEYOND if low > level else NAMED if high < level else UNCLEAR
    share = _share(residual, max(whole, answers))
    return BeyondLabels(share, low, high, verdict, f"{words}; more than {level:.0%} is beyond")


def _share(left: float, whole: float) -> float:
    return float(np.clip(left / max(whole, 1e-9), 0, 1))


def _separation(inside: np.ndarray, rest: np.ndarray) -> float:
    """Return d′: the difference of the means over the root of the mean variance."""
    scatter = np.sqrt((inside.var() + rest.var()) / 2)
    return float((inside.mean() - rest.mean()) / scatter) if scatter > 0 else 0.0


def _share_draws(
    scores: Sequence[np.ndarray], inside: np.ndarray, rest: np.ndarray, random: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Return the share over bootstrap draws of the members, which are few; the rest, which are many, are not drawn.

    The three separations of a draw are of the same members.
    """

    def share(*drawn: np.ndarray) -> np.ndarray:
        separations = []
        for score, chosen in zip(scores, drawn, strict=True):
            others = score[rest]
            scatter = np.sqrt((chosen.var(axis=1) + others.var()) / 2)
            separations.append((chosen.mean(axis=1) - others.mean()) / np.where(scatter > 0, scatter, np.inf))
        whole, answers, residual = separations
        return np.clip(residual / np.maximum(np.maximum(whole, answers), 1e-9), 0, 1)

    return bootstrap_draws(*(score[inside] for score in scores), statistic=share, draws=_DRAWS, random=random)


def beyond_columns(results: Sequence[BeyondLabels]) -> dict[str, list[object]]:
    """Return the columns of CLASSES that hold the results."""
    return {
        tables.BEYOND: [result.share for result in results],
        tables.BEYOND_LOW: [result.low for result in results],
        tables.BEYOND_HIGH: [result.high for result in results],
        tables.BEYOND_VERDICT: [result.verdict for result in results],
        tables.BEYOND_REASON: [result.reason or None for result in results],
    }
