"""How well votes are predicted, question by question, and how well simpler predictors do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from scipy.stats import beta

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import QuestionTree
from rarezoo.train.loss import question_losses
from rarezoo.zoo.network import BottleneckNetwork

# An observed fraction of fewer votes says more of its own noise than of the network.
MIN_VOTES = 20


@dataclass(frozen=True)
class QuestionMetrics:
    """One question on one split; a value is None where no galaxy allows it.

    Attributes:
        question: its name.
        galaxies: asked it at all.
        loss: mean negative log-likelihood over those (nats).
        well_observed: galaxies with at least MIN_VOTES votes on it; the rest is over these.
        rmse: root mean square error of the answers' vote fractions.
        mae: mean absolute error of the same.
        coverage_50: share of observed fractions inside the predicted central 50 % interval; Beta marginals widened by
            the multinomial noise of the votes.
        coverage_90: the same for 90 %.
    """

    question: str
    galaxies: int
    loss: float | None
    well_observed: int
    rmse: float | None
    mae: float | None
    coverage_50: float | None
    coverage_90: float | None


def predictions(
    network: BottleneckNetwork, batches: Iterable[Batch], *, device: torch.device | str = "cpu"
) -> tuple[Float32[np.ndarray, "galaxies answers"], Float32[np.ndarray, "galaxies answers"]]:
    """Predicted concentrations and the votes, over all batches."""
    concentrations, votes = [], []
    network = network.eval()
    with torch.inference_mode():
        for batch in batches:
            concentrations.append(network(batch.images.to(device)).concentrations.float().cpu().numpy())
            votes.append(batch.votes.numpy())
    return np.concatenate(concentrations), np.concatenate(votes)


def question_metrics(
    concentrations: Float32[np.ndarray, "galaxies answers"],
    votes: Float32[np.ndarray, "galaxies answers"],
    tree: QuestionTree,
) -> list[QuestionMetrics]:
    """Metrics of every question of the tree."""
    losses = question_losses(torch.from_numpy(concentrations), torch.from_numpy(votes), tree).numpy()
    totals = tree.totals(votes)
    return [
        _one_question(question.name, concentrations[:, part], votes[:, part], losses[:, index], totals[:, index])
        for index, (question, part) in enumerate(zip(tree.questions, tree.slices, strict=True))
    ]


def _one_question(
    name: str, alpha: np.ndarray, votes: np.ndarray, losses: np.ndarray, totals: np.ndarray
) -> QuestionMetrics:
    asked, seen = totals > 0, totals >= MIN_VOTES
    alpha, votes, totals = alpha[seen], votes[seen], totals[seen][:, None]
    error = alpha / alpha.sum(axis=1, keepdims=True) - votes / np.maximum(totals, 1)
    return QuestionMetrics(
        question=name,
        galaxies=int(asked.sum()),
        loss=_mean(losses[asked]),
        well_observed=int(seen.sum()),
        rmse=float(np.sqrt(np.mean(error**2))) if error.size else None,
        mae=_mean(np.abs(error)),
        coverage_50=_coverage(alpha, votes, totals, share=0.5),
        coverage_90=_coverage(alpha, votes, totals, share=0.9),
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _coverage(alpha: np.ndarray, votes: np.ndarray, totals: np.ndarray, *, share: float) -> float | None:
    """Share of observed vote fractions inside the central interval of their predicted distribution.

    The fraction of n votes has the Beta marginal's mean and, by the beta-binomial, its variance × (A + n) / n; a Beta
    of that mean and variance stands for it.
    """
    if not votes.size:
        return None
    total = alpha.sum(axis=1, keepdims=True)
    mean = alpha / total
    # Beta(a, b) has variance m(1 − m)/(a + b + 1); solve for the width that has the beta-binomial's variance.
    width = (total + 1) * totals / (total + totals) - 1
    width = np.maximum(width, 1e-3)
    low = beta.ppf((1 - share) / 2, mean * width, (1 - mean) * width)
    high = beta.ppf((1 + share) / 2, mean * width, (1 - mean) * width)
    # Observed fractions come in steps of 1/n: one that rounds to the interval's edge counts as inside.
    observed, half = votes / totals, 0.5 / totals
    return float(np.mean((observed + half >= low) & (observed - half <= high)))


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


def card_rows(network: list[QuestionMetrics], mean: list[QuestionMetrics]) -> list[dict[str, Any]]:
    """Metrics of the network beside those of the mean, as the card keeps them."""
    return [
        {**asdict(ours), "mean_loss": theirs.loss, "mean_rmse": theirs.rmse, "mean_mae": theirs.mae}
        for ours, theirs in zip(network, mean, strict=True)
    ]
