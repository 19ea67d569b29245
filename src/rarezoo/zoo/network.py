"""Trunk → bottleneck → head.

Shape letters: b galaxies in the batch, s input side in px, d width of the embedding, a answers of the tree.
"""

import logging
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rarezoo.data.trees import QuestionTree
from rarezoo.errors import CheckpointError
from rarezoo.zoo.encoder import Encoder

log = logging.getLogger(__name__)
# Zoobot's head: sigmoid × 100 + 1, so that concentrations lie in [1, 101].
_SCALE, _FLOOR = 100.0, 1.0
# sigmoid(−3) × 100 + 1 ≈ 5.7: a first guess as sure as a handful of votes; at 0 every answer starts at 51.
_FIRST_LOGIT = -3.0


class Prediction(NamedTuple):
    """What the network says of each galaxy: its embedding and the Dirichlet concentrations of every answer."""

    embedding: Float[Tensor, "b d"]
    concentrations: Float[Tensor, "b a"]


class BottleneckNetwork(nn.Module):
    """A trunk, a linear bottleneck (or none) and a linear head that predicts Dirichlet concentrations."""

    def __init__(self, trunk: nn.Module, *, native: int, width: int | None, answers: int, dropout: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.bottleneck = nn.Identity() if width is None else nn.Linear(native, width)
        self.width = native if width is None else width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.width, answers)
        nn.init.constant_(self.head.bias, _FIRST_LOGIT)

    def forward(self, images: UInt8[Tensor, "b 3 s s"] | Float[Tensor, "b 3 s s"]) -> Prediction:
        """Embedding and concentrations of images: uint8, or floats in [0, 1]."""
        # Converted, then divided in place: images / 255 is several times slower on a processor.
        pixels = images if images.is_floating_point() else images.float().div_(255)
        embedding = self.bottleneck(self.trunk(pixels))
        return Prediction(embedding, self.concentrations(embedding))

    def concentrations(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b a"]:
        """What the head says of embeddings."""
        logits = self.head(self.dropout(embedding))
        # Concentrations leave in float32 whatever the autocast: lgamma of half-precision numbers is off by nats.
        return torch.sigmoid(logits.float()) * _SCALE + _FLOOR


def build_network(encoder: Encoder, tree: QuestionTree) -> BottleneckNetwork:
    """The encoder's network for a tree's answers, with its first weights in place.

    Raises:
        ConfigError: a setting does not fit the architecture.
        CheckpointError: the first weights cannot be had or do not fit.
    """
    weights = encoder.start_weights()
    network = blank_network(encoder, answers=len(tree.answers))
    if weights is not None:
        load_start(network, weights, source=encoder.start, may_lack=encoder.may_lack)
    return network


def blank_network(encoder: Encoder, *, answers: int) -> BottleneckNetwork:
    """The encoder's network with random weights."""
    trunk = encoder.trunk()
    return BottleneckNetwork(
        trunk,
        native=_native_width(trunk, side=encoder.input_size),
        width=encoder.bottleneck_width,
        answers=answers,
        dropout=encoder.dropout,
    )


def _native_width(trunk: nn.Module, *, side: int) -> int:
    """Measured, because timm's num_features is not always what comes out."""
    training = trunk.training
    with torch.no_grad():
        width = trunk.eval()(torch.zeros(1, 3, side, side)).shape[1]
    trunk.train(training)
    return int(width)


def load_start(
    network: BottleneckNetwork, weights: dict[str, Tensor], *, source: str, may_lack: tuple[str, ...] = ()
) -> None:
    """Put first weights into a network: a trunk's alone, or a whole network's where the shapes fit.

    Raises:
        CheckpointError: the weights are of another architecture.
    """
    weights = {_bare(name): value.float() for name, value in weights.items()}
    whole = any(name.startswith("trunk.") for name in weights)
    wanted = network.state_dict() if whole else network.trunk.state_dict()
    fitting = {name: value for name, value in weights.items() if name in wanted and wanted[name].shape == value.shape}
    trunk_names = [name for name in wanted if name.startswith("trunk.") or not whole]
    free = ("num_batches_tracked", *may_lack)
    absent = [name for name in trunk_names if name not in fitting and not any(part in name for part in free)]
    if absent:
        raise CheckpointError(
            f"the weights are of another architecture: {len(absent)} of {len(trunk_names)} trunk weights do not fit",
            value=source, fix=f"Choose the model= that they were made with (first misfit: {absent[0]}).",
        )  # fmt: skip
    target = network if whole else network.trunk
    target.load_state_dict({**wanted, **fitting})
    left = sorted(set(wanted) - set(fitting))
    new = f"; {len(left)} new, e.g. {left[0]}" if left else ""
    log.info("start: %d weights from %s%s", len(fitting), source, new)


def _bare(name: str) -> str:
    """A weight's name without the wrappers that trainers and Zoobot put around it."""
    for prefix in ("network.", "encoder.", "model.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name
