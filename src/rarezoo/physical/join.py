"""Join catalogues to galaxies by id or by position, and say how many matches chance would have made.

A catalogue with a column of ids that fit is joined by id, every other one by position::

    match           the nearest entry within the radius; an entry that is nearest to several galaxies belongs to the
                    nearest of them
    ambiguous       a galaxy with several entries within the radius, or whose entry is nearer to another galaxy
    chance rate     share of galaxies with a match if the catalogue is shifted by half an arcminute or more, mean of
                    eight directions

Positions are compared as they are given, without proper motions: the catalogues need the same epoch only for stars.
A column that several catalogues have is one property: the value of the first catalogue that knows it, in the unit of
the first catalogue that has the column.

Shape letters: n galaxies, m entries of a catalogue.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int64

from rarezoo import tables
from rarezoo.data.positions import position_columns, positions_of
from rarezoo.data.reading import (
    UNIT,
    arrow_of,
    ids_of,
    matched_rows,
    no_column,
    plain_columns,
    read_any_table,
    refuse_doubled,
)
from rarezoo.errors import ConfigError, DataError
from rarezoo.physical.fetch import fetch, is_address

log = logging.getLogger(__name__)

AUTO, BY_ID, BY_POSITION = "auto", "id", "position"
# Key of the metadata of a table that holds its name for messages.
SOURCE = b"source"
# Largest radius of a match, and least distance by which a catalogue is shifted to count matches by chance; arcsec.
LARGEST_RADIUS, _SHIFT = 60.0, 30.0
# Radius in which the cross-match service of the CDS finds entries, arcsec.
_DIRECTIONS, _FARTHEST = 8, 180.0
_ARCSEC = np.pi / 180 / 3600
# Right ascensions in hours are recognised by this many times more matches.
_HOURS_BETTER = 10


class CatalogueMatch(NamedTuple):
    """How one catalogue fits the galaxies.

    Attributes
    ----------
    source : str
        Name of the catalogue.
    by : str
        ``id`` or ``position``.
    rows : (n,) array of integers
        Entry of each galaxy, −1 for none.
    distance : (n,) array of floats
        Distance to the entry, arcsec; NaN for a galaxy without one and for a match by id.
    ambiguous : (n,) array of booleans
        Whether the galaxy has several entries within the radius, or its entry is nearer to another galaxy.
    chance_rate : float
        Share of galaxies that match entries of the shifted catalogue; 0 for a match by id.
    """

    source: str
    by: str
    rows: Int64[np.ndarray, " n"]
    distance: Float64[np.ndarray, " n"]
    ambiguous: np.ndarray
    chance_rate: float

    @property
    def match_rate(self) -> float:
        """Share of galaxies with an entry."""
        return float(np.mean(self.rows >= 0))

    def __str__(self) -> str:
        words = f"{self.source}: {np.sum(self.rows >= 0):,} of {len(self.rows):,} galaxies by {self.by}"
        if self.by == BY_ID:
            return words
        unsure = int(self.ambiguous.sum())
        return f"{words}, {self.chance_rate:.2%} expected by chance" + (f", {unsure:,} ambiguous" if unsure else "")


@dataclass(frozen=True)
class Joined:
    """Catalogues joined to galaxies.

    Attributes
    ----------
    table
        Table of n rows in the order of the galaxies: ``id_str`` and the columns of all catalogues. The unit of a column
        is in its metadata, key ``unit``. Galaxies without an entry have nulls.
    matches
        How each catalogue fits.

    Examples
    --------
    >>> joined = join(["a", "b"], None, None, [pa.table({"id_str": ["b", "c"], "mass": [10.5, 9.0]})])
    >>> joined.table.to_pylist(), joined.match_rate
    ([{'id_str': 'a', 'mass': None}, {'id_str': 'b', 'mass': 10.5}], 0.5)
    """

    table: pa.Table
    matches: tuple[CatalogueMatch, ...]

    @property
    def match_rate(self) -> float:
        """Share of galaxies with an entry in at least one catalogue."""
        return float(np.mean(self._any([match.rows >= 0 for match in self.matches])))

    @property
    def chance_rate(self) -> float:
        """Largest share of galaxies that match a catalogue by chance."""
        return max((match.chance_rate for match in self.matches), default=0.0)

    @property
    def ambiguous(self) -> list[str]:
        """Ids of the galaxies whose match with a catalogue is ambiguous."""
        unsure = self._any([match.ambiguous for match in self.matches])
        return [str(galaxy) for galaxy in tables.strings(self.table, tables.ID)[unsure]]

    def _any(self, flags: Sequence[np.ndarray]) -> np.ndarray:
        return np.any([np.zeros(self.table.num_rows, dtype=bool), *flags], axis=0)

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column that has one."""
        fields = {field.name: (field.metadata or {}).get(UNIT, b"").decode() for field in self.table.schema}
        return {name: unit for name, unit in fields.items() if unit}

    @property
    def qtable(self) -> Any:
        """The table as an ``astropy.table.QTable``: columns with units are quantities, unknown numbers are NaN."""
        from astropy.table import QTable
        from astropy.units import Unit

        frame = self.table.to_pandas()
        columns = {
            name: frame[name].to_numpy(dtype=np.float64 if name in self.units else None, na_value=np.nan)
            if name in self.units
            else frame[name].to_numpy()
            for name in self.table.column_names
        }
        units = {name: Unit(unit, parse_strict="silent") for name, unit in self.units.items()}
        return QTable(columns, units=units)

    def __repr__(self) -> str:
        return f"Joined({'; '.join(map(str, self.matches))})"


def join(
    ids: Sequence[str] | np.ndarray,
    ra: Sequence[float] | np.ndarray | pa.Array | pa.ChunkedArray | None,
    dec: Sequence[float] | np.ndarray | pa.Array | pa.ChunkedArray | None,
    catalogues: Sequence[Any],
    radius: float = 1.0,
    *,
    by: str = AUTO,
    id_column: str = tables.ID,
    ra_column: str = "",
    dec_column: str = "",
    own: pa.Table | None = None,
) -> Joined:
    """Join catalogues to galaxies by id or by position.

    Parameters
    ----------
    ids
        Ids of n galaxies, each once.
    ra, dec
        Their positions in degrees, NaN or null where unknown; None if no position is known.
    catalogues
        Paths of CSV, Parquet, FITS, VOTable or ECSV files, of folders of Parquet files, such as HATS catalogues, tables
        of pyarrow, pandas or astropy, or addresses such as ``vizier:J/A+A/532/A74``, see
        :mod:`rarezoo.physical.fetch`.
    radius
        Largest distance of a match by position, arcsec.
    by
        ``id``, ``position``, or ``auto``: by id if the catalogue has ids of these galaxies, otherwise by position.
    id_column, ra_column, dec_column
        Columns of the catalogues. Usual names of positions, such as RAJ2000, are found if none are given.
    own
        Columns of the galaxies themselves, n rows, which come first.

    Returns
    -------
    Joined
        The joined table and how each catalogue fits.

    Raises
    ------
    ConfigError
        The radius or ``by`` is impossible, one of two columns of positions is named, or there is no catalogue.
    DataError
        No galaxy matches, a column is missing, an id occurs more than once, or units do not fit.
    """
    if not isinstance(radius, (int, float, np.number)) or not 0 < radius <= LARGEST_RADIUS:
        raise ConfigError(
            f"the radius of a match must be above 0 and at most {LARGEST_RADIUS:.0f} arcsec", value=radius,
            fix="1 arcsec suits most surveys; a larger radius adds matches by chance.",
        )  # fmt: skip
    if by not in (AUTO, BY_ID, BY_POSITION):
        raise ConfigError("galaxies are not matched in this way", value=by, fix="Choose auto, id or position.")
    if bool(ra_column) != bool(dec_column):
        raise ConfigError(
            "ra_column= and dec_column= belong together", value=ra_column or dec_column, fix="Name both columns."
        )
    if not len(catalogues) and own is None:
        raise ConfigError("there is no catalogue to join", value="nothing", fix="Give at least one: with=FILE.")
    galaxies = [str(galaxy) for galaxy in ids]
    sky = None if ra is None or dec is None else (_floats(ra), _floats(dec))
    columns = _Columns(galaxies)
    if own is not None:
        columns.add(own, np.arange(len(galaxies)), without=set(), source="the survey")
    matches = []
    for number, given in enumerate(catalogues, start=1):
        if is_address(given):
            # Entries around the galaxies are fetched too, from which the matches by chance are counted.
            reach = min(shift_of(radius) + radius, _FARTHEST)
            fetched = fetch(given, None if sky is None else sky[0], None if sky is None else sky[1], reach)
            table, source = arrow_of(fetched, source=given), given
        else:
            table, source = read_catalogue(given, number=number, id_column=id_column)
        match, used = _matched(
            table, source, galaxies, sky, radius=radius, by=by, id_column=id_column, columns=(ra_column, dec_column)
        )
        matches.append(match)
        log.info("%s", match)
        columns.add(table, match.rows, without=used, source=source)
    return Joined(columns.table(), tuple(matches))


class _Columns:
    """The columns that catalogues have given so far, with their fields and sources."""

    def __init__(self, ids: list[str]) -> None:
        self.arrays: dict[str, pa.Array] = {tables.ID: pa.array(ids, pa.string())}
        self.fields = {tables.ID: pa.field(tables.ID, pa.string())}
        self.sources: dict[str, str] = {}

    def add(self, table: pa.Table, rows: Int64[np.ndarray, " n"], *, without: set[str], source: str) -> None:
        """Add the columns of a catalogue, whose row of each galaxy is known, −1 for none."""
        for field in table.schema:
            name = field.name
            if name in without or name == tables.ID or not _is_property(field.type):
                continue
            values = table.column(name).combine_chunks().take(pa.array(rows, mask=rows < 0))
            if name not in self.arrays:
                self.arrays[name], self.fields[name], self.sources[name] = values, field, source
                continue
            filled = _filled(self.arrays[name], self.fields[name], values, field, sources=(self.sources[name], source))
            self.arrays[name], self.fields[name] = filled, self.fields[name].with_type(filled.type)

    def table(self) -> pa.Table:
        """Return them as a table."""
        return pa.table(list(self.arrays.values()), schema=pa.schema(self.fields.values()))


def shift_of(radius: float) -> float:
    """Return by how many arcsec a catalogue is shifted to count matches by chance."""
    return max(_SHIFT, 3 * radius)


def read_catalogue(given: Any, *, number: int = 1, id_column: str = tables.ID) -> tuple[pa.Table, str]:
    """Return a catalogue as an Arrow table with units in the metadata of columns, and its name.

    Parameters
    ----------
    given
        A path, or a table of pyarrow, pandas or astropy.
    number
        Its place, for the name of a table without a file.
    id_column
        Column that stays text in a CSV file.
    """
    if isinstance(given, (str, Path)):
        path = Path(given)
        return read_any_table(path, text=lambda name: name.strip().casefold() == id_column.casefold()), path.name
    source = f"catalogue {number}"
    if isinstance(given, pa.Table):
        return plain_columns(given), (given.schema.metadata or {}).get(SOURCE, source.encode()).decode()
    if hasattr(given, "colnames"):
        return arrow_of(given, source=source), source
    if hasattr(given, "to_records"):
        return plain_columns(pa.Table.from_pandas(given, preserve_index=False)), source
    raise ConfigError(
        "a catalogue of an unknown kind", value=type(given).__name__,
        fix="Give the path of a file, or a table of pyarrow, pandas or astropy.",
    )  # fmt: skip


def _matched(
    table: pa.Table,
    source: str,
    galaxies: list[str],
    sky: tuple[np.ndarray, np.ndarray] | None,
    *,
    radius: float,
    by: str,
    id_column: str,
    columns: tuple[str, str],
) -> tuple[CatalogueMatch, set[str]]:
    """Match one catalogue; return the match and the columns that it was made with."""
    if not table.num_rows:
        raise DataError("the catalogue has no rows", value=source, fix="Give a catalogue with at least one galaxy.")
    spelled = {name.strip().casefold(): name for name in table.column_names}
    named = spelled.get(id_column.casefold())
    for name in columns:
        if name and name not in table.column_names:
            raise no_column(table, name, source=source, setting_name="ra_column, dec_column")
    place = columns if all(columns) else position_columns(table.column_names)
    used = {name for name in (named, *(place or ())) if name}
    if by == BY_ID and named is None:
        raise no_column(table, id_column, source=source, setting_name="id_column")
    if named is not None and by != BY_POSITION:
        others = ids_of(table, named, source=source)
        known = set(galaxies)
        if by == BY_ID or place is None or sky is None or not known.isdisjoint(others):
            # Other galaxies of the catalogue may occur as often as they like.
            refuse_doubled([other for other in others if other in known], source=source)
            rows = matched_rows(
                galaxies, others, source="the search", other_source=source,
                fix="Name the column of ids with id_column=, or match with by=position.",
            )  # fmt: skip
            nowhere = np.full(len(galaxies), np.nan)
            return CatalogueMatch(source, BY_ID, rows, nowhere, np.zeros(len(galaxies), dtype=bool), 0.0), used
    if place is None:
        raise DataError(
            f"{source} has neither ids nor positions that could be matched",
            value=", ".join(table.column_names[:12]),
            fix=f"Add a column {id_column}, or name its columns with id_column=, ra_column= and dec_column=.",
        )
    if sky is None or not np.isfinite(sky[0] + sky[1]).any():
        raise DataError(
            "the galaxies of the search have no positions", value=source,
            fix=f"Give the catalogue a column {id_column}, or the survey the columns ra and dec.",
        )  # fmt: skip
    return _by_position(table, source, galaxies, sky, place=place, radius=radius), used


def _by_position(
    table: pa.Table,
    source: str,
    galaxies: list[str],
    sky: tuple[np.ndarray, np.ndarray],
    *,
    place: tuple[str, str],
    radius: float,
) -> CatalogueMatch:
    entries = [f"row {row}" for row in range(table.num_rows)]
    found = positions_of(table, ids=entries, source=source, ra_column=place[0], dec_column=place[1])
    ra, dec = _floats(found.ra), _floats(found.dec)
    rows, distance, ambiguous = _nearest(sky, (ra, dec), radius)
    matched = int(np.sum(rows >= 0))
    # A column of numbers without a unit may be in hours: then it fits much better as hours.
    unit = (table.schema.field(place[0]).metadata or {}).get(UNIT)
    if unit is None and not pa.types.is_string(table.schema.field(place[0]).type) and np.nanmax(ra, initial=0) <= 24:
        as_hours = int(np.sum(_nearest(sky, (ra * 15, dec), radius)[0] >= 0))
        if as_hours > _HOURS_BETTER * matched:
            raise DataError(
                f"{source}: column {place[0]} seems to be in hours: {matched:,} galaxies match as degrees, and "
                f"{as_hours:,} as hours", value=f"from {np.nanmin(ra):.3f} to {np.nanmax(ra):.3f}",
                fix=f"Multiply {place[0]} by 15, or give the column the unit hourangle.",
            )  # fmt: skip
    if not matched:
        raise DataError(
            f"no galaxy of the search is within {radius:g} arcsec of an entry of {source}",
            value=f"the search covers {_covered(*sky)}, the catalogue {_covered(ra, dec)}",
            fix="Check that both are in degrees of the same system (ICRS) and cover the same sky.",
        )
    shift = shift_of(radius) / 3600
    chance = []
    for angle in 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS:
        # Across a pole the declination is mirrored, which is a shift too.
        moved = np.clip(dec + shift * np.sin(angle), -90, 90)
        stretch = np.maximum(np.cos(np.radians(dec)), 1e-3)
        chance.append(np.mean(_nearest(sky, (ra + shift * np.cos(angle) / stretch, moved), radius)[0] >= 0))
    return CatalogueMatch(source, BY_POSITION, rows, distance, ambiguous, float(np.mean(chance)))


def _nearest(
    sky: tuple[np.ndarray, np.ndarray], entries: tuple[np.ndarray, np.ndarray], radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the row of the nearest entry of each galaxy, its distance in arcsec, and which galaxies are ambiguous."""
    from scipy.spatial import KDTree

    galaxies, known = _unit_vectors(*sky), np.flatnonzero(np.isfinite(entries[0] + entries[1]))
    rows, distance = np.full(len(galaxies), -1, dtype=np.int64), np.full(len(galaxies), np.nan)
    ambiguous = np.zeros(len(galaxies), dtype=bool)
    placed = np.flatnonzero(np.isfinite(galaxies[:, 0]))
    if not len(known) or not len(placed):
        return rows, distance, ambiguous
    tree = KDTree(_unit_vectors(entries[0][known], entries[1][known]))
    # Chords are shorter than arcs; at these radii the difference is far below a millionth.
    longest = 2 * np.sin(radius * _ARCSEC / 2)
    chords, places = map(np.asarray, tree.query(galaxies[placed], k=2, distance_upper_bound=longest))
    hit = np.isfinite(chords[:, 0])
    nearest, chord = known[places[hit, 0]], chords[hit, 0]
    matched = placed[hit]
    ambiguous[placed] = np.isfinite(chords[:, 1])
    order = np.lexsort((matched, chord))
    _, first = np.unique(nearest[order], return_index=True)
    kept = order[first]
    ambiguous[matched] |= np.isin(nearest, np.flatnonzero(np.bincount(nearest) > 1))
    rows[matched[kept]] = nearest[kept]
    distance[matched[kept]] = 2 * np.arcsin(chord[kept] / 2) / _ARCSEC
    return rows, distance, ambiguous


def _unit_vectors(ra: np.ndarray, dec: np.ndarray) -> Float64[np.ndarray, "n 3"]:
    east, north = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])


def _covered(ra: np.ndarray, dec: np.ndarray) -> str:
    if not np.isfinite(ra + dec).any():
        return "no known position"
    ends = (np.nanmin(ra), np.nanmax(ra), np.nanmin(dec), np.nanmax(dec))
    return "ra {:.2f} to {:.2f} and dec {:.2f} to {:.2f}".format(*ends)


def _floats(values: Any) -> Float64[np.ndarray, " n"]:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = values.cast(pa.float64(), safe=False).to_pandas()
    return np.asarray(values, dtype=np.float64)


def _is_property(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
    )


def _filled(
    first: pa.Array, first_field: pa.Field, second: pa.Array, second_field: pa.Field, *, sources: tuple[str, str]
) -> pa.Array:
    """Return a column, with values of another catalogue in its unit where it is null."""
    from astropy import units

    name = first_field.name
    written = [(field.metadata or {}).get(UNIT, b"").decode() for field in (first_field, second_field)]
    if written[0] != written[1]:
        parsed = [units.Unit(text, parse_strict="silent") if text else None for text in written]
        try:
            if parsed[0] is None or parsed[1] is None:
                raise units.UnitConversionError("a unit is missing")
            second = pa.array(parsed[1].to(parsed[0], _floats(second)), from_pandas=True)
        except (units.UnitConversionError, TypeError, ValueError) as problem:
            raise DataError(
                f"the units of column {name} do not fit in {sources[0]} and {sources[1]}",
                value=" and ".join(text or "no unit" for text in written),
                fix="Rename one of the columns, or give both a unit of the same kind.",
            ) from problem
    if first.type != second.type:
        numbers = [not pa.types.is_string(column.type) for column in (first, second)]
        if not all(numbers):
            raise DataError(
                f"column {name} holds texts in one catalogue and numbers in another", value=" and ".join(sources),
                fix="Rename one of the columns.",
            )  # fmt: skip
        first, second = first.cast(pa.float64(), safe=False), second.cast(pa.float64(), safe=False)
    both = int(pc.sum(pc.and_(pc.is_valid(first), pc.is_valid(second))).as_py() or 0)
    if both:
        log.warning(
            "column %s is in %s and in %s: for %s galaxies that are in both, the value of %s is taken", name, *sources,
            f"{both:,}", sources[0],
        )  # fmt: skip
    return pc.coalesce(first, second)
