"""What training minimises: the Dirichlet-multinomial loss of votes (Walmsley et al. 2022, MNRAS 509, 3966), a
self-supervised loss between two views of each galaxy, or both (Walmsley et al. 2022, arXiv:2206.11927).

Shape letters: b galaxies, a answers of the tree, q questions, d width of the embedding.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rarezoo.data.trees import QuestionTree
from rarezoo.zoo.network import BottleneckNetwork, Prediction

VOTES, HYBRID, SELF_SUPERVISED = "votes", "hybrid", "self_supervised"
OBJECTIVES = (VOTES, HYBRID, SELF_SUPERVISED)
SIMILARITIES = ("vicreg", "barlow_twins", "nt_xent")
# Chen et al. 2020 (SimCLR) find 0.1-0.5 best.
_TEMPERATURE = 0.2


class Losses(NamedTuple):
    """What is minimised, and its two parts before weighting."""

    total: Float[Tensor, ""]
    votes: Float[Tensor, ""]
    self_supervised: Float[Tensor, ""]


class Objective(nn.Module):
    """Votes, two views of each galaxy, or both.

    Args:
        kind: ``votes``; ``hybrid`` = votes + weight × self-supervised; ``self_supervised``: the trunk never hears of
            the votes, only the head is fitted to them, on the embedding as it is.
        similarity: lightly's loss between the embeddings of two views: ``vicreg`` (Bardes et al. 2022),
            ``barlow_twins`` (Zbontar et al. 2021) or ``nt_xent`` (Chen et al. 2020).
        weight: of the self-supervised loss in ``hybrid``.
        width: of the embedding.
        projector: width of a two-layer projector between embedding and self-supervised loss; 0 = none, so that the
            loss shapes the embedding itself.
        processes: that train together; their views are compared as one batch.
    """

    def __init__(
        self, kind: str, *, tree: QuestionTree, similarity: str, weight: float, width: int, projector: int,
        processes: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind, self.tree, self.weight = kind, tree, weight
        self.views = 1 if kind == VOTES else 2
        self.similarity = _similarity(similarity, together=processes > 1) if self.views == 2 else None
        self.projector = _projector(width, projector) if projector and self.views == 2 else nn.Identity()

    def forward(self, said: Prediction, votes: Float[Tensor, "b a"], network: BottleneckNetwork) -> Losses:
        """Losses of one batch; ``said`` holds the views one after the other, (views · b) rows."""
        if self.similarity is None:
            loss = vote_loss(said.concentrations, votes, self.tree)
            return Losses(loss, loss, loss.new_zeros(()))
        with torch.autocast(device_type=votes.device.type, enabled=False):
            embedding = said.embedding.float()
            alike = self.similarity(*self.projector(embedding).chunk(2))
            alone = self.kind == SELF_SUPERVISED
            concentrations = network.concentrations(embedding.detach()) if alone else said.concentrations
            learnt = vote_loss(concentrations, votes.repeat(2, 1), self.tree)
        return Losses(learnt + (1.0 if alone else self.weight) * alike, learnt, alike)


def _similarity(name: str, *, together: bool) -> nn.Module:
    from lightly import loss

    kinds = {
        "vicreg": lambda: loss.VICRegLoss(gather_distributed=together),
        "barlow_twins": lambda: loss.BarlowTwinsLoss(gather_distributed=together),
        "nt_xent": lambda: loss.NTXentLoss(temperature=_TEMPERATURE, gather_distributed=together),
    }
    return kinds[name]()


def _projector(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, hidden))


def question_losses(
    concentrations: Float[Tensor, "b a"], votes: Float[Tensor, "b a"], tree: QuestionTree
) -> Float[Tensor, "b q"]:
    """Negative log-likelihood of each question's votes (nats); exactly 0 where a question was not asked.

    Computed in float32 outside autocast: lgamma in bfloat16 is off by 1-2 nats.
    """
    with torch.autocast(device_type=concentrations.device.type, enabled=False):
        alpha, counts = concentrations.float(), votes.float()
        parts = [_dirichlet_multinomial(alpha[:, part], counts[:, part]) for part in tree.slices]
        return torch.stack(parts, dim=1)


def vote_loss(
    concentrations: Float[Tensor, "b a"], votes: Float[Tensor, "b a"], tree: QuestionTree
) -> Float[Tensor, ""]:
    """Mean over the galaxies with votes of the sum over questions (nats); 0 where there are none."""
    voted = (votes.sum(dim=1) > 0).sum().clamp(min=1)
    return question_losses(concentrations, votes, tree).sum() / voted


def _dirichlet_multinomial(alpha: Float[Tensor, "b k"], counts: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    total, votes = alpha.sum(dim=1), counts.sum(dim=1)
    log_likelihood = torch.lgamma(total) + torch.lgamma(votes + 1) - torch.lgamma(total + votes)
    terms = torch.lgamma(counts + alpha) - torch.lgamma(alpha) - torch.lgamma(counts + 1)
    # At n = 0 the terms cancel only up to rounding; the mask makes loss and gradient exactly zero.
    return torch.where(votes > 0, -(log_likelihood + terms.sum(dim=1)), torch.zeros_like(total))
