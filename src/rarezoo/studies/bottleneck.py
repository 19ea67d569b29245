"""Measure the cost of a narrower embedding, from the files that the jobs of a multirun leave: ``rarezoo study``.

Every job is measured once, galaxy by galaxy. The summary compares widths that were trained with the same seed, on the
same galaxies. A job that failed is listed as missing.

Shape letters: n galaxies measured, t of them in the test split, d width of the embedding, a answers, q questions,
w bootstrap draws.
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
# Folder of fingerprints of the survey's images, which the jobs of a multirun share.
_CACHE = ".study"
# The width whose cost Walmsley & Scaife (2023) call not measurable.
_PAPER = "128"
_BATCH = 256
_DRAWS, _AT_ONCE = 2000, 200
# Factor in D over which the measures of one width are spread in the figure.
_BESIDE = 1.3
# Bootstrap draws of fewer galaxies are too often the same ones.
_FEWEST = 10
_SHARES = (0.5, 0.9, 0.95, 0.99)
LOSS = "loss"
_RMSE, _PRECISION = "RMSE ", "average precision "


@dataclass(frozen=True)
class Measurement:
    """Output of one job's network, galaxy by galaxy.

    Attributes
    ----------
    checkpoint
        sha256 of the checkpoint's card.
    questions
        Questions of its tree.
    ids
        (n,) ids of the galaxies.
    embeddings
        (n, d) embeddings.
    test
        (t,) rows of the galaxies that are in the test split and have votes.
    losses
        (t, q) loss in nats; 0 where a question was not asked.
    squared_errors
        (t, q) squared error of the vote fractions, mean over answers; NaN with fewer than MIN_VOTES votes.
    kinds
        Rare kinds of galaxies: for each (n,) 1 for a member, 0 for others, NaN where unknown.
    """

    checkpoint: str
    questions: tuple[str, ...]
    ids: np.ndarray
    embeddings: Float32[np.ndarray, "n d"]
    test: Int64[np.ndarray, " t"]
    losses: Float32[np.ndarray, "t q"]
    squared_errors: Float[np.ndarray, "t q"]
    kinds: Mapping[str, Float32[np.ndarray, " n"]]

    @cached_property
    def spectrum(self) -> Spectrum:
        """Distribution of the variance of the embeddings over principal components."""
        return spectrum(self.embeddings)

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Quality of similarity rankings for each kind that has at least two members."""
        known = {name: np.isfinite(one) for name, one in self.kinds.items()}
        return {
            name: average_precisions(self.embeddings[known[name]], one[known[name]] > 0)
            for name, one in self.kinds.items()
            if 2 <= (one[known[name]] > 0).sum() < known[name].sum()
        }

    @cached_property
    def samples(self) -> dict[str, "GalaxyValues"]:
        """Values that are compared between widths, by the name of the measure."""
        errors = {_RMSE + name: self.squared_errors[:, at] for at, name in enumerate(self.questions)}
        observed = {name: one[np.isfinite(one)] for name, one in errors.items()}
        return {
            LOSS: GalaxyValues(self.losses.sum(axis=1)),
            **{name: GalaxyValues(one, root=True) for name, one in observed.items() if len(one)},
            **{_PRECISION + name: GalaxyValues(one.precisions) for name, one in self.rankings.items()},
        }

    def write(self, path: Path) -> None:
        """Write the measurement; the file appears as a whole or not at all."""
        kinds = {f"kind {name}": one for name, one in self.kinds.items()}
        own: dict[str, Any] = kinds | {name: getattr(self, name) for name in _ARRAYS}
        with tables.atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream, checkpoint=self.checkpoint, questions=np.array(self.questions, str),
                ids=self.ids.astype(str), **own,
            )  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> "Measurement":
        """Read a file that :meth:`write` has written.

        Raises
        ------
        StoreError
            The file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                kinds = {name.removeprefix("kind "): found[name] for name in found.files if name.startswith("kind ")}
                questions, own = tuple(map(str, found["questions"])), {name: found[name] for name in _ARRAYS}
                return cls(str(found["checkpoint"]), questions, found["ids"], kinds=kinds, **own)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
            raise StoreError("unreadable measurement", value=path, fix="Delete it; it is then made again.") from problem


_ARRAYS = ("embeddings", "test", "losses", "squared_errors")


def measured(folder: Path | str, *, workers: int | None = 0) -> Measurement:
    """Return the measurement of a job: from its file, or computed and written if its checkpoint has none.

    Parameters
    ----------
    folder
        Checkpoint folder of a finished job.
    workers
        Processes that decode images, see CutoutLoader.

    Raises
    ------
    CheckpointError
        The checkpoint cannot be opened.
    DataError
        The survey cannot be opened, has changed since the training, or has no test galaxies with votes.
    StoreError
        The file of the measurement is damaged.
    OutputError
        The folder cannot be written.
    """
    folder = Path(folder)
    kept = folder / MEASURED
    if kept.is_file() and (found := Measurement.read(kept)).checkpoint == identity(read_card(folder)):
        return found
    checkpoint = Checkpoint.open(folder)
    survey = open_survey(json.loads((folder / SETTINGS_FILE).read_text())["settings"]["data"])
    galaxies = survey.training_galaxies(cache=folder.parent / _CACHE)
    if galaxies.sha256 != checkpoint.card.get("data", {}).get("sha256"):
        raise DataError(
            "the survey has changed since the job was trained",
            value=folder,
            fix="Bring it back as it was, or train again.",
        )
    found = _measurement(checkpoint, galaxies, survey, workers=workers)
    found.write(kept)
    return found


@rank_zero_only
def measure_job(job: TrainRun) -> None:
    """Measure the network of a training that has just ended, in the first of its processes."""
    measured(job.out, workers=job.train.workers)


def _measurement(checkpoint: Checkpoint, galaxies: Galaxies, survey: Survey, *, workers: int | None) -> Measurement:
    voted = np.flatnonzero(galaxies.votes.sum(axis=1) > 0)  # type: ignore[union-attr]
    if not len(np.intersect1d(galaxies.rows(TEST), voted)):
        raise DataError("no galaxy with votes", value="the test split", fix="Set data.test_share=0.15.")
    kinds = rare_kinds(galaxies, survey=survey.settings()["option"])
    known = [np.flatnonzero(np.isfinite(one)) for one in kinds.values()]
    wanted = np.unique(np.concatenate([np.intersect1d(galaxies.rows(TEST), voted), *known]))
    loader = CutoutLoader(
        galaxies, wanted, view=checkpoint.view, batch_size=_BATCH, workers=workers, on_bad_image=survey.on_bad_image
    )
    rows, embeddings, concentrations = _outputs(checkpoint, loader)
    test = np.flatnonzero(np.isin(rows, galaxies.rows(TEST)) & np.isin(rows, voted))
    votes: np.ndarray = galaxies.votes[rows[test]]  # type: ignore[index]
    losses = question_losses(torch.from_numpy(concentrations[test]), torch.from_numpy(votes), checkpoint.tree)
    return Measurement(
        checkpoint=checkpoint.sha256,
        questions=tuple(one.name for one in checkpoint.tree.questions),
        ids=galaxies.ids[rows],
        embeddings=embeddings,
        test=test,
        losses=losses.numpy(),
        squared_errors=_squared_errors(concentrations[test], votes, checkpoint),
        kinds={name: one[rows] for name, one in kinds.items()},
    )


def _outputs(
    checkpoint: Checkpoint, loader: CutoutLoader
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "n d"], Float32[np.ndarray, "n a"]]:
    """Return rows, embeddings and concentrations of all galaxies, in full precision."""
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
) -> Float[np.ndarray, "t q"]:
    tree = checkpoint.tree
    predicted, observed, seen = tree.fractions(concentrations), tree.fractions(votes), tree.totals(votes) >= MIN_VOTES
    errors = [np.square(predicted[:, part] - observed[:, part]).mean(axis=1) for part in tree.slices]
    return np.where(seen, np.stack(errors, axis=1), np.nan).astype(np.float32)


def rare_kinds(galaxies: Galaxies, *, survey: str) -> dict[str, Float32[np.ndarray, " n"]]:
    """Return rare kinds of galaxies that the training does not use: 1 for members, 0 for others, NaN where unknown.

    They are the answers of Galaxy Zoo 2 that :mod:`rarezoo.embeddings.judge` uses, and the populations that were
    planted in a mock survey.
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
class GalaxyValues:
    """One number per galaxy, of which the mean is compared, or with ``root`` the root of the mean."""

    values: Float[np.ndarray, " n"]
    root: bool = False

    def statistic(self, weights: Float64[np.ndarray, "n w"]) -> Float64[np.ndarray, " w"]:
        """Return the (root) mean for each column of weights."""
        mean = self.values.astype(np.float64) @ weights / weights.sum(axis=0)
        return np.sqrt(mean) if self.root else mean

    @property
    def value(self) -> float:
        """(Root) mean."""
        return float(self.statistic(np.ones((len(self.values), 1)))[0])


def paired_interval(narrow: Sequence[GalaxyValues], native: Sequence[GalaxyValues]) -> Interval:
    """Return the mean difference over seeds, with its 95 % interval over galaxies and seeds.

    The bootstrap draws galaxies, the same ones for all seeds, because every seed is measured on the same galaxies. A
    bootstrap over three seeds would give a much too short interval, so the seeds contribute Student's t times their
    standard error. With one seed the interval is over galaxies only; with fewer than ten galaxies it is NaN. This needs
    its own draws: no library combines the two.

    Parameters
    ----------
    narrow
        Values of the narrower width, one object per seed.
    native
        Values of the native width, for the same seeds and galaxies.

    Examples
    --------
    >>> values = GalaxyValues(np.arange(20.0))
    >>> paired_interval([values], [GalaxyValues(np.arange(20.0) - 1)]).value
    1.0
    """
    random, galaxies, seeds = np.random.default_rng(0), len(native[0].values), len(native)
    draws = []
    for start in range(0, _DRAWS, _AT_ONCE):
        size = min(_AT_ONCE, _DRAWS - start)
        # Weights and not rows as in rarezoo.statistics, because all seeds share one draw and its matrix product.
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


class StudyJob(NamedTuple):
    """One training of the study."""

    architecture: str
    width: str
    seed: int

    def __str__(self) -> str:
        return f"{self.architecture}, D = {self.width}, seed {self.seed}"


class Spread(NamedTuple):
    """Mean over seeds, and the standard deviation between them (NaN for one seed)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return mean and deviation of one value per seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))

    def text(self, digits: str) -> str:
        """Return ``mean ± deviation``."""
        return f"{self.mean:{digits}}" + (f" ± {self.deviation:{digits}}" if np.isfinite(self.deviation) else "")


@dataclass(frozen=True)
class WidthResult:
    """One architecture at one width, over its seeds.

    Attributes
    ----------
    name
        The width as it was set: a number or ``native``.
    dimensions
        Width D of the embedding.
    seeds
        Seeds that are finished.
    values
        Every measure.
    costs
        Difference of every measure from the native width, for the seeds that both have; empty without such seeds.
    paired
        Number of these seeds.
    effective_rank, participation_ratio
        Numbers of dimensions that the variance fills.
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
        """Return the content for study.json."""
        spectrum = {one: getattr(self, one)._asdict() for one in ("effective_rank", "participation_ratio")}
        measures = {
            name: {**one._asdict(), "against_native": self.costs[name]._asdict() if name in self.costs else None}
            for name, one in self.values.items()
        }
        about = {"width": self.name, "dimensions": self.dimensions, "seeds": self.seeds, "paired_seeds": self.paired}
        return {**about, **spectrum, "measures": measures}


@dataclass(frozen=True)
class BottleneckStudy:
    """Measurements of the jobs of a study, and the reason for each missing job."""

    jobs: Mapping[StudyJob, Measurement]
    missing: Mapping[StudyJob, str]

    @property
    def architectures(self) -> list[str]:
        """Architectures with a finished job."""
        return sorted({job.architecture for job in self.jobs})

    def of(self, architecture: str, width: str) -> dict[int, Measurement]:
        """Return the measurements of an architecture at one width, by seed."""
        return {job.seed: one for job, one in sorted(self.jobs.items()) if job[:2] == (architecture, width)}

    @cached_property
    def widths(self) -> dict[str, list[WidthResult]]:
        """Finished widths of each architecture, the narrowest first and native last."""
        return {
            one: [
                self._width(one, width)
                for width in sorted({job.width for job in self.jobs if job[0] == one}, key=_rank)
            ]
            for one in self.architectures
        }

    def _width(self, architecture: str, width: str) -> WidthResult:
        ours, native = self.of(architecture, width), self.of(architecture, NATIVE)
        both = sorted(set(ours) & set(native)) if width != NATIVE else []
        first = next(iter(ours.values()))
        return WidthResult(
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
        """Describe the cost of 128 dimensions in one sentence."""
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
        """Return the text for a terminal."""
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
        """Return the content for study.json."""
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


def _costs(narrow: Sequence[Measurement], native: Sequence[Measurement]) -> dict[str, Interval]:
    """Return the difference of every measure from the native width, seed by seed; empty without seeds."""
    return {
        name: paired_interval([one.samples[name] for one in narrow], [one.samples[name] for one in native])
        for name in (native[0].samples if native else ())
    }


def _rank(width: str) -> float:
    return float("inf") if width == NATIVE else float(width)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _loss_cells(width: WidthResult) -> list[str]:
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


def _cost_cell(width: WidthResult, name: str) -> str:
    if cost := width.costs.get(name):
        half = (cost.high - cost.low) / 2
        return _signed(cost.value) + (f" ± {half:.4f}" if np.isfinite(half) else " (too few galaxies)")
    return width.values[name].text(".4f") if name in width.values else "–"


def study_of(folder: Path | str, *, workers: int | None = 0) -> BottleneckStudy:
    """Read the study in the folder of a multirun.

    Raises
    ------
    StoreError
        No job is finished, or jobs were trained on other data or with other settings.
    """
    places = _places(Path(folder))
    found, missing = dict[StudyJob, Measurement](), dict[StudyJob, str]()
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
    _require_same_galaxies(found)
    return BottleneckStudy(found, missing)


def _places(folder: Path) -> dict[StudyJob, Path | None]:
    """Return all combinations of architecture, width and seed with the folder of each; None if there is none."""
    settings = {one.parent: json.loads(one.read_text()) for one in sorted(folder.glob(f"*/{SETTINGS_FILE}"))}
    jobs = {place: one["settings"] for place, one in settings.items() if one.get("verb") == "train"}
    _require_same_settings({place: one for place, one in jobs.items() if is_checkpoint(place)})
    there = {
        StudyJob(one["model"]["architecture"], str(one["model"]["bottleneck"]), int(one["seed"])): place
        for place, one in jobs.items()
    }
    every = product({job.architecture for job in there}, {job.width for job in there}, {job.seed for job in there})
    return {job: there.get(job) for job in sorted((StudyJob(*one) for one in every), key=_order)}


def _order(job: StudyJob) -> tuple[str, float, int]:
    return job.architecture, _rank(job.width), job.seed


def _require_same_settings(jobs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise StoreError unless the jobs of an architecture differ only in width and seed."""
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
                f"jobs of one study may differ only in width and seed; these differ in {', '.join(changed)}",
                value=f"{other} and {place}", fix="Move one of them out of the folder.",
            )  # fmt: skip


def _require_same_galaxies(found: Mapping[StudyJob, Measurement]) -> None:
    """Raise StoreError unless the jobs of an architecture were measured on the same galaxies."""
    first: dict[str, StudyJob] = {}
    for job, ours in found.items():
        theirs = found[other := first.setdefault(job.architecture, job)]
        if not (np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.test, theirs.test)):
            raise StoreError(
                "jobs were measured on different galaxies", value=f"{other} and {job}",
                fix=f"Delete {MEASURED} in both folders and run rarezoo study again.",
            )  # fmt: skip


def write_study(folder: Path | str, *, workers: int = 0) -> str:
    """Write study.json, study.png and study.webp into the folder, and return the text; see :class:`StudyRun`."""
    folder = Path(folder)
    found = study_of(folder, workers=workers)
    tables.write_json(found.content(), folder / "study.json")
    _draw(found, folder / "study.png")
    return found.text()


def _draw(study: BottleneckStudy, path: Path) -> None:
    """Draw per architecture the explained variance, the cost in loss, and the cost in finding rare kinds."""
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


def _draw_spectrum(axes: Any, native: Sequence[Measurement]) -> None:
    for one in native:
        held = np.cumsum(one.spectrum.ratios)
        axes.plot(np.arange(1, len(held) + 1), held, color="C0", alpha=0.6)
    axes.axvline(int(_PAPER), color="grey", linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="principal components", ylabel="variance held, native, each seed")


def _draw_costs(axes: Any, widths: Sequence[WidthResult], names: Sequence[str], label: str) -> None:
    narrow = [one for one in widths if one.costs]
    dimensions = [one.dimensions for one in narrow]
    for at, name in enumerate(names):
        costs = [one.costs[name] for one in narrow]
        # Side by side, so that the intervals do not overlap.
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
