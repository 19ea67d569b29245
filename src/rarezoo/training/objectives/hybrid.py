"""Learn votes and the likeness of two views at once (Walmsley et al. 2022, arXiv:2206.11927)."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from rarezoo.data.trees import QuestionTree
from rarezoo.settings import option, setting
from rarezoo.training.loss import vote_loss
from rarezoo.training.objective import LOSS
from rarezoo.training.similarity import TwoViews, similarity_of_views
from rarezoo.zoo.network import BottleneckNetwork, Prediction


@option("objective", "hybrid")
@dataclass(kw_only=True)
class Hybrid(TwoViews):
    """Minimise the loss of the votes plus a weight times a self-supervised loss between two views of each galaxy.

    Examples
    --------
    >>> Hybrid(weight=0.5).card_entries()["objective.weight"]
    0.5
    """

    weight: float = setting(1.0, "weight of the self-supervised loss beside the loss of the votes", ge=0)

    def losses(
        self,
        prediction: Prediction,
        targets: Float[Tensor, "b a"],
        *,
        tree: QuestionTree,
        network: BottleneckNetwork,
        modules: nn.ModuleDict,
    ) -> Mapping[str, Tensor]:
        """Return the weighted sum and its two parts before weighting."""
        similarity = similarity_of_views(prediction.embedding, modules)
        votes = vote_loss(prediction.concentrations, targets.repeat(2, 1), tree)
        return {LOSS: votes + self.weight * similarity, "votes": votes, "self_supervised": similarity}
