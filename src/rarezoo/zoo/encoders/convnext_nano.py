"""ConvNeXt-Nano (Liu et al. 2022; timm's recipe): 640-D, 15 million weights."""

from dataclasses import dataclass

from rarezoo.settings import option
from rarezoo.zoo.encoder import Encoder


@option("model", "convnext_nano")
@dataclass(kw_only=True)
class ConvNeXtNano(Encoder):
    """ConvNeXt-Nano, an example of how little a further architecture needs.

    Examples
    --------
    >>> ConvNeXtNano().timm_architecture
    'convnext_nano'
    """

    @property
    def timm_architecture(self) -> str:
        """Name of the trunk in timm."""
        return "convnext_nano"

    @property
    def zoobot_hub_name(self) -> str:
        """Address at which Zoobot publishes its encoder."""
        return "hf_hub:mwalmsley/zoobot-encoder-convnext_nano"
