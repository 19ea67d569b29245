"""``rarezoo judge``: measure which embedding is better, before anything is clustered.

Galaxies of rare kinds are known by answers that the networks were not trained on. The table says how well each
embedding finds them: with one example, with a handful of labels, and with many. Beside the embeddings stand a few
numbers that need no network, and the predicted votes, because a network is worth its cost only if its embedding is
better.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from tqdm.auto import tqdm

from mocksky.populations import ORDINARY
from rarezoo import tables
from rarezoo.cache import Cache
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.embeddings.answers import DEFAULT_CRITERIA, FURTHER_CRITERIA, Answer, Criterion, read_answers
from rarezoo.embeddings.contestants import (
    BESIDE,
    PHOTOMETRY,
    VOTES,
    Contestant,
    names_of,
    of_photometry,
    of_stores,
)
from rarezoo.embeddings.measures import FEWEST, STRENGTH, Sample
from rarezoo.embeddings.quality import Spectrum, local_dimension, spectrum
from rarezoo.embeddings.steps import MEASURES, steps
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, StoreError
from rarezoo.escapes import figure_text
from rarezoo.runs import claim, fingerprint
from rarezoo.settings import Settings, name_of, refuse_unknown, setting
from rarezoo.statistics import Interval
from rarezoo.zoo.cards import annotate

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
SPLITS = ("all", "train", "validation", "test")
# Share of the variance for which components are counted in the report.
_VARIANCE = 0.95
# Galaxies on which the local dimension is measured: it grows a little with their number.
_SAMPLED = 2000
# Shares of the variance below this are hardly more than the rounding of float32 embeddings.
_RESOLVED = 1e-8
_IN_SAMPLE = " *"


@dataclass(frozen=True)
class Judgement:
    """The result of judging embeddings on the same galaxies.

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
    answers : tuple of Answer
        Kinds of galaxies; empty if none is known.
    samples : dict
        By name of the answer, then by measure, then by contestant.
    in_sample : set of (answer, contestant)
        Where the network was trained on the answer.
    notes : tuple of str
        What a reader of the table must know: what was left out, what is in-sample.
    against : str
        Contestant from which the differences of the others are shown; empty: none.
    """

    survey: str
    split: str
    galaxies: int
    spectra: dict[str, Spectrum]
    local_dimensions: dict[str, float]
    answers: tuple[Answer, ...]
    samples: Mapping[str, Mapping[str, Mapping[str, Sample]]]
    in_sample: frozenset[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = ()
    against: str = ""

    @property
    def contestants(self) -> list[str]:
        """Names of all contestants, in the order of the table."""
        found = [name for rows in self.samples.values() for columns in rows.values() for name in columns]
        return list(dict.fromkeys(found))

    def table(self) -> "pd.DataFrame":
        """Return all values: a row per answer, measure and contestant.

        Returns
        -------
        pandas.DataFrame
            ``answer``, ``positives``, ``galaxies``, ``measure``, ``contestant``, ``value``, ``low`` and ``high`` (95 %
            interval), ``chance``, ``over`` (what the interval describes), ``in_sample``.
        """
        import pandas as pd

        rows = [
            {
                "answer": answer.criterion.name, "positives": answer.positives, "galaxies": answer.galaxies,
                "measure": measure, "contestant": name, **sample.interval._asdict(), "chance": sample.chance,
                "over": sample.over, "in_sample": (answer.criterion.name, name) in self.in_sample,
            }
            for answer, measure, columns in self._rows()
            for name, sample in columns.items()
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def differences(self, against: str) -> "pd.DataFrame":
        """Return the difference of every contestant from one of them, with its paired 95 % interval.

        Parameters
        ----------
        against : str
            Name of the contestant.

        Returns
        -------
        pandas.DataFrame
            ``answer``, ``measure``, ``contestant``, ``value``, ``low``, ``high``, and ``verdict``: ``better`` or
            ``worse`` if the whole interval is above or below 0, else ``not different``.

        Raises
        ------
        ConfigError
            There is no such contestant.
        """
        import pandas as pd

        if against not in self.contestants:
            raise ConfigError("no such contestant", value=against, fix=f"Choose from: {', '.join(self.contestants)}.")
        rows = []
        for answer, measure, columns in self._rows():
            for name, sample in columns.items():
                if name != against and against in columns:
                    interval = sample.minus(columns[against])
                    about = {"answer": answer.criterion.name, "measure": measure, "contestant": name}
                    rows.append({**about, **interval._asdict(), "verdict": _verdict(interval)})
        return pd.DataFrame(rows)

    def summary(self) -> str:
        """Return the text for a terminal: a line per store, then the tables."""
        return "\n".join([*self._lines(), *self._tables()])

    def markdown(self) -> str:
        """Return the same for a model card, as a list and tables."""
        return "\n".join([*(f"- {line}" for line in self._lines()), "", *self._tables()])

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
        answers = [
            {**asdict(answer.criterion), "galaxies": answer.galaxies, "positives": answer.positives}
            for answer in self.answers
        ]  # fmt: skip
        about = {"survey": self.survey, "split": self.split, "galaxies": self.galaxies, "notes": self.notes}
        return {**about, "stores": spectra, "answers": answers, "measured": self.table().to_dict("records")}

    def _rows(self) -> Iterator[tuple[Answer, str, Mapping[str, Sample]]]:
        for answer in self.answers:
            for measure, columns in self.samples[answer.criterion.name].items():
                yield answer, measure, columns

    def _lines(self) -> list[str]:
        return [
            f"{name}: effective rank {found.effective_rank:.2f}, participation ratio {found.participation_ratio:.2f}, "
            f"{found.components(_VARIANCE)} of {len(found.ratios)} components hold {_VARIANCE:.0%} of the variance, "
            f"local dimension {self.local_dimensions[name]:.1f}"
            for name, found in self.spectra.items()
        ]

    def _tables(self) -> list[str]:
        about = f"{self.galaxies} galaxies of {self.survey}, split {self.split}"
        if not self.answers:
            return [f"{about}."]
        lines = [f"{about}; 95 % intervals over queries, draws of labels, or galaxies (probe).", ""]
        rows, shown = [], ""
        for answer, measure, columns in self._rows():
            name = f"{answer.criterion}: {answer.positives} of {answer.galaxies}"
            chance = next(iter(columns.values())).chance
            cells = [self._cell(answer, contestant, columns) for contestant in self.contestants]
            rows.append([name if name != shown else "", measure, f"{chance:.3f}", *cells])
            shown = name
        lines.append(tables.markdown(["answer", "measure", "chance", *self.contestants], rows))
        if self.against:
            others = [name for name in self.contestants if name != self.against]
            table = self.differences(self.against)
            table["cell"] = [
                f"{text} {verdict}" for text, verdict in zip(texts(table, "+.3f"), table["verdict"], strict=True)
            ]
            wide = table.pivot_table("cell", ["answer", "measure"], "contestant", aggfunc="first", sort=False)
            compared = wide[others].fillna("–").reset_index().to_numpy().astype(str).tolist()
            lines += ["", f"Differences from {self.against}, with paired intervals:", ""]
            lines.append(tables.markdown(["answer", "measure", *others], compared))
        return [*lines, *([""] if self.notes else []), *(f"- {note}" for note in self.notes)]

    def _cell(self, answer: Answer, contestant: str, columns: Mapping[str, Sample]) -> str:
        if contestant not in columns:
            return "–"
        mark = _IN_SAMPLE if (answer.criterion.name, contestant) in self.in_sample else ""
        return columns[contestant].interval.text(".3f") + mark


def texts(table: "pd.DataFrame", digits: str) -> list[str]:
    """Return each row's value with its interval as text, such as ``0.25 (0.20–0.31)``."""
    numbers = table[["value", "low", "high"]].to_numpy(dtype=np.float64)
    return [Interval(*map(float, row)).text(digits) for row in numbers]


def _verdict(difference: Interval) -> str:
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "not different"


@dataclass(kw_only=True)
class JudgeRun(Settings):
    """Measure which of some embeddings of one survey is better, before anything is clustered.

    Two things are measured. The *spectrum* says in how many directions an embedding varies. The *table* says how well
    galaxies of known kinds, such as rings, are found with one example, with few labels and with many. Which galaxies
    are of a kind may be known for some galaxies only, from the survey's catalogue or from a table of your own. Imported
    embeddings without a survey (``data=``) and without such a table have the spectrum alone.

    Examples
    --------
    >>> JudgeRun(stores=["runs/embed"], answers=["ring=ring_fraction>0.5"]).split
    'all'
    """

    stores: list[str] = setting(help="folders of embedding stores of one survey", positional=True)
    answers: list[str] = setting(
        [],
        "known kinds of galaxies: NAME=COLUMN>VALUE (above VALUE), NAME=COLUMN==TEXT, or NAME=COLUMN of 0 and 1; "
        "empty: those that rarezoo knows for this survey",
    )
    table: str = setting("", "table that holds the columns of the answers; empty: the survey's catalogue")
    id_column: str = setting(tables.ID, "column of ids of that table")
    split: str = setting(SPLITS[0], "split whose galaxies are used", choices=SPLITS)
    measures: list[str] = setting(list(MEASURES), "what is measured", choices=MEASURES)
    beside: list[str] = setting(
        [PHOTOMETRY], "what is judged beside the stores: photometry, and the votes that they predict", choices=BESIDE
    )
    against: str = setting("", "contestant from which the differences of all others are shown, with paired intervals")
    draws: int = setting(15, "draws of labels for each number of labels", unit="draws", ge=2)
    seeds: int = setting(3, "divisions into folds of the probe", unit="seeds", ge=1)
    strength: float = setting(STRENGTH, "C of the logistic regression: less is a stronger regularisation", gt=0)
    whiten: int = setting(
        0, "principal components that are brought to unit variance, as a further contestant; 0: none",
        unit="components", ge=0,
    )  # fmt: skip
    data: Survey | None = setting(None, "the survey, if it is no longer where the store remembers it")
    cache: str = setting("runs/cache", "folder that keeps what was measured for the next time")
    out: str = setting("", "folder for judge.json, judge.csv and spectra.png; empty: nothing is written")
    card: str = setting("", "checkpoint folder whose card gets the result; empty: none")

    def run(self) -> Judgement:
        """Judge the stores.

        Raises
        ------
        ConfigError
            A kind of galaxy cannot be read or measured.
        StoreError
            A store cannot be opened, or the stores are of different surveys.
        DataError, OutputError
            The survey or the table of answers cannot be used, or the output folder cannot be written.
        """
        stores = [EmbeddingStore.open(folder) for folder in self.stores]
        _refuse_unlike(stores)
        wanted = tuple(map(Criterion.parsed, self.answers))
        needs_survey = self.split != SPLITS[0] or (bool(wanted) and not self.table)
        # Imported embeddings may not know their survey, while another store does.
        source = next((store for store in stores if store.has_survey), stores[0])
        survey = source.manifest.survey if self.data is None else name_of(type(self.data))
        known_survey = self.data is not None or source.has_survey
        galaxies = source.galaxies(self.data) if known_survey or needs_survey else None
        ids, rows = self._common(galaxies, stores)
        notes: list[str] = []
        answers = self._answers(wanted, galaxies, ids, rows, survey=survey, notes=notes)
        folder = self._claimed(stores, answers, galaxies) if self.out else None
        contestants, answers = self._contestants(stores, galaxies, ids, rows, answers=answers, notes=notes)
        if self.against and self.against not in [contestant.name for contestant in contestants]:
            names = ", ".join(contestant.name for contestant in contestants)
            raise ConfigError("no such contestant", value=f"against={self.against}", fix=f"Choose from: {names}.")
        embeddings = {contestant.name: contestant.features for contestant in contestants}
        samples = self._samples(contestants, answers, notes=notes)
        judgement = Judgement(
            survey, self.split, len(ids),
            spectra={name: spectrum(embeddings[name]) for name in names_of(stores)},
            local_dimensions={name: _local_dimension(embeddings[name]) for name in names_of(stores)},
            answers=answers,
            samples=samples,
            in_sample=_in_sample(contestants, answers, notes=notes),
            notes=tuple(notes),
            against=self.against,
        )  # fmt: skip
        if folder:
            tables.write_json(judgement.content(), folder / "judge.json")
            with tables.atomic(folder / "judge.csv") as temporary:
                judgement.table().to_csv(temporary, index=False)
            _plot(judgement.spectra, folder / "spectra.png")
        if self.card:
            annotate(self.card, representation=judgement.markdown())
        return judgement

    def _common(self, galaxies: Galaxies | None, stores: Sequence[EmbeddingStore]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids of the split's galaxies that every store holds, and their rows in the survey if there is one."""
        held = set.intersection(*(set(store.ids) for store in stores))
        if not held:
            raise StoreError(
                "stores without a common galaxy", value=" and ".join(self.stores), fix="Embed the same galaxies."
            )
        if galaxies is None:
            if self.split != SPLITS[0]:
                raise ConfigError("without a survey there is no split", value=self.split, fix="Name it with data=….")
            ids = np.array([galaxy for galaxy in stores[0].ids if galaxy in held], dtype=object)
            return ids, np.arange(len(ids))
        rows = np.arange(len(galaxies)) if self.split == SPLITS[0] else galaxies.rows(self.split)
        rows = np.array([row for row in rows if galaxies.ids[row] in held], dtype=np.int64)
        return galaxies.ids[rows], rows

    def _answers(
        self, wanted: Sequence[Criterion], galaxies: Galaxies | None, ids: np.ndarray, rows: np.ndarray, *,
        survey: str, notes: list[str],
    ) -> tuple[Answer, ...]:  # fmt: skip
        """Return the answers of the galaxies; the usual ones of which there are too few are left out with a note."""
        if self.table:
            table = read_answers(self.table, ids, id_column=self.id_column)
        elif galaxies is not None:
            table = with_populations(galaxies).take(pa.array(rows))
        else:
            table = pa.table({})
        criteria = wanted or (() if self.table else usual_criteria(table, survey=survey))
        if self.table and not wanted:
            raise ConfigError(
                "no answers of the table are named", value=self.table,
                fix=f"Name some: answers=NAME=COLUMN>VALUE; its columns are: {', '.join(table.column_names[:12])}.",
            )  # fmt: skip
        if not criteria:
            log.warning("no kinds of galaxies to find: name some with answers=NAME=COLUMN>VALUE")
        names = [criterion.name for criterion in criteria]
        if len(set(names)) < len(names):
            raise ConfigError("two answers have one name", value=", ".join(names), fix="Give each its own name.")
        answers = []
        for criterion in criteria:
            answer = Answer.of(criterion, criterion.values(table))
            if FEWEST <= answer.positives <= answer.galaxies - FEWEST:
                answers.append(answer)
                continue
            about = f"{answer.positives} of {answer.galaxies} galaxies for which it is known"
            if wanted:
                raise ConfigError(
                    f"{criterion} cannot be measured", value=about,
                    fix=f"At least {FEWEST} galaxies must be of the kind and {FEWEST} must not: change answers=, or "
                        "choose another split=.",
                )  # fmt: skip
            notes.append(f"{criterion} is left out: {about} are of the kind.")
        return tuple(answers)

    def _contestants(
        self, stores: Sequence[EmbeddingStore], galaxies: Galaxies | None, ids: np.ndarray, rows: np.ndarray, *,
        answers: tuple[Answer, ...], notes: list[str],
    ) -> tuple[list[Contestant], tuple[Answer, ...]]:  # fmt: skip
        """Return the contestants, and the answers of the galaxies that all of them can be judged by.

        Without photometry of an image that has become unreadable, its galaxy is judged by nobody: all values are of the
        same galaxies.
        """
        contestants = list(of_stores(stores, ids, whiten=self.whiten, votes=bool(answers) and VOTES in self.beside))
        if not answers or PHOTOMETRY not in self.beside:
            return contestants, answers
        if galaxies is None:
            notes.append(
                "There is no photometry, because the survey with the images is not known: name it with data=…."
            )
            return contestants, answers
        known = np.any([answer.known for answer in answers], axis=0)
        photometry = of_photometry(galaxies, rows, known=known, cache=Cache(Path(self.cache)))
        unreadable = known & np.isnan(photometry.features).any(axis=1)
        if not unreadable.any():
            return [photometry, *contestants], answers
        left = tuple(answer.without(unreadable) for answer in answers)
        enough = [FEWEST <= answer.positives <= answer.galaxies - FEWEST for answer in left]
        about = f"{unreadable.sum()} of {known.sum()} galaxies have an unreadable image, such as {ids[unreadable][0]}"
        if not all(enough):
            notes.append(f"There is no photometry: {about}, and too few others are left.")
            log.warning("%s", notes[-1])
            return contestants, answers
        notes.append(f"{about}: they are left out, because photometry cannot measure them (beside= leaves it out).")
        log.warning("%s", notes[-1])
        return [photometry, *contestants], left

    def _samples(
        self, contestants: Sequence[Contestant], answers: Sequence[Answer], *, notes: list[str]
    ) -> dict[str, dict[str, dict[str, Sample]]]:
        """Measure everything that was not measured before; what has too few galaxies is left out with a note."""
        samples: dict[str, dict[str, dict[str, Sample]]] = {answer.criterion.name: {} for answer in answers}
        wanted = steps(self.measures, draws=self.draws, seeds=self.seeds, strength=self.strength)
        for answer in answers:
            few = [step.name for step in wanted if not step.suits(answer)]
            if few:
                notes.append(f"{answer.criterion} has too few galaxies for: {', '.join(few)}.")
        cache = Cache(Path(self.cache))
        tasks = [(answer, step) for answer in answers for step in wanted if step.suits(answer)]
        total = len(tasks) * len(contestants)
        with tqdm(total=total, desc="judge", unit=" measures", leave=False, disable=not total) as progress:
            for answer, step in tasks:
                for contestant in contestants:
                    for row, sample in step.samples(contestant, answer, cache).items():
                        samples[answer.criterion.name].setdefault(row, {})[contestant.name] = sample
                    progress.update()
        return samples

    def _claimed(self, stores: Sequence[EmbeddingStore], answers: Sequence[Answer], galaxies: Galaxies | None) -> Path:
        inputs: dict[str, Any] = {f"store {number}": store.identity for number, store in enumerate(stores, start=1)}
        inputs |= {
            f"answer {answer.criterion.name}": fingerprint(answer.fraction, ids=np.flatnonzero(answer.known))
            for answer in answers
        }
        inputs["images"] = galaxies.images_identity() if galaxies is not None and PHOTOMETRY in self.beside else None
        names = ("split", "measures", "beside", "draws", "seeds", "strength", "whiten")
        settings = {name: getattr(self, name) for name in names}
        criteria = [asdict(answer.criterion) for answer in answers]
        return claim(self.out, verb="judge", settings={"answers": criteria, **settings}, inputs=lambda: inputs)


def judge(stores: Sequence[EmbeddingStore | Path | str] | EmbeddingStore | Path | str, **settings: Any) -> Judgement:
    """Measure which of some embedding stores finds known kinds of galaxies best.

    Parameters
    ----------
    stores : store or sequence of stores
        Stores of one survey, or their folders.
    **settings
        Fields of :class:`JudgeRun`, such as ``answers=["ring=Class8.1>0.3"]`` and ``against="photometry"``.

    Raises
    ------
    StoreError, ConfigError, DataError, OutputError
        See the message.

    Examples
    --------
    >>> judge(["runs/mine/store", "runs/theirs/store"], against="photometry").table()  # doctest: +SKIP
    """
    known = [known.name for known in fields(JudgeRun) if known.name != "stores"]
    refuse_unknown(settings, known, of="a judgement")
    chosen = [stores] if isinstance(stores, (str, Path, EmbeddingStore)) else list(stores)
    folders = [str(store.folder) if isinstance(store, EmbeddingStore) else str(store) for store in chosen]
    return JudgeRun(stores=folders, **settings).run()


def usual_criteria(table: pa.Table, *, survey: str) -> tuple[Criterion, ...]:
    """Return the usual kinds of a survey: rare answers of Galaxy Zoo 2, or the populations planted in a mock sky."""
    kinds = (*DEFAULT_CRITERIA.get(survey, ()), *FURTHER_CRITERIA.get(survey, ()))
    usual = [criterion for criterion in kinds if criterion.column in table.column_names]
    if tables.POPULATION in table.column_names:
        planted = sorted(set(table[tables.POPULATION].to_pylist()) - {ORDINARY, None})
        usual += [Criterion(name, tables.POPULATION, equals=name) for name in planted]
    return tuple(usual)


def with_populations(galaxies: Galaxies) -> pa.Table:
    """Return the catalogue; of a mock sky, with the planted population of each galaxy."""
    if galaxies.truth is None or tables.POPULATION in galaxies.catalogue.column_names:
        return galaxies.catalogue
    return galaxies.catalogue.append_column(tables.POPULATION, galaxies.truth[tables.POPULATION])


def _refuse_unlike(stores: Sequence[EmbeddingStore]) -> None:
    """Raise an error for stores of different surveys, and for a store that is named twice."""
    if len(set(names_of(stores))) < len(stores):
        folders = ", ".join(str(store.folder) for store in stores)
        raise ConfigError("a store is named twice", value=folders, fix="Name each store once.")
    known = [store for store in stores if store.has_survey]
    for other in known[1:]:
        if other.manifest.survey_sha256 != known[0].manifest.survey_sha256:
            raise StoreError(
                "stores of different surveys", value=f"{known[0].folder} and {other.folder}",
                fix="Judge them one by one, or embed the same survey (also with the same data.limit) twice.",
            )  # fmt: skip


def _in_sample(
    contestants: Sequence[Contestant], answers: Sequence[Answer], *, notes: list[str]
) -> frozenset[tuple[str, str]]:
    """Return the answers that networks were trained on; say so."""
    trained = [
        (answer.criterion.name, contestant.name)
        for contestant in contestants
        for answer in answers
        if answer.criterion.in_sample(contestant.answers)
    ]
    for name in dict.fromkeys(contestant for _, contestant in trained):
        kinds = ", ".join(answer for answer, contestant in trained if contestant == name)
        notes.append(
            f"{name}: its network was trained on {kinds}, so these values (*) do not say what it finds unasked; "
            "split=test leaves out the galaxies that it has learnt from."
        )
    return frozenset(trained)


def _local_dimension(embeddings: Float[np.ndarray, "n D"]) -> float:
    """Return the local dimension, measured on at most 2,000 galaxies."""
    random = np.random.default_rng(0)
    drawn = random.choice(len(embeddings), min(len(embeddings), _SAMPLED), replace=False)
    return local_dimension(np.ascontiguousarray(embeddings[np.sort(drawn)], dtype=np.float32))


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
