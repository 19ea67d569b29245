"""The Dirichlet-multinomial loss of Galaxy Zoo votes (Walmsley et al. 2022, MNRAS 509, 3966).

Shape letters: b galaxies, a answers of the tree, q questions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rarezoo.data.trees import QuestionTree


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
    """Mean over galaxies of the sum over questions (nats)."""
    return question_losses(concentrations, votes, tree).sum(dim=1).mean()


def _dirichlet_multinomial(alpha: Float[Tensor, "b k"], counts: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    total, votes = alpha.sum(dim=1), counts.sum(dim=1)
    log_likelihood = torch.lgamma(total) + torch.lgamma(votes + 1) - torch.lgamma(total + votes)
    terms = torch.lgamma(counts + alpha) - torch.lgamma(alpha) - torch.lgamma(counts + 1)
    # At n = 0 the terms cancel only up to rounding; the mask makes loss and gradient exactly zero.
    return torch.where(votes > 0, -(log_likelihood + terms.sum(dim=1)), torch.zeros_like(total))
