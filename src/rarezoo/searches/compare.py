"""Compare finished searches of the same galaxies: ``rarezoo compare`` and ``rarezoo classes diff``.

Shape letters: n galaxies that all searches have, c classes of a search.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Float32, Int64

from rarezoo import tables
from rarezoo.embeddings.quality import KS, QUERIES, EmbeddingSimilarity, embedding_similarity
from rarezoo.errors import ConfigError, OutputError, StoreError
from rarezoo.searches.grades import counts
from rarezoo.searches.matching import EVENTS, RELATIONS, Agreement, ClassOverlap, agreement, fates, labels_of
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting

# Two classes with a corrected p-value above this are not related. In one table of matches out of a hundred, one pair
# of classes is related by chance.
LEVEL = 0.01
PAGE, SUMMARY_FILE = "index.html", "compare.json"


@dataclass(frozen=True, eq=False)
class ComparedSearch:
    """A finished search, reduced to the n galaxies that all compared searches have.

    Attributes
    ----------
    letter
        ``A``, ``B`` …, which precedes the ids of its classes.
    name
        Name of its folder.
    checkpoint
        Name of the network.
    searched
        Number of galaxies that were searched, whether the other searches have them or not.
    classes
        (c,) ids of all classes, also of those without one of the n galaxies.
    labels
        (n,) class of each galaxy, −1 for none.
    positions
        (n, 2) positions on the map that is drawn.
    answers
        Predicted answers that distinguish each class, the most different first.
    page
        Index page of its own report; None if there is none.
    folder
        Its folder; None if it is not known.
    grades
        How strong the evidence for each class is, see :data:`rarezoo.searches.grades.GRADES`; None if not measured.
    """

    letter: str
    name: str
    checkpoint: str
    searched: int
    classes: Int64[np.ndarray, " c"]
    labels: Int64[np.ndarray, " n"]
    positions: Float32[np.ndarray, "n 2"]
    answers: Mapping[int, tuple[str, ...]]
    page: Path | None = None
    folder: Path | None = None
    grades: Mapping[int, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, search: Search, letter: str, ids: np.ndarray) -> "ComparedSearch":
        """Read what a comparison needs of a search.

        Raises
        ------
        StoreError
            A table is missing, or the map that is drawn does not have two dimensions.
        """
        classes = search.table("classes").select([tables.CLASS_ID, tables.TOP_ANSWERS, tables.GRADE]).to_pylist()
        drawn = tables.aligned(search.table("map_2d"), ids, source=f"the map of {search.folder}")
        positions = tables.matrix(drawn, tables.POSITION)
        if positions.shape[1] != 2:
            raise StoreError(
                f"{search.folder}: only a map of two dimensions can be drawn",
                value=positions.shape[1],
                fix="Search again with drawing.n_components=2.",
            )
        return cls(
            letter=letter,
            name=search.folder.resolve().name,
            checkpoint=str(search.about["checkpoint"]),
            searched=len(search.ids),
            classes=np.array(sorted(row[tables.CLASS_ID] for row in classes), dtype=np.int64),
            labels=labels_of(search.table("members"), ids),
            positions=positions.astype(np.float32),
            answers={row[tables.CLASS_ID]: tuple(row[tables.TOP_ANSWERS] or ()) for row in classes},
            page=search.page if search.page.is_file() else None,
            folder=search.folder,
            grades={row[tables.CLASS_ID]: row[tables.GRADE] for row in classes},
        )

    @property
    def graded(self) -> bool:
        """Whether any of its classes has a grade."""
        return any(self.grades.values())

    @property
    def unassigned(self) -> float:
        """Share of the n galaxies that are in no class, 0–1."""
        return float(np.mean(self.labels == tables.NO_CLASS))

    def link(self, folder: Path) -> str:
        """Return the address of its report relative to a folder, as a URL; empty without a report."""
        if self.page is None:
            return ""
        return quote(
            os.path.relpath(self.page.resolve(), folder.resolve()).replace(os.sep, "/"), errors="surrogateescape"
        )


@dataclass(frozen=True)
class SearchPair:
    """Two of the compared searches.

    Attributes
    ----------
    first, second
        The searches.
    overlap
        Galaxies that their classes share.
    agreement
        Indices of agreement.
    likeness
        Similarity of their embeddings; None if it was not measured.
    """

    first: ComparedSearch
    second: ComparedSearch
    overlap: ClassOverlap
    agreement: Agreement
    likeness: EmbeddingSimilarity | None

    @property
    def page(self) -> str:
        """File name of its page."""
        return f"{self.first.letter}-{self.second.letter}.html"

    @cached_property
    def matches(self) -> list[dict[str, Any]]:
        """Rows of the MATCHES table."""
        return self.overlap.matches().to_pylist()

    def linked(self, search: ComparedSearch, class_id: int) -> list[dict[str, Any]]:
        """Return the rows of MATCHES in which a class of one of the searches has a partner."""
        own, other = (tables.CLASS_A, tables.CLASS_B) if search is self.first else (tables.CLASS_B, tables.CLASS_A)
        return [row for row in self.matches if row[own] == class_id and row[other] != tables.NO_CLASS]

    def relation(self, search: ComparedSearch, class_id: int) -> str:
        """Return the relation of a class of one of the searches to the other search; see RELATIONS."""
        return self.overlap.relations[search is not self.first][class_id]

    def count(self, search: ComparedSearch, relation: str) -> int:
        """Return the number of classes of one of the searches that have a relation to the other search."""
        return list(self.overlap.relations[search is not self.first].values()).count(relation)

    def content(self) -> dict[str, Any]:
        """Return the pair as compare.json holds it."""
        embeddings = None
        if self.likeness is not None:
            embeddings = {**asdict(self.likeness), "overlaps": [share._asdict() for share in self.likeness.overlaps]}
        return {
            "first": self.first.letter,
            "second": self.second.letter,
            "agreement": asdict(self.agreement),
            "embeddings": embeddings,
            "events": _events(self.overlap.matches()),
            "relations": dict(zip((self.first.letter, self.second.letter), self.overlap.relations, strict=True)),
        }


@dataclass(repr=False, frozen=True)
class Comparison:
    """Two or more searches, compared over the n galaxies that all of them have.

    Attributes
    ----------
    ids
        (n,) ids of the galaxies.
    sources
        The searches.
    searches
        The same searches, reduced to the n galaxies, in the order of their letters.
    pairs
        Every two of them.
    level
        Pairs of classes with a corrected p-value above this are not related.
    seed
        Seed of the galaxies that the pages show.
    images
        Show galaxies on the pages; they are read from the first search's survey.
    page
        Index page, once :meth:`report` has written it.
    """

    ids: np.ndarray
    sources: tuple[Search, ...]
    searches: tuple[ComparedSearch, ...]
    pairs: tuple[SearchPair, ...]
    level: float = LEVEL
    seed: int = 0
    images: bool = True
    page: Path | None = None

    def __repr__(self) -> str:
        names = ", ".join(str(source.folder) for source in self.sources)
        return f"Comparison({names}: {len(self.ids):,} galaxies)"

    def alone(self, search: ComparedSearch) -> list[int]:
        """Return the classes of a search that are related to no class of any other search."""
        pairs = [pair for pair in self.pairs if search in (pair.first, pair.second)]
        own = RELATIONS[2]
        return [
            class_id
            for class_id in search.classes.tolist()
            if all(pair.relation(search, class_id) == own for pair in pairs)
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per pair: numbers of classes by their relation, and indices of agreement.

        Returns
        -------
        pandas.DataFrame
            Columns pair, both, related, only_first, only_second, ari, ami (over the galaxies that are in a class of
            both) and cka (of the embeddings; NaN if they were not compared).
        """
        both, related, own, _ = RELATIONS
        return pd.DataFrame(
            [
                {
                    "pair": f"{pair.first.letter} {pair.second.letter}",
                    "both": pair.count(pair.first, both),
                    "related": pair.count(pair.first, related),
                    "only_first": pair.count(pair.first, own),
                    "only_second": pair.count(pair.second, own),
                    "ari": pair.agreement.ari_both,
                    "ami": pair.agreement.ami_both,
                    "cka": float("nan") if pair.likeness is None else pair.likeness.cka,
                }
                for pair in self.pairs
            ]
        )

    def content(self) -> dict[str, Any]:
        """Return the comparison as compare.json holds it."""
        return {
            "galaxies": len(self.ids),
            "level": self.level,
            "searches": [
                {
                    "letter": search.letter,
                    "search": str(source.folder),
                    "checkpoint": search.checkpoint,
                    "classes": len(search.classes),
                    "grades": counts(list(search.grades.values())),
                }
                for source, search in zip(self.sources, self.searches, strict=True)
            ],
            "pairs": [pair.content() for pair in self.pairs],
            "alone": {search.letter: self.alone(search) for search in self.searches},
        }

    def report(self, out: Path | str) -> "Comparison":
        """Write the pages and tables of the comparison.

        Parameters
        ----------
        out
            Folder for index.html, one page per pair, compare.json, and per pair a folder with matches.parquet,
            matches.csv, contingency.csv and jaccard.csv.

        Returns
        -------
        Comparison
            The comparison with its ``page``.

        Raises
        ------
        DataError, StoreError
            The survey of the first search cannot be opened, or is another one; set ``images`` to False.
        OutputError
            The folder cannot be written.
        """
        from rarezoo.report.compare import write_comparison

        out = _folder(out)
        cutouts = None
        if self.images and self.sources[0].store.has_survey:
            self.sources[0].survey(way_out="Set images=false, or bring the survey back to where it was.")
            cutouts = self.sources[0].cutouts
        for pair in self.pairs:
            _write_pair(pair, out)
        page = write_comparison(out, self.ids, self.searches, self.pairs, cutouts=cutouts, seed=self.seed)
        tables.write_json(self.content(), out / SUMMARY_FILE)
        return replace(self, page=page)

    def summary(self) -> str:
        """Return the text for a terminal."""
        names = ", ".join(
            f"{search.letter} {source.folder}" for source, search in zip(self.sources, self.searches, strict=True)
        )
        head = ["pair", "in both", "related", "only in the first", "only in the second", "ARI", "AMI", "CKA"]
        rows = [
            [
                str(value) if not isinstance(value, float) else "–" if np.isnan(value) else f"{value:.2f}"
                for value in row
            ]
            for row in self.to_pandas().itertuples(index=False)
        ]
        alone = "; ".join(
            f"{search.letter}: {', '.join(map(str, self.alone(search))) or 'none'}" for search in self.searches
        )
        lines = [f"{len(self.ids):,} galaxies in {names}", tables.markdown(head, rows), f"in one search only: {alone}"]
        return "\n".join([*lines, *([str(self.page)] if self.page else [])])

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html(index=False, float_format="{:.2f}".format, na_rep="–")


def compare(
    *searches: Search,
    embeddings: bool = True,
    images: bool = True,
    queries: int = QUERIES,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Compare finished searches over the galaxies that all of them have.

    Parameters
    ----------
    searches
        2 to 26 searches.
    embeddings, images, queries, level, seed
        See :class:`CompareRun`.

    Raises
    ------
    StoreError
        The searches have no galaxy in common, or a galaxy is missing from an embedding store.
    """
    ids = searches[0].ids.astype(str)
    for search in searches[1:]:
        ids = ids[np.isin(ids, search.ids.astype(str))]
    if not len(ids):
        raise StoreError(
            "the searches have no galaxy in common",
            value=", ".join(str(search.folder) for search in searches),
            fix="Compare searches of the same survey.",
        )
    tables.report_matched(len(ids), {str(search.folder): len(search.ids) for search in searches})
    compared = tuple(
        ComparedSearch.of(search, letter, ids) for search, letter in zip(searches, ascii_uppercase, strict=False)
    )
    vectors = [_embeddings(search, ids) for search in searches] if embeddings else None
    pairs = []
    for i, j in combinations(range(len(compared)), 2):
        first, second = compared[i], compared[j]
        overlap = ClassOverlap.of_labels(
            first.labels, second.labels, old_classes=first.classes, new_classes=second.classes, level=level
        )
        alike = None
        if vectors is not None:
            alike = embedding_similarity(vectors[i], vectors[j], ks=KS, queries=queries, seed=seed)
        pairs.append(SearchPair(first, second, overlap, agreement(first.labels, second.labels), alike))
    return Comparison(ids, searches, compared, tuple(pairs), level, seed, images)


@dataclass(kw_only=True)
class CompareRun(Settings):
    """Compare finished searches over the galaxies that all of them have, and write pages and tables.

    Examples
    --------
    >>> CompareRun(searches=["runs/a"], out="runs/compared")
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: a comparison needs 2 to 26 searches: 1. Name their folders.
    """

    searches: list[str] = setting(help="folders of finished searches, 2 to 26", positional=True)
    out: str = setting(help="folder for the pages and tables")
    embeddings: bool = setting(True, "compare the embeddings too, not only the classes")
    images: bool = setting(
        True, "show images of galaxies, read from the survey of the first search; false shows their ids"
    )
    queries: int = setting(
        QUERIES,
        "number of galaxies, drawn at random, whose nearest neighbours are compared between the embeddings; 0 = all",
        unit="galaxies", ge=0,
    )  # fmt: skip
    level: float = setting(
        LEVEL,
        "significance level: two classes are related if the p-value of their overlap, corrected for the number of "
        "pairs of classes, is at most this",
        gt=0, lt=1,
    )  # fmt: skip
    seed: int = setting(0, "seed of the galaxies that are drawn at random", ge=0)

    def check(self) -> None:
        """Require 2 to 26 searches, one for each letter."""
        if not 2 <= len(self.searches) <= len(ascii_uppercase):
            raise ConfigError(
                "a comparison needs 2 to 26 searches", value=len(self.searches), fix="Name their folders."
            )

    def run(self) -> Comparison:
        """Compare the searches and write the report.

        Raises
        ------
        StoreError
            A folder holds no finished search, or the searches have no galaxy in common.
        DataError, OutputError
            See :meth:`Comparison.report`.
        """
        _folder(self.out)
        return compare(
            *map(Search.open, self.searches),
            embeddings=self.embeddings,
            images=self.images,
            queries=self.queries,
            level=self.level,
            seed=self.seed,
        ).report(self.out)


@dataclass(frozen=True)
class ClassDiff:
    """Events of the classes of two searches.

    Attributes
    ----------
    old, new
        Folders of the searches.
    overlap
        Galaxies that their classes share.
    """

    old: str
    new: str
    overlap: ClassOverlap

    @cached_property
    def table(self) -> pa.Table:
        """MATCHES table."""
        return self.overlap.matches()

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per pair of related classes, and one per class without a related class."""
        return self.table.to_pandas()

    def write(self, folder: Path | str) -> None:
        """Write matches.parquet, matches.csv and diff.json.

        Raises
        ------
        OutputError
            The folder cannot be written.
        """
        folder, overlap = _folder(folder), self.overlap
        about = {
            "old": self.old,
            "new": self.new,
            "galaxies": overlap.galaxies,
            "events": _events(self.table),
            "old_classes": len(overlap.old),
            "new_classes": len(overlap.new),
        }
        _write_matches(self.table, about, folder)
        tables.write_json({**about, "matches": self.table.to_pylist()}, folder / "diff.json")

    def summary(self) -> str:
        """Return the text for a terminal."""
        counts = ", ".join(f"{count} {event}" for event, count in _events(self.table).items()) or "none"
        head = ["event", "old", "new", "galaxies of old", "of new", "of both", "Jaccard", "p"]
        rows = [
            [
                row[tables.EVENT],
                *(str(row[name]) if row[name] != tables.NO_CLASS else "–" for name in (tables.CLASS_A, tables.CLASS_B)),
                *(str(row[name]) for name in (tables.SIZE_A, tables.SIZE_B, tables.OVERLAP)),
                f"{row[tables.JACCARD]:.3f}",
                f"{row[tables.P_VALUE]:.2g}",
            ]
            for row in self.table.to_pylist()
        ]
        return (
            f"{self.overlap.galaxies:,} galaxies in both searches; {len(self.overlap.old)} classes before, "
            f"{len(self.overlap.new)} now: {counts}\n{tables.markdown(head, rows)}"
        )


@dataclass(kw_only=True)
class DiffRun(Settings):
    """List which classes of one search were kept, split, merged, changed or lost in another, and which are new."""

    old: str = setting(help="folder of a finished search", positional=True)
    new: str = setting(
        help="folder of another finished search, which has at least some of the galaxies", positional=True
    )
    out: str = setting("", "folder for matches.parquet, matches.csv and diff.json; empty writes no files")

    def run(self) -> ClassDiff:
        """Match the classes, and write the tables if there is an output folder.

        Raises
        ------
        StoreError
            A folder holds no finished search, or the searches have no galaxy in common.
        OutputError
            The folder cannot be written.
        """
        old, new = Search.open(self.old), Search.open(self.new)
        diff = ClassDiff(self.old, self.new, ClassOverlap.of_members(old.table("members"), new.table("members")))
        if self.out:
            diff.write(self.out)
        return diff


def _events(matches: pa.Table) -> dict[str, int]:
    return {event: count for event in EVENTS if (count := fates(matches)[event])}


def _embeddings(search: Search, ids: np.ndarray) -> Float[np.ndarray, "n d"]:
    try:
        rows = tables.rows_of(ids, search.store.read([tables.ID]), source=str(search.store.folder))
    except StoreError as problem:
        raise StoreError(problem.what, value=problem.value, fix="Set embeddings=false.", ids=problem.ids) from problem
    return search.store.embeddings()[rows]


def _folder(out: Path | str) -> Path:
    if Path(out).is_file():
        raise OutputError("the output path is a file", value=out, fix="Choose a folder: out=DIR.")
    return Path(out)


def _write_matches(matches: pa.Table, about: Mapping[str, Any], folder: Path) -> None:
    tables.write(matches, folder / "matches.parquet", tables.MATCHES, **about)
    tables.write_csv(matches, folder / "matches.csv")


def _write_pair(pair: SearchPair, out: Path) -> None:
    """Write a folder with matches.parquet, matches.csv, contingency.csv and jaccard.csv of one pair."""
    overlap, folder = pair.overlap, out / f"{pair.first.letter}-{pair.second.letter}"
    about = {"old": pair.first.name, "new": pair.second.name, "galaxies": overlap.galaxies}
    _write_matches(overlap.matches(), about, folder)
    rows = pd.Index([f"{pair.first.letter} {class_id}" for class_id in overlap.old], name="class")
    columns = [f"{pair.second.letter} {class_id}" for class_id in overlap.new]
    for name, values in (("contingency", overlap.counts), ("jaccard", overlap.jaccards.round(6))):
        with tables.atomic(folder / f"{name}.csv") as temporary:
            pd.DataFrame(values, index=rows, columns=columns).to_csv(temporary)
