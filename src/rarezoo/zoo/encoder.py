"""What every architecture shares: its settings, where its first weights come from, and its trunk."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rarezoo.errors import CheckpointError, ConfigError
from rarezoo.settings import choice, name_of, setting
from rarezoo.zoo.views import ZOOM

log = logging.getLogger(__name__)
NATIVE = "native"
_STARTS = ("none", "imagenet", "zoobot")
_WEIGHT_FILES = ("weights.safetensors", "model.safetensors", "pytorch_model.bin")


@dataclass(kw_only=True)
class Encoder(ABC):
    """An architecture; each subclass is one choice of ``model=``. The input size belongs to the model."""

    input_size: int = setting(224, "side of the square the network sees", unit="px")
    # The galaxy, not the sky around it, is worth the pixels: a survey with wide cutouts wants more than Zoobot's 1.2.
    zoom: float = setting(ZOOM, "the network sees the central 1/zoom of the cutout")
    # A string, because OmegaConf cannot nest a union of types; the number 128 is as good.
    bottleneck: str = setting("128", f"width of the embedding; {NATIVE} = the trunk's own, no bottleneck")
    start: str = setting("none", f"first weights: {', '.join(_STARTS)}, or a file or folder of weights")
    drop_path: float = setting(0.0, "stochastic depth rate")
    dropout: float = setting(0.0, "dropout before the head")

    @property
    @abstractmethod
    def timm_architecture(self) -> str:
        """timm's name of the trunk."""

    @property
    @abstractmethod
    def zoobot_hub_name(self) -> str:
        """Where Zoobot publishes its encoder of this architecture; empty if it does not."""

    @property
    def architecture(self) -> str:
        """Our name of the architecture: its choice of ``model=``."""
        return name_of(type(self))

    @property
    def bottleneck_width(self) -> int | None:
        """Width of the bottleneck; None without one."""
        return None if str(self.bottleneck) == NATIVE else int(self.bottleneck)

    def timm_settings(self) -> dict[str, Any]:
        """Further arguments of ``timm.create_model``."""
        return {}

    def trunk(self) -> nn.Module:
        """The trunk with random weights: images (b, 3, S, S) in [0, 1] → features (b, native width).

        Raises:
            ConfigError: the input size or bottleneck does not fit the architecture.
        """
        import timm

        self._refuse_misfits()
        settings = {"num_classes": 0, "drop_path_rate": self.drop_path, **self.timm_settings()}
        try:
            return timm.create_model(self.timm_architecture, pretrained=False, **settings)
        except (RuntimeError, AssertionError, TypeError, ValueError) as problem:
            raise ConfigError(
                f"{self.architecture} cannot be built", value=problem, fix="Check model.input_size."
            ) from problem

    def start_weights(self) -> dict[str, Tensor] | None:
        """The trunk's (or the whole network's) first weights by name; None: stay random.

        Raises:
            CheckpointError: the weights cannot be had; the message says what to download and where to put it.
        """
        if self.start == "none":
            return None
        if self.start == "imagenet":
            return _downloaded(self.timm_architecture, self.timm_settings())
        if self.start == "zoobot":
            if not self.zoobot_hub_name:
                raise ConfigError(
                    f"Zoobot publishes no encoder of {self.timm_architecture}", value="model.start=zoobot",
                    fix="Use model.start=imagenet, or what Zoobot publishes: efficientnet_b0, convnext_nano, or "
                    "maxvit_tiny with model.variant=maxvit_rmlp_tiny_rw_256.",
                )  # fmt: skip
            return _downloaded(self.zoobot_hub_name, {})
        return self.renamed(local_weights(Path(self.start)))

    def renamed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a kindred publication by timm's names; the others as they are."""
        return weights

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Parts of weight names that first weights may lack; they then stay random."""
        return ()

    def _refuse_misfits(self) -> None:
        if self.input_size < 32 or self.input_size % 32:
            raise ConfigError(
                "the input size must be a multiple of 32 px", value=f"model.input_size={self.input_size}",
                fix=f"Use {max(32, round(self.input_size / 32) * 32)}.",
            )  # fmt: skip
        if not 1 <= self.zoom <= 10:
            raise ConfigError("model.zoom lies between 1 and 10", value=self.zoom, fix=f"Use {ZOOM}, as Zoobot does.")
        if str(self.bottleneck) != NATIVE and not (str(self.bottleneck).isdigit() and int(self.bottleneck)):
            raise ConfigError(
                "the bottleneck is a width or the word native", value=f"model.bottleneck={self.bottleneck}",
                fix="Use e.g. model.bottleneck=128.",
            )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """What :func:`encoder_from` needs to make the same encoder again; a start from disk is known by its name."""
        start = self.start if self.start in _STARTS else Path(self.start).name
        return {"architecture": self.architecture, **asdict(self), "start": start}


def encoder_from(settings: Mapping[str, Any]) -> Encoder:
    """The encoder from :meth:`Encoder.settings`."""
    fields = {key: value for key, value in settings.items() if key != "architecture"}
    return choice("model", settings["architecture"])(**fields)


def _downloaded(name: str, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Published weights through timm, from its cache or the hub."""
    import timm

    try:
        return dict(timm.create_model(name, pretrained=True, num_classes=0, **settings).state_dict())
    except Exception as problem:  # whatever the hub's client raises: requests, httpx, huggingface_hub, OS
        cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
        repository = name.removeprefix("hf_hub:")
        published = repository if "/" in repository else f"timm/{repository}"
        raise CheckpointError(
            f"cannot get the published weights of {name} ({str(problem).splitlines()[0][:150]})",
            value=f"hub repository {published}",
            fix=f"Where there is a network: hf download {published} --local-dir DIR; "
            f"then model.start=DIR here (or copy that machine's {cache}).",
        ) from problem


def local_weights(place: Path) -> dict[str, Tensor]:
    """Weights by name from a safetensors or PyTorch file, or from a folder that holds one.

    Raises:
        CheckpointError: nothing there, or the file holds no weights.
    """
    file = next((place / name for name in _WEIGHT_FILES if (place / name).is_file()), place)
    if not file.is_file():
        raise CheckpointError(
            "no weights", value=place, fix=f"model.start takes {', '.join(_STARTS)}, a file, or a folder with one of: "
            f"{', '.join(_WEIGHT_FILES)}.",
        )  # fmt: skip
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise CheckpointError(f"unreadable weights ({problem})", value=file, fix="Download them again.") from problem
    return dict(content.get("state_dict", content))
