"""Ratings of galaxies by people: a log in a database, to which entries are added and in which none is ever changed.

A rating says who judged which galaxy, when, what they said, and why the galaxy was shown to them. Taking a rating back
is an entry too. What :meth:`Labels.add` has returned is on the disk: a process or a machine that is killed afterwards
loses none of it. Several people and processes can rate at once.
"""

import logging
import math
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from rarezoo import tables
from rarezoo.embeddings.store import MANIFEST_FILE, EmbeddingStore
from rarezoo.errors import ConfigError, StoreNotFound
from rarezoo.escapes import visible
from rarezoo.explore.database import CLAIMS, PATIENCE, RATINGS, Database
from rarezoo.runs import digest
from rarezoo.searches.result import Search

log = logging.getLogger(__name__)

FILE = "labels.sqlite"
GRADE, ANSWER, TAG, ARTIFACT = KINDS = ("grade", "answer", "tag", "artifact")
# The label of what a person finds interesting, which is judged if no other is named.
INTERESTING = "interesting"
BEST_GRADE = 5
UNDO = "undo"
_LONGEST = {"id_str": 1000, "label": 100, "by": 100, "why": 100}
_FUTURE = timedelta(minutes=5)
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rating:
    """What one person said about one galaxy.

    Attributes
    ----------
    id_str
        Id of the galaxy.
    label
        What is judged: ``interesting``, a tag such as ``ring``, or ``artifact``.
    value
        For the kind ``grade`` 0 to 5; for ``answer`` 1 (yes), 0 (no) or None (unsure); for ``tag`` and ``artifact`` 1,
        or 0 (removed). None for an entry that takes another one back.
    kind
        ``grade``, ``answer``, ``tag`` or ``artifact``. Only the label ``artifact`` has the kind ``artifact``.
    by
        The person.
    at
        When, in UTC; :meth:`Labels.add` sets it if it is None.
    why
        Why the galaxy was shown: ``model``, ``explore``, ``random``, ``start``, ``example``, ``similar``, ``class``,
        ``again``, ``import``, or any other word.
    round
        Round of the model when it was shown; 0 before the first.
    seconds
        How long the person looked; None if it is not known.
    entry
        Number of the entry in the log, from 1. The database sets it.
    undoes
        The entry that this entry takes back; only :meth:`Labels.undo` sets it.

    Examples
    --------
    >>> Rating("J1", "ring", 1, "answer", "ann").value
    1
    """

    id_str: str
    label: str
    value: float | None
    kind: str
    by: str
    at: datetime | None = None
    why: str = ""
    round: int = 0
    seconds: float | None = None
    entry: int | None = None
    undoes: int | None = None

    @property
    def interest(self) -> float | None:
        """The value as a number from 0 to 1; None if the person was unsure."""
        return self.value / BEST_GRADE if self.kind == GRADE and self.value is not None else self.value


_COLUMNS = tuple(known.name for known in fields(Rating))


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

    def __init__(self, database: Database, *, survey: str, ids: Collection[str] | None = None) -> None:
        self._database, self.survey = database, survey
        self._ids = None if ids is None else frozenset(map(str, ids))
        self._state, self._lock = _State(), threading.RLock()

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        survey: str,
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
            Key of the survey, see :func:`survey_key`. A database holds the ratings of one survey.
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
        return cls(Database(where, survey=survey, read_only=read_only, patience=patience), survey=survey, ids=ids)

    @classmethod
    def of(
        cls, source: Search | EmbeddingStore | Path | str, where: str | Path = "", *, read_only: bool = False
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
        opened = source if isinstance(source, (Search, EmbeddingStore)) else _opened(Path(source))
        place = where or opened.folder / FILE
        return cls.open(place, survey=survey_key(opened), ids=known_ids(opened), read_only=read_only)

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

    def add(self, ratings: Sequence[Rating]) -> list[Rating]:
        """Save ratings, all or none of them; they are on the disk when this returns.

        Parameters
        ----------
        ratings
            What people said. Labels and names lose the white space around them.

        Returns
        -------
        list of Rating
            The ratings as they were saved, with their times and the numbers of their entries.

        Raises
        ------
        ConfigError
            A value is out of range, a label or a name is empty, too long or holds characters that cannot be shown, or
            a galaxy is unknown.
        OutputError
            They cannot be saved. None of them is then in the log.
        """
        checked = [self._checked(rating) for rating in ratings]
        for rating in checked:
            if rating.undoes is not None:
                raise ConfigError("a rating cannot take back another one", value=rating.undoes, fix="Use undo().")
        if not checked:
            return []
        with self._writing() as connection:
            return self._append(connection, checked)

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
        by = _name("by", by)
        with self._writing() as connection:
            target = self._state.last_of(by) if entry is None else self._state.get(entry)
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
        label or called it an artifact. Two processes never hand out the same galaxy. What the person rates is no longer
        held; what they do not rate is free again after some time.

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
        by, label, wanted = _name("by", by), _name("label", label), list(dict.fromkeys(map(str, ids)))
        if not wanted or count == 0:
            return []
        with self._writing() as connection:
            now = self._database.seconds(connection)
            connection.execute(sa.delete(CLAIMS).where(CLAIMS.c.until <= now))
            held = defaultdict(set)
            for row in connection.execute(sa.select(CLAIMS.c.id_str, CLAIMS.c.by).where(CLAIMS.c.label == label)):
                held[row.id_str].add(row.by)
            free = [
                galaxy
                for galaxy in wanted
                if len((held[galaxy] | self._state.raters(galaxy, label)) - {by}) < people
            ][:count]  # fmt: skip
            mine = [galaxy for galaxy in free if by in held[galaxy]]
            if mine:
                same = (CLAIMS.c.label == label) & (CLAIMS.c.by == by)
                connection.execute(
                    sa.update(CLAIMS).where(same & (CLAIMS.c.id_str == sa.bindparam("galaxy"))),
                    [{"galaxy": galaxy, "until": now + seconds} for galaxy in mine],
                )
            new = [
                {"label": label, "id_str": galaxy, "by": by, "until": now + seconds}
                for galaxy in free
                if by not in held[galaxy]
            ]
            if new:
                connection.execute(sa.insert(CLAIMS), new)
            return free

    def release(self, *, by: str, label: str | None = None) -> None:
        """Give back the galaxies that a person holds, for one label or for all."""
        with self._writing() as connection:
            mine = CLAIMS.c.by == _name("by", by)
            connection.execute(sa.delete(CLAIMS).where(mine if label is None else mine & (CLAIMS.c.label == label)))

    # --- reading

    def log(self, *, since: int = 0) -> pa.Table:
        """Return every entry after the one with this number, as a LABELS table in the order of the entries.

        The numbers are in the order in which entries were saved: a reader that asks for what came since the last entry
        that it knows misses none.
        """
        with self._read() as state:
            return _table(state.entries_after(since))

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
                    if rating.value and (own is None or _order(own) < _order(rating)):
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

        level = "interval" if any(rating.kind == GRADE for rating in rated) else "nominal"
        return float(krippendorff.alpha(reliability_data=values, level_of_measurement=level))

    # --- inside

    @contextmanager
    def _read(self) -> Iterator["_State"]:
        with self._lock:
            with self._database.reading() as connection:
                self._refresh(connection)
            yield self._state

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Give a connection of the only writer, with every entry of the log known."""
        with self._lock, self._database.writing() as connection:
            self._refresh(connection)
            yield connection

    def _refresh(self, connection: sa.Connection) -> None:
        """Read the entries that are not known yet."""
        columns = [RATINGS.c[name] for name in _COLUMNS]
        new = sa.select(*columns).where(RATINGS.c.entry > self._state.last).order_by(RATINGS.c.entry)
        self._state.take(Rating(*row) for row in connection.execute(new))

    def _append(self, connection: sa.Connection, ratings: Sequence[Rating]) -> list[Rating]:
        """Insert ratings at the end of the log; times never go back, whatever the clock does."""
        now = datetime.now(UTC)
        if self._state.newest is not None:
            now = max(now, self._state.newest + _MOMENT)
        saved = [
            replace(rating, entry=self._state.last + place, at=rating.at or now)
            for place, rating in enumerate(ratings, start=1)
        ]
        connection.execute(sa.insert(RATINGS), [asdict(rating) for rating in saved])
        for rating in saved:
            mine = (CLAIMS.c.label == rating.label) & (CLAIMS.c.id_str == rating.id_str) & (CLAIMS.c.by == rating.by)
            connection.execute(sa.delete(CLAIMS).where(mine))
        return saved

    def _checked(self, rating: Rating) -> Rating:
        """Return a rating as it is saved, or raise ConfigError."""
        rating = checked(rating)
        if self._ids is not None and rating.id_str not in self._ids:
            raise ConfigError(
                "a rating of a galaxy that is not in this survey", value=rating.id_str,
                fix="Check the id; galaxies whose image could not be read are not there either.",
            )  # fmt: skip
        return rating


def checked(rating: Rating) -> Rating:
    """Return a rating as it is saved, or raise ConfigError if it is not valid.

    Examples
    --------
    >>> checked(Rating("J1", " ring ", 1, "tag", "ann")).label
    'ring'
    >>> checked(Rating("J1", "ring", 7, "grade", "ann"))
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: a grade of J1 is out of range: 7. Choose 0 to 5.
    """
    if rating.kind not in KINDS:
        raise ConfigError("no such kind of rating", value=rating.kind, fix=f"Choose one of: {', '.join(KINDS)}.")
    label, by = _name("label", rating.label), _name("by", rating.by)
    if (rating.kind == ARTIFACT) != (label == ARTIFACT):
        raise ConfigError(
            f"the label {ARTIFACT} and the kind {ARTIFACT} belong together", value=f"{label}, {rating.kind}",
            fix="Choose another label, or make it an artifact.",
        )  # fmt: skip
    at = rating.at
    if at is not None:
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        if at > datetime.now(UTC) + _FUTURE:
            raise ConfigError("a rating from the future", value=at.isoformat(), fix="Give its time in UTC.")
    if not isinstance(rating.round, int) or not 0 <= rating.round < 2**31:
        raise ConfigError("the round of a rating is not valid", value=rating.round, fix="Choose 0 or more.")
    seconds = rating.seconds
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise ConfigError("the seconds of a rating are not valid", value=seconds, fix="Choose 0 or more, or none.")
    return replace(
        rating,
        id_str=_id(rating.id_str), label=label, by=by, value=_value(rating), at=at, why=_why(rating.why),
        seconds=None if seconds is None else float(seconds),
    )  # fmt: skip


def _value(rating: Rating) -> float | None:
    value = rating.value
    if value is None and (rating.kind == ANSWER or rating.undoes is not None):
        return None
    best = BEST_GRADE if rating.kind == GRADE else 1
    allowed = f"0 to {best}" if rating.kind == GRADE else "1 (yes), 0 (no) or none (unsure)"
    allowed = allowed if rating.kind in (GRADE, ANSWER) else "1, or 0 (removed)"
    number = isinstance(value, (int, float, np.integer, np.floating, np.bool_))
    if not number or not 0 <= float(value) <= best or (rating.kind != GRADE and float(value) not in (0, 1)):  # type: ignore[arg-type]
        article = "an" if rating.kind[0] in "aeiou" else "a"
        raise ConfigError(
            f"{article} {rating.kind} of {rating.id_str} is out of range", value=value, fix=f"Choose {allowed}."
        )
    return float(value)  # type: ignore[arg-type]


def _id(text: str) -> str:
    """Return an id; only what no database can hold is refused, because a survey may use any characters."""
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST["id_str"] or not _storable(text):
        raise ConfigError("no id of a galaxy", value=repr(text)[:80], fix="Give the id as the survey has it.")
    return text


def _name(what: str, text: str) -> str:
    """Return a label or the name of a person, without the white space around it."""
    meaning = {"label": "label", "by": "name of a person"}[what]
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"an empty {meaning}", value=f"{what}={text!r}", fix=f"Give a {meaning}.")
    name = unicodedata.normalize("NFC", text.strip())
    if len(name) > _LONGEST[what]:
        raise ConfigError(
            f"a {meaning} of {len(name):,} characters", value=f"{name[:40]}…",
            fix=f"Use {_LONGEST[what]} characters at most.",
        )  # fmt: skip
    if visible(name) != name:
        raise ConfigError(
            f"a {meaning} with characters that cannot be shown", value=name[:80], fix="Leave them out."
        )  # fmt: skip
    return name


def _why(text: str) -> str:
    if not isinstance(text, str) or len(text) > _LONGEST["why"] or visible(text) != text:
        raise ConfigError("the reason why a galaxy was shown is not valid", value=repr(text)[:80], fix="Use one word.")
    return text


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def survey_key(source: Search | EmbeddingStore | Iterable[str]) -> str:
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
    if isinstance(source, Search):
        return str(source.about.get("survey_sha256") or survey_key(source.ids))
    if isinstance(source, EmbeddingStore):
        return source.manifest.survey_sha256
    return digest({"ids": sorted(map(str, source))})


def known_ids(source: Search | EmbeddingStore) -> frozenset[str]:
    """Return the ids of the galaxies that can be rated: those of the store, or of the search if it has no store."""
    if isinstance(source, Search):
        try:
            return frozenset(source.store.ids) | frozenset(source.ids)
        except (OSError, ValueError) as problem:
            log.info("only the galaxies of the search itself can be rated: %s", problem)
    return frozenset(source.ids)


def _opened(folder: Path) -> Search | EmbeddingStore:
    """Open the search or the store in a folder."""
    if (folder / MANIFEST_FILE).exists():
        return EmbeddingStore.open(folder)
    try:
        return Search.open(folder)
    except StoreNotFound as problem:
        raise StoreNotFound(
            "neither a finished search nor an embedding store", value=folder, fix="Give the folder of one of them."
        ) from problem


def _order(rating: Rating) -> tuple[datetime, int]:
    """Sort key: the newest rating is the last. Ratings that are imported later may be older."""
    assert rating.at is not None
    assert rating.entry is not None
    return rating.at, rating.entry


def _table(ratings: Sequence[Rating]) -> pa.Table:
    """Return ratings as a LABELS table."""
    schema = pa.schema(list(tables.LABELS.columns.items()))
    columns = [
        pa.array([getattr(rating, field.name) for rating in ratings], field.type) for field in schema
    ]  # fmt: skip
    return tables.check(pa.Table.from_arrays(columns, schema=schema), tables.LABELS)


class _State:
    """The log in memory: entries are numbered from 1 in the order in which they were saved."""

    def __init__(self) -> None:
        self.entries: list[Rating] = []
        self.by_person: dict[str, list[Rating]] = defaultdict(list)
        self.newest: datetime | None = None
        self._by_label: dict[str, dict[tuple[str, str], list[Rating]]] = defaultdict(dict)
        self._raters: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._undoing: list[Rating] = []
        self._undone: set[int] = set()

    @property
    def last(self) -> int:
        """Number of the last entry; 0 if there is none."""
        return len(self.entries)

    def take(self, new: Iterable[Rating]) -> None:
        """Add the entries that follow."""
        before = len(self._undoing)
        for rating in new:
            self.entries.append(rating)
            self.by_person[rating.by].append(rating)
            self.newest = rating.at if self.newest is None or rating.at is None else max(self.newest, rating.at)
            if rating.undoes is not None:
                self._undoing.append(rating)
            else:
                self._by_label[rating.label].setdefault((rating.id_str, rating.by), []).append(rating)
                self._raters[rating.id_str, rating.label].add(rating.by)
        if len(self._undoing) > before:
            # An entry that takes back another one may itself be taken back by a later one.
            self._undone = set()
            for rating in reversed(self._undoing):
                if rating.undoes is not None and rating.entry not in self._undone:
                    self._undone.add(rating.undoes)

    def get(self, entry: int) -> Rating | None:
        """Return an entry by its number; None if there is none."""
        return self.entries[entry - 1] if 1 <= entry <= len(self.entries) else None

    def entries_after(self, entry: int) -> list[Rating]:
        """Return the entries after one."""
        return self.entries[max(entry, 0) :]

    def in_effect(self, rating: Rating) -> bool:
        """Return whether an entry is not taken back."""
        return rating.entry not in self._undone

    def last_of(self, by: str) -> Rating | None:
        """Return the newest rating of a person that is in effect."""
        mine = (rating for rating in self.by_person.get(by, ()) if rating.undoes is None and self.in_effect(rating))
        return max(mine, key=_order, default=None)

    def current(self, label: str | None = None) -> list[Rating]:
        """Return the newest rating in effect of each galaxy, label and person, in the order of the entries."""
        labels = list(self._by_label) if label is None else [label]
        newest = [
            max((rating for rating in ratings if self.in_effect(rating)), key=_order, default=None)
            for name in labels
            for ratings in self._by_label.get(name, {}).values()
        ]
        return sorted((rating for rating in newest if rating is not None), key=lambda rating: rating.entry or 0)

    def raters(self, galaxy: str, label: str) -> set[str]:
        """Return who has rated a galaxy for a label, or called it an artifact."""
        people = set()
        for name in {label, ARTIFACT}:
            for person in self._raters.get((galaxy, name), ()):
                ratings = self._by_label[name][galaxy, person]
                newest = max((rating for rating in ratings if self.in_effect(rating)), key=_order, default=None)
                if newest is not None and (name != ARTIFACT or label == ARTIFACT or newest.value):
                    people.add(person)
        return people


def about(labels: Labels) -> dict[str, Any]:
    """Return what a file of ratings records of its origin."""
    return {"survey_sha256": labels.survey}
