"""``rarezoo study``: what a narrower embedding costs, from the files that each job of a sweep leaves behind.

Every job is measured once, galaxy by galaxy; the summary pairs widths that were trained from the same seed and judged
on the same galaxies. A job that failed is listed as missing and does not stop it.

Shape letters: n galaxies judged, t of them of the test split, d width of the embedding, q questions, w bootstrap draws.
"""

import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32, Float64, Int64
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from mocksky.populations import ORDINARY
from rarezoo import tables
from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.splits import TEST
from rarezoo.data.survey import Galaxies, Survey, open_survey
from rarezoo.embeddings.judge import DEFAULT_CRITERIA
from rarezoo.embeddings.quality import Ranking, Spectrum, average_precisions, spectrum
from rarezoo.errors import DataError, RarezooError, StoreError
from rarezoo.runs import SETTINGS_FILE
from rarezoo.settings import Settings, setting
from rarezoo.statistics import Interval
from rarezoo.tables import markdown
from rarezoo.training.fit import TrainRun
from rarezoo.training.loss import question_losses
from rarezoo.training.metrics import MIN_VOTES
from rarezoo.zoo.cards import identity, is_checkpoint, read_card
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import NATIVE

log = logging.getLogger(__name__)
MEASURED = "study.npz"
# Fingerprints of the survey's images, shared by the jobs of a sweep.
_CACHE = ".study"
# The width whose cost the paper calls not measurable (Walmsley & Scaife 2023).
_PAPER = "128"
_BATCH = 256
_DRAWS, _AT_ONCE = 2000, 200
# Factor in D that the measures of one width are drawn over.
_BESIDE = 1.3
# Drawn anew, fewer galaxies are too often the same ones.
_FEWEST = 10
_SHARES = (0.5, 0.9, 0.95, 0.99)
LOSS = "loss"
_RMSE, _PRECISION = "RMSE ", "average precision "


@dataclass(frozen=True)
class Measured:
    """What one job's network says, galaxy by galaxy.

    Attributes:
        checkpoint: sha256 of its card.
        questions: of its tree.
        ids: (n,) the galaxies judged, strings.
        embeddings: (n, d).
        test: (t,) which of them are of the test split and have votes.
        losses: (t, q) nats; 0 where a question was not asked.
        squared_errors: (t, q) of the vote fractions, mean over answers; NaN below MIN_VOTES votes.
        kinds: rare kinds of galaxy: for each (n,) 1 for a member, 0 for others, NaN where nobody knows.
    """

    checkpoint: str
    questions: tuple[str, ...]
    ids: np.ndarray
    embeddings: Float32[np.ndarray, "n d"]
    test: Int64[np.ndarray, " t"]
    losses: Float32[np.ndarray, "t q"]
    squared_errors: Float32[np.ndarray, "t q"]
    kinds: Mapping[str, Float32[np.ndarray, " n"]]

    @cached_property
    def spectrum(self) -> Spectrum:
        """How the variance of the embeddings is spread."""
        return spectrum(self.embeddings)

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """How well "most like this one" finds each kind that two galaxies at least are of."""
        known = {name: np.isfinite(one) for name, one in self.kinds.items()}
        return {
            name: average_precisions(self.embeddings[known[name]], one[known[name]] > 0)
            for name, one in self.kinds.items()
            if 2 <= (one[known[name]] > 0).sum() < known[name].sum()
        }

    @cached_property
    def samples(self) -> dict[str, "Sample"]:
        """All that is compared between widths, by name."""
        errors = {_RMSE + name: self.squared_errors[:, at] for at, name in enumerate(self.questions)}
        observed = {name: one[np.isfinite(one)] for name, one in errors.items()}
        return {
            LOSS: Sample(self.losses.sum(axis=1)),
            **{name: Sample(one, root=True) for name, one in observed.items() if len(one)},
            **{_PRECISION + name: Sample(one.precisions) for name, one in self.rankings.items()},
        }

    def write(self, path: Path) -> None:
        """Keep it, whole or not at all."""
        kinds = {f"kind {name}": one for name, one in self.kinds.items()}
        own: dict[str, Any] = kinds | {name: getattr(self, name) for name in _ARRAYS}
        with tables.atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream, checkpoint=self.checkpoint, questions=np.array(self.questions, str),
                ids=self.ids.astype(str), **own,
            )  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """From :meth:`write`.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                kinds = {name.removeprefix("kind "): found[name] for name in found.files if name.startswith("kind ")}
                questions, own = tuple(map(str, found["questions"])), {name: found[name] for name in _ARRAYS}
                return cls(str(found["checkpoint"]), questions, found["ids"], kinds=kinds, **own)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
            raise StoreError("unreadable measurement", value=path, fix="Delete it; it will be made again.") from problem


_ARRAYS = ("embeddings", "test", "losses", "squared_errors")


def measured(folder: Path | str, *, workers: int | None = 0) -> Measured:
    """One job's measurement: from its file, or made (and kept) if there is none of its checkpoint.

    Args:
        folder: a finished job's checkpoint folder.
        workers: processes that decode images, as CutoutLoader has it.

    Raises:
        CheckpointError, DataError, ConfigError, StoreError, OutputError: see the message.
    """
    folder = Path(folder)
    kept = folder / MEASURED
    if kept.is_file() and (found := Measured.read(kept)).checkpoint == identity(read_card(folder)):
        return found
    checkpoint = Checkpoint.open(folder)
    survey = _survey(folder)
    galaxies = survey.training_galaxies(cache=folder.parent / _CACHE)
    if galaxies.sha256 != checkpoint.card.get("data", {}).get("sha256"):
        raise DataError(
            "the survey has changed since the job was trained", value=folder, fix="Bring it back, or train anew."
        )
    found = _measurement(checkpoint, galaxies, survey, workers=workers)
    found.write(kept)
    return found


@rank_zero_only
def measure_job(job: TrainRun) -> None:
    """Measure the network of a training that has just ended, in the first of its processes."""
    measured(job.out, workers=job.train.workers)


def _survey(folder: Path) -> Survey:
    content = json.loads((folder / SETTINGS_FILE).read_text())
    return open_survey(content["settings"]["data"])


def _measurement(checkpoint: Checkpoint, galaxies: Galaxies, survey: Survey, *, workers: int | None) -> Measured:
    voted = np.flatnonzero(galaxies.votes.sum(axis=1) > 0)  # type: ignore[union-attr]
    if not len(np.intersect1d(galaxies.rows(TEST), voted)):
        raise DataError("no galaxy with votes to judge by", value="the test split", fix="Set data.test_share=0.15.")
    kinds = rare_kinds(galaxies, survey=survey.settings()["option"])
    known = [np.flatnonzero(np.isfinite(one)) for one in kinds.values()]
    wanted = np.unique(np.concatenate([np.intersect1d(galaxies.rows(TEST), voted), *known]))
    loader = CutoutLoader(
        galaxies, wanted, view=checkpoint.view, batch_size=_BATCH, workers=workers, on_bad_image=survey.on_bad_image
    )
    rows, embeddings, concentrations = _said(checkpoint, loader)
    test = np.flatnonzero(np.isin(rows, galaxies.rows(TEST)) & np.isin(rows, voted))
    votes: np.ndarray = galaxies.votes[rows[test]]  # type: ignore[index]
    losses = question_losses(torch.from_numpy(concentrations[test]), torch.from_numpy(votes), checkpoint.tree)
    return Measured(
        checkpoint=checkpoint.sha256,
        questions=tuple(one.name for one in checkpoint.tree.questions),
        ids=galaxies.ids[rows],
        embeddings=embeddings,
        test=test,
        losses=losses.numpy(),
        squared_errors=_squared_errors(concentrations[test], votes, checkpoint),
        kinds={name: one[rows] for name, one in kinds.items()},
    )


def _said(
    checkpoint: Checkpoint, loader: CutoutLoader
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "n d"], Float32[np.ndarray, "n a"]]:
    """Rows, embeddings and concentrations of all batches, in full precision."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = checkpoint.network.to(device).eval()
    said: list[tuple[np.ndarray, ...]] = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc=f"measuring {checkpoint.folder.name}", unit="batch", leave=False):
            found = network(batch.images.to(device))
            said.append((batch.rows.numpy(), *(one.float().cpu().numpy() for one in found[:2])))
    rows, embeddings, concentrations = (np.concatenate(one) for one in zip(*said, strict=True))
    return rows, embeddings, concentrations


def _squared_errors(
    concentrations: Float32[np.ndarray, "t a"], votes: Float32[np.ndarray, "t a"], checkpoint: Checkpoint
) -> Float32[np.ndarray, "t q"]:
    tree = checkpoint.tree
    predicted, observed, seen = tree.fractions(concentrations), tree.fractions(votes), tree.totals(votes) >= MIN_VOTES
    errors = [np.square(predicted[:, part] - observed[:, part]).mean(axis=1) for part in tree.slices]
    return np.where(seen, np.stack(errors, axis=1), np.nan).astype(np.float32)


def rare_kinds(galaxies: Galaxies, *, survey: str) -> dict[str, Float32[np.ndarray, " n"]]:
    """Kinds of galaxy that no vote in training names: 1 for members, 0 for others, NaN where nobody knows.

    Galaxy Zoo 2's answers that :mod:`rarezoo.embeddings.judge` asks for, and a mock sky's planted populations.
    """
    kinds = {}
    for answer in DEFAULT_CRITERIA.get(survey, ()):
        values = np.asarray(galaxies.catalogue[answer.column].cast(pa.float64()).to_numpy())
        kinds[answer.name] = np.where(np.isfinite(values), values > answer.above, np.nan).astype(np.float32)
    if galaxies.truth is not None:
        populations = tables.strings(galaxies.truth, tables.POPULATION)
        planted = sorted({*populations} - {ORDINARY})
        kinds |= {name: (populations == name).astype(np.float32) for name in planted}
    return kinds


@dataclass(frozen=True)
class Sample:
    """Numbers, one per galaxy, of which the mean is compared; or the root of the mean, for squared errors."""

    values: Float[np.ndarray, " n"]
    root: bool = False

    def statistic(self, weights: Float64[np.ndarray, "n w"]) -> Float64[np.ndarray, " w"]:
        """The (root) mean under each column of weights."""
        mean = self.values.astype(np.float64) @ weights / weights.sum(axis=0)
        return np.sqrt(mean) if self.root else mean

    @property
    def value(self) -> float:
        """The (root) mean."""
        return float(self.statistic(np.ones((len(self.values), 1)))[0])


def paired_interval(narrow: Sequence[Sample], native: Sequence[Sample]) -> Interval:
    """Mean over seeds of a difference, and its 95 % interval over galaxies and over seeds.

    Galaxies are drawn anew, the same for all seeds, because every seed is judged on the same ones. Three seeds drawn
    anew would make an interval much too short (they hardly ever scatter as they do in truth), so their part is
    Student's t of their standard error. With one seed the interval is over galaxies alone; with fewer than ten galaxies
    there is none (NaN).

    Args:
        narrow: one sample per seed.
        native: for the same seeds and the same galaxies.
    """
    random, galaxies, seeds = np.random.default_rng(0), len(native[0].values), len(native)
    draws = []
    for start in range(0, _DRAWS, _AT_ONCE):
        size = min(_AT_ONCE, _DRAWS - start)
        weights = random.multinomial(galaxies, np.full(galaxies, 1 / galaxies), size=size).T.astype(np.float64)
        differences = [
            one.statistic(weights) - other.statistic(weights) for one, other in zip(narrow, native, strict=True)
        ]
        draws.append(np.mean(differences, axis=0))
    scattered = np.concatenate(draws)
    found = np.array([one.value - other.value for one, other in zip(narrow, native, strict=True)])
    if seeds > 1:
        scattered = scattered + found.std(ddof=1) / np.sqrt(seeds) * random.standard_t(seeds - 1, size=_DRAWS)
    low, high = np.quantile(scattered, (0.025, 0.975)) if galaxies >= _FEWEST else (np.nan, np.nan)
    return Interval(float(found.mean()), float(low), float(high))


class Job(NamedTuple):
    """A place in the sweep."""

    architecture: str
    width: str
    seed: int

    def __str__(self) -> str:
        return f"{self.architecture}, D = {self.width}, seed {self.seed}"


class Spread(NamedTuple):
    """Mean over seeds, and the standard deviation between them (NaN for one)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of a value per seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))

    def text(self, digits: str) -> str:
        """``mean ± deviation``."""
        return f"{self.mean:{digits}}" + (f" ± {self.deviation:{digits}}" if np.isfinite(self.deviation) else "")


@dataclass(frozen=True)
class Width:
    """One architecture at one width, over its seeds.

    Attributes:
        dimensions: D.
        seeds: that are finished.
        values: of every measure.
        costs: difference to the native width, for the seeds that both have; empty if there are none.
        paired: how many those are.
    """

    name: str
    dimensions: int
    seeds: tuple[int, ...]
    values: Mapping[str, Spread]
    costs: Mapping[str, Interval]
    paired: int
    effective_rank: Spread
    participation_ratio: Spread

    def content(self) -> dict[str, Any]:
        """For study.json."""
        spectrum = {one: getattr(self, one)._asdict() for one in ("effective_rank", "participation_ratio")}
        measures = {
            name: {**one._asdict(), "against_native": self.costs[name]._asdict() if name in self.costs else None}
            for name, one in self.values.items()
        }
        about = {"width": self.name, "dimensions": self.dimensions, "seeds": self.seeds, "paired_seeds": self.paired}
        return {**about, **spectrum, "measures": measures}


@dataclass(frozen=True)
class Study:
    """A sweep's measurements by place, and what is missing with the reason."""

    jobs: Mapping[Job, Measured]
    missing: Mapping[Job, str]

    @property
    def architectures(self) -> list[str]:
        """Of which there is a finished job."""
        return sorted({job.architecture for job in self.jobs})

    def of(self, architecture: str, width: str) -> dict[int, Measured]:
        """Measurements by seed."""
        return {job.seed: one for job, one in sorted(self.jobs.items()) if job[:2] == (architecture, width)}

    @cached_property
    def widths(self) -> dict[str, list[Width]]:
        """Every finished width of each architecture, the narrowest first, native last."""
        return {
            one: [
                self._width(one, width)
                for width in sorted({job.width for job in self.jobs if job[0] == one}, key=_rank)
            ]
            for one in self.architectures
        }

    def _width(self, architecture: str, width: str) -> Width:
        ours, native = self.of(architecture, width), self.of(architecture, NATIVE)
        both = sorted(set(ours) & set(native)) if width != NATIVE else []
        first = next(iter(ours.values()))
        return Width(
            name=width,
            dimensions=first.embeddings.shape[1],
            seeds=tuple(ours),
            values={name: Spread.of([one.samples[name].value for one in ours.values()]) for name in first.samples},
            costs=_costs([ours[seed] for seed in both], [native[seed] for seed in both]),
            paired=len(both),
            effective_rank=Spread.of([one.spectrum.effective_rank for one in ours.values()]),
            participation_ratio=Spread.of([one.spectrum.participation_ratio for one in ours.values()]),
        )

    def verdict(self, architecture: str) -> str:
        """What 128 dimensions cost, in one sentence."""
        widths = {one.name: one for one in self.widths[architecture]}
        if _PAPER not in widths or not widths[_PAPER].paired:
            return f"{architecture}: no verdict on {_PAPER} dimensions; it needs them and {NATIVE} from one seed."
        ours, native = widths[_PAPER], widths[NATIVE]
        cost, loss = ours.costs[LOSS], native.values[LOSS].mean
        galaxies = len(next(iter(self.of(architecture, NATIVE).values())).test)
        seeds = f"{ours.paired} seeds" if ours.paired > 1 else "1 seed, whose own scatter is not in it"
        return (
            f"{architecture}: {_PAPER} dimensions cost {_signed(cost.value)} nats per galaxy (95 % interval "
            f"{_signed(cost.low)} … {_signed(cost.high)}; {galaxies} test galaxies, {seeds}) against the native "
            f"{native.dimensions}, whose loss is {loss:.3f}; these data exclude a cost above {_signed(cost.high)} nats "
            f"({_signed(cost.high / loss * 100)} %)."
        )

    def text(self) -> str:
        """For a terminal."""
        parts = [part for one in self.architectures for part in self._architecture_text(one)]
        lost = [f"missing: {job} ({reason})" for job, reason in self.missing.items()]
        return "\n".join([*parts, *lost, *map(self.verdict, self.architectures)])

    def _architecture_text(self, architecture: str) -> Iterator[str]:
        widths = self.widths[architecture]
        yield f"## {architecture}\n"
        yield from self._spectrum_text(architecture)
        head = ["D", "seeds", "test loss (nats)", "cost against native (95 %)", "effective rank", "participation ratio"]
        yield markdown(head, [_loss_cells(one) for one in widths]) + "\n"
        for prefix, what in (
            (_RMSE, "vote-fraction RMSE"),
            (_PRECISION, 'average precision of "most like this one"'),
        ):
            names = [name for name in widths[-1].values if name.startswith(prefix)]
            if names:
                rows = [[name.removeprefix(prefix), *(_cost_cell(one, name) for one in widths)] for name in names]
                yield f"{what}: native, and the others' difference to it with half its 95 % interval\n"
                yield markdown(["", *(f"D = {one.name}" for one in widths)], rows) + "\n"

    def _spectrum_text(self, architecture: str) -> Iterator[str]:
        native = list(self.of(architecture, NATIVE).values())
        if native:
            shares = ", ".join(
                f"{share:.0%} in {Spread.of([one.spectrum.components(share) for one in native]).text('.1f')}"
                for share in _SHARES
            )
            yield f"components that hold the variance of the native {native[0].embeddings.shape[1]}: {shares}\n"

    def content(self) -> dict[str, Any]:
        """For study.json."""
        return {
            "architectures": {
                one: {
                    "native_explained_variance": {
                        seed: found.spectrum.ratios for seed, found in self.of(one, NATIVE).items()
                    },
                    "widths": [width.content() for width in self.widths[one]],
                    "verdict": self.verdict(one),
                }
                for one in self.architectures
            },
            "missing": [{**job._asdict(), "reason": reason} for job, reason in self.missing.items()],
        }


def _costs(narrow: Sequence[Measured], native: Sequence[Measured]) -> dict[str, Interval]:
    """Difference to the native width of every measure, seed by seed; empty without seeds."""
    return {
        name: paired_interval([one.samples[name] for one in narrow], [one.samples[name] for one in native])
        for name in (native[0].samples if native else ())
    }


def _rank(width: str) -> float:
    return float("inf") if width == NATIVE else float(width)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _loss_cells(width: Width) -> list[str]:
    cost = width.costs.get(LOSS)
    interval = f"{_signed(cost.value)} ({_signed(cost.low)} … {_signed(cost.high)})" if cost else "–"
    return [
        width.name if width.name != NATIVE else f"{NATIVE} ({width.dimensions})",
        str(len(width.seeds)),
        width.values[LOSS].text(".4f"),
        interval,
        width.effective_rank.text(".1f"),
        width.participation_ratio.text(".1f"),
    ]


def _cost_cell(width: Width, name: str) -> str:
    if cost := width.costs.get(name):
        half = (cost.high - cost.low) / 2
        return _signed(cost.value) + (f" ± {half:.4f}" if np.isfinite(half) else " (too few galaxies)")
    return width.values[name].text(".4f") if name in width.values else "–"


def study_of(folder: Path | str, *, workers: int | None = 0) -> Study:
    """The study of a sweep's folder.

    Raises:
        StoreError: no job there is finished, or jobs were trained on other data or in another way.
    """
    places = _places(Path(folder))
    found, missing = dict[Job, Measured](), dict[Job, str]()
    for job, place in places.items():
        try:
            if place is None or not is_checkpoint(place):
                missing[job] = "not trained"
            else:
                found[job] = measured(place, workers=workers)
        except RarezooError as problem:
            missing[job] = str(problem)
    if not found:
        raise StoreError(
            "no finished job of a bottleneck study", value=folder, fix="Run one: python train.py experiment=bottleneck."
        )
    _refuse_other_galaxies(found)
    return Study(found, missing)


def _places(folder: Path) -> dict[Job, Path | None]:
    """Every place of the sweep and its folder: all combinations of what its jobs' settings name."""
    settings = {one.parent: json.loads(one.read_text()) for one in sorted(folder.glob(f"*/{SETTINGS_FILE}"))}
    jobs = {place: one["settings"] for place, one in settings.items() if one.get("verb") == "train"}
    _refuse_mixture({place: one for place, one in jobs.items() if is_checkpoint(place)})
    there = {
        Job(one["model"]["architecture"], str(one["model"]["bottleneck"]), int(one["seed"])): place
        for place, one in jobs.items()
    }
    every = product({job.architecture for job in there}, {job.width for job in there}, {job.seed for job in there})
    return {job: there.get(job) for job in sorted((Job(*one) for one in every), key=_order)}


def _order(job: Job) -> tuple[str, float, int]:
    return job.architecture, _rank(job.width), job.seed


def _refuse_mixture(jobs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise StoreError unless an architecture's jobs differ in width and seed alone."""
    first: dict[str, Path] = {}
    for place, one in jobs.items():
        other = first.setdefault(one["model"]["architecture"], place)
        changed = [
            f"{part}.{key}"
            for part in ("data", "model", "train")
            for key in sorted({*one[part], *jobs[other][part]})
            if one[part].get(key) != jobs[other][part].get(key) and key != "bottleneck"
        ]
        if changed:
            raise StoreError(
                f"jobs of one study may differ in width and seed alone; these do in {', '.join(changed)}",
                value=f"{other} and {place}", fix="Move one of them out of the folder.",
            )  # fmt: skip


def _refuse_other_galaxies(found: Mapping[Job, Measured]) -> None:
    """Raise StoreError unless an architecture's jobs were judged on the same galaxies."""
    first: dict[str, Job] = {}
    for job, ours in found.items():
        theirs = found[other := first.setdefault(job.architecture, job)]
        if not (np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.test, theirs.test)):
            raise StoreError(
                "jobs were judged on different galaxies", value=f"{other} and {job}",
                fix=f"Delete {MEASURED} in both folders and summarise again.",
            )  # fmt: skip


def write_study(folder: Path | str, *, workers: int = 0) -> str:
    """Summarise a sweep: writes study.json, study.png and study.webp to its folder; the text for a terminal.

    Raises:
        StoreError, OutputError: see the message.
    """
    folder = Path(folder)
    found = study_of(folder, workers=workers)
    tables.write_json(found.content(), folder / "study.json")
    _draw(found, folder / "study.png")
    return found.text()


def _draw(study: Study, path: Path) -> None:
    """Three panels per architecture: explained variance, the loss's cost, and how rare kinds are found."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(13, 3.8 * len(study.architectures)), layout="constrained")
    panels = figure.subplots(len(study.architectures), 3, squeeze=False)
    for row, one in zip(panels, study.architectures, strict=True):
        _draw_spectrum(row[0], list(study.of(one, NATIVE).values()))
        _draw_costs(row[1], study.widths[one], [LOSS], "test loss less native's (nats per galaxy)")
        kinds = [name for name in study.widths[one][-1].values if name.startswith(_PRECISION)]
        _draw_costs(row[2], study.widths[one], kinds, "average precision less native's")
        row[0].set_title(one, loc="left")
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    with tables.atomic(path.with_suffix(".webp")) as temporary, Image.open(path) as picture:
        picture.convert("RGB").save(temporary, format="WEBP", quality=85)


def _draw_spectrum(axes: Any, native: Sequence[Measured]) -> None:
    for one in native:
        held = np.cumsum(one.spectrum.ratios)
        axes.plot(np.arange(1, len(held) + 1), held, color="C0", alpha=0.6)
    axes.axvline(int(_PAPER), color="grey", linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="principal components", ylabel="variance held, native, each seed")


def _draw_costs(axes: Any, widths: Sequence[Width], names: Sequence[str], label: str) -> None:
    narrow = [one for one in widths if one.costs]
    dimensions = [one.dimensions for one in narrow]
    for at, name in enumerate(names):
        costs = [one.costs[name] for one in narrow]
        # Side by side, so that the intervals can be told apart.
        places = np.array(dimensions) * _BESIDE ** ((at + 0.5) / len(names) - 0.5)
        ends = [[one.value - one.low for one in costs], [one.high - one.value for one in costs]]
        axes.errorbar(places, [one.value for one in costs], yerr=ends, marker=".", capsize=2, label=_short(name))
    axes.axhline(0, color="grey", linewidth=1)
    axes.set(xscale="log", xlabel="D", ylabel=label)
    axes.set_xticks(dimensions, map(str, dimensions))
    axes.minorticks_off()
    if dimensions:
        axes.set_xlim(dimensions[0] / 1.5, dimensions[-1] * 1.5)
    if len(names) > 1:
        axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _short(name: str) -> str:
    return name.removeprefix(_PRECISION)


@dataclass(kw_only=True)
class StudyRun(Settings):
    """Summarise the trainings of a bottleneck study: study.json, study.png and study.webp in their folder."""

    folder: str = setting(help="out= of the multirun, python train.py experiment=bottleneck", positional=True)
    workers: int = setting(2, "processes that read the images of jobs that are not measured yet", ge=0)

    def run(self) -> str:
        """Write the summary, and return the text for a terminal.

        Raises
        ------
        StoreError
            There is no finished job, or the jobs were trained on other data or in another way.
        OutputError
            The folder cannot be written.
        """
        return write_study(self.folder, workers=self.workers)
