"""``rarezoo benchmark explore``: simulated people rate galaxies, and each way to choose the next one is scored.

A simulated person wants galaxies of one kind, of which the answer is known for every galaxy of the pool. The protocol
is that of Walmsley et al. (2022): ten galaxies to start with, then batches of ten, 200 ratings in all.

Two numbers can mislead. The precision of the first 50 rises by itself if rated galaxies count, since a search rates the
best ones. The average precision of the galaxies that are left falls as a search succeeds. Both are therefore measured
with and without what was rated, or on galaxies that no search may touch.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int64
from sklearn.metrics import average_precision_score
from tqdm import tqdm

from rarezoo import tables
from rarezoo.benchmark.run import seeds_of
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.answers import Answer, Criterion
from rarezoo.embeddings.judge import usual_criteria, with_populations
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError
from rarezoo.explore.acquisition import State
from rarezoo.explore.choose import INTERESTING, RANDOM
from rarezoo.explore.features import Features, default_cache
from rarezoo.explore.ranking import RatingSettings
from rarezoo.explore.remaining import BlindDraw, remaining
from rarezoo.explore.start import start_values
from rarezoo.runs import digest
from rarezoo.settings import Settings, choice, conf_dir, described, refuse_unknown, setting

log = logging.getLogger(__name__)
GRADED, YES_NO = "graded", "yes_no"
# Who chooses the first galaxies: the way to choose itself.
OWN = "own"
# Kinds of which the networks of Galaxy Zoo 2 have not seen any answer: Walmsley et al. (2022) search for "odd".
GZ2 = ("odd=Class6.1>0.9", "ring=Class8.1>0.3", "merger=Class8.6>0.3")


@dataclass(frozen=True)
class Explorer:
    """A way to choose which galaxies a person rates.

    Attributes
    ----------
    name : str
        Name of its file in ``conf/explorer``.
    about : str
        Description for the table.
    settings : RatingSettings
    first : str
        How the first batch is chosen without examples: ``random``, or ``own`` (as the chooser does it).
    """

    name: str
    about: str
    settings: RatingSettings
    first: str = OWN


def read_explorers(folder: Path, wanted: Sequence[str] = ()) -> list[Explorer]:
    """Read explorers from YAML files; all of a folder if none are named.

    Raises
    ------
    ConfigError
        There is no such file, or it holds what an explorer does not have.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ConfigError("no such explorer", value=missing[0], fix=f"Choose from: {', '.join(known)}.")
    return [
        explorer_from(name, yaml.safe_load(known[name].read_text(encoding="utf-8")) or {}) for name in wanted or known
    ]


def explorer_from(name: str, content: Mapping[str, Any]) -> Explorer:
    """Make an explorer of the content of its file."""
    refuse_unknown(
        content, ["about", "first", "ranker", "acquisition", "choose", "beside", "components", "embedding", "weight"],
        of=f"the explorer {name}",
    )  # fmt: skip
    values: dict[str, Any] = {key: value for key, value in content.items() if key not in ("about", "first")}
    base = RatingSettings()
    for group in ("ranker", "acquisition"):
        if group in values:
            parts = dict(values[group])
            values[group] = choice(group, parts.pop("option"))(**parts)
    if "choose" in values:
        values["choose"] = replace(base.choose, **values["choose"])
    return Explorer(name, content.get("about", name), replace(base, **values), content.get("first", OWN))


@dataclass(frozen=True)
class Pool:
    """The galaxies that a simulated person searches.

    Attributes
    ----------
    features : Features
    interest : (n,) array of floats
        What the person would answer, 0 to 1.
    wanted : (n,) array of bool
        Whether each galaxy is of the kind.
    start : (n,) array of floats
        Value of showing each galaxy first.
    memory : dict
        Values that depend on the features alone.
    """

    features: Features
    interest: Float[np.ndarray, " n"]
    wanted: Bool[np.ndarray, " n"]
    start: Float[np.ndarray, " n"]
    memory: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict)

    def part(self, rows: Int64[np.ndarray, " m"]) -> "Pool":
        """Return some of the galaxies."""
        features = replace(self.features, matrix=np.ascontiguousarray(self.features.matrix[rows]))
        memory = {name: values[rows] for name, values in self.memory.items()}
        return Pool(features, self.interest[rows], self.wanted[rows], self.start[rows], memory)


@dataclass(frozen=True)
class Outcome:
    """What came of one simulated search.

    Attributes
    ----------
    found : list of int
        Number of wanted galaxies among the rated ones, after each batch; examples count.
    labels : list of int
        Number of ratings after each batch.
    precision_50, precision_200 : float or None
        Share of wanted galaxies among the first 50 and 200 of the ranking, where rated galaxies stand at their ratings.
    unrated_50, unrated_200 : float or None
        The same among the galaxies that were not rated; None if all were.
    average_precision : float or None
        Of galaxies that the search could not touch; None if there are none.
    left_low, left_high, left : float or None
        Interval of how many wanted galaxies are left, and how many are; None without blind draws.
    seconds : float
        Median time to choose a batch.
    """

    found: list[int]
    labels: list[int]
    precision_50: float | None
    precision_200: float | None
    unrated_50: float | None
    unrated_200: float | None
    average_precision: float | None
    left_low: float | None
    left_high: float | None
    left: int
    seconds: float


def search(
    pool: Pool,
    explorer: Explorer,
    *,
    seed: int,
    examples: int = 0,
    labels: int = 200,
    batch: int = 10,
    held_out: Pool | None = None,
) -> Outcome:
    """Let a simulated person search a pool.

    Parameters
    ----------
    pool : Pool
    explorer : Explorer
    seed : int
        Seed of the person: the examples, the random start, and every random draw.
    examples : int
        Wanted galaxies that the person knows at the start; they count as ratings and as found.
    labels : int
        Number of ratings, examples included.
    batch : int
        Number of ratings after which the model is fitted again.
    held_out : Pool, optional
        Galaxies that the search may not touch, for the average precision.
    """
    rng = np.random.default_rng([seed, 1])
    settings, n = replace(explorer.settings, seed=seed), len(pool.wanted)
    rated: list[int] = []
    if examples:
        rated = [int(row) for row in rng.choice(np.flatnonzero(pool.wanted), examples, replace=False)]
    found, counts, seconds, draws = [int(pool.wanted[rated].sum())], [len(rated)], [], []
    while len(rated) < min(labels, n):
        count = min(batch, labels - len(rated))
        allowed = np.ones(n, dtype=bool)
        allowed[rated] = False
        started = perf_counter()
        if not rated and explorer.first == "random":
            rows, why = rng.choice(n, min(count, n), replace=False), ("start",) * count
        else:
            known = np.array(rated, dtype=np.int64)
            needs = settings.acquisition.needs_model
            prediction = settings.learn(pool.features, known, pool.interest[known]) if needs else None
            state = State(pool.features.matrix, known, pool.interest[known], prediction, pool.start, rng, pool.memory)
            rows, why = settings.choose.choose(state, settings.acquisition, count, allowed=allowed)
        seconds.append(perf_counter() - started)
        for row, reason in zip(rows, why, strict=False):
            if reason == RANDOM:
                draws.append(
                    BlindDraw(n - len(rated), int(_liked(pool, rated)), bool(pool.interest[row] > INTERESTING))
                )
            rated.append(int(row))
        found.append(int(pool.wanted[rated].sum()))
        counts.append(len(rated))
    return _scored(pool, settings, rated, found, counts, seconds, draws, held_out)


def _liked(pool: Pool, rated: Sequence[int]) -> int:
    return int((pool.interest[list(rated)] > INTERESTING).sum()) if rated else 0


def _scored(
    pool: Pool, settings: RatingSettings, rated: list[int], found: list[int], counts: list[int],
    seconds: list[float], draws: list[BlindDraw], held_out: Pool | None,
) -> Outcome:  # fmt: skip
    known = np.array(rated, dtype=np.int64)
    model = settings.ranker.fit(
        pool.features.matrix[known], pool.interest[known], distance=pool.features.distance, seed=settings.seed
    )
    mean = model.predict(pool.features.matrix).mean.astype(np.float64)
    unrated = np.ones(len(mean), dtype=bool)
    unrated[known] = False
    with_rated = mean.copy()
    with_rated[known] = np.where(pool.interest[known] > INTERESTING, 1e9, -1e9) + pool.interest[known]
    liked = _liked(pool, rated)
    left = remaining(draws, unrated=int(unrated.sum()), known=liked)
    precision = None
    if held_out is not None and held_out.wanted.any():
        scores = model.predict(held_out.features.matrix).mean
        precision = float(average_precision_score(held_out.wanted, scores))
    return Outcome(
        found, counts,
        precision_50=_share(with_rated, pool.wanted, 50), precision_200=_share(with_rated, pool.wanted, 200),
        unrated_50=_share(mean[unrated], pool.wanted[unrated], 50),
        unrated_200=_share(mean[unrated], pool.wanted[unrated], 200),
        average_precision=precision,
        left_low=left.low if left else None, left_high=left.high if left else None,
        left=int((pool.interest > INTERESTING).sum()) - liked,
        seconds=float(np.median(seconds)),
    )  # fmt: skip


def _share(scores: Float[np.ndarray, " n"], wanted: Bool[np.ndarray, " n"], first: int) -> float | None:
    """Return the share of wanted galaxies among the first ones; None if there are no galaxies."""
    return None if not len(scores) else float(wanted[np.argsort(-scores, kind="stable")[:first]].mean())


@dataclass(frozen=True)
class Protocol:
    """What a simulated person answers, and how many examples the person knows.

    Attributes
    ----------
    ratings : str
        ``graded`` (0 to 5, five times the vote fraction, rounded) or ``yes_no``.
    examples : int
        Wanted galaxies that are known at the start.
    """

    ratings: str
    examples: int

    @classmethod
    def parsed(cls, text: str) -> "Protocol":
        """Read ``graded``, ``yes_no`` or ``yes_no_5``; the number is that of examples.

        >>> Protocol.parsed("yes_no_5")
        Protocol(ratings='yes_no', examples=5)
        """
        for name in (GRADED, YES_NO):
            number = text.removeprefix(name).removeprefix("_")
            if text.startswith(name) and (number.isdigit() or not number):
                return cls(name, int(number or 0))
        raise ConfigError("no such protocol", value=text, fix="Write graded, yes_no, or yes_no_5 for five examples.")

    def __str__(self) -> str:
        answers = "grades from 0 to 5" if self.ratings == GRADED else "yes or no"
        return f"{answers}, {self.examples} examples" if self.examples else f"{answers}, no examples"

    def interest(self, answer: Answer) -> Float[np.ndarray, " m"]:
        """Return what the person answers about each galaxy, 0 to 1."""
        return np.round(5 * answer.fraction) / 5 if self.ratings == GRADED else answer.positive.astype(np.float64)


@dataclass(kw_only=True)
class ExploreRun(Settings):
    """Let simulated people search for galaxies of known kinds, and compare the ways to choose what they see.

    Each result is kept in ``out``, so that the same command continues where it was stopped.
    """

    prefix: ClassVar[str] = ""

    store: str = setting(help="embedding store of a survey whose answers are known", positional=True)
    answers: list[str] = setting(
        [], "kinds to search for, NAME=COLUMN>VALUE or NAME=COLUMN==TEXT; empty: those of Galaxy Zoo 2 or a mock sky"
    )
    explorers: list[str] = setting([], "ways to choose: names of files in conf/explorer; empty: all")
    protocols: list[str] = setting(
        ["graded", "yes_no", "yes_no_5"], "what people answer, and with how many examples they start"
    )
    seeds: str = setting("0-14", "simulated people: a range such as 0-14, or a list")
    labels: int = setting(200, "ratings of each person", unit="galaxies", ge=1)
    batch: int = setting(10, "ratings after which the model is fitted again", unit="galaxies", ge=1)
    held_out: float = setting(
        0.25, "share of galaxies that a second search may not touch, for the average precision; 0: none", ge=0, lt=1
    )
    workers: int = setting(1, "number of searches that run at the same time", ge=1)
    out: str = setting("runs/explore", "folder of the results")

    def run(self) -> str:
        """Run the searches that are missing, write the tables and the figure, and return the tables as text."""
        from rarezoo.benchmark.explore_results import write_explore

        store = EmbeddingStore.open(self.store)
        galaxies = store.galaxies()
        explorers = read_explorers(conf_dir() / "explorer", self.explorers)
        protocols, seeds = [Protocol.parsed(text) for text in self.protocols], seeds_of(self.seeds)
        kinds = self.kinds(store, galaxies)
        folder = Path(self.out)
        tasks = self._tasks(store, galaxies, kinds, explorers, protocols, seeds)
        outcomes = self._outcomes(tasks, folder)
        return write_explore(folder, outcomes, explorers, protocols, kinds, seeds, store=store)

    def kinds(self, store: EmbeddingStore, galaxies: Galaxies) -> dict[str, Answer]:
        """Return the kinds to search for, among the galaxies of the store."""
        table = with_populations(galaxies)
        table = tables.aligned(table, store.ids, source="the survey")
        if self.answers:
            criteria = tuple(Criterion.parsed(text) for text in self.answers)
        elif tables.POPULATION in table.column_names:
            criteria = usual_criteria(table, survey=store.manifest.survey)
        else:
            criteria = tuple(Criterion.parsed(text) for text in GZ2)
        kinds = {criterion.name: Answer.of(criterion, criterion.values(table)) for criterion in criteria}
        fewest = 2 + max(Protocol.parsed(text).examples for text in self.protocols)
        for name, answer in kinds.items():
            if answer.positives < fewest:
                raise DataError(
                    f"too few galaxies of the kind {name}", value=answer.positives, fix=f"At least {fewest} are needed."
                )
            if answer.positives == answer.galaxies:
                raise DataError(
                    f"every galaxy is of the kind {name}", value=answer.criterion, fix="Choose a higher threshold."
                )
        return kinds

    def _tasks(
        self, store: EmbeddingStore, galaxies: Galaxies, kinds: Mapping[str, Answer],
        explorers: Sequence[Explorer], protocols: Sequence[Protocol], seeds: Sequence[int],
    ) -> "list[_Task]":  # fmt: skip
        """Return every search of the benchmark; features are measured once for each kind of features."""
        cache = default_cache(store)
        whole: dict[str, Features] = {}
        starts: dict[tuple[str, str], dict[int, Float[np.ndarray, " n"]]] = {}
        tasks = []
        for explorer in explorers:
            key = _feature_key(explorer)
            if key not in whole:
                whole[key] = explorer.settings.features(store, galaxies=galaxies, cache=cache)
            for kind, answer in kinds.items():
                rows = np.flatnonzero(answer.known)
                matrix = np.ascontiguousarray(whole[key].matrix[rows])
                memory = dict[str, Float[np.ndarray, " n"]]()
                for protocol in protocols:
                    settings = {
                        "explorer": plain_settings(explorer), "protocol": str(protocol), "kind": str(answer.criterion),
                        "labels": self.labels, "batch": self.batch, "held_out": self.held_out,
                        "features": digest({"values": matrix.astype(np.float64).sum(axis=0).round(3).tolist()}),
                        "start": "the seed of the person",
                    }  # fmt: skip
                    tasks += [
                        _Task(
                            kind, explorer, protocol, seed, replace(whole[key], matrix=matrix),
                            protocol.interest(answer), answer.positive, memory,
                            starts.setdefault((key, kind), {}), self.labels, self.batch, self.held_out,
                            {**settings, "seed": seed},
                        )
                        for seed in seeds
                    ]  # fmt: skip
        return tasks

    def _outcomes(
        self, tasks: "Sequence[_Task]", folder: Path
    ) -> "dict[tuple[str, str, str, int], dict[str, Outcome]]":
        """Return the outcome of every task by kind, explorer, protocol and seed: kept ones, and new ones."""
        outcomes, missing = {}, []
        for task in tasks:
            kept = task.kept(folder)
            if kept is None:
                missing.append(task)
            else:
                outcomes[task.key] = kept
        with tqdm(total=len(missing), desc="searches", disable=not missing) as progress:
            if self.workers == 1:
                for task in missing:
                    outcomes[task.key] = task.run(folder)
                    progress.update()
                return outcomes
            with ProcessPoolExecutor(self.workers) as pool:
                waiting = {pool.submit(task.run, folder): task for task in missing}
                for finished in as_completed(waiting):
                    outcomes[waiting[finished].key] = finished.result()
                    progress.update()
        return outcomes


@dataclass(frozen=True)
class _Task:
    """One simulated person with one way to choose: a search of the whole pool, and one of a part of it."""

    kind: str
    explorer: Explorer
    protocol: Protocol
    seed: int
    features: Features
    interest: Float[np.ndarray, " n"]
    wanted: Bool[np.ndarray, " n"]
    memory: dict[str, Float[np.ndarray, " n"]]
    starts: dict[int, Float[np.ndarray, " n"]]
    labels: int
    batch: int
    held_out: float
    made_with: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.kind, self.explorer.name, str(self.protocol), self.seed

    def _path(self, folder: Path) -> Path:
        return folder / "searches" / f"{digest(tables.plain(self.made_with))[:24]}.json"

    def kept(self, folder: Path) -> dict[str, Outcome] | None:
        path = self._path(folder)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())
            return {name: Outcome(**values) for name, values in content["outcomes"].items()}
        except (ValueError, KeyError, TypeError) as problem:
            log.warning("%s is damaged or of another version, and the search is done again: %s", path, problem)
            return None

    def _start(self) -> Float[np.ndarray, " n"]:
        """Return the value of showing each galaxy first.

        The order differs from person to person, as it does from survey to survey. With one order for all, intervals
        over people would not hold the luck of that order. Tasks with the same features and galaxies share it.
        """
        if self.explorer.first != OWN or not self.explorer.settings.acquisition.needs_model:
            return np.zeros(len(self.wanted))
        if self.seed not in self.starts:
            self.starts[self.seed] = start_values(self.features.matrix, seed=self.seed)
        return self.starts[self.seed]

    def run(self, folder: Path) -> dict[str, Outcome]:
        """Search, and keep the outcome."""
        pool = Pool(self.features, self.interest, self.wanted, self._start(), self.memory)
        person = partial(
            search, explorer=self.explorer, seed=self.seed, examples=self.protocol.examples, labels=self.labels,
            batch=self.batch,
        )  # fmt: skip
        outcomes = {"whole": person(pool)}
        if self.held_out:
            # The same galaxies are held out from every way to choose.
            out = np.random.default_rng([self.seed, 2]).random(len(self.wanted)) < self.held_out
            rest = pool.part(np.flatnonzero(~out))
            untouched = pool.part(np.flatnonzero(out))
            if rest.wanted.sum() > self.protocol.examples:
                outcomes["part"] = person(rest, held_out=untouched)
        content = {"made_with": self.made_with, "outcomes": {name: asdict(item) for name, item in outcomes.items()}}
        tables.write_json(content, self._path(folder))
        return outcomes


def _feature_key(explorer: Explorer) -> str:
    settings = explorer.settings
    return digest({name: getattr(settings, name) for name in ("embedding", "beside", "components", "weight")})


def plain_settings(explorer: Explorer) -> dict[str, Any]:
    """Return what an explorer is, as JSON can hold it; the seed of its settings does not count."""
    settings = explorer.settings
    parts = {"ranker": described(settings.ranker), "acquisition": described(settings.acquisition)}
    rest = {name: getattr(settings, name) for name in ("embedding", "beside", "components", "weight")}
    return {**parts, **rest, "choose": asdict(settings.choose), "first": explorer.first}
