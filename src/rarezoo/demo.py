"""``rarezoo demo``: the whole way once on a mock survey, and how much of what was planted came back."""

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rarezoo import tables
from rarezoo.data.surveys.mock import Mock, write_mock_sheet
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.searches import recovery
from rarezoo.searches.cluster import ISOLATED
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.compressors.fast_umap import FastUmap
from rarezoo.searches.run import SearchRun
from rarezoo.settings import setting
from rarezoo.track import Tracker
from rarezoo.training.fit import TrainRun, TrainSettings
from rarezoo.training.objectives.hybrid import Hybrid
from rarezoo.training.objectives.votes import Votes
from rarezoo.zoo.cards import is_checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0

log = logging.getLogger(__name__)
T = TypeVar("T")

# What two cores can do in minutes: small cutouts seen by the network, few epochs.
_GALAXIES = 6000
_INPUT_SIZE = 64
_EPOCHS = 2
_BATCH = 128
_LEARNING_RATE = 7e-4
_WARMUP, _DROP_PATH = 0.3, 0.05
_CLIP = 5.0
# Two epochs on the votes leave most variance in the few directions of the questions.
_WHITEN = 32
# Little, because colour tells classes apart.
_JITTER = 0.1
# Trained on votes and views of another mock sky (seed 1, 8,000 galaxies, 8 epochs), from efficientnet_b0.gz2's weights.
_START = Path(__file__).parents[2] / "checkpoints" / "efficientnet_b0.mock"


@dataclass(kw_only=True)
class DemoRun:
    """Mock survey → checkpoint → embedding store → classes, all under one folder; resumable."""

    out: str = setting("runs/demo", "output folder")
    galaxies: int = setting(_GALAXIES, "size of the mock survey", unit="galaxies")
    epochs: int = setting(_EPOCHS, "passes over the training split")
    seed: int = setting(0, "seed of the mock sky, the training and the search")

    def run(self) -> dict[str, Any]:
        """Run every stage and say what came of it: seconds per stage, planted populations found, the page."""
        folder, seconds = Path(self.out), dict[str, float]()
        survey = Mock(n=self.galaxies, seed=self.seed, cache=str(folder / "survey"))
        sky = _timed("survey", seconds, survey.open)
        training = demo_training(survey, folder / "efficientnet_b0.demo", epochs=self.epochs, seed=self.seed)
        checkpoint = _timed("train", seconds, training.run)
        embedding = EmbedRun(data=survey, checkpoint=str(checkpoint.folder), out=str(folder / "embeddings"))
        store = _timed("embed", seconds, embedding.run)
        tables.write(sky.truth, folder / "truth.parquet", tables.TRUTH)
        search = _timed("cluster", seconds, self._search(store.folder, folder).run)
        found = recovery.recovery(search.table("members"), sky.truth)
        return {
            "seconds": {stage: round(spent, 1) for stage, spent in seconds.items()},
            "planted_found": sum(found[recovery.FOUND].to_pylist()),
            "planted": found.num_rows,
            "populations": found.to_pylist(),
            "page": str(search.page),
        }

    def _search(self, store: Path, folder: Path) -> SearchRun:
        return SearchRun(
            store=str(store),
            compress=FastUmap(n_neighbors=15, n_components=5, min_dist=0.0, whiten=_WHITEN),
            drawing=FastUmap(n_neighbors=15, n_components=2),
            clusterer=FastHdbscan(min_samples=15, min_cluster_size=10, selection=ISOLATED),
            out=str(folder),
            seed=self.seed,
        )


def demo_training(survey: Mock, folder: Path, *, epochs: int, seed: int, shuffle_votes: bool = False) -> TrainRun:
    """The training that two cores can do in minutes, from the mock checkpoint's weights if they are at hand.

    With ``shuffle_votes`` every galaxy gets another's votes, so that there is nothing to learn. Such a network starts
    from random weights and is shown the votes alone: the mock checkpoint has learnt real votes, and likeness of two
    views is learnt from the images; either would make it no null.
    """
    start = str(_START) if is_checkpoint(_START) and not shuffle_votes else "none"
    log.info("training starts from %s", "random weights" if start == "none" else start)
    train = TrainSettings(
        epochs=epochs,
        batch_size=_BATCH,
        learning_rate=_LEARNING_RATE,
        warmup_epochs=_WARMUP,
        clip=_CLIP,
        shuffle_votes=shuffle_votes,
    )
    model = EfficientNetB0(input_size=_INPUT_SIZE, start=start, drop_path=_DROP_PATH)
    tag = "shuffled" if shuffle_votes else "demo"
    return TrainRun(
        data=survey, model=model, objective=Votes() if shuffle_votes else Hybrid(jitter=_JITTER), train=train,
        logger=Tracker(mode="none"), out=str(folder), tag=tag, seed=seed,
    )  # fmt: skip


def _timed(stage: str, seconds: dict[str, float], run: Callable[[], T]) -> T:
    log.info("── %s", stage)
    started = time.perf_counter()
    result = run()
    seconds[stage] = time.perf_counter() - started
    return result


def add_demo_verbs(verbs: Any) -> None:
    """``rarezoo demo`` for the command line."""
    parser = verbs.add_parser("demo", help="a mock survey, from votes to a page of classes")
    parser.add_argument("--out", default="runs/demo", help="output folder")
    parser.add_argument("--galaxies", type=int, default=_GALAXIES, help="size of the mock survey")
    parser.add_argument("--epochs", type=int, default=_EPOCHS, help="passes over the training split")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything")
    parser.set_defaults(run=_demo)
    parser = verbs.add_parser("mock-sheet", help="a picture of the mock sky, a row per population")
    parser.add_argument("file", help="image to write, e.g. sheet.webp")
    parser.add_argument("--seed", type=int, default=0, help="which sky")
    parser.set_defaults(run=lambda options: print(write_mock_sheet(options.file, seed=options.seed)))


def _demo(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("rarezoo").setLevel(logging.INFO)
    run = DemoRun(out=options.out, galaxies=options.galaxies, epochs=options.epochs, seed=options.seed)
    print(json.dumps(run.run()))
