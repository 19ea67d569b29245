"""``rarezoo judge``: measure how good an embedding is before anything is clustered.

Each galaxy of a rare kind is a query, and all other galaxies are ranked by their distance from it. A network is worth
its cost only if its embedding ranks better than four numbers that need no network: two colours, size and concentration.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float64, Int64

from rarezoo import tables
from rarezoo.data.photometry import COLUMNS, photometry
from rarezoo.data.survey import Galaxies, Survey
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
from rarezoo.escapes import figure_text
from rarezoo.runs import claim
from rarezoo.settings import Settings, setting
from rarezoo.zoo.cards import annotate

log = logging.getLogger(__name__)
SPLITS = ("all", "train", "validation", "test")
# Columns of the photometry that make the baseline: two colours, half-light radius, concentration.
BASELINE = COLUMNS[:4]
# Share of the variance for which components are counted in the report.
_VARIANCE = 0.95
# Galaxies on which the local dimension is measured: it grows a little with their number.
_SAMPLED = 2000
# Shares of the variance below this are hardly more than the rounding of float32 embeddings.
_RESOLVED = 1e-8


@dataclass(frozen=True)
class Criterion:
    """A kind of galaxy: those whose catalogue column is above a threshold. NaN means that it is not known.

    Attributes
    ----------
    name : str
        Name of the kind, such as ``ring``.
    column : str
        Column of the survey's catalogue.
    above : float
        Threshold.

    Examples
    --------
    >>> Criterion.parsed("ring=Class8.1>0.3")
    Criterion(name='ring', column='Class8.1', above=0.3)
    """

    name: str
    column: str
    above: float

    @classmethod
    def parsed(cls, text: str) -> "Criterion":
        """Read a criterion from ``NAME=COLUMN>VALUE``.

        Raises
        ------
        ConfigError
            The text has another form.
        """
        name, _, condition = text.partition("=")
        column, _, above = condition.rpartition(">")
        try:
            if name.strip() and column.strip():
                return cls(name.strip(), column.strip(), float(above))
        except ValueError:
            pass
        raise ConfigError("an answer reads NAME=COLUMN>VALUE", value=text, fix="For example ring=Class8.1>0.3.")

    def values(self, catalogue: pa.Table) -> Float64[np.ndarray, " n"]:
        """Return the column as numbers, NaN where it is not known.

        Raises
        ------
        ConfigError
            The catalogue has no such column, or it does not hold numbers.
        """
        if self.column not in catalogue.column_names:
            names = catalogue.column_names
            near = difflib.get_close_matches(self.column, names, n=3) or names[:8]
            raise ConfigError(
                "the survey's catalogue has no column", value=self.column, fix=f"Did you mean {' or '.join(near)}?"
            )
        try:
            return np.asarray(catalogue[self.column].cast(pa.float64()).to_numpy(), dtype=np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
            raise ConfigError(
                "not a column of numbers", value=self.column, fix="Choose a column to which a threshold applies."
            ) from problem


# Rare answers of Galaxy Zoo 2, which its networks do not see in training: data.leave_out.
DEFAULT_CRITERIA = {
    "gz2": (
        Criterion("ring", "Class8.1", 0.3),
        Criterion("merger", "Class8.6", 0.3),
        Criterion("irregular", "Class8.4", 0.3),
        Criterion("odd", "Class6.1", 0.5),
    )
}


@dataclass(frozen=True)
class Representation:
    """The embeddings (n, D) of one store that are judged.

    Attributes
    ----------
    name : str
        Name of the checkpoint; with the folder where several stores have one checkpoint.
    embeddings : (n, D) array
        Galaxies that all stores hold.
    components : int
        Number of principal components in the whitened features.
    """

    name: str
    embeddings: Float[np.ndarray, "n D"]
    components: int

    @cached_property
    def spectrum(self) -> Spectrum:
        """How the variance is divided among principal components."""
        return spectrum(self.embeddings)

    @cached_property
    def local_dimension(self) -> float:
        """In how many directions galaxies differ from their neighbours, measured on at most 2,000 galaxies."""
        random = np.random.default_rng(0)
        drawn = random.choice(len(self.embeddings), min(len(self.embeddings), _SAMPLED), replace=False)
        return local_dimension(np.ascontiguousarray(self.embeddings[np.sort(drawn)], dtype=np.float32))

    @cached_property
    def features(self) -> dict[str, Float[np.ndarray, "n _"]]:
        """Features by name: the embeddings themselves, and their first components whitened."""
        even = whitened(self.embeddings, components=self.components)
        return {self.name: self.embeddings, f"{self.name} whitened": even}


@dataclass(frozen=True)
class CriterionScore:
    """How well the galaxies of one kind are found.

    Attributes
    ----------
    criterion : Criterion
    baseline : Ranking
        Ranking by photometry, under the better of the two metrics.
    baseline_metric : str
        That metric.
    rankings : dict
        Ranking by each representation.
    """

    criterion: Criterion
    baseline: Ranking
    baseline_metric: str
    rankings: dict[str, Ranking]

    def cells(self) -> list[str]:
        """Return a row of the table."""
        name = f"{self.criterion.name} ({self.criterion.column} > {self.criterion.above:g})"
        known = [str(self.baseline.galaxies), str(self.baseline.positives), f"{self.baseline.chance:.4f}"]
        ranked = [
            f"{ranking.mean.text('.4f')}, {ranking.ratio(self.baseline).text('.2f')} ×"
            for ranking in self.rankings.values()
        ]
        return [name, *known, f"{self.baseline.mean.text('.4f')} {self.baseline_metric}", *ranked]

    def content(self) -> dict[str, Any]:
        """Return the numbers for judge.json."""
        return {
            **asdict(self.criterion),
            "galaxies": self.baseline.galaxies,
            "positives": self.baseline.positives,
            "prevalence": self.baseline.prevalence,
            "chance": self.baseline.chance,
            "baseline": {"metric": self.baseline_metric, "average_precision": self.baseline.mean._asdict()},
            "representations": {
                name: {"average_precision": ranking.mean._asdict(), "ratio": ranking.ratio(self.baseline)._asdict()}
                for name, ranking in self.rankings.items()
            },
        }


@dataclass(frozen=True)
class Judgement:
    """The result of judging some stores on the same galaxies.

    Attributes
    ----------
    survey : str
    split : str
    galaxies : int
        Number of galaxies that all stores hold.
    spectra : dict
        Spectrum of each store, by name.
    local_dimensions : dict
        Local dimension of each store, by name.
    scores : tuple of CriterionScore
        Empty if no kind of galaxy is known.
    """

    survey: str
    split: str
    galaxies: int
    spectra: dict[str, Spectrum]
    local_dimensions: dict[str, float]
    scores: tuple[CriterionScore, ...]

    def summary(self) -> str:
        """Return the text for a terminal: a line per store, then a table with a row per kind of galaxy."""
        lines = [
            f"{name}: effective rank {found.effective_rank:.2f}, participation ratio {found.participation_ratio:.2f}, "
            f"{found.components(_VARIANCE)} of {len(found.ratios)} components hold {_VARIANCE:.0%} of the variance, "
            f"local dimension {self.local_dimensions[name]:.1f}"
            for name, found in self.spectra.items()
        ]
        lines.append(f"{self.galaxies} galaxies of {self.survey}, split {self.split}")
        if self.scores:
            lines[-1] += (
                "; average precision of a search for similar galaxies (95 % interval over queries), and its ratio to "
                "the baseline's"
            )
            head = ["answer", "galaxies", "positive", "chance", "colour + size + concentration"]
            head += self.scores[0].rankings
            lines.append(tables.markdown(head, [score.cells() for score in self.scores]))
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the same for a model card, as a list and a table."""
        *lines, about, table = [*self.summary().split("\n", len(self.spectra) + 1), *([] if self.scores else [""])]
        return "\n".join([*(f"- {line}" for line in lines), "", f"{about}.", *(["", table] if table else [])])

    def content(self) -> dict[str, Any]:
        """Return the numbers for judge.json."""
        spectra = {
            name: {
                "effective_rank": found.effective_rank,
                "participation_ratio": found.participation_ratio,
                "components_for_95_percent": found.components(_VARIANCE),
                "local_dimension": self.local_dimensions[name],
                "explained_variance_ratios": found.ratios,
            }
            for name, found in self.spectra.items()
        }
        about = {"survey": self.survey, "split": self.split, "galaxies": self.galaxies}
        return {**about, "stores": spectra, "answers": [score.content() for score in self.scores]}


@dataclass(kw_only=True)
class JudgeRun(Settings):
    """Measure how good embeddings of one survey are, before anything is clustered.

    Two things are measured. The *spectrum* says in how many directions the embedding varies. The *ranking* says how
    well the embedding finds galaxies of a known kind, such as rings, from one example. Which galaxies are of the kind
    may be known for some galaxies only. Imported embeddings without a survey have the spectrum alone; name their
    survey (``data=``) for the ranking.

    Examples
    --------
    >>> JudgeRun(stores=["runs/embed"], answers=["ring=ring_fraction>0.5"]).split
    'all'
    """

    stores: list[str] = setting(help="folders of embedding stores of one survey", positional=True)
    answers: list[str] = setting(
        [],
        "known kinds of galaxies, each NAME=COLUMN>VALUE: the galaxies whose COLUMN of the survey's catalogue is above "
        "VALUE; empty: those that rarezoo knows for this survey",
    )
    split: str = setting(SPLITS[0], "split whose galaxies are used", choices=SPLITS)
    whiten: int = setting(
        48,
        "second way to rank: the first principal components, this many, brought to unit variance",
        unit="components",
        ge=1,
    )
    data: Survey | None = setting(None, "the survey, if it is no longer where the store remembers it")
    out: str = setting("", "folder for judge.json, spectra.png and the photometry; empty: nothing is written")
    card: str = setting("", "checkpoint folder whose card gets the result; empty: none")

    def run(self) -> Judgement:
        """Judge the stores.

        Raises
        ------
        ConfigError
            A kind of galaxy cannot be read or ranked.
        StoreError
            A store cannot be opened, or the stores are of different surveys.
        DataError, OutputError
            The survey cannot be opened, or the output folder cannot be written.
        """
        stores = [EmbeddingStore.open(folder) for folder in self.stores]
        _refuse_different_surveys(stores)
        survey = stores[0].manifest.survey
        criteria = tuple(map(Criterion.parsed, self.answers)) or DEFAULT_CRITERIA.get(survey, ())
        known_survey = self.data is not None or stores[0].has_survey
        if not criteria:
            log.warning("no kinds of galaxies to rank: name some with answers=NAME=COLUMN>VALUE")
        galaxies = stores[0].galaxies(self.data) if known_survey or criteria else None
        ids, rows = self._common(galaxies, stores)
        values = {criterion: criterion.values(galaxies.catalogue)[rows] for criterion in criteria} if galaxies else {}
        _refuse_too_few(values)
        folder = self._claimed(stores, criteria) if self.out else None
        representations = [
            Representation(name, _embeddings(store, ids), self.whiten)
            for name, store in zip(_names(stores), stores, strict=True)
        ]
        baseline = np.empty((len(rows), len(BASELINE)))
        if galaxies and values:
            baseline = _baseline(galaxies, rows, values, cache=folder / "photometry.npy" if folder else None)
        judgement = Judgement(
            survey, self.split, len(ids),
            spectra={store.name: store.spectrum for store in representations},
            local_dimensions={store.name: store.local_dimension for store in representations},
            scores=tuple(_score(criterion, values[criterion], baseline, representations) for criterion in values),
        )  # fmt: skip
        if folder:
            tables.write_json(judgement.content(), folder / "judge.json")
            _plot(judgement.spectra, folder / "spectra.png")
        if self.card:
            annotate(self.card, representation=judgement.markdown())
        return judgement

    def _common(self, galaxies: Galaxies | None, stores: Sequence[EmbeddingStore]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids of the split's galaxies that every store holds, and their rows in the survey if there is one."""
        held = set.intersection(*(set(store.ids) for store in stores))
        if galaxies is None:
            if self.split != SPLITS[0]:
                raise ConfigError("without a survey there is no split", value=self.split, fix="Name it with data=….")
            ids = np.array([galaxy for galaxy in stores[0].ids if galaxy in held], dtype=object)
            return ids, np.arange(len(ids))
        rows = np.arange(len(galaxies)) if self.split == SPLITS[0] else galaxies.rows(self.split)
        rows = np.array([row for row in rows if galaxies.ids[row] in held], dtype=np.int64)
        return galaxies.ids[rows], rows

    def _claimed(self, stores: Sequence[EmbeddingStore], criteria: Sequence[Criterion]) -> Path:
        judged = [
            {"survey": store.manifest.survey_sha256, "checkpoint": store.manifest.checkpoint_sha256}
            for store in stores
        ]  # fmt: skip
        about = {"stores": judged, "answers": [asdict(criterion) for criterion in criteria]}
        return claim(self.out, verb="judge", settings={**about, "split": self.split, "whiten": self.whiten})


def _refuse_different_surveys(stores: Sequence[EmbeddingStore]) -> None:
    known = [store for store in stores if store.has_survey]
    for other in known[1:]:
        if other.manifest.survey_sha256 != known[0].manifest.survey_sha256:
            raise StoreError(
                "stores of different surveys", value=f"{known[0].folder} and {other.folder}",
                fix="Judge them one by one, or embed the same survey (also with the same data.limit) twice.",
            )  # fmt: skip


def _refuse_too_few(values: Mapping[Criterion, np.ndarray]) -> None:
    for criterion, column in values.items():
        known = column[np.isfinite(column)]
        positive = int(np.sum(known > criterion.above))
        if not 2 <= positive < len(known):
            raise ConfigError(
                f"{criterion.name} cannot be ranked: {criterion.column} > {criterion.above:g}",
                value=f"{positive} of {len(known)} for which it is known",
                fix="At least two must be above and one must not: change the threshold in answers=, or choose "
                    "another split=.",
            )  # fmt: skip


def _names(stores: Sequence[EmbeddingStore]) -> list[str]:
    """Return each store's checkpoint, with the folder where several stores have one checkpoint."""
    names = [store.manifest.checkpoint for store in stores]
    return [
        name if names.count(name) == 1 else f"{name} ({store.folder})"
        for name, store in zip(names, stores, strict=True)
    ]  # fmt: skip


def _embeddings(store: EmbeddingStore, ids: np.ndarray) -> Float[np.ndarray, "n D"]:
    held = pa.table({tables.ID: pa.array(store.ids, pa.string())})
    return store.embeddings()[tables.rows_of(ids, held, source=str(store.folder))]


def _baseline(
    galaxies: Galaxies, rows: Int64[np.ndarray, " n"], values: Mapping[Criterion, np.ndarray], *, cache: Path | None
) -> Float64[np.ndarray, "n 4"]:
    """Return photometry, each column of unit variance; NaN for galaxies for which no criterion is known."""
    known = np.any([np.isfinite(column) for column in values.values()], axis=0)
    measured = photometry(galaxies.images, rows[known], cache=cache)[:, : len(BASELINE)].astype(np.float64)
    spread = measured.std(axis=0) if len(measured) else np.ones(len(BASELINE))
    features = np.full((len(rows), len(BASELINE)), np.nan)
    features[known] = measured / np.where(spread > 0, spread, 1)
    return features


def _score(
    criterion: Criterion, values: np.ndarray, baseline: np.ndarray, representations: Sequence[Representation]
) -> CriterionScore:
    known = np.isfinite(values)
    positive = values[known] > criterion.above
    # The better of both metrics, so that no embedding wins because the baseline uses the wrong one.
    by_metric = {metric: average_precisions(baseline[known], positive, metric=metric) for metric in METRICS}
    metric = max(by_metric, key=lambda name: by_metric[name].mean.value)
    rankings = {
        name: average_precisions(features[known], positive)
        for representation in representations
        for name, features in representation.features.items()
    }
    return CriterionScore(criterion, by_metric[metric], metric, rankings)


def _plot(spectra: Mapping[str, Spectrum], path: Path) -> None:
    """Plot the variance along each principal component, a line per store."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, found in spectra.items():
        label = f"{name}: effective rank {found.effective_rank:.1f}"
        axes.loglog(np.arange(1, len(found.ratios) + 1), found.ratios, marker=".", label=figure_text(label))
    axes.set(ylim=(_RESOLVED, 1.5), xlabel="principal component", ylabel="share of the variance")
    axes.legend(loc="lower left", frameon=False)
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
