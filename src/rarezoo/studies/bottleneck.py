"""Measure the cost of a narrower embedding, from the files that the jobs of a multirun leave: ``rarezoo study``.

Widths are compared that were trained with the same seed, and measured on the same galaxies. A job that failed is listed
as missing. :mod:`rarezoo.studies.measurement` measures a job; :mod:`rarezoo.studies.bottleneck_report` writes the
result as text, JSON and a figure.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64

from rarezoo import tables
from rarezoo.errors import RarezooError, StoreError
from rarezoo.runs import SETTINGS_FILE, inputs_sha256
from rarezoo.settings import Settings, setting
from rarezoo.statistics import Interval
from rarezoo.studies.measurement import MEASURED, GalaxyValues, Measurement, Resampled, measured
from rarezoo.zoo.cards import is_checkpoint
from rarezoo.zoo.encoder import NATIVE

log = logging.getLogger(__name__)
RANK, RATIO = "effective rank", "participation ratio"
_DRAWS, _AT_ONCE = 2000, 200
# Bootstrap draws of fewer galaxies are too often the same ones.
_FEWEST = 10


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


def write_study(folder: Path | str, *, workers: int = 0) -> str:
    """Write study.json, study.png and study.webp into the folder, and return the text; see :class:`StudyRun`."""
    from rarezoo.studies.bottleneck_report import write_report

    return write_report(study_of(folder, workers=workers), Path(folder))


def study_of(folder: Path | str, *, workers: int | None = 0) -> "BottleneckStudy":
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
            and not _follows_from_width(key, job, jobs[reference])
            and not _are_places(job.get(part, {}).get(key), jobs[reference].get(part, {}).get(key))
        ]
        if changed:
            raise StoreError(
                f"jobs of one study may differ only in width and seed; these differ in {', '.join(changed)}",
                value=f"{reference} and {place}", fix="Move one of them out of the folder.",
            )  # fmt: skip


def _follows_from_width(key: str, *jobs: Mapping[str, Any]) -> bool:
    """Return whether a setting may differ: the width, and how the bottleneck starts if one of the jobs has none."""
    lacks_bottleneck = any(str(job["model"]["bottleneck"]) == NATIVE for job in jobs)
    return key == "bottleneck" or (key == "bottleneck_start" and lacks_bottleneck)


def _are_places(*values: Any) -> bool:
    """Return whether all values are absolute paths: what lies there is known by its hash, and may lie anywhere."""
    return all(isinstance(value, str) and Path(value).is_absolute() for value in values)


class StudyJob(NamedTuple):
    """One training of the study."""

    architecture: str
    width: str
    seed: int

    def __str__(self) -> str:
        return f"{self.architecture}, D = {self.width}, seed {self.seed}"


def _order(job: StudyJob) -> tuple[str, float, int]:
    """Return a key that sorts by architecture, then by width with native last, then by seed."""
    return job.architecture, float("inf") if job.width == NATIVE else float(job.width), job.seed


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


def paired_interval(
    narrow: Sequence[GalaxyValues | Resampled], native: Sequence[GalaxyValues | Resampled]
) -> Interval:  # fmt: skip
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
    random, seeds = np.random.default_rng(0), len(native)
    by_seed = np.array([values.value - reference.value for values, reference in zip(narrow, native, strict=True)])
    scattered = _resampled_differences(narrow, native, random)
    if not len(scattered):
        return Interval(float(by_seed.mean()), np.nan, np.nan)
    if seeds > 1:
        error = by_seed.std(ddof=1) / np.sqrt(seeds)
        scattered = scattered + error * random.standard_t(seeds - 1, size=len(scattered))
    low, high = np.quantile(scattered, (0.025, 0.975))
    return Interval(float(by_seed.mean()), float(low), float(high))


def _resampled_differences(
    narrow: Sequence[GalaxyValues | Resampled], native: Sequence[GalaxyValues | Resampled], random: np.random.Generator
) -> Float64[np.ndarray, " r"]:
    """Return the mean difference over seeds in resamples of the galaxies; nothing for fewer than ten galaxies."""
    pairs = list(zip(narrow, native, strict=True))
    if isinstance(native[0], Resampled):
        return np.mean([values.values - reference.values for values, reference in pairs], axis=0)
    galaxies, draws = len(native[0].values), []
    if galaxies < _FEWEST:
        return np.empty(0)
    for start in range(0, _DRAWS, _AT_ONCE):
        size = min(_AT_ONCE, _DRAWS - start)
        # Weights and not rows as in rarezoo.statistics, because all seeds share one draw and its matrix product.
        weights = random.multinomial(galaxies, np.full(galaxies, 1 / galaxies), size=size).T.astype(np.float64)
        differences = [
            values.statistic(weights) - reference.statistic(weights)  # type: ignore[union-attr]
            for values, reference in pairs
        ]
        draws.append(np.mean(differences, axis=0))
    return np.concatenate(draws)
