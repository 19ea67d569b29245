"""``rarezoo judge``: how good a store's representation is, against colour, size and concentration.

Each galaxy with a rare answer asks for its like; whoever answers is ranked by distance. An embedding is worth its
network only where it ranks better than four numbers that need none.
"""

import argparse
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float64, Int64

from rarezoo import tables
from rarezoo.data.photometry import COLUMNS, photometry
from rarezoo.data.survey import Galaxies, open_survey
from rarezoo.embeddings.quality import (
    METRICS,
    Ranking,
    Spectrum,
    average_precisions,
    local_dimension,
    spectrum,
    whitened,
)
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, StoreError
from rarezoo.runs import claim
from rarezoo.tables import markdown
from rarezoo.zoo.cards import annotate

SPLITS = ("all", "train", "validation", "test")
BASELINE = COLUMNS[:4]
_VARIANCE = 0.95
# Galaxies of which the local dimension is measured: it grows a little with their number.
_SAMPLED = 2000
# Shares of the variance below this are hardly more than the rounding of float32 embeddings.
_RESOLVED = 1e-8


@dataclass(frozen=True)
class Answer:
    """A kind of galaxy: those whose catalogue column is above a threshold. Where it is NaN, nobody knows."""

    name: str
    column: str
    above: float

    @classmethod
    def parsed(cls, text: str) -> "Answer":
        """An answer from ``NAME=COLUMN>VALUE``.

        Raises:
            ConfigError: it reads otherwise.
        """
        name, _, condition = text.partition("=")
        column, _, above = condition.rpartition(">")
        try:
            if name.strip() and column.strip():
                return cls(name.strip(), column.strip(), float(above))
        except ValueError:
            pass
        raise ConfigError("an answer reads NAME=COLUMN>VALUE", value=text, fix="For example ring=Class8.1>0.3.")


# Galaxy Zoo 2's rare answers, which its networks are not told: see data.leave_out.
USUAL = {
    "gz2": (
        Answer("ring", "Class8.1", 0.3),
        Answer("merger", "Class8.6", 0.3),
        Answer("irregular", "Class8.4", 0.3),
        Answer("odd", "Class6.1", 0.5),
    )
}


@dataclass(frozen=True)
class Representation:
    """What is judged of a store: the embeddings (n, D) of the galaxies that all stores hold."""

    name: str
    embeddings: Float[np.ndarray, "n D"]
    components: int

    @cached_property
    def spectrum(self) -> Spectrum:
        """How its variance is spread."""
        return spectrum(self.embeddings)

    @cached_property
    def local_dimension(self) -> float:
        """In how many directions galaxies differ from their neighbours; of a sample."""
        random = np.random.default_rng(0)
        some = random.choice(len(self.embeddings), min(len(self.embeddings), _SAMPLED), replace=False)
        return local_dimension(np.ascontiguousarray(self.embeddings[np.sort(some)], dtype=np.float32))

    @cached_property
    def ways(self) -> dict[str, Float[np.ndarray, "n d"]]:
        """Features by name: as they are, and their first components whitened."""
        even = whitened(self.embeddings, components=self.components)
        return {self.name: self.embeddings, f"{self.name} whitened": even}


@dataclass(frozen=True)
class Score:
    """How well one answer is found: by the baseline (the better of two metrics), and by each representation."""

    answer: Answer
    baseline: Ranking
    baseline_metric: str
    rankings: dict[str, Ranking]

    def cells(self) -> list[str]:
        """A row of the table."""
        ranked = [f"{one.mean.text('.4f')}, {one.ratio(self.baseline).text('.2f')} ×" for one in self.rankings.values()]
        name = f"{self.answer.name} ({self.answer.column} > {self.answer.above:g})"
        known = [str(self.baseline.galaxies), str(self.baseline.positives), f"{self.baseline.chance:.4f}"]
        return [name, *known, f"{self.baseline.mean.text('.4f')} {self.baseline_metric}", *ranked]

    def content(self) -> dict[str, Any]:
        """The same for a file."""
        baseline = {"metric": self.baseline_metric, "average_precision": self.baseline.mean._asdict()}
        rankings = {
            name: {"average_precision": one.mean._asdict(), "ratio": one.ratio(self.baseline)._asdict()}
            for name, one in self.rankings.items()
        }
        counts = {"galaxies": self.baseline.galaxies, "positives": self.baseline.positives}
        chances = {"prevalence": self.baseline.prevalence, "chance": self.baseline.chance}
        return {**asdict(self.answer), **counts, **chances, "baseline": baseline, "representations": rankings}


@dataclass(frozen=True)
class Judgement:
    """What is known of some representations of the same galaxies."""

    survey: str
    split: str
    galaxies: int
    spectra: dict[str, Spectrum]
    local_dimensions: dict[str, float]
    scores: tuple[Score, ...]

    def text(self) -> str:
        """For a terminal: a line per store, then a row per answer."""
        head = ["answer", "galaxies", "positive", "chance", "colour + size + concentration", *self.scores[0].rankings]
        table = markdown(head, [score.cells() for score in self.scores])
        about = (
            f'{self.galaxies} galaxies of {self.survey}, split {self.split}; average precision of "most like this '
            f"one\" (95 % interval over queries), and its ratio to the baseline's"
        )
        return "\n".join([*self._spectrum_lines(), about, table])

    def markdown(self) -> str:
        """For a model card: the same, lists and tables set apart."""
        *lines, about, table = self.text().split("\n", len(self.spectra) + 1)
        return "\n".join([*(f"- {line}" for line in lines), "", f"{about}.", "", table])

    def _spectrum_lines(self) -> Iterator[str]:
        for name, one in self.spectra.items():
            yield (
                f"{name}: effective rank {one.effective_rank:.2f}, participation ratio {one.participation_ratio:.2f}, "
                f"{one.components(_VARIANCE)} of {len(one.ratios)} components hold {_VARIANCE:.0%} of the variance, "
                f"local dimension {self.local_dimensions[name]:.1f}"
            )

    def content(self) -> dict[str, Any]:
        """For judge.json."""
        spectra = {
            name: {
                "effective_rank": one.effective_rank,
                "participation_ratio": one.participation_ratio,
                "components_for_95_percent": one.components(_VARIANCE),
                "local_dimension": self.local_dimensions[name],
                "explained_variance_ratios": one.ratios,
            }
            for name, one in self.spectra.items()
        }
        about = {"survey": self.survey, "split": self.split, "galaxies": self.galaxies}
        return {**about, "stores": spectra, "answers": [score.content() for score in self.scores]}


@dataclass(frozen=True)
class Judge:
    """Judges stores of one survey, on answers that may be known of some of its galaxies only.

    Attributes:
        stores: folders.
        answers: to judge by; none: the survey's usual ones.
        split: one of :data:`SPLITS`.
        whiten: principal components of an embedding that are brought to unit variance, for a second try.
        out: folder for judge.json, spectra.png and the photometry; empty writes nothing.
    """

    stores: Sequence[Path | str]
    answers: Sequence[Answer] = ()
    split: str = SPLITS[0]
    whiten: int = 48
    out: str = ""

    def run(self) -> Judgement:
        """Judge.

        Raises:
            ConfigError, DataError, StoreError, OutputError: see the message.
        """
        opened = _same_survey([EmbeddingStore.open(one) for one in self.stores])
        galaxies = _survey_of(opened[0])
        values = {one: _values(galaxies.catalogue, one.column) for one in self._answers(opened[0].manifest.survey)}
        rows = _common_rows(galaxies, opened, split=self.split)
        values = {one: column[rows] for one, column in values.items()}
        _refuse_too_few(values)
        folder = self._claimed(opened, list(values)) if self.out else None
        names = _names(opened)
        representations = [
            Representation(name, _embeddings(store, galaxies.ids[rows]), self.whiten)
            for name, store in zip(names, opened, strict=True)
        ]
        baseline = _baseline(galaxies, rows, values, cache=folder / "photometry.npy" if folder else None)
        scores = tuple(_score(one, values[one], baseline, representations) for one in values)
        spectra = {one.name: one.spectrum for one in representations}
        dimensions = {one.name: one.local_dimension for one in representations}
        judgement = Judgement(opened[0].manifest.survey, self.split, len(rows), spectra, dimensions, scores)
        if folder:
            tables.write_json(judgement.content(), folder / "judge.json")
            _plot(spectra, folder / "spectra.png")
        return judgement

    def _answers(self, survey: str) -> Sequence[Answer]:
        answers = self.answers or USUAL.get(survey, ())
        if not answers:
            raise ConfigError("no answer to judge by", value=survey, fix="Give some: --answer NAME=COLUMN>VALUE.")
        return answers

    def _claimed(self, stores: Sequence[EmbeddingStore], answers: Sequence[Answer]) -> Path:
        judged = [
            {"survey": one.manifest.survey_sha256, "checkpoint": one.manifest.checkpoint_sha256} for one in stores
        ]
        about = {"stores": judged, "answers": [asdict(one) for one in answers]}
        return claim(self.out, verb="judge", settings={**about, "split": self.split, "whiten": self.whiten})


def _same_survey(stores: Sequence[EmbeddingStore]) -> Sequence[EmbeddingStore]:
    first = stores[0]
    for other in stores[1:]:
        if other.manifest.survey_sha256 != first.manifest.survey_sha256:
            raise StoreError(
                "stores of different surveys", value=f"{first.folder} and {other.folder}",
                fix="Judge them one by one, or embed the same survey (also the same data.limit) twice.",
            )  # fmt: skip
    return stores


def _survey_of(store: EmbeddingStore) -> Galaxies:
    galaxies = open_survey(store.manifest.survey_settings).open()
    if galaxies.sha256 != store.manifest.survey_sha256:
        raise StoreError(
            "the store's survey has changed since it was embedded", value=store.folder,
            fix="Bring the survey back as it was, or embed it anew.",
        )  # fmt: skip
    return galaxies


def _values(catalogue: pa.Table, column: str) -> Float64[np.ndarray, " n"]:
    """A numeric column of the catalogue, NaN where it is not known."""
    if column not in catalogue.column_names:
        names = catalogue.column_names
        near = difflib.get_close_matches(column, names, n=3) or names[:8]
        raise ConfigError(
            "the survey's catalogue has no column", value=column, fix=f"Did you mean {' or '.join(near)}?"
        )
    try:
        return np.asarray(catalogue[column].cast(pa.float64()).to_numpy(), dtype=np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
        raise ConfigError("not a column of numbers", value=column, fix="Choose one that has a threshold.") from problem


def _common_rows(galaxies: Galaxies, stores: Sequence[EmbeddingStore], *, split: str) -> Int64[np.ndarray, " n"]:
    """Rows of the split's galaxies that every store holds."""
    if split not in SPLITS:
        raise ConfigError("unknown split", value=split, fix=f"Choose one of: {', '.join(SPLITS)}.")
    rows = np.arange(len(galaxies)) if split == SPLITS[0] else galaxies.rows(split)
    skipped = {one for store in stores for one in store.skipped()}
    return np.array([row for row in rows if galaxies.ids[row] not in skipped], dtype=np.int64)


def _refuse_too_few(values: Mapping[Answer, np.ndarray]) -> None:
    for answer, column in values.items():
        known = column[np.isfinite(column)]
        positive = int(np.sum(known > answer.above))
        if not 2 <= positive < len(known):
            raise ConfigError(
                f"{answer.name} cannot be ranked: {answer.column} > {answer.above:g}",
                value=f"{positive} of {len(known)} for whom it is known",
                fix="Two must be above and one must not: change that --answer's threshold, or judge another --split.",
            )


def _names(stores: Sequence[EmbeddingStore]) -> list[str]:
    """Each store's checkpoint, and its folder where that does not tell it apart."""
    names = [one.manifest.checkpoint for one in stores]
    return [
        name if names.count(name) == 1 else f"{name} ({one.folder})" for name, one in zip(names, stores, strict=True)
    ]


def _embeddings(store: EmbeddingStore, ids: np.ndarray) -> Float[np.ndarray, "n D"]:
    place = {one: row for row, one in enumerate(store.ids)}
    return np.asarray(store.embeddings()[[place[one] for one in ids]])


@dataclass(frozen=True)
class _Baseline:
    """Photometry (n, 4), each column of unit variance; all NaN for galaxies of whom no answer is known."""

    features: Float64[np.ndarray, "n 4"]

    def ranking(self, positive: Bool[np.ndarray, " k"], known: Bool[np.ndarray, " n"]) -> tuple[str, Ranking]:
        """The better of both metrics, so that no embedding wins by the baseline's bad choice."""
        rankings = [(one, average_precisions(self.features[known], positive, metric=one)) for one in METRICS]
        return max(rankings, key=lambda pair: pair[1].mean.value)


def _baseline(
    galaxies: Galaxies, rows: np.ndarray, values: Mapping[Answer, np.ndarray], *, cache: Path | None
) -> _Baseline:
    known = np.any([np.isfinite(column) for column in values.values()], axis=0)
    measured = photometry(galaxies.images, rows[known], cache=cache)[:, : len(BASELINE)].astype(np.float64)
    spread = measured.std(axis=0) if len(measured) else np.ones(len(BASELINE))
    features = np.full((len(rows), len(BASELINE)), np.nan)
    features[known] = measured / np.where(spread > 0, spread, 1)
    return _Baseline(features)


def _score(answer: Answer, values: np.ndarray, baseline: _Baseline, representations: Sequence[Representation]) -> Score:
    known = np.isfinite(values)
    positive = values[known] > answer.above
    metric, ranking = baseline.ranking(positive, known)
    rankings = {
        name: average_precisions(features[known], positive)
        for one in representations
        for name, features in one.ways.items()
    }
    return Score(answer, ranking, metric, rankings)


def _plot(spectra: Mapping[str, Spectrum], path: Path) -> None:
    """Variance along each principal component, a line per store."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, one in spectra.items():
        label = f"{name}: effective rank {one.effective_rank:.1f}"
        axes.loglog(np.arange(1, len(one.ratios) + 1), one.ratios, marker=".", label=label)
    axes.set(ylim=(_RESOLVED, 1.5), xlabel="principal component", ylabel="share of the variance")
    axes.legend(loc="lower left", frameon=False)
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def add_judge_verb(verbs: Any) -> None:
    """``rarezoo judge`` for the command line."""
    parser = verbs.add_parser("judge", help="how good a representation is: rank, and ranking of rare answers")
    parser.add_argument("stores", nargs="+", metavar="STORE", help="embedding stores of one survey")
    parser.add_argument(
        "--answer", action="append", default=[], metavar="NAME=COLUMN>VALUE",
        help="a kind of galaxy, by a column of the survey's catalogue; repeatable; gz2 has four of its own",
    )  # fmt: skip
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="galaxies to judge by")
    parser.add_argument(
        "--whiten", type=int, default=Judge.whiten, help="principal components brought to unit variance"
    )
    parser.add_argument("--out", default="", help="folder for judge.json and spectra.png; empty: none")
    parser.add_argument("--card", default="", metavar="FOLDER", help="checkpoint whose card the judgement is put on")
    parser.set_defaults(run=_judge)


def _judge(options: argparse.Namespace) -> None:
    answers = [Answer.parsed(one) for one in options.answer]
    judgement = Judge(options.stores, answers, options.split, options.whiten, options.out).run()
    print(judgement.text())
    if options.card:
        annotate(options.card, representation=judgement.markdown())
