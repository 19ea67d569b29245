"""``python -m benchmarks prototypes``: prototypes of planted populations, and of groups that are nothing.

On a mock sky the feature of each population is known. For each population, for random groups, and for clumps of
structureless surveys, a prototype is made and judged. Each galaxy of a structureless survey has the images of the sky
but a drawn embedding, so that the members of a clump have nothing in common: a judge must stay at chance. Finished
prototypes are kept, so that a stopped measurement goes on.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rarezoo import tables
from rarezoo.cache import kept_array
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.distillation.features import FrozenEncoder
from rarezoo.distillation.prototype import (
    Prototype,
    PrototypeSettings,
    make_prototype,
    read_prototype,
    write_prototype,
)
from rarezoo.errors import ConfigError
from rarezoo.runs import claim
from rarezoo.searches.null_surveys import null_survey
from rarezoo.searches.recovery import ORDINARY
from rarezoo.settings import Settings, described, setting
from rarezoo.zoo.views import inference_view


@dataclass(kw_only=True)
class PrototypeNulls(Settings):
    """Measure whether prototypes show what was planted, and whether prototypes of nothing stay at chance."""

    data: Survey
    checkpoint: str = setting("efficientnet_b0.mock", "frozen encoder that makes the prototypes")
    populations: list[str] = setting(["off_centre_ring", "one_armed"], "planted populations")
    random: int = setting(2, "random groups", ge=0)
    clumps: int = setting(2, "clumps of structureless surveys, each of another survey", ge=0)
    members: int = setting(90, "members of a random group and of a clump", unit="galaxies", ge=20)
    seed: int = setting(100, "first seed of groups and structureless surveys", ge=0)
    prototype: PrototypeSettings = setting(PrototypeSettings, "how prototypes are made and judged")
    out: str = setting("runs/benchmark_prototypes", "folder that keeps what is finished")

    def run(self) -> str:
        """Make and judge what is missing and return a table."""
        galaxies = self.data.open()
        own = replace(self.prototype, features=replace(self.prototype.features, checkpoint=self.checkpoint))
        folder = claim(
            self.out, verb="benchmarks prototypes",
            settings={
                "prototype": asdict(own), "members": self.members, "seed": self.seed, "data": described(self.data)
            },
            inputs=lambda: {"galaxies": galaxies.sha256}, places=[f"data.{name}" for name in self.data.places()],
        )  # fmt: skip
        encoder = FrozenEncoder.open(self.checkpoint)
        embeddings = kept_array(folder / "embeddings.npy", lambda: _embedded(galaxies, encoder))
        if galaxies.truth is None:
            raise ConfigError(
                "the populations of this survey are not known", value="no truth table", fix="Use data=mock."
            )
        planted = np.array(galaxies.truth.column(tables.POPULATION).to_pylist(), dtype=str)
        unknown = sorted(set(self.populations) - set(planted.tolist()))
        if unknown:
            raise ConfigError(
                "no galaxy of this survey is of population", value=", ".join(unknown),
                fix=f"Choose from: {', '.join(sorted(set(planted.tolist()) - {ORDINARY}))}.",
            )  # fmt: skip
        head = ["group", "members", "held out", "accuracy", "of the medoid", "of the mean", "passed", "it has"]
        lines = []
        for name in [*self.populations, *self._nothing()]:
            members, places = self._group(name, planted, embeddings)
            place = folder / name.replace(" ", "_")
            found = read_prototype(place)
            if found is None:
                made = make_prototype(galaxies, galaxies.ids, places, members, own, encoder=encoder)
                found = write_prototype(place, made)
            lines.append([name, str(int(members.sum())), *_line(found)])
        text = tables.markdown(head, lines)
        with tables.atomic(folder / "board.md") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        if self.populations:
            _write_figure(folder / "prototypes.webp", [folder / name for name in self.populations])
        return text

    def _nothing(self) -> list[str]:
        kinds = {"random": self.random, "clump": self.clumps}
        return [f"{kind} {self.seed + number}" for kind, count in kinds.items() for number in range(count)]

    def _group(self, name: str, planted: np.ndarray, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return whether each galaxy is a member, and the embeddings in which the group lies."""
        kind, _, seed = name.partition(" ")
        if not seed:
            return planted == kind, embeddings
        random = np.random.default_rng(int(seed))
        chosen = np.zeros(len(planted), dtype=bool)
        if kind == "random":
            chosen[random.permutation(len(planted))[: self.members]] = True
            return chosen, embeddings
        drawn = null_survey(embeddings, kind="gaussian", random=random)
        distances = np.square(drawn - drawn[random.integers(len(drawn))]).sum(axis=1)
        chosen[np.argsort(distances)[: self.members]] = True
        return chosen, drawn


def _embedded(galaxies: Galaxies, encoder: FrozenEncoder) -> np.ndarray:
    view = inference_view(encoder.side, zoom=encoder.zoom)
    pixels = [view(torch.from_numpy(galaxies.images.cutout(row)).permute(2, 0, 1)) for row in range(len(galaxies.ids))]
    return encoder.embedded(torch.stack(pixels)).numpy()


def _write_figure(path: Path, places: list[Path]) -> None:
    """Draw the pictures of each group in a row."""
    from matplotlib.figure import Figure

    pictures = {"prototype": "prototype", "medoid": "medoid", "mean": "mean image", "others": "its matched galaxies"}
    figure = Figure(figsize=(1.9 * len(pictures), 1.9 * len(places)), layout="constrained")
    for row, place in enumerate(places):
        for column, (name, title) in enumerate(pictures.items()):
            axes = figure.add_subplot(len(places), len(pictures), row * len(pictures) + column + 1)
            axes.imshow(Image.open(place / f"{name}.png"), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if not row:
                axes.set_title(title, fontsize=9)
            if not column:
                axes.set_ylabel(place.name.replace("_", " "), fontsize=9)
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="webp", dpi=110)


def _line(found: Prototype) -> list[str]:
    scores = [found.accuracy[name].text(".3f") for name in ("prototype", "medoid", "mean")]
    strongest = sorted(found.features_it_has().items(), key=lambda item: -abs(found.measured[item[0]]["effect"]))
    has = ", ".join(f"{name} {value:.1f}" for name, value in strongest[:4]) or "–"
    return [str(found.held_out), *scores, "yes" if found.passed else "no", has]
