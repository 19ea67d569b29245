"""``rarezoo compare``: what two or more searches of the same galaxies find alike, and what one of them finds alone."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rarezoo import tables
from rarezoo.embeddings.likeness import ASKED, KS, Likeness, likeness
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, StoreError
from rarezoo.report.cards import markdown
from rarezoo.report.compare import Contrast, Cutouts, Pair, Run
from rarezoo.report.sample import rows_of
from rarezoo.searches.agreement import agreement
from rarezoo.searches.diff import write_matches
from rarezoo.searches.matching import EVENTS, STANDINGS, Comparison, fates, labels_of
from rarezoo.searches.run import cutouts_of, galaxies_of, read_members, read_run

# A whole table of matches holds a chance one so rarely.
LEVEL = 0.01


@dataclass(frozen=True)
class Finished:
    """A finished search, read."""

    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """Its run.json."""
        return read_run(self.folder)

    @cached_property
    def members(self) -> pa.Table:
        """MEMBERS."""
        return read_members(self.folder)

    @cached_property
    def ids(self) -> np.ndarray:
        """Galaxies searched, strings."""
        return tables.strings(self.members, tables.ID).astype(str)

    @cached_property
    def store(self) -> EmbeddingStore:
        """The store that was searched."""
        return EmbeddingStore.open(self.about["settings"]["store"])

    def run(self, letter: str, ids: np.ndarray, *, out: Path) -> Run:
        """What the pages need of it, over some of its galaxies."""
        columns = (tables.CLASS_ID, tables.TOP_ANSWERS)
        classes = tables.read(self.folder / "classes.parquet", tables.CLASSES, columns=columns)
        drawn = rows_of(_strings(ids), tables.read(self.folder / "map_2d.parquet", tables.MAP), source="the map")
        positions = tables.matrix(drawn, tables.POSITION)
        if positions.shape[1] != 2:
            raise StoreError(
                f"{self.folder}: only a map of two dimensions can be drawn", value=positions.shape[1],
                fix="Search again with drawing.n_components=2.",
            )  # fmt: skip
        page = self.folder / "report" / "index.html"
        answers = zip(*(classes.column(one).to_pylist() for one in columns), strict=True)
        return Run(
            letter=letter,
            name=self.folder.resolve().name,
            checkpoint=str(self.about["checkpoint"]),
            searched=len(self.ids),
            classes=np.sort(classes.column(tables.CLASS_ID).to_numpy()).astype(np.int64),
            labels=labels_of(self.members, ids),
            positions=positions.astype(np.float32),
            answers={one: tuple(told or ()) for one, told in answers},
            report=os.path.relpath(page.resolve(), out.resolve()).replace(os.sep, "/") if page.is_file() else "",
        )

    def embeddings(self, ids: np.ndarray) -> np.ndarray:
        """Embeddings (n, D) of some of its galaxies, as stored."""
        known = pd.Index(self.store.ids().astype(str)).get_indexer(ids)
        if (known < 0).any():
            raise StoreError(
                "galaxies that were searched are not in the store", value=self.store.folder,
                fix="Leave the embeddings out: --no-embeddings.", ids=ids[known < 0].tolist(),
            )  # fmt: skip
        return self.store.embeddings()[known]


@dataclass(frozen=True, kw_only=True)
class CompareRun:
    """Compare finished searches over the galaxies that all of them have.

    Attributes:
        searches: folders, two to 26.
        out: folder for the pages and tables.
        embeddings: compare the embeddings too.
        images: show galaxies; they are read from the first search's survey.
        asked: galaxies asked for their nearest neighbours in the embeddings; 0 = all.
        level: of the p-values, corrected for every pair of classes, above which two classes have nothing in common.
        seed: of the galaxies drawn at random.
    """

    searches: tuple[str, ...]
    out: str
    embeddings: bool = True
    images: bool = True
    asked: int = ASKED
    level: float = LEVEL
    seed: int = 0

    def run(self) -> Path:
        """Compare; the path of the index page. Beside it compare.json, and per pair matches and matrices as tables.

        Raises:
            ConfigError, StoreError, DataError, OutputError: see the message.
        """
        self._refuse_settings()
        out = Path(self.out)
        found = [Finished(Path(one)) for one in self.searches]
        ids = _common(found)
        cutouts = self._cutouts(found[0])
        runs = tuple(one.run(letter, ids, out=out) for one, letter in zip(found, ascii_uppercase, strict=False))
        embedded = [one.embeddings(ids) for one in found] if self.embeddings else None
        pairs = tuple(
            self._pair(runs[a], runs[b], None if embedded is None else self._alike(embedded[a], embedded[b]))
            for a, b in combinations(range(len(runs)), 2)
        )
        for pair in pairs:
            _write_pair(pair, out)
        page = Contrast(out, ids, runs, pairs, cutouts, self.seed).write()
        tables.write_json(self._content(found, runs, pairs, galaxies=len(ids)), out / "compare.json")
        return page

    def _refuse_settings(self) -> None:
        if not 2 <= len(self.searches) <= len(ascii_uppercase):
            raise ConfigError("two searches are compared, or more", value=len(self.searches), fix="Name 2 to 26.")
        if not 0 < self.level < 1:
            raise ConfigError("a level is between 0 and 1", value=self.level, fix="Leave --level out for 0.01.")
        if self.asked < 0 or self.seed < 0:
            raise ConfigError("must not be negative", value=min(self.asked, self.seed), fix="Choose 0 or more.")
        if Path(self.out).is_file():
            raise OutputError("the output path is a file", value=self.out, fix="Choose a folder: --out DIR.")

    def _cutouts(self, search: Finished) -> Cutouts | None:
        if not self.images:
            return None
        way_out = "Leave images out: --no-images; or bring the survey back to where it was."
        return cutouts_of(galaxies_of(search.store, way_out=way_out))

    def _alike(self, first: np.ndarray, second: np.ndarray) -> Likeness:
        return likeness(first, second, ks=KS, asked=self.asked, seed=self.seed)

    def _pair(self, first: Run, second: Run, alike: Likeness | None) -> Pair:
        comparison = Comparison.of_labels(
            first.labels, second.labels, old_classes=first.classes, new_classes=second.classes, level=self.level
        )
        return Pair(first, second, comparison, agreement(first.labels, second.labels), alike)

    def _content(
        self, found: Sequence[Finished], runs: Sequence[Run], pairs: Sequence[Pair], *, galaxies: int
    ) -> dict[str, Any]:
        """For compare.json."""
        searches = [
            {"letter": run.letter, "search": str(one.folder), "checkpoint": run.checkpoint, "classes": len(run.classes)}
            for one, run in zip(found, runs, strict=True)
        ]
        return {
            "galaxies": galaxies, "level": self.level, "searches": searches, "pairs": [_told(pair) for pair in pairs],
            "alone": {run.letter: alone(run, pairs) for run in runs},
        }  # fmt: skip


def alone(run: Run, pairs: Sequence[Pair]) -> list[int]:
    """Classes of one search that no other search has anything of, beyond chance."""
    others = [pair for pair in pairs if run in (pair.first, pair.second)]
    return [one for one in run.classes.tolist() if all(pair.standing(run, one) == "own" for pair in others)]


def _told(pair: Pair) -> dict[str, Any]:
    standings = [dict(one) for one in pair.comparison.standings]
    return {
        "first": pair.first.letter, "second": pair.second.letter, "agreement": asdict(pair.agreement),
        "embeddings": None if pair.likeness is None else {
            **asdict(pair.likeness), "overlaps": [one._asdict() for one in pair.likeness.overlaps]
        },
        "events": {event: count for event in EVENTS if (count := fates(pair.comparison.matches())[event])},
        "standings": dict(zip((pair.first.letter, pair.second.letter), standings, strict=True)),
    }  # fmt: skip


def _write_pair(pair: Pair, out: Path) -> None:
    """A folder with matches.parquet and .csv, contingency.csv and jaccard.csv of one pair."""
    comparison, folder = pair.comparison, out / f"{pair.first.letter}-{pair.second.letter}"
    about = {"old": pair.first.name, "new": pair.second.name, "galaxies": comparison.galaxies}
    write_matches(comparison.matches(), about, folder)
    names = (
        [f"{pair.first.letter} {one}" for one in comparison.old],
        [f"{pair.second.letter} {one}" for one in comparison.new],
    )
    for name, values in (("contingency", comparison.counts), ("jaccard", comparison.jaccards.round(6))):
        with tables.atomic(folder / f"{name}.csv") as temporary:
            pd.DataFrame(values, index=pd.Index(names[0], name="class"), columns=names[1]).to_csv(temporary)


def _common(found: Sequence[Finished]) -> np.ndarray:
    """Ids of the galaxies that every search has, in the order of the first."""
    ids = found[0].ids
    for one in found[1:]:
        ids = ids[np.isin(ids, one.ids)]
    if not len(ids):
        raise StoreError(
            "the searches have no galaxy in common", value=", ".join(str(one.folder) for one in found),
            fix="Compare searches of the same survey.",
        )  # fmt: skip
    return ids


def _strings(ids: np.ndarray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(ids, pa.string())])


def told(content: dict[str, Any]) -> str:
    """compare.json for a terminal."""
    head = ["pair", *STANDINGS[:3], "own of the second", "ARI", "AMI", "CKA"]
    rows = [_cells(pair) for pair in content["pairs"]]
    lone = "; ".join(
        f"{letter}: {', '.join(map(str, classes)) or 'none'}" for letter, classes in content["alone"].items()
    )
    letters = ", ".join(f"{one['letter']} {one['search']}" for one in content["searches"])
    return "\n".join([f"{content['galaxies']:,} galaxies in {letters}", markdown(head, rows), f"only in one: {lone}"])


def _cells(pair: dict[str, Any]) -> list[str]:
    ours, theirs = (list(pair["standings"][pair[side]].values()) for side in ("first", "second"))
    counts = [str(ours.count(one)) for one in STANDINGS[:3]]
    cka = pair["embeddings"] and pair["embeddings"]["cka"]
    values = [pair["agreement"]["ari_both"], pair["agreement"]["ami_both"], cka]
    numbers = ["–" if one is None or np.isnan(one) else f"{one:.2f}" for one in values]
    return [f"{pair['first']} {pair['second']}", *counts, str(theirs.count("own")), *numbers]


def add_compare_verb(verbs: Any) -> None:
    """``rarezoo compare`` for the command line."""
    parser = verbs.add_parser("compare", help="two or more searches of the same galaxies: a page of what both find")
    parser.add_argument("searches", nargs="+", metavar="SEARCH", help="out= of a search")
    parser.add_argument("--out", required=True, help="folder for the pages and tables")
    parser.add_argument("--no-embeddings", dest="embeddings", action="store_false", help="compare classes only")
    parser.add_argument("--no-images", dest="images", action="store_false", help="show ids in place of galaxies")
    parser.add_argument("--asked", type=int, default=ASKED, help="galaxies asked for their neighbours; 0: all")
    parser.add_argument(
        "--level", type=float, default=LEVEL, help="of the p-values, corrected for all pairs of classes"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the galaxies drawn at random")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    chosen = {one: getattr(options, one) for one in ("out", "embeddings", "images", "asked", "level", "seed")}
    page = CompareRun(searches=tuple(options.searches), **chosen).run()
    print(told(json.loads(page.with_name("compare.json").read_text())))
    print(page)
