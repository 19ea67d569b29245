"""Measure the network of one training, galaxy by galaxy, and keep the result beside its checkpoint.

Every job of a bottleneck study is measured once. :mod:`rarezoo.studies.bottleneck` compares the measurements.

If the trunk was frozen, the galaxies are embedded as the recipe for released networks embeds them: as the mean over the
orientations of the training. The features of the trunk are then computed once for all jobs.

Shape letters: n galaxies measured, t of them in the test split, d width of the embedding, q questions, w sets of
weights, r resamples.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
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
from rarezoo.embeddings import measures
from rarezoo.embeddings.answers import DEFAULT_CRITERIA
from rarezoo.embeddings.quality import Ranking, Spectrum, average_precisions, spectrum
from rarezoo.errors import DataError, StoreError
from rarezoo.runs import SETTINGS_FILE, changed_inputs, hashed
from rarezoo.training.fit import TrainRun
from rarezoo.training.frozen import frozen_features
from rarezoo.training.loss import question_losses
from rarezoo.training.metrics import MIN_VOTES
from rarezoo.zoo.cards import identity, read_card
from rarezoo.zoo.checkpoint import Checkpoint

MEASURED = "study.npz"
# The measure that every network has, and the beginnings of the names of others: RMSE QUESTION, probe KIND and so on.
LOSS, RMSE, PRECISION, TEN_SHOT, PROBE = "loss", "RMSE ", "average precision ", "10-shot ", "probe "
# Labels of a kind and others from which a classifier learns for 10-shot.
_LABELS, _OTHERS = 10, 100
# Folder of what the jobs of a multirun share: fingerprints of the survey's images, features of a frozen trunk.
_CACHE = ".study"
_BATCH = 256
# Number of the form of the files, which grows when something else is measured.
_EDITION = 2
_ARRAYS = ("embeddings", "test", "losses", "squared_errors")


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


@dataclass(frozen=True)
class Resampled:
    """A number that is not a mean over galaxies, and its values in resamples of them, the same ones for every job."""

    value: float
    values: Float64[np.ndarray, " r"]


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
    learnt
        How well classifiers find these kinds, by the name of the measure. ``10-shot KIND``: the average precision for
        each draw of labels. ``probe KIND``: the average precision, then its values in resamples of the galaxies.
    """

    checkpoint: str
    questions: tuple[str, ...]
    ids: np.ndarray
    embeddings: Float32[np.ndarray, "n d"]
    test: Int64[np.ndarray, " t"]
    losses: Float32[np.ndarray, "t q"]
    squared_errors: Float[np.ndarray, "t q"]
    kinds: Mapping[str, Float32[np.ndarray, " n"]]
    learnt: Mapping[str, Float64[np.ndarray, " r"]] = field(default_factory=dict)

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
    def samples(self) -> dict[str, GalaxyValues | Resampled]:
        """Values that are compared between widths, by the name of the measure."""
        samples: dict[str, GalaxyValues | Resampled] = {LOSS: GalaxyValues(self.losses.sum(axis=1))}
        for question, errors in zip(self.questions, self.squared_errors.T, strict=True):
            if np.isfinite(errors).any():
                samples[RMSE + question] = GalaxyValues(errors[np.isfinite(errors)], root=True)
        for kind, ranking in self.rankings.items():
            samples[PRECISION + kind] = GalaxyValues(ranking.precisions)
        for name, values in self.learnt.items():
            is_probe = name.startswith(PROBE)
            samples[name] = Resampled(float(values[0]), values[1:]) if is_probe else GalaxyValues(values)
        return samples

    def write(self, path: Path) -> None:
        """Write the measurement; the file appears as a whole or not at all."""
        arrays: dict[str, Any] = {f"kind {name}": membership for name, membership in self.kinds.items()}
        arrays |= {f"learnt {name}": values for name, values in self.learnt.items()}
        arrays |= {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {"questions": np.array(self.questions, str), "ids": self.ids.astype(str), "edition": _EDITION}
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
            # The file is opened here, because NumPy would not close a damaged one.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                if int(stored["edition"]) != _EDITION:
                    raise ValueError("a measurement of another edition")
                return cls(
                    checkpoint=str(stored["checkpoint"]),
                    questions=tuple(map(str, stored["questions"])),
                    ids=stored["ids"],
                    kinds=_beginning_with("kind ", stored),
                    learnt=_beginning_with("learnt ", stored),
                    **{name: stored[name] for name in _ARRAYS},
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
            raise StoreError("unreadable measurement", value=path, fix="Delete it; it is then made again.") from problem


def _beginning_with(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


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
    trained = record["settings"]["train"]
    turns = trained["turns"] if trained["freeze_trunk"] else 0
    measurement = _measurement(
        checkpoint, galaxies, survey, turns=turns, cache=folder.parent / _CACHE, workers=workers
    )  # fmt: skip
    measurement.write(kept)
    return measurement


@rank_zero_only
def measure_job(job: TrainRun) -> None:
    """Measure the network of a training that has just ended, in the first of its processes."""
    measured(job.out, workers=job.train.workers)


def _measurement(
    checkpoint: Checkpoint, galaxies: Galaxies, survey: Survey, *, turns: int, cache: Path, workers: int | None
) -> Measurement:
    """Measure the test galaxies that have votes, and all galaxies of which a rare kind is known, in full precision."""
    voted = np.flatnonzero(galaxies.votes.sum(axis=1) > 0)  # type: ignore[union-attr]
    tested = np.intersect1d(galaxies.rows(TEST), voted)
    if not len(tested):
        raise DataError("no galaxy with votes", value="the test split", fix="Set data.test_share=0.15.")
    kinds = rare_kinds(galaxies, survey=survey.settings()["option"])
    known = [np.flatnonzero(np.isfinite(membership)) for membership in kinds.values()]
    wanted = np.unique(np.concatenate([tested, *known]))
    if turns:
        outputs = _of_frozen_trunk(
            checkpoint, galaxies, wanted, turns=turns, cache=cache, on_bad_image=survey.on_bad_image, workers=workers
        )
    else:
        loader = CutoutLoader(
            galaxies, wanted, view=checkpoint.view, batch_size=_BATCH, workers=workers,
            on_bad_image=survey.on_bad_image,
        )  # fmt: skip
        outputs = _of_images(checkpoint, loader)
    rows, embeddings, concentrations = outputs
    test = np.flatnonzero(np.isin(rows, tested))
    tree, votes, concentrations = checkpoint.tree, galaxies.votes[rows[test]], concentrations[test]  # type: ignore[index]
    losses = question_losses(torch.from_numpy(concentrations), torch.from_numpy(votes), tree)
    errors = tree.fractions(concentrations) - tree.fractions(votes)
    squared_errors = np.stack([np.square(errors[:, part]).mean(axis=1) for part in tree.slices], axis=1)
    kinds = {name: membership[rows] for name, membership in kinds.items()}
    return Measurement(
        checkpoint=checkpoint.sha256,
        questions=tuple(question.name for question in tree.questions),
        ids=galaxies.ids[rows],
        embeddings=embeddings,
        test=test,
        losses=losses.numpy(),
        squared_errors=np.where(tree.totals(votes) >= MIN_VOTES, squared_errors, np.nan).astype(np.float32),
        kinds=kinds,
        learnt=found_by_classifiers(embeddings, kinds),
    )


class _Outputs(NamedTuple):
    """What a network says of some rows of a survey."""

    rows: Int64[np.ndarray, " n"]
    embeddings: Float32[np.ndarray, "n d"]
    concentrations: Float32[np.ndarray, "n a"]


def _of_images(checkpoint: Checkpoint, loader: CutoutLoader) -> _Outputs:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = checkpoint.network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc=f"measuring {checkpoint.folder.name}", unit="batch", leave=False):
            outputs = network(batch.images.to(device))
            parts.append((batch.rows.numpy(), *(output.float().cpu().numpy() for output in outputs[:2])))
    return _Outputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _of_frozen_trunk(
    checkpoint: Checkpoint, galaxies: Galaxies, rows: np.ndarray, *, turns: int, cache: Path, on_bad_image: str,
    workers: int | None,
) -> _Outputs:  # fmt: skip
    """Return the mean embedding over orientations, and the concentrations of the galaxy as its image is."""
    features = frozen_features(
        checkpoint.network, galaxies, rows, encoder=checkpoint.encoder, turns=turns, cache=cache,
        on_bad_image=on_bad_image, workers=workers,
    )  # fmt: skip
    network = checkpoint.network.without_trunk().cpu().eval()
    with torch.inference_mode():
        outputs = [network(torch.from_numpy(turn).float()) for turn in features.values.swapaxes(0, 1)]
    embeddings = torch.stack([output.embedding for output in outputs]).mean(dim=0)
    return _Outputs(features.rows, embeddings.numpy(), outputs[0].concentrations.numpy())


def found_by_classifiers(
    embeddings: Float32[np.ndarray, "n d"], kinds: Mapping[str, Float32[np.ndarray, " n"]]
) -> dict[str, Float64[np.ndarray, " r"]]:
    """Return how well classifiers find rare kinds with ten labels and with four fifths of all.

    Kinds of which too few galaxies are known are left out. See :attr:`Measurement.learnt`.
    """
    learnt = {}
    for kind, membership in kinds.items():
        known = np.isfinite(membership)
        features, positive = embeddings[known], membership[known] > 0
        members, rest = int(positive.sum()), int((~positive).sum())
        if members >= _LABELS + measures.FEWEST and rest >= _OTHERS + measures.FEWEST:
            few = measures.few_labels(features, positive, labels=_LABELS, others=_OTHERS)
            learnt[TEN_SHOT + kind] = few["average precision"].values
        if min(members, rest) >= measures.FEWEST:
            sample = measures.probe(features, positive, seeds=1)
            learnt[PROBE + kind] = np.array([sample.value, *sample.values])
    return learnt


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
