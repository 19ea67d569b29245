"""Try every method on every sky, each time in a process that can be stopped.

Each trial leaves two small files behind: the submission of the method (labels and gallery), and how the trial ended.
Scores are computed from these files alone, and the same trials go on where they were killed.

Shape letters: n galaxies, m of them searched.
"""

import logging
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partialmethod
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rarezoo import __version__, tables
from rarezoo.benchmark.methods import Method, class_similarities, method_from
from rarezoo.benchmark.planted import refuse_other_skies
from rarezoo.benchmark.scores import Truth, class_precisions
from rarezoo.benchmark.tiers import Tier, tier_from
from rarezoo.cache import locked
from rarezoo.embeddings.quality import average_precisions
from rarezoo.errors import ConfigError, RarezooError, StoreError
from rarezoo.runs import SETTINGS_FILE, claim

log = logging.getLogger(__name__)
WHOLE, RESEEDED, PART = "whole", "reseeded", "part"
DONE, FAILED, TOO_LONG = "done", "failed", "too long"
# What a process says when it has made the sky and the method begins.
_BEGUN = "begun"
_SHARE = 0.8
# What numpy raises for a file of arrays that is missing, cut off, or holds objects.
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile)
_TRUTH, _RANKED = "truth.npz", "ranked.json"
# Added to the seed of the sky for the seed of a repeated search.
_SEED_OFFSET = 1000
# Number of galaxies of each population whose most similar galaxies are ranked.
_QUERIES = 300


@dataclass(frozen=True)
class Trial:
    """One method on one sky.

    Attributes
    ----------
    name
        Name of the method.
    seed
        Seed of the sky and of the search.
    variant
        ``whole``; ``reseeded``: the search has another seed; ``part``: another seed and 80 % of the galaxies.
    """

    name: str
    seed: int
    variant: str = WHOLE

    @property
    def stem(self) -> str:
        """Return the name of its files, without the suffix."""
        return f"sky{self.seed}/{self.name}.{self.variant}"


@dataclass(frozen=True)
class TrialFolder:
    """The files of all trials of one tier.

    Attributes
    ----------
    folder
        Folder of the results of this tier.
    tier
        The kind of data that the methods are tried on.
    methods
        The methods, by name.
    limit
        Longest time that a method may take on one sky, s.
    """

    folder: Path
    tier: Tier
    methods: Mapping[str, Method]
    limit: float

    def refuse_other_skies(self) -> None:
        """Raise OutputError if the results in the folder are for skies that another generator drew."""
        record = self.folder / SETTINGS_FILE
        if record.exists():
            fix = "Choose another out=DIR, or delete that folder if you no longer need it."
            known = tables.read_json(record, fix=fix).get("settings", {})
            refuse_other_skies(known.get("generation", ""), now=self.tier.generation, where=self.folder)

    def run(self, trials: Sequence[Trial], *, workers: int = 1) -> None:
        """Run the trials that are not finished.

        Raises
        ------
        OutputError
            The folder holds results of another tier, or of skies that another generator drew.
        """
        self.refuse_other_skies()
        inputs = self.tier.inputs()
        claim(self.folder, verb="benchmark", settings=self.tier.settings(), inputs=lambda: inputs, places=list(inputs))
        waiting = [trial for trial in trials if not self._finished(trial)]
        for seed in dict.fromkeys(trial.seed for trial in waiting):
            place = self.folder / f"sky{seed}"
            place.mkdir(parents=True, exist_ok=True)
            # A sky that cannot be made is reported by every trial on it.
            with locked(place), suppress(RarezooError):
                self.tier.prepare(seed, place)
        thread = local()
        with ThreadPoolExecutor(workers) as pool, tqdm(total=len(waiting), unit="trial") as progress:

            def settle(trial: Trial) -> None:
                if not hasattr(thread, "worker"):
                    thread.worker = Worker()
                order = {
                    "folder": str(self.folder),
                    "tier": self.tier.settings(),
                    "seed": trial.seed,
                    "variant": trial.variant,
                    "stem": trial.stem,
                    "method": self.methods[trial.name].settings(),
                }
                outcome = thread.worker.run(order, limit=self.limit)
                record = {"made_with": self._made_with(trial), "limit": self.limit, **outcome}
                tables.write_json(record, self.folder / f"{trial.stem}.json")
                progress.set_postfix_str(trial.stem)
                progress.update()

            list(pool.map(settle, waiting))

    def outcome(self, trial: Trial) -> dict[str, Any] | None:
        """Return how a trial ended, or None if it was not run with the same settings."""
        try:
            content = tables.read_json(self.folder / f"{trial.stem}.json", fix="Run it again.")
        except StoreError:
            return None
        if content.get("status") == DONE and not _is_whole(self.folder / f"{trial.stem}.npz"):
            return None
        return content if content.get("made_with") == tables.plain(self._made_with(trial)) else None

    def submission(self, trial: Trial) -> dict[str, np.ndarray]:
        """Return the submission of a finished trial: labels (n,), rows (r, w), and members (rows that were searched).

        It has main_groups, a number, if the method counts them.
        Where populations are known of some galaxies only, it also has precisions (2, c, p): see
        :func:`rarezoo.benchmark.scores.class_precisions`.
        """
        path = self.folder / f"{trial.stem}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except _UNREADABLE as problem:
            raise StoreError(
                "unreadable submission", value=path, fix="Run again without rescore=true: it is then made again."
            ) from problem

    def truth(self, seed: int) -> Truth:
        """Return what is known of one sky.

        Raises
        ------
        StoreError
            No method was tried on it, or the sky could not be made; then the message says why.
        """
        place = self.folder / f"sky{seed}"
        try:
            with np.load(place / _TRUTH, allow_pickle=False) as stored:
                content = dict(stored)
        except _UNREADABLE as problem:
            fix = next(self._messages(place), "Run without rescore=true.")
            raise StoreError("no results of this sky", value=f"seed {seed}", fix=fix) from problem
        about = {name: content[name].tolist() for name in content if name not in ("names", "members", "known")}
        return Truth(tuple(content["names"].tolist()), content["members"], content["known"], about)

    def _messages(self, place: Path) -> Iterator[str]:
        """Yield what the trials on a sky said when they ended."""
        for path in sorted(place.glob("*.json")):
            with suppress(StoreError):
                message = tables.read_json(path, fix="").get("message")
                if message:
                    yield str(message)

    def ranked(self, seed: int) -> dict[str, Any]:
        """Return the average precision of "most like this one" by kind of features and population, where measured."""
        path = self.folder / f"sky{seed}" / _RANKED
        try:
            return tables.read_json(path, fix="Run it again.")
        except StoreError:
            return {}

    def _finished(self, trial: Trial) -> bool:
        before = self.outcome(trial)
        # A failed trial is run again; one that took too long only if it may take longer now.
        return before is not None and (
            before["status"] == DONE or (before["status"] == TOO_LONG and self.limit <= before["limit"])
        )

    def _made_with(self, trial: Trial) -> dict[str, Any]:
        # The description of a method in the table changes nothing that it does.
        settings = {**self.methods[trial.name].settings(), "about": ""}
        return {"method": settings, "version": __version__}


def _is_whole(path: Path) -> bool:
    """Return whether a file of arrays exists and was not cut off."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return bool(stored.files)
    except _UNREADABLE:
        return False


class Worker:
    """A process that runs one order after another, and is stopped when one takes too long."""

    def __init__(self) -> None:
        self._start()

    def run(self, order: Mapping[str, Any], *, limit: float) -> dict[str, Any]:
        """Run an order and return how it ended: status, seconds, message.

        The limit is that of the method. The first order for a sky also embeds it, which may take longer.
        """
        started = time.perf_counter()
        try:
            self._ours.send(order)
            outcome: dict[str, Any] = self._ours.recv()
            if outcome["status"] != _BEGUN:
                return outcome
            started = time.perf_counter()
            if self._ours.poll(limit):
                outcome = self._ours.recv()
                return outcome
            status, message = TOO_LONG, f"more than {limit:g} s"
        except (EOFError, OSError):
            status, message = FAILED, "its process was killed, perhaps because memory ran out"
        self._process.kill()
        self._process.join()
        self._start()
        return {"status": status, "seconds": time.perf_counter() - started, "message": message}

    def _start(self) -> None:
        context = get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()


def _serve(orders: Connection) -> None:
    """Run orders until the other end of the pipe is closed."""
    # Progress bars of several searches at once would overwrite each other and the bar of the benchmark.
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # type: ignore[method-assign,assignment]
    while True:
        try:
            order = orders.recv()
        except (EOFError, KeyboardInterrupt):
            return
        started = time.perf_counter()
        try:
            seconds = carry_out(order, begun=lambda: orders.send({"status": _BEGUN}))
            outcome = {"status": DONE, "seconds": seconds, "message": ""}
        except RarezooError as problem:
            outcome = {"status": FAILED, "seconds": time.perf_counter() - started, "message": str(problem)}
        except KeyboardInterrupt:
            return
        except Exception as problem:
            log.exception("%s", order["stem"])
            message = f"{type(problem).__name__}: {problem}"
            outcome = {"status": FAILED, "seconds": time.perf_counter() - started, "message": message[:200]}
        orders.send(outcome)


def carry_out(order: Mapping[str, Any], *, begun: Callable[[], None] = lambda: None) -> float:
    """Run one order, write the submission, and return the seconds that it took, those of shared maps included.

    Parameters
    ----------
    order
        What :meth:`TrialFolder.run` has sent.
    begun
        Called when the sky and its features are there and the method begins.
    """
    folder, method = Path(order["folder"]), method_from(order["method"])
    place, seed, variant = folder / f"sky{order['seed']}", order["seed"], order["variant"]
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    # Other methods may need the same sky at this moment; it is rendered, trained on and embedded once.
    with locked(place):
        sky = tier_from(order["tier"]).sky(seed, place)
        if not _is_whole(place / _TRUTH):
            columns = {name: np.array(values) for name, values in sky.truth.about.items()}
            names = np.array(sky.truth.names, dtype=str)
            truth: dict[str, np.ndarray] = {
                "names": names,
                "members": sky.truth.members,
                "known": sky.truth.known,
                **columns,
            }
            _write_arrays(truth, place / _TRUTH)
        features = sky.features(method.features)
    searched = np.arange(len(features))
    if variant == PART:
        random = np.random.default_rng([seed, _SEED_OFFSET])
        searched = np.sort(random.choice(len(features), int(_SHARE * len(features)), replace=False))
    search_seed = seed if variant == WHOLE else seed + _SEED_OFFSET
    begun()
    started = time.perf_counter()
    result = method.run(features[searched], seed=search_seed, cache=cache)
    seconds = time.perf_counter() - started + result.seconds_saved
    rows = np.where(result.rows >= 0, searched[result.rows], result.rows).astype(np.int32)
    labels = np.full(len(features), tables.NO_CLASS, dtype=np.int32)
    labels[searched] = result.labels
    submission: dict[str, Any] = {"labels": labels, "rows": rows, "members": searched}
    if result.main_groups is not None:
        submission["main_groups"] = result.main_groups
    if variant == WHOLE and not sky.truth.known.all():
        submission["precisions"] = class_precisions(class_similarities(result, features), sky.truth, seed=seed)
    _write_arrays(submission, folder / f"{order['stem']}.npz")
    return seconds


def _write_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    with tables.atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def rank_features(trials: TrialFolder, seed: int) -> None:
    """Measure how well each kind of features ranks galaxies of each population, once per sky.

    Features that do not exist here, or for which a network would have to be trained, are left out.
    """
    place, ranked = trials.folder / f"sky{seed}", trials.ranked(seed)
    missing = [kind for kind in trials.tier.features if kind not in ranked]
    if not missing:
        return
    sky = trials.tier.sky(seed, place)
    for kind in filter(sky.is_available, missing):
        try:
            features = sky.features(kind)
        except ConfigError:
            continue
        ranked[kind] = {}
        for column, name in enumerate(sky.truth.names):
            known, members = sky.truth.known[:, column], sky.truth.members[:, column]
            if members.sum() > 1:
                ranking = average_precisions(features[known], members[known], queries=_QUERIES, seed=seed)
                ranked[kind][name] = {"precision": ranking.mean.value, "chance": ranking.chance}
    tables.write_json(ranked, place / _RANKED)


def trials_of(methods: Sequence[str], seeds: Sequence[int], *, refits: int) -> Iterator[Trial]:
    """Return every method on every sky, and on the first ``refits`` skies twice more, to measure stability."""
    for seed in seeds:
        yield from (Trial(name, seed) for name in methods)
    for seed in seeds[:refits]:
        yield from (Trial(name, seed, variant) for name in methods for variant in (RESEEDED, PART))
