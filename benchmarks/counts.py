"""How often the estimated number of galaxies of a kind holds the truth, over draws of labels of real galaxies.

Labels are drawn as in ``rarezoo benchmark few-labels``: N galaxies of a kind and some times as many others. Nothing but
scores is needed, so a draw takes about a second. Every draw is a file, so that a run that was stopped continues.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.benchmark.run import seeds_of
from rarezoo.data.own_labels import BINARY, CLASSES, OwnLabels
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.answers import Answer, Criterion
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.prediction.calibration import Calibration, class_share_draws
from rarezoo.prediction.evaluation import proportion
from rarezoo.prediction.models import KERNEL, Model, out_of_fold
from rarezoo.prediction.probe import ProbeSettings
from rarezoo.prediction.space import Space
from rarezoo.settings import Settings, setting
from rarezoo.tables import markdown

_OTHER = "other"


@dataclass(kw_only=True)
class Counts(Settings):
    """Coverage of the 95 % intervals of how many galaxies of a kind there are, with the probe's Gaussian process.

    The second table is of several classes at once. Estimates are shown as their mean over draws and their standard
    deviation.
    """

    store: str = setting(help="embedding store of a survey whose answers are known", positional=True)
    answers: list[str] = setting(
        ["ring=Class8.1>0.3", "merger=Class8.6>0.3", "irregular=Class8.4>0.3", "odd=Class6.1>0.5"],
        "kinds, NAME=COLUMN>VALUE; the first three are the classes of the second table",
    )
    positives: list[int] = setting([13, 33, 79], "galaxies of the kind that are labelled", ge=5)
    others: int = setting(5, "other labelled galaxies, for each of the kind", ge=1)
    draws: str = setting("0-19", "draws of labels: a range such as 0-19, or a list")
    classes: bool = setting(True, "estimate several classes at once, too; false: only the first table")
    out: str = setting("runs/counts", "folder of the results")

    def run(self) -> str:
        """Estimate what has not been estimated, and return the tables."""
        store = EmbeddingStore.open(self.store)
        galaxies = store.galaxies()
        kinds = self._kinds(store, galaxies)
        trials = [(kind, number, draw) for kind in kinds for number in self.positives for draw in seeds_of(self.draws)]
        rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for kind, number, draw in tqdm(trials, desc="draws of labels"):
            if kinds[kind].positives < number + 10:
                continue
            file = Path(self.out) / f"{kind}-{number}-{draw}.json"
            if not file.exists():
                tables.write_json(self._estimated(store, galaxies, kinds[kind], number, draw), file)
            rows.setdefault((kind, number), []).append(json.loads(file.read_text()))
        lines = []
        for (kind, number), found in rows.items():
            truth, inside = kinds[kind].positives, []
            for name in ("count", "adjusted"):
                inside.append(np.array([each[name][1] <= truth <= each[name][2] for each in found]))
            both = np.array(
                [
                    min(each["count"][1], each["adjusted"][1]) <= truth <= max(each["count"][2], each["adjusted"][2])
                    for each in found
                ]
            )
            values = np.array([each["count"] for each in found])
            lines.append(
                [
                    kind,
                    str(number),
                    str(truth),
                    f"{values[:, 0].mean():.0f} ± {values[:, 0].std(ddof=1):.0f}",
                    f"{np.median(values[:, 1]):.0f}–{np.median(values[:, 2]):.0f}",
                    *(f"{held.sum()} of {len(held)}" for held in (*inside, both)),
                    proportion(int(inside[0].sum()), len(found)).text(".2f"),
                ]
            )
        head = ["kind", "N", "truth", "estimate", "median interval", "holds", "by counting holds", "either", "coverage"]
        table = markdown(head, lines)
        return f"{table}\n\n{self._classes(store, galaxies, kinds)}" if self.classes else table

    def _kinds(self, store: EmbeddingStore, galaxies: Galaxies) -> dict[str, Answer]:
        table = tables.aligned(galaxies.catalogue, store.ids, source="the survey")
        criteria = [Criterion.parsed(text) for text in self.answers]
        return {criterion.name: Answer.of(criterion, criterion.values(table)) for criterion in criteria}

    def _estimated(
        self, store: EmbeddingStore, galaxies: Galaxies, answer: Answer, number: int, draw: int
    ) -> dict[str, Any]:
        """Return the two estimates of a draw with their intervals."""
        known, random = np.flatnonzero(answer.known), np.random.default_rng([draw, number, self.others * number])
        learnt = np.concatenate(
            [
                random.choice(np.flatnonzero(answer.positive), number, replace=False),
                random.choice(np.flatnonzero(~answer.positive), self.others * number, replace=False),
            ]
        )
        values = answer.positive[learnt].astype(np.float32)[:, None]
        labels = OwnLabels(store.ids[known[learnt]], BINARY, (answer.criterion.name,), values)
        found = ProbeSettings(learner=KERNEL, seed=draw).probe(store, labels, galaxies=galaxies)
        evaluation = found.published.evaluations[0]
        return {"count": list(evaluation.count), "adjusted": list(evaluation.adjusted)}

    def _classes(self, store: EmbeddingStore, galaxies: Galaxies, kinds: dict[str, Answer]) -> str:
        """Return the table of the estimates for several classes at once."""
        names = [_OTHER, *list(kinds)[:3]]
        which = np.zeros(len(store.ids), dtype=np.int64)
        for place, name in reversed(list(enumerate(names))[1:]):
            which[np.flatnonzero(kinds[name].known)[kinds[name].positive]] = place
        space, found = Space.of(store, galaxies=galaxies), list[Any]()
        for draw in seeds_of(self.draws):
            file = Path(self.out) / f"classes-{draw}.json"
            if file.exists():
                found.append(json.loads(file.read_text()))
                continue
            random = np.random.default_rng(draw)
            learnt = np.concatenate(
                [
                    random.choice(np.flatnonzero(which == place), 50 if place else 200, replace=False)
                    for place in range(len(names))
                ]
            )
            rest = np.delete(np.arange(len(which)), learnt)
            values = np.eye(len(names), dtype=np.float32)[which[learnt]]
            labels = OwnLabels(store.ids[learnt], CLASSES, tuple(names), values)
            matrix = space.rows(np.concatenate([learnt, rest]))
            scores = out_of_fold(
                Model(KERNEL), matrix[: len(learnt)], labels, distance=space.distance, seed=draw,
                others=matrix[len(learnt) :],
            )  # fmt: skip
            calibration = Calibration.fit(scores[: len(learnt)], values.astype(np.float64), kind=CLASSES)
            probabilities, members = calibration.probabilities(scores), values == 1
            shares = class_share_draws(
                probabilities[: len(learnt)], members, probabilities[len(learnt) :], rng=np.random.default_rng(draw)
            )
            numbers = shares * len(rest) + values.sum(axis=0)
            found.append([numbers[0], *np.quantile(numbers[1:], (0.025, 0.975), axis=0)])
            tables.write_json(np.array(found[-1]).tolist(), file)
        estimates, lines = np.array(found), []
        for place, name in enumerate(names):
            truth, (value, low, high) = int((which == place).sum()), estimates[:, :, place].T
            held = int(((low <= truth) & (truth <= high)).sum())
            lines.append(
                [
                    name,
                    "50" if place else "200",
                    str(truth),
                    f"{value.mean():.0f} ± {value.std(ddof=1):.0f}",
                    f"{np.median(low):.0f}–{np.median(high):.0f}",
                    f"{held} of {len(value)}",
                ]
            )
        return markdown(["class", "labelled", "truth", "estimate", "median interval", "holds"], lines)
