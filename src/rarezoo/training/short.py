"""A training on mock galaxies that two cores finish in minutes, for the demo and the benchmark."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarezoo.data.survey import Survey
from rarezoo.errors import CheckpointNotFound
from rarezoo.track import Tracker
from rarezoo.training.fit import TrainRun
from rarezoo.training.module import TrainSettings
from rarezoo.training.objective import Objective
from rarezoo.training.objectives.hybrid import Hybrid
from rarezoo.training.objectives.votes import Votes
from rarezoo.zoo.cards import find_checkpoint, read_card
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0

log = logging.getLogger(__name__)

# Trained on votes and views of another mock sky (seed 1, 8,000 galaxies, 8 epochs), from the weights of
# efficientnet_b0.gz2.
MOCK_CHECKPOINT = "efficientnet_b0.mock"
# The network sees small cutouts.
_INPUT_SIZE = 64
_BATCH = 128
_LEARNING_RATE = 7e-4
_WARMUP, _DROP_PATH = 0.3, 0.05
_CLIP = 5.0
_SHAPE = ("pool", "stages", "activation", "head_width")
# A small jitter, because colour distinguishes classes.
_JITTER = 0.1


def start_folder(name: str) -> str:
    """Return the folder of the checkpoint that a training starts from, or ``none``.

    Raises
    ------
    CheckpointNotFound
        A checkpoint was named that cannot be found. If the default one cannot be found, a warning says so.
    """
    if name == "none":
        return name
    try:
        return str(find_checkpoint(name).resolve())
    except CheckpointNotFound:
        if name != MOCK_CHECKPOINT:
            raise
    log.warning("The checkpoint %s, which knows mock galaxies, cannot be found.", name)
    return "none"


def short_training(
    survey: Survey,
    folder: Path,
    *,
    epochs: int,
    seed: int,
    shuffle_votes: bool = False,
    start: str = "",
    objective: Objective | None = None,
) -> TrainRun:
    """Return a training that two cores can do in minutes.

    Parameters
    ----------
    survey
        What it is trained on.
    folder
        Checkpoint folder to write.
    epochs
        Passes over the training split.
    seed
        Seed of order, views and first weights.
    shuffle_votes
        Give every galaxy another galaxy's votes, so that there is nothing to learn. Such a network starts from random
        weights and learns from the votes alone: the mock checkpoint has learnt real votes, and the likeness of two
        views is learnt from the images. With either, it would not be a null network.
    start
        Checkpoint to start from, or ``none``. Empty: the checkpoint that knows mock galaxies.
    objective
        What is learnt. None: the votes, and that two views of a galaxy are alike.
    """
    start = "none" if shuffle_votes else start or start_folder(MOCK_CHECKPOINT)
    train = TrainSettings(
        epochs=epochs,
        batch_size=_BATCH,
        learning_rate=_LEARNING_RATE,
        warmup_epochs=_WARMUP,
        clip=_CLIP,
        shuffle_votes=shuffle_votes,
    )
    card: Mapping[str, Any] = {} if start == "none" else read_card(Path(start))["encoder"]
    # What decides which weights there are is that of the checkpoint; cards of older ones lack some of it.
    shape = {"pool": "stages" if start == "none" else "last", **{name: card[name] for name in _SHAPE if name in card}}
    model = EfficientNetB0(input_size=_INPUT_SIZE, start=start, drop_path=_DROP_PATH, **shape)
    tag = "shuffled" if shuffle_votes else "demo"
    learnt = Votes() if shuffle_votes else objective or Hybrid(jitter=_JITTER)
    return TrainRun(
        data=survey, model=model, objective=learnt, train=train, logger=Tracker(mode="none"), out=str(folder), tag=tag,
        seed=seed,
    )  # fmt: skip
