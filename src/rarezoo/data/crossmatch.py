"""Match two catalogues by position: with astropy, or above a million rows with LSDB on Dask."""

import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rarezoo import tables
from rarezoo.data.hats import HatsCatalogue, is_hats, reason_of
from rarezoo.data.positions import positions_of
from rarezoo.data.reading import read_any_table
from rarezoo.engines.dask import client_in_this_process
from rarezoo.errors import ConfigError, DataError, MissingDependency, OutputError
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)
# Rows of the larger catalogue from which on LSDB is faster than astropy.
LARGE = 1_000_000
AUTO, ASTROPY, LSDB = WAYS = ("auto", "astropy", "lsdb")
_SUFFIX = "_other"


@dataclass(kw_only=True)
class CrossMatchRun(Settings):
    """Match the galaxies of two catalogues by their positions: the nearest one within a radius.

    A catalogue is a table (CSV, Parquet, FITS, VOTable, ECSV) or a HATS catalogue. With astropy both are read into the
    memory. With LSDB both must be HATS catalogues, the second one with margins at least as wide as the radius.
    Columns that both have get the ending _other in the result.

    Examples
    --------
    >>> CrossMatchRun(left="members", right="gaia", out="matched.parquet", radius=2).radius
    2
    """

    left: str = setting(help="catalogue whose galaxies are matched", positional=True)
    right: str = setting(help="catalogue in which they are sought", positional=True)
    out: str = setting(help="Parquet file to write; with LSDB the folder of a HATS catalogue")
    radius: float = setting(1.0, "largest distance", unit="arcsec", gt=0)
    by: str = setting(AUTO, f"what matches; auto = lsdb above {LARGE:,} rows", choices=WAYS)

    def run(self) -> str:
        """Match; return a line with the number of pairs.

        Raises
        ------
        DataError, ConfigError, OutputError, MissingDependency
            See the message.
        """
        if Path(self.out).exists():
            raise OutputError("the output exists already", value=self.out, fix="Choose another out=.")
        both_hats = is_hats(self.left) and is_hats(self.right)
        if self.by == LSDB and not both_hats:
            raise ConfigError(
                "LSDB matches HATS catalogues",
                value=f"{self.left}, {self.right}",
                fix="Write them so (rarezoo store export, format=hats), or choose by=astropy.",
            )
        large = both_hats and max(len(HatsCatalogue.open(place)) for place in (self.left, self.right)) > LARGE
        pairs = self._by_lsdb() if self.by == LSDB or (self.by == AUTO and large) else self._by_astropy()
        return f"{pairs:,} pairs within {self.radius:g} arcsec: {self.out}"

    def _by_astropy(self) -> int:
        from astropy import units
        from astropy.coordinates import SkyCoord

        (left, at_left), (right, at_right) = (_catalogue(place) for place in (self.left, self.right))
        here, there = (SkyCoord(ra=at[:, 0], dec=at[:, 1], unit="deg") for at in (at_left, at_right))
        if not len(here) or not len(there):
            nearest, apart = np.empty(0, dtype=int), np.empty(0)
        else:
            nearest, apart, _ = here.match_to_catalog_sky(there)
            apart = apart.to_value(units.arcsec)
        rows = np.flatnonzero(apart <= self.radius)
        matched = left.take(pa.array(rows))
        found = right.take(pa.array(np.asarray(nearest)[rows]))
        for name in found.column_names:
            own = f"{name}{_SUFFIX}" if name in matched.column_names else name
            matched = matched.append_column(own, found.column(name))
        matched = matched.append_column(tables.SKY_DISTANCE, pa.array(apart[rows]))
        with tables.atomic(self.out) as temporary:
            pq.write_table(matched, temporary, compression="zstd")
        return matched.num_rows

    def _by_lsdb(self) -> int:
        try:
            import dask.distributed  # noqa: F401
            import lsdb
        except ImportError as problem:
            raise MissingDependency("lsdb", extra="hats", purpose="A cross-match of large catalogues") from problem
        out = Path(self.out).resolve()
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                open_catalog = lsdb.open_catalog  # type: ignore[attr-defined,unused-ignore]
                left, right = (open_catalog(place) for place in (self.left, self.right))
                margin = right.margin.hc_structure.catalog_info.margin_threshold if right.margin is not None else 0.0
                if margin < self.radius:
                    raise ConfigError(
                        "the margins of the second catalogue are narrower than the radius, so that pairs across the "
                        "borders of partitions would be missed", value=f"{margin:g} instead of {self.radius:g} arcsec",
                        fix="Write it again with wider margins (margin=), or choose a smaller radius.",
                    )  # fmt: skip
                matched = left.crossmatch(
                    right,
                    radius_arcsec=self.radius,
                    n_neighbors=1,
                    suffixes=("", _SUFFIX),
                    suffix_method="overlapping_columns",
                    log_changes=False,
                )
                with client_in_this_process():
                    matched.write_catalog(str(partial), catalog_name=out.name, as_collection=False, progress_bar=False)
        except (ConfigError, OutputError):
            raise
        except OSError as problem:
            raise tables.unwritable(out, problem) from problem
        except Exception as problem:  # lsdb raises many kinds of error.
            if "empty" in str(problem).lower() or "no overlap" in str(problem).lower():
                raise DataError(
                    "no pair was found", value=f"{self.radius:g} arcsec", fix="Check both catalogues."
                ) from problem
            raise DataError(f"LSDB cannot match them ({reason_of(problem)})", value=f"{self.left}, {self.right}",
                            fix="Check that both are whole, or choose by=astropy.") from problem  # fmt: skip
        tables.settle(partial, out)
        return len(HatsCatalogue.open(out))


def _catalogue(place: str) -> tuple[pa.Table, np.ndarray]:
    """Return the rows of a catalogue that have a position, without vectors, lists and images, and these positions."""
    if is_hats(place):
        source = HatsCatalogue.open(place)
        table = source.table()
        at = [table.column(name).cast(pa.float64()).to_numpy() for name in (source.ra_column, source.dec_column)]
    else:
        table = read_any_table(Path(place))
        positions = positions_of(table, ids=[str(row) for row in range(table.num_rows)], source=place)
        if len(positions.columns) < 2:
            raise DataError(f"{place} has no column of positions", value=", ".join(table.column_names[:12]),
                            fix="It needs ra and dec (degrees).")  # fmt: skip
        at = [np.asarray(values, dtype=np.float64) for values in (positions.ra, positions.dec)]
    known = np.isfinite(at[0]) & np.isfinite(at[1])
    if not known.all():
        log.warning("%d rows of %s without a position are left out", int((~known).sum()), place)
    return table.filter(pa.array(known)), np.column_stack(at)[known]
