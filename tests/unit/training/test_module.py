"""The training step: what it refuses, freezes, averages and minimises, with every objective."""

import pytest
import torch
from torch import nn

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import options
from rarezoo.training.loss import vote_loss
from rarezoo.training.module import Learner, TrainSettings, optimiser_of
from rarezoo.training.objectives.hybrid import Hybrid
from rarezoo.training.objectives.self_supervised import SelfSupervised
from rarezoo.training.objectives.votes import Votes
from rarezoo.training.similarity import SIMILARITIES
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


def learner(objective=None, **settings):
    network = BottleneckNetwork(Dot(), native=5, width=4, answers=2, dropout=0)
    made = Learner(
        network,
        objective=objective or Votes(),
        tree=TREE,
        settings=TrainSettings(**settings),
        encoder=EfficientNetB0(input_size=32),
        id_of=lambda row: f"g{row}",
        seed=0,
    )
    made.log = lambda *_, **__: None
    return made


def batch():
    images = torch.full((2, 3, 40, 40), 127, dtype=torch.uint8)
    return Batch(torch.tensor([3, 8]), images, torch.tensor([[5.0, 1.0], [0.0, 7.0]]))


def test_a_loss_that_is_not_finite_stops_with_the_ids_and_the_way_out(monkeypatch):
    monkeypatch.setattr(Learner, "current_epoch", 2)
    monkeypatch.setattr(Learner, "global_step", 40)
    broken = learner()
    nn.init.constant_(broken.network.head.weight, float("nan"))
    with pytest.raises(DataError, match=r"epoch 2: step 40.*galaxies g3, g8.*train.learning_rate"):
        broken.training_step(batch(), 0)


def test_a_frozen_trunk_gets_no_gradient():
    frozen = learner(freeze_trunk=True)
    frozen.training_step(batch(), 0).backward()
    assert frozen.network.trunk.dot.weight.grad is None
    assert frozen.network.head.weight.grad is not None


def test_the_moving_average_is_what_is_kept():
    averaged = learner(ema=0.5)
    assert not any(weight.requires_grad for weight in averaged.average.parameters())
    averaged.on_train_batch_end(None, batch(), 0)
    before = averaged.result.head.bias.clone()
    with torch.no_grad():
        averaged.network.head.bias += 1
    averaged.on_train_batch_end(None, batch(), 1)
    torch.testing.assert_close(averaged.result.head.bias, before + 0.5)


def test_norms_and_biases_do_not_decay():
    optimiser, _ = optimiser_of(list(learner().parameters()), TrainSettings(), steps=10)
    decaying, free = optimiser.param_groups
    assert all(weight.ndim > 1 for weight in decaying["params"])
    assert free["weight_decay"] == 0
    assert all(weight.ndim <= 1 for weight in free["params"])


def test_the_learning_rate_peaks_after_the_warm_up():
    optimiser, schedule = optimiser_of(list(learner().parameters()), TrainSettings(epochs=10), steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[-1] < 2e-5


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("projector", [0, 6])
def test_self_supervised_training_shapes_the_trunk_without_the_votes(similarity, projector):
    trained = learner(SelfSupervised(similarity=similarity, projector=projector))
    gradients = []
    for votes in ([[5.0, 1.0], [0.0, 7.0]], [[1.0, 9.0], [3.0, 0.0]]):
        torch.manual_seed(0)
        trained.zero_grad()
        images = (torch.arange(9600).reshape(2, 3, 40, 40) // 48).to(torch.uint8)
        trained.training_step(Batch(torch.tensor([3, 8]), images, torch.tensor(votes)), 0).backward()
        parts = (trained.network.trunk.dot.weight.grad, trained.network.head.weight.grad)
        gradients.append([part.clone() for part in parts])
    (trunk, head), (trunk_again, head_again) = gradients
    torch.testing.assert_close(trunk, trunk_again)
    assert trunk.abs().sum() > 0
    assert not torch.allclose(head, head_again)


def test_hybrid_is_votes_plus_weight_times_similarity():
    trained = learner(Hybrid(weight=0.25))
    logged = {}
    trained.log = lambda name, value, **_: logged.update({name: float(value.detach())})
    total = float(trained.training_step(batch(), 0).detach())
    assert total == pytest.approx(logged["train/votes"] + 0.25 * logged["train/self_supervised"])
    assert logged["train/loss"] == total
    assert logged["train/self_supervised"] > 0


def test_galaxies_without_votes_do_not_dilute_the_loss_of_the_others():
    votes = batch().votes
    alone = vote_loss(torch.full((1, 2), 3.0), votes[:1], TREE)
    diluted = vote_loss(torch.full((2, 2), 3.0), votes * torch.tensor([[1.0], [0.0]]), TREE)
    torch.testing.assert_close(alone, diluted)


def test_the_projector_is_trained_and_not_part_of_what_is_kept():
    made = learner(Hybrid(projector=6))
    made.trainer = Trainer()
    groups = made.configure_optimizers()["optimizer"].param_groups
    trained = {id(weight) for group in groups for weight in group["params"]}
    assert {id(weight) for weight in made.extra_modules["projector"].parameters()} <= trained
    assert not any("projector" in name for name in made.result.state_dict())


class Trainer:
    estimated_stepping_batches, world_size = 10, 1


@pytest.mark.parametrize("name", [name for name, kind in options("objective").items() if issubclass(kind, Votes)])
def test_every_objective_with_votes_watches_losses_with_the_number_of_galaxies(name):
    made = learner(options("objective")[name]())
    logged = {}
    made.log = lambda name, value, *, batch_size, **_: logged.update({name: (float(value), batch_size)})
    made.trainer = Trainer()
    images = torch.full((3, 3, 32, 32), 100, dtype=torch.uint8)
    with torch.no_grad():
        made.validation_step(Batch(torch.arange(3), images, torch.tensor([[5.0, 1], [0, 0], [1, 3]])), 0)
    (loss, galaxies), (of_question, answered) = (logged[f"validation/loss{end}"] for end in ("", "/shape"))
    assert (galaxies, answered) == (3, 2)
    assert loss * galaxies == pytest.approx(of_question * answered)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": 0}, "train.devices"), ({"epochs": 0}, "train.epochs"), ({"precision": "8-bit"}, "16-mixed"),
        ({"dtype": "int8"}, "float16"), ({"workers": -1}, "train.workers"), ({"devices": -2}, "train.devices"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_at_once(settings, words):
    with pytest.raises(ConfigError, match=words):
        TrainSettings(**settings)
    assert TrainSettings(devices=-1, workers=None).workers is None


def test_settings_of_an_objective_are_refused_at_once():
    with pytest.raises(ConfigError, match=r"objective\.jitter.*-1"):
        Hybrid(jitter=-1)
    with pytest.raises(ConfigError, match=r"objective\.similarity.*vicreg"):
        SelfSupervised(similarity="cosine")


def test_an_objective_without_lightly_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lightly", None)
    with pytest.raises(ConfigError, match="pip install lightly"):
        Hybrid().modules(width=4, processes=1)
