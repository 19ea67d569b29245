"""``rarezoo zoo``: list, show, check, export, push and pull checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarezoo.errors import CheckpointError, RarezooError
from rarezoo.escapes import visible
from rarezoo.settings import Settings, setting
from rarezoo.tables import markdown
from rarezoo.zoo.cards import (
    WEIGHTS,
    checkpoint_roots,
    checkpoints,
    find_checkpoint,
    model_card,
    read_card,
    whole_card,
)

# Name that stands for every checkpoint below the root.
ALL = "all"
_HEAD = (
    "name", "architecture", "width", "input px", "weights", "MB", "survey", "test loss", "of the mean", "licence",
    "folder",
)  # fmt: skip
_LABEL_HEAD = ("checkpoint", "label", "galaxies", "AUC", "average precision", "balanced accuracy", "RMSE")
FORMATS = ("onnx", "program", "timm")


@dataclass(kw_only=True)
class _Zoo(Settings):
    """What all commands about checkpoints share."""

    root: str = setting("checkpoints", "folder that holds checkpoints")

    def folders(self) -> list[Path]:
        """Return the folders of all checkpoints below the root, and of those that come with rarezoo.

        Raises
        ------
        CheckpointError
            There is none.
        """
        folders = [folder for root in checkpoint_roots(self.root) for folder in checkpoints(root)]
        if not folders:
            raise CheckpointError(
                "no checkpoints", value=self.root, fix="Name their folder (root=DIR), or rarezoo zoo pull USER/NAME."
            )
        return folders


@dataclass(kw_only=True)
class ListCheckpoints(_Zoo):
    """Make a table of all checkpoints below a folder and of those that come with rarezoo, one row each."""

    def run(self) -> str:
        """Return the table.

        Raises
        ------
        CheckpointError
            There is no checkpoint, or a card cannot be read.
        """
        rows = []
        for folder in self.folders():
            with whole_card(folder):
                rows.append([*_row(folder, read_card(folder)), str(folder.parent)])
        return markdown(_HEAD, rows)


def _row(folder: Path, card: Mapping[str, Any]) -> list[str]:
    return [
        folder.name,
        str(card["encoder"]["architecture"]),
        str(card["width"]),
        str(card["encoder"]["input_size"]),
        f"{card['weights']:,}",
        f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f}" if (folder / WEIGHTS).is_file() else "–",
        str(card.get("data", {}).get("survey", "–")),
        *_losses(card.get("metrics", ())),
        str(card["licence"]),
    ]


def _losses(metrics: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the test loss of a network and that of the mean, in nats per answered question.

    Questions that lack one of them do not count.
    """
    rows = [row for row in metrics if row["loss"] is not None and row["mean_loss"] is not None]
    galaxies = sum(row["galaxies"] for row in rows)
    if not galaxies:
        return "–", "–"
    network, mean = (sum(row[kind] * row["galaxies"] for row in rows) / galaxies for kind in ("loss", "mean_loss"))
    return f"{network:.3f}", f"{mean:.3f}"


@dataclass(kw_only=True)
class ShowCheckpoints(_Zoo):
    """Show the card of a checkpoint, or several checkpoints side by side."""

    names: list[str] = setting(help="checkpoints: names below the root, or folders", positional=True)

    def run(self) -> str:
        """Return the card of one checkpoint, or a table of the losses of several.

        Raises
        ------
        CheckpointError
            A checkpoint does not exist, or its card cannot be read.
        """
        cards = [read_card(find_checkpoint(name, root=self.root)) for name in self.names]
        with whole_card(", ".join(self.names)):
            return model_card(cards[0]) if len(cards) == 1 else cards_table(cards)


def cards_table(cards: Sequence[Mapping[str, Any]]) -> str:
    """Compare checkpoints question by question: loss and error of the vote fractions on the test split.

    Checkpoints that were finetuned on labels are compared label by label instead, each on its own test split.

    Parameters
    ----------
    cards
        Contents of ``card.json``. The questions and the columns of the mean, which stands for a network that has
        learnt nothing, are those of the first card.

    Returns
    -------
    str
        A Markdown table.
    """
    if any(card.get("label_metrics") for card in cards):
        return markdown(_LABEL_HEAD, [_label_row(card, row) for card in cards for row in card.get("label_metrics", ())])
    names = [str(card["name"]) for card in cards]
    head = ["question", "galaxies", *(f"{kind} {name}" for kind in ("loss", "RMSE") for name in ("mean", *names))]
    rows = []
    for first in cards[0].get("metrics", ()):
        same = [_metrics_of(first["question"], card) for card in cards]
        values = [
            value for kind in ("loss", "rmse") for value in (first[f"mean_{kind}"], *(row.get(kind) for row in same))
        ]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        rows.append([first["question"], str(first["galaxies"]), *cells])
    return markdown(head, rows)


def _label_row(card: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    numbers = [row.get(name) for name in ("auc", "average_precision", "balanced_accuracy", "rmse")]
    shown = ["–" if value is None else f"{value:.3f}" for value in numbers]
    return [str(card["name"]), str(row["label"]), str(row["galaxies"]), *shown]


def _metrics_of(question: str, card: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((row for row in card.get("metrics", ()) if row["question"] == question), {})


@dataclass(kw_only=True)
class CheckCheckpoints(_Zoo):
    """Open checkpoints and compare their files with their hashes, and their outputs with those that were recorded."""

    names: list[str] = setting(
        help=f"checkpoints: names below the root, or folders; {ALL} stands for every one", positional=True
    )

    def run(self) -> None:
        """Print one line per checkpoint.

        Raises
        ------
        CheckpointError
            At least one of them is damaged. It is raised after all have been checked.
        """
        from rarezoo.zoo.checkpoint import Checkpoint

        failed = []
        for name in [str(folder) for folder in self.folders()] if self.names == [ALL] else self.names:
            try:
                checkpoint = Checkpoint.open(name, root=self.root)
                files = len(checkpoint.card["sha256"])
                print(visible(f"{checkpoint.name}: sound (sha256 of {files} files, golden outputs)"), flush=True)
            except RarezooError as problem:
                failed.append(Path(name).name)
                print(visible(f"{failed[-1]}: {problem}"), flush=True)
        if failed:
            raise CheckpointError("not sound", value=", ".join(failed), fix="Get them again; the lines above say why.")


@dataclass(kw_only=True)
class ExportCheckpoint(_Zoo):
    """Write a checkpoint for onnxruntime, for torch.export, or for timm and Zoobot."""

    name: str = setting(help="checkpoint: a name below the root, or a folder", positional=True)
    format: str = setting(help="format of the file; program is torch.export's", choices=FORMATS)
    out: str = setting(help="folder to write")

    def run(self) -> Any:
        """Return the exported network.

        Raises
        ------
        CheckpointError, OutputError
            The checkpoint is damaged, or the folder cannot be written.
        """
        from rarezoo.zoo.checkpoint import Checkpoint

        return Checkpoint.open(self.name, root=self.root).export(self.out, format=self.format)


@dataclass(kw_only=True)
class PushCheckpoint(_Zoo):
    """Send a checkpoint to a Hugging Face hub."""

    name: str = setting(help="checkpoint: a name below the root, or a folder", positional=True)
    repository: str = setting(help="user/name on the hub")
    private: bool = setting(False, "whether a new repository is private")

    def run(self) -> str:
        """Return the address of the commit.

        Raises
        ------
        CheckpointError
            The checkpoint is damaged, or the hub cannot be reached or refuses the request.
        """
        from rarezoo.zoo.checkpoint import Checkpoint

        return Checkpoint.open(self.name, root=self.root).push(self.repository, private=self.private)


@dataclass(kw_only=True)
class PullCheckpoint(_Zoo):
    """Fetch a checkpoint from a Hugging Face hub."""

    repository: str = setting(help="user/name on the hub", positional=True)
    revision: str | None = setting(None, "branch, tag or commit; null = the newest")

    def run(self) -> Path:
        """Return the folder of the checkpoint.

        Raises
        ------
        CheckpointError, OutputError
            The hub cannot be reached or refuses the request, or the folder cannot be written.
        """
        from rarezoo.zoo.hub import pull

        return pull(self.repository, root=self.root, revision=self.revision)
