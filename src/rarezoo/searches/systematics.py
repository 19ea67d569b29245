"""Test whether a class is caused by the sky, the telescope, the detector or the source finder instead of by galaxies.

Every class is tested against every column of the catalogue, for an excess of predicted artifacts, and for other
catalogue entries so close to its members that they may be pieces of one galaxy. The p-values of all classes and tests
are corrected together (Benjamini & Hochberg 1995). In a large sample every difference is significant, so a class is
flagged only if the effect is large too::

    flagged = q < 0.05 and effect is large, where large is
        numbers         rank-biserial correlation at least 0.42
        categories      at least 0.31 of the members would have to change category, beyond chance
        artifacts       mean predicted fraction at least 0.30, or a large shift with a mean 0.10 above the sample's
        neighbours      share of members with a close neighbour at least 0.20 above that of the other galaxies

Shape letters: n galaxies, a answers, k categories.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Float64, Int, Int64

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.settings import Settings, setting

SYSTEMATICS, ARTIFACT, SHREDDED, CLEAN = "systematics", "artifact", "shredded", "clean"
SIGNIFICANT = 0.05
# Rank-biserial correlation from which an effect counts as large: A = 0.71 (Vargha & Delaney 2000), Cohen's d = 0.8.
LARGE_SHIFT = 0.42
# Two normal distributions with d = 0.8 share all but this part of their area.
LARGE_EXCESS = 0.31
# Walmsley & Scaife (2023) drop galaxies with a predicted artifact fraction of 0.30 or more.
ARTIFACT_FRACTION = 0.30
# A class can contain many artifacts although volunteers rarely say so. Its mean must then exceed the sample's by this.
_ARTIFACT_EXCESS = 0.10
# Difference in the share of galaxies with another entry nearby from which a class counts as pieces of galaxies.
LARGE_SHARE = 0.2
_SMALLEST_SHOWN = 1e-20
_DECLINATION, _STRIPS = "declination", 20
_NEIGHBOURS = "neighbours"
# A column with fewer galaxies per value is an id and no category; rarer categories are counted as one.
_FEWEST_PER_CATEGORY = 5
_FEWEST_KNOWN = 0.5
_NEVER = frozenset({tables.ID, tables.IMAGE, tables.SPLIT, tables.RA, tables.DEC})
# The challenge's columns of Galaxy Zoo 2 votes: Class1.1 … Class11.6, and the coarse classes class5 and c5.
_VOTE = re.compile(r"(class\d+(\.\d+)?|c5)$", re.IGNORECASE)
_ARTIFACT_COLUMN = re.compile(r"arti?e?fact", re.IGNORECASE)
# The first question asks for artifacts; the answers of later questions about them are shares among artifacts.
_ARTIFACT_ANSWER = re.compile(r"smooth-or-featured.*_.*(artifact|problem)", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnTest:
    """Test of one class against one column.

    Attributes
    ----------
    class_id
        Id of the class.
    column
        Name of the column.
    kind
        Flag that the test can raise.
    effect
        Size of the effect. For numbers the rank-biserial correlation, −1 to 1; for categories the share of members that
        would have to change category to be like the sample, beyond chance; for a share of members, its excess.
    large
        Whether the effect counts as large.
    p
        p-value of the class being a random draw from the sample.
    words
        The difference in words and numbers.
    q
        p, corrected for all tests of all classes.
    """

    class_id: int
    column: str
    kind: str
    effect: float
    large: bool
    p: float
    words: str
    q: float = 1.0

    @property
    def raised(self) -> bool:
        """Whether the test flags the class."""
        return self.large and self.q < SIGNIFICANT

    def __str__(self) -> str:
        q = f"= {self.q:.0e}" if self.q > _SMALLEST_SHOWN else f"< {_SMALLEST_SHOWN:.0e}"
        return f"{self.column}: {self.words}, q {q}"


@dataclass(frozen=True)
class Cause:
    """Flag of a class and the tests behind it.

    Attributes
    ----------
    flag
        shredded, artifact, systematics or clean; None if nothing could be tested.
    reason
        The tests that raised the flag, in words; None if nothing could be tested.
    tests
        Every test of the class.
    """

    flag: str | None
    reason: str | None
    tests: tuple[ColumnTest, ...] = ()


@dataclass
class Systematics(Settings):
    """Causes other than galaxies that classes are tested for.

    Examples
    --------
    >>> catalogue = pa.table({"psf": [1.1, 1.3, 0.9, 1.2], "name": ["a", "b", "c", "d"]})
    >>> Systematics().tested(catalogue)
    ['psf']
    """

    prefix: ClassVar[str] = "systematics"

    columns: list[str] = setting(
        [], "catalogue columns that may explain a class; empty: all but ids, positions and votes"
    )
    radius: float = setting(
        20.0, "distance up to which catalogue entries may be pieces of one galaxy", unit="arcsec", gt=0
    )

    def tested(self, catalogue: pa.Table | None, *, votes: Sequence[str] = ()) -> list[str]:
        """Return the columns to test: the named ones, or all that vary except ids, images, positions and votes.

        Parameters
        ----------
        catalogue
            CATALOGUE table; None without a survey.
        votes
            Beginnings of the names of columns that hold votes.

        Raises
        ------
        ConfigError
            A named column does not exist or cannot be tested.
        """
        if catalogue is None:
            if self.columns:
                raise ConfigError(
                    "systematics.columns need a catalogue", value=self.columns, fix="Leave out images=false."
                )
            return []

        def is_free(name: str) -> bool:
            voted = tables.is_fraction_column(name) or bool(_VOTE.match(name)) or name.startswith(tuple(votes))
            return name not in _NEVER and not voted

        testable = [
            name for name in catalogue.column_names if is_free(name) and column_kind(catalogue.column(name)) is not None
        ]
        for name in self.columns:
            if name not in catalogue.column_names:
                fix = f"Choose among {', '.join(testable)}." if testable else "No column of it can be tested."
                raise ConfigError("systematics.columns: the catalogue has no such column", value=name, fix=fix)
            if column_kind(catalogue.column(name)) is None:
                raise ConfigError(
                    "systematics.columns: this column cannot be tested",
                    value=name,
                    fix="Name numbers or repeated categories that vary and are known for half of the galaxies.",
                )
        return list(self.columns) or testable

    def causes(
        self,
        labels: Int[np.ndarray, " n"],
        *,
        classes: int,
        catalogue: pa.Table | None = None,
        rows: Int64[np.ndarray, " n"] | None = None,
        columns: Sequence[str] = (),
        predictions: pa.Table | None = None,
    ) -> list[Cause]:
        """Test every class.

        Parameters
        ----------
        labels
            (n,) class of each galaxy, −1 for none.
        classes
            Number of classes.
        catalogue
            CATALOGUE table of the whole survey; None without one.
        rows
            (n,) rows of the galaxies in the catalogue; None if they are all of it, in its order.
        columns
            Columns to test, see :meth:`tested`.
        predictions
            Table of the galaxies with the predicted fraction columns.

        Returns
        -------
        list of Cause
            One per class. Its flag is the most specific one that any of its tests raises.
        """
        from scipy.stats import false_discovery_control

        tests = list(_predicted_artifacts(labels, classes, predictions))
        if catalogue is not None:
            rows = np.arange(len(labels)) if rows is None else rows
            own = catalogue.take(pa.array(rows))
            for name in columns:
                tests += _column_tests(labels, classes, name, own.column(name))
            tests += _position_tests(labels, classes, catalogue, rows, self.radius)
        if not tests:
            return [Cause(None, None)] * classes
        qs = false_discovery_control(np.clip([test.p for test in tests], 0, 1))
        corrected = [replace(test, q=float(q)) for test, q in zip(tests, qs, strict=True)]
        return [_cause([test for test in corrected if test.class_id == class_id]) for class_id in range(classes)]


def _cause(tests: Sequence[ColumnTest]) -> Cause:
    if not tests:
        return Cause(None, None)
    order = (SHREDDED, ARTIFACT, SYSTEMATICS)
    raised = sorted(
        (test for test in tests if test.raised), key=lambda test: (order.index(test.kind), -abs(test.effect))
    )
    if raised:
        return Cause(raised[0].kind, "; ".join(map(str, raised)), tuple(tests))
    return Cause(CLEAN, f"no large effect in {', '.join(test.column for test in tests)}", tuple(tests))


def column_kind(column: pa.ChunkedArray) -> str | None:
    """Return ``number``, ``category``, or None for a column that cannot be tested."""
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type):
        return None
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    distinct, known = pc.count_distinct(column).as_py(), len(column) - column.null_count
    if distinct < 2 or known < _FEWEST_KNOWN * len(column):
        return None
    if pa.types.is_floating(column.type):
        return "number" if np.isfinite(_numbers(column)).mean() >= _FEWEST_KNOWN else None
    repeated = known >= _FEWEST_PER_CATEGORY * distinct
    if pa.types.is_integer(column.type):
        # Whole numbers of which none is repeated are ids.
        return "category" if repeated else "number" if distinct < known else None
    texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    named = texts or pa.types.is_boolean(column.type)
    return "category" if named and repeated else None


def _numbers(column: pa.ChunkedArray) -> Float64[np.ndarray, " n"]:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _column_tests(labels: np.ndarray, classes: int, name: str, column: pa.ChunkedArray) -> list[ColumnTest]:
    if column_kind(column) == "number":
        tests = list(_shifts(labels, classes, name, _numbers(column)))
    else:
        texts = pc.fill_null(column.cast(pa.string()), "unknown")
        tests = list(_excesses(labels, classes, name, *_categories(texts)))
    if _ARTIFACT_COLUMN.search(name):
        return [replace(test, kind=ARTIFACT) for test in tests]
    return tests


def _shifts(labels: np.ndarray, classes: int, name: str, values: Float64[np.ndarray, " n"]) -> Iterator[ColumnTest]:
    """Compare the known values of each class with all others by the Mann-Whitney test, corrected for ties.

    ``scipy.stats.mannwhitneyu`` gives the same numbers (asymptotic, without continuity correction), but would rank all
    galaxies again for every class.
    """
    from scipy.stats import norm, rankdata

    known = np.isfinite(values)
    groups, numbers = labels[known], values[known]
    ranks, total = rankdata(numbers), len(numbers)
    _, ties = np.unique(numbers, return_counts=True)
    untied = 1 - float(np.sum(ties.astype(float) ** 3 - ties)) / max(float(total) ** 3 - total, 1)
    for class_id in range(classes):
        inside = groups == class_id
        members, others = int(inside.sum()), total - int(inside.sum())
        if not members or not others:
            continue
        pairs = members * others
        excess = ranks[inside].sum() - members * (total + 1) / 2
        deviation = np.sqrt(pairs * (total + 1) * max(untied, 1e-12) / 12)
        effect = float(2 * excess / pairs)
        medians = f"median {np.median(numbers[inside]):.4g} against {np.median(numbers[~inside]):.4g}"
        p = float(2 * norm.sf(abs(excess) / deviation))
        yield ColumnTest(class_id, name, SYSTEMATICS, effect, abs(effect) >= LARGE_SHIFT, p, medians)


def answer_tests(
    fractions: Float[np.ndarray, "n a"],
    *,
    labels: Int[np.ndarray, " n"],
    ids: Sequence[int],
    answers: Sequence[str],
) -> dict[int, list[ColumnTest]]:
    """Compare the predicted answers of each class with those of all other galaxies.

    Parameters
    ----------
    fractions
        (n, a) predicted vote fractions, NaN where unknown.
    labels
        (n,) class of each galaxy, −1 for none.
    ids
        Ids of the classes.
    answers
        Labels of the columns.

    Returns
    -------
    dict
        Tests by class id; their q is corrected for all answers of all classes.
    """
    from scipy.stats import false_discovery_control

    places = {class_id: place for place, class_id in enumerate(ids)}
    numbers = np.array([places.get(int(label), -1) for label in labels])
    tests = [
        test
        for k, name in enumerate(answers)
        for test in _shifts(numbers, len(ids), name, fractions[:, k].astype(float))
    ]
    qs = false_discovery_control(np.clip([test.p for test in tests], 0, 1)) if tests else np.empty(0)
    by_class: dict[int, list[ColumnTest]] = {class_id: [] for class_id in ids}
    for test, q in zip(tests, qs, strict=True):
        by_class[ids[test.class_id]].append(replace(test, class_id=ids[test.class_id], q=float(q)))
    return by_class


def _categories(texts: pa.ChunkedArray) -> tuple[Int64[np.ndarray, " n"], np.ndarray]:
    """Return the code of each galaxy's category and the names of the categories; rare ones are one category."""
    names, codes, counts = np.unique(
        np.asarray(texts.to_pylist(), dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    rare = counts < _FEWEST_PER_CATEGORY
    order = np.cumsum(~rare) - 1
    return np.where(rare[codes], int((~rare).sum()), order[codes]), np.append(names[~rare], "other")


def _excesses(
    labels: np.ndarray, classes: int, name: str, codes: Int64[np.ndarray, " n"], names: np.ndarray
) -> Iterator[ColumnTest]:
    """Compare the categories of each class with those of the sample by Pearson's test."""
    shares = np.bincount(codes, minlength=len(names)) / len(codes)
    present = shares > 0
    for class_id in range(classes):
        counts = np.bincount(codes[labels == class_id], minlength=len(names))
        if not counts.sum():
            continue
        effect = _excess(counts[present], shares[present])
        top = int(np.argmax(counts / counts.sum() - shares))
        words = f"{counts[top] / counts.sum():.0%} in {names[top]} against {shares[top]:.0%}"
        p = _pearson(counts[present], shares[present])
        yield ColumnTest(class_id, name, SYSTEMATICS, effect, effect >= LARGE_EXCESS, p, words)


def _pearson(counts: Int64[np.ndarray, " k"], shares: Float64[np.ndarray, " k"]) -> float:
    """Return the p-value of Pearson's X² by a gamma distribution with the exact mean and variance of multinomial draws.

    Many categories with fewer than one expected member are therefore allowed (Haldane 1937, Biometrika 29, 133), for
    which the χ² distribution of ``scipy.stats.chisquare`` does not hold.
    """
    from scipy.stats import gamma

    members, kinds = counts.sum(), len(counts)
    if kinds < 2:
        return 1.0
    statistic = float(np.sum((counts - members * shares) ** 2 / (members * shares)))
    mean = kinds - 1.0
    variance = 2 * mean + (float(np.sum(1 / shares)) - kinds**2 - 2 * kinds + 2) / members
    return float(gamma.sf(statistic, mean**2 / variance, scale=variance / mean))


def _excess(counts: Int64[np.ndarray, " k"], shares: Float64[np.ndarray, " k"]) -> float:
    """Return the total variation distance of a class from the sample beyond that of a random draw, 0–1."""
    from scipy.stats import poisson

    members = counts.sum()
    expected = members * shares
    distance = float(np.abs(counts - expected).sum() / (2 * members))
    # Mean absolute deviation of a Poisson variate (Crow 1958): 2 e^−λ λ^(⌊λ⌋+1) / ⌊λ⌋!
    by_chance = float(np.sum(expected * poisson.pmf(np.floor(expected), expected)) / members)
    return max(0.0, (distance - by_chance) / max(1 - by_chance, 1e-9))


def _predicted_artifacts(labels: np.ndarray, classes: int, predictions: pa.Table | None) -> Iterator[ColumnTest]:
    """Test for classes with a high predicted artifact fraction, or a higher one than other galaxies."""
    for name in predictions.column_names if predictions is not None else ():
        answer = tables.answer_of(name)
        if predictions is None or not answer or not _ARTIFACT_ANSWER.match(answer):
            continue
        fractions = _numbers(predictions.column(name))
        average = float(np.nanmean(fractions)) if np.isfinite(fractions).any() else 0.0
        for test in _shifts(labels, classes, f"predicted {answer}", fractions):
            inside = float(np.nanmean(fractions[labels == test.class_id]))
            rich = test.effect >= LARGE_SHIFT and inside - average >= _ARTIFACT_EXCESS
            words = f"mean {inside:.2f} against {average:.2f}"
            yield replace(test, kind=ARTIFACT, large=rich or inside >= ARTIFACT_FRACTION, words=words)


def _position_tests(
    labels: np.ndarray, classes: int, catalogue: pa.Table, rows: np.ndarray, radius: float
) -> list[ColumnTest]:
    """Test for concentration in strips of declination, and for other catalogue entries nearby."""
    ra, dec = _numbers(catalogue.column(tables.RA)), _numbers(catalogue.column(tables.DEC))
    placed = np.isfinite(ra) & np.isfinite(dec)
    known = placed[rows]
    if known.mean() < _FEWEST_KNOWN or np.ptp(dec[rows][known]) == 0:
        return []
    crowded = _crowded(ra[placed], dec[placed], radius)[(np.cumsum(placed) - 1)[rows[known]]]
    return [
        *_strips(labels[known], classes, dec[rows][known]),
        *_neighbours(labels[known], classes, crowded, radius),
    ]


def _strips(labels: np.ndarray, classes: int, dec: Float64[np.ndarray, " n"]) -> Iterator[ColumnTest]:
    """Test for concentration in declination, of any shape, with strips of equally many galaxies as categories."""
    most = min(_STRIPS, len(dec) // _FEWEST_PER_CATEGORY)
    edges = np.unique(np.quantile(dec, np.linspace(0, 1, max(most, 1) + 1)))
    codes = np.clip(np.searchsorted(edges, dec, side="right") - 1, 0, len(edges) - 2)
    names = np.array([f"{low:+.2f}° to {high:+.2f}°" for low, high in pairwise(edges)])
    return _excesses(labels, classes, _DECLINATION, codes, names)


def _crowded(ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"], radius: float) -> Bool[np.ndarray, " n"]:
    """Return whether another catalogue entry lies within the radius (arcsec) of each entry."""
    from astropy import units
    from astropy.coordinates import SkyCoord, match_coordinates_sky

    places = SkyCoord(ra, dec, unit="deg")
    _, distances, _ = match_coordinates_sky(places, places, nthneighbor=2)
    return np.asarray(distances <= radius * units.arcsec)


def _neighbours(labels: np.ndarray, classes: int, crowded: np.ndarray, radius: float) -> Iterator[ColumnTest]:
    """Compare the members with another entry nearby with a random draw from the sample (hypergeometric, exact)."""
    from scipy.stats import hypergeom

    total, all_crowded = len(labels), int(crowded.sum())
    for class_id in range(classes):
        inside = labels == class_id
        members, close = int(inside.sum()), int(crowded[inside].sum())
        if not members or members == total:
            continue
        share, others = close / members, (all_crowded - close) / (total - members)
        p = float(hypergeom.sf(close - 1, total, all_crowded, members))
        words = f"{share:.0%} have another catalogue entry within {radius:g} arcsec against {others:.0%}"
        yield ColumnTest(class_id, _NEIGHBOURS, SHREDDED, share - others, share - others >= LARGE_SHARE, p, words)


def cause_columns(causes: Sequence[Cause]) -> Mapping[str, list[str | None]]:
    """Return the columns of CLASSES that hold the causes."""
    return {
        tables.CAUSE: [cause.flag for cause in causes],
        tables.CAUSE_REASON: [cause.reason for cause in causes],
    }
