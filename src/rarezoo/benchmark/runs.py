"""Contestants on skies: every contestant is tried on every sky in a process that can be stopped.

Each run leaves two small files behind: what the contestant handed in (labels and gallery), and how that went. Scores
are read from those files alone, and the same runs go on where they were killed.

Shape letters: n galaxies, m of them searched.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
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
from jaxtyping import Int32, Int64
from tqdm import tqdm

from rarezoo import __version__, tables
from rarezoo.benchmark.contestants import Contestant, contestant_from, likenesses
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
_SHARE = 0.8
_TRUTH, _RANKED = "truth.npz", "ranked.json"
# What a search of a contestant on one sky is seeded with, beside the sky's own number.
_ANOTHER = 1000
# Galaxies of each population that are asked for their like.
_QUERIES = 300


@dataclass(frozen=True)
class Job:
    """One contestant on one sky.

    Attributes:
        name: of the contestant.
        seed: of the sky, and of the search.
        variant: whole; reseeded (the search has another seed); part (80 % of the galaxies, and another seed).
    """

    name: str
    seed: int
    variant: str = WHOLE

    @property
    def stem(self) -> str:
        """Of its files."""
        return f"sky{self.seed}/{self.name}.{self.variant}"


@dataclass(frozen=True)
class Board:
    """The files of one tier's contestants.

    Attributes:
        folder: of this tier's results.
        tier: what they are tried on.
        contestants: by name.
        limit: seconds that a contestant may take on one sky.
    """

    folder: Path
    tier: Tier
    contestants: Mapping[str, Contestant]
    limit: float

    def refuse_other_skies(self) -> None:
        """Raise OutputError if the folder's results are on skies that another generator drew."""
        record = self.folder / SETTINGS_FILE
        if record.exists():
            found = json.loads(record.read_text())["settings"].get("generation", "")
            refuse_other_skies(found, now=self.tier.generation, where=self.folder)

    def run(self, jobs: Sequence[Job], *, workers: int = 1) -> None:
        """Do what is not yet done.

        Raises:
            OutputError: the folder holds results of another tier, or on skies that another generator drew.
        """
        self.refuse_other_skies()
        claim(self.folder, verb="benchmark classes", settings=self.tier.settings())
        waiting = [job for job in jobs if not self._finished(job)]
        for seed in dict.fromkeys(job.seed for job in waiting):
            self._prepare(seed)
        workplaces = local()
        with ThreadPoolExecutor(workers) as pool, tqdm(total=len(waiting), unit="run") as progress:

            def one(job: Job) -> None:
                if not hasattr(workplaces, "worker"):
                    workplaces.worker = Worker()
                self._settle(job, workplaces.worker)
                progress.set_postfix_str(job.stem)
                progress.update()

            list(pool.map(one, waiting))

    def _prepare(self, seed: int) -> None:
        """Have a sky prepared; one that cannot be made is told of by those who are tried on it."""
        place = self.folder / f"sky{seed}"
        place.mkdir(parents=True, exist_ok=True)
        with locked(place), suppress(RarezooError):
            self.tier.prepare(seed, place)

    def outcome(self, job: Job) -> dict[str, Any] | None:
        """How a job went, if it was done with the same settings; None if not."""
        try:
            content: dict[str, Any] = json.loads((self.folder / f"{job.stem}.json").read_text())
        except (OSError, ValueError):
            return None
        return content if content["made_with"] == tables.plain(self._made_with(job)) else None

    def handed_in(self, job: Job) -> dict[str, np.ndarray]:
        """Labels (n,), rows (r, w) and members (which galaxies were searched) of a job that is done.

        Where populations are known of some galaxies only, also precisions (2, c, p): see
        :func:`rarezoo.benchmark.scores.class_precisions`.
        """
        with np.load(self.folder / f"{job.stem}.npz") as stored:
            return dict(stored)

    def truth(self, seed: int) -> Truth:
        """Of one sky.

        Raises:
            StoreError: nothing was tried on it yet, or the sky could not be made: then the message says why.
        """
        try:
            with np.load(self.folder / f"sky{seed}" / _TRUTH) as stored:
                content = dict(stored)
        except OSError as problem:
            told = [json.loads(path.read_text())["message"] for path in (self.folder / f"sky{seed}").glob("*.json")]
            raise StoreError(
                "no results of this sky", value=f"seed {seed}", fix=told[0] if told else "Run without --rescore."
            ) from problem
        about = {name: content[name].tolist() for name in content if name not in ("names", "members", "known")}
        return Truth(tuple(content["names"].tolist()), content["members"], content["known"], about)

    def ranked(self, seed: int) -> dict[str, Any]:
        """Average precision of "most like this one" by kind of features and population, where it was measured."""
        path = self.folder / f"sky{seed}" / _RANKED
        return json.loads(path.read_text()) if path.exists() else {}

    def _finished(self, job: Job) -> bool:
        before = self.outcome(job)
        # What failed is tried again; what took too long is not, unless it may take longer now.
        return before is not None and (
            before["status"] == DONE or (before["status"] == TOO_LONG and self.limit <= before["limit"])
        )

    def _made_with(self, job: Job) -> dict[str, Any]:
        # How a contestant is described in the table changes nothing that it does.
        settings = {**self.contestants[job.name].settings(), "about": ""}
        return {"contestant": settings, "version": __version__}

    def _settle(self, job: Job, worker: "Worker") -> None:
        order = {
            "folder": str(self.folder), "tier": self.tier.settings(), "seed": job.seed, "variant": job.variant,
            "stem": job.stem, "contestant": self.contestants[job.name].settings(),
        }  # fmt: skip
        told = worker.told(order, limit=self.limit)
        about = {"made_with": self._made_with(job), "limit": self.limit, **told}
        tables.write_json(about, self.folder / f"{job.stem}.json")


class Worker:
    """A process that does one order after another, and is stopped when one takes too long."""

    def __init__(self) -> None:
        self._start()

    def told(self, order: Mapping[str, Any], *, limit: float) -> dict[str, Any]:
        """How an order went: status, seconds, message."""
        started = time.perf_counter()
        try:
            self._ours.send(order)
            if self._ours.poll(limit):
                told: dict[str, Any] = self._ours.recv()
                return told
            status, message = TOO_LONG, f"more than {limit:g} s"
        except (EOFError, OSError):
            status, message = FAILED, "its process was killed, as for lack of memory"
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
    """What a worker's process does until nobody is there to ask."""
    # Bars of several searches at once would write over one another, and over ours.
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # type: ignore[method-assign,assignment]
    while True:
        try:
            order = orders.recv()
        except (EOFError, KeyboardInterrupt):
            return
        started = time.perf_counter()
        try:
            told = {"status": DONE, "seconds": carried_out(order), "message": ""}
        except RarezooError as problem:
            told = {"status": FAILED, "seconds": time.perf_counter() - started, "message": str(problem)}
        except KeyboardInterrupt:
            return
        except Exception as problem:
            log.exception("%s", order["stem"])
            message = f"{type(problem).__name__}: {problem}"
            told = {"status": FAILED, "seconds": time.perf_counter() - started, "message": message[:200]}
        orders.send(told)


def carried_out(order: Mapping[str, Any]) -> float:
    """Do one order, leave what the contestant hands in; seconds that it took, shared maps included."""
    folder, contestant = Path(order["folder"]), contestant_from(order["contestant"])
    place, seed, variant = folder / f"sky{order['seed']}", order["seed"], order["variant"]
    shelf = folder / "shelf"
    shelf.mkdir(parents=True, exist_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    # Others may be tried on the same sky at this moment, which is rendered, trained on and embedded once.
    with locked(place):
        sky = tier_from(order["tier"]).sky(seed, place)
        _keep_truth(sky.truth, place / _TRUTH)
        features = sky.features(contestant.features)
    members = _asked(len(features), variant=variant, seed=seed)
    search_seed = seed if variant == WHOLE else seed + _ANOTHER
    started = time.perf_counter()
    entry = contestant.entry(features[members], seed=search_seed, shelf=shelf)
    seconds = time.perf_counter() - started + entry.spared
    rows = np.where(entry.rows >= 0, members[entry.rows], entry.rows).astype(np.int32)
    handed_in = {"labels": _spread(entry.labels, members, len(features)), "rows": rows, "members": members}
    if variant == WHOLE and not sky.truth.known.all():
        handed_in["precisions"] = class_precisions(likenesses(entry, features), sky.truth, seed=seed)
    with tables.atomic(folder / f"{order['stem']}.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **handed_in)  # type: ignore[arg-type]
    return seconds


def _asked(galaxies: int, *, variant: str, seed: int) -> Int64[np.ndarray, " m"]:
    """Rows of the galaxies that are searched."""
    if variant != PART:
        return np.arange(galaxies)
    random = np.random.default_rng([seed, _ANOTHER])
    return np.sort(random.choice(galaxies, int(_SHARE * galaxies), replace=False))


def _spread(labels: np.ndarray, members: np.ndarray, galaxies: int) -> Int32[np.ndarray, " n"]:
    """Labels of all galaxies, −1 for those that were not searched."""
    whole = np.full(galaxies, tables.NO_CLASS, dtype=np.int32)
    whole[members] = labels
    return whole


def _keep_truth(truth: Truth, path: Path) -> None:
    if not path.exists():
        with tables.atomic(path) as temporary, temporary.open("wb") as stream:
            about = {name: np.array(values) for name, values in truth.about.items()}
            content = {
                "names": np.array(truth.names, dtype=str),
                "members": truth.members,
                "known": truth.known,
                **about,
            }
            np.savez_compressed(stream, **content)  # type: ignore[arg-type]


def rank_features(board: Board, seed: int) -> None:
    """Measure how well each kind of features ranks the like of each population, once per sky.

    Features that cannot be had here, or that a network would have to be trained for, are left out.
    """
    place, told = board.folder / f"sky{seed}", board.ranked(seed)
    missing = [kind for kind in board.tier.features if kind not in told]
    if not missing:
        return
    sky = board.tier.sky(seed, place)
    for kind in filter(sky.at_hand, missing):
        try:
            features = sky.features(kind)
        except ConfigError:
            continue
        told[kind] = {}
        for column, name in enumerate(sky.truth.names):
            known, members = sky.truth.known[:, column], sky.truth.members[:, column]
            if members.sum() > 1:
                ranking = average_precisions(features[known], members[known], queries=_QUERIES, seed=seed)
                told[kind][name] = {"precision": ranking.mean.value, "chance": ranking.chance}
    tables.write_json(told, place / _RANKED)


def jobs_of(contestants: Sequence[str], seeds: Sequence[int], *, refits: int) -> Iterator[Job]:
    """Sky by sky, every contestant; on the first so many skies twice again, for stability."""
    for seed in seeds:
        yield from (Job(name, seed) for name in contestants)
    for seed in seeds[:refits]:
        yield from (Job(name, seed, variant) for name in contestants for variant in (RESEEDED, PART))
