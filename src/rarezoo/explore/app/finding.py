"""What the search box and the button "more like this" find."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rarezoo import tables
from rarezoo.data.expressions import evaluate
from rarezoo.errors import ConfigError
from rarezoo.explore.app.galaxies import ShownGalaxies
from rarezoo.explore.labels import Labels
from rarezoo.explore.places import Position, distance_text, nearest, read_position
from rarezoo.explore.pool import Pool
from rarezoo.explore.scores import Scores
from rarezoo.explore.similar import Query, SimilarGalaxies, ranked, similar
from rarezoo.explore.words import tree_of, understand

# Largest distance between a position and the galaxy that is meant, arcsec: one arcminute, as in the atlas.
REACH = 60.0
# Mean of what people said about a tag above which a galaxy is an example, and below which it is a counter-example.
_UNDECIDED = 0.5


class Finder:
    """Finds galaxies by id, tag, position, words, or likeness.

    Parameters
    ----------
    galaxies
        The galaxies.
    labels
        The ratings, for tags.
    """

    def __init__(self, galaxies: ShownGalaxies, labels: Labels) -> None:
        self.galaxies, self.labels = galaxies, labels
        self.pool = Pool.of(galaxies.source)

    def prepare(self) -> None:
        """Make the index of neighbours and read the positions, which takes long in a large survey."""
        _ = self.pool.inside, self.pool.positions

    def similar(self, ids: Sequence[str], *, against: Sequence[str] = (), k: int) -> dict[str, Any]:
        """Return the galaxies most like some and unlike others, and in words what was left out.

        Raises
        ------
        ConfigError
            A galaxy is an example and a counter-example, or there is no other galaxy.
        """
        k = min(k, max(int(self.pool.inside.sum()) - len(set(ids) | set(against)), 1))
        return _answer(similar(self.pool, list(ids), k, against=list(against)))

    def words(self, text: str, *, k: int) -> dict[str, Any]:
        """Return the galaxies whose predicted answers fit words best, and in words how they were understood.

        Raises
        ------
        ConfigError
            No word was understood, or the store predicts no answers.
        """
        answers = self.pool.answers
        if not answers:
            raise ConfigError(
                "words need predicted answers, and this store has none", value=text, fix="Search by id or position."
            )
        meant = understand(text, answers, tree=tree_of(self.galaxies.store))
        values = np.asarray(
            evaluate(meant.expression, self.pool.table_for(meant.expression, called="words")), np.float64
        )
        none = np.empty(0, dtype=np.int64)
        found = ranked(
            self.pool, Query(rows=none), min(k, int(self.pool.inside.sum())), scores=Scores(values, meant.expression)
        )
        return {**_answer(found), "message": " ".join(meant.lines())}

    def find(self, text: str, *, k: int) -> dict[str, Any]:
        """Return what a text means: an id, else a tag, else a position or a link to one, else words.

        Returns
        -------
        dict
            ``galaxies``, a ``title`` for the list, ``why`` they are in it, and a ``message``.

        Raises
        ------
        ConfigError
            It means nothing; the message says what would.
        """
        wanted = text.strip()
        if not wanted:
            raise ConfigError("nothing was typed", value="q=", fix="Type an id, a position, a tag, or words.")
        if wanted in self.galaxies.rows:
            return _list([{tables.ID: wanted}], f"Galaxy {wanted}", "search")
        if wanted in self.labels.tags():
            return self._tagged(wanted, k=k)
        place = read_position(wanted)
        if place is not None:
            return self._at(place)
        begins = [galaxy for galaxy in self.galaxies.rows if galaxy.startswith(wanted)][:k]
        if begins:
            return _list([{tables.ID: galaxy} for galaxy in begins], f"Ids that begin with {wanted}", "search")
        found = self.words(wanted, k=k)
        return _list(found["galaxies"], f"Most like “{wanted}”", "words", found["message"])

    def _tagged(self, tag: str, *, k: int) -> dict[str, Any]:
        """Return the galaxies with a tag, then those most like them and unlike those that are known not to have it."""
        interest = self.labels.interest(tag)
        examples = [galaxy for galaxy, value in interest.items() if value > _UNDECIDED]
        against = [galaxy for galaxy, value in interest.items() if value < _UNDECIDED]
        found = self.similar(examples, against=against, k=k)
        shown = [*({tables.ID: galaxy} for galaxy in examples), *found["galaxies"]]
        return _list(shown, f"Tagged {tag}, then those most like them", "similar", found["message"])

    def _at(self, place: Position) -> dict[str, Any]:
        if self.pool.positions is None:
            raise ConfigError("no position of a galaxy is known", value=str(place), fix="Search by id, or by words.")
        ra, dec = self.pool.positions
        row, distance = nearest(place, ra, dec, ids=self.pool.ids.to_pylist(), radius=REACH)
        galaxy = self.pool.names(np.array([row]))[0]
        message = f"{galaxy} is {distance_text(distance)} from {place}."
        return _list([{tables.ID: galaxy, tables.SKY_DISTANCE: distance}], f"Galaxy at {place}", "search", message)


def _list(galaxies: list[dict[str, Any]], title: str, why: str, message: str = "") -> dict[str, Any]:
    return {"galaxies": tables.plain(galaxies), "title": title, "why": why, "message": message}


def _answer(found: SimilarGalaxies) -> dict[str, Any]:
    about = found.about
    left_out = {
        f"within {about['apart_arcsec'] or 0:.0f} arcsec": about["left_out"]["within_apart"],
        "with the same picture": about["left_out"]["near_identical"],
    }
    parts = [f"{count} {reason}" for reason, count in left_out.items() if count]
    message = f"Left out: {', '.join(parts)}." if parts else ""
    galaxies = [
        {tables.ID: galaxy, tables.SCORE: float(score)} for galaxy, score in zip(found.ids, found.scores, strict=True)
    ]
    return {"galaxies": tables.plain(galaxies), "message": message, "about": tables.plain(about)}
