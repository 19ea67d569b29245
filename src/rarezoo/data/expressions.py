"""A small language for conditions on the columns of a table, such as ``redshift < 0.1 and not (size > 30)``.

``pandas.DataFrame.query`` would not do: there a comparison with NaN is false and its negation true, and its
documentation warns of code injection.
"""

import ast
import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64

from rarezoo.data.trees import campaigns
from rarezoo.errors import ConfigError

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


def decide(condition: str, table: pa.Table, *, called: str = "cut") -> pa.BooleanArray:
    """Return for every row of a table whether a condition is true, false or, because a value is unknown, undecided.

    A comparison with NaN or null is neither true nor false, and stays so under ``and``, ``or`` and ``not`` as long as
    the other side does not decide.

    Parameters
    ----------
    condition : str
        Columns, numbers and texts, ``< <= > >= == !=``, ``and or not``, ``+ - * /`` and brackets. A name with a ``-``
        in it is written between backquotes. An answer may be named without its campaign: where there is no column
        ``disk-edge-on_yes_fraction``, these words stand for ``disk-edge-on-gz2_yes_fraction``.
    table : pyarrow.Table
        Table of n rows. Columns of lists cannot be named.
    called : str
        What messages call the condition.

    Returns
    -------
    pyarrow.BooleanArray
        (n,) true, false, or null where the condition is undecided.

    Raises
    ------
    ConfigError
        The condition cannot be read, names an unknown column, or is not true or false of a row.

    Examples
    --------
    >>> galaxies = pa.table({"redshift": [0.05, 0.3, None], "size": [4, 9, 2]})
    >>> decide("redshift < 0.1 or size < 3", galaxies).to_pylist()
    [True, False, True]
    >>> decide("redshift < 0.1", galaxies).to_pylist()
    [True, False, None]
    """
    verdict = _computed(condition, table, called)
    if not isinstance(verdict, pa.Array) or verdict.type != pa.bool_():
        raise ConfigError(f"a {called} must be true or false of a galaxy", value=condition, fix=_GRAMMAR)
    return verdict


def evaluate(expression: str, table: pa.Table, *, called: str = "expression") -> Float64[np.ndarray, " n"]:
    """Return the number that an expression is for every row of a table; NaN where a value is unknown.

    Parameters
    ----------
    expression : str
        In the language of :func:`decide`.
    table : pyarrow.Table
        Table of n rows.
    called : str
        What messages call the expression.

    Raises
    ------
    ConfigError
        The expression cannot be read, names an unknown column, or is no number for a row.

    Examples
    --------
    >>> evaluate("bar * (1 - ring)", pa.table({"bar": [0.5, None], "ring": [0.25, 0.5]}), called="score").tolist()
    [0.375, nan]
    """
    values = _computed(expression, table, called)
    if not isinstance(values, pa.Array) or not pa.types.is_floating(values.type):
        raise ConfigError(f"a {called} must be a number for a galaxy", value=expression, fix=_GRAMMAR)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def columns_of(expression: str, known: Sequence[str], *, called: str = "cut") -> list[str]:
    """Return the columns that an expression uses, each once, so that only these need be read.

    Parameters
    ----------
    expression : str
        In the language of :func:`decide`.
    known : sequence of str
        Names of the columns that there are.
    called : str
        What messages call the expression.

    Raises
    ------
    ConfigError
        The expression cannot be read, or names an unknown column.

    Examples
    --------
    >>> columns_of("`disk-edge-on_yes_fraction` > 0.5", ["disk-edge-on-gz2_yes_fraction", "size"])
    ['disk-edge-on-gz2_yes_fraction']
    """
    parsed, aliases = _parsed(expression, called)
    names = [node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(_resolved(aliases.get(name, name), known, f"{called} {expression}") for name in names))


def _parsed(expression: str, called: str) -> tuple[ast.expr, dict[str, str]]:
    """Return the tree of an expression, and what the placeholders of quoted names in it stand for."""
    quoted = _QUOTED.findall(expression)
    numbers = iter(range(len(quoted)))
    try:
        parsed = ast.parse(_QUOTED.sub(lambda _: f"{_PLACEHOLDER}{next(numbers)}", expression).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as problem:
        raise ConfigError(f"unreadable {called}", value=expression, fix=_GRAMMAR) from problem
    return parsed.body, {f"{_PLACEHOLDER}{index}": name for index, name in enumerate(quoted)}


def _computed(expression: str, table: pa.Table, called: str) -> Any:
    """Return what an expression is for every row, as one array if it depends on the row."""
    parsed, aliases = _parsed(expression, called)
    try:
        values = _value(parsed, table, aliases, f"{called} {expression}")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, TypeError) as problem:
        raise ConfigError(f"{called} {expression} mixes kinds of values", value=problem, fix=_GRAMMAR) from problem
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _value(node: ast.expr, table: pa.Table, aliases: Mapping[str, str], condition: str) -> Any:
    """One node of an expression, as an Arrow array or scalar; NaN is null in it."""

    def inner(child: ast.expr) -> Any:
        return _value(child, table, aliases, condition)

    match node:
        case ast.Name(id=name):
            return _column(aliases.get(name, name), table, condition)
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
    raise ConfigError(f"{condition} may not hold", value=_as_written(node, aliases), fix=_GRAMMAR)


def _as_written(node: ast.expr, aliases: Mapping[str, str]) -> str:
    return re.sub(rf"{_PLACEHOLDER}\d+", lambda match: f"`{aliases[match[0]]}`", ast.unparse(node))


def _column(name: str, table: pa.Table, condition: str) -> pa.ChunkedArray:
    known = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    column = table.column(_resolved(name, known, condition))
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return _nan_as_null(column.cast(pa.float64())) if numeric else column


def _resolved(name: str, known: Sequence[str], condition: str) -> str:
    """Return the column that a name stands for; ConfigError if there is none."""
    if name not in known:
        name = _with_campaign(name, known, condition)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        fix = f"{hint}Columns are: {', '.join(known)}. {_GRAMMAR}"
        raise ConfigError(f"{condition} names an unknown column", value=name, fix=fix)
    return name


def _with_campaign(name: str, known: Sequence[str], condition: str) -> str:
    """Column that a name without its campaign stands for; ConfigError if several campaigns have such a column."""
    question, _, answer = name.partition("_")
    spellings = {f"{question}-{campaign}_{answer}" for campaign in campaigns()}
    matching = [column for column in known if column in spellings]
    if len(matching) > 1:
        raise ConfigError(f"{condition} fits several columns", value=name, fix=f"Name one: {', '.join(matching)}.")
    return matching[0] if matching else name


def _nan_as_null(values: Any) -> Any:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
