"""Trained networks on disk: :class:`Checkpoint` saves, opens, exports and publishes them.

What can be read without torch, the card, is in :mod:`rarezoo.zoo.cards`, because searches and reports do without torch.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms import v2

from rarezoo import __version__
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import CheckpointError, RarezooError
from rarezoo.runs import file_sha256
from rarezoo.tables import atomic, unwritable, write_json
from rarezoo.zoo.cards import (
    CARD,
    GOLDEN,
    MODEL_CARD,
    SCHEMA_VERSION,
    WEIGHTS,
    find_checkpoint,
    identity,
    model_card,
    read_card,
    whole_card,
)
from rarezoo.zoo.encoder import Encoder, encoder_from
from rarezoo.zoo.network import BottleneckNetwork, blank_network
from rarezoo.zoo.views import inference_view

if TYPE_CHECKING:
    from rarezoo.zoo.export import ExportedNetwork

LICENCE = "GPL-3.0-or-later"
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_GOLDEN_IMAGES = 4
# Another processor sums in another order; float32 convolutions then differ by about 1e-4 of the largest value.
GOLDEN_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with everything that is needed to use it.

    Make one with :meth:`open` (from disk), :meth:`pull` (from a hub) or ``rarezoo.train(...)``.

    Attributes
    ----------
    name
        Name, by convention ``<architecture>.<tag>``.
    folder
        Folder that holds card.json and the weights.
    network
        The network in evaluation mode, in float32.
    encoder
        Settings of the architecture.
    tree
        Question tree of the answers that the head predicts.
    card
        Content of card.json: settings, data, metrics, licence and hashes.

    Examples
    --------
    >>> from rarezoo.data.trees import Question
    >>> from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
    >>> from rarezoo.zoo.network import build_network
    >>> tree = QuestionTree("small", (Question("bar", ("bar_yes", "bar_no")),))
    >>> encoder = EfficientNetB0(input_size=32, bottleneck="8")
    >>> network = build_network(encoder, tree)
    >>> saved = Checkpoint.save("checkpoints/net", network=network, encoder=encoder, tree=tree, card={})
    >>> Checkpoint.open("net").width
    8
    """

    name: str
    folder: Path
    network: BottleneckNetwork = field(repr=False)
    encoder: Encoder = field(repr=False)
    tree: QuestionTree = field(repr=False)
    card: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, name_or_folder: str | Path, *, root: Path | str = "checkpoints") -> "Checkpoint":
        """Open a checkpoint and prove that it works on this machine.

        The hashes of the files must be those on the card, and the network must give the outputs that it gave for four
        fixed images when it was saved, within 0.2 % of their largest value.

        Parameters
        ----------
        name_or_folder
            Name of a checkpoint below ``root``, or its folder.
        root
            Folder that holds checkpoints.

        Raises
        ------
        CheckpointNotFound
            There is no such checkpoint.
        CheckpointError
            A file is missing or has changed, or the outputs differ.
        """
        folder = find_checkpoint(name_or_folder, root=root)
        card = read_card(folder)
        with whole_card(folder):
            return cls._opened(folder, card)

    @classmethod
    def _opened(cls, folder: Path, card: Mapping[str, Any]) -> "Checkpoint":
        """Check the files of a checkpoint, and build its network."""
        for name, expected in card.get("sha256", {WEIGHTS: "", GOLDEN: ""}).items():
            if Path(name).name != name:
                raise CheckpointError(
                    "the card names a file outside the folder of the checkpoint", value=name,
                    fix="Do not use this checkpoint: its card was changed.",
                )  # fmt: skip
            if not (folder / name).is_file():
                raise CheckpointError(
                    "a file of the checkpoint is missing", value=folder / name, fix="Get the checkpoint again."
                )
            if file_sha256(folder / name) != expected:
                raise CheckpointError(
                    "a file of the checkpoint is corrupted or was changed (sha256)", value=folder / name,
                    fix="Get the checkpoint again.",
                )  # fmt: skip
        try:
            encoder, tree = encoder_from(card["encoder"]), QuestionTree.from_dict(card["tree"])
            network = _loaded(encoder, tree, load_file(folder / WEIGHTS))
            golden = load_file(folder / GOLDEN)
        except (KeyError, TypeError, RuntimeError, SafetensorError) as problem:
            reason = " ".join(str(problem).split())[:200]
            raise CheckpointError(
                f"the card and the weights do not fit each other ({reason})", value=folder,
                fix="Get the checkpoint again, or use the version of rarezoo that its card names.",
            ) from problem  # fmt: skip
        _check_golden_outputs(network, golden, folder)
        return cls(str(card.get("name", folder.name)), folder, network, encoder, tree, card)

    @classmethod
    def save(
        cls,
        folder: Path | str,
        *,
        network: BottleneckNetwork,
        encoder: Encoder,
        tree: QuestionTree,
        card: Mapping[str, Any],
        dtype: str = "float32",
    ) -> "Checkpoint":
        """Write a network as a checkpoint folder.

        card.json is written last, so a folder without it is not a checkpoint.

        Parameters
        ----------
        folder
            Folder to write; its name becomes the checkpoint's name.
        network
            The trained network.
        encoder, tree
            What the network was built from.
        card
            Further entries of the card, such as ``data``, ``training`` and ``metrics``.
        dtype
            How weights are stored: ``float32`` or ``float16``.

        Returns
        -------
        Checkpoint
            The checkpoint as it will be opened: stored in half precision, its weights are rounded.

        Raises
        ------
        CheckpointError
            Weights of the network are not finite.
        OutputError
            The folder cannot be written.
        """
        folder = Path(folder)
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        weights = {k: v.to(_DTYPES[dtype]) if v.is_floating_point() else v for k, v in weights.items()}
        broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
        if broken:
            raise CheckpointError(
                f"weights are not finite as {dtype}", value=broken[0], fix="Train with a lower train.learning_rate."
            )
        stored = _loaded(encoder, tree, weights)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, arrays in ((WEIGHTS, weights), (GOLDEN, _golden_outputs(stored, encoder))):
                with atomic(folder / name) as temporary:
                    save_file(arrays, temporary)
            part = "the whole cutout" if encoder.zoom == 1 else f"centre 1/{encoder.zoom:g} of the cutout"
            content = {
                "schema": SCHEMA_VERSION,
                "name": folder.resolve().name,
                "rarezoo": __version__,
                "licence": LICENCE,
                "encoder": encoder.settings(),
                "width": network.width,
                "weights": sum(parameter.numel() for parameter in network.parameters()),
                "dtype": dtype,
                "preprocessing": {
                    "view": f"{part}, resized",
                    "side": encoder.input_size,
                    "scale": "/255",
                },
                "tree": tree.to_dict(),
                **card,
                "sha256": {name: file_sha256(folder / name) for name in (WEIGHTS, GOLDEN)},
            }
            with atomic(folder / MODEL_CARD) as temporary:
                temporary.write_text(model_card(content))
        except RarezooError:
            raise
        except (OSError, SafetensorError) as problem:
            raise unwritable(folder, problem if isinstance(problem, OSError) else OSError(str(problem))) from problem
        write_json(content, folder / CARD)
        return cls(content["name"], folder, stored, encoder, tree, content)

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the outputs; see :func:`rarezoo.zoo.cards.identity`."""
        return identity(self.card)

    @property
    def width(self) -> int:
        """Number of dimensions of the embedding."""
        return self.network.width

    @property
    def view(self) -> v2.Compose:
        """Transform from a uint8 cutout (3, H, W) of any size to the uint8 image (3, S, S) that the network takes."""
        return inference_view(self.encoder.input_size, zoom=self.encoder.zoom)

    def export(self, out: Path | str, *, format: str) -> "ExportedNetwork":
        """Write the network in a format that other programs read, and check it against the golden outputs.

        Parameters
        ----------
        out
            Folder to write.
        format
            ``onnx`` (for onnxruntime), ``program`` (torch.export) or ``timm`` (for timm and Zoobot).

        Raises
        ------
        ConfigError
            The format is unknown, or a package that it needs is not installed.
        CheckpointError
            The exported network gives other outputs.
        OutputError
            The folder holds something else or cannot be written.
        """
        from rarezoo.zoo.export import export

        return export(self, folder=out, format=format)

    def push(self, repository: str, *, private: bool = False, **hub: Any) -> str:
        """Send the checkpoint to ``user/name`` on a Hugging Face hub and return the address of the commit.

        Further arguments are those of :func:`rarezoo.zoo.hub.push`.
        """
        from rarezoo.zoo.hub import push

        return push(self, repository=repository, private=private, **hub)

    @classmethod
    def pull(cls, repository: str, *, root: Path | str = "checkpoints", **hub: Any) -> "Checkpoint":
        """Fetch ``user/name`` from a Hugging Face hub to ``root/name`` and open it.

        Further arguments are those of :func:`rarezoo.zoo.hub.pull`.
        """
        from rarezoo.zoo.hub import pull

        return cls.open(pull(repository, root=root, **hub))

    def summary(self) -> str:
        """Describe the checkpoint in one line; empty in the further processes of a training, which have no card."""
        if not self.card:
            return ""
        return f"checkpoint: {self.folder} ({self.encoder.architecture}, {self.width} dimensions)"

    def _repr_html_(self) -> str:
        """Show name, network and metrics as tables in a notebook."""
        facts = {
            "folder": self.folder, "architecture": self.encoder.architecture, "embedding": f"{self.width} dimensions",
            "input": f"{self.encoder.input_size} px", "survey": self.card.get("data", {}).get("survey", "–"),
        }  # fmt: skip
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in facts.items())
        tables = [f"<b>{html.escape(self.name)}</b><table>{rows}</table>"]
        if metrics := self.card.get("metrics"):
            names = [name for name in ("question", "galaxies", "loss", "rmse", "mae") if name in metrics[0]]
            lines = [names]
            for row in metrics:
                values = ("–" if row[name] is None else row[name] for name in names)
                lines.append([f"{value:.3f}" if isinstance(value, float) else str(value) for value in values])
            cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
            tables.append(f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>")
        return "".join(tables)


def _loaded(encoder: Encoder, tree: QuestionTree, weights: Mapping[str, Tensor]) -> BottleneckNetwork:
    """Build the network from stored weights; half precision is converted to float32."""
    network = blank_network(encoder, answers=len(tree.answers))
    network.load_state_dict({k: value.float() if value.is_floating_point() else value for k, value in weights.items()})
    return network.eval()


def _golden_outputs(network: BottleneckNetwork, encoder: Encoder) -> dict[str, Tensor]:
    """Make the fixed images (smooth blobs on noise, from a fixed seed) and the network's outputs for them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(_GOLDEN_IMAGES, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=encoder.input_size, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        return {"images": images.contiguous(), **{k: v.contiguous() for k, v in network(images)._asdict().items()}}


def _check_golden_outputs(network: BottleneckNetwork, golden: Mapping[str, Tensor], folder: Path) -> None:
    with torch.inference_mode():
        outputs = network(golden["images"])
    for name, value in outputs._asdict().items():
        error = float((value - golden[name]).abs().max() / golden[name].abs().max())
        # Not "greater than": NaN must not pass.
        if not error <= GOLDEN_TOLERANCE:
            raise CheckpointError(
                f"the golden outputs are not reproduced here: {name} differs by {error:.1e} of its largest value",
                value=folder, fix="Compare the versions of torch and timm with those on the card.",
            )  # fmt: skip
