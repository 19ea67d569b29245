"""Learn the likeness of two views of each galaxy, without votes (Walmsley et al. 2022, arXiv:2206.11927)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rarezoo.data.trees import QuestionTree
from rarezoo.settings import option
from rarezoo.training.loss import vote_loss
from rarezoo.training.objective import LOSS
from rarezoo.training.similarity import TwoViews, similarity_of_views
from rarezoo.zoo.network import BottleneckNetwork, Prediction


@option("objective", "self_supervised")
@dataclass(kw_only=True)
class SelfSupervised(TwoViews):
    """Minimise a self-supervised loss between two views of each galaxy.

    The votes do not influence the trunk and the embedding. Only the head is fitted to them, on the embedding as it is,
    so that the checkpoint predicts votes like any other.

    Examples
    --------
    >>> SelfSupervised().views
    2
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
        """Return the sum and its two parts."""
        similarity = similarity_of_views(prediction.embedding, modules)
        with torch.autocast(device_type=targets.device.type, enabled=False):
            concentrations = network.concentrations(prediction.embedding.float().detach())
        votes = vote_loss(concentrations, targets.repeat(2, 1), tree)
        return {LOSS: votes + similarity, "votes": votes, "self_supervised": similarity}
