"""Checkpoints in the formats of other programs: ONNX, torch.export, and a folder that timm and Zoobot can load.

Every export is checked where it is written: for the checkpoint's golden images it must give the golden outputs.
"""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.transforms import InterpolationMode, v2

from rarezoo.errors import CheckpointError, ConfigError, OutputError, StoreError
from rarezoo.tables import read_json, settle, unwritable, write_json
from rarezoo.zoo.cards import GOLDEN, MODEL_CARD, model_card
from rarezoo.zoo.checkpoint import GOLDEN_TOLERANCE, Checkpoint
from rarezoo.zoo.network import BottleneckNetwork
from rarezoo.zoo.stages import pooled_stages, stage_maps

RECORD = "export.json"
BOTTLENECK = "bottleneck.safetensors"
_CARD_ENTRY = "card.json"
_HUB_LICENCES = {"GPL-3.0-or-later": "gpl-3.0"}
Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class ExportedNetwork:
    """A network written by :func:`export`.

    Attributes
    ----------
    file
        File that holds the network.
    error
        Largest difference to the golden outputs, as a share of their largest value. None if nothing on this machine
        can run the file.
    """

    file: Path
    error: float | None

    def summary(self) -> str:
        """Name the file and say how it was checked."""
        checked = "not checked: pip install onnxruntime" if self.error is None else f"off by {self.error:.1e} at most"
        return f"{self.file}\ngolden outputs: {checked}"


def export(checkpoint: Checkpoint, *, folder: Path | str, format: str) -> ExportedNetwork:
    """Export a checkpoint; see :meth:`rarezoo.zoo.checkpoint.Checkpoint.export`."""
    if format not in FORMATS:
        raise ConfigError("unknown export format", value=format, fix=f"Choose one of: {', '.join(FORMATS)}.")
    return FORMATS[format](checkpoint, folder=folder)


class _Named(nn.Module):
    """The network with its outputs in a plain dict, which can be loaded without rarezoo."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> dict[str, Tensor]:
        return dict(self.network(images)._asdict())


def export_onnx(checkpoint: Checkpoint, *, folder: Path | str) -> ExportedNetwork:
    """Write ``model.onnx``.

    Its input is ``images`` (b, 3, S, S) in [0, 1], its outputs are ``embedding`` (b, D) and ``concentrations``
    (b, answers). The number of images b is free. The card is in the model's metadata. Where onnxruntime is installed
    it runs the file and compares the outputs with the golden ones.

    Raises
    ------
    ConfigError
        onnx or onnxscript is not installed.
    CheckpointError
        The exported network gives other outputs.
    OutputError
        The folder holds something else or cannot be written.
    """
    missing = [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            "this export needs packages that are not installed", value=", ".join(missing),
            fix=f"pip install {' '.join(missing)} onnxruntime (the extra `export` of rarezoo).",
        )  # fmt: skip
    import onnx

    golden = load_file(checkpoint.folder / GOLDEN)
    # Attention's faster kernels leave strides that do not survive the decomposition into ONNX's operators.
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    with _new_folder(Path(folder), checkpoint, kind="onnx") as (new, record), plain_attention:
        program = torch.onnx.export(
            _Named(checkpoint.network).eval(), (golden["images"],), dynamo=True, verbose=False, input_names=["images"],
            output_names=["embedding", "concentrations"], dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )  # fmt: skip
        model = program.model_proto  # type: ignore[union-attr]
        onnx.helper.set_model_props(model, {_CARD_ENTRY: json.dumps(checkpoint.card)})
        onnx.save(model, new / "model.onnx")
        record["error"] = _onnx_error(new / "model.onnx", golden)
    return ExportedNetwork(Path(folder) / "model.onnx", record["error"])


def _onnx_error(file: Path, golden: Outputs) -> float | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Outputs:
        return dict(zip(names, map(torch.from_numpy, session.run(None, {"images": images.numpy()})), strict=True))

    return _error(run, golden, kind="onnx")


def export_program(checkpoint: Checkpoint, *, folder: Path | str) -> ExportedNetwork:
    """Write ``model.pt2`` with torch.export.

    ``torch.export.load(file).module()(images)`` needs neither rarezoo nor timm. It takes images (b, 3, S, S) in [0, 1],
    with any b, and returns a dict of ``embedding`` and ``concentrations``. card.json is among the file's extra files.

    Raises
    ------
    CheckpointError
        The exported network gives other outputs.
    OutputError
        The folder holds something else or cannot be written.
    """
    golden = load_file(checkpoint.folder / GOLDEN)
    with _new_folder(Path(folder), checkpoint, kind="program") as (new, record):
        shapes = {"images": {0: torch.export.Dim("batch")}}
        program = torch.export.export(_Named(checkpoint.network).eval(), (golden["images"],), dynamic_shapes=shapes)
        file = new / "model.pt2"
        torch.export.save(program, file, extra_files={_CARD_ENTRY: json.dumps(checkpoint.card)})
        record["error"] = _error(torch.export.load(file).module(), golden, kind="program")
    return ExportedNetwork(Path(folder) / "model.pt2", record["error"])


def export_timm(checkpoint: Checkpoint, *, folder: Path | str) -> ExportedNetwork:
    """Write ``config.json`` and ``model.safetensors`` for ``timm.create_model("local-dir:FOLDER", pretrained=True)``.

    That call gives a model whose output is the embedding, because the bottleneck is stored as timm's classifier. With
    ``num_classes=0`` its output is the trunk's native features; Zoobot's finetuning classes load it in this way when
    they are given ``name="local-dir:FOLDER"``. To finetune on the embedding, give them
    ``encoder=torch.nn.Sequential(MODEL)``, because from timm's model itself they take the native width. The
    preprocessing in the folder is the checkpoint's.

    A network whose bottleneck is fed from several stages (``model.pool=stages``) is written as its trunk, which gives
    the native features of the last stage, and ``bottleneck.safetensors``. This gives the embedding::

        trunk = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
        part = safetensors.torch.load_file("FOLDER/bottleneck.safetensors")
        maps = trunk.forward_intermediates(images, part["stages"].tolist(), intermediates_only=True)
        pooled = [f(m.flatten(2)) for m in maps for f in (lambda x: x.mean(2), lambda x: x.std(2, correction=0))]
        features = (torch.cat(pooled, dim=1) - part["mean"]) / part["deviation"]
        embedding = features @ part["weight"].T + part["bias"]

    Raises
    ------
    CheckpointError
        The exported network gives other outputs.
    OutputError
        The folder holds something else or cannot be written.
    """
    from timm.models import save_for_hf

    golden = load_file(checkpoint.folder / GOLDEN)
    with _new_folder(Path(folder), checkpoint, kind="timm") as (new, record):
        model = _timm_model(checkpoint)
        model.pretrained_cfg = _timm_preprocessing(checkpoint, model.pretrained_cfg)  # type: ignore[assignment,arg-type]
        if checkpoint.card["dtype"] == "float16":
            model.half()
        save_for_hf(model, str(new), model_args=checkpoint.encoder.timm_settings(), safe_serialization=True)
        if checkpoint.network.stages is not None:
            save_file(_bottleneck_of_stages(checkpoint.network), new / BOTTLENECK)
        record["error"] = _timm_error(new, checkpoint, golden)
    return ExportedNetwork(Path(folder) / "model.safetensors", record["error"])


def _timm_model(checkpoint: Checkpoint) -> nn.Module:
    """Build timm's model of the trunk, with the bottleneck as its classifier."""
    import timm

    encoder, weights = checkpoint.encoder, dict(checkpoint.network.trunk.state_dict())
    bottleneck = checkpoint.network.bottleneck
    width = _classes(checkpoint)
    model = timm.create_model(encoder.timm_architecture, num_classes=width, **encoder.timm_settings())
    classifier = model.pretrained_cfg["classifier"]  # type: ignore[index]
    if width:
        weights |= {f"{classifier}.{name}": value for name, value in bottleneck.state_dict().items()}
    model.load_state_dict(weights)
    return model.eval()


def _classes(checkpoint: Checkpoint) -> int:
    """Return the width of the bottleneck if timm can store it as a classifier behind the last stage, else 0."""
    bottleneck = checkpoint.network.bottleneck
    fits = isinstance(bottleneck, nn.Linear) and checkpoint.network.stages is None
    return int(bottleneck.out_features) if fits else 0  # type: ignore[arg-type]


def _bottleneck_of_stages(network: BottleneckNetwork) -> dict[str, Tensor]:
    """Return standardisation and bottleneck, and the stages that they are fed from."""
    parts = {**network.standardise.state_dict(), **network.bottleneck.state_dict()}
    return {**parts, "stages": torch.tensor(network.stages, dtype=torch.int64)}


def _timm_preprocessing(checkpoint: Checkpoint, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the weights as timm does: pixels / 255 without normalisation, the checkpoint's zoom and licence."""
    side = checkpoint.encoder.input_size
    resize = next(step for step in checkpoint.view.transforms if isinstance(step, v2.Resize))
    return {
        **{key: architecture.get(key) for key in ("architecture", "first_conv", "classifier", "fixed_input_size")},
        "tag": checkpoint.name,
        "input_size": (3, side, side),
        # timm rounds side / crop_pct down, the view to the nearest pixel: half a pixel more makes them agree.
        "crop_pct": side / (resize.size[0] + 0.5),
        "crop_mode": "center",
        "interpolation": InterpolationMode(resize.interpolation).value,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "num_classes": _classes(checkpoint),
        "license": hub_licence(checkpoint.card),
        "description": f"{checkpoint.name}: trunk and bottleneck of a rarezoo checkpoint, trained on Galaxy Zoo votes",
    }


def _timm_error(folder: Path, checkpoint: Checkpoint, golden: Outputs) -> float:
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    trunk = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        expected = {"embedding": golden["embedding"], "features": checkpoint.network.trunk(golden["images"])}
    embedded: Callable[[Tensor], Tensor] = model
    if (folder / BOTTLENECK).is_file():
        part = load_file(folder / BOTTLENECK)

        def embedded(images: Tensor) -> Tensor:
            pooled = pooled_stages(stage_maps(trunk, images, part["stages"].tolist()))
            features = (pooled - part["mean"]) / part["deviation"]
            return nn.functional.linear(features, part["weight"], part["bias"]) if "weight" in part else features

    return _error(
        lambda images: {"embedding": embedded(images), "features": trunk(images)},
        {"images": golden["images"], **expected},
        kind="timm",
    )


def hub_licence(card: Mapping[str, Any]) -> str:
    """Return the card's licence as the Hugging Face hub spells it."""
    return _HUB_LICENCES.get(str(card.get("licence")), "other")


def _error(run: Callable[[Tensor], Outputs], golden: Outputs, *, kind: str) -> float:
    """Return the largest difference as a share of each output's largest value, for all golden images and for one."""
    errors = {}
    for rows in (len(golden["images"]), 1):
        with torch.inference_mode():
            outputs = run(golden["images"][:rows])
        for name, value in outputs.items():
            off = (value - golden[name][:rows]).abs().max() / golden[name].abs().max()
            errors[f"{name} of {rows}"] = float(off)
    worst = max(errors, key=lambda name: errors[name])
    # Not "greater than": NaN must not pass.
    if not all(error <= GOLDEN_TOLERANCE for error in errors.values()):
        raise CheckpointError(
            f"the {kind} export gives other outputs than the checkpoint: {worst} differs by {errors[worst]:.1e}",
            value="golden outputs", fix="Compare the versions of torch, timm and onnx with those that rarezoo locks.",
        )  # fmt: skip
    return errors[worst]


@contextmanager
def _new_folder(folder: Path, checkpoint: Checkpoint, *, kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a temporary folder beside the target and the export's record; move the files once all went well."""
    record: dict[str, Any] = {"format": kind, "checkpoint": checkpoint.name, "sha256": checkpoint.sha256}
    if folder.exists():
        _check_content(folder, record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=f".{folder.resolve().name}.") as temporary:
            yield Path(temporary), record
            (Path(temporary) / MODEL_CARD).write_text(model_card(checkpoint.card))
            for file in sorted(Path(temporary).iterdir()):
                settle(file, folder / file.name)
        write_json(record, folder / RECORD)
    except OSError as problem:
        raise unwritable(folder, problem) from problem


def _check_content(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise OutputError unless the folder is empty or holds the same export."""
    if not folder.is_dir():
        raise OutputError("the output path is a file", value=folder, fix="Choose a folder: out=DIR.")
    names = sorted(path.name for path in folder.iterdir())
    try:
        earlier = read_json(folder / RECORD, fix="")
    except StoreError:
        earlier = {}
    if names and not all(earlier.get(key) == value for key, value in record.items()):
        holds = f"{earlier['checkpoint']} as {earlier['format']}" if earlier else ", ".join(names[:5])
        raise OutputError(f"{folder} holds something else", value=holds, fix="Choose another folder: out=DIR.")


FORMATS = {"onnx": export_onnx, "program": export_program, "timm": export_timm}
