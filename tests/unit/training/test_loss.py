"""The Dirichlet-multinomial loss: zoobot's to 1e-5, zero where nobody was asked, float32 whatever the autocast."""

import numpy as np
import pytest
import torch
from scipy.stats import dirichlet_multinomial

from rarezoo.data.trees import Question, QuestionTree, named_tree
from rarezoo.training.loss import question_losses, vote_loss
from rarezoo.training.module import learning_rate_share

pytestmark = pytest.mark.unit


def example(tree, galaxies=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    alpha = 1 + 100 * torch.rand(galaxies, len(tree.answers), generator=generator)
    votes = torch.randint(0, 20, (galaxies, len(tree.answers)), generator=generator).float()
    return alpha, votes


def test_equals_zoobots_loss():
    from zoobot.pytorch.training import losses

    tree = named_tree("decals_dr5")
    alpha, votes = example(tree)
    pairs = {
        question.name: [answer[len(question.name) :] for answer in question.answers] for question in tree.questions
    }
    theirs = losses.CustomMultiQuestionLoss(pairs, losses.get_dirichlet_neg_log_prob)
    expected = theirs(alpha, {answer: votes[:, index] for index, answer in enumerate(tree.answers)})
    np.testing.assert_allclose(question_losses(alpha, votes, tree), expected, rtol=1e-5, atol=1e-5)


def test_equals_scipys_probability():
    tree = QuestionTree("one", (Question("q", ("q_a", "q_b", "q_c")),))
    alpha, votes = example(tree, galaxies=5)
    expected = [
        -dirichlet_multinomial.logpmf(v, a, int(v.sum())) for a, v in zip(alpha.numpy(), votes.numpy(), strict=True)
    ]
    np.testing.assert_allclose(question_losses(alpha, votes, tree)[:, 0], expected, rtol=1e-4)


def test_unasked_questions_give_exactly_zero_and_no_gradient():
    tree = named_tree("desi")
    alpha, votes = example(tree)
    votes[:, tree.slices[3]] = 0
    alpha.requires_grad_(True)
    losses = question_losses(alpha, votes, tree)
    assert (losses[:, 3] == 0).all()
    losses.sum().backward()
    assert alpha.grad.isfinite().all()
    assert (alpha.grad[:, tree.slices[3]] == 0).all()


def test_galaxies_without_any_vote_cost_nothing():
    tree = named_tree("desi")
    alpha, _ = example(tree)
    assert vote_loss(alpha, torch.zeros_like(alpha), tree) == 0


def test_autocast_changes_nothing():
    tree = named_tree("desi")
    alpha, votes = example(tree)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = vote_loss(alpha, votes, tree)
    assert inside == vote_loss(alpha, votes, tree)
    assert inside.dtype == torch.float32


def test_learning_rate_rises_then_falls_along_a_cosine():
    shares = [learning_rate_share(step, total=100, warmup=10, final=0.01) for step in range(101)]
    assert np.all(np.diff(shares[:11]) > 0)
    assert np.all(np.diff(shares[11:]) < 0)
    assert shares[-1] == pytest.approx(0.01)
    assert max(shares) <= 1
