"""Train one network: a survey and its votes in, a checkpoint out. The same run resumes where it was stopped."""

import logging
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import timm
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger

from rarezoo.data.loaders import no_readable_image
from rarezoo.data.splits import TEST, TRAIN, VALIDATION
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.errors import CheckpointError, ConfigError, DataError
from rarezoo.runs import claim, digest, fingerprint
from rarezoo.settings import Settings, choice, described, refuse_unknown, setting
from rarezoo.track import Tracker
from rarezoo.training.batches import Batches
from rarezoo.training.frozen import FrozenFeatures, frozen_features, start_bottleneck, start_head
from rarezoo.training.module import VALIDATION_LOSS, Learner, TrainSettings
from rarezoo.training.objective import LOSS, Objective, targets_of
from rarezoo.training.objectives.votes import Votes
from rarezoo.training.progress import Curves, EpochBar, States
from rarezoo.zoo.cards import is_checkpoint
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import Encoder, encoder_of_start
from rarezoo.zoo.network import BottleneckNetwork, Prediction, Standardise, build_network

log = logging.getLogger(__name__)
_SCRATCH = ".training"
# Pixels of the input, per side, for one pixel of the last features of a trunk.
_DEEPEST_STRIDE = 32
# Settings that do not change the result of a training.
_FREE = ("workers", "save_every", "accelerator", "cache")
# Galaxies of the training split from which the scale of the features is taken.
_STANDARDISED = 1024
# Orientations of each galaxy from which a head is fitted before training.
_HEAD_TURNS = 2


@dataclass(kw_only=True)
class TrainRun(Settings):
    """Train one network on one survey.

    The result is a checkpoint folder. A run that was killed at any moment resumes with the same call and ends with the
    same weights; a run that is complete returns at once.

    Attributes
    ----------
    data
        The survey.
    model
        The architecture.
    objective
        What the network learns.
    train
        How it is trained.
    logger
        Where the curves are logged besides ``metrics.csv`` in the folder.
    out
        Checkpoint folder to write.
    tag
        Second half of the checkpoint's name.
    seed
        Seed of everything that is random.

    Examples
    --------
    >>> from rarezoo.data.surveys.mock import Mock
    >>> from rarezoo.training.objectives.hybrid import Hybrid
    >>> from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
    >>> model = EfficientNetB0(input_size=64)
    >>> run = TrainRun(data=Mock(n=500), model=model, objective=Hybrid(), out="checkpoints/mine")
    >>> checkpoint = run.run()  # doctest: +SKIP
    """

    # Settings that were named on the command line, such as model.input_size; None for a run that was made in Python.
    given: ClassVar[frozenset[str] | None] = None

    data: Survey
    model: Encoder
    objective: Objective = setting(Votes(), "what the network learns")
    train: TrainSettings = setting(TrainSettings(), "how the network is trained")
    logger: Tracker = setting(Tracker(), "where metrics are logged")
    out: str = setting(help="checkpoint folder to write")
    tag: str = setting("local", "second half of the checkpoint's name, <architecture>.<tag>")
    seed: int = setting(0, "seed of initial weights, order, views and dropout", ge=0)

    def check(self) -> None:
        """Refuse an objective that cannot be learnt with a frozen trunk, and initial weights without a bottleneck."""
        if self.train.bottleneck_start == "invariant" and self.model.bottleneck_width is None:
            raise ConfigError(
                "there is no bottleneck to start", value="model.bottleneck=native",
                fix="Set model.bottleneck=128, or train.bottleneck_start=random.",
            )  # fmt: skip
        if self.train.freeze_trunk and self.objective.shapes_trunk:
            name = self.objective.card_entries()["objective"]
            raise ConfigError(
                "this objective cannot be learnt with a frozen trunk", value=f"objective={name}",
                fix="Set train.freeze_trunk=false or objective=votes.",
            )  # fmt: skip

        if self.train.mixup and self.objective.views > 1:
            name = self.objective.card_entries()["objective"]
            raise ConfigError(
                "an objective that compares views cannot be learnt from mixed galaxies",
                value=f"train.mixup={self.train.mixup} objective={name}", fix="Set train.mixup=0.",
            )  # fmt: skip

    def check_multirun(self) -> None:
        """Refuse several processes in a job of a multirun.

        Lightning starts the further processes of a training with the words of the command line, which are those of the
        whole multirun. Processes that SLURM or torchrun started are no problem.

        Raises
        ------
        ConfigError
            The training would start processes.
        """
        started = SLURMEnvironment.detect() or TorchElasticEnvironment.detect()
        if self.train.devices != 1 and not started:
            raise ConfigError(
                "a job of a multirun cannot start processes", value=f"train.devices={self.train.devices}",
                fix="Give each job one GPU (train.devices=1), use machine=slurm, or train one network at a time.",
            )  # fmt: skip

    def run(self) -> Checkpoint:
        """Train the network and return its checkpoint.

        Returns
        -------
        Checkpoint
            The checkpoint in ``out``. If several processes train together, only the first one writes it; in the others
            its card is empty.

        Raises
        ------
        ConfigError
            Settings do not fit the survey or this machine.
        DataError
            The survey cannot be used, has no votes, or the loss is not finite.
        CheckpointError
            The initial weights cannot be used.
        OutputError
            The folder cannot be written or holds another run.
        KeyboardInterrupt
            After Ctrl-C; the state is kept, so that the same run resumes.
        """
        if self.objective.adopts_start:
            words = self.given
            given = (
                None if words is None else {word.removeprefix("model.") for word in words if word.startswith("model.")}
            )
            self.model = encoder_of_start(self.model, given=given)
        scratch, opened = Path(self.out) / _SCRATCH, self.objective.select(self.data.open())
        states = States(scratch, every=self.train.save_every)
        folder = claim(
            self.out, verb="train", settings=self._settings(), places=self._places(),
            inputs=lambda: self._inputs(opened),
            begun=lambda folder: is_checkpoint(folder) or states.last.exists(),
        )  # fmt: skip
        if is_checkpoint(folder):
            log.info("already trained: %s", folder)
            return _trained(folder)
        started = time.perf_counter()
        galaxies = self.objective.prepare(self.data.grouped(opened, cache=scratch))
        tree = galaxies.tree
        if tree is None:
            raise TypeError(f"{type(self.objective).__name__}.prepare returned galaxies without a question tree")
        if self.train.shuffle_votes:
            galaxies = replace(galaxies, votes=np.random.default_rng(self.seed).permutation(targets_of(galaxies)))
        self.objective.warn(galaxies)
        rows = self._rows(galaxies)
        self._refuse_single_galaxies(len(rows[TRAIN]))
        logger = self.logger.training_logger(folder, name=folder.name)
        trainer = self._trainer(folder, logger, states)
        pl.seed_everything(self.seed, verbose=False)
        network = build_network(self.model, tree)
        if isinstance(network.standardise, Standardise):
            network.standardise.follows = not self.train.freeze_trunk
        features = self._start(network, galaxies, rows, cache=Path(self.train.cache or scratch))
        batches = Batches(
            galaxies, rows, encoder=self.model, settings=self.train, seed=self.seed, features=features,
            on_bad_image=self.data.on_bad_image,
            weights_of=lambda chosen: self.objective.sampling_weights(galaxies, chosen),
        )  # fmt: skip
        learner = Learner(
            network if features is None else network.without_trunk(),
            objective=self.objective, tree=tree, settings=self.train,
            encoder=self.model, seed=self.seed, id_of=lambda row: str(galaxies.ids[row]), processes=trainer.world_size,
        )  # fmt: skip
        _fit(trainer, learner, batches, states)
        trained = learner.result.cpu().eval()
        if trainer.is_global_zero:
            trained.load_state_dict(torch.load(states.best, map_location="cpu", weights_only=True))
        if features is None:
            network = trained
        else:
            network.standardise, network.bottleneck = trained.standardise, trained.bottleneck
            network.head = trained.head
            network = network.cpu().eval()
        if not trainer.is_global_zero:
            return Checkpoint(folder.name, folder, network, self.model, tree, card={})
        test = batches.image_loader(TEST) if self.train.turns else batches.loader(TEST)
        measured = self.objective.measure(network, galaxies, rows=rows, test=test, cache=scratch)
        card = {
            "tag": self.tag,
            "data": {
                "survey": self.data.settings()["option"],
                "galaxies": len(galaxies),
                **{f"{split} galaxies": len(part) for split, part in rows.items()},
                "splits": "by sha256 of the id; near-identical images share one",
                "skipped unreadable images": len(batches.skipped),
                "sha256": galaxies.sha256,
            },
            "training": {
                **self.objective.card_entries(), **self._settings()["train"], "seed": self.seed,
                "epochs done": trainer.current_epoch, "start": self.model.settings()["start"],
            },
            "compute": {
                "device": _device(trainer),
                "minutes of the last start": round((time.perf_counter() - started) / 60, 1),
                "torch": torch.__version__, "timm": timm.__version__,
            },
            **measured,
        }  # fmt: skip
        checkpoint = Checkpoint.save(
            folder, network=network, encoder=self.model, tree=tree, card=card, dtype=self.train.dtype
        )
        shutil.rmtree(scratch, ignore_errors=True)
        log.info("checkpoint: %s", folder)
        if logger is not None:
            logger.conclude(folder, checkpoint.card)
        return checkpoint

    def _inputs(self, opened: Galaxies) -> dict[str, Any]:
        """Return what the run is made from.

        An objective may take its targets from elsewhere, such as a file of labels: they count where they are not the
        survey's votes.
        """
        inputs = {"survey": opened.identity(), "initial weights": self.model.start_sha256()}
        prepared = self.objective.prepare(opened)
        if prepared.votes is not opened.votes or prepared.tree is not opened.tree:
            inputs["targets of the objective"] = {
                "answers": None if prepared.tree is None else digest(prepared.tree.to_dict()),
                "values": fingerprint(targets_of(prepared), ids=prepared.ids),
            }
        return inputs

    def _rows(self, galaxies: Galaxies) -> dict[str, np.ndarray]:
        """Return the rows of each split that are used.

        Raises
        ------
        DataError
            No galaxy for training or validation has votes.
        """
        rows = {split: self.objective.rows(galaxies, split) for split in (TRAIN, VALIDATION, TEST)}
        number = targets_of(galaxies).sum(axis=1)
        if self.train.galaxies:
            for split, most in ((TRAIN, self.train.galaxies), (VALIDATION, max(self.train.galaxies // 5, 1))):
                by_votes = rows[split][np.argsort(-number[rows[split]], kind="stable")]
                rows[split] = np.sort(by_votes[:most])
        voted = np.flatnonzero(number > 0)
        for split in (TRAIN, VALIDATION):
            if not len(np.intersect1d(rows[split], voted)):
                raise DataError(
                    f"no galaxy with votes in the {split} split", value=f"{len(voted)} galaxies with votes",
                    fix="Use more galaxies, or set data.validation_share and data.test_share.",
                )  # fmt: skip
        return rows

    def _start(
        self, network: BottleneckNetwork, galaxies: Galaxies, rows: Mapping[str, np.ndarray], *, cache: Path
    ) -> FrozenFeatures | None:
        """Fit what is fitted to galaxies before training; return the features of the frozen trunk if they are kept."""
        features_of = partial(
            frozen_features, network, galaxies, encoder=self.model, on_bad_image=self.data.on_bad_image,
            workers=self.train.workers, cache=cache,
        )  # fmt: skip
        if isinstance(network.standardise, Standardise) and not network.standardise.fitted:
            random = np.random.default_rng(self.seed)
            few = random.choice(rows[TRAIN], min(len(rows[TRAIN]), _STANDARDISED), replace=False)
            network.standardise.cpu().fit(torch.from_numpy(features_of(few, turns=1).values[:, 0]).float())
        if not self.train.turns:
            if self.train.head_start == "fitted":
                self._fit_head(network, galaxies, features_of(rows[TRAIN], turns=_HEAD_TURNS))
            return None
        learnt = np.concatenate([rows[TRAIN], rows[VALIDATION]])
        features = features_of(learnt, turns=self.train.turns)
        needed = {TRAIN: 2 if self.train.bottleneck_start == "invariant" else 1, VALIDATION: 1}
        for split, fewest in needed.items():
            if np.isin(rows[split], features.rows).sum() < fewest:
                raise no_readable_image(split, features.skipped)
        if self.train.bottleneck_start == "invariant":
            training = np.intersect1d(rows[TRAIN], features.rows)
            start_bottleneck(network.cpu(), features.of(training), ridge=self.train.ridge)
        if self.train.head_start == "fitted":
            self._fit_head(network, galaxies, features, rows=np.intersect1d(rows[TRAIN], features.rows))
        return features

    def _fit_head(
        self,
        network: BottleneckNetwork,
        galaxies: Galaxies,
        features: FrozenFeatures,
        *,
        rows: np.ndarray | None = None,
    ) -> None:
        """Fit the last layer of the head to the targets of the training split."""
        assert galaxies.tree is not None
        tree, rows = galaxies.tree, features.rows if rows is None else rows
        values, learnt = features.of(rows), targets_of(galaxies)[rows].astype(np.float32)
        shown = self.objective.sampling_weights(galaxies, rows)
        if shown is not None:
            # As often as training shows a galaxy, so much does it count here.
            learnt *= (shown * len(rows)).astype(np.float32)[:, None]
        targets = torch.from_numpy(np.repeat(learnt, values.shape[1], axis=0))
        embedding = torch.zeros(len(targets), network.width)

        def loss(concentrations: torch.Tensor) -> torch.Tensor:
            watched = self.objective.validation(Prediction(embedding, concentrations), targets, tree=tree)
            return watched[LOSS][0]

        training = network.training
        start_head(network.cpu().eval(), values, loss, strength=self.train.head_strength)
        network.train(training)

    def _settings(self) -> dict[str, Any]:
        """Return the settings that decide the result."""
        train = {name: value for name, value in asdict(self.train).items() if name not in _FREE}
        return {
            "data": self.data.settings(), "model": self.model.settings(), "objective": described(self.objective),
            "train": train, "tag": self.tag, "seed": self.seed,
        }  # fmt: skip

    def _refuse_single_galaxies(self, galaxies: int) -> None:
        """Raise an error if every batch would hold one galaxy, from which batch normalisation cannot learn."""
        views_compared, one_pixel = self.objective.views > 1, self.model.input_size <= _DEEPEST_STRIDE
        if not (views_compared or one_pixel):
            return
        if self.train.batch_size == 1:
            raise ConfigError(
                "this training needs several galaxies in a batch", value="train.batch_size=1",
                fix="Set train.batch_size=2 or more; train.accumulate does not help.",
            )  # fmt: skip
        if galaxies == 1:
            raise DataError(
                "this training needs several galaxies", value="1 galaxy in the train split",
                fix="Use more galaxies, or set data.validation_share and data.test_share.",
            )  # fmt: skip

    def _places(self) -> list[str]:
        """Return the settings that only say where an input lies."""
        weights = ["model.start"] if self.model.starts_from_file else []
        return [*(f"data.{name}" for name in self.data.places()), *self.objective.places(), *weights]

    def _trainer(self, folder: Path, logger: Logger | None, states: States) -> pl.Trainer:
        for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
        for text in (
            "does not have many workers",
            "smaller than the logging interval",
            "Checkpoint directory",
            "isinstance.treespec",
            "LeafSpec",
        ):
            warnings.filterwarnings("ignore", f".*{text}.*")
        train = self.train
        callbacks = [
            EarlyStopping(VALIDATION_LOSS, patience=train.patience, check_finite=True),
            Curves(folder / "metrics.csv"), EpochBar(), states,
        ]  # fmt: skip
        try:
            return pl.Trainer(
                default_root_dir=folder / _SCRATCH, logger=logger or False, max_epochs=train.epochs,
                accelerator=train.accelerator, devices=train.devices, num_nodes=train.nodes, strategy=train.strategy,
                precision=train.precision, accumulate_grad_batches=train.accumulate,  # type: ignore[arg-type]
                gradient_clip_val=train.clip or None, use_distributed_sampler=False, num_sanity_val_steps=0,
                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=True, log_every_n_steps=10,
                callbacks=callbacks,
            )  # fmt: skip
        except (MisconfigurationException, ValueError, TypeError) as problem:
            raise ConfigError(
                "training with these settings is not possible on this machine", value=str(problem).splitlines()[0],
                fix="Set train.accelerator, train.devices and train.strategy, or leave out machine=.",
            ) from problem  # fmt: skip


def train(
    survey: Survey,
    model: str | Encoder = "efficientnet_b0",
    *,
    out: str | Path,
    objective: str | Objective = "votes",
    tag: str = "local",
    seed: int = 0,
    logger: Tracker | None = None,
    **settings: Any,
) -> Checkpoint:
    """Train a network on a survey and return its checkpoint.

    Parameters
    ----------
    survey
        Galaxies with images and votes.
    model
        Name of an architecture (``efficientnet_b0``, ``maxvit_tiny``, ``convnext_nano``), or one with settings.
    out
        Checkpoint folder to write. If it holds the same training, that is continued or returned.
    objective
        Name of an objective (``votes``, ``hybrid``, ``self_supervised``), or one with settings.
    tag
        Second half of the checkpoint's name.
    seed
        Seed of everything that is random.
    logger
        Where the curves are logged besides ``metrics.csv`` in the folder; by default nowhere.
    settings
        Settings of :class:`~rarezoo.training.module.TrainSettings`, such as ``epochs`` and ``learning_rate``.

    Raises
    ------
    ConfigError
        There is no such setting, model or objective, or a value is not allowed.

    Examples
    --------
    >>> import rarezoo as rz
    >>> survey = rz.Mock(n=2000)
    >>> checkpoint = rz.train(survey, out="checkpoints/mine", epochs=5)  # doctest: +SKIP
    """
    known = [field.name for field in fields(TrainSettings)]
    encoder = choice("model", model)() if isinstance(model, str) else model
    learnt = choice("objective", objective)() if isinstance(objective, str) else objective
    refuse_unknown(settings, known, of="a training", parts={"model": encoder, "objective": learnt, "survey": survey})
    return TrainRun(
        data=survey,
        model=encoder,
        objective=learnt,
        train=TrainSettings(**settings),
        logger=logger if logger is not None else Tracker(mode="none"),
        out=str(out),
        tag=tag,
        seed=seed,
    ).run()


def _device(trainer: pl.Trainer) -> str:
    """Describe what trained."""
    if trainer.accelerator.name() == "cpu" or not torch.cuda.is_available():
        return f"{torch.get_num_threads()} processor threads"
    return f"{trainer.world_size} × {torch.cuda.get_device_name()}"


def _trained(folder: Path) -> Checkpoint:
    """Open the checkpoint of a finished training."""
    try:
        return Checkpoint.open(folder)
    except CheckpointError as problem:
        raise CheckpointError(
            f"already trained, but the checkpoint cannot be used: {problem.what}", value=problem.value,
            fix=f"{problem.fix} Or delete {folder} and train again.",
        ) from problem  # fmt: skip


def _fit(trainer: pl.Trainer, learner: Learner, batches: Batches, states: States) -> None:
    """Run the trainer, from the last state if there is one; Ctrl-C and errors of the user are raised as themselves."""
    # SLURM's warning makes Lightning save in the middle of a step; resumed from there, a batch would be missing.
    for unfit in states.last.parent.glob("hpc_ckpt_*.ckpt"):
        unfit.unlink(missing_ok=True)
    resumed = str(states.last) if states.readable() else None
    if resumed:
        log.info("resuming from %s", states.last)
    try:
        # Only arrays and plain values are read from a state; nothing in it is ever run.
        trainer.fit(learner, datamodule=batches, ckpt_path=resumed, weights_only=True)
    except SystemExit as problem:
        # Lightning turns Ctrl-C into sys.exit(1). With other codes submitit ends a job that it submits again.
        if problem.code != 1:
            raise
        raise KeyboardInterrupt from problem
    if states.best_loss == float("inf"):
        raise DataError(
            "the validation loss was not finite in any epoch", value=f"{trainer.current_epoch} epochs",
            fix="Choose a lower train.learning_rate and another out=DIR.",
        )  # fmt: skip
