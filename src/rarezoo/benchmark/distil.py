"""``rarezoo benchmark distil``: what distilled images are worth beside real ones, all through the same judge."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.data.splits import TEST
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.experts import Experts
from rarezoo.distillation.judge import (
    JudgeSettings,
    Verdict,
    accuracy_interval,
    judge,
    paired_difference,
    soft_labels,
    spokes,
)
from rarezoo.distillation.output import as_tensor, write_distillation
from rarezoo.distillation.real_images import real_images
from rarezoo.distillation.run import DM, FEATURES, TRAJECTORIES, Distiller
from rarezoo.distillation.schedules import MTT, SCHEDULES, STM
from rarezoo.errors import ConfigError, StoreError
from rarezoo.runs import claim, digest
from rarezoo.settings import described, setting
from rarezoo.statistics import Interval

log = logging.getLogger(__name__)
MEAN, MEDOID, KMEANS, RANDOM = "mean", "medoid", "kmeans", "random"
REAL = (RANDOM, MEDOID, KMEANS, MEAN)
CONTESTANTS = (*REAL, DM, FEATURES, *SCHEDULES)
# What the numbers of other protocols can be called.
HARD, PLAIN, SOFT = "hard", "plain", "soft"


@dataclass(kw_only=True)
class DistilBenchmark(Distiller):
    """Judge distilled images and real ones by fresh networks that are trained on them.

    The learning rate of each contestant is chosen on the validation galaxies. Each result is kept, so the same command
    continues where it was stopped.
    """

    numbers: list[int] = setting([1], "numbers of images of each class, such as [1,10]", ge=1)
    contestants: list[str] = setting(
        [RANDOM, MEDOID, KMEANS, MEAN, DM, MTT, STM], "what is judged", choices=CONTESTANTS
    )
    protocols: list[str] = setting(
        [HARD], "hard: hard labels with augmentation; plain: without augmentation; soft: labels of the experts",
        choices=(HARD, PLAIN, SOFT),
    )  # fmt: skip
    models: list[str] = setting([], "further networks that judge: resnet18, or architectures of the zoo")
    draws: int = setting(10, "different random draws of the contestant random", ge=1)
    judge: JudgeSettings = setting(JudgeSettings, "how contestants are judged")
    out: str = setting("runs/distil_board", "folder of the results")

    def check(self) -> None:
        """Refuse a contestant whose settings are missing."""
        if FEATURES in self.contestants and not self.features.checkpoint:
            raise ConfigError(
                "the contestant features needs an encoder", value="features.checkpoint=",
                fix="Name a checkpoint, or leave features out of contestants.",
            )  # fmt: skip

    def run(self) -> str:
        """Make what is missing, judge it, write board and figure, and return the board as text."""
        galaxies = self.galaxies()
        assert self.data is not None
        folder = claim(
            self.out, verb="benchmark distil", settings={"set": asdict(self.set), "data": described(self.data)},
            inputs=lambda: {"galaxies": galaxies.sha256},
            places=[f"data.{name}" for name in self.data.places()],
        )  # fmt: skip
        rows, verdicts = [], {}
        for number, name, protocol, model in tqdm(list(self._trials()), desc="contestants", unit="contestant"):
            verdict = self._verdict(galaxies, folder, name, number, protocol, model)
            verdicts[number, name, protocol, model] = verdict
        for (number, name, protocol, model), verdict in verdicts.items():
            images = self._contestant(galaxies, folder, name, number)[0][0]
            others = {
                other: verdicts.get((number, other, protocol, model))
                for other in (MEAN, MEDOID, RANDOM)
                if other != name
            }
            rows.append(
                {
                    "images": number, "contestant": name, "protocol": protocol, "network": model,
                    "accuracy": accuracy_interval(verdict.right, draws=self.judge.draws), "rate": verdict.rate,
                    "worst": float(verdict.right.mean(axis=1).min()), "best": float(verdict.right.mean(axis=1).max()),
                    "spokes": float(spokes(galaxies.unscaled(images).mean(axis=1)).mean()),
                    **{
                        f"over {other}": None if found is None else paired_difference(
                            verdict.right, found.right, draws=self.judge.draws
                        )
                        for other, found in others.items()
                    },
                }
            )  # fmt: skip
        return self._write(folder, galaxies, rows)

    def _trials(self) -> Iterator[tuple[int, str, str, str]]:
        """Yield number of images, contestant, protocol and network; cheap contestants come first."""
        order = [name for name in CONTESTANTS if name in self.contestants]
        for number in self.numbers:
            for name in order:
                for protocol in self.protocols:
                    yield number, name, protocol, self.judge.model
                for model in self.models:
                    yield number, name, HARD, model

    def _contestant(self, galaxies: GalaxySet, folder: Path, name: str, number: int) -> list[tuple[Tensor, Tensor]]:
        """Return the images of a contestant, made if they are not there yet; several draws of random galaxies."""
        if name == RANDOM:
            return [real_images(galaxies, name, per_class=number, seed=draw) for draw in range(self.draws)]
        if name in REAL:
            return [real_images(galaxies, name, per_class=number)]
        own = self._distiller(name)
        key = digest({part: asdict(getattr(own, part)) for part in _PARTS[name]})[:12]
        place = folder / "distilled" / f"{name}-{number}-{key}"
        if not (place / "distilled.npz").is_file():
            found = own.distilled(
                galaxies, TRAJECTORIES if name in SCHEDULES else name, place / "state", per_class=number,
                experts=folder / "experts",
            )  # fmt: skip
            method = _METHODS.get(name, f"trajectory matching, schedule {name}")
            write_distillation(place, galaxies, found, method=method, facts={"benchmark": "rarezoo benchmark distil"})
        with np.load(place / "distilled.npz", allow_pickle=False) as content:
            return [(as_tensor(content["images"], galaxies), torch.from_numpy(content["labels"]))]

    def _distiller(self, name: str) -> "DistilBenchmark":
        """Return the settings with the schedule of a contestant; what a schedule does not fix is shared."""
        if name not in SCHEDULES:
            return self
        matching = replace(self.matching, schedule=name, target_epochs=2 if name == MTT else 1)
        if name == MTT:
            matching = replace(matching, last_start=min(self.matching.last_start, 2))
        return replace(self, matching=matching)

    def _verdict(self, galaxies: GalaxySet, folder: Path, name: str, number: int, protocol: str, model: str) -> Verdict:
        """Return the kept verdict of a trial, or judge it."""
        settings = replace(self.judge, model=model)
        parts = {part: asdict(getattr(self._distiller(name), part)) for part in _PARTS.get(name, ())}
        about = {"judge": asdict(settings), "draws": self.draws if name == RANDOM else 0, **parts}
        path = folder / "verdicts" / f"{number}-{name}-{protocol}-{model}-{digest(about)[:12]}.npz"
        if not path.is_file():
            images = self._contestant(galaxies, folder, name, number)
            if protocol == SOFT:
                images = self._softened(galaxies, folder, images)
            verdict = judge(images, galaxies, settings, augmented=protocol != PLAIN)
            path.parent.mkdir(parents=True, exist_ok=True)
            with tables.atomic(path) as temporary, temporary.open("wb") as file:
                rates, scores = zip(*verdict.validation.items(), strict=True)
                np.savez(file, right=verdict.right, rate=verdict.rate, rates=rates, scores=scores)
        with np.load(path, allow_pickle=False) as kept:
            validation = dict(zip(kept["rates"].tolist(), kept["scores"].tolist(), strict=True))
            return Verdict(kept["right"], float(kept["rate"]), validation)

    def _softened(
        self, galaxies: GalaxySet, folder: Path, contestants: list[tuple[Tensor, Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        experts = self.trained_experts(galaxies, folder / "experts")
        weights = [experts.weights(number, experts.epochs) for number in range(experts.count)]
        network = experts.network(galaxies)
        return [(images, soft_labels(network, weights, images)) for images, _ in contestants]

    def _all_data(self, galaxies: GalaxySet, folder: Path) -> Interval | None:
        """Return the accuracy of the experts after their last epoch; None if there are none."""
        try:
            place = Path(self.experts.folder) if self.experts.folder else folder / "experts"
            experts = Experts.open(place, galaxies, count=self.experts.count)
        except StoreError:
            return None
        network, known = experts.network(galaxies), galaxies.labels_of(TEST)
        hidden = galaxies.scaled(TEST)
        right = [
            (network.predict(experts.weights(number, experts.epochs), hidden) == known).numpy()
            for number in range(experts.count)
        ]
        return accuracy_interval(np.stack(right), draws=self.judge.draws)

    def _write(self, folder: Path, galaxies: GalaxySet, rows: list[dict]) -> str:
        """Write the same table as board.csv and board.md, and the figure board.png."""
        everything = self._all_data(galaxies, folder)
        head = ["images per class", "contestant", "protocol", "network", "rate", "accuracy", "trainings", "over mean",
                "over medoid", "over random", "spokes"]  # fmt: skip
        lines = [
            [
                str(row["images"]), row["contestant"], row["protocol"], row["network"], f"{row['rate']:g}",
                _text(row["accuracy"]), f"{row['worst']:.3f}–{row['best']:.3f}",
                *(_text(row.get(name)) for name in ("over mean", "over medoid", "over random")),
                f"{row['spokes']:.2f}",
            ]
            for row in rows
        ]  # fmt: skip
        text = "\n".join(
            [
                galaxies.summary(), "", tables.markdown(head, lines), "",
                f"All training galaxies (the experts after their last epoch): {_text(everything)}. Chance: "
                f"{1 / len(galaxies.names):.3f}. {self.judge.networks} fresh networks for each contestant; "
                "95 % intervals from a bootstrap over test galaxies and trainings, paired for differences. "
                "Trainings: the accuracy of the worst and of the best one. Spokes: share of the azimuthal power of the "
                "images in orders 4 and more.",
            ]
        )  # fmt: skip
        with tables.atomic(folder / "board.md") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        with tables.atomic(folder / "board.csv") as temporary:
            pd.DataFrame(lines, columns=head).to_csv(temporary, index=False)
        write_figure(folder / "board.png", rows, everything, chance=1 / len(galaxies.names))
        return text


# The settings that decide the images of a contestant.
_PARTS = {
    DM: ("dm",), FEATURES: ("features",), **dict.fromkeys(SCHEDULES, ("experts", "matching")),
}  # fmt: skip


_METHODS = {DM: "distribution matching", FEATURES: "matching the features of a frozen encoder"}


def _text(interval: Interval | None) -> str:
    return "–" if interval is None else interval.text(".3f")


def write_figure(path: Path, rows: list[dict], everything: Interval | None, *, chance: float) -> Path:
    """Draw the accuracy of each contestant with its interval, a panel for each number of images."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["protocol"] == HARD]
    numbers = sorted({row["images"] for row in shown})
    figure = Figure(figsize=(4.6 * max(len(numbers), 1), 3.6), layout="constrained")
    for place, number in enumerate(numbers):
        axes = figure.add_subplot(1, len(numbers), place + 1)
        models = sorted({row["network"] for row in shown})
        for offset, model in enumerate(models):
            part = [row for row in shown if row["images"] == number and row["network"] == model]
            values = [row["accuracy"] for row in part]
            below = [value.value - value.low for value in values]
            above = [value.high - value.value for value in values]
            at = np.arange(len(part)) + 0.15 * offset
            axes.errorbar([value.value for value in values], at, xerr=[below, above], fmt="o", label=model)
            axes.set_yticks(np.arange(len(part)), [row["contestant"] for row in part])
        axes.axvline(chance, color="grey", linestyle=":", label="chance")
        if everything is not None:
            axes.axvline(everything.value, color="black", linestyle="--", label="all galaxies")
        axes.set_title(f"{number} image{'s' if number > 1 else ''} per class")
        axes.set_xlabel("accuracy on test galaxies")
        axes.legend(fontsize=7, loc="lower right")
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
