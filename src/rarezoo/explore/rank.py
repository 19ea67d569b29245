"""``rarezoo rank``: every galaxy of a survey in the order of what somebody finds interesting."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines import Engine
from rarezoo.errors import ConfigError, DataError
from rarezoo.explore.labels import INTERESTING, Labels, source_of
from rarezoo.explore.ranking import RankingSettings
from rarezoo.explore.session import Progress, Session, progress_of, survey_of
from rarezoo.report.exports import Meanings, write_csv, write_fits, write_votable
from rarezoo.searches.result import Search
from rarezoo.settings import setting

# Rows that a terminal shows.
_SHOWN = 20


@dataclass(kw_only=True)
class RankRun(RankingSettings):
    """Rank all galaxies by the ratings of one label, for people who do not need the page."""

    prefix: ClassVar[str] = ""

    source: str = setting(help="folder of a finished search or of an embedding store", positional=True)
    label: str = setting(INTERESTING, "label or tag by which galaxies are ranked")
    labels: str = setting("", "database of the ratings; empty: labels.sqlite in that folder")
    first: int = setting(0, "number of galaxies in the table; 0 = all", unit="galaxies", ge=0)
    engine: Engine | None = setting(
        None, "where the shards of a store are scanned that is too large for the memory: by the embedding alone, and "
        "with first=; null = in the memory"
    )  # fmt: skip
    out: str = setting("", "file of the ranking: .parquet, .csv, .fits or .vot; empty: only the first are shown")

    def check(self) -> None:
        """Raise ConfigError if a ranking of all galaxies would have to be held in memory after all."""
        super().check()
        if self.engine is not None and not self.first:
            raise ConfigError(
                "a ranking with engine= needs a number of galaxies", value="first=0", fix="Say how many: first=10000."
            )

    def run(self) -> "Ranked":
        """Rank the galaxies, write the table if wanted, and return it.

        Raises
        ------
        StoreError
            There is neither a search nor a store, or no database of ratings.
        DataError
            Nothing was rated under this label.
        ConfigError
            The ending of the file is not known.
        """
        ending = Path(self.out).suffix.lower()
        if self.out and ending not in _WRITERS:
            raise ConfigError(
                "the ending of the file is not known", value=self.out, fix=f"Use one of: {', '.join(_WRITERS)}."
            )
        if self.out:
            tables.refuse_other_file(self.out, [tables.ID, tables.SCORE, tables.RANK])
        source = source_of(self.source)
        with Labels.of(source, self.labels, read_only=True) as labels:
            # Before anything is measured, which takes long for a large survey.
            if not labels.interest(self.label):
                known = sorted(set(labels.current()[tables.LABEL].to_pylist()))
                raise DataError(
                    "nothing was rated under this label", value=self.label,
                    fix=f"Labels with ratings: {', '.join(known) or 'none'}. Rate galaxies with: rarezoo serve SEARCH.",
                )  # fmt: skip
            if self.engine is not None:
                ranking, progress, left_out = self._in_shards(self.engine, source, labels)
            else:
                with Session(source, labels, settings=self) as session:
                    ranking = _with_positions(session.ranking(self.label, first=self.first or None), source)
                    progress, left_out = session.progress(self.label), session.features.left_out
        if self.out:
            about = {"label": self.label, "ratings": str(progress.rated)}
            table = tables.check(ranking, tables.RANKING, source="the ranking")
            _WRITERS[ending](Path(self.out), table, about, meanings=_MEANINGS)
        return Ranked(ranking, progress, self.label, left_out, self.out)

    def _in_shards(
        self, engine: Engine, source: Search | EmbeddingStore, labels: Labels
    ) -> tuple[pa.Table, Progress, tuple[str, ...]]:
        """Rank all galaxies of a store, or of a search out of core, shard by shard."""
        from rarezoo.explore.in_shards import rank_in_shards, store_of

        ranked = rank_in_shards(
            store_of(source), labels.interest(self.label, artifacts=True), self, first=self.first, engine=engine,
            judged=labels.current()[tables.ID].to_pylist(),
        )  # fmt: skip
        progress = progress_of(labels, self.label, survey=ranked.known, galaxies=ranked.galaxies, round=1)
        if isinstance(source, Search) and len(source.ids) < ranked.galaxies:
            # The galaxies that were drawn at random are of those that the search shows, and say nothing of the others.
            progress = progress._replace(left=None)
        return ranked.table, progress, ranked.left_out


def _with_positions(ranking: pa.Table, source: Search | EmbeddingStore) -> pa.Table:
    """Return the ranking with ra and dec after the id; unchanged if the survey is not there."""
    galaxies = survey_of(source)
    if galaxies is None:
        return ranking
    rows = pc.index_in(ranking.column(tables.ID), value_set=galaxies.catalogue.column(tables.ID).combine_chunks())
    for name in (tables.DEC, tables.RA):
        ranking = ranking.add_column(1, name, galaxies.catalogue.column(name).take(rows))
    return ranking


def _write_parquet(path: Path, ranking: pa.Table, about: dict[str, str], *, meanings: Meanings) -> Path:
    return tables.write(ranking, path, tables.RANKING, **about)


_WRITERS: dict[str, Callable[..., Path]] = {
    ".parquet": _write_parquet, ".csv": write_csv, ".fits": write_fits, ".vot": write_votable, ".xml": write_votable,
}  # fmt: skip
_MEANINGS: Meanings = {
    tables.SCORE: ("", "stat.value", "how interesting the model expects the galaxy to be"),
    tables.RANK: ("", "stat.rank", "place in the order of the scores; 1: the highest"),
    tables.UNCERTAINTY: ("", "stat.error", "uncertainty of the score"),
    tables.INTEREST: ("", "stat.value", "what people said, 0 to 1; empty: not rated"),
    tables.WHY: ("", "meta.note", "why the galaxy is shown"),
    tables.NEAREST_RATED: ("", "meta.id", "the rated galaxy that is nearest"),
}


@dataclass(frozen=True)
class Ranked:
    """A ranking of all galaxies.

    Attributes
    ----------
    table : pyarrow.Table
        RANKING table, the most interesting galaxy first.
    progress : Progress
        How far the ratings are.
    label : str
    left_out : tuple of str
        What was to stand beside the embedding and could not be measured, with the reasons.
    out : str
        File that was written; empty: none.
    """

    table: pa.Table
    progress: Progress
    label: str
    left_out: tuple[str, ...] = ()
    out: str = ""

    def summary(self) -> str:
        """Return the text for a terminal."""
        rows = [
            [str(row[tables.RANK]), row[tables.ID], f"{row[tables.SCORE]:.3f}", _answer(row[tables.INTEREST])]
            for row in self.table.slice(0, _SHOWN).to_pylist()
        ]
        left = self.progress.left
        about = (
            f"{self.progress.rated:,} of {self.progress.galaxies:,} galaxies rated, "
            f"{self.progress.interesting:,} interesting"
        )
        if left is not None:
            about += (
                f"; about {left.estimate:,.0f} more are left (90 % interval {left.low:,.0f} to {left.high:,.0f}, "
                f"from {left.draws} galaxies that were drawn at random)"
            )
        table = tables.markdown(["rank", tables.ID, f"score for {self.label}", "rated"], rows)
        left_out = [f"ranked without {part}" for part in self.left_out]
        return "\n".join([table, about, *left_out, *([self.out] if self.out else [])])


def _answer(interest: float | None) -> str:
    return "" if interest is None else f"{interest:.1f}"
