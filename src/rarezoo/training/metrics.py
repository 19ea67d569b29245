"""How well votes are predicted, question by question, and how well simpler predictors do.

A value is None where no galaxy allows it. Intervals are 95 %, from the bootstrap over galaxies.
"""

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
from rarezoo.statistics import bootstrap_interval
from rarezoo.training.loss import question_losses, vote_loss
from rarezoo.zoo.network import BottleneckNetwork

# An observed fraction of fewer votes says more about its own noise than about the network.
MIN_VOTES = 20
_RESAMPLES = 1000
Bounds = tuple[float, float]


@dataclass(frozen=True)
class QuestionMetrics:
    """How well the votes of one question are predicted on one split.

    Attributes
    ----------
    question
        Name of the question.
    galaxies
        Number of galaxies for which it was answered at all.
    loss, loss_interval
        Mean negative log-likelihood over those galaxies (nats).
    well_observed
        Number of galaxies with at least MIN_VOTES votes on it. All that follows is over these galaxies.
    rmse, rmse_interval
        Root mean square error of the vote fractions of its answers.
    mae
        Mean absolute error of the vote fractions.
    coverage_50, coverage_50_interval
        Share of observed fractions inside the predicted central 50 % interval, which is that of Beta marginals widened
        by the multinomial noise of the votes.
    coverage_90, coverage_90_interval
        The same for the central 90 % interval.
    """

    question: str
    galaxies: int
    loss: float | None
    loss_interval: Bounds | None
    well_observed: int
    rmse: float | None
    rmse_interval: Bounds | None
    mae: float | None
    coverage_50: float | None
    coverage_50_interval: Bounds | None
    coverage_90: float | None
    coverage_90_interval: Bounds | None

    @classmethod
    def of(cls, question: str, scores: "GalaxyScores") -> "QuestionMetrics":
        """Summarise the scores of single galaxies."""
        squared = _interval(scores.squared_error)
        return cls(
            question=question,
            galaxies=len(scores.loss),
            loss=_mean(scores.loss),
            loss_interval=_interval(scores.loss),
            well_observed=len(scores.squared_error),
            rmse=float(np.sqrt(scores.squared_error.mean())) if scores.squared_error.size else None,
            rmse_interval=squared and (math.sqrt(squared[0]), math.sqrt(squared[1])),
            mae=_mean(scores.absolute_error),
            coverage_50=_mean(scores.inside_50),
            coverage_50_interval=_interval(scores.inside_50),
            coverage_90=_mean(scores.inside_90),
            coverage_90_interval=_interval(scores.inside_90),
        )


class GalaxyScores(NamedTuple):
    """How well the votes of one question are predicted for single galaxies.

    Attributes
    ----------
    loss
        Negative log-likelihood (nats) of each galaxy for which the question was answered.
    squared_error
        Squared error of the vote fractions, mean over answers, of each galaxy with at least MIN_VOTES votes.
    absolute_error
        Absolute error of the same.
    inside_50, inside_90
        Share of the answers whose observed fraction is inside the predicted central 50 % or 90 % interval.
    """

    loss: Float64[np.ndarray, " asked"]
    squared_error: Float64[np.ndarray, " observed"]
    absolute_error: Float64[np.ndarray, " observed"]
    inside_50: Float64[np.ndarray, " observed"]
    inside_90: Float64[np.ndarray, " observed"]


class Predicted(NamedTuple):
    """Predictions of a network for some rows of a survey, beside the votes.

    Attributes
    ----------
    rows
        (galaxies,) rows of the survey.
    concentrations
        (galaxies, answers) predicted Dirichlet concentrations.
    votes
        (galaxies, answers) observed votes.
    """

    rows: Int64[np.ndarray, " galaxies"]
    concentrations: Float32[np.ndarray, "galaxies answers"]
    votes: Float32[np.ndarray, "galaxies answers"]


def predictions(
    network: BottleneckNetwork, batches: Iterable[Batch], *, device: torch.device | str = "cpu"
) -> Predicted:
    """Return the predicted concentrations and the votes of all batches, of which there may be none."""
    rows, concentrations, votes = [], [], []
    network = network.eval()
    with torch.inference_mode():
        for batch in batches:
            rows.append(batch.rows.numpy())
            concentrations.append(network(batch.images.to(device)).concentrations.float().cpu().numpy())
            votes.append(batch.votes.numpy())
    if not rows:
        return Predicted(np.zeros(0, dtype=np.int64), *np.zeros((2, 0, 0), dtype=np.float32))
    return Predicted(np.concatenate(rows), np.concatenate(concentrations), np.concatenate(votes))


def galaxy_scores(
    concentrations: Float32[np.ndarray, "galaxies answers"],
    votes: Float32[np.ndarray, "galaxies answers"],
    tree: QuestionTree,
) -> list[GalaxyScores]:
    """Return, for each question of the tree, the scores of single galaxies in their order."""
    losses = question_losses(torch.from_numpy(concentrations), torch.from_numpy(votes), tree).numpy()
    totals = tree.totals(votes)
    scores = []
    for place, part in enumerate(tree.slices):
        answered, seen = totals[:, place] > 0, totals[:, place] >= MIN_VOTES
        alpha, counts = concentrations[seen, part].astype(np.float64), votes[seen, part]
        sums = totals[seen, place][:, None]
        error = alpha / alpha.sum(axis=1, keepdims=True) - counts / np.maximum(sums, 1)
        inside = (_inside(alpha, counts, sums, share=share).mean(axis=1) for share in (0.5, 0.9))
        own_losses = losses[answered, place].astype(np.float64)
        scores.append(GalaxyScores(own_losses, (error**2).mean(axis=1), np.abs(error).mean(axis=1), *inside))
    return scores


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _interval(values: Float64[np.ndarray, " galaxies"]) -> Bounds | None:
    """Return the 95 % interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    _, low, high = bootstrap_interval(values, draws=_RESAMPLES)
    return low, high


def _inside(alpha: np.ndarray, votes: np.ndarray, totals: np.ndarray, *, share: float) -> np.ndarray:
    """Return whether each observed vote fraction lies inside the central interval of its predicted distribution.

    The fraction of n votes has the mean of the Beta marginal and, by the beta-binomial distribution, its variance
    times (A + n) / n, where A is the sum of concentrations. A Beta distribution with this mean and variance is used.
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
    votes: Float32[np.ndarray, "training answers"], tree: QuestionTree, *, galaxies: int
) -> Float32[np.ndarray, "galaxies answers"]:
    """Return the predictions of a baseline that is the same for every galaxy: the best Dirichlet for each question.

    Its mean fractions are the mean of the votes. The sum of its concentrations is the value between 1 and 1000 with the
    highest likelihood on a grid.

    Parameters
    ----------
    votes
        (training, answers) votes to which it is fitted.
    tree
        The question tree.
    galaxies
        Number of galaxies to predict.
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
        {"name": "question", "questions": [{"name": "q", "answers": [f"q_{i}" for i in range(len(mean))]}]}
    )
    sums = np.geomspace(1, 1000, 40)
    losses = [
        question_losses(torch.from_numpy(np.tile(mean * total, (len(asked), 1))), torch.from_numpy(asked), tree).mean()
        for total in sums
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
    """Return the predictions of a baseline without a trunk: the network's head, fitted to features of the images.

    Parameters
    ----------
    features
        Finite features of every galaxy of the survey.
    training
        Rows to which the head is fitted.
    votes
        Votes of these rows.
    tree
        The question tree.
    wanted
        Rows to predict.
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
    """Return the metrics of a network beside those of baselines for the same galaxies, one row per question.

    ``<name>_gain`` is the loss of a baseline minus that of the network, with its paired interval. Above zero, the
    network is better.

    Parameters
    ----------
    network
        Scores of the network by question; see :func:`galaxy_scores`.
    baselines
        Scores of each baseline by its name.
    tree
        The question tree.
    """
    rows = []
    for place, question in enumerate(tree.questions):
        row = asdict(QuestionMetrics.of(question.name, network[place]))
        for name, scores in baselines.items():
            baseline = QuestionMetrics.of(question.name, scores[place])
            gain = scores[place].loss - network[place].loss
            row |= {f"{name}_loss": baseline.loss, f"{name}_rmse": baseline.rmse, f"{name}_mae": baseline.mae}
            row |= {f"{name}_gain": _mean(gain), f"{name}_gain_interval": _interval(gain)}
        rows.append(row)
    return rows
