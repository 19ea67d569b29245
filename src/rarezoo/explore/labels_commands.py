"""Ratings on the command line: ``rarezoo labels show``, ``rarezoo labels export`` and ``rarezoo labels import``."""

import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.explore.labels import KINDS, Imported, Labels, Rating
from rarezoo.settings import Settings, setting

_SEARCH = "folder of a finished search, or of an embedding store"
_LABELS = (
    "database of the ratings: a file, or postgresql://USER@HOST/DATABASE; empty: the file labels.sqlite in that folder"
)


@dataclass(kw_only=True)
class LabelsShow(Settings):
    """Show the ratings of a search: for each label and kind how many galaxies were rated, by how many people, and how.

    The mean is that of grades (0 to 5), or the share of yes among the answers yes and no. The agreement is
    Krippendorff's alpha: 1 if all people agree, 0 if they agree by chance only; it needs galaxies that two people have
    rated.
    """

    search: str = setting(help=_SEARCH, positional=True)
    labels: str = setting("", _LABELS)

    def run(self) -> str:
        """Return the ratings as a Markdown table below a line about the database.

        Raises
        ------
        StoreError
            There is neither a search nor a store, or there are no ratings.
        OutputError
            The database cannot be read.
        """
        with Labels.of(self.search, self.labels, read_only=True) as labels:
            entries, current = labels.log(), labels.ratings()
            by_label: dict[tuple[str, str], list[Rating]] = defaultdict(list)
            for rating in current:
                by_label[rating.label, rating.kind].append(rating)
            rows = [
                _row(label, kind, ratings, labels.agreement(label))
                for (label, kind), ratings in sorted(by_label.items())
            ]
            where, people = labels.where, labels.people()
        last = entries.column(tables.AT)[-1].as_py() if entries.num_rows else None
        when = f", the last on {last:%Y-%m-%d %H:%M} UTC" if last else ""
        line = f"{where}: {entries.num_rows:,} entries by {', '.join(people) or 'nobody'}{when}"
        head = ["label", "kind", "galaxies", "ratings", "people", "mean", "unsure", "agreement"]
        return f"{line}\n\n{tables.markdown(head, rows)}" if rows else line


def _row(label: str, kind: str, ratings: list[Rating], agreement: float | None) -> list[str]:
    values = [rating.value for rating in ratings if rating.value is not None]
    return [
        label,
        kind,
        f"{len({rating.id_str for rating in ratings}):,}",
        f"{len(ratings):,}",
        str(len({rating.by for rating in ratings})),
        f"{sum(values) / len(values):.2f}" if values else "–",
        f"{len(ratings) - len(values):,}",
        "–" if agreement is None else f"{agreement:.2f}",
    ]


@dataclass(kw_only=True)
class LabelsExport(Settings):
    """Write the ratings of a search as a table of CSV or Parquet.

    By default the table holds every entry of the log, also those that were taken back and the entries that took them
    back; `rarezoo labels import` makes the same log of it. With current=true it holds one row for each galaxy, label
    and person: what holds now.
    """

    search: str = setting(help=_SEARCH, positional=True)
    out: str = setting(help="file to write, which ends in .csv or .parquet; folder for format=hats")
    format: str = setting("", "hats = a HATS catalogue; empty: as out= ends", choices=("", "hats"))
    positions: str = setting("", "format=hats: table with id_str, ra and dec (degrees); empty: the survey's catalogue")
    current: bool = setting(False, "write only what holds now")
    label: str = setting("", "write only what holds now for this label")
    by: str = setting("", "write only what holds now of this person")
    labels: str = setting("", _LABELS)

    def run(self) -> str:
        """Write the file and return a line about it.

        Raises
        ------
        StoreError
            There is neither a search nor a store, or there are no ratings.
        ConfigError
            The name of the file has another ending.
        OutputError
            The database cannot be read, or the file cannot be written.
        """
        if self.format:
            return self._write_hats()
        tables.refuse_other_file(self.out, [tables.ID, tables.LABEL, tables.BY, tables.AT])
        with Labels.of(self.search, self.labels, read_only=True) as labels:
            current = self.current or bool(self.label or self.by)
            rows = labels.write_table(self.out, current=current, label=self.label, by=self.by)
        return f"{rows:,} {'ratings' if current else 'entries'}: {self.out}"

    def _write_hats(self) -> str:
        """Write the ratings with the positions of their galaxies as a HATS collection."""
        import pyarrow.parquet as pq

        from rarezoo.data.hats import write_hats
        from rarezoo.embeddings.hats import positions_in, positions_of_store, with_positions
        from rarezoo.searches.result import RUN_FILE, Search

        is_search = (Path(self.search) / RUN_FILE).exists()
        store = Search.open(self.search).store if is_search else EmbeddingStore.open(self.search)
        positions = positions_in(self.positions) if self.positions else positions_of_store(store)
        with tempfile.TemporaryDirectory(prefix="rarezoo-") as folder:
            file = str(Path(folder) / "ratings.parquet")
            replace(self, out=file, format="").run()
            ratings = pq.read_table(file)
        at = ratings.column_names.index(tables.ID)
        ratings = ratings.select(
            [tables.ID, *(name for name in ratings.column_names if name != ratings.column_names[at])]
        )
        return str(write_hats(with_positions(iter([(ratings, np.arange(store.manifest.rows))]), positions), self.out))


@dataclass(kw_only=True)
class LabelsImport(Settings):
    """Add the ratings of a file to those of a search. Ratings that are there already are not added again.

    The file is a table (CSV, Parquet, FITS or VOTable) with the columns id_str and value, and where they apply label,
    by, at and kind; other columns are not read. Or it is a JSON file that was saved from the atlas. All ratings are
    added, or none of them.
    """

    search: str = setting(help=_SEARCH, positional=True)
    file: str = setting(help="file of ratings", positional=True)
    by: str = setting("", "person, for rows that name nobody")
    label: str = setting("", "label of rows that name none; empty: interesting")
    kind: str = setting(
        "",
        "kind of the ratings of rows that name none; empty: answers where there are only yes, no, unsure, 1 and 0, "
        "otherwise grades. Rows of tags need no value",
        choices=("", *KINDS),
    )
    id_column: str = setting(tables.ID, "column of ids")
    unknown: str = setting(
        "stop", "what a galaxy that is not in the survey causes: stop, or skip it", choices=("stop", "skip")
    )
    labels: str = setting("", _LABELS)

    def run(self) -> Imported:
        """Add the ratings; see :meth:`rarezoo.explore.labels.Labels.read_table` for errors."""
        with Labels.of(self.search, self.labels) as labels:
            return labels.read_table(
                Path(self.file),
                by=self.by,
                label=self.label,
                kind=self.kind,
                id_column=self.id_column,
                skip_unknown=self.unknown == "skip",
            )
