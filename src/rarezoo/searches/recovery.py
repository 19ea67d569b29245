"""Compare the classes of a search of a mock survey with the populations that were planted in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.searches.grades import CANDIDATE
from rarezoo.statistics import COMPLETENESS as MOST_OF_POPULATION
from rarezoo.statistics import PURITY as MOST_OF_CLASS
from rarezoo.statistics import Recovery

ORDINARY = "ordinary"
BEST_CLASS, PURITY, COMPLETENESS, FOUND = "best_class", "purity", "completeness", "found"
SHOWN, MIXED_WITH = "shown", "mixed_with"
_SCHEMA = pa.schema(
    {
        tables.POPULATION: pa.string(),
        tables.SIZE: pa.int64(),
        BEST_CLASS: pa.int32(),
        tables.GRADE: pa.string(),
        PURITY: pa.float64(),
        COMPLETENESS: pa.float64(),
        MIXED_WITH: pa.string(),
        FOUND: pa.bool_(),
        SHOWN: pa.bool_(),
    }
)
_NUMBERS = ("None", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


def recovery(members: pa.Table, truth: pa.Table, classes: pa.Table | None = None) -> pa.Table:
    """Find the class that contains most of each planted population.

    Parameters
    ----------
    members
        MEMBERS table.
    truth
        TRUTH table; galaxies that were not searched are ignored.
    classes
        CLASSES table, which says which classes are only candidates; None: none of them is.

    Returns
    -------
    pyarrow.Table
        One row per planted population: ``population``, ``size`` among the galaxies searched, ``best_class`` (of any
        grade; −1 for none), its ``grade`` (null: none), ``purity`` and ``completeness`` (0–1), ``mixed_with`` (the
        most frequent other population in that class; null: none), ``found`` (by a class that is no candidate), and
        ``shown`` (by a class of any grade); for when a class finds a population see
        :class:`rarezoo.statistics.Recovery`.

    Raises
    ------
    StoreError
        A galaxy is missing from the truth.

    Examples
    --------
    >>> ids = ["a", "b", "c", "d"]
    >>> members = pa.table({"id_str": ids, "class_id": [0, 0, -1, -1]})
    >>> truth = pa.table({"id_str": ids, "population": ["ring", "ring", "ring", "ordinary"]})
    >>> recovery(members, truth).select(["population", "best_class", "found"]).to_pylist()
    [{'population': 'ring', 'best_class': 0, 'found': True}]
    >>> classes = pa.table({"class_id": [0], "grade": ["candidate"]})
    >>> recovery(members, truth, classes).select(["best_class", "grade", "found", "shown"]).to_pylist()
    [{'best_class': 0, 'grade': 'candidate', 'found': False, 'shown': True}]
    """
    populations = tables.strings(tables.aligned(truth, members[tables.ID], source="the truth"), tables.POPULATION)
    labels = members[tables.CLASS_ID].to_numpy()
    grades: dict[int, str | None] = {}
    if classes is not None:
        grades = dict(zip(*(classes[name].to_pylist() for name in (tables.CLASS_ID, tables.GRADE)), strict=True))
    planted = sorted(set(truth[tables.POPULATION].to_pylist()) - {ORDINARY})
    known, members_of = np.unique(labels[labels != tables.NO_CLASS], return_counts=True)
    sizes = np.array([np.sum(populations == name) for name in planted], dtype=np.int64)
    counts = np.zeros((len(planted), len(known)), dtype=np.int64)
    for place, name in enumerate(planted):
        inside = labels[(populations == name) & (labels != tables.NO_CLASS)]
        counts[place] = np.bincount(np.searchsorted(known, inside), minlength=len(known))
    # At most one class can find a population, and it is the one that holds most of it.
    shown = Recovery.of(counts, populations=sizes, classes=members_of).found
    rows = []
    for place, name in enumerate(planted):
        row = {
            tables.POPULATION: name, tables.SIZE: int(sizes[place]), BEST_CLASS: tables.NO_CLASS,
            PURITY: 0.0, COMPLETENESS: 0.0, FOUND: False, SHOWN: bool(shown[place]),
        }  # fmt: skip
        if counts[place].any():
            best = int(counts[place].argmax())
            class_id, shared = int(known[best]), counts[place, best]
            others = Counter(populations[(labels == class_id) & (populations != name)].tolist())
            row |= {
                BEST_CLASS: class_id,
                tables.GRADE: grades.get(class_id),
                PURITY: float(shared / members_of[best]),
                COMPLETENESS: float(shared / sizes[place]),
                MIXED_WITH: min(others, key=lambda other: (-others[other], other), default=None),
                FOUND: bool(shown[place]) and grades.get(class_id) != CANDIDATE,
            }
        rows.append(row)
    return pa.Table.from_pylist(rows, _SCHEMA)


def recovery_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say in two sentences which planted populations were found, and why the others were missed.

    The reason is what was measured, the first of these that holds::

        no galaxy of it was searched
        shown, but not found                 its class is only a candidate
        no class has a galaxy of it
        more than half of it is in a class   that class mixes it with others
        more than half of a class is of it   that class holds too little of it
        otherwise                            no class holds more than half of it

    Parameters
    ----------
    rows
        Rows of :func:`recovery`.

    Examples
    --------
    >>> ring = {"population": "ring", "size": 9, "best_class": 0, "grade": "significant", "purity": 1.0,
    ...         "completeness": 0.8, "mixed_with": None, "found": True, "shown": True}
    >>> lane = {**ring, "population": "dust_lane", "grade": "candidate", "found": False}
    >>> text = recovery_text([ring, lane])
    >>> text.split(": ", 1)[1]
    'ring. One was missed: dust lane is listed as a candidate, because null surveys show such groups too often.'
    """
    found = [_words(row[tables.POPULATION]) for row in rows if row[FOUND]]
    missed = [row for row in rows if not row[FOUND]]
    sentence = f"{len(found)} of {len(rows)} planted populations were found{': ' if found else ''}{_joined(found)}."
    if not missed:
        return sentence
    by_reason: dict[tuple[str, str], list[str]] = {}
    for row in missed:
        by_reason.setdefault(_reason(row), []).append(_words(row[tables.POPULATION]))
    reasons = [(one if len(names) == 1 else many).format(_joined(names)) for (one, many), names in by_reason.items()]
    number = _NUMBERS[len(missed)] if len(missed) < len(_NUMBERS) else str(len(missed))
    return f"{sentence} {number} {'was' if len(missed) == 1 else 'were'} missed: {'; '.join(reasons)}."


def _reason(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return why a population was missed, for one population and for several with the same reason."""
    if not row[tables.SIZE]:
        return "no galaxy of {} was searched", "no galaxies of {} were searched"
    if row[SHOWN]:
        why = "because null surveys show such groups too often"
        return f"{{}} is listed as a candidate, {why}", f"{{}} are listed as candidates, {why}"
    if row[BEST_CLASS] == tables.NO_CLASS:
        return "no class has a galaxy of {}", "no class has galaxies of {}"
    if row[COMPLETENESS] > MOST_OF_POPULATION:
        other = "ordinary galaxies" if row[MIXED_WITH] == ORDINARY else _escaped(_words(row[MIXED_WITH]))
        text = f"class {row[BEST_CLASS]} mixes {{}} with {other}"
        return text, text
    if row[PURITY] > MOST_OF_CLASS:
        text = f"class {row[BEST_CLASS]} consists mostly of {{}}, but holds only {row[COMPLETENESS]:.0%} of it"
        return text, text
    start = "the search does not separate {} from other galaxies: no class holds more than half of"
    return f"{start} it", f"{start} any of them"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _joined(names: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])
