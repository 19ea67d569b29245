"""``rarezoo compare``: what two or more searches of the same galaxies find alike, and what one of them finds alone."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Float32, Int64

from rarezoo import tables
from rarezoo.embeddings.quality import ASKED, KS, EmbeddingSimilarity, embedding_similarity
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, StoreError
from rarezoo.searches.matching import EVENTS, RELATIONS, Agreement, ClassOverlap, agreement, fates, labels_of
from rarezoo.searches.result import cutouts_of, galaxies_of, read_members, read_run
from rarezoo.tables import markdown

Cutouts = Callable[[Sequence[str]], list[np.ndarray]]
# A whole table of matches holds a chance one so rarely.
LEVEL = 0.01


@dataclass(frozen=True, eq=False)
class ComparedSearch:
    """A finished search over the n galaxies that all searches compared have.

    Attributes:
        letter: ``A``, ``B`` …, by which its classes go.
        name: of its folder.
        checkpoint: name of the network.
        searched: galaxies in it, whether the others have them or not.
        classes: ids of every class, those without a galaxy among the n included.
        labels: (n,) class, −1 for none.
        positions: (n, 2) on its drawn map.
        answers: what the network says of each class, the most telling first.
        report: its own page, relative to the comparison's folder; empty if there is none.
    """

    letter: str
    name: str
    checkpoint: str
    searched: int
    classes: Int64[np.ndarray, " c"]
    labels: Int64[np.ndarray, " n"]
    positions: Float32[np.ndarray, "n 2"]
    answers: Mapping[int, tuple[str, ...]]
    report: str

    @property
    def unassigned(self) -> float:
        """Share of the n galaxies that are in no class, 0–1."""
        return float(np.mean(self.labels == tables.NO_CLASS))


@dataclass(frozen=True)
class SearchPair:
    """Two of the runs compared; ``likeness`` is None if their embeddings were not."""

    first: ComparedSearch
    second: ComparedSearch
    overlap: ClassOverlap
    agreement: Agreement
    likeness: EmbeddingSimilarity | None

    @property
    def page(self) -> str:
        """Its page's file name."""
        return f"{self.first.letter}-{self.second.letter}.html"

    @cached_property
    def matches(self) -> list[dict[str, Any]]:
        """Rows of MATCHES."""
        return self.overlap.matches().to_pylist()

    def linked(self, run: ComparedSearch, class_id: int) -> list[dict[str, Any]]:
        """Rows of MATCHES in which a class of one of its runs has a partner."""
        ours, theirs = (tables.CLASS_A, tables.CLASS_B) if run is self.first else (tables.CLASS_B, tables.CLASS_A)
        return [row for row in self.matches if row[ours] == class_id and row[theirs] != tables.NO_CLASS]

    def relation(self, run: ComparedSearch, class_id: int) -> str:
        """What a class of one of its runs is to the other run: see RELATIONS."""
        return self.overlap.relations[run is not self.first][class_id]

    def count(self, run: ComparedSearch, relation: str) -> int:
        """How many classes of one of its runs have a relation in the other."""
        return list(self.overlap.relations[run is not self.first].values()).count(relation)


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

    def run(self, letter: str, ids: np.ndarray, *, out: Path) -> ComparedSearch:
        """What the pages need of it, over some of its galaxies."""
        columns = (tables.CLASS_ID, tables.TOP_ANSWERS)
        classes = tables.read(self.folder / "classes.parquet", tables.CLASSES, columns=columns)
        drawn = tables.aligned(tables.read(self.folder / "map_2d.parquet", tables.MAP), ids, source="the map")
        positions = tables.matrix(drawn, tables.POSITION)
        if positions.shape[1] != 2:
            raise StoreError(
                f"{self.folder}: only a map of two dimensions can be drawn", value=positions.shape[1],
                fix="Search again with drawing.n_components=2.",
            )  # fmt: skip
        page = self.folder / "report" / "index.html"
        answers = zip(*(classes.column(one).to_pylist() for one in columns), strict=True)
        return ComparedSearch(
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
        known = pd.Index(self.store.ids.astype(str)).get_indexer(ids)
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
        from rarezoo.report.compare import write_comparison

        page = write_comparison(out, ids, runs, pairs, cutouts=cutouts, seed=self.seed)
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
        if not self.images or not search.store.has_survey:
            return None
        way_out = "Leave images out: --no-images; or bring the survey back to where it was."
        return cutouts_of(galaxies_of(search.store, way_out=way_out))

    def _alike(self, first: np.ndarray, second: np.ndarray) -> EmbeddingSimilarity:
        return embedding_similarity(first, second, ks=KS, asked=self.asked, seed=self.seed)

    def _pair(self, first: ComparedSearch, second: ComparedSearch, alike: EmbeddingSimilarity | None) -> SearchPair:
        comparison = ClassOverlap.of_labels(
            first.labels, second.labels, old_classes=first.classes, new_classes=second.classes, level=self.level
        )
        return SearchPair(first, second, comparison, agreement(first.labels, second.labels), alike)

    def _content(
        self, found: Sequence[Finished], runs: Sequence[ComparedSearch], pairs: Sequence[SearchPair], *, galaxies: int
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


def alone(run: ComparedSearch, pairs: Sequence[SearchPair]) -> list[int]:
    """Classes of one search that no other search has anything of, beyond chance."""
    others = [pair for pair in pairs if run in (pair.first, pair.second)]
    return [one for one in run.classes.tolist() if all(pair.relation(run, one) == "own" for pair in others)]


def _told(pair: SearchPair) -> dict[str, Any]:
    relations = [dict(one) for one in pair.overlap.relations]
    return {
        "first": pair.first.letter, "second": pair.second.letter, "agreement": asdict(pair.agreement),
        "embeddings": None if pair.likeness is None else {
            **asdict(pair.likeness), "overlaps": [one._asdict() for one in pair.likeness.overlaps]
        },
        "events": {event: count for event in EVENTS if (count := fates(pair.overlap.matches())[event])},
        "relations": dict(zip((pair.first.letter, pair.second.letter), relations, strict=True)),
    }  # fmt: skip


def _write_pair(pair: SearchPair, out: Path) -> None:
    """A folder with matches.parquet and .csv, contingency.csv and jaccard.csv of one pair."""
    comparison, folder = pair.overlap, out / f"{pair.first.letter}-{pair.second.letter}"
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


def told(content: dict[str, Any]) -> str:
    """compare.json for a terminal."""
    head = ["pair", *RELATIONS[:3], "own of the second", "ARI", "AMI", "CKA"]
    rows = [_cells(pair) for pair in content["pairs"]]
    lone = "; ".join(
        f"{letter}: {', '.join(map(str, classes)) or 'none'}" for letter, classes in content["alone"].items()
    )
    letters = ", ".join(f"{one['letter']} {one['search']}" for one in content["searches"])
    return "\n".join([f"{content['galaxies']:,} galaxies in {letters}", markdown(head, rows), f"only in one: {lone}"])


def _cells(pair: dict[str, Any]) -> list[str]:
    ours, theirs = (list(pair["relations"][pair[side]].values()) for side in ("first", "second"))
    counts = [str(ours.count(one)) for one in RELATIONS[:3]]
    cka = pair["embeddings"] and pair["embeddings"]["cka"]
    values = [pair["agreement"]["ari_both"], pair["agreement"]["ami_both"], cka]
    numbers = ["–" if one is None or np.isnan(one) else f"{one:.2f}" for one in values]
    return [f"{pair['first']} {pair['second']}", *counts, str(theirs.count("own")), *numbers]


def class_matches(old: Path | str, new: Path | str, *, out: str = "") -> str:
    """What became of the classes of one search in another, for a terminal.

    Args:
        old: folder of a finished search.
        new: folder of another, of some of the same galaxies.
        out: folder for matches.parquet, matches.csv and diff.json; empty writes nothing.

    Raises:
        StoreError: no finished search, or no galaxy in common.
        OutputError: the folder cannot be written.
    """
    comparison = ClassOverlap.of_members(read_members(old), read_members(new))
    matches = comparison.matches()
    counted = {event: count for event in EVENTS if (count := fates(matches)[event])}
    if out:
        about = {
            "old": str(old), "new": str(new), "galaxies": comparison.galaxies, "events": counted,
            "old_classes": len(comparison.old), "new_classes": len(comparison.new),
        }  # fmt: skip
        write_matches(matches, about, Path(out))
        tables.write_json({**about, "matches": matches.to_pylist()}, Path(out) / "diff.json")
    told = (
        f"{comparison.galaxies:,} galaxies in both searches; {len(comparison.old)} classes before, "
        f"{len(comparison.new)} now: {', '.join(f'{count} {event}' for event, count in counted.items()) or 'none'}"
    )
    head = ["event", "old", "new", "galaxies of old", "of new", "of both", "Jaccard", "p"]
    return "\n".join([told, markdown(head, [_match_cells(row) for row in matches.to_pylist()])])


def write_matches(matches: pa.Table, about: Mapping[str, Any], folder: Path) -> None:
    """Write matches.parquet and matches.csv.

    Raises:
        OutputError: the folder is a file, or cannot be written.
    """
    if folder.is_file():
        raise OutputError("the output path is a file", value=folder, fix="Choose a folder: --out DIR.")
    tables.write(matches, folder / "matches.parquet", tables.MATCHES, **about)
    with tables.atomic(folder / "matches.csv") as temporary:
        pyarrow.csv.write_csv(matches, temporary)


def _match_cells(row: Mapping[str, Any]) -> list[str]:
    names = [str(row[one]) if row[one] != tables.NO_CLASS else "–" for one in (tables.CLASS_A, tables.CLASS_B)]
    sizes = [str(row[one]) for one in (tables.SIZE_A, tables.SIZE_B, tables.OVERLAP)]
    return [row[tables.EVENT], *names, *sizes, f"{row[tables.JACCARD]:.3f}", f"{row[tables.P_VALUE]:.2g}"]


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


def add_classes_verb(verbs: Any) -> None:
    """``rarezoo classes`` for the command line."""
    classes = verbs.add_parser(
        "classes", help="the classes of a search; diff: what became of them in another; apply: decisions about them",
        usage="rarezoo classes SEARCH [--column NAME] | diff OLD NEW [--out DIR] | apply SEARCH FILE [--out DIR]",
    )  # fmt: skip
    classes.add_argument(
        "words", nargs="+", metavar="SEARCH", help="out= of a search; or diff and two of them; or apply, one, and FILE"
    )
    classes.add_argument("--column", default="", help="a numeric catalogue column: its mean per class")
    classes.add_argument("--out", default="", help="folder of what diff (empty: none) or apply writes")
    classes.set_defaults(run=_classes)


def _classes(options: argparse.Namespace) -> None:
    from rarezoo.report.cards import classes_table
    from rarezoo.searches.decisions import apply_decisions

    words = " ".join(options.words)
    if options.words[0] == "diff":
        if len(options.words) != 3 or options.column:
            raise ConfigError("diff compares two searches", value=words, fix="Say: rarezoo classes diff OLD NEW.")
        print(class_matches(*options.words[1:], out=options.out))
    elif options.words[0] == "apply":
        if len(options.words) != 3 or options.column:
            raise ConfigError(
                "apply takes a search and a file of decisions",
                value=words,
                fix="Say: rarezoo classes apply SEARCH FILE.",
            )
        print(apply_decisions(*options.words[1:], out=options.out))
    elif len(options.words) != 1 or options.out:
        raise ConfigError("one search at a time", value=words, fix="For two, say: rarezoo classes diff OLD NEW.")
    else:
        print(classes_table(options.words[0], column=options.column))
