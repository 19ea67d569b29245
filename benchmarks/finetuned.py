"""Finetuned networks on a few labels of real or mock galaxies, beside a linear probe: N positives, N negatives.

Every trial is a file, so that a run that was stopped continues.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mocksky.populations import PLANTED
from rarezoo.benchmark.few_labels import ProbeContestant, Task
from rarezoo.benchmark.finetuned import Finetuned, ImageContestant, ZoobotClassifier
from rarezoo.benchmark.run import seeds_of
from rarezoo.data.own_labels import OwnLabels
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.prediction.space import Space
from rarezoo.settings import Settings, setting
from rarezoo.statistics import Interval, students_interval
from rarezoo.tables import POPULATION, markdown, write_json

log = logging.getLogger(__name__)
_FEW: dict[str, Any] = {"epochs": 20, "patience": 8, "workers": 0, "batch_size": 16, "accelerator": "cpu"}

_MEASURES = {"auc": "AUC", "average_precision": "average precision", "balanced_accuracy": "balanced accuracy"}


@dataclass(kw_only=True)
class FinetunedFewLabels(Settings):
    """Area under the ROC curve, average precision and balanced accuracy of networks that were finetuned on few labels.

    A galaxy is positive above ``above`` in ``column`` and negative below ``below``. The test galaxies of a draw are
    those positives that no N of it uses, and as many negatives as fit into ``tested``. The balanced accuracy is that at
    the threshold one half. On a mock sky each planted population is such a kind of galaxies in turn; the intervals are
    then those over populations, of which each counts with its mean over draws.
    """

    data: Survey
    column: str = setting(
        "Class8.1", "column of the catalogue that decides; Class8.1 is the fraction for a ring; not for a mock sky"
    )
    above: float = setting(0.3, "positive above this value")
    below: float = setting(0.1, "negative below this value")
    numbers: list[int] = setting([5, 33, 79], "numbers of positives N", ge=2)
    reserved: int = setting(79, "positives of a draw that can be learnt; the others are tested", ge=2)
    draws: str = setting("0-4", "draws of labelled galaxies: a range or a list")
    tested: int = setting(600, "galaxies of a draw that are predicted", unit="galaxies", ge=10)
    ours: str = setting("efficientnet_b0.gz2_64px", "checkpoint of the zoo")
    large: str = setting(
        "efficientnet_b0.gz2", "checkpoint of the zoo for larger images, of which only the head learns"
    )
    imagenet: str = setting("imagenet", "start for ImageNet; a file of EfficientNet-Lite0 where no hub can be reached")
    store: str = setting(
        "", "embedding store of the same galaxies, with which the probe of rarezoo probe takes part; empty: it does not"
    )
    contestants: list[str] = setting([], "contestants; empty = all")
    measure: bool = setting(True, "try what has not been tried; false: only the tables of what was")
    out: str = setting("runs/few_labels_finetuned", "folder of the trials")

    def run(self) -> str:
        """Try what has not been tried; return tables of means over draws with Student's intervals.

        They are also written as ``results.csv`` and ``differences.csv``.
        """
        contestants = self._contestants()
        chosen = {name: contestants[name] for name in self.contestants or contestants}
        if not self.measure:
            return self._tables(list(chosen))
        galaxies = self.data.open()
        values = self._values(galaxies)
        trials = [
            (kind, draw, n, name)
            for n in self.numbers for draw in seeds_of(self.draws) for kind in values for name in chosen
        ]  # fmt: skip
        for kind, draw, n, name in tqdm(trials, desc="trials"):
            file, value = Path(self.out) / f"{name}-{n}-{draw}{kind and f'-{kind}'}.json", values[kind]
            if file.exists():
                continue
            random = np.random.default_rng([draw])
            yes = random.permutation(np.flatnonzero(value > self.above))
            no = random.permutation(np.flatnonzero(value < self.below))
            most = max(self.reserved, *self.numbers)
            learnt = np.concatenate([yes[:n], no[:n]])
            tested = np.concatenate([yes[most:], no[most : most + max(self.tested - len(yes) + most, 1)]])
            labels = OwnLabels.read(
                {galaxies.ids[row]: int(value[row] > self.above) for row in learnt}, label="positive"
            )
            began = time.process_time()
            scratch = Path(self.out) / "scratch"
            task = Task(labels, galaxies.ids[tested], draw, self.data, scratch)
            row: dict[str, Any] = _measured(value[tested] > self.above, chosen[name].probabilities(task))
            row |= {"contestant": name, "n": n, "draw": draw, "kind": kind, "seconds": time.process_time() - began}
            write_json(row, file)
            log.info(json.dumps(row))
        return self._tables(list(chosen))

    def _values(self, galaxies: Galaxies) -> dict[str, np.ndarray]:
        """Return what decides, by kind of galaxies: one column, or for each population of a mock sky 1 and 0."""
        if galaxies.truth is None:
            return {"": galaxies.catalogue[self.column].to_numpy().astype(float)}
        populations = np.array(galaxies.truth[POPULATION].to_pylist())
        return {str(name): (populations == name).astype(float) for name in np.unique(populations) if name in PLANTED}

    def _contestants(self) -> dict[str, ImageContestant]:
        """Return the contestants by name; those whose name ends in ``_large`` see the images of ``large``."""
        lite = {"activation": "relu6"} if self.imagenet != "imagenet" else {}
        frozen = {"turns": 4, **{key: _FEW[key] for key in ("workers", "batch_size", "accelerator")}}
        found: dict[str, ImageContestant] = {}
        for ending, ours, size in (
            ("", self.ours, {"input_size": 64, "zoom": 1.67, "pool": "last"}),
            ("_large", self.large, {"input_size": 128, "zoom": 1.0}),
        ):
            start, imagenet = {"start": ours}, {"start": self.imagenet, **size, **lite}
            found |= {
                f"ours_frozen{ending}": Finetuned(start, "frozen", frozen),
                f"imagenet_frozen{ending}": Finetuned(imagenet, "frozen", frozen),
                f"ours_last{ending}": Finetuned(start, "last", _FEW),
                f"imagenet_last{ending}": Finetuned(imagenet, "last", _FEW),
                f"zoobot{ending}": ZoobotClassifier(start, learning_rate=5e-4, epochs=20, patience=8, batch_size=16),
                f"ours_all{ending}": Finetuned(start, "all", _FEW),
                f"imagenet_all{ending}": Finetuned(imagenet, "all", _FEW),
                f"scratch{ending}": Finetuned(size, "all", _FEW),
            }
        shipped = {"shipped_probe": ShippedProbe(self.store)} if self.store else {}
        return {**shipped, "probe": Probe({"start": self.ours}), **found}

    def _tables(self, names: list[str]) -> str:
        """Return and write a table with one line per contestant and N, and one of our start minus that of ImageNet."""
        draws = set(seeds_of(self.draws))
        known: dict[tuple[str, int], dict[tuple[int, str], dict[str, Any]]] = {}
        for file in sorted(Path(self.out).glob("*.json")):
            row = json.loads(file.read_text())
            if row["draw"] in draws and row["n"] in self.numbers:
                known.setdefault((row["contestant"], row["n"]), {})[row["draw"], row.get("kind", "")] = row
        results, differences = [], []
        for name in names:
            for n in self.numbers:
                same, other = known.get((name, n), {}), name.replace("ours", "imagenet")
                if same:
                    measured = {words: _interval(same, key).text(".3f") for key, words in _MEASURES.items()}
                    seconds = f"{np.mean([row['seconds'] for row in same.values()]):.0f}"
                    about = {"contestant": name, "N": n, **_counted(same)}
                    results.append({**about, **measured, "processor seconds": seconds})
                both = {place: row for place, row in same.items() if place in known.get((other, n), {})}
                if both and other != name:
                    gaps = {
                        place: {key: row[key] - known[other, n][place][key] for key in _MEASURES}
                        for place, row in both.items()
                    }
                    texts = {words: _interval(gaps, key).text("+.3f") for key, words in _MEASURES.items()}
                    differences.append({"difference": f"{name} − {other}", "N": n, **_counted(both), **texts})
        written = []
        for name, rows in (("results", results), ("differences", differences)):
            table = pd.DataFrame(rows).astype(str)
            if rows:
                table.to_csv(Path(self.out) / f"{name}.csv", index=False)
                written.append(markdown(list(table.columns), table.to_numpy().tolist()))
        return "\n\n".join(written)


def _counted(rows: Mapping[tuple[int, str], Any]) -> dict[str, int]:
    """Return the number of draws, and of populations where there are some."""
    draws, kinds = {draw for draw, _ in rows}, {kind for _, kind in rows} - {""}
    return {"draws": len(draws), **({"populations": len(kinds)} if kinds else {})}


def _interval(rows: Mapping[tuple[int, str], Mapping[str, float]], key: str) -> Interval:
    """Return the mean with its interval over draws; over populations, if there are some, each with its own mean."""
    # What is one observation: a population, or without populations a draw.
    units = [kind or draw for draw, kind in rows]
    return students_interval(pd.Series([row[key] for row in rows.values()]).groupby(units).mean().to_numpy())


@dataclass(frozen=True)
class Probe(ImageContestant):
    """Logistic regression on the embedding of a checkpoint, with balanced classes, C = 0.05 and no choice to make."""

    model: dict[str, Any]

    def probabilities(self, task: Task) -> np.ndarray:
        """Embed what is needed, and fit."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        from rarezoo.embeddings.embed import embedded
        from rarezoo.zoo.checkpoint import Checkpoint

        checkpoint = Checkpoint.open(self.model["start"])
        assert task.survey is not None
        galaxies = task.survey.open()
        kept = task.scratch.parent / f"{checkpoint.name}.npz"
        known = dict(np.load(kept, allow_pickle=False)) if kept.exists() else {}
        ids = [galaxy for galaxy in [*task.labels.ids, *task.wanted] if galaxy not in known]
        if ids:
            from rarezoo.data.loaders import CutoutLoader

            place = {galaxy: row for row, galaxy in enumerate(galaxies.ids)}
            rows = np.array([place[galaxy] for galaxy in ids])
            loader = CutoutLoader(galaxies, rows, view=checkpoint.view, batch_size=64, workers=0, on_bad_image="stop")
            parts = [part.embeddings for part in embedded(loader, checkpoint, precision="float32", turns=4)]
            known |= dict(zip(ids, np.concatenate(parts), strict=True))
            np.savez(kept, **known)
        vectors = [np.stack([known[galaxy] for galaxy in part]) for part in (task.labels.ids, task.wanted)]
        scale = StandardScaler().fit(np.concatenate(vectors))
        vectors = [scale.transform(part) for part in vectors]
        model = LogisticRegression(C=0.05, class_weight="balanced", max_iter=500)
        model.fit(vectors[0], task.labels.values[:, 0].astype(int))
        return np.asarray(model.predict_proba(vectors[1])[:, 1])


@dataclass(frozen=True)
class ShippedProbe(ImageContestant):
    """What ``rarezoo probe`` does by default with an embedding store of the galaxies."""

    store: str

    def probabilities(self, task: Task) -> np.ndarray:
        """Learn and predict."""
        return _probe_of(self.store).probabilities(task)


@cache
def _probe_of(store: str) -> ProbeContestant:
    return ProbeContestant(Space.of(EmbeddingStore.open(store)))


def _measured(positive: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

    return {
        "auc": float(roc_auc_score(positive, probability)),
        "average_precision": float(average_precision_score(positive, probability)),
        "balanced_accuracy": float(balanced_accuracy_score(positive, probability > 0.5)),
    }
