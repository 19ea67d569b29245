"""Ratings of galaxies by people: a log in a database, to which entries are added and in which none is ever changed.

A rating says who judged which galaxy, when, what they said, and why the galaxy was shown to them. Taking a rating back
is an entry too. What :meth:`Labels.add` has returned is on the disk: a process or a machine that is killed afterwards
loses none of it. Several people and processes can rate at once.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from rarezoo import tables
from rarezoo.data.own_labels import RATINGS_FILE
from rarezoo.errors import ConfigError, StoreError, StoreNotFound
from rarezoo.explore import exchange
from rarezoo.explore.database import CLAIMS, PATIENCE, RATINGS, Database
from rarezoo.explore.rating import (
    ANSWER,
    ARTIFACT,
    FIELDS,
    GRADE,
    INTERESTING,
    KINDS,
    TAG,
    UNDO,
    Rating,
    checked,
    checked_name,
)
from rarezoo.explore.state import State
from rarezoo.runs import digest

if TYPE_CHECKING:
    from rarezoo.embeddings.store import EmbeddingStore
    from rarezoo.searches.result import Search

log = logging.getLogger(__name__)

__all__ = [
    "ANSWER",
    "ARTIFACT",
    "FILE",
    "GRADE",
    "INTERESTING",
    "KINDS",
    "TAG",
    "Labels",
    "Rating",
    "source_of",
    "survey_key",
]
FILE = RATINGS_FILE
_MOMENT = timedelta(microseconds=1)


class Labels:
    """The ratings of a survey in their database.

    An object may be used by several threads. Use :meth:`of` for the ratings of a search or a store, and :meth:`open`
    for any other database.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> labels = Labels.open(Path(mkdtemp()) / "labels.sqlite", survey="mine")
    >>> (saved,) = labels.add([Rating("J1", "ring", 1, "answer", "ann")])
    >>> saved.entry
    1
    >>> labels.interest("ring")
    {'J1': 1.0}
    >>> labels.undo(by="ann").undoes
    1
    >>> labels.interest("ring"), len(labels.log())
    ({}, 2)
    >>> labels.close()
    """

    def __init__(self, database: Database, *, ids: Collection[str] | None = None) -> None:
        self._database, self.survey = database, database.survey
        self._ids = None if ids is None else frozenset(map(str, ids))
        self._state, self._lock = State(), threading.RLock()

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        survey: str | None,
        ids: Collection[str] | None = None,
        read_only: bool = False,
        patience: float = PATIENCE,
    ) -> Self:
        """Open a database of ratings, and make it if it does not exist.

        Parameters
        ----------
        where
            Path of a file of SQLite, or ``postgresql://USER@HOST/DATABASE``.
        survey
            Key of the survey, see :func:`survey_key`. A database holds the ratings of one survey. None: that of
            the database, which must exist.
        ids
            Ids of its galaxies, if they are known: ratings of others are refused.
        read_only
            Nothing is written, and a database that does not exist is not made.
        patience
            Seconds to wait while another process writes.

        Raises
        ------
        StoreNotFound
            There is no such database, and it is opened for reading only.
        StoreError
            It holds ratings of another survey or of a newer version, or it is no database of ratings.
        OutputError
            It cannot be written or reached, is locked by another process, or the disk is full.
        ConfigError
            The place cannot be a database.
        """
        return cls(Database(where, survey=survey, read_only=read_only, patience=patience), ids=ids)

    @classmethod
    def of(
        cls, source: "Search | EmbeddingStore | Path | str", where: str | Path = "", *, read_only: bool = False
    ) -> Self:
        """Open the ratings of a search or of an embedding store.

        Parameters
        ----------
        source
            A search or a store, or its folder.
        where
            Database; empty: the file ``labels.sqlite`` in that folder.
        read_only
            Nothing is written.
        """
        opened = source_of(source) if isinstance(source, (str, Path)) else source
        place = where or opened.folder / FILE
        ids = None if read_only else known_ids(opened)
        return cls.open(place, survey=survey_key(opened), ids=ids, read_only=read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Labels({self.where})"

    @property
    def where(self) -> str:
        """Where the database is, without a password."""
        return self._database.shown

    @property
    def read_only(self) -> bool:
        """Whether nothing can be added."""
        return self._database.read_only

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # --- writing

    def add(self, ratings: Sequence[Rating], *, once: bool = False) -> list[Rating]:
        """Save ratings, all or none of them; they are on the disk when this returns.

        Parameters
        ----------
        ratings
            What people said. Labels and names lose the white space around them.
        once
            A rating that is in the log already, with its time to the millisecond, is not added again. A page that got
            no answer sends its ratings a second time, perhaps to another server of the same database.

        Returns
        -------
        list of Rating
            The ratings as they were saved, now or before, with their times and the numbers of their entries.

        Raises
        ------
        ConfigError
            A value is out of range, a label or a name is empty, too long or holds characters that cannot be shown, or
            a galaxy is unknown.
        OutputError
            They cannot be saved. None of them is then in the log.
        """
        valid = [checked(rating) for rating in ratings]
        for rating in valid:
            if rating.undoes is not None:
                raise ConfigError("a rating cannot take back an entry", value=rating.undoes, fix="Use undo().")
        self._refuse_strangers(valid)
        if not valid:
            return []
        with self._writing() as connection:
            if not once:
                return self._append(connection, valid)
            galaxies = {rating.id_str for rating in valid}
            entries = {
                _sent(entry): entry for entry in self._state.entries.values()
                if entry.id_str in galaxies and entry.undoes is None
            }  # fmt: skip
            new = {_sent(rating): rating for rating in valid if _sent(rating) not in entries}
            if new:
                entries |= zip(new, self._append(connection, list(new.values())), strict=True)
            return [entries[_sent(rating)] for rating in valid]

    def undo(self, *, by: str, entry: int | None = None) -> Rating | None:
        """Take a rating back: an entry is added that says so.

        Parameters
        ----------
        by
            The person who takes it back.
        entry
            Number of an entry of this person; None: the last one that is in effect. Taking back an entry that took
            back another one brings the other one back into effect.

        Returns
        -------
        Rating or None
            The new entry, whose ``undoes`` says which one it takes back; None if there is nothing to take back.

        Raises
        ------
        ConfigError
            There is no such entry, or it is another person's.
        OutputError
            It cannot be saved.
        """
        by = checked_name(tables.BY, by)
        with self._writing() as connection:
            target = self._state.last_of(by) if entry is None else self._state.entries.get(entry)
            if entry is not None and (target is None or target.by != by):
                what = "no such entry in the ratings" if target is None else "this entry is another person's"
                raise ConfigError(what, value=entry, fix=f"Choose an entry of {by}.")
            if target is None or not self._state.in_effect(target):
                return None
            undoing = Rating(
                target.id_str, target.label, None, target.kind, by, why=UNDO, round=target.round, undoes=target.entry
            )
            return self._append(connection, [undoing])[0]

    def claim(
        self,
        ids: Sequence[str],
        *,
        by: str,
        label: str,
        seconds: float = 600,
        count: int | None = None,
        people: int = 1,
    ) -> list[str]:
        """Hand galaxies out to a person, so that nobody else gets them in the meantime.

        A galaxy is free for a person if nobody else holds it for this label, and nobody else has rated it for this
        label or called it an artifact. What the person has rated is not left out. Two processes never hand out the same
        galaxy. What the person rates is no longer held; what they do not rate is free again after some time.

        Parameters
        ----------
        ids
            Galaxies that are wanted, the most wanted first.
        by
            The person.
        label
            What will be judged.
        seconds
            How long they are held.
        count
            How many are wanted; None: all that are free.
        people
            How many people may rate one galaxy.

        Returns
        -------
        list of str
            The galaxies that were free, in the given order.
        """
        by, label, wanted = (
            checked_name(tables.BY, by),
            checked_name(tables.LABEL, label),
            list(dict.fromkeys(map(str, ids))),
        )
        if not wanted or count == 0:
            return []
        with self._writing() as connection:
            now = self._database.seconds(connection)
            connection.execute(sa.delete(CLAIMS).where(CLAIMS.c.until <= now))
            held = defaultdict(set)
            for row in connection.execute(sa.select(CLAIMS.c.id_str, CLAIMS.c.by).where(CLAIMS.c.label == label)):
                held[row.id_str].add(row.by)
            free = (
                galaxy for galaxy in wanted if len((held[galaxy] | self._state.raters(galaxy, label)) - {by}) < people
            )
            chosen = list(islice(free, count))
            rows = [{"label": label, "id_str": galaxy, "by": by} for galaxy in chosen]
            self._give_back(connection, rows)
            if rows:
                connection.execute(sa.insert(CLAIMS), [{**row, "until": now + seconds} for row in rows])
            return chosen

    def release(self, *, by: str, label: str | None = None) -> None:
        """Give back the galaxies that a person holds, for one label or for all."""
        with self._writing() as connection:
            mine = CLAIMS.c.by == checked_name(tables.BY, by)
            connection.execute(sa.delete(CLAIMS).where(mine if label is None else mine & (CLAIMS.c.label == label)))

    # --- reading

    def log(self, *, since: int = 0) -> pa.Table:
        """Return every entry after the one with this number, as a LABELS table in the order of the entries.

        The numbers are in the order in which entries were saved: a reader that asks for what came since the last entry
        that it knows misses none.
        """
        with self._read() as state:
            return _table([rating for rating in state.entries.values() if rating.entry and rating.entry > since])

    def newest(self) -> int:
        """Return the number of the last entry; 0 if there is none. It grows whenever anybody rates or takes back."""
        with self._read() as state:
            return state.last

    def current(self, label: str | None = None, *, by: str | None = None) -> pa.Table:
        """Return what holds now: the newest rating of each galaxy, label and person, without those taken back.

        Parameters
        ----------
        label
            Only this label.
        by
            Only this person.

        Returns
        -------
        pyarrow.Table
            LABELS table in the order of the entries.
        """
        return _table(self.ratings(label, by=by))

    def ratings(self, label: str | None = None, *, by: str | None = None) -> list[Rating]:
        """Return the rows of :meth:`current` as objects."""
        with self._read() as state:
            return [rating for rating in state.current(label) if by is None or rating.by == by]

    def interest(self, label: str = INTERESTING, *, artifacts: bool = False) -> dict[str, float]:
        """Return how interesting each rated galaxy is: the mean over people, 0 to 1.

        Parameters
        ----------
        label
            What was judged. Grades are divided by 5; answers and tags are 1 or 0; who was unsure is left out.
        artifacts
            A galaxy that a person called an artifact counts 0 for this person, unless they rated it later.

        Returns
        -------
        dict
            Interest by id, in the order of the entries.
        """
        with self._read() as state:
            newest = {(rating.id_str, rating.by): rating for rating in state.current(label)}
            if artifacts and label != ARTIFACT:
                for rating in state.current(ARTIFACT):
                    own = newest.get((rating.id_str, rating.by))
                    if rating.value and (own is None or own.order < rating.order):
                        newest[rating.id_str, rating.by] = replace(rating, value=0.0)
        values: dict[str, list[float]] = defaultdict(list)
        for (galaxy, _), rating in newest.items():
            if rating.interest is not None:
                values[galaxy].append(rating.interest)
        return {galaxy: sum(mine) / len(mine) for galaxy, mine in values.items()}

    def tags(self) -> dict[str, int]:
        """Return every tag and the number of galaxies that somebody gave it, the most frequent first."""
        with self._read() as state:
            tagged: dict[str, set[str]] = defaultdict(set)
            for rating in state.current():
                if rating.kind == TAG and rating.value:
                    tagged[rating.label].add(rating.id_str)
        return dict(sorted(((tag, len(ids)) for tag, ids in tagged.items()), key=lambda item: (-item[1], item[0])))

    def people(self) -> list[str]:
        """Return everybody who has rated something, in alphabetical order."""
        with self._read() as state:
            return sorted(state.by_person)

    def agreement(self, label: str = INTERESTING) -> float | None:
        """Return Krippendorff's alpha of all people who rated a label: 1 if they agree, 0 if only by chance.

        Grades are compared as an interval scale, answers and tags as categories. Who was unsure is left out.

        Returns
        -------
        float or None
            None if no galaxy was rated by two people, or if all ratings are the same: alpha is then not defined.
        """
        with self._read() as state:
            rated = [rating for rating in state.current(label) if rating.interest is not None]
        people_of: dict[str, int] = defaultdict(int)
        for rating in rated:
            people_of[rating.id_str] += 1
        rated = [rating for rating in rated if people_of[rating.id_str] > 1]
        if len({rating.interest for rating in rated}) < 2:
            return None
        row = {person: place for place, person in enumerate(sorted({rating.by for rating in rated}))}
        column = {galaxy: place for place, galaxy in enumerate(dict.fromkeys(rating.id_str for rating in rated))}
        values = np.full((len(row), len(column)), np.nan)
        for rating in rated:
            values[row[rating.by], column[rating.id_str]] = rating.interest
        import krippendorff

        graded = any(rating.kind == GRADE for rating in rated)
        return float(krippendorff.alpha(values, level_of_measurement="interval" if graded else "nominal"))

    # --- files

    def write_table(self, path: Path | str, *, current: bool = False, label: str = "", by: str = "") -> int:
        """Write ratings as CSV or Parquet; the ending of the name says which.

        Parameters
        ----------
        path
            File that ends in ``.csv``, ``.parquet`` or ``.pq``.
        current
            Only what holds now, see :meth:`current`. By default every entry of the log, from which the log can be made
            again with all that was taken back.
        label, by
            Only what holds now for this label, or of this person; empty: all.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        ConfigError
            The name has another ending.
        OutputError
            The file cannot be written.
        """
        whole = not (current or label or by)
        table = self.log() if whole else self.current(label or None, by=by or None)
        exchange.write(table, Path(path), survey=self.survey)
        return table.num_rows

    def read_table(
        self,
        path: Path | str,
        *,
        by: str = "",
        label: str = "",
        kind: str = "",
        id_column: str = tables.ID,
        skip_unknown: bool = False,
    ) -> "Imported":
        """Add the ratings of a file, all or none of them. Those that are in the log already are not added again.

        Parameters
        ----------
        path
            CSV or Parquet file with the columns id_str and value, and where they apply label, by, at, kind and the
            others of a LABELS table; or a JSON file that the atlas has saved.
        by, label, kind
            For rows that do not say so themselves. Without a kind, values that are only yes, no, unsure, 1 and 0 are
            answers, and other numbers are grades.
        id_column
            Name of the column of ids.
        skip_unknown
            Leave out galaxies that are not in the survey. By default they are refused.

        Raises
        ------
        DataError
            The file cannot be read.
        ConfigError
            A row is not valid, or its galaxy is unknown.
        StoreError
            They are ratings of another survey.
        OutputError
            They cannot be saved.
        """
        path = Path(path)
        defaults = Rating("", label, None, kind, by)
        rows = exchange.read(path, defaults, id_column=id_column, survey=self.survey)
        strangers = self._strangers(rows)
        if skip_unknown and strangers:
            log.warning("%s: %d galaxies are not in this survey and are left out", path, len(set(strangers)))
            rows = [rating for rating in rows if rating.id_str not in set(strangers)]
        else:
            self._refuse_strangers(rows, source=path)
        if not rows:
            return Imported(0, 0, len(set(strangers)))
        with self._writing() as connection:
            new = self._new(rows, source=path)
            saved = self._append(connection, new) if new else []
        return Imported(len(saved), len(rows) - len(saved), len(set(strangers)))

    # --- inside

    @contextmanager
    def _read(self) -> Iterator[State]:
        with self._lock:
            with self._database.reading() as connection:
                self._refresh(connection)
            yield self._state

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Give a connection of the only writer, with every entry of the log known."""
        # In this order, so that readers do not wait while this waits for another process or the disk.
        with self._database.writing() as connection, self._lock:
            self._refresh(connection)
            last = connection.execute(sa.select(sa.func.max(RATINGS.c.entry))).scalar() or 0
            if last != self._state.last:
                raise StoreError(
                    "the database of ratings was replaced by another one while it was open", value=self.where,
                    fix="Start again.",
                )  # fmt: skip
            yield connection

    def _refresh(self, connection: sa.Connection) -> None:
        """Read the entries that are not known yet."""
        columns = [RATINGS.c[name] for name in FIELDS]
        new = sa.select(*columns).where(RATINGS.c.entry > self._state.last).order_by(RATINGS.c.entry)
        self._state.take(Rating(*row) for row in connection.execute(new))

    def _append(self, connection: sa.Connection, ratings: Sequence[Rating]) -> list[Rating]:
        """Insert ratings at the end of the log; times never go back, whatever the clock does.

        What is inserted becomes part of the state when it is read again, because the transaction may still fail.
        """
        now = datetime.now(UTC)
        if self._state.newest is not None:
            now = max(now, self._state.newest + _MOMENT)
        saved = [
            replace(rating, entry=self._state.last + place, at=rating.at or now)
            for place, rating in enumerate(ratings, start=1)
        ]
        rows = [{name: getattr(rating, name) for name in FIELDS} for rating in saved]
        connection.execute(sa.insert(RATINGS), rows)
        self._give_back(connection, rows)
        return saved

    def _give_back(self, connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
        """Remove the claims of some people (``by``) on some galaxies (``id_str``) for some labels (``label``)."""
        key = ("label", "id_str", "by")
        named = (CLAIMS.c[name] == sa.bindparam(f"claimed_{name}") for name in key)
        if rows:
            claimed = [{f"claimed_{name}": row[name] for name in key} for row in rows]
            connection.execute(sa.delete(CLAIMS).where(*named), claimed)

    def _new(self, rows: Sequence[Rating], *, source: Path) -> list[Rating]:
        """Return the ratings of a file that the log lacks; entries that others take back have their new numbers.

        A rating with a time is known if the log has the same with the same time. One without is known if the last
        rating of this person for this galaxy that came for the same reason is the same.
        """
        known = {_identity(rating): rating.entry or 0 for rating in self._state.entries.values()}
        last = {
            _undated(rating): (rating.value, rating.entry or 0)
            for rating in self._state.entries.values()
            if rating.undoes is None
        }
        numbers: dict[int, int] = {}
        new: list[Rating] = []
        for rating in rows:
            if rating.undoes is not None:
                if rating.undoes not in numbers:
                    raise ConfigError(
                        f"{source} takes back an entry that it does not hold", value=rating.undoes,
                        fix="Import the whole log.",
                    )  # fmt: skip
                rating = replace(rating, undoes=numbers[rating.undoes])
            if rating.at is None:
                value, number = last.get(_undated(rating), (None, 0))
                number = number if value == rating.value else 0
            else:
                number = known.get(_identity(rating), 0)
            if not number:
                new.append(rating)
                number = self._state.last + len(new)
                known[_identity(rating)], last[_undated(rating)] = number, (rating.value, number)
            if rating.entry is not None:
                numbers[rating.entry] = number
        return new

    def _strangers(self, ratings: Iterable[Rating]) -> list[str]:
        """Return the ids of galaxies that are not in the survey."""
        if self._ids is None:
            return []
        return list(dict.fromkeys(rating.id_str for rating in ratings if rating.id_str not in self._ids))

    def _refuse_strangers(self, ratings: Sequence[Rating], *, source: Path | None = None) -> None:
        """Raise ConfigError for ratings of galaxies that are not in the survey."""
        strangers = self._strangers(ratings)
        if strangers:
            fix = "Check the ids; galaxies whose image could not be read are not there either."
            raise ConfigError(
                f"{f'{source}: ' if source else ''}ratings of galaxies that are not in this survey",
                value=f"{len(strangers):,} of {len({rating.id_str for rating in ratings}):,}",
                fix=f"{fix} unknown=skip leaves them out." if source else fix,
                ids=strangers,
            )


@dataclass(frozen=True)
class Imported:
    """What became of the ratings of a file.

    Attributes
    ----------
    added
        Ratings that were added to the log.
    known
        Ratings that were in it already.
    unknown
        Galaxies that were left out, because they are not in the survey.
    """

    added: int
    known: int
    unknown: int = 0

    def summary(self) -> str:
        """Return the text for a terminal."""
        left_out = f", {self.unknown:,} galaxies of other surveys left out" if self.unknown else ""
        return f"{self.added:,} ratings added, {self.known:,} known already{left_out}"


def survey_key(source: "Search | EmbeddingStore | Iterable[str]") -> str:
    """Return the key of a survey: searches and stores of the same survey share their ratings.

    Parameters
    ----------
    source
        A search, a store, or the ids of all galaxies, in any order.

    Examples
    --------
    >>> survey_key(["b", "a"]) == survey_key(["a", "b"])
    True
    """
    # Both take a second to import, and a program that has ids needs neither.
    from rarezoo.embeddings.store import EmbeddingStore
    from rarezoo.searches.result import Search

    if isinstance(source, Search):
        return str(source.about.get("survey_sha256") or survey_key(source.ids))
    if isinstance(source, EmbeddingStore):
        return source.manifest.survey_sha256
    return digest({"ids": sorted(map(str, source))})


def known_ids(source: "Search | EmbeddingStore") -> frozenset[str]:
    """Return the ids of the galaxies that can be rated: those of the store, or of the search if it has no store."""
    from rarezoo.searches.result import Search

    if isinstance(source, Search):
        try:
            return frozenset(source.store.ids) | frozenset(source.ids)
        except (OSError, ValueError) as problem:
            log.info("only the galaxies of the search itself can be rated: %s", problem)
    return frozenset(source.ids)


def source_of(folder: Path | str) -> "Search | EmbeddingStore":
    """Open a folder: a store if it holds one, otherwise a search.

    Raises
    ------
    StoreNotFound
        It is neither.
    """
    from rarezoo.embeddings.store import MANIFEST_FILE, EmbeddingStore
    from rarezoo.searches.result import Search

    folder = Path(folder)
    if (folder / MANIFEST_FILE).exists():
        return EmbeddingStore.open(folder)
    try:
        return Search.open(folder)
    except StoreNotFound as problem:
        raise StoreNotFound(
            "neither a finished search nor an embedding store", value=folder, fix="Give the folder of one of them."
        ) from problem


def _identity(rating: Rating) -> tuple[object, ...]:
    """Return what makes two entries with a time the same, in whatever log they are."""
    return rating.id_str, rating.label, rating.kind, rating.value, rating.by, rating.at, rating.undoes


def _sent(rating: Rating) -> tuple[object, ...]:
    """Return what tells a rating that is sent twice: two of one galaxy by one person are never of one millisecond."""
    moment = id(rating) if rating.at is None else round(1000 * rating.at.timestamp())
    return rating.id_str, rating.label, rating.kind, rating.value, rating.by, moment


def _undated(rating: Rating) -> tuple[object, ...]:
    """Return what two ratings without a time share if the later one of them replaces the earlier one."""
    return rating.id_str, rating.label, rating.kind, rating.by, rating.why


def _table(ratings: Sequence[Rating]) -> pa.Table:
    """Return ratings as a LABELS table."""
    schema = pa.schema(list(tables.LABELS.columns.items()))
    columns = [
        pa.array([getattr(rating, field.name) for rating in ratings], field.type) for field in schema
    ]  # fmt: skip
    return tables.check(pa.Table.from_arrays(columns, schema=schema), tables.LABELS)
