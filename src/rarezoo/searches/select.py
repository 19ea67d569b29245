"""Which galaxies are searched: cuts on predicted fractions and on anything else that the table says of a galaxy."""

import ast
import difflib
import logging
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from rarezoo import tables
from rarezoo.data.trees import campaigns
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, StoreError
from rarezoo.settings import setting

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
class Toll:
    """What one cut took, whatever the others took.

    Attributes:
        cut: the expression.
        dropped: galaxies that it drops, those undecided included if ``nan=drop``.
        undecided: galaxies for which a NaN leaves the expression neither true nor false.
    """

    cut: str
    dropped: int
    undecided: int

    def __str__(self) -> str:
        return f"{self.cut} drops {self.dropped} ({self.undecided} undecided by NaN)"


class Selection(NamedTuple):
    """Which galaxies are kept (n,), and what each cut took."""

    mask: Bool[np.ndarray, " galaxies"]
    tolls: tuple[Toll, ...]


@dataclass
class Select:
    """Cuts, then a random subset of what is left.

    A comparison with NaN is neither true nor false, and stays so under ``and``, ``or`` and ``not`` as long as the other
    side leaves it open: ``x >= 0.3`` and ``not (x < 0.3)`` drop the same galaxies. What stays open, ``nan`` decides.

    A cut may name an answer without its campaign: where there is no column ``disk-edge-on_yes_fraction``, the same
    words stand for ``disk-edge-on-gz2_yes_fraction``, so that one cut serves surveys of any campaign.
    """

    drop: list[str] = setting([], "each drops the galaxies for which it is true, e.g. '`bar_no_fraction` >= 0.5'")
    nan: str = setting("keep", "galaxies for which NaN leaves a cut undecided: keep or drop")
    fractions_from: str = setting("", "store of the same galaxies whose predicted fractions are used; empty: its own")
    fractions_by: str = setting("", "architecture that must have predicted those fractions; empty: any")
    not_finite: str = setting("refuse", "galaxies whose embedding is not finite: refuse (to search) or drop")
    sample: int = setting(0, "search a random subset of at most this many; 0 = all", unit="galaxies")

    def judged(self, galaxies: pa.Table, *, store: EmbeddingStore) -> pa.Table:
        """The store's galaxies with the fractions that ``fractions_from`` predicts for them, joined by id.

        Cuts go by these, and so does what is said of the classes' answers.

        Args:
            galaxies: EMBEDDINGS table read from ``store``.
            store: that is searched.

        Raises:
            StoreError: no whole store there, one of another survey, or one that lacks some of the galaxies.
            ConfigError: the fractions would be those of another architecture than ``fractions_by``.
        """
        other = EmbeddingStore.open(self.fractions_from) if self.fractions_from else store
        self._refuse_other_architecture(other.manifest.checkpoint)
        if other.folder.resolve() == store.folder.resolve():
            return galaxies
        _refuse_other_survey(other, store)
        fractions = other.read([tables.ID, *map(tables.fraction_column, other.manifest.answers)])
        rows = pc.index_in(galaxies[tables.ID], value_set=fractions[tables.ID].combine_chunks())
        _refuse_missing(galaxies.filter(pc.is_null(rows)), galaxies, other)
        judged = galaxies.drop_columns([name for name in galaxies.column_names if tables.is_fraction_column(name)])
        for name, column in zip(fractions.column_names[1:], fractions.take(rows).columns[1:], strict=True):
            judged = judged.append_column(name, column)
        return judged

    def _refuse_other_architecture(self, checkpoint: str) -> None:
        """Checkpoints are named architecture.tag; one that is not may be anything."""
        architecture, dot, _ = checkpoint.partition(".")
        if not self.fractions_by or architecture == self.fractions_by:
            return
        if dot:
            raise ConfigError(
                f"these cuts go by fractions that {self.fractions_by} predicts, and here is", value=checkpoint,
                fix=f"Give select.fractions_from=STORE made with {self.fractions_by}, or select.fractions_by= for any.",
            )  # fmt: skip
        log.warning("cuts go by the fractions of checkpoint %s, taken to be %s", checkpoint, self.fractions_by)

    def kept(self, galaxies: pa.Table, *, seed: int = 0) -> Selection:
        """Apply the cuts.

        Args:
            galaxies: EMBEDDINGS table of n rows, or any other with ids.
            seed: of the random subset, which does not depend on the order of the rows.

        Raises:
            ConfigError: a cut cannot be read or names an unknown column; no galaxy is left.
        """
        if self.nan not in ("keep", "drop") or self.not_finite not in ("refuse", "drop") or self.sample < 0:
            fix = "Choose nan: keep or drop, not_finite: refuse or drop, and sample: 0 or more."
            raise ConfigError("select", value=self, fix=fix)
        mask, tolls = np.ones(galaxies.num_rows, dtype=bool), []
        for cut in self.drop:
            verdict = _verdict(cut, galaxies)
            dropped = pc.fill_null(verdict, self.nan == "drop").to_numpy(zero_copy_only=False)
            tolls.append(Toll(cut, int(dropped.sum()), verdict.null_count))
            mask &= ~dropped
        if self.not_finite == "drop":
            lost = ~np.isfinite(tables.matrix(galaxies, tables.EMBEDDING)).all(axis=1)
            tolls.append(Toll("an embedding that is not finite", int(lost.sum()), 0))
            mask &= ~lost
        log.info("%d of %d galaxies kept. %s", mask.sum(), len(mask), "; ".join(map(str, tolls)))
        if not mask.any():
            told = "; ".join(map(str, tolls)) or "there are none"
            raise ConfigError(f"none of {len(mask)} galaxies is left to search", value=told, fix="Loosen a cut.")
        return Selection(self._subset(mask, galaxies, seed=seed), tuple(tolls))

    def _subset(self, mask: np.ndarray, galaxies: pa.Table, *, seed: int) -> np.ndarray:
        if not self.sample or self.sample >= mask.sum():
            return mask
        rows = np.flatnonzero(mask)
        by_id = rows[np.argsort(tables.strings(galaxies, tables.ID)[rows].astype(str))]
        chosen = np.zeros_like(mask)
        chosen[np.random.default_rng(seed).choice(by_id, self.sample, replace=False)] = True
        return chosen


def _refuse_other_survey(other: EmbeddingStore, store: EmbeddingStore) -> None:
    """Equal ids mean equal galaxies only within one survey, of which a store may hold the first galaxies."""
    theirs, ours = ({**one.manifest.survey_settings, "limit": 0} for one in (other, store))
    if other.manifest.survey_sha256 != store.manifest.survey_sha256 and theirs != ours:
        raise StoreError(
            "select.fractions_from is a store of another survey", value=other.folder,
            fix=f"Embed the survey of {store.folder} with that checkpoint too.",
        )  # fmt: skip


def _refuse_missing(missing: pa.Table, galaxies: pa.Table, other: EmbeddingStore) -> None:
    if missing.num_rows:
        raise StoreError(
            f"{other.folder} has no fractions for some of the galaxies", ids=missing[tables.ID].to_pylist(),
            value=f"{missing.num_rows} of {galaxies.num_rows}", fix="Embed them with that checkpoint too.",
        )  # fmt: skip


def _verdict(cut: str, galaxies: pa.Table) -> pa.Array:
    """True, false or null (undecided) for every galaxy."""
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
        raise ConfigError(f"cut {cut} mixes kinds", value=problem, fix=_GRAMMAR) from problem
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
    return re.sub(rf"{_PLACEHOLDER}\d+", lambda found: f"`{aliases[found[0]]}`", ast.unparse(node))


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
    """The one column that the name stands for if it leaves out its campaign: smooth-or-featured-gz2_smooth_fraction.

    Raises:
        ConfigError: several campaigns have such a column.
    """
    question, _, answer = name.partition("_")
    matching = [one for one in known if one in {f"{question}-{campaign}_{answer}" for campaign in campaigns()}]
    if len(matching) > 1:
        raise ConfigError(f"cut {cut} fits several columns", value=name, fix=f"Name one: {', '.join(matching)}.")
    return matching[0] if matching else name


def _nan_as_null(values: Any) -> Any:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
