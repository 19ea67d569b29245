"""``python -m benchmarks similarity STORE``: how good similar galaxies are, with one example and with several.

The protocol is that of AION-Search (Koblischke et al. 2025): the 50 galaxies with the highest vote fraction of a kind
are the queries, vote fractions are the relevance, and a ranking is scored by nDCG@10. Every way ranks the same galaxies
for the same examples. The row ``rarezoo similar`` is what the command shows; the others compare galaxies by something
else. Intervals are 95 % bootstraps over queries; those of differences are paired.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from sklearn.decomposition import PCA

from rarezoo import tables
from rarezoo.benchmark.explore import ExploreRun
from rarezoo.embeddings.answers import Answer
from rarezoo.embeddings.measures import example_sets, gains_of
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.explore.features import PHOTOMETRY, STRUCTURE, Features, default_cache, parts_beside
from rarezoo.explore.pool import Pool
from rarezoo.explore.scores import AUTO, COSINE, cosine
from rarezoo.explore.similar import Query
from rarezoo.settings import Settings, setting
from rarezoo.statistics import bootstrap_interval

OURS = "rarezoo similar"
KINDS = (
    "odd=Class6.1>0.9", "ring=Class8.1>0.3", "merger=Class8.6>0.3", "irregular=Class8.5>0.3", "disturbed=Class8.4>0.3",
)  # fmt: skip


@dataclass(kw_only=True)
class Similarity(Settings):
    """Compare ways to rank galaxies by their likeness to examples, on galaxies whose answers are known."""

    store: str = setting(help="embedding store of a survey whose answers are known", positional=True)
    answers: list[str] = setting(list(KINDS), "kinds, NAME=COLUMN>VALUE")
    examples: list[int] = setting([1, 3, 5, 10], "numbers of examples", ge=1)
    out: str = setting("", "folder of the tables as CSV; empty: they are only printed")
    survey: str = setting("gz2", "what the survey is called in the names of the tables")

    def run(self) -> str:
        """Rank, score, and return the tables."""
        store = EmbeddingStore.open(self.store)
        kinds = ExploreRun(store=self.store, answers=self.answers).kinds(store, store.galaxies())
        ways = self._ways(Pool.of(store))
        gains = {
            (name, number, kind): self._gains(way, answer, number)
            for name, way in ways.items() for number in self.examples for kind, answer in kinds.items()
        }  # fmt: skip
        scores = [
            [str(number), name, *(bootstrap_interval(gains[name, number, kind]).text(".3f") for kind in kinds)]
            for number in self.examples for name in ways
        ]  # fmt: skip

        def difference(name: str, number: int, kind: str) -> str:
            return bootstrap_interval(gains[OURS, number, kind] - gains[name, number, kind]).text("+.3f")

        differences = [
            [str(number), f"{OURS} minus {name}", *(difference(name, number, kind) for kind in kinds)]
            for number in self.examples for name in ways if name != OURS
        ]  # fmt: skip
        ratios = [
            [str(number), *(f"{gains[OURS, number, kind].mean() / gains[OURS, 1, kind].mean():.2f}" for kind in kinds)]
            for number in self.examples if 1 in self.examples
        ]  # fmt: skip
        written = {
            "scores": (["examples", "way", *kinds], scores),
            "differences": (["examples", "difference", *kinds], differences),
            "ratios": (["examples", *kinds], ratios),
        }
        for name, (head, rows) in written.items() if self.out else ():
            Path(self.out).mkdir(parents=True, exist_ok=True)
            table = pa.table({column: [row[place] for row in rows] for place, column in enumerate(head)})
            tables.write_csv(table, Path(self.out) / f"similarity_{self.survey}_{name}.csv")
        return "\n\n".join(f"{name}\n\n{tables.markdown(head, rows)}" for name, (head, rows) in written.items())

    def _ways(self, pool: Pool) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """Return for each way a function from the rows of the examples to scores of all galaxies."""

        def shipped(by: str, *beside: str) -> Callable[[np.ndarray], np.ndarray]:
            return lambda rows: Query(rows=rows).scores(pool, by=by, seed=0, beside=beside).values

        def among(vectors: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            index = NeighbourIndex(vectors, metric="cosine", exact=True)
            about = index.centred.directions * index.centred.lengths[:, None]
            return lambda rows: cosine(index, about[rows]).values

        def nearest(vectors: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            return lambda rows: -np.abs(vectors[None] - vectors[rows, None]).sum(axis=2).mean(axis=0)

        def measured(*names: str) -> np.ndarray:
            return Features.of(parts_beside(pool.store, names, weight=1, cache=default_cache(pool.store))[0]).matrix

        answers = np.column_stack([column.to_numpy() for column in pool.predicted_answers().columns])
        return {
            OURS: shipped(AUTO, AUTO),
            "rarezoo similar, by the cosine": shipped(COSINE, AUTO),
            "embedding alone": shipped(AUTO),
            "embedding alone, by the cosine": shipped(COSINE),
            "embedding, 10 components, L1": nearest(PCA(10, random_state=0).fit_transform(pool.store.embeddings())),
            "predicted answers": among(answers),
            "photometry": among(measured(PHOTOMETRY)),
            "photometry, L1": nearest(measured(PHOTOMETRY)),
            "photometry and structure": among(measured(PHOTOMETRY, STRUCTURE)),
        }

    def _gains(
        self, way: Callable[[np.ndarray], np.ndarray], answer: Answer, examples: int
    ) -> Float64[np.ndarray, " q"]:
        """Return the nDCG@10 of each query, among the galaxies of which the answer is known."""
        sets, known = example_sets(answer.fraction, examples=examples), np.flatnonzero(answer.known)
        scores = np.stack([way(known[rows])[known] for rows in sets])
        return gains_of(scores, answer.fraction, sets)
