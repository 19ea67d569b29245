"""The Lightning module: what it refuses, what it freezes, what it averages."""

import pytest
import torch
from torch import nn

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import DataError
from rarezoo.training.loss import SIMILARITIES, vote_loss
from rarezoo.training.module import TrainSettings, VoteLearner
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
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
    found = VoteLearner(
        network,
        tree=TREE,
        settings=TrainSettings(**settings),
        encoder=EfficientNetB0(input_size=8),
        id_of=lambda row: f"g{row}",
        seed=0,
    )
    found.log = lambda *_, **__: None
    return found


def batch(value=0.5):
    return Batch(torch.tensor([3, 8]), torch.full((2, 3, 10, 10), 255 * value), torch.tensor([[5.0, 1.0], [0.0, 7.0]]))


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
    assert not any(weight.requires_grad for weight in one.average.parameters())
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


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("projector", [0, 6])
def test_self_supervised_training_shapes_the_trunk_without_hearing_of_votes(similarity, projector):
    one = learner(objective="self_supervised", similarity=similarity, projector=projector)
    gradients = []
    for votes in ([[5.0, 1.0], [0.0, 7.0]], [[1.0, 9.0], [3.0, 0.0]]):
        torch.manual_seed(0)
        one.zero_grad()
        images = torch.arange(600.0).reshape(2, 3, 10, 10) / 3
        one.training_step(Batch(torch.tensor([3, 8]), images, torch.tensor(votes)), 0).backward()
        gradients.append([part.clone() for part in (one.network.trunk.dot.weight.grad, one.network.head.weight.grad)])
    (trunk, head), (trunk_again, head_again) = gradients
    torch.testing.assert_close(trunk, trunk_again)
    assert trunk.abs().sum() > 0
    assert not torch.allclose(head, head_again)


def test_hybrid_is_votes_plus_weight_times_similarity():
    one = learner(objective="hybrid", similarity_weight=0.25)
    logged = {}
    one.log = lambda name, value, **_: logged.update({name: float(value.detach())})
    total = float(one.training_step(batch(), 0).detach())
    assert total == pytest.approx(logged["train/votes"] + 0.25 * logged["train/self_supervised"])
    assert logged["train/self_supervised"] > 0


def test_galaxies_without_votes_do_not_dilute_the_loss_of_the_others():
    one = learner(objective="votes")
    torch.manual_seed(0)
    both = batch()
    alone = vote_loss(torch.full((1, 2), 3.0), both.votes[:1], TREE)
    diluted = vote_loss(torch.full((2, 2), 3.0), both.votes * torch.tensor([[1.0], [0.0]]), TREE)
    torch.testing.assert_close(alone, diluted)
    assert one.objective.views == 1


def test_the_projector_is_trained_and_not_part_of_what_is_kept(monkeypatch):
    one = learner(objective="hybrid", projector=6)
    monkeypatch.setattr(VoteLearner, "_share_of_peak", lambda self, step: 1.0)
    trained = {
        id(weight) for group in one.configure_optimizers()["optimizer"].param_groups for weight in group["params"]
    }
    assert {id(weight) for weight in one.objective.projector.parameters()} <= trained
    assert not any("projector" in name for name in one.result.state_dict())
