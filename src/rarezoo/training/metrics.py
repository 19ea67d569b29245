"""How well votes are predicted, question by question, and how well simpler predictors do."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from scipy.stats import beta

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import QuestionTree
from rarezoo.training.loss import question_losses, vote_loss
from rarezoo.zoo.network import BottleneckNetwork

# An observed fraction of fewer votes says more of its own noise than of the network.
MIN_VOTES = 20
_RESAMPLES = 1000
Interval = tuple[float, float]


@dataclass(frozen=True)
class QuestionMetrics:
    """One question on one split; a value is None where no galaxy allows it. Intervals are 95 %, bootstrapped over
    galaxies.

    Attributes:
        question: its name.
        galaxies: asked it at all.
        loss: mean negative log-likelihood over those (nats).
        loss_interval: of the loss.
        well_observed: galaxies with at least MIN_VOTES votes on it; the rest is over these.
        rmse: root mean square error of the answers' vote fractions.
        rmse_interval: of the RMSE.
        mae: mean absolute error of the same.
        coverage_50: share of observed fractions inside the predicted central 50 % interval; Beta marginals widened by
            the multinomial noise of the votes.
        coverage_50_interval: of that share.
        coverage_90: the same for 90 %.
        coverage_90_interval: of that share.
    """

    question: str
    galaxies: int
    loss: float | None
    loss_interval: Interval | None
    well_observed: int
    rmse: float | None
    rmse_interval: Interval | None
    mae: float | None
    coverage_50: float | None
    coverage_50_interval: Interval | None
    coverage_90: float | None
    coverage_90_interval: Interval | None


class GalaxyScores(NamedTuple):
    """One question, galaxy by galaxy.

    Attributes:
        loss: negative log-likelihood (nats) of each galaxy that was asked.
        squared_error: of its vote fractions, mean over answers; of each well-observed galaxy, as the rest.
        absolute_error: the same without the square.
        inside_50: share of its answers inside the central 50 % interval.
        inside_90: inside the 90 % interval.
    """

    loss: Float64[np.ndarray, " asked"]
    squared_error: Float64[np.ndarray, " observed"]
    absolute_error: Float64[np.ndarray, " observed"]
    inside_50: Float64[np.ndarray, " observed"]
    inside_90: Float64[np.ndarray, " observed"]


class Predicted(NamedTuple):
    """What a network says of the votes of some rows of the survey, and the votes themselves."""

    rows: Int64[np.ndarray, " galaxies"]
    concentrations: Float32[np.ndarray, "galaxies answers"]
    votes: Float32[np.ndarray, "galaxies answers"]


def predictions(
    network: BottleneckNetwork, batches: Iterable[Batch], *, device: torch.device | str = "cpu"
) -> Predicted:
    """Predicted concentrations and the votes, over all batches."""
    rows, concentrations, votes = [], [], []
    network = network.eval()
    with torch.inference_mode():
        for batch in batches:
            rows.append(batch.rows.numpy())
            concentrations.append(network(batch.images.to(device)).concentrations.float().cpu().numpy())
            votes.append(batch.votes.numpy())
    return Predicted(np.concatenate(rows), np.concatenate(concentrations), np.concatenate(votes))


def question_metrics(
    concentrations: Float32[np.ndarray, "galaxies answers"],
    votes: Float32[np.ndarray, "galaxies answers"],
    tree: QuestionTree,
) -> list[QuestionMetrics]:
    """Metrics of every question of the tree."""
    scores = galaxy_scores(concentrations, votes, tree)
    return [_metrics(question.name, one) for question, one in zip(tree.questions, scores, strict=True)]


def galaxy_scores(
    concentrations: Float32[np.ndarray, "galaxies answers"],
    votes: Float32[np.ndarray, "galaxies answers"],
    tree: QuestionTree,
) -> list[GalaxyScores]:
    """What every question's metrics are means of, in the order of the galaxies."""
    losses = question_losses(torch.from_numpy(concentrations), torch.from_numpy(votes), tree).numpy()
    totals = tree.totals(votes)
    return [
        _galaxy_scores(concentrations[:, part], votes[:, part], losses[:, index], totals[:, index])
        for index, part in enumerate(tree.slices)
    ]


def _galaxy_scores(alpha: np.ndarray, votes: np.ndarray, losses: np.ndarray, totals: np.ndarray) -> GalaxyScores:
    asked, seen = totals > 0, totals >= MIN_VOTES
    alpha, votes, totals = alpha[seen].astype(np.float64), votes[seen], totals[seen][:, None]
    error = alpha / alpha.sum(axis=1, keepdims=True) - votes / np.maximum(totals, 1)
    inside = (_inside(alpha, votes, totals, share=share).mean(axis=1) for share in (0.5, 0.9))
    return GalaxyScores(losses[asked].astype(np.float64), (error**2).mean(axis=1), np.abs(error).mean(axis=1), *inside)


def _metrics(question: str, scores: GalaxyScores) -> QuestionMetrics:
    squared = interval_of_mean(scores.squared_error)
    return QuestionMetrics(
        question=question,
        galaxies=len(scores.loss),
        loss=_mean(scores.loss),
        loss_interval=interval_of_mean(scores.loss),
        well_observed=len(scores.squared_error),
        rmse=float(np.sqrt(scores.squared_error.mean())) if scores.squared_error.size else None,
        rmse_interval=squared and (math.sqrt(squared[0]), math.sqrt(squared[1])),
        mae=_mean(scores.absolute_error),
        coverage_50=_mean(scores.inside_50),
        coverage_50_interval=interval_of_mean(scores.inside_50),
        coverage_90=_mean(scores.inside_90),
        coverage_90_interval=interval_of_mean(scores.inside_90),
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def interval_of_mean(values: Float64[np.ndarray, " galaxies"]) -> Interval | None:
    """95 % percentile interval of a mean, bootstrapped over galaxies (fixed seed); None for fewer than two."""
    if len(values) < 2:
        return None
    random, galaxies = np.random.default_rng(0), len(values)
    draws = [values[random.integers(0, galaxies, galaxies)].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _inside(alpha: np.ndarray, votes: np.ndarray, totals: np.ndarray, *, share: float) -> np.ndarray:
    """Whether each observed vote fraction lies inside the central interval of its predicted distribution.

    The fraction of n votes has the Beta marginal's mean and, by the beta-binomial, its variance × (A + n) / n; a Beta
    of that mean and variance stands for it.
    """
    total = alpha.sum(axis=1, keepdims=True)
    mean = alpha / total
    # Beta(a, b) has variance m(1 − m)/(a + b + 1); solve for the width that has the beta-binomial's variance.
    width = (total + 1) * totals / (total + totals) - 1
    width = np.maximum(width, 1e-3)
    low = beta.ppf((1 - share) / 2, mean * width, (1 - mean) * width)
    high = beta.ppf((1 + share) / 2, mean * width, (1 - mean) * width)
    # Observed fractions come in steps of 1/n: one that rounds to the interval's edge counts as inside.
    observed, half = votes / totals, 0.5 / totals
    return np.asarray((observed + half >= low) & (observed - half <= high), dtype=np.float64)


def mean_concentrations(
    votes: Float32[np.ndarray, "galaxies answers"], tree: QuestionTree, *, galaxies: int
) -> Float32[np.ndarray, "galaxies answers"]:
    """The baseline that predicts the same for every galaxy: the best single Dirichlet per question.

    Mean fractions are the split's mean; how sure it is (the sum of concentrations, between 1 and 1000) is the value of
    the highest likelihood on a grid.
    """
    rows = [_best_dirichlet(votes[:, part]) for part in tree.slices]
    return np.tile(np.concatenate(rows).astype(np.float32), (galaxies, 1))


def _best_dirichlet(votes: np.ndarray) -> np.ndarray:
    asked = votes[votes.sum(axis=1) > 0]
    if not len(asked):
        return np.ones(votes.shape[1])
    mean = np.mean(asked / asked.sum(axis=1, keepdims=True), axis=0).clip(1e-4)
    mean /= mean.sum()
    tree = QuestionTree.from_dict(
        {"name": "one", "questions": [{"name": "q", "answers": [f"q_{i}" for i in range(len(mean))]}]}
    )
    sums = np.geomspace(1, 1000, 40)
    losses = [
        question_losses(torch.from_numpy(np.tile(mean * one, (len(asked), 1))), torch.from_numpy(asked), tree).mean()
        for one in sums
    ]
    return np.asarray(mean * sums[int(np.argmin(losses))])


def linear_concentrations(
    features: Float32[np.ndarray, "galaxies features"],
    training: Int64[np.ndarray, " training"],
    votes: Float32[np.ndarray, "training answers"],
    tree: QuestionTree,
    *,
    wanted: Int64[np.ndarray, " wanted"],
) -> Float32[np.ndarray, "wanted answers"]:
    """The baseline without a network: the network's own head, fitted to features measured on the images.

    Args:
        features: of every galaxy of the survey, finite.
        training: rows whose votes are fitted.
        votes: theirs.
        tree: the question tree.
        wanted: rows to predict.
    """
    scale = features[training].std(axis=0) + 1e-6
    standard = torch.from_numpy(((features - features[training].mean(axis=0)) / scale).clip(-5, 5).astype(np.float32))
    head = BottleneckNetwork(
        torch.nn.Flatten(), native=features.shape[1], width=None, answers=len(tree.answers), dropout=0.0
    )
    optimiser = torch.optim.LBFGS(head.head.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    observed = torch.from_numpy(votes)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = vote_loss(head.concentrations(standard[training]), observed, tree)
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.inference_mode():
        return head.concentrations(standard[wanted]).numpy()


def card_rows(
    network: list[GalaxyScores], baselines: Mapping[str, list[GalaxyScores]], tree: QuestionTree
) -> list[dict[str, Any]]:
    """Metrics of the network beside those of simpler predictors of the same galaxies, as the card keeps them.

    ``<name>_gain`` is a baseline's loss less the network's, with its paired interval: above zero, the network wins.
    """
    rows = []
    for place, question in enumerate(tree.questions):
        row = asdict(_metrics(question.name, network[place]))
        for name, scores in baselines.items():
            theirs = _metrics(question.name, scores[place])
            gain = scores[place].loss - network[place].loss
            row |= {f"{name}_loss": theirs.loss, f"{name}_rmse": theirs.rmse, f"{name}_mae": theirs.mae}
            row |= {f"{name}_gain": _mean(gain), f"{name}_gain_interval": interval_of_mean(gain)}
        rows.append(row)
    return rows
