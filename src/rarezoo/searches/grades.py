"""The grade of each class: how strong the evidence for it is. Only the first grade may be called a discovery."""

from collections.abc import Sequence

import pyarrow as pa

from rarezoo import tables
from rarezoo.searches.classes import with_columns
from rarezoo.searches.matching import SAME
from rarezoo.searches.systematics import CLEAN

# From the strongest evidence to the weakest.
STABLE, SIGNIFICANT, CANDIDATE = "significant and stable", "significant", "candidate"
GRADES = (STABLE, SIGNIFICANT, CANDIDATE)
# What the grade of a class means, for a reader who sees the class.
MEANINGS = {
    STABLE: "Null surveys, which have no groups, hardly ever show a group that stands out as much, and the class comes "
    "back when the search is repeated.",
    SIGNIFICANT: "Null surveys, which have no groups, hardly ever show a group that stands out as much, but the class "
    "does not come back when the search is repeated, or this was not measured.",
    CANDIDATE: "A candidate stands apart from other galaxies, but null surveys, which have no groups, show such a "
    "group too often: it may be chance. It says where to look and is no discovery.",
}


def grade(false_discovery: float | None, stability: float | None, *, level: float) -> str | None:
    """Return the grade of a class.

    Parameters
    ----------
    false_discovery : float or None
        Expected share of false classes among those that stand out at least as much, 0 to 1; None if significance was
        not measured.
    stability : float or None
        Mean over repeated searches of the best Jaccard index, 0 to 1; None if it was not measured.
    level : float
        Largest false discovery rate of a significant class (``significance.level``).

    Returns
    -------
    str or None
        ``significant and stable``: null surveys do not show such a group, and it comes back in repeated searches (a
        stability of at least 0.5). ``significant``: it does not come back, or this was not measured. ``candidate``:
        it stands apart, but null surveys show such a group too often. None if significance was not measured.

    Examples
    --------
    >>> grade(0.01, 0.8, level=0.05), grade(0.01, 0.3, level=0.05), grade(0.4, 0.8, level=0.05)
    ('significant and stable', 'significant', 'candidate')
    """
    if false_discovery is None:
        return None
    if false_discovery > level:
        return CANDIDATE
    return STABLE if stability is not None and stability >= SAME else SIGNIFICANT


def graded(classes: pa.Table, *, level: float) -> pa.Table:
    """Return a CLASSES table with the grade of each class, and its place in the order in which to look at them.

    The better grade comes first. Within a grade, classes with a warning, or with a cause in the telescope or the
    catalogue, come last, and the higher significance comes first. Where significance was not measured, the class that
    persists over more densities comes first, and there is no grade.

    Parameters
    ----------
    classes : pyarrow.Table
        CLASSES table, after significance, stability and causes were added to it.
    level : float
        Largest false discovery rate of a significant class.
    """
    rows = classes.to_pylist()
    grades = [grade(row[tables.FALSE_DISCOVERY], row[tables.STABILITY], level=level) for row in rows]

    def place(at: int) -> tuple[int, bool, float, float]:
        row = rows[at]
        number = GRADES.index(grades[at]) if grades[at] in GRADES else len(GRADES)
        doubtful = bool(row[tables.FLAGS]) or row[tables.CAUSE] not in (None, CLEAN)
        return number, doubtful, -(row[tables.SIGNIFICANCE] or 0.0), -(row[tables.PERSISTENCE] or 0.0)

    ranks = dict(zip(sorted(range(len(rows)), key=place), range(1, len(rows) + 1), strict=True))
    return with_columns(classes, {tables.GRADE: grades, tables.RANK: [ranks[at] for at in range(len(rows))]})


def in_order(classes: pa.Table) -> pa.Table:
    """Return a CLASSES table in the order of its ranks, those without a rank last; without any rank it stays as it is.

    >>> in_order(pa.table({"class_id": [0, 1, 2], "rank": [2, None, 1]})).column("class_id").to_pylist()
    [2, 0, 1]
    """
    return classes.sort_by([(tables.RANK, "ascending")])


def renumbered(classes: pa.Table) -> pa.Table:
    """Return a CLASSES table of which rows were dropped or changed, with ranks from 1 on in the same order.

    Classes that have lost their grade come after those with one. Without any rank the table stays as it is.
    """
    rows = classes.to_pylist()
    ranked = [at for at, row in enumerate(rows) if row[tables.RANK] is not None]
    ranked.sort(key=lambda at: (rows[at][tables.GRADE] is None, rows[at][tables.RANK]))
    ranks: list[int | None] = [None] * len(rows)
    for rank, at in enumerate(ranked, start=1):
        ranks[at] = rank
    return with_columns(classes, {tables.RANK: ranks})


def counts(grades: Sequence[str | None]) -> dict[str, int]:
    """Return the number of classes of each grade; empty if no class has one.

    >>> counts([STABLE, CANDIDATE, None, CANDIDATE]), counts([None])
    ({'significant and stable': 1, 'significant': 0, 'candidate': 2}, {})
    """
    known = [grade for grade in grades if grade is not None]
    return {name: known.count(name) for name in GRADES} if known else {}


def counted(grades: Sequence[str | None]) -> str:
    """Return how many classes have each grade, in words.

    >>> counted([STABLE, CANDIDATE, CANDIDATE]), counted([None, None]), counted([])
    ('1 significant and stable class, 2 candidates', '2 classes', 'no class')
    """
    names = {
        STABLE: ("significant and stable class", "significant and stable classes"),
        SIGNIFICANT: ("significant class", "significant classes"),
        CANDIDATE: ("candidate", "candidates"),
        None: ("class", "classes"),
    }
    counts = {name: list(grades).count(name) for name in names}
    texts = [f"{number:,} {names[name][number > 1]}" for name, number in counts.items() if number]
    return ", ".join(texts) or "no class"
