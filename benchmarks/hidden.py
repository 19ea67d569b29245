"""``python -m benchmarks hidden``: whether a population is found that looks ordinary but shares an offset in colour.

Three searches of the same galaxies: of images alone, of images and columns, and of what the images do not predict of
the columns. Each is repeated on several seeds, and on skies without the population whose columns are shuffled, in which
nothing is to be found. Shuffling alone would not do: each column of the population is a group at the edge of the
column's distribution, also in another order. Drawn images are counted as they are, because they show no population.
Finished seeds are kept, so that a stopped measurement goes on.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.benchmark.hidden import Hidden, hidden_vectors
from rarezoo.runs import digest
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.features import Features
from rarezoo.searches.features.catalogue import ImageAndCatalogue
from rarezoo.searches.features.contrast import Contrast
from rarezoo.searches.features.image import Image
from rarezoo.searches.null_surveys import null_surveys
from rarezoo.searches.presets import preset
from rarezoo.searches.significance import FEWEST_SURVEYS, Significance, TreeScores
from rarezoo.settings import Settings, setting
from rarezoo.statistics import COMPLETENESS, PURITY

VECTORS, MOCK = "vectors", "mock"
SKIES = (VECTORS, MOCK)
# Further settings on which a result depends.
_OF_SKY = {VECTORS: (), MOCK: ("checkpoint", "side")}
# Must grow when the contrast or the skies of nothing change, so that older results are not taken for new ones.
_GENERATION, _NOTHING = 2, 2
# Columns of the mock sky's properties.
_OF_MOCK = ("u_r_colour", "log_stellar_mass")


@dataclass(kw_only=True)
class HiddenPopulation(Settings):
    """Measure in how many skies the hidden population is found, and in how many there is a class of nothing."""

    sky: str = setting(
        VECTORS, "vectors: drawn embeddings; mock: mock galaxies that a network has embedded", choices=SKIES
    )
    first: int = setting(100, "first seed; the settings were chosen on seeds below 100", ge=0)
    seeds: int = setting(10, "number of seeds", ge=1)
    shuffles: int = setting(1, "skies of nothing of each seed: without the population, and with shuffled columns", ge=0)
    spaces: list[str] = setting(["image", "image+catalogue", "contrast"], "what is searched", choices=(
        "image", "image+catalogue", "contrast",
    ))  # fmt: skip
    galaxies: int = setting(2000, "galaxies of each sky", unit="galaxies", ge=500)
    members: int = setting(60, "members of the population, on average in a mock sky", unit="galaxies", ge=0)
    offset: float = setting(
        4.0, "offset in each column: in scatters, or for the mock sky as a factor of 1 mag and 0.6 dex"
    )
    weight: float = setting(1.0, "features.weight of image+catalogue", gt=0)
    surveys: int = setting(20, "null surveys of each search", unit="surveys", ge=FEWEST_SURVEYS)
    checkpoint: str = setting("efficientnet_b0.mock_64px", "network of sky=mock")
    side: int = setting(64, "side of the cutouts of sky=mock", unit="px", ge=16)
    workers: int = setting(1, "processes that draw mock galaxies", ge=1)
    out: str = setting("runs/benchmark_hidden", "folder that keeps what is finished, and mock skies")

    def run(self) -> str:
        """Measure what is missing and return a table."""
        rows = []
        for kind in self.spaces:
            found = [self._result(kind, seed, None) for seed in range(self.first, self.first + self.seeds)]
            empty = [
                self._result(kind, seed, shuffle)
                for seed in range(self.first, self.first + self.seeds)
                for shuffle in range(self.shuffles if kind != "image" else 0)
            ]
            # Images cannot show the population, so that every class of drawn embeddings is one of nothing. Those of
            # mock galaxies show the other populations of the mock sky.
            wrong = [result["classes"] > 0 for result in (found if kind == "image" and self.sky == VECTORS else empty)]
            hits = [result for result in found if result["found"]]
            rows.append([
                kind, _share([result["found"] for result in found]),
                f"{np.mean([result['purity'] for result in hits]):.2f}" if hits else "–",
                f"{np.mean([result['completeness'] for result in hits]):.2f}" if hits else "–",
                f"{np.mean([result['others'] for result in found]):.1f}", _share(wrong),
            ])  # fmt: skip
        head = [
            "features", "skies in which it is found", "purity", "completeness", "other classes per sky",
            "skies of nothing with a class",
        ]  # fmt: skip
        return tables.markdown(head, rows)

    def _result(self, kind: str, seed: int, shuffle: int | None) -> dict[str, Any]:
        """Return the result of one search, kept already or measured now."""
        key = {
            name: getattr(self, name)
            for name in ("sky", "galaxies", "members", "offset", "surveys", *_OF_SKY[self.sky])
        }  # fmt: skip
        if kind == "contrast":
            key["generation"] = _GENERATION
        if shuffle is not None:
            key["nothing"] = _NOTHING
        key |= {"features": kind, "seed": seed, "shuffle": shuffle, "weight": self.weight if "+" in kind else 1.0}
        path = Path(self.out) / "results" / f"{digest(key)[:20]}.json"
        if path.exists():
            kept: dict[str, Any] = json.loads(path.read_text())
            return kept
        hidden = self._sky(seed, self.members if shuffle is None else 0)
        own = seed if shuffle is None else 1000 * seed + shuffle
        catalogue = hidden.catalogue if shuffle is None else hidden.shuffled(own)
        columns = list(catalogue.column_names[1:])
        result = measured(hidden, catalogue, self._features(kind, columns), surveys=self.surveys, seed=own)
        tables.write_json({**key, **result}, path)
        return result

    def _features(self, kind: str, columns: list[str]) -> Features:
        if kind == "image":
            return Image()
        return (
            Contrast(columns=columns) if kind == "contrast" else ImageAndCatalogue(columns=columns, weight=self.weight)
        )

    def _sky(self, seed: int, members: int) -> Hidden:
        """Return the sky of a seed with this many members of the population."""
        if self.sky == VECTORS:
            return hidden_vectors(seed, galaxies=self.galaxies, members=members, offset=self.offset)
        import rarezoo as rz
        from mocksky.hidden import plant_hidden
        from mocksky.populations import ORDINARY
        from rarezoo.data.surveys.mock import Mock

        survey = Mock(
            n=self.galaxies, side=self.side, seed=seed, cache=str(Path(self.out) / "mock"), workers=self.workers
        )
        store = rz.embed(
            survey, self.checkpoint, out=Path(self.out) / "stores" / f"{self.checkpoint}-{self.galaxies}-{seed}"
        )
        truth = survey.open().truth
        assert truth is not None, "mock skies have a truth"
        ordinary = truth["population"].to_pylist().count(ORDINARY)
        properties, inside = plant_hidden(
            survey.properties(), truth, seed=seed, rate=members / ordinary, strength=self.offset
        )
        rows = tables.rows_of(store.ids, properties, source="the sky")
        catalogue = properties.select([tables.ID, *_OF_MOCK]).take(rows)
        return Hidden(store.ids, store.embeddings().astype(np.float32), catalogue, inside[rows])


def measured(hidden: Hidden, catalogue: pa.Table, features: Features, *, surveys: int, seed: int) -> dict[str, Any]:
    """Search as the default search does, and return what was found.

    Returns
    -------
    dict
        ``classes``: significant classes; ``found``: whether one of them finds the population; ``others``: the classes
        that do not; ``purity`` and ``completeness`` of the class with the most members of the population.
    """
    parts, settings = preset(), Significance(surveys=surveys)
    searched = features.searched(
        hidden.embeddings, ids=hidden.ids, catalogue=catalogue, compressor=parts["compress"], seed=seed
    )
    compressor, ids = features.compressor(parts["compress"]), hidden.ids[searched.kept]
    fitted = compressor.fit(searched.matrix, ids=ids, seed=seed)
    values = fitted.features(searched.matrix)
    null = null_surveys(
        values, compressor, count=surveys, galaxies=settings.galaxies, tree_of=fine_tree, seed=seed
    )  # fmt: skip
    tree = parts["clusterer"].tree(parts["clusterer"].linkage(fitted.positions))
    scores = TreeScores.of(tree, values, null, replace(settings), seed=seed)
    inside, classes = hidden.members[searched.kept], [scores.tree.members(node) for node in scores.significant]
    shares = [(float(inside[rows].mean()), float(inside[rows].sum() / max(inside.sum(), 1))) for rows in classes]
    hits = [share for share in shares if share[0] > PURITY and share[1] > COMPLETENESS]
    purity, completeness = max(shares, key=lambda share: share[1], default=(0.0, 0.0))
    return {
        "classes": len(classes), "found": bool(hits), "others": len(classes) - len(hits), "purity": purity,
        "completeness": completeness,
    }  # fmt: skip


def _share(flags: list[bool]) -> str:
    """Return how many are true, and the share with its 95 % interval."""
    from scipy.stats import binomtest

    if not flags:
        return "–"
    ends = binomtest(int(sum(flags)), len(flags)).proportion_ci(method="wilson")
    return f"{sum(flags)} of {len(flags)}: {np.mean(flags):.0%} ({ends.low:.0%}–{ends.high:.0%})".replace("%", " %")
