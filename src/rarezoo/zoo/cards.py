"""The cards of checkpoint folders. They are read here without torch; ``checkpoint.py`` opens and saves the networks.

A checkpoint folder::

    checkpoints/<architecture>.<tag>/
        card.json            encoder, tree, data, training, metrics, licence, sha256 of the files
        weights.safetensors  weights of the network, float32 or float16
        golden.safetensors   fixed images and the outputs of the network for them when it was saved
        README.md            the model card, made from card.json
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rarezoo.errors import CheckpointError, CheckpointNotFound, RarezooError, StoreError
from rarezoo.escapes import markdown, markdown_code, markdown_passage
from rarezoo.runs import digest
from rarezoo.tables import atomic, read_json, write_json

CARD, WEIGHTS, GOLDEN, MODEL_CARD = "card.json", "weights.safetensors", "golden.safetensors", "README.md"
SCHEMA_VERSION = 1
# Folder below the working directory that holds checkpoints, unless another one is named.
ROOT = "checkpoints"


def identity(card: Mapping[str, Any]) -> str:
    """Return the hash of everything that decides the outputs of a checkpoint; other entries of its card may change."""
    return digest({key: card[key] for key in ("encoder", "preprocessing", "tree", "sha256")})


def checkpoints(root: Path | str = "checkpoints") -> list[Path]:
    """Return the folders below ``root`` that hold a card, sorted by name."""
    return sorted(path.parent for path in Path(root).glob(f"*/{CARD}"))


def is_checkpoint(folder: Path | str) -> bool:
    """Return whether a folder holds a complete checkpoint."""
    return (Path(folder) / CARD).is_file()


def find_checkpoint(name_or_folder: str | Path, *, root: Path | str = ROOT) -> Path:
    """Return the folder of a checkpoint that is named by its folder or by its name below ``root``.

    See :func:`checkpoint_roots` for the folders that are searched besides ``root``.

    Raises
    ------
    CheckpointNotFound
        There is no such checkpoint. The message lists the names below ``root``.
    """
    roots = checkpoint_roots(root)
    for folder in (Path(name_or_folder), *(place / str(name_or_folder) for place in roots)):
        if is_checkpoint(folder):
            return folder
    names = ", ".join(dict.fromkeys(path.name for place in roots for path in checkpoints(place))) or "none"
    raise CheckpointNotFound(
        "no checkpoint", value=name_or_folder,
        fix=f"Give a folder that holds {CARD}, or a name below {root}/ ({names}).",
    )  # fmt: skip


def checkpoint_roots(root: Path | str = ROOT) -> list[Path]:
    """Return the folders in which checkpoints are looked for: ``root``, then those that come with rarezoo.

    The latter are searched from every working directory, but only if ``root`` is the default.
    """
    roots = [Path(root), *(released_roots() if str(root) == ROOT else [])]
    return list({place.resolve(): place for place in reversed(roots)}.values())[::-1]


def released_roots() -> list[Path]:
    """Return the folders of checkpoints that come with rarezoo: inside the installed package, and in a checkout."""
    package = Path(__file__).parents[1]
    return [package / ROOT, package.parents[1] / ROOT]


def model_card(card: Mapping[str, Any]) -> str:
    """Return the text of README.md for a card, in which no entry of the card is taken for Markdown or HTML."""
    return _environment().get_template("model_card.md.jinja").render(card=card)


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("rarezoo.zoo", ".")
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=_escaped
    )
    environment.filters |= {
        "measured": _measured, "baselines": _baselines,
        "code": lambda value: Markup(markdown_code(str(value))),
        "shell": lambda value: Markup(markdown_code(shlex.quote(str(value)))),
        "passage": lambda value: Markup(markdown_passage(str(value))),
    }  # fmt: skip
    return environment


def _escaped(value: Any) -> str:
    """Return a value of the template as Markdown; what the filters above return is Markdown already."""
    return value if isinstance(value, Markup) else markdown(str(value))


def _measured(row: Mapping[str, Any], name: str, digits: int) -> str:
    """Return a metric with its interval as text; a dash if it was not measured."""
    value, interval = row.get(name), row.get(f"{name}_interval")
    if value is None:
        return "–"
    bounds = f" ({interval[0]:.{digits}f} … {interval[1]:.{digits}f})" if interval else ""
    return f"{value:.{digits}f}{bounds}"


def _baselines(row: Mapping[str, Any]) -> list[str]:
    return [key.removesuffix("_gain") for key in row if key.endswith("_gain")]


def annotate(folder: Path | str, **entries: Any) -> None:
    """Add entries to the card of a checkpoint, such as ``known_failures``, and renew its README.md.

    Raises
    ------
    CheckpointError
        The folder holds no checkpoint.
    OutputError
        The card cannot be written.
    """
    folder = Path(folder)
    content = {**read_card(folder), **entries}
    write_json(content, folder / CARD)
    with atomic(folder / MODEL_CARD) as temporary:
        temporary.write_text(model_card(content))


@contextmanager
def whole_card(place: object) -> Iterator[None]:
    """Turn what fails because an entry of a card is missing or of another type into one message.

    Parameters
    ----------
    place
        Folder or name of the checkpoint, for the message.
    """
    try:
        yield
    except RarezooError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, jinja2.UndefinedError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise CheckpointError(
            f"an entry of the card is missing or of another type ({reason})", value=place,
            fix="Get the checkpoint again, or use the version of rarezoo that its card names.",
        ) from problem  # fmt: skip


def read_card(folder: Path | str) -> dict[str, Any]:
    """Return the content of card.json in a checkpoint folder.

    Raises
    ------
    CheckpointNotFound
        The folder holds no card.
    CheckpointError
        The card is damaged, or was made by a newer version of rarezoo.
    """
    folder = Path(folder)
    if not is_checkpoint(folder):
        raise CheckpointNotFound("no checkpoint", value=folder, fix="Give a folder that holds card.json.")
    try:
        card = read_json(folder / CARD, fix="Get the checkpoint again.")
        schema = int(card["schema"])
    except (StoreError, ValueError, KeyError, TypeError, OverflowError) as problem:
        raise CheckpointError("unreadable card", value=folder / CARD, fix="Get the checkpoint again.") from problem
    if schema > SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} was made by a newer rarezoo", value=card.get("rarezoo"), fix="Update: pip install -U rarezoo."
        )
    return card
