"""Checkpoints sent to and fetched from a Hugging Face hub with its own client.

Log in once with ``hf auth login``, or set the environment variable HF_TOKEN.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarezoo import __version__
from rarezoo.errors import CheckpointError, OutputError, RarezooError
from rarezoo.runs import SETTINGS_FILE
from rarezoo.tables import settle, unwritable
from rarezoo.zoo.cards import CARD, MODEL_CARD, is_checkpoint, model_card
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.export import hub_licence

log = logging.getLogger(__name__)
_TAGS = ("astronomy", "galaxies", "galaxy-zoo", "zoobot")
_LOG_IN = "Log in (hf auth login, or HF_TOKEN) as a user who may; a private repository is hidden from all others."


def push(
    checkpoint: Checkpoint,
    *,
    repository: str,
    endpoint: str | None = None,
    token: str | None = None,
    private: bool = False,
) -> str:
    """Send a checkpoint to ``user/name`` and return the address of the commit.

    The repository is made if it does not exist. All visible files of the checkpoint's folder are sent except the
    training's settings, which name places on this machine.

    Parameters
    ----------
    checkpoint
        An opened checkpoint, which is therefore known to work.
    repository
        ``user/name`` on the hub.
    endpoint
        Address of another hub. None stands for HF_ENDPOINT, or else huggingface.co.
    token
        Access token. None stands for the one that this machine is logged in with.
    private
        Whether a new repository is private.

    Raises
    ------
    CheckpointError
        The hub cannot be reached or refuses the request.
    """
    from huggingface_hub import CommitOperationAdd

    files = sorted(path for path in checkpoint.folder.iterdir() if path.is_file() and not path.name.startswith("."))
    content: dict[str, Path | bytes] = {path.name: path for path in files if path.name != SETTINGS_FILE}
    text = content[MODEL_CARD].read_text() if MODEL_CARD in content else model_card(checkpoint.card)  # type: ignore[union-attr]
    content[MODEL_CARD] = with_front_matter(text, checkpoint.card).encode()
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
    """Fetch ``user/name`` to ``root/name`` and return that folder.

    The files go to a hidden folder first, which is renamed once the checkpoint opens and gives its golden outputs. An
    interrupted call continues where it stopped. A damaged copy of the same checkpoint is repaired.

    Parameters
    ----------
    repository
        ``user/name`` on the hub.
    root
        Folder that holds checkpoints.
    revision
        Branch, tag or commit. None stands for the newest.
    endpoint
        Address of another hub. None stands for HF_ENDPOINT, or else huggingface.co.
    token
        Access token. None stands for the one that this machine is logged in with.

    Raises
    ------
    CheckpointError
        The hub cannot be reached or refuses the request, or the files are not a whole checkpoint.
    OutputError
        ``root/name`` holds something else, or cannot be written.
    """
    target = Path(root) / repository.split("/")[-1]
    arriving = Path(root) / f".{repository.replace('/', '--')}.arriving"
    if target.exists() and not is_checkpoint(target):
        raise OutputError("the target is not a checkpoint", value=target, fix="Move it, or choose another root=DIR.")
    by_hand = f"hf download {repository} --local-dir {target}"
    with _hub(repository, endpoint=endpoint, token=token, by_hand=by_hand) as api:
        commit = api.model_info(repository, revision=revision).sha
        api.snapshot_download(repository, revision=commit, local_dir=arriving, ignore_patterns=[".gitattributes"])
    try:
        shutil.rmtree(arriving / ".cache", ignore_errors=True)
        try:
            Checkpoint.open(arriving)
        except CheckpointError as problem:
            reason = f"{problem.what} ({Path(str(problem.value)).name})"
            raise CheckpointError(
                f"the files that the hub sent are refused: {reason}", value=repository, fix=problem.fix
            ) from problem
        if not target.exists():
            settle(arriving, target)
        elif (target / CARD).read_bytes() != (arriving / CARD).read_bytes():
            raise OutputError(
                "there is another checkpoint of that name", value=target, fix="Move it, or choose another root=DIR."
            )
        else:
            # File by file over a copy of the same checkpoint, the card last.
            for file in sorted(arriving.iterdir(), key=lambda path: path.name == CARD):
                settle(file, target / file.name)
    except RarezooError:
        raise
    except OSError as problem:
        raise unwritable(target, problem) from problem
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return target


def with_front_matter(text: str, card: Mapping[str, Any]) -> str:
    """Add the YAML head that the hub reads to a model card, unless it has one."""
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


@contextmanager
def _hub(repository: str, *, endpoint: str | None, token: str | None, by_hand: str) -> Iterator[Any]:
    """Yield the hub's client, and turn its exceptions into one message."""
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
        return CheckpointError("the hub does not allow this name", value=repository, fix="Write it as user/name.")
    if isinstance(cause, OfflineModeIsEnabled):
        return CheckpointError("the hub is switched off here", value=repository, fix="Unset HF_HUB_OFFLINE.")
    if isinstance(cause, OSError) and cause.errno is not None and cause.filename is not None:
        return unwritable(Path(str(cause.filename)), cause)
    fixes = {401: _LOG_IN, 403: _LOG_IN, 404: f"Check the name and the revision. {_LOG_IN}"}
    fix = fixes.get(status or 0, f"Try again, or run this where there is a network: {by_hand}")
    return CheckpointError(f"the hub refused or cannot be reached ({reason})", value=repository, fix=fix)
