"""``train.py``: a training, its curves sent to the tracker."""

from dataclasses import dataclass
from pathlib import Path

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.utilities import rank_zero_only

from rarezoo.errors import ConfigError
from rarezoo.settings import setting
from rarezoo.track import Tracker
from rarezoo.training.fit import TrainRun
from rarezoo.zoo.cards import is_checkpoint, read_card


@dataclass(kw_only=True)
class TrainJob(TrainRun):
    """A training run and where its curves go."""

    logger: Tracker = setting(Tracker(), "where metrics are logged")
    study: bool = setting(False, "measure the network galaxy by galaxy for `rarezoo study`; a multirun ends with it")

    def launch(self) -> Path:
        """Train, with the curves sent to the tracker; the checkpoint folder."""
        tracker = self.logger.training_logger(self.out, name=Path(self.out).name)
        folder = self.run(tracker=tracker)
        if tracker is not None:
            tracker.conclude(folder, read_card(folder) if is_checkpoint(folder) else {})
        if self.study:
            from rarezoo.studies.bottleneck import measured

            rank_zero_only(measured)(folder, workers=self.train.workers)
        return folder

    def refuse_children(self) -> None:
        """Lightning starts a training's further processes by the command line, which is the whole multirun's.

        Raises:
            ConfigError: this is a job of a multirun and would start processes.
        """
        started = SLURMEnvironment.detect() or TorchElasticEnvironment.detect()
        if self.train.devices != 1 and not started:
            raise ConfigError(
                "a job of a multirun cannot start processes", value=f"train.devices={self.train.devices}",
                fix="Give each job one GPU (train.devices=1), use machine=slurm, or train one network at a time.",
            )  # fmt: skip
