"""The grade of each class: how strong the evidence for it is. Only the first grade may be called a discovery."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32, Float64, Int

from rarezoo import tables
from rarezoo.searches.classes import with_columns
from rarezoo.searches.matching import SAME
from rarezoo.searches.systematics import CLEAN

# From the strongest evidence to the weakest.
STABLE, SIGNIFICANT, CANDIDATE = "significant and stable", "significant", "candidate"
GRADES = (STABLE, SIGNIFICANT, CANDIDATE)
# What the grade of a class means, for a reader who sees the class.
MEANINGS = {
    STABLE: "Null surveys, in which nothing is hidden, hardly ever show a group that stands out as much, and the class "
    "comes back when the search is repeated.",
    SIGNIFICANT: "Null surveys, in which nothing is hidden, hardly ever show a group that stands out as much, but the "
    "class does not come back when the search is repeated, or this was not measured.",
    CANDIDATE: "A candidate stands apart from other galaxies, but null surveys, in which nothing is hidden, show such "
    "a group too often: it may be chance. It says where to look and is no discovery.",
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


def graded(classes: pa.Table, *, level: float, directions: Float[np.ndarray, "classes d"] | None = None) -> pa.Table:
    """Return a CLASSES table with the grade of each class, and its place in the order in which to look at them.

    The better grade comes first. Within a grade, classes with a warning, or with a cause in the telescope or the
    catalogue, come last. Of the others the next is always the one from which a reader gains most
    (:func:`looking_order`). Where significance was not measured, the class that persists over more densities comes
    first, and there is no grade.

    Parameters
    ----------
    classes : pyarrow.Table
        CLASSES table, after significance, stability and causes were added to it.
    level : float
        Largest false discovery rate of a significant class.
    directions : (classes, d) array of floats, optional
        See :func:`class_directions`; without them the higher significance comes first.
    """
    rows = classes.to_pylist()
    grades = [grade(row[tables.FALSE_DISCOVERY], row[tables.STABILITY], level=level) for row in rows]
    doubtful = [bool(row[tables.FLAGS]) or row[tables.CAUSE] not in (None, CLEAN) for row in rows]
    places = [GRADES.index(name) if name in GRADES else len(GRADES) for name in grades]
    sections = [(place, doubt) for place, doubt in zip(places, doubtful, strict=True)]
    if any(row[tables.SIGNIFICANCE] is not None for row in rows):
        scores = np.array([row[tables.SIGNIFICANCE] or 0.0 for row in rows])
        order = looking_order(sections, scores, directions)
    else:
        order = sorted(range(len(rows)), key=lambda at: (sections[at], -(rows[at][tables.PERSISTENCE] or 0.0)))
    ranks = dict(zip(order, range(1, len(rows) + 1), strict=True))
    return with_columns(classes, {tables.GRADE: grades, tables.RANK: [ranks[at] for at in range(len(rows))]})


def looking_order(
    sections: Sequence[Any], scores: Float[np.ndarray, " c"], directions: Float[np.ndarray, "c d"] | None = None
) -> list[int]:
    """Return the order in which a reader should look at classes: those with evidence, and unlike what came before.

    The gain of a class is its score above the lowest of all scores, times how different it is from the most similar
    class before it: 1 − cosine, and 1 if the cosine is negative (maximal marginal relevance, Carbonell & Goldstein
    1998). The class of the largest gain comes next.

    Parameters
    ----------
    sections : sequence of c comparable values
        Classes of a lower section come before all others, whatever their gain.
    scores : (c,) array of floats
    directions : (c, d) array of floats, optional
        Unit vectors; without them the highest score comes first.

    Examples
    --------
    The second class has nearly the direction of the first, so the third comes before it:

    >>> looking_order([0, 0, 0, 1], np.array([9.0, 8.0, 5.0, 1.0]), np.array([[1, 0], [1, 0.1], [0, 1], [0, 1]]))
    [0, 2, 1, 3]
    >>> looking_order([0, 0, 0, 1], np.array([9.0, 8.0, 5.0, 10.0]))
    [0, 1, 2, 3]
    """
    evidence = scores - scores.min(initial=np.inf)
    different = np.ones(len(scores))
    order: list[int] = []
    left = set(range(len(scores)))
    while left:
        section = min(sections[at] for at in left)
        inside = sorted(at for at in left if sections[at] == section)
        # Of equal gains the higher score comes first, then the lower number.
        best = max(inside, key=lambda at: (evidence[at] * different[at], evidence[at], -at))
        order.append(best)
        left.remove(best)
        if directions is not None:
            different = np.minimum(different, 1 - np.clip(directions @ directions[best], 0, 1))
    return order


def class_directions(
    features: Float32[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], *, classes: int
) -> Float64[np.ndarray, "classes d"]:
    """Return the direction from the mean galaxy to the mean member of each class, as unit vectors.

    Parameters
    ----------
    features : (n, d) array of floats
        What was compressed to the map.
    labels : (n,) array of integers
        Class of each galaxy, −1 for none.
    classes : int
        Number of classes.
    """
    centre = features.mean(axis=0, dtype=np.float64)
    means = [features[labels == number].mean(axis=0, dtype=np.float64) - centre for number in range(classes)]
    directions = np.array(means).reshape(classes, features.shape[1])
    return directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)


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
