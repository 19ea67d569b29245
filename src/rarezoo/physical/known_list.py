"""Named lists of known kinds of galaxies: which columns a published table has, and which of its rows carry which label.

Each list is one YAML file in ``known_lists/``; the user downloads the table itself. A list of one's own is such a file
too, or any table with a column of labels (``kind=table``)::

    title, citation, download     what it is, and where it is
    columns                       where the names of its columns are known from
    coverage                      rows: the table holds every galaxy that was classified, members and others
                                  positives: it holds members only
    id, ra, dec                   possible names of the columns of ids and positions
    labels                        name of each label: condition on the columns, in the language of cuts

Upper and lower case, spaces and underscores in names of columns do not matter.

Shape letters: n galaxies of a search, m rows of a list.
"""

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from jaxtyping import Bool, Float64

from rarezoo import tables
from rarezoo.data.expressions import decide
from rarezoo.data.positions import position_columns, positions_of
from rarezoo.data.reading import read_any_table
from rarezoo.errors import ConfigError, DataError
from rarezoo.physical.join import BY_ID, BY_POSITION, SOURCE, CatalogueMatch, join

log = logging.getLogger(__name__)

TABLE, ROWS, POSITIVES, AUTO = "table", "rows", "positives", "auto"
# What stands in a condition for the column that the user names with label_column=.
_NAMED = "label_column"
_QUOTED = re.compile(r"`([^`]*)`")
# A column with more different values holds measurements and no labels.
MOST_LABELS = 40
# Sides of the cells of the sky that count as covered by a list of positives, degrees, and the median number of entries
# of an occupied cell that makes cells large enough.
_CELLS, _ENTRIES = (1.0, 2.0, 4.0, 8.0, 16.0), 5


class Label(NamedTuple):
    """One label of a list, for n galaxies.

    Attributes
    ----------
    list : str
        Name of the list.
    label : str
        Name of the label.
    covered : (n,) array of bool
        Whether the list says of the galaxy that it has the label or has not.
    has : (n,) array of bool
        Whether it has.
    """

    list: str
    label: str
    covered: Bool[np.ndarray, " n"]
    has: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class KnownList:
    """What is known of a published list; see the top of this page.

    Examples
    --------
    >>> KnownList.named("gz2").labels["ring"]
    '`t06_odd_a14_yes_debiased` >= 0.42 and `t08_odd_feature_a19_ring_debiased` >= 0.5'
    >>> "efigi" in list_names()
    True
    """

    name: str
    title: str
    citation: str
    download: str
    columns: str
    coverage: str
    id: tuple[str, ...]
    ra: tuple[str, ...]
    dec: tuple[str, ...]
    labels: Mapping[str, str]

    @classmethod
    def named(cls, kind: str) -> "KnownList":
        """Return a list by its name, or the one that a YAML file describes.

        Raises
        ------
        ConfigError
            There is no such list, or the file does not describe one.
        """
        if kind.endswith((".yaml", ".yml")):
            return cls._read(Path(kind), name=Path(kind).stem)
        if kind == TABLE:
            return cls(TABLE, "a table of your own", "", "", "", AUTO, (tables.ID,), (), (), {})
        if kind not in list_names():
            near = difflib.get_close_matches(kind, [*list_names(), TABLE], n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(
                "unknown kind of list", value=kind,
                fix=f"{hint}Choose {', '.join(list_names())}, table for any table with labels, or a YAML file.",
            )  # fmt: skip
        with resources.as_file(_folder() / f"{kind}.yaml") as path:
            return cls._read(Path(path), name=kind)

    @classmethod
    def _read(cls, path: Path, *, name: str) -> "KnownList":
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
                raise ValueError("it needs labels, each with a condition")
            lists: dict[str, Any] = {key: _names(content.get(key)) for key in ("id", "ra", "dec")}
            texts: dict[str, Any] = {
                key: str(content.get(key) or "") for key in ("title", "citation", "download", "columns")
            }
            labels = {str(label): str(condition) for label, condition in content["labels"].items()}
            coverage = str(content.get("coverage") or AUTO)
            if coverage not in (AUTO, ROWS, POSITIVES) or not labels:
                raise ValueError(f"coverage: {coverage}")
        except (OSError, ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError) as problem:
            raise ConfigError(
                f"no description of a list ({str(problem).splitlines()[0][:120]})", value=path,
                fix="Write it as the files in rarezoo/physical/known_lists are written.",
            ) from problem  # fmt: skip
        return cls(name=name, coverage=coverage, labels=labels, **texts, **lists)

    def read(
        self,
        file: Path | str,
        *,
        ids: np.ndarray,
        sky: tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]] | tuple[None, None],
        radius: float = 1.0,
        id_column: str = "",
        ra_column: str = "",
        dec_column: str = "",
        label_column: str = "",
        coverage: str = AUTO,
    ) -> tuple[list[Label], str]:
        """Read the labels of n galaxies from a table.

        Parameters
        ----------
        file
            CSV, Parquet, FITS, VOTable or ECSV file.
        ids
            Ids of the galaxies.
        sky
            Their right ascensions and declinations in degrees, NaN where unknown; two None if no position is known.
        radius
            Largest distance of a match by position, arcsec.
        id_column, ra_column, dec_column
            Columns of the table, instead of those of the list.
        label_column
            Column of labels (``kind=table``), or the column that the list does not know the name of.
        coverage
            ``rows`` or ``positives`` instead of what the list says.

        Returns
        -------
        list of Label
            The labels that can be compared.
        str
            How many galaxies the list covers, and how that was decided.

        Raises
        ------
        DataError, ConfigError
            No galaxy matches, a column is missing, an id occurs twice, or no galaxy has any label.
        """
        source = Path(file).name
        table = read_any_table(Path(file), text=_looks_like_id({*self.id, id_column, tables.ID}))
        place = {
            "id_column": self._column(table, id_column, self.id, source=source, setting="id_column"),
            "ra_column": self._column(table, ra_column, self.ra, source=source, setting="ra_column"),
            "dec_column": self._column(table, dec_column, self.dec, source=source, setting="dec_column"),
        }
        usual = position_columns(table.column_names)
        if usual and not (place["ra_column"] or place["dec_column"]):
            place["ra_column"], place["dec_column"] = usual
        flags = self._flags(table, label_column, source=source)
        match = _matched(table, place, ids=ids, sky=sky, radius=radius, source=source)
        rows = pa.array(match.rows, mask=match.rows < 0)
        single = len(flags) == 1 and not pc.any(pc.invert(next(iter(flags.values())))).as_py()
        how = coverage if coverage != AUTO else self.coverage
        how = (POSITIVES if single else ROWS) if how == AUTO else how
        covered = match.rows >= 0
        about = f"{match}; covered are the galaxies that it lists"
        if how == POSITIVES:
            covered, where = _footprint(table, place, sky, source=source, galaxies=len(ids))
            covered |= match.rows >= 0
            about = f"{match}; it lists members only, and covered are {where}"
        labels = []
        for label, flag in flags.items():
            taken = flag.take(rows)
            has = pc.fill_null(taken, False).to_numpy(zero_copy_only=False)
            known = covered if how == POSITIVES else pc.is_valid(taken).to_numpy(zero_copy_only=False)
            labels.append(Label(self.name if self.name != TABLE else Path(file).stem, label, known | has, has))
        useful = [label for label in labels if label.has.any()]
        if not useful:
            raise DataError(
                f"no galaxy of the search has any label of {source}", value=", ".join(flags)[:200],
                fix="Choose another list, or a larger radius=, or look at the column of labels.",
            )  # fmt: skip
        nobody = [label.label for label in labels if not label.has.any()]
        if nobody:
            log.warning("%s: no galaxy of the search has %s", source, ", ".join(nobody))
        return useful, about

    def _column(self, table: pa.Table, given: str, names: Sequence[str], *, source: str, setting: str) -> str:
        """Return the column that the user names, or the first of the list's that the table has; empty if none."""
        if given:
            column = _spelled(given, table.column_names)
            if column is None:
                raise _no_column(given, table, source=source, fix=f"Name it with {setting}=.")
            return column
        found = [column for name in names if (column := _spelled(name, table.column_names))]
        return found[0] if found else ""

    def _flags(self, table: pa.Table, label_column: str, *, source: str) -> dict[str, pa.BooleanArray]:
        """Return for each label and each row whether it has the label; null if that is not known."""
        if self.name == TABLE:
            return _distinct_labels(table, label_column, source=source)
        conditions = self._conditions(table, label_column, source=source)
        flags = {label: decide(condition, table, called="label") for label, condition in conditions.items()}
        unknown = [label for label, flag in flags.items() if flag.null_count == len(flag)]
        if len(unknown) == len(flags):
            raise DataError(
                f"{source}: all values of its labels are unknown", value=", ".join(flags)[:200],
                fix="Check the columns of the table, or download it again.",
            )  # fmt: skip
        if unknown:
            log.warning("%s: all values are unknown for %s", source, ", ".join(unknown))
        return {label: flag for label, flag in flags.items() if label not in unknown}

    def _conditions(self, table: pa.Table, label_column: str, *, source: str) -> dict[str, str]:
        """Return the condition of each label in the table's own names; labels that lack a column are left out."""
        conditions, lacking = {}, {}
        for label, condition in self.labels.items():
            renamed = condition
            for name in _QUOTED.findall(condition):
                wanted = label_column if name == _NAMED else name
                if not wanted:
                    raise ConfigError(
                        f"the name of the column of {self.title} is not known", value=source,
                        fix=f"Give it with label_column=. The table has: {', '.join(table.column_names[:20])}.",
                    )  # fmt: skip
                column = _spelled(wanted, table.column_names)
                if column is None:
                    lacking[wanted] = label
                    break
                renamed = renamed.replace(f"`{name}`", f"`{column}`")
            else:
                conditions[label] = renamed
        if not conditions:
            raise _no_column(next(iter(lacking)), table, source=source, fix=f"Is it the table of {self.download}?")
        if lacking:
            log.warning("%s has no column %s, so its labels are fewer", source, ", ".join(lacking))
        return conditions


def _names(written: Any) -> tuple[str, ...]:
    """Return the names of columns that a YAML file gives, as a list or as one text."""
    return tuple(map(str, [written] if isinstance(written, (str, int, float)) else written or ()))


def list_names() -> list[str]:
    """Return the names of the lists that rarezoo knows."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def _folder() -> Any:
    return resources.files("rarezoo.physical") / "known_lists"


def _plain(name: str) -> str:
    """Return a name without what may be spelled otherwise: case, spaces, underscores, and the campaign of an answer."""
    return re.sub(r"[^0-9a-z]", "", re.sub(r"-(euclid|cd|gz2|desi)_", "_", name.casefold()))


def _spelled(name: str, columns: Sequence[str]) -> str | None:
    """Return the column of that name, or the only one that is spelled a little otherwise."""
    if name in columns:
        return name
    alike = [column for column in columns if _plain(column) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _looks_like_id(names: set[str]) -> Any:
    wanted = {_plain(name) for name in names if name}
    return lambda column: _plain(column) in wanted


def _no_column(name: str, table: pa.Table, *, source: str, fix: str) -> DataError:
    near = difflib.get_close_matches(name, table.column_names, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return DataError(
        f"{source} has no column", value=name, fix=f"{hint}{fix} There are: {', '.join(table.column_names[:20])}."
    )


def _distinct_labels(table: pa.Table, label_column: str, *, source: str) -> dict[str, pa.BooleanArray]:
    """Return each value of a column of labels as a label; galaxies with a blank one have none of them."""
    wanted = label_column or tables.LABEL
    column = _spelled(wanted, table.column_names)
    if column is None:
        raise _no_column(wanted, table, source=source, fix="Name the column of labels with label_column=.")
    cells = [None if cell is None or cell != cell else str(cell).strip() for cell in table.column(column).to_pylist()]
    values = sorted({cell for cell in cells if cell})
    if not values:
        raise DataError(f"{source}: column {column} is empty", value=f"{len(cells):,} rows", fix="Fill it with labels.")
    if len(values) > MOST_LABELS:
        raise DataError(
            f"{source}: column {column} holds too many different values for labels",
            value=f"{len(values):,}, such as {', '.join(values[:3])}",
            fix=f"Give at most {MOST_LABELS} labels, or describe the list in a YAML file: kind=FILE.yaml.",
        )  # fmt: skip
    return {value: pa.array([cell == value for cell in cells]) for value in values}


def _matched(
    table: pa.Table, place: Mapping[str, str], *, ids: np.ndarray, sky: tuple[Any, Any], radius: float, source: str
) -> CatalogueMatch:
    """Match the rows of a list to galaxies: by id if it has ids of them, otherwise by position."""
    id_column, ra_column, dec_column = (place[name] for name in ("id_column", "ra_column", "dec_column"))
    columns = [name for name in (id_column, ra_column, dec_column) if name]
    if not columns:
        raise DataError(
            f"{source} has no column of ids or positions that is known", value=", ".join(table.column_names[:12]),
            fix="Name them with id_column=, or ra_column= and dec_column=.",
        )  # fmt: skip
    entries = table.select(dict.fromkeys(columns))
    known = set(map(str, ids))
    by_id = bool(id_column) and not known.isdisjoint(map(str, entries.column(id_column).to_pylist()))
    positions = bool(ra_column and dec_column) and sky[0] is not None
    joined = join(
        ids, *sky, [entries.replace_schema_metadata({SOURCE: source.encode()})], radius,
        by=BY_ID if by_id or not positions else BY_POSITION, id_column=id_column or tables.ID, ra_column=ra_column,
        dec_column=dec_column,
    )  # fmt: skip
    return joined.matches[0]


def _footprint(
    table: pa.Table, place: Mapping[str, str], sky: tuple[Any, Any], *, source: str, galaxies: int
) -> tuple[Bool[np.ndarray, " n"], str]:
    """Return which galaxies lie where a list of positives has entries, and that in words.

    The sky is divided into cells of nearly equal area, as small as possible, so that the median cell with an entry has
    at least five. Cells with an entry are covered. Which cells these are does not depend on the classes, so the test
    stays valid whatever their size; cells that are too large only make the label look rarer than it is.
    """
    ra_column, dec_column = place["ra_column"], place["dec_column"]
    if not (ra_column and dec_column) or sky[0] is None:
        return np.ones(galaxies, dtype=bool), "all galaxies of the search, because no positions are known"
    names = [f"row {row}" for row in range(table.num_rows)]
    entries = positions_of(table, ids=names, source=source, ra_column=ra_column, dec_column=dec_column)
    ra, dec = (column.to_numpy(zero_copy_only=False) for column in (entries.ra, entries.dec))
    ra, dec = (values[np.isfinite(ra + dec)] for values in (ra, dec))
    for side in _CELLS:
        occupied, counts = np.unique(_cells(ra, dec, side), return_counts=True)
        if np.median(counts) >= _ENTRIES:
            break
    inside = np.isin(_cells(*sky, side), occupied) & np.isfinite(sky[0] + sky[1])
    return inside, f"{inside.sum():,} galaxies in cells of {side:g} degrees that hold an entry"


def _cells(ra: np.ndarray, dec: np.ndarray, side: float) -> np.ndarray:
    """Return the number of the cell of each position: bands of declination, divided so that cells have one area."""
    band = np.floor((np.nan_to_num(dec) + 90) / side).astype(np.int64)
    across = np.maximum(np.round(360 / side * np.cos(np.radians((band + 0.5) * side - 90))), 1).astype(np.int64)
    column = np.minimum((np.nan_to_num(ra) % 360 / 360 * across).astype(np.int64), across - 1)
    return np.asarray(band * 10_000 + column)
