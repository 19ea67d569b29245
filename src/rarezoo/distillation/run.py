"""``rarezoo distil``: a few synthetic images that stand for many galaxies."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rarezoo.data.survey import Survey
from rarezoo.distillation.data import GalaxySet, SetSettings, galaxy_set
from rarezoo.distillation.experts import Experts, ExpertSettings, bytes_needed, refuse_full_disk, train_experts
from rarezoo.distillation.features import FeatureSettings, distil_features
from rarezoo.distillation.matching import Distilled, MatchingSettings, match_trajectories
from rarezoo.distillation.output import Distillation, write_distillation
from rarezoo.distillation.random_networks import DmSettings, match_distributions
from rarezoo.errors import ConfigError
from rarezoo.runs import claim
from rarezoo.settings import Settings, described, setting
from rarezoo.track import Tracker

log = logging.getLogger(__name__)
FEATURES, DM, TRAJECTORIES = "features", "dm", "trajectories"
METHODS = (TRAJECTORIES, DM, FEATURES)


@dataclass(kw_only=True)
class Distiller(Settings):
    """What a distillation needs, whoever starts it.

    Examples
    --------
    >>> Distiller(set=SetSettings(train=20, test=5, validation=5)).set.per_class
    25
    """

    data: Survey | None = setting(None, "survey whose galaxies are distilled")
    per_class: int = setting(1, "images of each class", ge=1)
    set: SetSettings = setting(SetSettings, "which galaxies stand for which class")
    experts: ExpertSettings = setting(ExpertSettings, "method=trajectories: trainings that are matched")
    matching: MatchingSettings = setting(MatchingSettings, "method=trajectories: how they are matched")
    features: FeatureSettings = setting(FeatureSettings, "method=features: the frozen encoder, which must be named")
    dm: DmSettings = setting(DmSettings, "method=dm: the random networks")
    device: str = setting("auto", "where trajectories are matched", choices=("auto", "cpu", "cuda"))

    def galaxies(self) -> GalaxySet:
        """Open the survey and choose the galaxies."""
        if self.data is None:
            raise ConfigError("no survey", value="data=", fix="Name one: data=gz2, data=catalogue … or data=mock.")
        return galaxy_set(self.data.open(), self.set)

    def trained_experts(self, galaxies: GalaxySet, folder: Path) -> Experts:
        """Return the experts that are named, or train them in a folder after saying how large they will be."""
        if self.experts.folder:
            return Experts.open(self.experts.folder, galaxies, count=self.experts.count)
        weights = self.experts.network(side=self.set.side, classes=len(galaxies.names)).size
        log.info(
            "%d experts of %d epochs need %.1f MB on disk", self.experts.count, self.experts.epochs,
            bytes_needed(self.experts, weights) / 1e6,
        )  # fmt: skip
        return train_experts(galaxies, self.experts, folder, device=self.where)

    @property
    def where(self) -> str:
        """Device of trajectory matching."""
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device

    def distilled(self, galaxies: GalaxySet, method: str, folder: Path, *, per_class: int, experts: Path) -> Distilled:
        """Distil a set.

        Parameters
        ----------
        galaxies
            The set.
        method
            One of :data:`METHODS`.
        folder
            Folder of the state.
        per_class
            Images of each class.
        experts
            Folder in which experts are trained.
        """
        if method == FEATURES:
            return distil_features(galaxies, self.features, per_class=per_class, folder=folder)
        if method == DM:
            return match_distributions(galaxies, self.dm, per_class=per_class, folder=folder)
        trained = self.trained_experts(galaxies, experts)
        return match_trajectories(
            galaxies, trained, self.matching, per_class=per_class, folder=folder, device=self.where
        )

    def plan(self, method: str) -> str:
        """Return what a run would cost, in words, without reading images or computing anything.

        Raises
        ------
        OutputError
            The disk is too small for the experts.
        """
        classes = len(self.set.recipe or self.set.only) or 9
        network = self.experts.network(side=self.set.side, classes=classes)
        needed = bytes_needed(self.experts, network.size)
        lines = [f"{network.size:,} weights, {self.set.side} px, {classes} classes × {self.per_class} images"]
        if method == TRAJECTORIES:
            refuse_full_disk(Path.cwd(), needed)
            passes = self.experts.count * self.experts.epochs * (self.set.train - self.set.validation) * classes
            shown = min(self.matching.batch or self.per_class * classes, self.per_class * classes)
            student = self.matching.iterations * self.matching.steps * shown
            lines += [
                f"{self.experts.count} experts × {self.experts.epochs} epochs: {passes:,} images forward and backward, "
                f"{needed / 1e9:.2f} GB on disk",
                f"{self.matching.iterations} iterations × {self.matching.steps} steps ({self.matching.schedule}): "
                f"{student:,} images, forward and backward about four times each",
            ]  # fmt: skip
        return "\n".join(lines)


@dataclass(kw_only=True)
class DistilRun(Distiller):
    """Distil a survey into a few images of each class, and write them with a page and a card.

    Examples
    --------
    >>> DistilRun(out="runs/distilled", approach="dm").approach
    'dm'
    """

    # The command line also takes method=; as a field it would be a file of conf/method, the methods of the benchmark.
    approach: str = setting(
        TRAJECTORIES, "method, also method= on the command line: trajectories (of trained experts: the best images in "
        "our measurement), dm (of random networks: minutes on a processor), or features (of the frozen encoder "
        "features.checkpoint and of random networks: minutes on a processor)",
        choices=METHODS,
    )  # fmt: skip
    logger: Tracker = setting(Tracker, "where the images are logged besides out=")
    dry_run: bool = setting(False, "only say what the run would cost")
    out: str = setting(help="folder of the result")

    def check(self) -> None:
        """Refuse an encoder that the method does not use, and more images than there are galaxies to start from."""
        most = self.set.train - self.set.validation
        if self.per_class > most:
            raise ConfigError(
                "more images of a class than galaxies", value=f"per_class={self.per_class}",
                fix=f"At most set.train − set.validation = {most}.",
            )  # fmt: skip
        named = self.features.checkpoint
        if named and self.approach != FEATURES:
            raise ConfigError(
                f"method={self.approach} uses no frozen encoder", value=f"features.checkpoint={named}",
                fix="Leave it out, or write method=features.",
            )  # fmt: skip

    def run(self) -> Distillation | str:
        """Distil, write the result, and return it; with ``dry_run`` return the plan."""
        if self.dry_run:
            return self.plan(self.approach)
        if self.data is None:
            raise ConfigError("no survey", value="data=", fix="Name one: data=gz2, data=catalogue … or data=mock.")
        galaxies = self.galaxies()
        parts = {name: asdict(getattr(self, name)) for name in ("set", "experts", "matching", "features", "dm")}
        folder = claim(
            self.out, verb="distil",
            settings={**parts, "method": self.approach, "per_class": self.per_class, "data": described(self.data)},
            inputs=lambda: {"galaxies": galaxies.sha256},
            places=[f"data.{name}" for name in self.data.places()],
        )  # fmt: skip
        log.info("%s", galaxies.summary())
        if self.approach == FEATURES and not self.features.networks:
            log.warning(
                "In our measurement other networks learned nothing from images that an encoder made without random "
                "networks. Judge them with rarezoo benchmark distil before you trust them."
            )
        found = self.distilled(
            galaxies, self.approach, folder / "state", per_class=self.per_class, experts=folder / "experts"
        )
        result = write_distillation(
            folder, galaxies, found, method=self.described_method(), facts=self.facts(galaxies, found)
        )
        self.logger.log_pictures(
            folder, name=folder.resolve().name, job="distil", config=parts, rows=found.curve,
            pictures={path.stem: path for path in sorted((folder / "images").glob("*.png"))},
        )  # fmt: skip
        return result

    def described_method(self) -> str:
        """Return the method in words."""
        if self.approach == FEATURES:
            company = f" and of {self.features.networks} random networks" if self.features.networks else ""
            return f"matching {self.features.match} in the features of {self.features.checkpoint}{company}"
        if self.approach == DM:
            return f"distribution matching in {self.dm.networks} random networks"
        return f"trajectory matching, schedule {self.matching.schedule}"

    def facts(self, galaxies: GalaxySet, found: Distilled) -> Mapping[str, Any]:
        """Return what the card lists."""
        centre, spread = (part.flatten().tolist() for part in galaxies.scaling)
        facts = {
            "side": f"{self.set.side} px, the central 1/{self.set.zoom:g} of the cutouts", "set": galaxies.sha256[:16],
            "mean of the channels": [round(value, 2) for value in centre],
            "standard deviation of the channels": [round(value, 2) for value in spread],
        }  # fmt: skip
        if found.rate == found.rate:
            facts["learning rate of the student"] = f"{found.rate:.4g}"
        if found.curve and "train_accuracy" in found.curve[0]:
            best = max(row["train_accuracy"] for row in found.curve)
            facts["accuracy on the training galaxies"] = f"{best:.3f}"
        return facts
