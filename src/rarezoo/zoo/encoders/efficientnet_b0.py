"""EfficientNetB0 (Tan & Le 2019): 1280-D, 4.0 million weights."""

from dataclasses import dataclass

from rarezoo.registry import option, setting
from rarezoo.zoo.encoder import Encoder


@option("model", "efficientnet_b0")
@dataclass(kw_only=True)
class EfficientNetB0(Encoder):
    """EfficientNetB0 as Zoobot trains it."""

    # zoobot's own DESI training script, November 2023.
    drop_path: float = setting(0.2, "stochastic depth rate")

    @property
    def timm_architecture(self) -> str:
        """timm's name of the trunk."""
        return "efficientnet_b0"

    @property
    def zoobot_hub_name(self) -> str:
        """Where Zoobot publishes its encoder."""
        return "hf_hub:mwalmsley/zoobot-encoder-efficientnet_b0"
