"""Checkpoints saved and opened: weights with their card, their preprocessing and the proof that they still work."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms import v2

from rarezoo import __version__
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import CheckpointError
from rarezoo.runs import file_sha256
from rarezoo.tables import unwritable, write_json
from rarezoo.zoo.cards import (
    CARD,
    GOLDEN,
    MODEL_CARD,
    SCHEMA_VERSION,
    WEIGHTS,
    checkpoints,
    identity,
    is_checkpoint,
    model_card,
    read_card,
)
from rarezoo.zoo.encoder import Encoder, encoder_from
from rarezoo.zoo.network import BottleneckNetwork, blank_network
from rarezoo.zoo.views import inference_view

LICENCE = "GPL-3.0-or-later"
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_GOLDEN_IMAGES = 4
# Another processor sums in another order; float32 convolutions then differ by about 1e-4 of the largest value.
GOLDEN_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint opened: the network in evaluation mode and all that it needs."""

    name: str
    folder: Path
    network: BottleneckNetwork
    encoder: Encoder
    tree: QuestionTree
    card: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """See :func:`identity`."""
        return identity(self.card)

    @property
    def width(self) -> int:
        """Width of the embedding."""
        return self.network.width

    @property
    def view(self) -> v2.Compose:
        """uint8 (3, H, W) of any size → uint8 (3, S, S), which the network takes."""
        return inference_view(self.encoder.input_size, zoom=self.encoder.zoom)


def save_checkpoint(
    folder: Path | str,
    *,
    network: BottleneckNetwork,
    encoder: Encoder,
    tree: QuestionTree,
    card: Mapping[str, Any],
    dtype: str = "float32",
) -> Path:
    """Write a checkpoint folder; card.json comes last, so a folder without it is no checkpoint.

    Raises:
        CheckpointError: the network's weights are not finite.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    weights = {name: _stored(value, dtype) for name, value in network.state_dict().items()}
    broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"weights are not finite as {dtype}", value=broken[0], fix="Train with a lower train.learning_rate."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / WEIGHTS)
        save_file(_golden(_reloaded(encoder, tree, weights), encoder), folder / GOLDEN)
        content = _card(folder, encoder=encoder, tree=tree, card=card, dtype=dtype, network=network)
        (folder / MODEL_CARD).write_text(model_card(content))
    except (OSError, SafetensorError) as problem:
        raise unwritable(folder, problem if isinstance(problem, OSError) else OSError(str(problem))) from problem
    write_json(content, folder / CARD)
    return folder


def _card(
    folder: Path,
    *,
    encoder: Encoder,
    tree: QuestionTree,
    card: Mapping[str, Any],
    dtype: str,
    network: BottleneckNetwork,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "name": folder.resolve().name,
        "rarezoo": __version__,
        "licence": LICENCE,
        "encoder": encoder.settings(),
        "width": network.width,
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "dtype": dtype,
        "preprocessing": {
            "view": f"centre 1/{encoder.zoom:g} of the cutout, resized",
            "side": encoder.input_size,
            "scale": "/255",
        },
        "tree": tree.to_dict(),
        **card,
        "sha256": {name: file_sha256(folder / name) for name in (WEIGHTS, GOLDEN)},
    }


def open_checkpoint(name_or_folder: str | Path, *, root: Path | str = "checkpoints") -> Checkpoint:
    """Open a checkpoint by its name below ``root``, or by its folder, and prove that it works here.

    Raises:
        CheckpointError: no such checkpoint, a file is missing or changed, or the golden outputs do not come out.
    """
    folder = _found(name_or_folder, Path(root))
    card = read_card(folder)
    _refuse_changed_files(folder, card)
    try:
        encoder, tree = encoder_from(card["encoder"]), QuestionTree.from_dict(card["tree"])
        network = _reloaded(encoder, tree, load_file(folder / WEIGHTS))
        golden = load_file(folder / GOLDEN)
    except (KeyError, TypeError, RuntimeError, SafetensorError) as problem:
        raise CheckpointError(
            f"the card and the weights do not fit ({str(problem).splitlines()[0][:200]})", value=folder,
            fix="Get the checkpoint again, with the rarezoo version on its card.",
        ) from problem  # fmt: skip
    _refuse_other_outputs(network, golden, folder)
    return Checkpoint(str(card.get("name", folder.name)), folder, network, encoder, tree, card)


def _found(name_or_folder: str | Path, root: Path) -> Path:
    for folder in (Path(name_or_folder), root / str(name_or_folder)):
        if is_checkpoint(folder):
            return folder
    there = ", ".join(path.name for path in checkpoints(root)) or "none"
    raise CheckpointError(
        "no checkpoint", value=name_or_folder, fix=f"Give a folder with card.json, or a name below {root}/ ({there})."
    )


def _refuse_changed_files(folder: Path, card: Mapping[str, Any]) -> None:
    for name, expected in card.get("sha256", {WEIGHTS: "", GOLDEN: ""}).items():
        if not (folder / name).is_file():
            raise CheckpointError("a file of the checkpoint is missing", value=folder / name, fix="Get it again.")
        if file_sha256(folder / name) != expected:
            raise CheckpointError(
                "a file of the checkpoint is corrupted or was changed (sha256)", value=folder / name,
                fix="Get the checkpoint again.",
            )  # fmt: skip


def _refuse_other_outputs(network: BottleneckNetwork, golden: Mapping[str, Tensor], folder: Path) -> None:
    with torch.inference_mode():
        found = network(golden["images"])
    for name, value in found._asdict().items():
        expected = golden[name]
        error = float((value - expected).abs().max() / expected.abs().max())
        if not error <= GOLDEN_TOLERANCE:
            raise CheckpointError(
                f"golden outputs do not come out here: {name} is off by {error:.1e} of its largest value",
                value=folder, fix="Compare the versions of torch and timm with those on the card.",
            )  # fmt: skip


def _golden(network: BottleneckNetwork, encoder: Encoder) -> dict[str, Tensor]:
    """Fixed images (smooth blobs on noise, from a fixed seed) and what the network says of them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(_GOLDEN_IMAGES, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=encoder.input_size, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        return {"images": images.contiguous(), **{k: v.contiguous() for k, v in network(images)._asdict().items()}}


def _reloaded(encoder: Encoder, tree: QuestionTree, weights: Mapping[str, Tensor]) -> BottleneckNetwork:
    """The network as it comes out of the file: half-precision weights are lifted to float32."""
    network = blank_network(encoder, answers=len(tree.answers))
    lifted = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    network.load_state_dict(lifted)
    return network.eval()


def _stored(value: Tensor, dtype: str) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.to(_DTYPES[dtype]) if value.is_floating_point() else value


def remove_scratch(folder: Path) -> None:
    """Delete a training's scratch folder once the checkpoint is whole."""
    shutil.rmtree(folder, ignore_errors=True)
