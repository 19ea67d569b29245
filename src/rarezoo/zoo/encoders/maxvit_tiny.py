"""MaxViT-Tiny (Tu et al. 2022): 512-D in timm (the paper's text says 1024), 28.5 million weights."""

from dataclasses import dataclass
from typing import Any

from rarezoo.settings import option, setting
from rarezoo.zoo.encoder import Encoder

# timm names the variant by the size at which it was first trained; Zoobot published it at 224 px.
_ZOOBOT_VARIANT, _ZOOBOT_NAME = "maxvit_rmlp_tiny_rw_256", "maxvit_rmlp_tiny_rw_224"


@option("model", "maxvit_tiny")
@dataclass(kw_only=True)
class MaxViTTiny(Encoder):
    """MaxViT-Tiny, whose attention grid depends on the input size.

    Examples
    --------
    >>> MaxViTTiny(input_size=64).timm_settings()
    {'img_size': 64}
    """

    drop_path: float = setting(0.2, "stochastic depth rate")
    variant: str = setting("maxvit_tiny_rw_224", f"timm's name; Zoobot's published encoder is {_ZOOBOT_VARIANT}")

    @property
    def timm_architecture(self) -> str:
        """Name of the trunk in timm."""
        return self.variant

    @property
    def zoobot_hub_name(self) -> str:
        """Address of Zoobot's encoder, which exists only for the variant with relative-position MLPs."""
        return f"hf_hub:mwalmsley/zoobot-encoder-{_ZOOBOT_NAME}" if self.variant == _ZOOBOT_VARIANT else ""

    def timm_settings(self) -> dict[str, Any]:
        """Return the input size for timm, because the grid must divide the feature map."""
        return {"img_size": self.input_size}
