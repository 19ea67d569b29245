"""Measure the cost of a narrower embedding, from the files that the jobs of a multirun leave: ``rarezoo study``.

Every job is measured once, galaxy by galaxy. The summary compares widths that were trained with the same seed, on the
same galaxies. A job that failed is listed as missing.

Shape letters: n galaxies measured, t of them in the test split, d width of the embedding, a answers, q questions,
w bootstrap draws.
"""

import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
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
from rarezoo.embeddings.answers import DEFAULT_CRITERIA
from rarezoo.embeddings.quality import Ranking, Spectrum, average_precisions, spectrum
from rarezoo.errors import DataError, RarezooError, StoreError
from rarezoo.escapes import figure_text
from rarezoo.runs import SETTINGS_FILE, changed_inputs, hashed, inputs_sha256
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
LOSS, RANK, RATIO = "loss", "effective rank", "participation ratio"
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
        rankings = {}
        for name, membership in self.kinds.items():
            known = np.isfinite(membership)
            members = membership[known] > 0
            if 2 <= members.sum() < known.sum():
                rankings[name] = average_precisions(self.embeddings[known], members)
        return rankings

    @cached_property
    def samples(self) -> dict[str, "GalaxyValues"]:
        """Values that are compared between widths, by the name of the measure."""
        samples = {LOSS: GalaxyValues(self.losses.sum(axis=1))}
        for question, errors in zip(self.questions, self.squared_errors.T, strict=True):
            if np.isfinite(errors).any():
                samples[_RMSE + question] = GalaxyValues(errors[np.isfinite(errors)], root=True)
        for kind, ranking in self.rankings.items():
            samples[_PRECISION + kind] = GalaxyValues(ranking.precisions)
        return samples

    def write(self, path: Path) -> None:
        """Write the measurement; the file appears as a whole or not at all."""
        arrays: dict[str, Any] = {f"kind {name}": membership for name, membership in self.kinds.items()}
        arrays |= {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {"questions": np.array(self.questions, str), "ids": self.ids.astype(str)}
        with tables.atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, checkpoint=self.checkpoint, **arrays)

    @classmethod
    def read(cls, path: Path) -> "Measurement":
        """Read a file that :meth:`write` has written.

        Raises
        ------
        StoreError
            The file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    checkpoint=str(stored["checkpoint"]),
                    questions=tuple(map(str, stored["questions"])),
                    ids=stored["ids"],
                    kinds={name.removeprefix("kind "): stored[name] for name in stored if name.startswith("kind ")},
                    **{name: stored[name] for name in _ARRAYS},
                )
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
    if kept.is_file() and (measurement := Measurement.read(kept)).checkpoint == identity(read_card(folder)):
        return measurement
    checkpoint = Checkpoint.open(folder)
    record = tables.read_json(folder / SETTINGS_FILE, fix="Delete the folder and train the job again.")
    survey = open_survey(record["settings"]["data"], recorded_in=record.get("folder", ""), folder=folder)
    galaxies = survey.training_galaxies(cache=folder.parent / _CACHE)
    trained_on = record.get("inputs", {}).get("survey", {})
    changed = changed_inputs(trained_on, hashed(galaxies.identity(), trained_on)) if trained_on else ""
    if changed or galaxies.sha256 != checkpoint.card.get("data", {}).get("sha256"):
        raise DataError(
            f"the survey has changed since the job was trained ({changed or 'names of images'})", value=folder,
            fix="Bring it back as it was, or train again.",
        )  # fmt: skip
    measurement = _measurement(checkpoint, galaxies, survey, workers=workers)
    measurement.write(kept)
    return measurement


@rank_zero_only
def measure_job(job: TrainRun) -> None:
    """Measure the network of a training that has just ended, in the first of its processes."""
    measured(job.out, workers=job.train.workers)


def _measurement(checkpoint: Checkpoint, galaxies: Galaxies, survey: Survey, *, workers: int | None) -> Measurement:
    """Measure the test galaxies that have votes, and all galaxies of which a rare kind is known, in full precision."""
    voted = np.flatnonzero(galaxies.votes.sum(axis=1) > 0)  # type: ignore[union-attr]
    tested = np.intersect1d(galaxies.rows(TEST), voted)
    if not len(tested):
        raise DataError("no galaxy with votes", value="the test split", fix="Set data.test_share=0.15.")
    kinds = rare_kinds(galaxies, survey=survey.settings()["option"])
    known = [np.flatnonzero(np.isfinite(membership)) for membership in kinds.values()]
    loader = CutoutLoader(
        galaxies, np.unique(np.concatenate([tested, *known])), view=checkpoint.view, batch_size=_BATCH,
        workers=workers, on_bad_image=survey.on_bad_image,
    )  # fmt: skip
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = checkpoint.network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc=f"measuring {checkpoint.folder.name}", unit="batch", leave=False):
            outputs = network(batch.images.to(device))
            parts.append((batch.rows.numpy(), *(output.float().cpu().numpy() for output in outputs[:2])))
    rows, embeddings, concentrations = (np.concatenate(part) for part in zip(*parts, strict=True))
    test = np.flatnonzero(np.isin(rows, tested))
    tree, votes, concentrations = checkpoint.tree, galaxies.votes[rows[test]], concentrations[test]  # type: ignore[index]
    losses = question_losses(torch.from_numpy(concentrations), torch.from_numpy(votes), tree)
    errors = tree.fractions(concentrations) - tree.fractions(votes)
    squared_errors = np.stack([np.square(errors[:, part]).mean(axis=1) for part in tree.slices], axis=1)
    return Measurement(
        checkpoint=checkpoint.sha256,
        questions=tuple(question.name for question in tree.questions),
        ids=galaxies.ids[rows],
        embeddings=embeddings,
        test=test,
        losses=losses.numpy(),
        squared_errors=np.where(tree.totals(votes) >= MIN_VOTES, squared_errors, np.nan).astype(np.float32),
        kinds={name: membership[rows] for name, membership in kinds.items()},
    )


def rare_kinds(galaxies: Galaxies, *, survey: str) -> dict[str, Float32[np.ndarray, " n"]]:
    """Return rare kinds of galaxies that the training does not use: 1 for members, 0 for others, NaN where unknown.

    They are the answers of Galaxy Zoo 2 that :mod:`rarezoo.embeddings.answers` names, and the populations that were
    planted in a mock survey.
    """
    kinds = {}
    for answer in DEFAULT_CRITERIA.get(survey, ()):
        values = np.asarray(galaxies.catalogue[answer.column].cast(pa.float64()).to_numpy())
        kinds[answer.name] = np.where(np.isfinite(values), values > answer.threshold, np.nan).astype(np.float32)
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
            values.statistic(weights) - reference.statistic(weights)
            for values, reference in zip(narrow, native, strict=True)
        ]
        draws.append(np.mean(differences, axis=0))
    scattered = np.concatenate(draws)
    by_seed = np.array([values.value - reference.value for values, reference in zip(narrow, native, strict=True)])
    if seeds > 1:
        scattered = scattered + by_seed.std(ddof=1) / np.sqrt(seeds) * random.standard_t(seeds - 1, size=_DRAWS)
    low, high = np.quantile(scattered, (0.025, 0.975)) if galaxies >= _FEWEST else (np.nan, np.nan)
    return Interval(float(by_seed.mean()), float(low), float(high))


class StudyJob(NamedTuple):
    """One training of the study."""

    architecture: str
    width: str
    seed: int

    def __str__(self) -> str:
        return f"{self.architecture}, D = {self.width}, seed {self.seed}"


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
        return {
            job.seed: measurement for job, measurement in sorted(self.jobs.items()) if job[:2] == (architecture, width)
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return every measure at every width, over the seeds.

        Returns
        -------
        pandas.DataFrame
            Index: architecture; width as it was set, the narrowest first and native last; measure. Columns: dimensions
            (width D of the embedding), seeds (number of finished ones), mean and deviation (standard deviation, NaN for
            one seed) over the seeds; cost, low and high: difference from the native width with its 95 % interval, for
            the seeds that both have (paired_seeds is their number), NaN without such seeds.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        index = ["architecture", "width", "measure"]
        values, costs = [], []
        for job in sorted(self.jobs, key=_order):
            measurement = self.jobs[job]
            measures = {RANK: measurement.spectrum.effective_rank, RATIO: measurement.spectrum.participation_ratio}
            measures |= {name: sample.value for name, sample in measurement.samples.items()}
            about = {**job._asdict(), "dimensions": measurement.embeddings.shape[1]}
            values += [{**about, "measure": name, "value": value} for name, value in measures.items()]
        table = (
            pd.DataFrame(values)
            .groupby(index, sort=False)
            .agg(
                dimensions=("dimensions", "first"), seeds=("seed", "size"),
                # NumPy's mean: the one of pandas has compensated sums, which can differ in the last digit.
                mean=("value", lambda sample: np.mean(sample.to_numpy())),
                deviation=("value", lambda sample: np.std(sample.to_numpy(), ddof=1) if len(sample) > 1 else np.nan),
            )
        )  # fmt: skip
        for architecture, width in dict.fromkeys(job[:2] for job in sorted(self.jobs, key=_order)):
            narrow, native = self.of(architecture, width), self.of(architecture, NATIVE)
            paired = sorted(narrow.keys() & native.keys()) if width != NATIVE else []
            for name in native[paired[0]].samples if paired else ():
                cost = paired_interval(*([side[seed].samples[name] for seed in paired] for side in (narrow, native)))
                costs.append((architecture, width, name, len(paired), *cost))
        columns = ["paired_seeds", "cost", "low", "high"]
        table = table.join(pd.DataFrame(costs, columns=[*index, *columns]).set_index(index).astype(float))
        return table.fillna({"paired_seeds": 0}).astype({"paired_seeds": int})

    def verdict(self, architecture: str) -> str:
        """Describe the cost of 128 dimensions in one sentence."""
        losses: Any = self._table.xs(LOSS, level="measure").loc[architecture]
        if _PAPER not in losses.index or not losses.loc[_PAPER].paired_seeds:
            return f"{architecture}: no verdict on {_PAPER} dimensions; it needs them and {NATIVE} from one seed."
        narrow, native = losses.loc[_PAPER], losses.loc[NATIVE]
        galaxies = len(next(iter(self.of(architecture, NATIVE).values())).test)
        seeds = (
            f"{narrow.paired_seeds:.0f} seeds" if narrow.paired_seeds > 1 else "1 seed, whose own scatter is not in it"
        )
        return (
            f"{architecture}: {_PAPER} dimensions cost {_signed(narrow.cost)} nats per galaxy (95 % interval "
            f"{_signed(narrow.low)} … {_signed(narrow.high)}; {galaxies} test galaxies, {seeds}) against the native "
            f"{native.dimensions:.0f}, whose loss is {native['mean']:.3f}; these data exclude a cost above "
            f"{_signed(narrow.high)} nats ({_signed(narrow.high / native['mean'] * 100)} %)."
        )

    def text(self) -> str:
        """Return the text for a terminal."""
        parts = [part for architecture in self.architectures for part in self._architecture_text(architecture)]
        missing = [f"missing: {job} ({reason})" for job, reason in self.missing.items()]
        return "\n".join([*parts, *missing, *map(self.verdict, self.architectures)])

    def _architecture_text(self, architecture: str) -> Iterator[str]:
        table = self._table.loc[architecture]
        widths = list(table.index.unique("width"))
        yield f"## {architecture}\n"
        if native := [measurement.spectrum for measurement in self.of(architecture, NATIVE).values()]:
            components = {share: [spectrum.components(share) for spectrum in native] for share in _SHARES}
            held = ", ".join(
                f"{share:.0%} in {_spread(float(np.mean(counts)), pd.Series(counts).std(), '.1f')}"
                for share, counts in components.items()
            )
            yield f"components that hold the variance of the native {len(native[0].ratios)}: {held}\n"
        rows = []
        for width in widths:
            loss, rank, ratio = (table.loc[(width, name)] for name in (LOSS, RANK, RATIO))
            cost = f"{_signed(loss.cost)} ({_signed(loss.low)} … {_signed(loss.high)})" if loss.paired_seeds else "–"
            rows.append([
                f"{NATIVE} ({loss.dimensions:.0f})" if width == NATIVE else width, f"{loss.seeds:.0f}",
                _spread(loss["mean"], loss.deviation, ".4f"), cost,
                *(_spread(measure["mean"], measure.deviation, ".1f") for measure in (rank, ratio)),
            ])  # fmt: skip
        head = ["D", "seeds", "test loss (nats)", "cost against native (95 %)", "effective rank", "participation ratio"]
        yield markdown(head, rows) + "\n"
        for prefix, title in ((_RMSE, "vote-fraction RMSE"), (_PRECISION, 'average precision of "most like this one"')):
            names = [name for name in table.loc[widths[-1]].index if name.startswith(prefix)]
            if names:
                cells = [
                    [_cost_cell(table.loc[(width, name)]) if (width, name) in table.index else "–" for width in widths]
                    for name in names
                ]
                rows = [[name.removeprefix(prefix), *row] for name, row in zip(names, cells, strict=True)]
                yield f"{title}: native, and the others' difference to it with half its 95 % interval\n"
                yield markdown(["", *(f"D = {width}" for width in widths)], rows) + "\n"

    def content(self) -> dict[str, Any]:
        """Return the content for study.json."""
        architectures = {}
        for architecture in self.architectures:
            widths = []
            for width, table in self._table.loc[architecture].groupby("width", sort=False):
                rows = table.droplevel("width")
                measures = {
                    name: {
                        "mean": row["mean"], "deviation": row.deviation,
                        "against_native": {"value": row.cost, "low": row.low, "high": row.high}
                        if row.paired_seeds else None,
                    }
                    for name, row in rows.drop([RANK, RATIO]).iterrows()
                }  # fmt: skip
                dimensions = {
                    key: rows.loc[name, ["mean", "deviation"]].to_dict()
                    for key, name in (("effective_rank", RANK), ("participation_ratio", RATIO))
                }
                widths.append({
                    "width": width, "dimensions": rows.dimensions.iloc[0],
                    "seeds": tuple(self.of(architecture, str(width))), "paired_seeds": rows.paired_seeds[LOSS],
                    **dimensions, "measures": measures,
                })  # fmt: skip
            architectures[architecture] = {
                "native_explained_variance": {
                    seed: measurement.spectrum.ratios for seed, measurement in self.of(architecture, NATIVE).items()
                },
                "widths": widths,
                "verdict": self.verdict(architecture),
            }
        missing = [{**job._asdict(), "reason": reason} for job, reason in self.missing.items()]
        return {"architectures": architectures, "missing": missing}


def _order(job: StudyJob) -> tuple[str, float, int]:
    """Return a key that sorts by architecture, then by width with native last, then by seed."""
    return job.architecture, float("inf") if job.width == NATIVE else float(job.width), job.seed


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _spread(mean: float, deviation: float, digits: str) -> str:
    return f"{mean:{digits}}" + (f" ± {deviation:{digits}}" if np.isfinite(deviation) else "")


def _cost_cell(row: "pd.Series[Any]") -> str:
    if not row.paired_seeds:
        return _spread(row["mean"], row.deviation, ".4f")
    half = (row.high - row.low) / 2
    return _signed(row.cost) + (f" ± {half:.4f}" if np.isfinite(half) else " (too few galaxies)")


def study_of(folder: Path | str, *, workers: int | None = 0) -> BottleneckStudy:
    """Read the study in the folder of a multirun.

    Raises
    ------
    StoreError
        No job is finished, or jobs were trained on other data or with other settings.
    """
    settings = {}
    for path in sorted(Path(folder).glob(f"*/{SETTINGS_FILE}")):
        try:
            record = tables.read_json(path, fix="Delete the folder and train the job again.")
        except StoreError as problem:
            log.warning("a job is left out: %s", problem)
            continue
        if record.get("verb") == "train":
            settings[path.parent] = {**record["settings"], "inputs": inputs_sha256(record)}
    _require_same_settings({place: job for place, job in settings.items() if is_checkpoint(place)})
    places = {
        StudyJob(job["model"]["architecture"], str(job["model"]["bottleneck"]), int(job["seed"])): place
        for place, job in settings.items()
    }
    # Every combination of architecture, width and seed belongs to the study, also one that was never begun.
    combinations = product(*({job[field] for job in places} for field in range(len(StudyJob._fields))))
    jobs, missing = dict[StudyJob, Measurement](), dict[StudyJob, str]()
    first: dict[str, StudyJob] = {}
    for job in sorted(map(StudyJob._make, combinations), key=_order):
        place = places.get(job)
        if place is None or not is_checkpoint(place):
            missing[job] = "not trained"
            continue
        try:
            jobs[job] = measured(place, workers=workers)
        except RarezooError as problem:
            missing[job] = str(problem)
            continue
        reference = first.setdefault(job.architecture, job)
        if not all(
            np.array_equal(getattr(jobs[job], name), getattr(jobs[reference], name)) for name in ("ids", "test")
        ):
            raise StoreError(
                "jobs were measured on different galaxies", value=f"{reference} and {job}",
                fix=f"Delete {MEASURED} in both folders and run rarezoo study again.",
            )  # fmt: skip
    if not jobs:
        raise StoreError(
            "no finished job of a bottleneck study", value=folder, fix="Run one: python train.py experiment=bottleneck."
        )
    return BottleneckStudy(jobs, missing)


def _require_same_settings(jobs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise StoreError unless the jobs of an architecture differ only in width and seed."""
    first: dict[str, Path] = {}
    for place, job in jobs.items():
        reference = first.setdefault(job["model"]["architecture"], place)
        changed = [
            f"{part}.{key}"
            for part in ("data", "model", "train", "inputs")
            for key in sorted({*job.get(part, {}), *jobs[reference].get(part, {})})
            if job.get(part, {}).get(key) != jobs[reference].get(part, {}).get(key)
            and key != "bottleneck"
            and not _are_places(job.get(part, {}).get(key), jobs[reference].get(part, {}).get(key))
        ]
        if changed:
            raise StoreError(
                f"jobs of one study may differ only in width and seed; these differ in {', '.join(changed)}",
                value=f"{reference} and {place}", fix="Move one of them out of the folder.",
            )  # fmt: skip


def _are_places(*values: Any) -> bool:
    """Return whether all values are absolute paths: what lies there is known by its hash, and may lie anywhere."""
    return all(isinstance(value, str) and Path(value).is_absolute() for value in values)


def write_study(folder: Path | str, *, workers: int = 0) -> str:
    """Write study.json, study.png and study.webp into the folder, and return the text; see :class:`StudyRun`."""
    folder = Path(folder)
    study = study_of(folder, workers=workers)
    tables.write_json(study.content(), folder / "study.json")
    _draw(study, folder / "study.png")
    return study.text()


def _draw(study: BottleneckStudy, path: Path) -> None:
    """Draw per architecture the explained variance, the cost in loss, and the cost in finding rare kinds."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(13, 3.8 * len(study.architectures)), layout="constrained")
    panels = figure.subplots(len(study.architectures), 3, squeeze=False)
    for (variance, loss, precision), architecture in zip(panels, study.architectures, strict=True):
        for measurement in study.of(architecture, NATIVE).values():
            held = np.cumsum(measurement.spectrum.ratios)
            variance.plot(np.arange(1, len(held) + 1), held, color="C0", alpha=0.6)
        variance.axvline(int(_PAPER), color="grey", linestyle=":", linewidth=1)
        variance.set(xscale="log", ylim=(0, 1.02), xlabel="principal components")
        variance.set(ylabel="variance held, native, each seed")
        variance.set_title(figure_text(architecture), loc="left")
        table: Any = study.to_pandas().loc[architecture]
        kinds = [name for name in table.loc[table.index[-1][0]].index if name.startswith(_PRECISION)]
        _draw_costs(loss, table, [LOSS], "test loss less native's (nats per galaxy)")
        _draw_costs(precision, table, kinds, "average precision less native's")
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    with tables.atomic(path.with_suffix(".webp")) as temporary, Image.open(path) as picture:
        picture.convert("RGB").save(temporary, format="WEBP", quality=85)


def _draw_costs(axes: Any, table: pd.DataFrame, names: Sequence[str], label: str) -> None:
    """Draw the cost of each width in some measures; the table is that of one architecture."""
    narrow = table[table.paired_seeds > 0]
    dimensions = narrow.dimensions.groupby("width", sort=False).first().to_numpy()
    for number, name in enumerate(names):
        costs = narrow[narrow.index.get_level_values("measure") == name]
        # Side by side, so that the intervals do not overlap.
        places = costs.dimensions * _BESIDE ** ((number + 0.5) / len(names) - 0.5)
        ends = [costs.cost - costs.low, costs.high - costs.cost]
        kind = name.removeprefix(_PRECISION)
        axes.errorbar(places, costs.cost, yerr=ends, marker=".", capsize=2, label=figure_text(kind))
    axes.axhline(0, color="grey", linewidth=1)
    axes.set(xscale="log", xlabel="D", ylabel=label)
    axes.set_xticks(dimensions, map(str, dimensions))
    axes.minorticks_off()
    if len(dimensions):
        axes.set_xlim(dimensions[0] / 1.5, dimensions[-1] * 1.5)
    if len(names) > 1:
        axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


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
