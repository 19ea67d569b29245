"""The classes of a search on the page: their cards, and the decisions of readers about them."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.errors import ConfigError, OutputError
from rarezoo.report.pages import class_cards
from rarezoo.searches import grades
from rarezoo.searches.decisions import Decision, Decisions, decision_of, search_key
from rarezoo.searches.result import Search

FILE = "decisions.json"
# Longest name of a class, as in the atlas.
_LONGEST_NAME = 60
# Seconds to wait for another server that writes the same file.
_PATIENCE = 10.0
_LISTED = (
    tables.CLASS_ID, tables.SIZE, tables.FRACTION, tables.GRADE, tables.RANK, tables.SIGNIFICANCE, tables.STABILITY,
    tables.CAUSE, tables.TOP_ANSWERS, tables.FLAGS,
)  # fmt: skip
# Exemplars in the list of classes.
_SHOWN = 8


class ShownClasses:
    """The classes of a search.

    Decisions are kept in a file that ``rarezoo classes apply`` reads. It is written as a whole after every decision,
    and several servers may write it.

    Parameters
    ----------
    search
        The search.
    survey
        Its survey, for the tests against the catalogue; None without.
    file
        The file of decisions; None: ``decisions.json`` in the folder of the search.
    """

    def __init__(self, search: Search, *, survey: Galaxies | None, file: Path | None = None) -> None:
        self.search, self.survey = search, survey
        self.file = search.folder / FILE if file is None else file
        self.key = search_key(search.ids, search.labels)
        self._making = Lock()

    @cached_property
    def _rows(self) -> Mapping[int, Mapping[str, Any]]:
        return {row[tables.CLASS_ID]: row for row in self.search.table("classes").to_pylist()}

    def listed(self) -> list[dict[str, Any]]:
        """Return one entry per class, by rank, each with its decision."""
        decisions = {item.class_id: item for item in self.decisions().items}
        last = len(self._rows) + 1
        rows = sorted(self._rows.values(), key=lambda row: (row.get(tables.RANK) or last, row[tables.CLASS_ID]))
        return [
            {
                **{name: row.get(name) for name in _LISTED}, "name": row.get(tables.NAME) or "",
                "meaning": grades.MEANINGS.get(row.get(tables.GRADE) or "", ""),
                "exemplars": list(row[tables.EXEMPLARS] or ())[:_SHOWN],
                "decision": asdict(decisions.get(row[tables.CLASS_ID], Decision(row[tables.CLASS_ID]))),
            }
            for row in rows
        ]  # fmt: skip

    def card(self, class_id: int) -> dict[str, Any]:
        """Return the card of a class, as the atlas shows it, and its decision.

        Raises
        ------
        KeyError
            There is no such class.
        """
        self._rows[class_id]
        with self._making:
            card = self._cards[class_id]
        decisions = {item.class_id: item for item in self.decisions().items}
        return {**card, "decision": asdict(decisions.get(class_id, Decision(class_id)))}

    @cached_property
    def _cards(self) -> Mapping[int, Mapping[str, Any]]:
        return class_cards(self.search, survey=self.survey)

    @property
    def title(self) -> str:
        """Title of the search."""
        return str(self.search.about.get("title") or "")

    @cached_property
    def sizes(self) -> dict[int, int]:
        """Number of members by class."""
        return {class_id: int(row[tables.SIZE]) for class_id, row in self._rows.items()}

    def decisions(self) -> Decisions:
        """Return all decisions so far.

        Raises
        ------
        ConfigError
            The file holds something else, or decisions about another search.
        """
        if not self.file.exists():
            return Decisions(self.key, ())
        decisions = Decisions.read(self.file)
        decisions.require_search(self.key)
        return decisions

    def content(self, decisions: Decisions) -> dict[str, Any]:
        """Return decisions as a file holds them."""
        return decisions.content(title=self.title, sizes=self.sizes)

    def decide(self, change: Mapping[str, Any]) -> Decision:
        """Keep a decision about one class, in place of the one before it; when this returns, it is on disk.

        Parameters
        ----------
        change
            ``class_id``, and ``decision`` (keep, drop, merge or empty), ``name`` and ``merge_into`` as far as given.

        Raises
        ------
        ConfigError
            It is no decision, or it merges classes in a circle.
        OutputError
            The file cannot be written.
        """
        item = decision_of(change, source="the decision")
        if len(item.name) > _LONGEST_NAME:
            raise ConfigError(
                "the name of a class is too long", value=f"{len(item.name)} characters",
                fix=f"Use at most {_LONGEST_NAME}.",
            )  # fmt: skip
        try:
            with FileLock(f"{self.file}.lock", timeout=_PATIENCE):
                others = [known for known in self.decisions().items if known.class_id != item.class_id]
                kept = [*others, item] if item != Decision(item.class_id) else others
                decisions = Decisions(self.key, tuple(sorted(kept, key=lambda known: known.class_id)))
                decisions.targets(list(self._rows))
                tables.write_json(self.content(decisions), self.file)
        except OSError as problem:
            raise OutputError(
                f"decisions cannot be kept ({problem})", value=self.file,
                fix="Make the folder writable, or name another file: decisions=FILE.",
            ) from problem  # fmt: skip
        return item
