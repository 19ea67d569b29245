"""Finetune a network on labels of one's own: the training of :func:`rarezoo.train`, with settings for few labels."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rarezoo.data.own_labels import AUTO, OwnLabels
from rarezoo.data.survey import Survey
from rarezoo.errors import ConfigError
from rarezoo.settings import choice, refuse_unknown
from rarezoo.track import Tracker
from rarezoo.training.fit import TrainRun
from rarezoo.training.module import TrainSettings
from rarezoo.training.objectives.labels import Labels
from rarezoo.zoo.cards import find_checkpoint, read_card
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import NATIVE, Encoder, checkpoint_folder, encoder_of_start

_COMMON: dict[str, Any] = {
    "batch_size": 32,
    "warmup_epochs": 2.0,
    "weight_decay": 0.05,
    "patience": 15,
    "head_start": "fitted",
}
# What is trained, and how; conf/experiment/finetune_*.yaml are the same for the command line.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "frozen": {
        **_COMMON, "freeze_trunk": True, "view": "turns", "turns": 8, "layer_decay": 0.1, "learning_rate": 1e-3,
        "epochs": 60,
    },
    "last": {
        **_COMMON, "freeze_stages": -2, "view": "turns", "layer_decay": 0.5, "learning_rate": 1e-3, "epochs": 40,
    },
    "all": {**_COMMON, "view": "turns", "layer_decay": 0.6, "learning_rate": 1e-3, "epochs": 40},
}  # fmt: skip
_SCRATCH = ("none", "scratch")
_PUBLISHED = ("imagenet", "zoobot")


def finetune(
    checkpoint: str | Path | Checkpoint | Encoder,
    survey: Survey,
    labels: OwnLabels | Mapping[str, Any] | Any,
    *,
    out: str | Path,
    label: str = "",
    kind: str = AUTO,
    trained: str = "last",
    tag: str = "finetuned",
    seed: int = 0,
    logger: Tracker | None = None,
    objective: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Checkpoint:
    """Finetune a network on labels of one's own and return its checkpoint.

    The result embeds, clusters and exports like any other checkpoint, and an embedding store that is made with it holds
    its predictions for the labels. Killed at any moment, the same call continues.

    Parameters
    ----------
    checkpoint
        Where the weights start: a checkpoint, its name or folder; ``imagenet`` or ``zoobot`` (published weights of
        EfficientNetB0); ``scratch``; a file or folder of weights; or an :class:`~rarezoo.zoo.encoder.Encoder`
        whose ``start`` and other settings say the same for any architecture.
    survey
        Galaxies with images. Only those with a label are used.
    labels
        A mapping from ids to labels, a table, a file, a folder with one sub-folder of images per class, or
        :class:`~rarezoo.data.own_labels.OwnLabels`.
    out
        Checkpoint folder to write. If it holds the same training, that is continued or returned.
    label
        Column of the label, or several; for a mapping its name.
    kind
        ``binary``, ``classes``, ``tags``, ``number`` or ``counts``; by default decided by the values.
    trained
        ``frozen`` (bottleneck and head, on features that are computed once), ``last`` (also the last two groups of
        layers) or ``all``. Each comes with settings for few labels, see ``RECIPES``.
    tag
        Second half of the checkpoint's name on its card.
    seed
        Seed of everything that is random.
    logger
        Where the curves are logged besides ``metrics.csv`` in the folder; by default nowhere.
    objective
        Further settings of :class:`~rarezoo.training.objectives.labels.Labels`, such as ``balance`` and ``smoothing``.
    settings
        Settings of :class:`~rarezoo.training.module.TrainSettings`, such as ``epochs``, ``mixup`` and ``layer_decay``,
        which replace those that come with ``trained``.

    Raises
    ------
    ConfigError
        There is no such setting, or the model settings are not those of the checkpoint.
    CheckpointError
        The initial weights cannot be found or used.
    DataError
        The labels cannot be used, or belong to no galaxy of the survey.

    Examples
    --------
    >>> import rarezoo as rz
    >>> survey = rz.Mock(n=500)
    >>> labels = {"mock-0000001": 1, "mock-0000002": 0}
    >>> checkpoint = rz.finetune("efficientnet_b0.mock", survey, labels, out="checkpoints/rings")  # doctest: +SKIP
    """
    if trained not in RECIPES:
        raise ConfigError("unknown part to train", value=f"trained={trained}", fix=f"Choose {', '.join(RECIPES)}.")
    encoder = _start(checkpoint)
    known = [field.name for field in fields(TrainSettings)]
    refuse_unknown(settings, known, of="a finetuning", parts={"survey": survey})
    options = {"label": label, "kind": kind, **(objective or {})}
    read = OwnLabels.read(labels, label=label, kind=kind, id_column=options.get("id_column", ""))
    chosen = {**RECIPES[trained], **settings}
    # A bottleneck with random weights cannot follow a frozen trunk from a few labels.
    fresh = checkpoint_folder(encoder.start) is None
    if trained == "frozen" and fresh and encoder.bottleneck != NATIVE:
        chosen = {"bottleneck_start": "invariant", **chosen}
    return TrainRun(
        data=survey,
        model=encoder,
        objective=Labels.of(read, **options),
        train=TrainSettings(**chosen),
        logger=logger if logger is not None else Tracker(mode="none"),
        out=str(out),
        tag=tag,
        seed=seed,
    ).run()


def _start(checkpoint: str | Path | Checkpoint | Encoder) -> Encoder:
    """Return the encoder of a start."""
    if isinstance(checkpoint, Encoder):
        return checkpoint
    if isinstance(checkpoint, Checkpoint):
        checkpoint = checkpoint.folder
    kind = choice("model", "efficientnet_b0")
    if str(checkpoint) in (*_SCRATCH, *_PUBLISHED):
        return kind(start="none" if str(checkpoint) in _SCRATCH else str(checkpoint))
    if Path(checkpoint).is_file() or (Path(checkpoint).is_dir() and not (Path(checkpoint) / "card.json").is_file()):
        return kind(start=str(checkpoint))
    folder = find_checkpoint(checkpoint)
    kind = choice("model", read_card(folder)["encoder"]["architecture"])
    return encoder_of_start(kind(start=str(folder)), given=())
