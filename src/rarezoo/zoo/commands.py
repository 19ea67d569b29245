"""``rarezoo zoo``: list, show, verify, export, push and pull checkpoints."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rarezoo.errors import CheckpointError, RarezooError
from rarezoo.tables import markdown
from rarezoo.zoo import export, hub
from rarezoo.zoo.cards import WEIGHTS, checkpoints, is_checkpoint, model_card, read_card
from rarezoo.zoo.checkpoint import Checkpoint

_FORMATS = {"onnx": export.export_onnx, "program": export.export_program, "timm": export.export_timm}
_HEAD = ("name", "architecture", "width", "input px", "weights", "MB", "survey", "test loss", "of the mean", "licence")
_ALL = "all"


def zoo_table(root: Path | str) -> str:
    """Every checkpoint below a folder, a row each.

    Raises:
        CheckpointError: none there, or an unreadable card.
    """
    folders = _there(root)
    return markdown(_HEAD, [_row(folder, read_card(folder)) for folder in folders])


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
    """Test-split loss and the mean's, in nats per answered question, over all questions that have both."""
    rows = [row for row in metrics if row["loss"] is not None and row["mean_loss"] is not None]
    galaxies = sum(row["galaxies"] for row in rows)
    if not galaxies:
        return "–", "–"
    ours, mean = (sum(row[kind] * row["galaxies"] for row in rows) / galaxies for kind in ("loss", "mean_loss"))
    return f"{ours:.3f}", f"{mean:.3f}"


def verify(names: Sequence[str], *, root: Path | str) -> None:
    """Open checkpoints, with hashes and golden outputs checked; a line each.

    Raises:
        CheckpointError: one of them fails; raised when all have had their line.
    """
    failed = []
    for name in [str(folder) for folder in _there(root)] if list(names) == [_ALL] else names:
        try:
            found = Checkpoint.open(name, root=root)
            print(f"{found.name}: sound (sha256 of {len(found.card['sha256'])} files, golden outputs)", flush=True)
        except RarezooError as problem:
            failed.append(Path(name).name)
            print(f"{failed[-1]}: {problem}", flush=True)
    if failed:
        raise CheckpointError("not sound", value=", ".join(failed), fix="Get them again; the lines above say why.")


def _there(root: Path | str) -> list[Path]:
    folders = checkpoints(root)
    if not folders:
        raise CheckpointError("no checkpoints", value=root, fix="Give --root, or rarezoo zoo pull USER/NAME.")
    return folders


def add_zoo_verbs(verbs: Any) -> None:
    """``rarezoo zoo …`` for the command line."""
    zoo = verbs.add_parser("zoo", help="list, show, verify, export, push and pull checkpoints")
    actions = zoo.add_subparsers(dest="action", required=True, metavar="ACTION")
    _action(actions, "list", _list, about="a table of what is there")
    _action(actions, "show", _show, about="a checkpoint's card", name=True)
    one = _action(actions, "verify", _verify, about="hashes and golden outputs")
    one.add_argument("names", nargs="+", metavar="name", help=f"names below the root, or folders; {_ALL}: every one")
    one = _action(actions, "export", _export, about="for onnxruntime, torch.export, or timm and Zoobot", name=True)
    one.add_argument("--to", choices=list(_FORMATS), required=True, help="format")
    one.add_argument("--out", required=True, help="output folder")
    one = _action(actions, "push", _push, about="to a Hugging Face hub", name=True)
    one.add_argument("--repo", required=True, help="user/name on the hub")
    one.add_argument("--private", action="store_true", help="make a new repository private")
    one = _action(actions, "pull", _pull, about="from a Hugging Face hub")
    one.add_argument("repo", help="user/name on the hub")
    one.add_argument("--revision", help="branch, tag or commit")


def _action(
    actions: Any, action: str, run: Callable[[argparse.Namespace], None], *, about: str, name: bool = False
) -> Any:
    one = actions.add_parser(action, help=about)
    one.add_argument("--root", default="checkpoints", help="folder of checkpoints")
    if name:
        one.add_argument("name", help="name below the root, or a folder")
    one.set_defaults(run=run)
    return one


def _list(options: argparse.Namespace) -> None:
    print(zoo_table(options.root))


def _show(options: argparse.Namespace) -> None:
    named = Path(options.root) / options.name
    print(model_card(read_card(named if is_checkpoint(named) else options.name)))


def _verify(options: argparse.Namespace) -> None:
    verify(options.names, root=options.root)


def _export(options: argparse.Namespace) -> None:
    done = _FORMATS[options.to](Checkpoint.open(options.name, root=options.root), folder=options.out)
    checked = "not checked: pip install onnxruntime" if done.error is None else f"off by {done.error:.1e} at most"
    print(f"{done.file}\ngolden outputs: {checked}")


def _push(options: argparse.Namespace) -> None:
    print(hub.push(Checkpoint.open(options.name, root=options.root), repository=options.repo, private=options.private))


def _pull(options: argparse.Namespace) -> None:
    print(hub.pull(options.repo, root=options.root, revision=options.revision))
