"""The log of ratings in memory: what holds now follows from all entries, one after the other."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from rarezoo.explore.rating import ARTIFACT, Rating


class State:
    """The log as far as it was read, and what holds after it.

    Attributes
    ----------
    entries
        Every entry by its number, in the order of the numbers.
    by_person
        Entries of each person.
    newest
        Latest time of an entry; None if there is none.
    last
        Number of the last entry; 0 if there is none.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> at, state = datetime(2026, 11, 29, tzinfo=UTC), State()
    >>> state.take([Rating("J1", "ring", 1.0, "answer", "ann", at, entry=1)])
    >>> state.take([Rating("J1", "ring", None, "answer", "ann", at, entry=2, undoes=1)])
    >>> state.current("ring")
    []
    """

    def __init__(self) -> None:
        self.entries: dict[int, Rating] = {}
        self.by_person: dict[str, list[Rating]] = defaultdict(list)
        self.newest: datetime | None = None
        self.last = 0
        # By label: every rating of a galaxy by a person, and the newest of them that is in effect.
        self._ratings: dict[str, dict[tuple[str, str], list[Rating]]] = defaultdict(dict)
        self._current: dict[str, dict[tuple[str, str], Rating]] = defaultdict(dict)
        self._raters: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._undoing: list[Rating] = []
        self._undone: set[int] = set()

    def take(self, new: Iterable[Rating]) -> None:
        """Add the entries that follow."""
        undoing = len(self._undoing)
        for rating in new:
            at, self.last = rating.order
            self.entries[self.last] = rating
            self.by_person[rating.by].append(rating)
            self.newest = at if self.newest is None else max(self.newest, at)
            if rating.undoes is not None:
                self._undoing.append(rating)
                continue
            key, current = (rating.id_str, rating.by), self._current[rating.label]
            self._ratings[rating.label].setdefault(key, []).append(rating)
            if key not in current or current[key].order < rating.order:
                current[key] = rating
            self._raters[rating.id_str, rating.label].add(rating.by)
        if len(self._undoing) > undoing:
            self._take_back()

    def in_effect(self, rating: Rating) -> bool:
        """Return whether an entry is not taken back."""
        return rating.entry not in self._undone

    def last_of(self, by: str) -> Rating | None:
        """Return the newest rating of a person that is in effect."""
        return self._newest(rating for rating in self.by_person.get(by, ()) if rating.undoes is None)

    def current(self, label: str | None = None) -> list[Rating]:
        """Return the newest rating in effect of each galaxy, label and person, in the order of the entries."""
        labels = list(self._current) if label is None else [label]
        newest = [rating for name in labels for rating in self._current.get(name, {}).values()]
        return sorted(newest, key=lambda rating: rating.entry or 0)

    def raters(self, galaxy: str, label: str) -> set[str]:
        """Return who has rated a galaxy for a label, or called it an artifact."""
        rated = {by for by in self._raters.get((galaxy, label), ()) if (galaxy, by) in self._current[label]}
        artifacts = self._current[ARTIFACT]
        said = (artifacts.get((galaxy, by)) for by in self._raters.get((galaxy, ARTIFACT), ()))
        return rated | {rating.by for rating in said if rating is not None and rating.value}

    def _take_back(self) -> None:
        """Find again which entries are not in effect; one that takes back another one may itself be taken back."""
        undone: set[int] = set()
        for rating in reversed(self._undoing):
            if rating.undoes is not None and rating.entry not in undone:
                undone.add(rating.undoes)
        changed, self._undone = undone ^ self._undone, undone
        for rating in (self.entries[entry] for entry in changed if entry in self.entries):
            if rating.undoes is None:
                key, current = (rating.id_str, rating.by), self._current[rating.label]
                newest = self._newest(self._ratings[rating.label][key])
                if newest is None:
                    current.pop(key, None)
                else:
                    current[key] = newest

    def _newest(self, ratings: Iterable[Rating]) -> Rating | None:
        """Return the newest of some ratings that is in effect."""
        effective = (rating for rating in ratings if self.in_effect(rating))
        return max(effective, key=lambda rating: rating.order, default=None)
