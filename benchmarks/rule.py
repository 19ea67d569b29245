"""``python -m benchmarks rule``: the rule by which a search chooses classes, as one figure of the documentation.

The survey is drawn: vectors with planted groups. The steps are those of the default search.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.documents import DOCS
from rarezoo import tables
from rarezoo.benchmark.planted import Planted, planted_vectors
from rarezoo.report.evidence import draw_evidence
from rarezoo.runs import digest, fingerprint
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.null_surveys import null_surveys
from rarezoo.searches.presets import preset
from rarezoo.searches.significance import FEWEST_SURVEYS, Significance, TreeScores
from rarezoo.settings import Settings, described, setting

# Smallest planted group, and the share of the largest: one galaxy in this many.
_SMALLEST, _ONE_IN = 20, 20
_HEADER = ("place", "galaxies", "isolation", "score", "false discovery", "planted group")


@dataclass(kw_only=True)
class RuleFigure(Settings):
    """Search vectors with planted groups as the default search does, and draw how its classes are chosen."""

    galaxies: int = setting(4000, "number of vectors", unit="galaxies", ge=500)
    groups: int = setting(8, "number of planted groups", unit="groups", ge=0)
    surveys: int = setting(20, "number of null surveys", unit="surveys", ge=FEWEST_SURVEYS)
    kept: str = setting("runs/benchmark_rule", "folder that keeps the null surveys, so that a stopped run continues")
    out: str = setting(str(DOCS / "figures" / "null_surveys.webp"), "picture to write")
    seed: int = setting(0, "seed of every random draw", ge=0)

    def run(self) -> str:
        """Search, draw, and return a table of the significant candidates."""
        settings = Significance(surveys=self.surveys)
        planted = planted_vectors(
            self.seed, galaxies=self.galaxies, groups=self.groups, smallest=_SMALLEST, largest=self.galaxies // _ONE_IN
        )
        scores = self._scores(planted.embeddings, settings)
        draw_evidence(scores.table(), Path(self.out), level=settings.level)
        return summary(scores, planted)

    def _scores(self, embeddings: np.ndarray, settings: Significance) -> TreeScores:
        parts = preset()
        compressor, clusterer = parts["compress"], parts["clusterer"]
        ids = np.char.zfill(np.arange(len(embeddings)).astype(str), len(str(len(embeddings))))
        fitted = compressor.fit(embeddings, ids=ids, seed=self.seed)
        features = fitted.features(embeddings)
        key = {"compress": described(compressor), "seed": self.seed, "features": fingerprint(features, ids=ids)}
        null = null_surveys(
            features, compressor, count=settings.surveys, galaxies=settings.galaxies, tree_of=fine_tree,
            folder=Path(self.kept) / digest(key)[:16], seed=self.seed,
        )  # fmt: skip
        tree = clusterer.tree(clusterer.linkage(fitted.positions))
        return TreeScores.of(tree, features, null, settings, seed=self.seed)


def summary(scores: TreeScores, planted: Planted) -> str:
    """Return the significant candidates as a table, the highest score first, and a line with the numbers of all.

    The last column is the planted group that makes up more than half of the candidate, as its number of galaxies; a
    dash if there is none.
    """
    rows, found = [], scores.significant
    for place, (node, share) in enumerate(zip(found, scores.false_discoveries(scores.candidates), strict=False), 1):
        members = scores.tree.members(node)
        counts = np.bincount(planted.groups[members] + 1, minlength=len(planted.sizes) + 1)[1:]
        inside = [group for group, count in enumerate(counts) if 2 * count > len(members)]
        rows.append([
            str(place), f"{len(members):,}", f"{scores.isolations[node]:.2f}", f"{scores.scores[node]:.1f}",
            f"{share:.2g}", f"{planted.sizes[inside[0]]:,} galaxies" if inside else "–",
        ])  # fmt: skip
    numbers = f"planted groups: {len(planted.sizes)}; candidates: {len(scores.candidates)}; significant: {len(found)}"
    return f"{tables.markdown(_HEADER, rows)}\n\n{numbers}"
