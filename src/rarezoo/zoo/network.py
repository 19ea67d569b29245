"""The network: a trunk, a linear bottleneck and a head that predicts votes.

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
# sigmoid(−3) × 100 + 1 ≈ 5.7: the first guess is as certain as a handful of votes. At 0 every answer would start at 51.
_FIRST_LOGIT = -3.0


class Prediction(NamedTuple):
    """Outputs of the network for each galaxy.

    Attributes
    ----------
    embedding
        (b, d) the embedding.
    concentrations
        (b, a) Dirichlet concentrations of all answers.
    """

    embedding: Float[Tensor, "b d"]
    concentrations: Float[Tensor, "b a"]


class BottleneckNetwork(nn.Module):
    """A trunk, a linear bottleneck (or none) and a linear head that predicts Dirichlet concentrations.

    Parameters
    ----------
    trunk
        Module from images (b, 3, s, s) in [0, 1] to features (b, native).
    native
        Number of features of the trunk.
    width
        Number of dimensions of the embedding; None: no bottleneck, the embedding is the features.
    answers
        Number of answers.
    dropout
        Probability of dropout before the head.

    Examples
    --------
    >>> network = BottleneckNetwork(nn.Flatten(), native=12, width=4, answers=3, dropout=0.0)
    >>> prediction = network(torch.zeros(5, 3, 2, 2))
    >>> prediction.embedding.shape, prediction.concentrations.shape
    (torch.Size([5, 4]), torch.Size([5, 3]))
    """

    def __init__(self, trunk: nn.Module, *, native: int, width: int | None, answers: int, dropout: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.bottleneck = nn.Identity() if width is None else nn.Linear(native, width)
        self.width = native if width is None else width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.width, answers)
        nn.init.constant_(self.head.bias, _FIRST_LOGIT)

    def forward(self, images: UInt8[Tensor, "b 3 s s"] | Float[Tensor, "b 3 s s"]) -> Prediction:
        """Return embedding and concentrations of images, which are uint8 or floats in [0, 1]."""
        # Converted, then divided in place: images / 255 is several times slower on a processor.
        pixels = images if images.is_floating_point() else images.float().div_(255)
        embedding = self.bottleneck(self.trunk(pixels))
        return Prediction(embedding, self.concentrations(embedding))

    def concentrations(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b a"]:
        """Return the concentrations that the head predicts from embeddings."""
        logits = self.head(self.dropout(embedding))
        # In float32 also under autocast, because lgamma of half-precision numbers is off by nats.
        return torch.sigmoid(logits.float()) * _SCALE + _FLOOR


def build_network(encoder: Encoder, tree: QuestionTree) -> BottleneckNetwork:
    """Return the network of an encoder for the answers of a tree, with its first weights.

    Raises
    ------
    ConfigError
        A setting does not fit the architecture.
    CheckpointError
        The first weights cannot be found or do not fit.
    """
    weights = encoder.start_weights()
    network = blank_network(encoder, answers=len(tree.answers))
    if weights is not None:
        load_start(network, weights, source=encoder.start, may_lack=encoder.may_lack)
    return network


def blank_network(encoder: Encoder, *, answers: int) -> BottleneckNetwork:
    """Return the network of an encoder with random weights."""
    trunk = encoder.trunk()
    return BottleneckNetwork(
        trunk,
        native=_native_width(trunk, side=encoder.input_size),
        width=encoder.bottleneck_width,
        answers=answers,
        dropout=encoder.dropout,
    )


def _native_width(trunk: nn.Module, *, side: int) -> int:
    """Measure the number of features, because timm's ``num_features`` is not always right."""
    training = trunk.training
    with torch.no_grad():
        width = trunk.eval()(torch.zeros(1, 3, side, side)).shape[1]
    trunk.train(training)
    return int(width)


def load_start(
    network: BottleneckNetwork, weights: dict[str, Tensor], *, source: str, may_lack: tuple[str, ...] = ()
) -> None:
    """Put first weights into a network: those of a trunk, or those of a whole network as far as the shapes fit.

    Parameters
    ----------
    network
        The network, which is changed.
    weights
        Weights by name.
    source
        Where they come from, for messages.
    may_lack
        Parts of names of trunk weights that may be absent and then stay random.

    Raises
    ------
    CheckpointError
        The weights belong to another architecture.
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
            value=source, fix=f"Choose the model= for which they were made (first misfit: {absent[0]}).",
        )  # fmt: skip
    target = network if whole else network.trunk
    target.load_state_dict({**wanted, **fitting})
    left = sorted(set(wanted) - set(fitting))
    new = f"; {len(left)} new, e.g. {left[0]}" if left else ""
    log.info("first weights: %d from %s%s", len(fitting), source, new)


def _bare(name: str) -> str:
    """Return the name of a weight without the prefixes that trainers and Zoobot add."""
    for prefix in ("network.", "encoder.", "model.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name
