"""Is a class made by the sky, or by the telescope, the detector or the source finder?

Every class is tested against every catalogue column at hand, for more than its share of predicted artifacts, and for
members with other catalogue entries so close by that they may be pieces of one galaxy. The p-values of all classes and
tests are corrected together (Benjamini & Hochberg 1995). In a large sample anything is significant, so a class is
flagged only if the effect is large besides.

Shape letters: n galaxies, m members.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.settings import setting

SYSTEMATICS, ARTIFACT, SHREDDED, CLEAN = "systematics", "artifact", "shredded", "clean"
SIGNIFICANT = 0.05
# Rank-biserial correlation from which an effect counts as large: A = 0.71 (Vargha & Delaney 2000), Cohen's d = 0.8.
LARGE_SHIFT = 0.42
# Two normal distributions that d = 0.8 sets apart share all but so much of their area.
LARGE_EXCESS = 0.31
# Walmsley & Scaife 2023 drop galaxies with a predicted artifact fraction of 0.30 or more.
ARTIFACT_FRACTION = 0.30
# A class can be rich in artifacts though volunteers rarely say so: then the mean must also exceed the sample's by this.
_ARTIFACT_EXCESS = 0.10
# So many more of the members than of the sample must have another entry nearby for a class to count as pieces.
LARGE_SHARE = 0.2
_SMALLEST_SHOWN = 1e-20
_DECLINATION, _STRIPS = "declination", 20
_NEIGHBOURS = "neighbours"
_ARCSEC = np.pi / 180 / 3600
# A column with fewer galaxies per value than this is an id, not a category; a rarer category is counted with others.
_FEWEST_PER_CATEGORY = 5
_FEWEST_KNOWN = 0.5
_NEVER = frozenset({tables.ID, tables.IMAGE, tables.SPLIT, tables.RA, tables.DEC})
# The challenge's columns of Galaxy Zoo 2 votes: Class1.1 … Class11.6, and the coarse class.
_VOTE = re.compile(r"class\d+(\.\d+)?$", re.IGNORECASE)
_ARTIFACT_COLUMN = re.compile(r"arti?e?fact", re.IGNORECASE)
# Volunteers are asked for artifacts first of all; answers below that are shares among artifacts.
_ARTIFACT_ANSWER = re.compile(r"smooth-or-featured.*_.*(artifact|problem)", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnTest:
    """One class against one column.

    Attributes:
        class_id: of the class.
        column: tested.
        kind: of flag that it can raise.
        effect: −1 to 1: rank-biserial correlation; or 0–1: share of members that would have to change category to be
            like the sample, beyond what chance asks for; or by how much a share of members exceeds the others'.
        large: whether the effect counts.
        p: of the class being a random draw from the sample.
        q: p, corrected for all tests of all classes.
        words: what is different.
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
        """Whether it flags its class."""
        return self.large and self.q < SIGNIFICANT

    def __str__(self) -> str:
        q = f"= {self.q:.0e}" if self.q > _SMALLEST_SHOWN else f"< {_SMALLEST_SHOWN:.0e}"
        return f"{self.column}: {self.words}, q {q}"


@dataclass(frozen=True)
class Cause:
    """Flag of a class, what decided it, and every test of it; flag and reason are None if nothing could be tested."""

    flag: str | None
    reason: str | None
    tests: tuple[ColumnTest, ...] = ()


@dataclass
class Systematics:
    """What besides galaxies may make a class, and is looked for."""

    columns: list[str] = setting(
        [], "catalogue columns that may explain a class; empty = all but ids, places and votes"
    )
    radius: float = setting(20.0, "catalogue entries this close may be pieces of one galaxy", unit="arcsec")

    def tested(self, catalogue: pa.Table | None, *, votes: Sequence[str] = ()) -> list[str]:
        """Columns that are tested: those named, or all that vary and are no ids, images, places or votes.

        Args:
            catalogue: CATALOGUE table; None if no survey is at hand.
            votes: what the names of columns with votes begin with.

        Raises:
            ConfigError: a column is named that is not there or cannot be tested, or the radius is not above 0.
        """
        if self.radius <= 0:
            raise ConfigError("systematics.radius", value=self.radius, fix="Choose more than 0 arcsec.")
        if catalogue is None:
            if self.columns:
                raise ConfigError("no catalogue to test", value=self.columns, fix="Leave out images=false.")
            return []
        found = _testable(catalogue, tuple(votes))
        for name in self.columns:
            _refuse(name, catalogue, found)
        return list(self.columns) or found

    def causes(
        self,
        labels: Int32[np.ndarray, " n"],
        *,
        classes: int,
        catalogue: pa.Table | None = None,
        rows: Int64[np.ndarray, " n"] | None = None,
        columns: Sequence[str] = (),
        predictions: pa.Table | None = None,
    ) -> list[Cause]:
        """Why each class may not be one of galaxies.

        Args:
            labels: class of each galaxy, −1 for none.
            classes: how many there are.
            catalogue: CATALOGUE table of the whole survey; None if none is at hand.
            rows: of the galaxies in it; None if they are all of it, in its order.
            columns: to test, as :meth:`tested` gives them.
            predictions: table of the galaxies with the predicted fraction columns.
        """
        tests = list(_predicted_artifacts(labels, classes, predictions))
        if catalogue is not None:
            rows = np.arange(len(labels)) if rows is None else rows
            theirs = catalogue.take(pa.array(rows))
            for name in columns:
                tests += _column_tests(labels, classes, name, theirs.column(name))
            tests += _position_tests(labels, classes, catalogue, rows, self.radius)
        return _judged(tests, classes)


def _testable(catalogue: pa.Table, votes: tuple[str, ...]) -> list[str]:
    def voted(name: str) -> bool:
        return tables.is_fraction_column(name) or bool(_VOTE.match(name)) or name.startswith(votes)

    free = [name for name in catalogue.column_names if name not in _NEVER and not voted(name)]
    return [name for name in free if column_kind(catalogue.column(name)) is not None]


def _refuse(name: str, catalogue: pa.Table, found: Sequence[str]) -> None:
    if name not in catalogue.column_names:
        fix = f"Choose among {', '.join(found)}." if found else "It has none that can be tested."
        raise ConfigError("the survey's catalogue has no column for systematics", value=name, fix=fix)
    if column_kind(catalogue.column(name)) is None:
        raise ConfigError(
            "systematics cannot test column", value=name,
            fix="Name numbers or repeated categories that vary and are known for half of the galaxies.",
        )  # fmt: skip


def column_kind(column: pa.ChunkedArray) -> str | None:
    """``number``, ``category``, or None for a column that cannot be tested."""
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
        # Whole numbers without any repetition are ids.
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
        return [replace(one, kind=ARTIFACT) for one in tests]
    return tests


def _shifts(labels: np.ndarray, classes: int, name: str, values: Float64[np.ndarray, " n"]) -> Iterator[ColumnTest]:
    """Mann-Whitney's test of each class's known values against all others', with its correction for ties."""
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
    fractions: Float32[np.ndarray, "n a"],
    *,
    labels: Int32[np.ndarray, " n"],
    ids: Sequence[int],
    answers: Sequence[str],
) -> dict[int, list[ColumnTest]]:
    """Each class's predicted answers against those of all other galaxies, corrected for all answers of all classes.

    Args:
        fractions: predicted vote fractions, NaN where unknown.
        labels: class of each galaxy, −1 for none.
        ids: of the classes.
        answers: labels of the columns.
    """
    from scipy.stats import false_discovery_control

    places = {one: place for place, one in enumerate(ids)}
    numbers = np.array([places.get(int(one), -1) for one in labels])
    tests = [
        one for k, name in enumerate(answers) for one in _shifts(numbers, len(ids), name, fractions[:, k].astype(float))
    ]
    qs = false_discovery_control(np.clip([one.p for one in tests], 0, 1)) if tests else np.empty(0)
    found: dict[int, list[ColumnTest]] = {one: [] for one in ids}
    for test, q in zip(tests, qs, strict=True):
        found[ids[test.class_id]].append(replace(test, class_id=ids[test.class_id], q=float(q)))
    return found


def _categories(texts: pa.ChunkedArray) -> tuple[Int64[np.ndarray, " n"], np.ndarray]:
    """Code of each galaxy's category and the categories' names; what is rare is one category."""
    names, codes, counts = np.unique(
        np.asarray(texts.to_pylist(), dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    rare = counts < _FEWEST_PER_CATEGORY
    order = np.cumsum(~rare) - 1
    return np.where(rare[codes], int((~rare).sum()), order[codes]), np.append(names[~rare], "other")


def _excesses(
    labels: np.ndarray, classes: int, name: str, codes: Int64[np.ndarray, " n"], names: np.ndarray
) -> Iterator[ColumnTest]:
    """Pearson's test of each class's categories against the sample's."""
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
    """p of Pearson's X², its distribution a gamma with the exact mean and variance of multinomial draws.

    Many categories with less than one member expected are thereby allowed (Haldane 1937, Biometrika 29, 133).
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
    """Total variation distance between class and sample, beyond that of as many galaxies drawn blindly, 0–1."""
    from scipy.stats import poisson

    members = counts.sum()
    expected = members * shares
    distance = float(np.abs(counts - expected).sum() / (2 * members))
    # Mean absolute deviation of a Poisson variate (Crow 1958): 2 e^−λ λ^(⌊λ⌋+1) / ⌊λ⌋!
    by_chance = float(np.sum(expected * poisson.pmf(np.floor(expected), expected)) / members)
    return max(0.0, (distance - by_chance) / max(1 - by_chance, 1e-9))


def _predicted_artifacts(labels: np.ndarray, classes: int, predictions: pa.Table | None) -> Iterator[ColumnTest]:
    """Classes of galaxies that the network takes for artifacts, or for artifacts more than other galaxies."""
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
    """Strips of declination, and other catalogue entries nearby."""
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
    """Concentration in declination, of whatever shape, over strips with equally many galaxies."""
    most = min(_STRIPS, len(dec) // _FEWEST_PER_CATEGORY)
    edges = np.unique(np.quantile(dec, np.linspace(0, 1, max(most, 1) + 1)))
    codes = np.clip(np.searchsorted(edges, dec, side="right") - 1, 0, len(edges) - 2)
    names = np.array([f"{low:+.2f}° to {high:+.2f}°" for low, high in pairwise(edges)])
    return _excesses(labels, classes, _DECLINATION, codes, names)


def _crowded(ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"], radius: float) -> Bool[np.ndarray, " n"]:
    """Whether another entry lies within the radius."""
    from scipy.spatial import KDTree

    across, up = np.radians(ra), np.radians(dec)
    places = np.column_stack([np.cos(up) * np.cos(across), np.cos(up) * np.sin(across), np.sin(up)])
    # Chord of the angle on the unit sphere.
    reach = 2 * np.sin(radius * _ARCSEC / 2)
    return np.asarray(KDTree(places).query(places, k=2)[0])[:, 1] <= reach


def _neighbours(labels: np.ndarray, classes: int, crowded: np.ndarray, radius: float) -> Iterator[ColumnTest]:
    """Members with another entry nearby, against a blind draw from the sample (hypergeometric, exact)."""
    from scipy.stats import hypergeom

    total, all_crowded = len(labels), int(crowded.sum())
    for class_id in range(classes):
        inside = labels == class_id
        members, found = int(inside.sum()), int(crowded[inside].sum())
        if not members or members == total:
            continue
        share, others = found / members, (all_crowded - found) / (total - members)
        p = float(hypergeom.sf(found - 1, total, all_crowded, members))
        words = f"{share:.0%} have another catalogue entry within {radius:g} arcsec against {others:.0%}"
        yield ColumnTest(class_id, _NEIGHBOURS, SHREDDED, share - others, share - others >= LARGE_SHARE, p, words)


def _judged(tests: Sequence[ColumnTest], classes: int) -> list[Cause]:
    """Tests corrected together; the flag of each class is the most particular that any of its tests raises."""
    from scipy.stats import false_discovery_control

    if not tests:
        return [Cause(None, None)] * classes
    qs = false_discovery_control(np.clip([one.p for one in tests], 0, 1))
    corrected = [replace(one, q=float(q)) for one, q in zip(tests, qs, strict=True)]
    return [_cause([one for one in corrected if one.class_id == class_id]) for class_id in range(classes)]


def _cause(tests: Sequence[ColumnTest]) -> Cause:
    if not tests:
        return Cause(None, None)
    order = (SHREDDED, ARTIFACT, SYSTEMATICS)
    raised = sorted((one for one in tests if one.raised), key=lambda one: (order.index(one.kind), -abs(one.effect)))
    if raised:
        return Cause(raised[0].kind, "; ".join(map(str, raised)), tuple(tests))
    return Cause(CLEAN, f"nothing large in {', '.join(one.column for one in tests)}", tuple(tests))


def cause_columns(found: Sequence[Cause]) -> Mapping[str, list[str | None]]:
    """Columns of CLASSES."""
    return {tables.CAUSE: [one.flag for one in found], tables.CAUSE_REASON: [one.reason for one in found]}
