"""Positions on the sky from the columns of a user's table.

A column may hold these values:

    number without a unit            degrees
    number with a unit               converted to degrees; hours of right ascension too
    text of a number                 like the number
    text such as 12:22:54.9          right ascension in hours, unless the column has a unit of degrees; declination in
                                     degrees, as astropy reads them
    null, NaN, blank                 unknown
    right ascension −180 to 0        360 is added
    other values beyond the sphere   an error
"""

import logging
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from rarezoo import tables
from rarezoo.data.reading import UNIT, no_column
from rarezoo.errors import DataError

log = logging.getLogger(__name__)

_BLANK = ("", "nan", "na", "n/a", "none", "null", "--", "-")
# Spellings that astropy does not know as units of angles, or takes for units of time.
_SPELLINGS = {
    "degrees": "deg", "degree": "deg", "deg.": "deg", "dd": "deg", "dms": "deg", "d:m:s": "deg",
    "radians": "rad", "radian": "rad", "h": "hourangle", "hr": "hourangle", "hrs": "hourangle", "hour": "hourangle",
    "hours": "hourangle", "hms": "hourangle", "h:m:s": "hourangle",
}  # fmt: skip
_LOOKS_LIKE = {
    tables.RA: re.compile(r"_?ra(_?j2000|_?deg|_icrs|_?mean)|alpha(_?j2000)?|right_?ascension|.*\.ra"),
    tables.DEC: re.compile(r"_?dec(_?j2000|_?deg|_icrs|_?mean)?|_?dej2000|de_icrs|delta(_?j2000)?|declination|.*\.dec"),
}
_RANGES = {tables.RA: (-180, 360), tables.DEC: (-90, 90)}
# Right ascensions that are given as numbers of hours fill 0 to 24.
_HOURS, _WIDE, _ENOUGH = 24, 12, 20


class Positions(NamedTuple):
    """Positions of n galaxies.

    Attributes
    ----------
    ra, dec
        (n,) degrees, null if unknown; right ascension from 0 to 360.
    columns
        Names of the columns that they were read from.
    """

    ra: pa.Array
    dec: pa.Array
    columns: tuple[str, ...]


def positions_of(
    table: pa.Table, *, ids: Sequence[str], source: str, ra_column: str = tables.RA, dec_column: str = tables.DEC
) -> Positions:
    """Read the positions of galaxies. A column may differ from its name in case and in spaces around it.

    Parameters
    ----------
    table
        Table of n rows.
    ids
        Their ids, for messages.
    source
        What the table is, for messages.
    ra_column, dec_column
        Names of the columns. If the default names do not exist, positions are unknown.

    Raises
    ------
    DataError
        A column that was named does not exist, has a unit that is no angle, or holds an impossible value.

    Examples
    --------
    >>> table = pa.table({"RA": ["12:00:00"], "Dec": ["-00:30:00"]})
    >>> positions = positions_of(table, ids=["a"], source="mine.csv")
    >>> positions.ra.to_pylist(), positions.dec.to_pylist()
    ([180.0], [-0.5])
    """
    wanted = {tables.RA: ra_column, tables.DEC: dec_column}
    names = {kind: _column_named(table, name, kind=kind, source=source) for kind, name in wanted.items()}
    absent = [kind for kind, name in names.items() if name is None]
    if len(absent) == 1:
        log.warning("%s has no column %s, so no position is known; name it with data.%s_column=", source, absent[0],
                    absent[0])  # fmt: skip
    degrees = {
        kind: np.full(table.num_rows, np.nan) if name is None else _degrees(table, name, kind=kind, source=source)
        for kind, name in names.items()
    }
    whole_sky = np.abs(degrees[tables.RA] - np.pi) <= np.pi, np.abs(degrees[tables.DEC]) <= np.pi / 2
    known = ~np.isnan(degrees[tables.RA] + degrees[tables.DEC])
    spread = np.ptp(degrees[tables.RA][known]) > np.pi if known.sum() >= _ENOUGH else False
    if spread and all(inside[known].all() for inside in whole_sky):
        log.warning(
            "%s: all positions are within 6.28 by 3.14 degrees and are taken as degrees; radians need the unit rad",
            source,
        )  # fmt: skip
    ra, dec = on_sphere(degrees[tables.RA], degrees[tables.DEC], ids=ids, source=source)
    return Positions(
        pa.array(ra, from_pandas=True),
        pa.array(dec, from_pandas=True),
        tuple(name for name in names.values() if name is not None),
    )


def position_columns(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns that hold right ascension and declination by their names, or None if they are not both there.

    Columns that are called ``ra`` and ``dec`` come first, then names that other catalogues use.

    Examples
    --------
    >>> position_columns(["recno", "RA_ICRS", "DE_ICRS"])
    ('RA_ICRS', 'DE_ICRS')
    """
    chosen = []
    for kind in (tables.RA, tables.DEC):
        spelled = {name: name.strip().casefold() for name in names}
        fitting = [name for name, plain in spelled.items() if plain == kind or _LOOKS_LIKE[kind].fullmatch(plain)]
        chosen += sorted(fitting, key=lambda name: spelled[name] != kind)[:1]
    return (chosen[0], chosen[1]) if len(chosen) == 2 else None


def on_sphere(
    ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"], *, ids: Sequence[str], source: str
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return positions in degrees with right ascensions from 0 to 360; NaN is unknown.

    Raises
    ------
    DataError
        A declination beyond ±90, a right ascension below −180 or above 360, or an infinite value.

    Examples
    --------
    >>> ra, dec = on_sphere(np.array([-10.0, 360.0]), np.array([0.0, np.nan]), ids=["a", "b"], source="mine.csv")
    >>> ra.tolist()
    [350.0, 0.0]
    """
    for kind, degrees in ((tables.RA, ra), (tables.DEC, dec)):
        low, high = _RANGES[kind]
        bad = np.flatnonzero(~np.isnan(degrees) & ~((degrees >= low) & (degrees <= high)))
        if len(bad):
            raise DataError(
                f"{source}: {kind} must be from {low} to {high} degrees", value=float(degrees[bad[0]]),
                fix="Correct those cells, or empty them if the position is unknown. A unit of the column is used.",
                ids=[str(ids[int(row)]) for row in bad],
            )  # fmt: skip
    # A modulo would change the last digit of values that are in range already.
    turned = np.where(ra < 0, ra + 360, ra)
    return np.where(turned >= 360, 0.0, turned), dec


def _column_named(table: pa.Table, wanted: str, *, kind: str, source: str) -> str | None:
    """Return the column of that name, or the only one that differs in case or spaces; None if there is none."""
    if wanted in table.column_names:
        return wanted
    spelled = [(name, name.strip().casefold()) for name in table.column_names]
    fitting = [name for name, plain in spelled if plain == wanted.strip().casefold()]
    if len(fitting) > 1:
        raise DataError(
            f"{source}: several columns fit {wanted}", value=", ".join(map(repr, fitting)),
            fix=f"Name one: data.{kind}_column=NAME.",
        )  # fmt: skip
    if not fitting and wanted != kind:
        raise no_column(table, wanted, source=source, setting_name=f"data.{kind}_column")
    alike = [name for name, plain in spelled if _LOOKS_LIKE[kind].fullmatch(plain)]
    if not fitting and alike:
        log.warning(
            "%s has no column %s, so no position is known. If %s is that column, set data.%s_column=%s", source, kind,
            alike[0], kind, alike[0],
        )  # fmt: skip
    return fitting[0] if fitting else None


def _degrees(table: pa.Table, name: str, *, kind: str, source: str) -> Float64[np.ndarray, " n"]:
    """Return a column in degrees, NaN where it is unknown."""
    from astropy import units

    column, field = table.column(name), table.schema.field(name)
    written = (field.metadata or {}).get(UNIT, b"").decode().strip().strip('"')
    spellings = [_SPELLINGS.get(written.casefold(), written), written.casefold()] if written else []
    parsed: list[Any] = [units.Unit(spelling, parse_strict="silent") for spelling in spellings]
    unit = next((known for known in parsed if known.physical_type == "angle"), parsed[0] if parsed else None)
    if unit is not None and unit.physical_type not in ("angle", "dimensionless"):
        raise DataError(
            f"{source}: the unit of column {name} is not an angle", value=written,
            fix="Write the column in degrees, with the unit deg or without one.",
        )  # fmt: skip
    # Astropy's factor for hours differs from 15 in the last digit.
    factor = 1.0
    if unit is not None and unit.physical_type == "angle":
        factor = 15.0 if unit == units.hourangle else float(unit.to("deg"))
    if pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type):
        values = column.cast(pa.float64(), safe=False).to_numpy()
        known = values[np.isfinite(values)]
        within_hours = len(known) >= _ENOUGH and known.min() >= 0 and known.max() <= _HOURS and np.ptp(known) > _WIDE
        if kind == tables.RA and unit is None and within_hours:
            log.warning(
                "%s: all values of %s are between 0 and 24 and are taken as degrees; hours need the unit hourangle or "
                "text such as 12:22:54.9", source, name,
            )  # fmt: skip
        return values * factor if factor != 1 else values
    in_hours = kind == tables.RA and (unit is None or unit.physical_type != "angle" or unit == units.hourangle)
    values = _from_text(column.to_pylist(), factor=factor, in_hours=in_hours, kind=kind, source=source)
    unread = [
        cell
        for cell, value in zip(column.to_pylist(), values, strict=True)
        if np.isnan(value) and str(cell if cell is not None else "").strip().casefold() not in _BLANK
    ]
    if unread:
        amount = "no value" if np.isnan(values).all() else f"{len(unread):,} of {len(values):,} values"
        log.warning("%s: %s of column %s could %sbe read, and these positions are unknown: %s", source, amount, name,
                    "" if amount == "no value" else "not ", ", ".join(map(repr, unread[:3])))  # fmt: skip
    return values


def _from_text(
    cells: Sequence[object], *, factor: float, in_hours: bool, kind: str, source: str
) -> Float64[np.ndarray, " n"]:
    """Read texts: a number is in the unit of the column; sexagesimal ones are in hours or degrees."""
    from astropy import units
    from astropy.coordinates import Angle, RangeError

    sexagesimal, in_degrees = (units.hourangle, 15) if in_hours else (units.deg, 1)
    values = np.full(len(cells), np.nan)
    with warnings.catch_warnings():
        # Sixty seconds are taken as a minute.
        warnings.simplefilter("ignore")
        for row, cell in enumerate(cells):
            text = "" if cell is None else str(cell).strip()
            if text.casefold() in _BLANK:
                continue
            try:
                values[row] = float(text) * factor if "_" not in text else np.nan
            except ValueError:
                try:
                    values[row] = Angle(text, unit=sexagesimal).value * in_degrees
                except RangeError as problem:
                    raise DataError(
                        f"{source}: {kind} is impossible ({problem})", value=text,
                        fix="Correct that cell, or empty it if the position is unknown.",
                    ) from problem  # fmt: skip
                except (ValueError, TypeError, units.UnitsError):
                    continue
    return values
