"""Cards of checkpoint folders, read without the network that they tell of; `checkpoint.py` opens and saves that.

checkpoints/<architecture>.<tag>/
    card.json            what it is: encoder, tree, data, training, metrics, licence, sha256 of the files
    weights.safetensors  the network's weights, float32 or float16
    golden.safetensors   fixed images and what the network said of them when it was saved
    README.md            the model card, rendered from card.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from rarezoo.errors import CheckpointError, CheckpointNotFound
from rarezoo.runs import digest
from rarezoo.tables import write_json

CARD, WEIGHTS, GOLDEN, MODEL_CARD = "card.json", "weights.safetensors", "golden.safetensors", "README.md"
SCHEMA_VERSION = 1


def identity(card: Mapping[str, Any]) -> str:
    """Hash of what decides a checkpoint's outputs; what its card says beside that may grow."""
    return digest({key: card[key] for key in ("encoder", "preprocessing", "tree", "sha256")})


def checkpoints(root: Path | str = "checkpoints") -> list[Path]:
    """Folders below ``root`` that hold a card, by name."""
    return sorted(path.parent for path in Path(root).glob(f"*/{CARD}"))


def is_checkpoint(folder: Path | str) -> bool:
    """Whether a folder holds a finished checkpoint."""
    return (Path(folder) / CARD).is_file()


def find_checkpoint(name_or_folder: str | Path, *, root: Path | str = "checkpoints") -> Path:
    """Return the folder of a checkpoint that is named by its folder or by its name below ``root``.

    Raises
    ------
    CheckpointNotFound
        There is no such checkpoint. The message lists the names below ``root``.
    """
    for folder in (Path(name_or_folder), Path(root) / str(name_or_folder)):
        if is_checkpoint(folder):
            return folder
    names = ", ".join(path.name for path in checkpoints(root)) or "none"
    raise CheckpointNotFound(
        "no checkpoint", value=name_or_folder,
        fix=f"Give a folder that holds {CARD}, or a name below {root}/ ({names}).",
    )  # fmt: skip


def model_card(card: Mapping[str, Any]) -> str:
    """README.md of a checkpoint."""
    loader = jinja2.PackageLoader("rarezoo.zoo", ".")
    environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters |= {"measured": _measured, "baselines": _baselines}
    return environment.get_template("model_card.md.jinja").render(card=card)


def _measured(row: Mapping[str, Any], name: str, digits: int) -> str:
    """A metric with its interval, a dash where it was not measured."""
    value, interval = row.get(name), row.get(f"{name}_interval")
    if value is None:
        return "–"
    bounds = f" ({interval[0]:.{digits}f} … {interval[1]:.{digits}f})" if interval else ""
    return f"{value:.{digits}f}{bounds}"


def _baselines(row: Mapping[str, Any]) -> list[str]:
    return [key.removesuffix("_gain") for key in row if key.endswith("_gain")]


def annotate(folder: Path | str, **said: Any) -> None:
    """Add what people found out about a checkpoint to its card; what it is and does stays as it was.

    Raises:
        CheckpointError: no checkpoint there.
        OutputError: it cannot be written.
    """
    folder = Path(folder)
    content = {**read_card(folder), **said}
    write_json(content, folder / CARD)
    (folder / MODEL_CARD).write_text(model_card(content))


def read_card(folder: Path | str) -> dict[str, Any]:
    """card.json of a checkpoint folder.

    Raises:
        CheckpointError: none there, unreadable, or made by a newer rarezoo.
    """
    folder = Path(folder)
    if not is_checkpoint(folder):
        raise CheckpointNotFound("no checkpoint", value=folder, fix="Give a folder that holds card.json.")
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        schema = int(card["schema"])
    except (ValueError, KeyError, TypeError) as problem:
        raise CheckpointError("unreadable card", value=folder / CARD, fix="Get the checkpoint again.") from problem
    if schema > SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} was made by a newer rarezoo", value=card.get("rarezoo"), fix="Update: pip install -U rarezoo."
        )
    return card
