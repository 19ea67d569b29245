"""What the pipeline tests share: the commands as a user types them, and one small world that is made once per run.

``cli`` runs a command in this process, because a process of its own spends most of its time on importing torch. Tests
of what only a process has (signals, the exit of an interpreter, threads, limits) start one with ``start_process``.

``tiny_survey``, ``tiny_checkpoint``, ``tiny_store``, ``tiny_search`` and ``two_networks`` are made once per test run,
also if several pytest workers share it. Tests read them and never change them: what a test writes goes to a folder of
its own.
"""

import contextlib
import io
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from filelock import FileLock

if TYPE_CHECKING:
    from rarezoo.data.surveys.mock import Mock

ROOT = Path(__file__).parents[2]
SCRIPTS = {"train.py": "train", "embed.py": "embed", "cluster.py": "cluster"}
NETWORK = ["model.input_size=32", "model.bottleneck=16"]
TRAINING = ["train.epochs=2", "train.batch_size=32", "train.workers=0"]
SEARCH = [
    "compress.n_neighbors=10", "clusterer.min_samples=5", "clusterer.min_cluster_size=5", "significance.surveys=5",
]  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """What a command wrote to standard output and standard error, and its exit status."""

    out: str
    err: str
    status: int = 0

    @property
    def text(self) -> str:
        """Standard output and standard error, one after the other."""
        return self.out + self.err

    @property
    def message(self) -> str:
        """The one message with which rarezoo refuses something."""
        messages = [line for line in self.err.splitlines() if line.startswith("rarezoo: ")]
        assert len(messages) == 1, self.err
        return messages[0]


def run_command(*words: object, cwd: Path | str, expect: int = 0) -> Finished:
    """Run a command in this process, as if it were typed in a folder.

    Parameters
    ----------
    words
        ``"train.py"``, ``"embed.py"`` or ``"cluster.py"`` and its arguments, or ``"rarezoo"`` and its arguments.
    cwd
        Folder in which it is typed.
    expect
        Exit status that it must have. With 2, a user's mistake, it must not show a traceback.
    """
    from rarezoo.cli import main

    name, *arguments = map(str, words)
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with _state_put_back(), contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = [str(ROOT / name) if name in SCRIPTS else name, *arguments]
        try:
            main(SCRIPTS[name]) if name in SCRIPTS else main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finished = Finished(out.getvalue(), err.getvalue(), status)
    assert status == expect, f"{words} ended with {status}\n{finished.out}\n{finished.err}"
    assert expect != 2 or "Traceback" not in finished.err, finished.err
    return finished


@contextlib.contextmanager
def _state_put_back():
    """Put back what a command may change of its process: arguments, environment, random states and log handlers."""
    argv, environment, threads = sys.argv, dict(os.environ), torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    loggers = [logging.getLogger(name) for name in (None, "rarezoo", "hydra", "pytorch_lightning", "wandb")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads(threads)
        for logger, handlers, level, propagate in before:
            for handler in set(logger.handlers) - set(handlers):
                handler.close()
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate


def start_command(*words: object, cwd: Path | str, **settings: object) -> subprocess.Popen:
    """Start a command in a process of its own; words as for :func:`run_command`, or Python's own (``-c``, a file)."""
    name, *arguments = map(str, words)
    if name == "rarezoo":
        command = [sys.executable, "-c", "from rarezoo.cli import main; main()", *arguments]
    else:
        command = [sys.executable, str(ROOT / name) if name in SCRIPTS else name, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **settings.pop("env", {})}
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **settings
    )


def end_process(process: subprocess.Popen, *, expect: int = 0) -> Finished:
    """Wait for a process and check its exit status."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == expect, f"{process.args} ended with {process.returncode}\n{out}\n{err}"
    assert expect != 2 or "Traceback" not in err, err
    return Finished(out, err, process.returncode)


@pytest.fixture(scope="session")
def cli() -> Callable[..., Finished]:
    """Give :func:`run_command`."""
    return run_command


@pytest.fixture(scope="session")
def start_process() -> Callable[..., subprocess.Popen]:
    """Give :func:`start_command`."""
    return start_command


@pytest.fixture(scope="session")
def ended() -> Callable[..., Finished]:
    """Give :func:`end_process`."""
    return end_process


@pytest.fixture(scope="session")
def tiny_settings() -> SimpleNamespace:
    """Give the settings of the tiny network, its training and its search, as words of a command line."""
    return SimpleNamespace(network=NETWORK, training=TRAINING, search=SEARCH)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Give a function that makes a folder of some name once per test run, whichever pytest worker needs it first."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / "tiny" / name, base / "tiny" / f"{name}.done"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(base / "tiny" / f"{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return made


@dataclass(frozen=True)
class TinySurvey:
    """260 mock galaxies of 48 pixels.

    Attributes
    ----------
    cache
        Folder in which it is drawn already.
    galaxies
        How many.
    """

    cache: Path
    galaxies: int = 260

    @property
    def words(self) -> list[str]:
        """The survey on a command line."""
        settings = [f"data.n={self.galaxies}", "data.side=48", "data.seed=3", "data.workers=1"]
        return ["data=mock", *settings, f"data.cache={self.cache}"]

    def mock(self) -> "Mock":
        """The survey in Python."""
        from rarezoo.data.surveys.mock import Mock

        return Mock(n=self.galaxies, side=48, seed=3, workers=1, cache=str(self.cache))


@pytest.fixture(scope="session")
def tiny_survey(made_once) -> TinySurvey:
    """A small mock survey, drawn."""
    return TinySurvey(made_once("sky", lambda folder: TinySurvey(folder).mock().open()))


@pytest.fixture(scope="session")
def tiny_checkpoint(made_once, tiny_survey) -> Path:
    """A network of 16 dimensions, trained on the tiny survey for two epochs by ``train.py`` with seed 1."""

    def train(folder: Path) -> None:
        words = [*tiny_survey.words, *NETWORK, *TRAINING, f"out={folder}", "seed=1"]
        run_command("train.py", *words, cwd=folder.parent)

    return made_once("checkpoint", train)


@pytest.fixture(scope="session")
def tiny_store(made_once, tiny_survey, tiny_checkpoint) -> Path:
    """The tiny survey under the tiny checkpoint, in shards of 100 galaxies."""

    def embed(folder: Path) -> None:
        words = [*tiny_survey.words, f"checkpoint={tiny_checkpoint}", "shard_rows=100", "workers=0", f"out={folder}"]
        run_command("embed.py", *words, cwd=folder.parent)

    return made_once("store", embed)


@pytest.fixture(scope="session")
def tiny_search(made_once, tiny_store) -> Path:
    """The default search of the tiny store with five null surveys, its report and its offline W&B run; seed 1."""

    def search(folder: Path) -> None:
        run_command("cluster.py", f"store={tiny_store}", *SEARCH, f"out={folder}", "seed=1", cwd=folder.parent)

    return made_once("search", search)


@pytest.fixture(scope="session")
def two_networks(made_once, tiny_survey) -> Path:
    """A folder with the networks ``net-a`` and ``net-b`` and the stores ``a`` and ``b`` of the tiny survey under them.

    The networks have learnt nothing. They still see colours and sizes, so that a search finds classes.
    """

    def make(folder: Path) -> None:
        from rarezoo.data.trees import named_tree
        from rarezoo.embeddings.embed import EmbedRun
        from rarezoo.zoo.checkpoint import Checkpoint
        from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
        from rarezoo.zoo.network import build_network

        for seed, name in enumerate("ab"):
            encoder, tree = EfficientNetB0(input_size=32, bottleneck=16), named_tree("desi")
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                network = build_network(encoder, tree)
            net = folder / f"net-{name}"
            Checkpoint.save(net, network=network, encoder=encoder, tree=tree, card={})
            EmbedRun(
                data=tiny_survey.mock(), checkpoint=str(net), out=str(folder / name), workers=0, shard_rows=100
            ).run()

    return made_once("two_networks", make)
