"""A training on mock galaxies that two cores finish in minutes, for the demo and the benchmark."""

import logging
from collections.abc import Mapping
from dataclasses import replace
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

# Trained on the votes of another mock sky: conf/experiment/release_efficientnet_b0_mock.yaml.
MOCK_CHECKPOINT = "efficientnet_b0.mock"
# What decides which weights there are, and what the features of a frozen trunk depend on.
_SHAPE = ("pool", "stages", "activation", "head_width", "input_size", "zoom")
# A frozen trunk computes its features once, so that many passes over them are cheap.
_FROZEN = TrainSettings(
    freeze_trunk=True, view="turns", turns=2, layer_decay=0.3, batch_size=128, learning_rate=1e-3, warmup_epochs=0.3
)
# A training of all weights sees small cutouts.
_WHOLE = TrainSettings(batch_size=128, learning_rate=7e-4, warmup_epochs=0.3, clip=5.0)
_INPUT_SIZE, _DROP_PATH = 64, 0.05
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

    If the start is a network that is fed from several stages, its trunk stays as it is, and bottleneck and head learn
    the votes. All weights of other networks learn.

    Parameters
    ----------
    survey
        What it is trained on.
    folder
        Checkpoint folder to write.
    epochs
        Passes over the training split.
    seed
        Seed of order, views and initial weights.
    shuffle_votes
        Give every galaxy another galaxy's votes, so that there is nothing to learn. Such a network starts from random
        weights and learns from the votes alone: the mock checkpoint has learnt real votes, and the likeness of two
        views is learnt from the images. With either, it would not be a null network.
    start
        Checkpoint to start from, or ``none``. Empty: the checkpoint that knows mock galaxies.
    objective
        What is learnt if all weights learn. None: the votes, and that two views of a galaxy are alike.
    """
    start = "none" if shuffle_votes else start or start_folder(MOCK_CHECKPOINT)
    card: Mapping[str, Any] = {} if start == "none" else read_card(Path(start))["encoder"]
    frozen = card.get("pool") == "stages"
    # Cards of older checkpoints lack the pool, which was the last stage.
    shape = {"pool": "stages" if start == "none" else "last", **{name: card[name] for name in _SHAPE if name in card}}
    if not frozen:
        shape["input_size"] = _INPUT_SIZE
        shape.pop("zoom", None)
    train = replace(_FROZEN if frozen else _WHOLE, epochs=epochs, shuffle_votes=shuffle_votes)
    model = EfficientNetB0(start=start, drop_path=0.0 if frozen else _DROP_PATH, **shape)
    learnt = Votes() if shuffle_votes or frozen else objective or Hybrid(jitter=_JITTER)
    return TrainRun(
        data=survey, model=model, objective=learnt, train=train, logger=Tracker(mode="none"), out=str(folder),
        tag="shuffled" if shuffle_votes else "demo", seed=seed,
    )  # fmt: skip
