"""One training run: survey and votes in, checkpoint folder out; the same command resumes it."""

import logging
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import timm
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from rarezoo.data.loaders import CutoutLoader, EpochOrder
from rarezoo.data.photometry import COLUMNS, photometry
from rarezoo.data.splits import TEST, TRAIN, VALIDATION
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.runs import claim, refuse_seed
from rarezoo.settings import setting
from rarezoo.training import metrics
from rarezoo.training.loss import OBJECTIVES, SIMILARITIES, VOTES
from rarezoo.training.module import VALIDATION_LOSS, TrainSettings, VoteLearner
from rarezoo.training.progress import Bar, Curves, States
from rarezoo.zoo.cards import is_checkpoint
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.network import build_network
from rarezoo.zoo.views import inference_view, training_cutout

log = logging.getLogger(__name__)
_SCRATCH = ".training"
ALL_VISIBLE = -1
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(kw_only=True)
class TrainRun:
    """Train one network on one survey's votes.

    ``TrainRun(data=Mock(), model=EfficientNetB0(input_size=64), out="checkpoints/mine").run()`` writes a checkpoint
    folder. Killed at any moment, the same run goes on where it was; run again when done, it returns at once.
    """

    data: Survey
    model: Encoder
    train: TrainSettings = setting(TrainSettings(), "how it is trained")
    out: str = setting("???", "checkpoint folder to write")
    tag: str = setting("local", "second half of the checkpoint's name, <architecture>.<tag>")
    seed: int = setting(0, "seed of first weights, order, views and dropout")

    def run(self, tracker: Logger | None = None) -> Path:
        """Train; the checkpoint folder.

        Args:
            tracker: a Lightning logger that gets the curves besides ``out/metrics.csv``.

        Raises:
            ConfigError, DataError, CheckpointError, OutputError: see the message.
            KeyboardInterrupt: after Ctrl-C, with a state to resume from.
        """
        refuse_seed(self.seed)
        folder = claim(self.out, verb="train", settings=self._settings())
        if is_checkpoint(folder):
            log.info("already trained: %s", folder)
            return folder
        self._refuse_bad_settings()
        started = time.perf_counter()
        galaxies = self.data.training_galaxies(cache=folder / _SCRATCH)
        if self.train.shuffle_votes:
            galaxies = _shuffled(galaxies, seed=self.seed)
        tree = _tree(galaxies)
        pl.seed_everything(self.seed, verbose=False)
        learner = VoteLearner(
            build_network(self.model, tree),
            tree=tree, settings=self.train, encoder=self.model, seed=self.seed,
            id_of=lambda row: str(galaxies.ids[row]),
        )  # fmt: skip
        loaders = self._loaders(galaxies)
        trainer = self._trainer(folder, tracker, loaders[TRAIN])
        # Only the trainer knows: under "auto", on several machines, or with all GPUs that are visible.
        order: Any = loaders[TRAIN].sampler
        order.rank, order.world = trainer.global_rank, trainer.world_size
        _fit(trainer, learner, loaders, folder / _SCRATCH / "last.ckpt")
        if _rank() == 0:
            self._keep(folder, learner, galaxies, tree, trainer, seconds=time.perf_counter() - started)
        return folder

    def _settings(self) -> dict[str, Any]:
        """What makes this run this run; how many workers decode or where it runs does not."""
        free = ("workers", "save_every", "accelerator")
        train = {key: value for key, value in asdict(self.train).items() if key not in free}
        data, model = self.data.settings(), self.model.settings()
        return {"data": data, "model": model, "train": train, "tag": self.tag, "seed": self.seed}

    def _refuse_bad_settings(self) -> None:
        train = self.train
        if train.precision not in _PRECISIONS:
            raise ConfigError(
                "unknown train.precision", value=train.precision, fix=f"Use one of {', '.join(_PRECISIONS)}."
            )
        for name, known in (("objective", OBJECTIVES), ("similarity", SIMILARITIES)):
            if getattr(train, name) not in known:
                raise ConfigError(
                    f"unknown train.{name}", value=getattr(train, name), fix=f"Use one of {', '.join(known)}."
                )
        if train.freeze_trunk and train.objective != VOTES:
            raise ConfigError(
                "a frozen trunk learns votes only", value=f"train.objective={train.objective}",
                fix="Set train.freeze_trunk=false or train.objective=votes.",
            )  # fmt: skip
        for name in ("jitter", "similarity_weight", "projector"):
            if getattr(train, name) < 0:
                raise ConfigError(f"train.{name} must not be negative", value=getattr(train, name), fix="Raise it.")
        if train.dtype not in ("float32", "float16"):
            raise ConfigError("unknown train.dtype", value=train.dtype, fix="Use float32 or float16.")
        for name in ("epochs", "batch_size", "accumulate", "devices", "nodes", "save_every"):
            if getattr(train, name) < 1 and (name, getattr(train, name)) != ("devices", ALL_VISIBLE):
                raise ConfigError(f"train.{name} must be at least 1", value=getattr(train, name), fix="Raise it.")

    def _loaders(self, galaxies: Galaxies) -> dict[str, CutoutLoader]:
        """Loaders of the three splits; galaxies without a vote are good for self-supervised training alone."""
        voted = np.flatnonzero(galaxies.votes.sum(axis=1) > 0)  # type: ignore[union-attr]
        rows = {split: np.intersect1d(galaxies.rows(split), voted) for split in (TRAIN, VALIDATION, TEST)}
        for split in (TRAIN, VALIDATION):
            if not len(rows[split]):
                raise DataError(
                    f"no galaxy with votes in the {split} split", value=f"{len(voted)} galaxies with votes",
                    fix="Use more galaxies, or set data.validation_share and data.test_share.",
                )  # fmt: skip
        if self.train.objective != VOTES:
            rows[TRAIN] = galaxies.rows(TRAIN)
        size, zoom = self.model.input_size, self.model.zoom
        views = (inference_view(size, zoom=zoom), training_cutout(size, zoom=zoom))
        return {
            split: CutoutLoader(
                galaxies, rows[split],
                view=views[split == TRAIN],
                batch_size=min(self.train.batch_size, len(rows[TRAIN])),
                workers=self.train.workers, on_bad_image=self.data.on_bad_image,
                order=EpochOrder(len(rows[TRAIN]), seed=self.seed) if split == TRAIN else None,
            )
            for split in rows
        }  # fmt: skip

    def _trainer(self, folder: Path, tracker: Logger | None, loader: CutoutLoader) -> pl.Trainer:
        _quieten_lightning()
        train = self.train
        callbacks = [
            EarlyStopping(VALIDATION_LOSS, patience=train.patience, check_finite=True),
            Curves(folder / "metrics.csv"), Bar(), States(folder / _SCRATCH, every=train.save_every, loader=loader),
        ]  # fmt: skip
        try:
            return pl.Trainer(
                default_root_dir=folder / _SCRATCH, logger=tracker or False, max_epochs=train.epochs,
                accelerator=train.accelerator, devices=train.devices, num_nodes=train.nodes, strategy=train.strategy,
                precision=train.precision, accumulate_grad_batches=train.accumulate,  # type: ignore[arg-type]
                gradient_clip_val=train.clip or None, use_distributed_sampler=False, num_sanity_val_steps=0,
                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=True, log_every_n_steps=10,
                callbacks=callbacks,
            )  # fmt: skip
        except (MisconfigurationException, ValueError, TypeError) as problem:
            raise ConfigError(
                "this machine cannot train so", value=str(problem).splitlines()[0],
                fix="Set train.accelerator, train.devices and train.strategy, or leave machine= out.",
            ) from problem  # fmt: skip

    def _keep(
        self, folder: Path, learner: VoteLearner, galaxies: Galaxies, tree: QuestionTree, trainer: pl.Trainer, *,
        seconds: float,
    ) -> None:  # fmt: skip
        """Measure the best network on the test split and write the checkpoint."""
        network = learner.result.cpu()
        network.load_state_dict(torch.load(folder / _SCRATCH / "best.pt", map_location="cpu", weights_only=True))
        loaders = self._loaders(galaxies)
        prints = folder / _SCRATCH / f"photometry-{galaxies.sha256[:16]}.npy"
        rows = _measured(network, loaders, galaxies, tree, prints)
        skipped = sorted({one for loader in loaders.values() for one in loader.skipped})
        card = {
            "tag": self.tag,
            "data": {
                "survey": self.data.settings()["option"],
                "galaxies": len(galaxies),
                **{f"{split} galaxies": len(loader._cutouts) for split, loader in loaders.items()},
                "splits": "by sha256 of the id; near-identical images share one",
                "skipped unreadable images": len(skipped),
                "sha256": galaxies.sha256,
            },
            "training": {
                **self._settings()["train"], "seed": self.seed, "epochs done": trainer.current_epoch,
                "start": self.model.settings()["start"],
            },
            "compute": {
                "device": _device(trainer), "minutes of the last start": round(seconds / 60, 1),
                "torch": torch.__version__, "timm": timm.__version__,
            },
            "min_votes": metrics.MIN_VOTES,
            "metrics": rows,
        }  # fmt: skip
        Checkpoint.save(folder, network=network, encoder=self.model, tree=tree, card=card, dtype=self.train.dtype)
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
        log.info("checkpoint: %s", folder)


def _device(trainer: pl.Trainer) -> str:
    """What trained, in words."""
    if trainer.accelerator.name() == "cpu" or not torch.cuda.is_available():
        return f"{torch.get_num_threads()} processor threads"
    return f"{trainer.world_size} × {torch.cuda.get_device_name()}"


def _shuffled(galaxies: Galaxies, *, seed: int) -> Galaxies:
    """The same galaxies, each with the votes of one drawn at random."""
    if galaxies.votes is None:
        return galaxies
    return replace(galaxies, votes=np.random.default_rng(seed).permutation(galaxies.votes))


def _tree(galaxies: Galaxies) -> QuestionTree:
    if galaxies.tree is None or galaxies.votes is None:
        raise DataError(
            "the survey has no votes to train on", value="data.votes is empty",
            fix="Name the question tree of its vote columns, e.g. data.votes=desi.",
        )  # fmt: skip
    return galaxies.tree


def _measured(
    network: torch.nn.Module, loaders: Mapping[str, CutoutLoader], galaxies: Galaxies, tree: QuestionTree, cache: Path
) -> list[dict[str, Any]]:
    """Card rows of the test split; none if the split is empty.

    The baselines are fitted to the training split's votes: the mean, and a linear head on colour, size, concentration
    and brightness.
    """
    if not len(loaders[TEST]._cutouts):
        return []
    training = loaders[TRAIN]._cutouts.rows
    training = training[galaxies.votes[training].sum(axis=1) > 0]  # type: ignore[index]
    rows, concentrations, votes = metrics.predictions(network, loaders[TEST])  # type: ignore[arg-type]
    learnt: np.ndarray = galaxies.votes[training]  # type: ignore[index]
    seen = np.zeros((len(galaxies), len(COLUMNS)), dtype=np.float32)
    used = np.concatenate([training, rows])
    seen[used] = photometry(galaxies.images, used, cache=cache)
    predicted = {
        "mean": metrics.mean_concentrations(learnt, tree, galaxies=len(votes)),
        "linear": metrics.linear_concentrations(seen, training, learnt, tree, wanted=rows),
    }
    scores = {name: metrics.galaxy_scores(one, votes, tree) for name, one in predicted.items()}
    return metrics.card_rows(metrics.galaxy_scores(concentrations, votes, tree), scores, tree)


def _fit(trainer: pl.Trainer, learner: VoteLearner, loaders: dict[str, CutoutLoader], last: Path) -> None:
    """Run the trainer, from the last state if there is one; Ctrl-C and user errors come out as themselves."""
    # SLURM's warning makes Lightning save amid a step; where there is no last state it would go on a batch short.
    for unfit in last.parent.glob("hpc_ckpt_*.ckpt"):
        unfit.unlink(missing_ok=True)
    resumed = str(last) if last.is_file() else None
    if resumed:
        log.info("going on from %s", last)
    try:
        trainer.fit(learner, loaders[TRAIN], loaders[VALIDATION], ckpt_path=resumed, weights_only=False)
    except SystemExit as problem:
        # Lightning turns Ctrl-C into sys.exit(1); with other codes submitit ends a job that it submits again.
        if problem.code != 1:
            raise
        raise KeyboardInterrupt from problem


def _rank() -> int:
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def _quieten_lightning() -> None:
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory.*",
        ".*isinstance.treespec.*",
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", text)


__all__: Sequence[str] = ("TrainRun", "TrainSettings")
