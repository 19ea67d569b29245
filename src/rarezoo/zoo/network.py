"""The network: a trunk, a linear bottleneck and a head that predicts votes.

Shape letters: b galaxies in the batch, s input side in px, n native features, d width of the embedding, a answers.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rarezoo.data.trees import QuestionTree
from rarezoo.errors import CheckpointError
from rarezoo.zoo.cards import is_checkpoint, read_card
from rarezoo.zoo.encoder import Encoder, weights_file
from rarezoo.zoo.stages import pooled_stages, stage_maps

log = logging.getLogger(__name__)
# Zoobot's head: sigmoid × 100 + 1, so that concentrations lie in [1, 101].
_SCALE, _FLOOR = 100.0, 1.0
# sigmoid(−3) × 100 + 1 ≈ 5.7: the first guess is as certain as a handful of votes. At 0 every answer would start at 51.
_FIRST_LOGIT = -3.0
# A feature is constant if its standard deviation is below this share of its mean, or below this number.
_CONSTANT_SHARE, _CONSTANT = 1e-3, 1e-6
# Of the running average of standardised features, as PyTorch's batch normalisation has them.
_MOMENTUM, _EPSILON = 0.1, 1e-5


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


class Standardise(nn.Module):
    """Features less their mean, over their standard deviation; the numbers are stored as weights.

    With a frozen trunk, the numbers are fitted once. While a trunk is trained, its features change, and the numbers
    follow them as those of batch normalisation do: each batch is standardised by itself, and the stored numbers are a
    running average over batches.

    Parameters
    ----------
    native
        Number of features.

    Attributes
    ----------
    follows
        Whether the numbers follow the features in training; this is not stored.

    Examples
    --------
    >>> standardise = Standardise(2)
    >>> standardise.fit(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
    >>> standardise(torch.tensor([[3.0, 10.0]]))
    tensor([[ 1., -1.]])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, native: int) -> None:
        super().__init__()
        self.follows = False
        self.register_buffer("mean", torch.zeros(native))
        self.register_buffer("deviation", torch.ones(native))

    @property
    def fitted(self) -> bool:
        """Whether the numbers are those of some galaxies."""
        return bool(self.mean.any())

    def fit(self, features: Float[Tensor, "b n"]) -> None:
        """Take mean and standard deviation from features; a constant feature keeps its scale."""
        spread = features.std(dim=0, correction=0)
        self.mean.copy_(features.mean(dim=0))
        varies = spread > _CONSTANT_SHARE * self.mean.abs() + _CONSTANT
        self.deviation.copy_(torch.where(varies, spread, torch.ones_like(spread)))

    def forward(self, features: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Return standardised features."""
        if self.training and self.follows and len(features) > 1:
            mean, variance = features.mean(dim=0), features.var(dim=0, correction=0) + _EPSILON
            with torch.no_grad():
                self.mean.lerp_(mean, _MOMENTUM)
                self.deviation.copy_(self.deviation.square().lerp(variance, _MOMENTUM).sqrt())
            return (features - mean) / variance.sqrt()
        return (features - self.mean) / self.deviation


class BottleneckNetwork(nn.Module):
    """A trunk, a linear bottleneck (or none) and a head that predicts Dirichlet concentrations.

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
    stages
        Numbers of the stages of the trunk, a model of timm, whose pooled maps are the features: see
        :func:`rarezoo.zoo.stages.pooled_stages`. None: the features are the output of the trunk.
    head_width
        Width of a hidden layer of the head; 0: the head is linear.

    Examples
    --------
    >>> network = BottleneckNetwork(nn.Flatten(), native=12, width=4, answers=3, dropout=0.0)
    >>> prediction = network(torch.zeros(5, 3, 2, 2))
    >>> prediction.embedding.shape, prediction.concentrations.shape
    (torch.Size([5, 4]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        native: int,
        width: int | None,
        answers: int,
        dropout: float,
        stages: Sequence[int] | None = None,
        head_width: int = 0,
    ) -> None:
        super().__init__()
        self.trunk, self.native = trunk, native
        self.stages = None if stages is None else list(stages)
        self.standardise = nn.Identity() if stages is None else Standardise(native)
        self.bottleneck = nn.Identity() if width is None else nn.Linear(native, width)
        self.width = native if width is None else width
        self.dropout = nn.Dropout(dropout)
        last = nn.Linear(head_width or self.width, answers)
        self.head = nn.Sequential(nn.Linear(self.width, head_width), nn.GELU(), last) if head_width else last
        nn.init.constant_(last.bias, _FIRST_LOGIT)

    def forward(self, images: UInt8[Tensor, "b 3 s s"] | Float[Tensor, "b 3 s s"]) -> Prediction:
        """Return embedding and concentrations of images, which are uint8 or floats in [0, 1]."""
        # Converted, then divided in place: images / 255 is several times slower on a processor.
        pixels = images if images.is_floating_point() else images.float().div_(255)
        return self.from_features(self.features(pixels))

    def features(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n"]:
        """Return the features of images in [0, 1]: what the bottleneck is fed from, before it is standardised."""
        if self.stages is None:
            return torch.as_tensor(self.trunk(pixels))
        return pooled_stages(stage_maps(self.trunk, pixels, self.stages))

    def from_features(self, features: Float[Tensor, "b n"]) -> Prediction:
        """Return embedding and concentrations from :meth:`features`."""
        embedding = self.bottleneck(self.standardise(features))
        return Prediction(embedding, self.concentrations(embedding))

    def without_trunk(self) -> "FeatureNetwork":
        """Return a network on features instead of images; it shares standardisation, bottleneck and head with this."""
        return FeatureNetwork(self)

    def concentrations(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b a"]:
        """Return the concentrations that the head predicts from embeddings."""
        return concentrations_of(self.head(self.dropout(embedding)))


def concentrations_of(logits: Float[Tensor, "b a"]) -> Float[Tensor, "b a"]:
    """Return the concentrations, between 1 and 101, of the output of a head's last layer.

    >>> concentrations_of(torch.zeros(1, 1))
    tensor([[51.]])
    """
    # In float32 also under autocast, because lgamma of half-precision numbers is off by nats.
    return torch.sigmoid(logits.float()) * _SCALE + _FLOOR


class FeatureNetwork(BottleneckNetwork):
    """The part of a network behind its trunk, from features (b, n) to predictions.

    Parameters
    ----------
    network
        The network whose standardisation, bottleneck and head are shared.
    """

    def __init__(self, network: BottleneckNetwork) -> None:
        super().__init__(nn.Identity(), native=network.native, width=network.width, answers=1, dropout=0.0)
        self.standardise, self.bottleneck = network.standardise, network.bottleneck
        self.dropout, self.head = network.dropout, network.head

    def forward(self, features: Float[Tensor, "b n"]) -> Prediction:
        """Return embedding and concentrations of features that are not yet standardised."""
        return self.from_features(features)


def build_network(encoder: Encoder, tree: QuestionTree) -> BottleneckNetwork:
    """Return the network of an encoder for the answers of a tree, with its initial weights.

    Raises
    ------
    ConfigError
        A setting does not fit the architecture.
    CheckpointError
        The initial weights cannot be found or do not fit.
    """
    weights = encoder.start_weights()
    network = blank_network(encoder, answers=len(tree.answers))
    if weights is not None:
        if encoder.starts_from_file and _predicts_otherwise(Path(encoder.start), tree):
            last = f"head.{len(network.head) - 1}." if isinstance(network.head, nn.Sequential) else "head."
            weights = {name: value for name, value in weights.items() if not name.startswith(last)}
        load_start(network, weights, source=encoder.start)
    return network


def _predicts_otherwise(start: Path, tree: QuestionTree) -> bool:
    """Return whether initial weights are a checkpoint of other answers, whose head would predict something else."""
    folder = start if is_checkpoint(start) else weights_file(start).parent
    return is_checkpoint(folder) and read_card(folder)["tree"]["questions"] != tree.to_dict()["questions"]


def blank_network(encoder: Encoder, *, answers: int) -> BottleneckNetwork:
    """Return the network of an encoder with random weights.

    Raises
    ------
    ConfigError
        A setting does not fit the architecture, for example a stage that it lacks.
    """
    trunk = encoder.trunk()
    stages = encoder.stages_of(trunk)
    images = torch.zeros(1, 3, encoder.input_size, encoder.input_size)
    training = trunk.training
    trunk.eval()
    # Measured, because timm's num_features is not always right.
    if stages is None:
        with torch.no_grad():
            native = trunk(images).shape[1]
    else:
        # Gradients are needed also where a caller has switched them off, as for opening a checkpoint to embed.
        with torch.inference_mode(False), torch.enable_grad():
            features = pooled_stages(stage_maps(trunk, images.clone(), stages))
            _freeze_unused(trunk, features)
        native = features.shape[1]
    trunk.train(training)
    return BottleneckNetwork(
        trunk,
        native=int(native),
        width=encoder.bottleneck_width,
        answers=answers,
        dropout=encoder.dropout,
        stages=stages,
        head_width=encoder.head_width,
    )


def _freeze_unused(trunk: nn.Module, features: Tensor) -> None:
    """Freeze weights that do not reach the features, because several processes would wait for their gradients."""
    weights = [weight for weight in trunk.parameters() if weight.requires_grad]
    for weight, gradient in zip(
        weights, torch.autograd.grad(features.sum(), weights, allow_unused=True), strict=True
    ):  # fmt: skip
        if gradient is None:
            weight.requires_grad_(False)


def load_start(network: BottleneckNetwork, weights: dict[str, Tensor], *, source: str) -> None:
    """Put initial weights into a network: those of a trunk, or those of a whole network as far as the shapes fit.

    Parameters
    ----------
    network
        The network, which is changed.
    weights
        Weights by name.
    source
        Where they come from, for messages.

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
    absent = [name for name in trunk_names if name not in fitting and "num_batches_tracked" not in name]
    if absent:
        raise CheckpointError(
            f"the weights are of another architecture: {len(absent)} of {len(trunk_names)} trunk weights do not fit",
            value=source, fix=f"Choose the model= for which they were made (first misfit: {absent[0]}).",
        )  # fmt: skip
    _refuse_other_pool(network, weights, source)
    target = network if whole else network.trunk
    target.load_state_dict({**wanted, **fitting})
    left = sorted(set(wanted) - set(fitting))
    new = f"; {len(left)} new, e.g. {left[0]}" if left else ""
    log.info("initial weights: %d from %s%s", len(fitting), source, new)


def _refuse_other_pool(network: BottleneckNetwork, weights: dict[str, Tensor], source: str) -> None:
    """Raise CheckpointError for a whole network whose bottleneck is fed from other features."""
    bottleneck = weights.get("bottleneck.weight")
    fed_from_stages = "standardise.mean" in weights
    other_kind = bottleneck is not None and fed_from_stages != (network.stages is not None)
    if other_kind or (fed_from_stages and len(weights["standardise.mean"]) != network.native):
        pool = "stages" if fed_from_stages else "last"
        raise CheckpointError(
            f"the bottleneck of these initial weights is fed from other features: model.pool={pool}", value=source,
            fix=f"Set model.pool={pool} and the model.stages of its card, or start from its trunk alone, which "
            "rarezoo zoo export format=timm writes.",
        )  # fmt: skip


def _bare(name: str) -> str:
    """Return the name of a weight without the prefixes that trainers and Zoobot add."""
    for prefix in ("network.", "encoder.", "model.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name


def trunk_sha256(network: BottleneckNetwork) -> str:
    """Return the sha256 (hex) of what decides the features of a network: the layers and weights of its trunk, stages.

    Layers without weights count too: the same weights with another activation give other features.
    """
    state = hashlib.sha256(f"{network.trunk!r} {network.stages}".encode())
    for name, value in sorted(network.trunk.state_dict().items()):
        state.update(name.encode())
        state.update(value.cpu().contiguous().numpy().tobytes())
    return state.hexdigest()
