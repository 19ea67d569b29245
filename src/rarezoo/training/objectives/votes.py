"""Learn the votes of volunteers (Walmsley et al. 2022, MNRAS 509, 3966)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.photometry import COLUMNS, photometry
from rarezoo.data.splits import TRAIN
from rarezoo.data.survey import Galaxies
from rarezoo.data.trees import QuestionTree
from rarezoo.settings import option
from rarezoo.training import metrics
from rarezoo.training.loss import question_losses, vote_loss
from rarezoo.training.objective import LOSS, Objective, targets_of, watched_losses
from rarezoo.zoo.network import BottleneckNetwork, Prediction


@option("objective", "votes")
@dataclass(kw_only=True)
class Votes(Objective):
    """Minimise the Dirichlet-multinomial loss of the votes.

    Examples
    --------
    >>> Votes().card_entries()
    {'objective': 'votes'}
    """

    def losses(
        self,
        prediction: Prediction,
        targets: Float[Tensor, "b a"],
        *,
        tree: QuestionTree,
        network: BottleneckNetwork,
        modules: nn.ModuleDict,
    ) -> Mapping[str, Tensor]:
        """Return the loss in nats per galaxy with votes."""
        return {LOSS: vote_loss(prediction.concentrations, targets, tree)}

    def validation(
        self, prediction: Prediction, targets: Float[Tensor, "b a"], *, tree: QuestionTree
    ) -> Mapping[str, tuple[Tensor, int]]:
        """Return the loss of the votes, in all and for each question over the galaxies for which it was answered."""
        return watched_losses(question_losses(prediction.concentrations, targets, tree), targets, tree)

    def measure(
        self,
        network: BottleneckNetwork,
        galaxies: Galaxies,
        *,
        rows: Mapping[str, Int64[np.ndarray, " rows"]],
        test: CutoutLoader,
        cache: Path,
    ) -> dict[str, Any]:
        """Compare the predicted votes with the observed ones, and with two baselines.

        There are no rows if no galaxy of the split has an image that can be read.

        The baselines are fitted to the votes of the training split: the mean, and a linear head on colour, size,
        concentration and brightness.
        """
        entries: dict[str, Any] = {"min_votes": metrics.MIN_VOTES, "metrics": []}
        tree, votes = galaxies.tree, targets_of(galaxies)
        assert tree is not None
        training = rows[TRAIN][votes[rows[TRAIN]].sum(axis=1) > 0]
        predicted = metrics.predictions(network, test)
        if not len(predicted.rows):
            return entries
        features = np.zeros((len(galaxies), len(COLUMNS)), dtype=np.float32)
        needed = np.concatenate([training, predicted.rows])
        # Training has ended at an unreadable image, unless such images are skipped.
        features[needed] = photometry(
            galaxies.images, needed, cache=cache / f"photometry-{galaxies.measured_from}.npy", skip_unreadable=True
        )
        training = training[np.isfinite(features[training]).all(axis=1)]
        baselines = {
            "mean": metrics.mean_concentrations(votes[training], tree, galaxies=len(predicted.rows)),
            "linear": metrics.linear_concentrations(features, training, votes[training], tree, wanted=predicted.rows),
        }
        scores = {name: metrics.galaxy_scores(said, predicted.votes, tree) for name, said in baselines.items()}
        own = metrics.galaxy_scores(predicted.concentrations, predicted.votes, tree)
        return {**entries, "metrics": metrics.card_rows(own, scores, tree)}
