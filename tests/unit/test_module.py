"""The Lightning module: what it refuses, what it freezes, what it averages."""

import pytest
import torch
from torch import nn

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import DataError
from rarezoo.train.module import TrainSettings, VoteLearner
from rarezoo.zoo.network import BottleneckNetwork

pytestmark = pytest.mark.unit
TREE = QuestionTree("small", (Question("shape", ("shape_smooth", "shape_disk")),))


class Dot(nn.Module):
    def __init__(self):
        super().__init__()
        self.dot = nn.Linear(3, 5)

    def forward(self, images):
        return self.dot(images.mean(dim=(2, 3)))


def learner(**settings):
    network = BottleneckNetwork(Dot(), native=5, width=4, answers=2, dropout=0)
    found = VoteLearner(network, tree=TREE, settings=TrainSettings(**settings), id_of=lambda row: f"g{row}", seed=0)
    found.log = lambda *_, **__: None
    return found


def batch(value=0.5):
    return Batch(torch.tensor([3, 8]), torch.full((2, 3, 8, 8), value), torch.tensor([[5.0, 1.0], [0.0, 7.0]]))


def test_a_loss_that_is_not_finite_stops_with_the_ids_and_the_way_out(monkeypatch):
    one = learner()
    monkeypatch.setattr(VoteLearner, "current_epoch", 2)
    monkeypatch.setattr(VoteLearner, "global_step", 40)
    with pytest.raises(DataError, match=r"not finite in epoch 2: step 40.*galaxies g3, g8.*train.learning_rate"):
        one.training_step(batch(float("nan")), 0)


def test_a_frozen_trunk_gets_no_gradient():
    one = learner(freeze_trunk=True)
    one.training_step(batch(), 0).backward()
    assert one.network.trunk.dot.weight.grad is None
    assert one.network.head.weight.grad is not None


def test_the_moving_average_is_what_is_kept():
    one = learner(ema=0.5)
    one.on_train_batch_end(None, batch(), 0)
    before = one.result.head.bias.clone()
    with torch.no_grad():
        one.network.head.bias += 1
    one.on_train_batch_end(None, batch(), 1)
    torch.testing.assert_close(one.result.head.bias, before + 0.5)


def test_norms_and_biases_do_not_decay(monkeypatch):
    one = learner()
    monkeypatch.setattr(VoteLearner, "_share_of_peak", lambda self, step: 1.0)
    decaying, free = one.configure_optimizers()["optimizer"].param_groups
    assert all(weight.ndim > 1 for weight in decaying["params"])
    assert free["weight_decay"] == 0
    assert all(weight.ndim <= 1 for weight in free["params"])
