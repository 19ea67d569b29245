"""Which galaxies are searched: cuts on predicted fractions and on any other column of the store.

Cuts have a small expression language of their own. ``pandas.DataFrame.query`` would not do: there a comparison with NaN
is false and its negation true, and its documentation warns of code injection.
"""

import ast
import difflib
import logging
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from rarezoo import tables
from rarezoo.data.trees import campaigns
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)

_QUOTED = re.compile(r"`([^`]*)`")
_PLACEHOLDER = "quoted_column_"
_GRAMMAR = "Use columns, numbers, < <= > >= == !=, and or not, + - * /; put `…` around a name with - in it."
_ARITHMETIC: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_JOINS: dict[type[ast.boolop], Callable[..., Any]] = {ast.And: pc.and_kleene, ast.Or: pc.or_kleene}
_SIGNS: dict[type[ast.unaryop], Callable[..., Any]] = {ast.USub: pc.negate, ast.UAdd: operator.pos, ast.Not: pc.invert}


@dataclass(frozen=True)
class CutResult:
    """What one cut dropped, whatever the other cuts dropped.

    Attributes
    ----------
    cut : str
        The expression.
    dropped : int
        Galaxies that it drops, including those undecided if ``nan=drop``.
    undecided : int
        Galaxies for which a NaN leaves the expression neither true nor false.
    """

    cut: str
    dropped: int
    undecided: int

    def __str__(self) -> str:
        return f"{self.cut} drops {self.dropped} ({self.undecided} undecided by NaN)"


class Selection(NamedTuple):
    """Which of n galaxies are kept, and what each cut dropped.

    Attributes
    ----------
    mask : (n,) array of bool
        True for galaxies that are kept.
    cuts : tuple of CutResult
        One per cut.
    """

    mask: Bool[np.ndarray, " galaxies"]
    cuts: tuple[CutResult, ...]


@dataclass
class Select(Settings):
    """Which galaxies are searched: cuts, then a random subset of what is left.

    A comparison with NaN is neither true nor false, and stays so under ``and``, ``or`` and ``not`` as long as the other
    side does not decide: ``x >= 0.3`` and ``not (x < 0.3)`` drop the same galaxies. ``nan`` says what happens to
    galaxies for which a cut stays undecided.

    A cut may name an answer without its campaign: where there is no column ``disk-edge-on_yes_fraction``, these words
    stand for ``disk-edge-on-gz2_yes_fraction``, so that one cut serves surveys of any campaign.

    Examples
    --------
    >>> galaxies = pa.table({"id_str": ["a", "b", "c"], "bar_no_fraction": [0.9, 0.2, float("nan")]})
    >>> kept = Select(drop=["bar_no_fraction >= 0.5"]).kept(galaxies)
    >>> kept.mask.tolist()
    [False, True, True]
    >>> print(kept.cuts[0])
    bar_no_fraction >= 0.5 drops 1 (1 undecided by NaN)
    """

    prefix: ClassVar[str] = "select"

    drop: list[str] = setting([], "cuts: each drops the galaxies for which it is true, e.g. '`bar_no_fraction` >= 0.5'")
    nan: str = setting(
        "keep",
        "what happens to galaxies for which a cut cannot be decided because a value is NaN",
        choices=("keep", "drop"),
    )
    fractions_from: str = setting("", "store of the same galaxies whose predicted fractions are used; empty: its own")
    fractions_by: str = setting("", "architecture that must have predicted those fractions; empty: any")
    not_finite: str = setting(
        "refuse",
        "what happens to galaxies whose embedding is not finite: the search stops, or they are left out",
        choices=("refuse", "drop"),
    )
    sample: int = setting(0, "largest random subset that is searched; 0 = all", unit="galaxies", ge=0)

    def judged(self, galaxies: pa.Table, *, store: EmbeddingStore) -> pa.Table:
        """Replace the predicted fractions of galaxies by those that ``fractions_from`` predicts, joined by id.

        Cuts use these, and so do the answers that describe classes.

        Parameters
        ----------
        galaxies : pyarrow.Table
            Rows read from ``store``.
        store : EmbeddingStore
            The store that is searched.

        Raises
        ------
        StoreError
            ``fractions_from`` is not a complete store, or one of another survey, or it lacks some of the galaxies.
        ConfigError
            The fractions would be those of another architecture than ``fractions_by``.
        """
        other = EmbeddingStore.open(self.fractions_from) if self.fractions_from else store
        # Checkpoints are named architecture.tag; one that is not may be of any architecture.
        architecture, dot, _ = other.manifest.checkpoint.partition(".")
        if self.fractions_by and architecture != self.fractions_by:
            if dot:
                raise ConfigError(
                    f"cuts need fractions that {self.fractions_by} predicts, and these are predicted by",
                    value=other.manifest.checkpoint,
                    fix=f"Give select.fractions_from=STORE made with {self.fractions_by}, or select.fractions_by= for "
                    "any.",
                )
            log.warning(
                "cuts use the fractions of checkpoint %s, which is taken to be a %s", other.manifest.checkpoint,
                self.fractions_by,
            )  # fmt: skip
        if other.folder.resolve() == store.folder.resolve():
            return galaxies
        if not _of_one_survey(other, store):
            raise StoreError(
                "select.fractions_from is a store of another survey", value=other.folder,
                fix=f"Embed the survey of {store.folder} with that checkpoint too.",
            )  # fmt: skip
        fractions = other.read([tables.ID, *map(tables.fraction_column, other.manifest.answers)])
        fractions = tables.aligned(
            fractions, galaxies.column(tables.ID), source=f"{other.folder} (select.fractions_from)"
        )
        judged = galaxies.drop_columns([name for name in galaxies.column_names if tables.is_fraction_column(name)])
        for name in fractions.column_names[1:]:
            judged = judged.append_column(name, fractions.column(name))
        return judged

    def kept(
        self, galaxies: pa.Table, *, embeddings: Float[np.ndarray, "galaxies D"] | None = None, seed: int = 0
    ) -> Selection:
        """Apply the cuts.

        Parameters
        ----------
        galaxies : pyarrow.Table
            Table of n rows with ids and the columns that cuts name.
        embeddings : (n, D) array of floats, optional
            Their embeddings, which ``not_finite=drop`` needs; by default the table's.
        seed : int
            Seed of the random subset, which does not depend on the order of the rows.

        Raises
        ------
        ConfigError
            A cut cannot be read or names an unknown column, or no galaxy is left.
        """
        mask, cuts = np.ones(galaxies.num_rows, dtype=bool), []
        for cut in self.drop:
            verdict = _verdict(cut, galaxies)
            dropped = pc.fill_null(verdict, self.nan == "drop").to_numpy(zero_copy_only=False)
            cuts.append(CutResult(cut, int(dropped.sum()), verdict.null_count))
            mask &= ~dropped
        if self.not_finite == "drop":
            values = tables.matrix(galaxies, tables.EMBEDDING) if embeddings is None else embeddings
            bad = ~np.isfinite(values).all(axis=1)
            cuts.append(CutResult("an embedding that is not finite", int(bad.sum()), 0))
            mask &= ~bad
        log.info("%d of %d galaxies kept. %s", mask.sum(), len(mask), "; ".join(map(str, cuts)))
        if not mask.any():
            reason = "; ".join(map(str, cuts)) or "there are none"
            raise ConfigError(f"none of {len(mask)} galaxies is left to search", value=reason, fix="Loosen a cut.")
        if self.sample and self.sample < mask.sum():
            rows = np.flatnonzero(mask)
            by_id = rows[np.argsort(tables.strings(galaxies, tables.ID)[rows].astype(str))]
            mask = np.zeros_like(mask)
            mask[np.random.default_rng(seed).choice(by_id, self.sample, replace=False)] = True
        return Selection(mask, tuple(cuts))


def _of_one_survey(store: EmbeddingStore, other: EmbeddingStore) -> bool:
    """Return whether two stores are of one survey, of which one may hold only the first galaxies.

    Equal ids mean equal galaxies only within one survey. Imported embeddings without a survey are known by their ids.
    If the survey cannot be opened, its settings decide.
    """
    fewer, more = sorted((store, other), key=lambda either: either.manifest.rows)
    if fewer.manifest.survey_sha256 == more.manifest.survey_sha256 or not (fewer.has_survey or more.has_survey):
        return True
    try:
        return more.galaxies().first(fewer.manifest.rows).sha256 == fewer.manifest.survey_sha256
    except StoreError:
        return False
    except (ConfigError, DataError):
        return {**more.manifest.survey_settings, "limit": 0} == {**fewer.manifest.survey_settings, "limit": 0}


def _verdict(cut: str, galaxies: pa.Table) -> pa.Array:
    """Return true, false or null (undecided) for every galaxy."""
    quoted = _QUOTED.findall(cut)
    aliases = {f"{_PLACEHOLDER}{index}": name for index, name in enumerate(quoted)}
    numbers = iter(range(len(quoted)))
    try:
        parsed = ast.parse(_QUOTED.sub(lambda _: f"{_PLACEHOLDER}{next(numbers)}", cut).strip(), mode="eval")
    except SyntaxError as problem:
        raise ConfigError("unreadable cut", value=cut, fix=_GRAMMAR) from problem
    try:
        verdict = _value(parsed.body, galaxies, aliases, cut)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, TypeError) as problem:
        raise ConfigError(f"cut {cut} mixes kinds of values", value=problem, fix=_GRAMMAR) from problem
    if isinstance(verdict, pa.ChunkedArray):
        verdict = verdict.combine_chunks()
    if not isinstance(verdict, pa.Array) or verdict.type != pa.bool_():
        raise ConfigError("a cut must be true or false of a galaxy", value=cut, fix=_GRAMMAR)
    return verdict


def _value(node: ast.expr, galaxies: pa.Table, aliases: Mapping[str, str], cut: str) -> Any:
    """One node of an expression, as an Arrow array or scalar; NaN is null in it."""

    def inner(child: ast.expr) -> Any:
        return _value(child, galaxies, aliases, cut)

    match node:
        case ast.Name(id=name):
            return _column(aliases.get(name, name), galaxies, cut)
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return pa.scalar(float(value) if type(value) is int else value)
        case ast.BoolOp(op=op, values=[first, *others]):
            joined = inner(first)
            for other in others:
                joined = _JOINS[type(op)](joined, inner(other))
            return joined
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
            return _SIGNS[type(op)](inner(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _nan_as_null(_ARITHMETIC[type(op)](inner(left), inner(right)))
        case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _COMPARISONS for op in ops):
            sides = [inner(side) for side in (left, *rights)]
            verdicts = [_COMPARISONS[type(op)](sides[i], sides[i + 1]) for i, op in enumerate(ops)]
            joined = verdicts[0]
            for verdict in verdicts[1:]:
                joined = pc.and_kleene(joined, verdict)
            return joined
    raise ConfigError(f"cut {cut} may not hold", value=_as_written(node, aliases), fix=_GRAMMAR)


def _as_written(node: ast.expr, aliases: Mapping[str, str]) -> str:
    return re.sub(rf"{_PLACEHOLDER}\d+", lambda match: f"`{aliases[match[0]]}`", ast.unparse(node))


def _column(name: str, galaxies: pa.Table, cut: str) -> pa.ChunkedArray:
    known = [field.name for field in galaxies.schema if not pa.types.is_nested(field.type)]
    if name not in known:
        name = _with_campaign(name, known, cut)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        fix = f"{hint}Columns are: {', '.join(known)}. {_GRAMMAR}"
        raise ConfigError(f"cut {cut} names an unknown column", value=name, fix=fix)
    column = galaxies.column(name)
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return _nan_as_null(column.cast(pa.float64())) if numeric else column


def _with_campaign(name: str, known: Sequence[str], cut: str) -> str:
    """Column that a name without its campaign stands for; ConfigError if several campaigns have such a column."""
    question, _, answer = name.partition("_")
    spellings = {f"{question}-{campaign}_{answer}" for campaign in campaigns()}
    matching = [column for column in known if column in spellings]
    if len(matching) > 1:
        raise ConfigError(f"cut {cut} fits several columns", value=name, fix=f"Name one: {', '.join(matching)}.")
    return matching[0] if matching else name


def _nan_as_null(values: Any) -> Any:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
