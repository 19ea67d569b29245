"""The Dirichlet-multinomial loss of votes (Walmsley et al. 2022, MNRAS 509, 3966).

Shape letters: b galaxies, a answers of the tree, q questions, k answers of one question.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rarezoo.data.trees import QuestionTree


def question_losses(
    concentrations: Float[Tensor, "b a"], votes: Float[Tensor, "b a"], tree: QuestionTree
) -> Float[Tensor, "b q"]:
    """Return the negative log-likelihood of each question's votes in nats, exactly 0 where a question was not asked.

    It is computed in float32 outside autocast, because lgamma in bfloat16 is off by 1 to 2 nats.

    Examples
    --------
    >>> from rarezoo.data.trees import Question
    >>> tree = QuestionTree("small", (Question("bar", ("bar_yes", "bar_no")),))
    >>> question_losses(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]]), tree).exp().round()
    tensor([[5.]])
    """
    with torch.autocast(device_type=concentrations.device.type, enabled=False):
        alpha, counts = concentrations.float(), votes.float()
        parts = [_dirichlet_multinomial(alpha[:, part], counts[:, part]) for part in tree.slices]
        return torch.stack(parts, dim=1)


def vote_loss(
    concentrations: Float[Tensor, "b a"], votes: Float[Tensor, "b a"], tree: QuestionTree
) -> Float[Tensor, ""]:
    """Return the mean over galaxies with votes of the sum over questions, in nats; 0 if no galaxy has votes."""
    voted = (votes.sum(dim=1) > 0).sum().clamp(min=1)
    return question_losses(concentrations, votes, tree).sum() / voted


def _dirichlet_multinomial(alpha: Float[Tensor, "b k"], counts: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    total, votes = alpha.sum(dim=1), counts.sum(dim=1)
    log_likelihood = torch.lgamma(total) + torch.lgamma(votes + 1) - torch.lgamma(total + votes)
    terms = torch.lgamma(counts + alpha) - torch.lgamma(alpha) - torch.lgamma(counts + 1)
    # At n = 0 the terms cancel only up to rounding; the mask makes loss and gradient exactly zero.
    return torch.where(votes > 0, -(log_likelihood + terms.sum(dim=1)), torch.zeros_like(total))
