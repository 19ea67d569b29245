"""What all architectures share: their settings, the source of their initial weights, and their trunk."""

import logging
import os
import pickle
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch
from torch import Tensor, nn

from rarezoo.errors import CheckpointError, CheckpointNotFound, ConfigError
from rarezoo.runs import file_sha256
from rarezoo.settings import Settings, choice, name_of, setting
from rarezoo.zoo.cards import find_checkpoint, read_card
from rarezoo.zoo.views import ZOOM

log = logging.getLogger(__name__)
NATIVE = "native"
# Seconds within which a server on the other side of the world accepts a connection.
_PATIENCE = 5
POOLS = ("stages", "last")
_STARTS = ("none", "imagenet", "zoobot")
_WEIGHT_FILES = ("weights.safetensors", "model.safetensors", "pytorch_model.bin")


@dataclass(kw_only=True)
class Encoder(Settings, ABC):
    """An architecture with its settings; each subclass is one choice of ``model=``.

    A new architecture is one file with a subclass that is registered with ``@option("model", NAME)`` and names the
    trunk in timm; :mod:`rarezoo.zoo.encoders.convnext_nano` is an example.
    """

    input_size: int = setting(224, "side of the network's square input, a multiple of 32", unit="px", ge=32)
    # Pixels of the sky around the galaxy are wasted: a survey with wide cutouts needs more than Zoobot's 1.2.
    zoom: float = setting(ZOOM, "the network sees the central 1/zoom of the cutout", ge=1, le=10)
    # A text, because OmegaConf has no nested unions of types; the number 128 is accepted too.
    bottleneck: str = setting("128", f"number of dimensions of the embedding; {NATIVE} = those of the trunk")
    pool: str = setting(
        "stages",
        "what the bottleneck is fed from: mean and standard deviation of the maps of several stages, or the output of "
        "the last one",
        choices=POOLS,
    )
    stages: list[int] = setting([], "stages for pool=stages, as timm numbers them from 0; empty = all", ge=0)
    start: str = setting(
        "none",
        f"initial weights: {', '.join(_STARTS)}, a checkpoint by its name or folder, or a file or folder of weights",
    )
    drop_path: float = setting(0.0, "stochastic depth rate", ge=0, lt=1)
    dropout: float = setting(0.0, "probability of dropout before the head", ge=0, lt=1)
    head_width: int = setting(
        0, "width of a hidden layer between the embedding and the predicted votes; 0 = the head is linear", ge=0
    )

    def check(self) -> None:
        """Refuse an input size that no trunk takes, and a bottleneck that is no number."""
        if self.input_size % 32:
            raise ConfigError(
                "the input size must be a multiple of 32 px", value=f"model.input_size={self.input_size}",
                fix=f"Use {round(self.input_size / 32) * 32}.",
            )  # fmt: skip
        if str(self.bottleneck) != NATIVE and not (str(self.bottleneck).isdigit() and int(self.bottleneck)):
            raise ConfigError(
                f"the bottleneck must be a number of dimensions or the word {NATIVE}",
                value=f"model.bottleneck={self.bottleneck}", fix="Use for example model.bottleneck=128.",
            )  # fmt: skip

    @property
    @abstractmethod
    def timm_architecture(self) -> str:
        """Name of the trunk in timm."""

    @property
    @abstractmethod
    def zoobot_hub_name(self) -> str:
        """Address at which Zoobot publishes its encoder of this architecture; empty if there is none."""

    @property
    def imagenet_elsewhere(self) -> str:
        """Where ImageNet weights of this architecture are besides the hub, as a sentence; empty if nowhere."""
        return ""

    @property
    def architecture(self) -> str:
        """Name of the architecture in rarezoo: its choice of ``model=``."""
        return name_of(type(self))

    @property
    def bottleneck_width(self) -> int | None:
        """Number of dimensions of the bottleneck; None without a bottleneck."""
        return None if str(self.bottleneck) == NATIVE else int(self.bottleneck)

    def stages_of(self, trunk: nn.Module) -> list[int] | None:
        """Return the numbers of the trunk's stages that feed the bottleneck; None for the output of the trunk.

        Raises
        ------
        ConfigError
            The trunk lacks one of the stages, or has no stages.
        """
        if self.pool != "stages":
            return None
        known: Any = getattr(trunk, "feature_info", ())
        if not len(known) or not hasattr(trunk, "forward_intermediates"):
            raise ConfigError(
                f"{self.timm_architecture} has no stages that timm names", value="model.pool=stages",
                fix="Use model.pool=last.",
            )  # fmt: skip
        lacking = [stage for stage in self.stages if stage >= len(known)]
        if lacking or len(set(self.stages)) < len(self.stages):
            raise ConfigError(
                f"{self.timm_architecture} has the stages 0 to {len(known) - 1}, each of which can be named once",
                value=f"model.stages={self.stages}", fix="Leave out the others, or model.stages=[] for all.",
            )  # fmt: skip
        return sorted(self.stages) or list(range(len(known)))

    def timm_settings(self) -> dict[str, Any]:
        """Return further arguments of ``timm.create_model``."""
        return {}

    def trunk(self) -> nn.Module:
        """Return the trunk with random weights, from images (b, 3, S, S) in [0, 1] to features (b, native width).

        Raises
        ------
        ConfigError
            The input size does not fit the architecture.
        """
        import timm

        settings = {"num_classes": 0, "drop_path_rate": self.drop_path, **self.timm_settings()}
        try:
            return timm.create_model(self.timm_architecture, pretrained=False, **settings)
        except (RuntimeError, AssertionError, TypeError, ValueError) as problem:
            raise ConfigError(
                f"{self.architecture} cannot be built", value=problem, fix="Check model.input_size."
            ) from problem

    def start_weights(self) -> dict[str, Tensor] | None:
        """Return the initial weights of the trunk or of the whole network by name; None if they stay random.

        Raises
        ------
        CheckpointError
            The weights cannot be found. The message says what to download and where to put it.
        """
        if self.start == "none":
            return None
        if self.start == "imagenet":
            return _downloaded(self.timm_architecture, self.timm_settings(), elsewhere=self.imagenet_elsewhere)
        if self.start == "zoobot":
            if not self.zoobot_hub_name:
                raise ConfigError(
                    f"Zoobot publishes no encoder of {self.timm_architecture}", value="model.start=zoobot",
                    fix="Use model.start=imagenet, or what Zoobot publishes: efficientnet_b0, convnext_nano, or "
                    "maxvit_tiny with model.variant=maxvit_rmlp_tiny_rw_256.",
                )  # fmt: skip
            return _downloaded(self.zoobot_hub_name, {})
        return self.renamed(local_weights(Path(self.start)))

    @property
    def starts_from_file(self) -> bool:
        """Whether the initial weights are a file of the user."""
        return self.start not in _STARTS

    def start_sha256(self) -> str | None:
        """Return the hash of the file of initial weights; None if they are random or published ones.

        Raises
        ------
        CheckpointNotFound
            There is no such file.
        """
        return file_sha256(weights_file(Path(self.start))) if self.starts_from_file else None

    def renamed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of a related publication under the names of timm, others unchanged."""
        return weights

    def settings(self) -> dict[str, Any]:
        """Return what :func:`encoder_from` needs to make the same encoder; a path of weights becomes its name."""
        start = self.start if self.start in _STARTS else Path(self.start).name
        return {"architecture": self.architecture, **asdict(self), "start": start}


def encoder_from(settings: Mapping[str, Any]) -> Encoder:
    """Make an encoder from :meth:`Encoder.settings`; those of older cards lack the pool, which was the last stage."""
    fields = {"pool": "last", **{key: value for key, value in settings.items() if key != "architecture"}}
    return choice("model", settings["architecture"])(**fields)


def encoder_of_start(encoder: Encoder, *, given: Collection[str] | None = None) -> Encoder:
    """Return an encoder with the settings of the checkpoint that its ``start`` names, if it names one.

    Settings that nobody gave are taken from the card. Rates of dropout and drop path belong to the training and stay. A
    file of weights, such as ``NAME/weights.safetensors``, decides no setting.

    Parameters
    ----------
    encoder
        Settings, whose ``start`` is the name of a checkpoint, its folder, or anything else.
    given
        Names of the settings that the user gave. None if that is not known: then a setting with its default value
        counts as not given, and a warning says what replaces it.

    Raises
    ------
    ConfigError
        The checkpoint has another architecture, or a setting that was given has another value there.
    """
    folder = checkpoint_folder(encoder.start)
    if folder is None:
        return encoder
    made = encoder_from(read_card(folder)["encoder"])
    if type(made) is not type(encoder):
        raise ConfigError(
            f"the checkpoint {folder.name} is a {made.architecture}", value=f"model={encoder.architecture}",
            fix=f"Choose model={made.architecture}.",
        )  # fmt: skip
    adopted: dict[str, Any] = {}
    for known in fields(encoder):
        mine, theirs = getattr(encoder, known.name), getattr(made, known.name)
        if known.name in ("start", "drop_path", "dropout") or str(mine) == str(theirs):
            continue
        default = known.default if known.default_factory is MISSING else known.default_factory()
        if str(mine) != str(default) or known.name in (given or ()):
            raise ConfigError(
                f"the checkpoint {folder.name} was trained with model.{known.name}={theirs}",
                value=f"model.{known.name}={mine}",
                fix=f"Leave model.{known.name} out; or take its weights alone, with model.start={folder}/"
                f"{_WEIGHT_FILES[0]} and all other model settings of its card.",
            )  # fmt: skip
        adopted[known.name] = theirs
    if adopted:
        shown = ", ".join(f"model.{key}={new}, not {getattr(encoder, key)}" for key, new in adopted.items())
        log.log(
            logging.WARNING if given is None else logging.INFO, "settings of the checkpoint %s: %s", folder.name, shown
        )
    return replace(encoder, **adopted)


def checkpoint_folder(start: str) -> Path | None:
    """Return the folder of the checkpoint that a setting ``start`` names; None if it names something else."""
    if start in _STARTS or not start or Path(start).is_file():
        return None
    try:
        return find_checkpoint(start)
    except CheckpointNotFound:
        return None


def _downloaded(name: str, settings: Mapping[str, Any], *, elsewhere: str = "") -> dict[str, Tensor]:
    """Return published weights through timm, from its cache or the hub."""
    import timm

    try:
        with _cache_alone_if_offline():
            return dict(timm.create_model(name, pretrained=True, num_classes=0, **settings).state_dict())
    except Exception as problem:  # The hub's client raises errors of requests, httpx, huggingface_hub and the system.
        cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
        configuration = None if name.startswith("hf_hub:") else timm.get_pretrained_cfg(name)
        published = name.removeprefix("hf_hub:") if configuration is None else str(configuration.hf_hub_id)
        raise CheckpointError(
            f"cannot get the published weights of {name} ({str(problem).splitlines()[0][:150]})",
            value=f"hub repository {published}",
            fix=f"On a machine with a network, run hf download {published} --local-dir DIR; "
            f"then use model.start=DIR here, or copy the folder {cache} of that machine. {elsewhere}".rstrip(),
        ) from problem


@contextmanager
def _cache_alone_if_offline() -> Iterator[None]:
    """Without a network, let the hub's client look only into its cache: otherwise it tries again for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_reachable(address: str) -> bool:
    """Return whether a server, or the proxy in front of it, accepts a connection."""
    server = urlsplit(address)
    proxy = getproxies().get(server.scheme)
    if proxy and not proxy_bypass(server.hostname or ""):
        server = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = server.port or (80 if server.scheme == "http" else 443)
    try:
        socket.create_connection((server.hostname or "", port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def weights_file(place: Path) -> Path:
    """Return a file of weights, or that in a folder which holds one, or that of a checkpoint by its name.

    Raises
    ------
    CheckpointNotFound
        There is no such file.
    """
    place = place if place.exists() else checkpoint_folder(str(place)) or place
    file = next((place / name for name in _WEIGHT_FILES if (place / name).is_file()), place)
    # The path of an empty text is the working folder.
    if not file.is_file() or not place.parts:
        raise CheckpointNotFound(
            "no weights", value=place if place.parts else "model.start=",
            fix=f"model.start takes {', '.join(_STARTS)}, the name of a checkpoint, a file, or a folder with one of: "
            f"{', '.join(_WEIGHT_FILES)}.",
        )  # fmt: skip
    return file


def local_weights(place: Path) -> dict[str, Tensor]:
    """Return weights by name from a safetensors or PyTorch file, or from a folder that holds one.

    Raises
    ------
    CheckpointNotFound
        There is no such file.
    CheckpointError
        The file holds no weights.
    """
    file = weights_file(place)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:
        # torch advises to read such a file without protection, which may run programs in it.
        unsafe = isinstance(problem, pickle.UnpicklingError)
        reason = "not a file of weights alone" if unsafe else str(problem).partition("\n")[0] or type(problem).__name__
        raise CheckpointError(f"unreadable weights ({reason})", value=file, fix="Download them again.") from problem
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    named = state.items() if isinstance(state, dict) else ()
    weights = {str(name): value for name, value in named if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError("no weights in this file", value=file, fix="Name another file, or download it again.")
    return weights
