"""Small networks whose weights are one vector, so that a training can be stored, differentiated and started anywhere.

Shape letters: b images in a batch, s side of an image in px, c classes, p weights.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from rarezoo.errors import ConfigError
from rarezoo.settings import choice

CONVNET, RESNET = "convnet", "resnet18"
# Channels that a group of a normalisation layer has in ResNet-18 and in the trunks of the zoo.
_GROUP = 8


def convnet(*, side: int, classes: int, width: int = 128, depth: int = 3) -> nn.Sequential:
    """Return the network of dataset distillation: blocks of convolution, instance norm, ReLU and average pooling.

    The source is Gidaris & Komodakis (2018, CVPR), in the form of Cazenavette et al. (2022, CVPR): a group norm with
    one channel in each group, and a linear layer on the flattened map.

    Parameters
    ----------
    side
        Side of the images, px.
    classes
        Number of outputs.
    width
        Channels of each block.
    depth
        Number of blocks; each halves the side.

    Raises
    ------
    ConfigError
        The side cannot be halved that often.
    """
    if side % 2**depth:
        raise ConfigError(
            f"the side of the images must be a multiple of {2**depth} px for {depth} blocks", value=side,
            fix="Choose another side, or fewer blocks.",
        )  # fmt: skip
    layers: list[nn.Module] = []
    for block in range(depth):
        layers += [
            nn.Conv2d(width if block else 3, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(),
            nn.AvgPool2d(2),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (side // 2**depth) ** 2, classes))


def _group_norm(channels: int, *arguments: object, **settings: object) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, channels // min(channels, _GROUP)), channels)


def _without_batch_norm(network: nn.Module) -> nn.Module:
    """Replace batch norms, whose running means are no weights, by group norms; their activations stay."""
    for name, part in network.named_children():
        if isinstance(part, nn.BatchNorm2d):
            follows = [module for key, module in part.named_children() if key in ("drop", "act")]
            network.add_module(name, nn.Sequential(_group_norm(part.num_features), *follows))
        else:
            _without_batch_norm(part)
    return network


def build(name: str, *, side: int, classes: int, width: int = 128, depth: int = 3) -> nn.Module:
    """Return a network with new weights from the global generator of torch.

    Parameters
    ----------
    name
        ``convnet``, ``resnet18`` (with group norm), or an architecture of the zoo, such as ``efficientnet_b0``; its
        batch norms become group norms.
    side, classes, width, depth
        See :func:`convnet`; the last two are for ``convnet`` only.

    Raises
    ------
    ConfigError
        There is no such network, or it does not fit the images.

    Examples
    --------
    >>> build("convnet", side=16, classes=5, width=4)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """
    if name == CONVNET:
        return convnet(side=side, classes=classes, width=width, depth=depth)
    if name == RESNET:
        from torchvision.models import resnet18

        network = resnet18(num_classes=classes, norm_layer=_group_norm)
        # The first layers of the published network halve the side twice, which leaves nothing of small images.
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        return network
    encoder = choice("model", name)(input_size=max(32, side // 32 * 32), drop_path=0.0)
    trunk = _without_batch_norm(encoder.trunk())
    with torch.no_grad():
        native = trunk(torch.zeros(1, 3, side, side)).shape[1]
    return nn.Sequential(trunk, nn.Linear(int(native), classes))


class FlatNetwork:
    """A network whose weights are given with every call, as one vector.

    Parameters
    ----------
    make
        Returns the network with new weights.

    Attributes
    ----------
    size
        Number of weights.

    Examples
    --------
    >>> network = FlatNetwork(partial(build, "convnet", side=16, classes=5, width=4))
    >>> weights = network.start(seed=0)
    >>> network(weights, torch.zeros(2, 3, 16, 16)).shape, len(weights) == network.size
    (torch.Size([2, 5]), True)
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self._make = make
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._module = make()
        self._shapes = {name: weight.shape for name, weight in self._module.named_parameters()}
        self.size = sum(shape.numel() for shape in self._shapes.values())

    def start(self, *, seed: int) -> Float[Tensor, " p"]:
        """Return new weights, drawn with a seed of their own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = self._make()
        return torch.cat([weight.detach().reshape(-1) for weight in fresh.parameters()])

    def __call__(self, weights: Float[Tensor, " p"], images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c"]:
        """Return the logits of images."""
        parts = weights.split([shape.numel() for shape in self._shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        return functional_call(self._module, named, (images,))

    def loss(self, weights: Float[Tensor, " p"], images: Float[Tensor, "b 3 s s"], labels: Tensor) -> Float[Tensor, ""]:
        """Return the cross entropy; labels are class numbers (b,) or probabilities (b, c)."""
        return nn.functional.cross_entropy(self(weights, images), labels)

    def predict(
        self, weights: Float[Tensor, " p"], images: Float[Tensor, "b 3 s s"], *, batch: int = 256
    ) -> Int64[Tensor, " b"]:
        """Return the class of each image."""
        with torch.no_grad():
            return torch.cat([self(weights, part).argmax(dim=1) for part in images.split(batch)])

    def descend(
        self,
        weights: Float[Tensor, " p"],
        batches: Callable[[int], tuple[Tensor, Tensor]],
        *,
        steps: int,
        rate: Callable[[int], float],
        momentum: float = 0.0,
        decay: float = 0.0,
    ) -> Float[Tensor, " p"]:
        """Return the weights after steps of stochastic gradient descent.

        Parameters
        ----------
        weights
            Weights to start from, which are not changed.
        batches
            From the number of a step to its images and labels.
        steps
            Number of steps.
        rate
            From the number of a step to its learning rate.
        momentum, decay
            As of ``torch.optim.SGD``.
        """
        weights = weights.detach().clone()
        moving = torch.zeros_like(weights)
        for step in range(steps):
            images, labels = batches(step)
            point = weights.requires_grad_(True)
            (slope,) = torch.autograd.grad(self.loss(point, images, labels), point)
            weights = point.detach()
            slope.add_(weights, alpha=decay)
            moving = slope if not momentum else moving.mul_(momentum).add_(slope)
            weights = weights - rate(step) * moving
        return weights


def flat_network(name: str, *, side: int, classes: int, width: int, depth: int) -> FlatNetwork:
    """Return the network of a name with its weights as one vector; see :func:`build`."""
    return FlatNetwork(partial(build, name, side=side, classes=classes, width=width, depth=depth))
