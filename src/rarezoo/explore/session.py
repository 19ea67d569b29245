"""Rating a survey: what to show next, what was rated, what the model makes of it. The page is a thin layer over this.

A session may serve several people and several labels at once. Models are fitted again in the background, so that a
person never waits for one.
"""

import logging
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.explore.acquisition import State
from rarezoo.explore.choose import INTERESTING, RANDOM, all_equal
from rarezoo.explore.features import Features, default_cache
from rarezoo.explore.labels import ARTIFACT, Labels, Rating
from rarezoo.explore.ranker import Prediction
from rarezoo.explore.ranking import RankingSettings, RatingSettings, nearest_rated, ranking_table
from rarezoo.explore.remaining import BlindDraw, Remaining, remaining
from rarezoo.explore.start import start_values
from rarezoo.searches.result import Search

log = logging.getLogger(__name__)
# Galaxies that are claimed for one person are free again after this time.
_CLAIM_SECONDS = 600.0


@dataclass(frozen=True)
class Shown:
    """A galaxy to rate, and why it is shown.

    Attributes
    ----------
    id_str : str
    why : str
        ``model``, ``start`` or ``random``; see :class:`~rarezoo.explore.choose.Choice`.
    round : int
        How often the model had been fitted.
    score : float or None
        What the model expects.
    uncertainty : float or None
        Standard deviation of it.
    nearest_rated : str or None
        The nearest galaxy that was rated interesting.
    """

    id_str: str
    why: str
    round: int
    score: float | None
    uncertainty: float | None
    nearest_rated: str | None


class Progress(NamedTuple):
    """How far the ratings of one label are.

    Attributes
    ----------
    galaxies : int
        Number of galaxies of the survey.
    rated, interesting, artifacts : int
        Number of galaxies that were rated, that are interesting, and that are artifacts.
    round : int
        How often the model has been fitted.
    left : Remaining or None
        Estimate of how many interesting galaxies nobody has rated; None before any blind draw.
    people : tuple of str
    agreement : float or None
        Krippendorff's alpha; None if no galaxy was rated by two people.
    """

    galaxies: int
    rated: int
    interesting: int
    artifacts: int
    round: int
    left: Remaining | None
    people: tuple[str, ...]
    agreement: float | None


@dataclass
class _Model:
    """What a session knows of one label."""

    round: int = 0
    learnt: int = -1  # number of the last entry of the database that the model has learnt from
    asked: int = -1  # number of the last entry that it has learnt from when all fits that were asked for are done
    prediction: Prediction | None = None
    interest: dict[str, float] = field(default_factory=dict)
    fitting: "Future[None] | None" = None
    problem: Exception | None = None  # why the last fit failed


class Session:
    """Rate the galaxies of a survey.

    Parameters
    ----------
    source : Search or EmbeddingStore
        What is rated.
    labels : Labels
        Where ratings are kept.
    settings : RankingSettings, optional
        Those of the class ``RatingSettings`` also say which galaxies are shown next.
    features : Features, optional
        Features of the galaxies, if they are there already.
    overlap : bool
        Whether several people may be shown the same galaxy.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    >>> store = EmbeddingStore.from_array([f"g{number}" for number in range(50)], vectors, out=mkdtemp())
    >>> labels = Labels.of(store)
    >>> with Session(store, labels, settings=RankingSettings(beside=[])) as session:
    ...     shown = session.next(by="ann", label="interesting", count=3)
    ...     saved = session.rate([Rating(shown[0].id_str, "interesting", 1, "answer", "ann", why=shown[0].why)])
    ...     session.progress("interesting").rated
    1
    """

    def __init__(
        self,
        source: Search | EmbeddingStore,
        labels: Labels,
        *,
        settings: RankingSettings | None = None,
        features: Features | None = None,
        overlap: bool = False,
    ) -> None:
        self.source, self.labels, self.overlap = source, labels, overlap
        self.settings = settings or RankingSettings()
        self._shown_by = self.settings if isinstance(self.settings, RatingSettings) else RatingSettings()
        self.store = source.store if isinstance(source, Search) else source
        self.ids: np.ndarray = np.asarray(self.store.ids, dtype=object)
        self._rows = {str(name): row for row, name in enumerate(self.ids)}
        self.features = features or self.settings.features(
            self.store, galaxies=survey_of(source), cache=default_cache(self.store)
        )
        self._memory: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(self.settings.seed)
        self._models: dict[str, _Model] = {}
        self._lock, self._closed = threading.RLock(), False
        self._fitter = ThreadPoolExecutor(1, thread_name_prefix="rarezoo-model")

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the model that is being fitted, and stop. Ratings can still be kept; no model learns from them."""
        with self._lock:
            self._closed = True
        self._fitter.shutdown(wait=True, cancel_futures=True)

    # --- showing

    def next(self, *, by: str, label: str, count: int = 12, skip: Collection[str] = ()) -> list[Shown]:
        """Return the galaxies that a person should rate next, and hold them for this person for ten minutes.

        Parameters
        ----------
        by : str
            Who rates.
        label : str
            What is judged.
        count : int
            Number of galaxies; fewer if fewer are left.
        skip : collection of ids
            Galaxies that are not wanted, because the person has them on the screen already.
        """
        if count < 1:
            raise ConfigError("number of galaxies to show", value=count, fix="Ask for at least 1.")
        model = self._model(label)
        # Another process may have added ratings.
        self._refit(label)
        with self._lock:
            rated = self._rated_rows(label, by=by if self.overlap else None)
            allowed = np.ones(len(self.ids), dtype=bool)
            allowed[rated] = False
            allowed[[self._rows[name] for name in skip if name in self._rows]] = False
            shown: list[Shown] = []
            # Galaxies that somebody else holds are replaced by the next best ones.
            while len(shown) < count and allowed.any():
                state = self._state(model)
                choice = self._shown_by.choose.choose(
                    state, self._shown_by.acquisition, count - len(shown), allowed=allowed
                )
                names = [str(self.ids[row]) for row in choice.rows]
                held = names if self.overlap else self.labels.claim(names, by=by, label=label, seconds=_CLAIM_SECONDS)
                kept = [(row, why) for row, why, name in zip(*choice, names, strict=True) if name in set(held)]
                shown += self._described(kept, model)
                allowed[choice.rows] = False
            return shown

    def _described(self, chosen: Sequence[tuple[int, str]], model: _Model) -> list[Shown]:
        rows = np.array([row for row, _ in chosen], dtype=np.int64)
        near = nearest_rated(self.ids, rows, rated=model.interest, features=self.features.matrix, places=self._rows)
        prediction = model.prediction
        return [
            Shown(
                str(self.ids[row]), why, model.round,
                None if prediction is None else float(prediction.mean[row]),
                None if prediction is None else float(prediction.deviation[row]),
                nearest,
            )
            for (row, why), nearest in zip(chosen, near, strict=True)
        ]  # fmt: skip

    def _state(self, model: _Model) -> State:
        rated = np.array([self._rows[name] for name in model.interest], dtype=np.int64)
        interest = np.array(list(model.interest.values()))
        start = self._start if all_equal(model.prediction, interest) else np.zeros(len(self.ids), dtype=np.float32)
        return State(self.features.matrix, rated, interest, model.prediction, start, self._rng, self._memory)

    @cached_property
    def _start(self) -> Float32[np.ndarray, " n"]:
        """Values that order the first galaxies; they take seconds for a large survey, and may never be needed."""
        return start_values(self.features.matrix, seed=self.settings.seed)

    def _rated_rows(self, label: str, *, by: str | None) -> np.ndarray:
        names = _rated_names(self.labels, label, by=by)
        return np.array([self._rows[name] for name in names if name in self._rows], dtype=np.int64)

    # --- rating

    def rate(self, ratings: Sequence[Rating], *, once: bool = False) -> list[Rating]:
        """Keep ratings; when this returns, they are on disk. The models learn from them in the background.

        With ``once``, what was kept before is not kept again, see :meth:`Labels.add`.

        Raises
        ------
        ConfigError
            A galaxy is not in the survey, or a value is out of its range; then nothing is kept.
        """
        unknown = [rating.id_str for rating in ratings if rating.id_str not in self._rows]
        if unknown:
            raise ConfigError(
                "a rating of a galaxy that this survey does not have", value=unknown[0],
                fix="Reload the page: it may belong to another search.",
            )  # fmt: skip
        kept = self.labels.add(ratings, once=once)
        self._refit_all()
        return kept

    def undo(self, *, by: str, entry: int | None = None) -> Rating | None:
        """Take back the last rating of a person, or a certain entry; return what was taken back."""
        undone = self.labels.undo(by=by, entry=entry)
        if undone is not None:
            self._refit_all()
        return undone

    # --- the model

    def _model(self, label: str) -> _Model:
        """Return the newest finished model of a label; wait for the first one only."""
        with self._lock:
            first = label not in self._models
            model = self._models.setdefault(label, _Model())
        if first:
            self._fit(label)
        return model

    def _refit_all(self) -> None:
        """Fit every model that is in use again: an artifact counts for all labels."""
        with self._lock:
            labels = list(self._models)
        for label in labels:
            self._refit(label)

    def _refit(self, label: str) -> None:
        """Fit the model of a label again in the background if there are entries that no fit knows or will know."""
        entries = self.labels.newest()
        with self._lock:
            model = self._models[label]
            if self._closed or entries <= max(model.learnt, model.asked):
                return
            model.asked = entries
            # A fit that has not begun yet will read the new entries too.
            if model.fitting is None or model.fitting.running() or model.fitting.done():
                model.fitting = self._fitter.submit(self._fit, label)

    def wait(self, label: str) -> None:
        """Wait until the model of a label has learnt from everything that was rated before the call."""
        model = self._model(label)
        self._refit(label)
        fitting = model.fitting
        # Closing the session cancels what has not begun.
        if fitting is not None and not fitting.cancelled():
            fitting.result()

    def _fit(self, label: str) -> None:
        entries = self.labels.newest()
        # Artifacts count as not interesting, so that the model learns not to look for more of them.
        known = self.labels.interest(label, artifacts=True)
        interest = {name: value for name, value in known.items() if name in self._rows}
        rated = np.array([self._rows[name] for name in interest], dtype=np.int64)
        model = self._models[label]
        with self._lock:
            if interest == model.interest:
                # What is new is of other labels.
                model.learnt = max(model.learnt, entries)
                return
        try:
            prediction = self.settings.learn(self.features, rated, np.array(list(interest.values())))
        except Exception as problem:
            log.warning("the model of %s could not be fitted, and the one before it stays in use: %s", label, problem)
            with self._lock:
                model.problem = problem
            return
        with self._lock:
            if entries >= model.learnt:
                model.learnt, model.interest, model.prediction = entries, interest, prediction
                model.problem = None
                model.round += prediction is not None

    # --- what came of it

    def ranking(self, label: str, *, first: int | None = None) -> pa.Table:
        """Return a RANKING table of all galaxies; without rows before the first rating.

        Parameters
        ----------
        label : str
        first : int, optional
            Number of rows; all by default.

        Raises
        ------
        ConfigError
            The model could not be fitted.
        """
        self.wait(label)
        model = self._model(label)
        with self._lock:
            prediction, interest = model.prediction, model.interest
        if prediction is None and model.problem is not None:
            raise ConfigError(
                f"the model of {label} could not be fitted",
                value=model.problem,
                fix="Choose other settings of ranker=.",
            ) from model.problem
        if prediction is None:
            empty = Prediction(*(np.empty(0, dtype=np.float32),) * 2)
            return ranking_table(self.ids[:0], empty, rated={}, features=self.features.matrix[:0])
        return ranking_table(self.ids, prediction, rated=interest, features=self.features.matrix, first=first)

    def progress(self, label: str) -> Progress:
        """Return how far the ratings of a label are, with an estimate of how many interesting galaxies are left."""
        model = self._model(label)
        return progress_of(self.labels, label, survey=self._rows, galaxies=len(self.ids), round=model.round)


def progress_of(labels: Labels, label: str, *, survey: Collection[str], galaxies: int, round: int) -> Progress:
    """Return how far the ratings of a label are.

    Parameters
    ----------
    labels : Labels
        The ratings.
    label : str
    survey : collection of str
        Ids of the galaxies of the survey; at least of those that were rated.
    galaxies : int
        Number of galaxies of the survey.
    round : int
        How often the model has been fitted.
    """
    known = labels.interest(label, artifacts=True)
    interest = {name: value for name, value in known.items() if name in survey}
    judged = {name for name in _rated_names(labels, label, by=None) if name in survey}
    artifacts = labels.current(ARTIFACT)
    return Progress(
        galaxies=galaxies,
        rated=len(judged),
        interesting=sum(value > INTERESTING for value in interest.values()),
        artifacts=len({
            name
            for name, value in zip(
                artifacts[tables.ID].to_pylist(), artifacts[tables.VALUE].to_pylist(), strict=True
            )
            if value == 1
        }),
        round=round,
        left=_left(labels, label, interest, judged, galaxies=galaxies),
        people=tuple(labels.people()),
        agreement=labels.agreement(label),
    )  # fmt: skip


def _left(
    labels: Labels, label: str, interest: dict[str, float], judged: set[str], *, galaxies: int
) -> Remaining | None:
    """Estimate how many interesting galaxies are left, from the galaxies that were drawn at random.

    Artifacts are not interesting. Galaxies of which all people are unsure are neither: they do not count.
    """
    seen: set[str] = set()
    known, draws = 0, []
    # How a galaxy was found is what its first entry says, whatever was said about it later.
    entries = labels.log().select([tables.ID, tables.LABEL, tables.WHY])
    for name, judging, why in zip(*(column.to_pylist() for column in entries.columns), strict=True):
        if name in seen or name not in judged or judging not in (label, ARTIFACT):
            continue
        if name in interest:
            if why == RANDOM:
                draws.append(BlindDraw(galaxies - len(seen), known, interest[name] > INTERESTING))
            known += interest[name] > INTERESTING
        seen.add(name)
    return remaining(draws, unrated=galaxies - len(seen), known=known)


def _rated_names(labels: Labels, label: str, *, by: str | None) -> set[str]:
    """Return the galaxies that were rated for a label, or called an artifact, by one person or by anybody."""
    ratings = labels.ratings(label, by=by) + labels.ratings(ARTIFACT, by=by)
    # Who takes an artifact back by rating it 0 has not said anything about the label.
    return {rating.id_str for rating in ratings if rating.label == label or rating.value}


def survey_of(source: Search | EmbeddingStore) -> Galaxies | None:
    """Return the survey of a search or a store if it can be opened."""
    try:
        return source.survey() if isinstance(source, Search) else source.galaxies()
    except RarezooError as problem:
        log.info("the survey is not open: %s", problem)
        return None
