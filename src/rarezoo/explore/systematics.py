"""Is a class made by the sky, or by the telescope, the detector or the source finder?

Every class is tested against every catalogue column at hand, for more than its share of predicted artifacts, and for
members that lie too close together on the sky to be galaxies of their own. The p-values of all classes and tests are
corrected together (Benjamini & Hochberg 1995). In a large sample anything is significant, so a class is flagged only
if the effect is large besides.

Shape letters: n galaxies, m members.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.errors import ConfigError

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
# Share of members with another member nearby from which a class counts as pieces of galaxies.
SHREDDED_SHARE = 0.2
# Pieces of one galaxy lie within its disk; at r < 19 two galaxies are that close by chance for one in twenty.
SHRED_RADIUS = 20.0
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
class Comparison:
    """One class against one column.

    Attributes:
        class_id: of the class.
        column: tested.
        kind: of flag that it can raise.
        effect: −1 to 1: rank-biserial correlation; or 0–1: share of members that would have to change category to be
            like the sample, beyond what chance asks for; or share of members with another one nearby.
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
        return f"{self.column}: {self.words}, q = {self.q:.0e}"


@dataclass(frozen=True)
class Cause:
    """Flag of a class, what decided it, and every test of it; flag and reason are None if nothing could be tested."""

    flag: str | None
    reason: str | None
    tests: tuple[Comparison, ...] = ()


def causes(
    labels: Int32[np.ndarray, " n"],
    *,
    classes: int,
    catalogue: pa.Table | None = None,
    predictions: pa.Table | None = None,
    columns: Sequence[str] = (),
    radius: float = SHRED_RADIUS,
) -> list[Cause]:
    """Why each class may not be one of galaxies.

    Args:
        labels: class of each galaxy, −1 for none.
        classes: how many there are.
        catalogue: CATALOGUE rows of the same galaxies in the same order; None if no survey is at hand.
        predictions: table of the same galaxies with the predicted fraction columns.
        columns: of the catalogue to test, as :func:`conditions` gives them.
        radius: within which two members count as pieces of one galaxy, arcsec.

    """
    tests = list(_predicted_artifacts(labels, classes, predictions))
    if catalogue is not None:
        for name in columns:
            tests += _column_tests(labels, classes, name, catalogue.column(name))
        tests += _position_tests(labels, classes, catalogue, radius)
    return _judged(tests, classes)


def conditions(catalogue: pa.Table, *, named: Sequence[str] = (), answers: Sequence[str] = ()) -> list[str]:
    """Columns to test: those named, or all that vary and are no ids, images, positions or votes.

    Args:
        catalogue: CATALOGUE table.
        named: columns; none = all.
        answers: labels of the survey's votes, whose questions' columns are left out.

    Raises:
        ConfigError: a column is named that the catalogue does not have, or that cannot be tested.
    """
    questions = tuple({f"{answer.rpartition('_')[0]}_" for answer in answers})

    def voted(name: str) -> bool:
        return tables.is_fraction_column(name) or bool(_VOTE.match(name)) or name.startswith(questions)

    free = [name for name in catalogue.column_names if name not in _NEVER and not voted(name)]
    found = [name for name in free if _kind(catalogue.column(name)) is not None]
    for name in named:
        _refuse(name, catalogue, found)
    return list(named) or found


def _refuse(name: str, catalogue: pa.Table, found: Sequence[str]) -> None:
    if name not in catalogue.column_names:
        fix = f"Choose among {', '.join(found)}." if found else "It has none that can be tested."
        raise ConfigError("the survey's catalogue has no column for systematics", value=name, fix=fix)
    if _kind(catalogue.column(name)) is None:
        raise ConfigError(
            "systematics cannot test column", value=name,
            fix="Name numbers or repeated categories that vary and are known for half of the galaxies.",
        )  # fmt: skip


def _kind(column: pa.ChunkedArray) -> str | None:
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
        return "category" if repeated else "number"
    texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    named = texts or pa.types.is_boolean(column.type)
    return "category" if named and repeated else None


def _numbers(column: pa.ChunkedArray) -> Float64[np.ndarray, " n"]:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _column_tests(labels: np.ndarray, classes: int, name: str, column: pa.ChunkedArray) -> list[Comparison]:
    if _kind(column) == "number":
        tests = list(_shifts(labels, classes, name, _numbers(column)))
    else:
        texts = pc.fill_null(column.cast(pa.string()), "unknown")
        tests = list(_excesses(labels, classes, name, *_categories(texts)))
    if _ARTIFACT_COLUMN.search(name):
        return [replace(one, kind=ARTIFACT) for one in tests]
    return tests


def _shifts(labels: np.ndarray, classes: int, name: str, values: Float64[np.ndarray, " n"]) -> Iterator[Comparison]:
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
        yield Comparison(class_id, name, SYSTEMATICS, effect, abs(effect) >= LARGE_SHIFT, p, medians)


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
) -> Iterator[Comparison]:
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
        yield Comparison(class_id, name, SYSTEMATICS, effect, effect >= LARGE_EXCESS, p, words)


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


def _predicted_artifacts(labels: np.ndarray, classes: int, predictions: pa.Table | None) -> Iterator[Comparison]:
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


def _position_tests(labels: np.ndarray, classes: int, catalogue: pa.Table, radius: float) -> list[Comparison]:
    """Strips of declination with equally many galaxies, and members close together."""
    ra, dec = _numbers(catalogue.column(tables.RA)), _numbers(catalogue.column(tables.DEC))
    known = np.isfinite(ra) & np.isfinite(dec)
    if known.mean() < _FEWEST_KNOWN or np.ptp(dec[known]) == 0:
        return []
    sky = _Sky(labels[known], ra[known], dec[known])
    return [*sky.strips(classes), *sky.neighbours(classes, radius=radius)]


@dataclass(frozen=True)
class _Sky:
    """Galaxies at right ascension and declination, degrees."""

    labels: Int32[np.ndarray, " n"]
    ra: Float64[np.ndarray, " n"]
    dec: Float64[np.ndarray, " n"]

    @cached_property
    def directions(self) -> Float64[np.ndarray, "n 3"]:
        """Unit vectors."""
        ra, dec = np.radians(self.ra), np.radians(self.dec)
        return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])

    def strips(self, classes: int) -> Iterator[Comparison]:
        """Concentration in declination, of whatever shape."""
        most = min(_STRIPS, len(self.dec) // _FEWEST_PER_CATEGORY)
        edges = np.unique(np.quantile(self.dec, np.linspace(0, 1, max(most, 1) + 1)))
        codes = np.clip(np.searchsorted(edges, self.dec, side="right") - 1, 0, len(edges) - 2)
        names = np.array([f"{low:+.2f}° to {high:+.2f}°" for low, high in zip(edges[:-1], edges[1:], strict=True)])
        return _excesses(self.labels, classes, _DECLINATION, codes, names)

    def neighbours(self, classes: int, *, radius: float) -> Iterator[Comparison]:
        """Members with another member nearby: how many, and whether random galaxies would have as many pairs."""
        from scipy.spatial import KDTree
        from scipy.stats import poisson

        # Chord of the angle on the unit sphere.
        reach = 2 * np.sin(radius * _ARCSEC / 2)
        everyone, total = KDTree(self.directions), len(self.labels)
        pairs = (everyone.count_neighbors(everyone, reach) - total) / 2
        for class_id in range(classes):
            places = self.directions[self.labels == class_id]
            members = len(places)
            if members < 2:
                continue
            tree = KDTree(places)
            close = int((tree.query(places, k=2)[0][:, 1] <= reach).sum())
            found = (tree.count_neighbors(tree, reach) - members) / 2
            expected = pairs * members * (members - 1) / (total * (total - 1))
            p = float(poisson.sf(found - 1, expected)) if found else 1.0
            words = (
                f"{close} of {members} members lie within {radius:g} arcsec of another; {expected:.2g} such pairs "
                f"expected, {found:.0f} found"
            )
            yield Comparison(
                class_id, _NEIGHBOURS, SHREDDED, close / members, close / members >= SHREDDED_SHARE, p, words
            )


def _judged(tests: Sequence[Comparison], classes: int) -> list[Cause]:
    """Tests corrected together; the flag of each class is the most particular that any of its tests raises."""
    from scipy.stats import false_discovery_control

    if not tests:
        return [Cause(None, None)] * classes
    qs = false_discovery_control(np.clip([one.p for one in tests], 0, 1))
    corrected = [replace(one, q=float(q)) for one, q in zip(tests, qs, strict=True)]
    return [_cause([one for one in corrected if one.class_id == class_id]) for class_id in range(classes)]


def _cause(tests: Sequence[Comparison]) -> Cause:
    if not tests:
        return Cause(None, None)
    order = (SHREDDED, ARTIFACT, SYSTEMATICS)
    raised = sorted((one for one in tests if one.raised), key=lambda one: (order.index(one.kind), -abs(one.effect)))
    if raised:
        return Cause(raised[0].kind, "; ".join(map(str, raised)), tuple(tests))
    return Cause(CLEAN, f"nothing large in {', '.join(one.column for one in tests)}", tuple(tests))


def cause_columns(found: Sequence[Cause]) -> Mapping[str, list[str | None]]:
    """Columns of CLASSES."""
    return {tables.FLAG: [one.flag for one in found], tables.FLAG_REASON: [one.reason for one in found]}
