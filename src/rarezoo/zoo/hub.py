"""Checkpoints to and from a Hugging Face hub, by its own client. Log in once: ``hf auth login``, or set HF_TOKEN."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarezoo import __version__
from rarezoo.errors import CheckpointError, OutputError, RarezooError
from rarezoo.runs import SETTINGS_FILE
from rarezoo.tables import unwritable
from rarezoo.zoo.cards import CARD, MODEL_CARD, is_checkpoint, model_card
from rarezoo.zoo.checkpoint import Checkpoint, open_checkpoint
from rarezoo.zoo.export import hub_licence

log = logging.getLogger(__name__)
_TAGS = ("astronomy", "galaxies", "galaxy-zoo", "zoobot")
_LOG_IN = "Log in (hf auth login, or HF_TOKEN) as someone who may; a private repository looks like none to others."


def push(
    checkpoint: Checkpoint,
    *,
    repository: str,
    endpoint: str | None = None,
    token: str | None = None,
    private: bool = False,
) -> str:
    """Send an opened (so: verified) checkpoint to ``user/name``, made if need be; the address of the commit.

    Args:
        checkpoint: its folder's visible files go, except the training's settings, which name places on this machine.
        repository: ``user/name`` on the hub.
        endpoint: another hub; None: HF_ENDPOINT, or huggingface.co.
        token: None: the one that this machine is logged in with.
        private: of a repository that is new.

    Raises:
        CheckpointError: the hub cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd

    content: dict[str, Path | bytes] = {path.name: path for path in _released(checkpoint)}
    content[MODEL_CARD] = with_front_matter(_read_me(checkpoint), checkpoint.card).encode()
    additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in content.items()]
    by_hand = f"hf upload {repository} {checkpoint.folder}"
    with _hub(repository, endpoint=endpoint, token=token, by_hand=by_hand) as api:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(repository, additions, commit_message=f"{checkpoint.name}, rarezoo {__version__}")
    return str(commit.commit_url)


def pull(
    repository: str,
    *,
    root: Path | str = "checkpoints",
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Path:
    """Fetch ``user/name`` to ROOT/name: in a hidden folder beside it first, renamed once it opens with golden outputs.

    Interrupted, the same call goes on where it stopped. A damaged copy of the same checkpoint is mended.

    Args:
        repository: ``user/name`` on the hub.
        root: folder of checkpoints.
        revision: branch, tag or commit; None: the newest.
        endpoint: another hub; None: HF_ENDPOINT, or huggingface.co.
        token: None: the one that this machine is logged in with.

    Raises:
        CheckpointError: the hub cannot be reached or refuses, or what it gave is not a whole checkpoint.
        OutputError: ROOT/name holds something else, or cannot be written.
    """
    target = Path(root) / repository.split("/")[-1]
    arriving = Path(root) / f".{repository.replace('/', '--')}.arriving"
    if target.exists() and not is_checkpoint(target):
        raise OutputError("what is there is no checkpoint", value=target, fix="Move it, or choose another --root.")
    by_hand = f"hf download {repository} --local-dir {target}"
    with _hub(repository, endpoint=endpoint, token=token, by_hand=by_hand) as api:
        commit = api.model_info(repository, revision=revision).sha
        api.snapshot_download(repository, revision=commit, local_dir=arriving, ignore_patterns=[".gitattributes"])
    try:
        shutil.rmtree(arriving / ".cache", ignore_errors=True)
        _refuse_unusable(arriving, target, repository=repository)
        _moved(arriving, target)
    except OSError as problem:
        raise unwritable(target, problem) from problem
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return target


def with_front_matter(text: str, card: Mapping[str, Any]) -> str:
    """A model card with the YAML head that the hub reads; unchanged if it has one."""
    from huggingface_hub import ModelCardData

    if text.startswith("---\n"):
        return text
    head = ModelCardData(
        license=hub_licence(card),
        library_name="rarezoo",
        pipeline_tag="image-feature-extraction",
        tags=[*_TAGS, str(card["encoder"]["architecture"])],
    )
    return f"---\n{head.to_yaml()}\n---\n\n{text}"


def _released(checkpoint: Checkpoint) -> list[Path]:
    files = (path for path in checkpoint.folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.name != SETTINGS_FILE)


def _read_me(checkpoint: Checkpoint) -> str:
    file = checkpoint.folder / MODEL_CARD
    return file.read_text() if file.is_file() else model_card(checkpoint.card)


def _refuse_unusable(arriving: Path, target: Path, *, repository: str) -> None:
    try:
        open_checkpoint(arriving)
    except CheckpointError as problem:
        what = f"{problem.what} ({Path(str(problem.value)).name})"
        raise CheckpointError(f"what the hub gave is refused: {what}", value=repository, fix=problem.fix) from problem
    if target.exists() and (target / CARD).read_bytes() != (arriving / CARD).read_bytes():
        raise OutputError(
            "there is another checkpoint of that name", value=target, fix="Move it, or choose another --root."
        )


def _moved(arriving: Path, target: Path) -> None:
    """Into place at once; over a copy of the same checkpoint file by file, the card last."""
    if not target.exists():
        arriving.rename(target)
        return
    for file in sorted(arriving.iterdir(), key=lambda path: path.name == CARD):
        os.replace(file, target / file.name)


@contextmanager
def _hub(repository: str, *, endpoint: str | None, token: str | None, by_hand: str) -> Iterator[Any]:
    """The hub's client; whatever it raises becomes one message."""
    from huggingface_hub import HfApi

    try:
        yield HfApi(endpoint=endpoint, token=token, library_name="rarezoo", library_version=__version__)
    except RarezooError:
        raise
    except Exception as problem:  # requests', httpx's or the hub's own, with its version
        raise _refusal(problem, repository, by_hand=by_hand) from problem


def _refusal(problem: Exception, repository: str, *, by_hand: str) -> RarezooError:
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    cause = problem.__cause__ if isinstance(problem.__cause__, Exception) else problem
    status = getattr(getattr(cause, "response", None), "status_code", None)
    reason = f"HTTP {status}" if status else f"{type(cause).__name__}: {str(cause).splitlines()[0][:150]}"
    if isinstance(cause, HFValidationError):
        return CheckpointError("the hub takes no such name", value=repository, fix="Write it user/name.")
    if isinstance(cause, OfflineModeIsEnabled):
        return CheckpointError("the hub is switched off here", value=repository, fix="Unset HF_HUB_OFFLINE.")
    if isinstance(cause, OSError) and cause.errno is not None and cause.filename is not None:
        return unwritable(Path(str(cause.filename)), cause)
    fixes = {401: _LOG_IN, 403: _LOG_IN, 404: f"Check the name and the revision. {_LOG_IN}"}
    fix = fixes.get(status or 0, f"Try again, or carry the folder to where there is a network: {by_hand}")
    return CheckpointError(f"the hub does not serve this ({reason})", value=repository, fix=fix)
