"""Where libraries keep their caches if the user's home cannot be written, as in containers and on compute nodes.

numba, matplotlib, Weights & Biases and others write below the home folder; some of them do not start without it.
"""

import logging
import os
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)
# Variables by which libraries find their folders, with the place of each below ours.
_VARIABLES = {
    "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data", "MPLCONFIGDIR": "matplotlib",
    "WANDB_CACHE_DIR": "wandb/cache", "WANDB_CONFIG_DIR": "wandb/config", "WANDB_DATA_DIR": "wandb/data",
    "TRITON_CACHE_DIR": "triton",
}  # fmt: skip
# Folders of downloaded weights, below the cache folder: they can be read where they cannot be written.
_READABLE = {"HF_HOME": "huggingface", "TORCH_HOME": "torch"}


def use_temporary_caches() -> Path | None:
    """Point libraries to a temporary folder if the home folder cannot be written, and say so; return that folder.

    Variables that are set already are kept if their folder can be written.
    """
    home = _home()
    cache, config = (
        Path(os.environ.get(variable) or home / default)
        for variable, default in (("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config"))
    )
    if _can_be_written(cache) and _can_be_written(config):
        return None
    folder = _own_folder()
    for variable, name in _READABLE.items():
        if variable not in os.environ and (cache / name).is_dir():
            os.environ[variable] = str(cache / name)
    for variable, name in _VARIABLES.items():
        if variable not in os.environ or not _can_be_written(Path(os.environ[variable])):
            (folder / name).mkdir(parents=True, exist_ok=True)
            os.environ[variable] = str(folder / name)
    if not home.is_dir():
        os.environ["HOME"] = str(folder)
    log.warning("The home folder %s cannot be written: caches are kept in %s.", home, folder)
    return folder


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry of this user
        return Path("/nonexistent")


def _can_be_written(folder: Path) -> bool:
    """Return whether the folder can be written, or made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _own_folder() -> Path:
    """Return a temporary folder that belongs to this user alone; the same one each time, if that is possible."""
    folder = Path(tempfile.gettempdir()) / f"rarezoo-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        ours = not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not folder.is_symlink())
    except OSError:
        ours = False
    # Somebody else may have made a folder of that name.
    return folder if ours else Path(tempfile.mkdtemp(prefix="rarezoo-"))
