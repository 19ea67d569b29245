"""Fetch catalogues of the CDS and of other archives, with astroquery and pyvo, which are optional.

    xmatch:II/246/out        entries of a VizieR table near the galaxies, from the cross-match service of the CDS
    vizier:J/A+A/532/A74     a whole VizieR catalogue, all of its tables in one

Both become tables that are joined like any other. :func:`fetch_tap` asks another archive in ADQL.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from rarezoo.errors import ConfigError, DataError, MissingDependency

XMATCH, VIZIER = "xmatch:", "vizier:"
_PURPOSE, _EXTRA = "Fetching a catalogue", "archives"
# The service takes at most so many positions.
_MOST_POSITIONS = 2_000_000


def is_address(name: object) -> bool:
    """Return whether a text names a catalogue that is to be fetched.

    >>> is_address("vizier:J/A+A/532/A74"), is_address("masses.fits")
    (True, False)
    """
    return isinstance(name, str) and name.startswith((XMATCH, VIZIER))


def fetch(
    name: str, ra: Sequence[float] | np.ndarray | None, dec: Sequence[float] | np.ndarray | None, radius: float
) -> Any:
    """Fetch a catalogue of the CDS as an astropy table.

    Parameters
    ----------
    name
        ``xmatch:TABLE`` or ``vizier:TABLE``.
    ra, dec
        Positions of the galaxies, degrees; needed for ``xmatch:``.
    radius
        Largest distance of a match, arcsec.

    Raises
    ------
    MissingDependency
        astroquery is not installed.
    ConfigError
        Positions are needed and unknown, or there are too many.
    DataError
        The service does not answer, or has no such table.
    """
    table = name.partition(":")[2]
    if not table.strip():
        raise ConfigError("no name of a catalogue", value=name, fix="Such as vizier:J/A+A/532/A74.")
    try:
        if name.startswith(VIZIER):
            from astropy.table import vstack
            from astroquery.vizier import Vizier

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = list(Vizier(row_limit=-1, columns=["**"]).get_catalogs(table))
                if not found:
                    fix = "Look up its name at vizier.cds.unistra.fr."
                    raise DataError("VizieR has no such catalogue", value=table, fix=fix)
                return found[0] if len(found) == 1 else vstack(found, metadata_conflicts="silent")
        from astropy import units
        from astropy.table import Table
        from astroquery.xmatch import XMatch
    except ModuleNotFoundError as problem:
        raise MissingDependency("astroquery", extra=_EXTRA, purpose=_PURPOSE) from problem
    except (OSError, ValueError) as problem:
        if isinstance(problem, DataError):
            raise
        raise _unanswered(name, problem) from problem
    if ra is None or dec is None:
        raise ConfigError(
            "the galaxies have no positions, which the cross-match service needs", value=name,
            fix="Give the survey the columns ra and dec, or download the catalogue and join it by id.",
        )  # fmt: skip
    known = np.isfinite(np.asarray(ra, dtype=float) + np.asarray(dec, dtype=float))
    if known.sum() > _MOST_POSITIONS:
        raise ConfigError(
            "too many galaxies for the cross-match service", value=f"{known.sum():,}",
            fix=f"It takes {_MOST_POSITIONS:,}; download the catalogue and give the file.",
        )  # fmt: skip
    own = Table({"rarezoo_ra": np.asarray(ra)[known], "rarezoo_dec": np.asarray(dec)[known]})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = XMatch.query(
                cat1=own, cat2=f"vizier:{table}", max_distance=radius * units.arcsec, colRA1="rarezoo_ra",
                colDec1="rarezoo_dec",
            )  # fmt: skip
    except (OSError, ValueError) as problem:
        raise _unanswered(name, problem) from problem
    found.remove_columns([column for column in ("angDist", "rarezoo_ra", "rarezoo_dec") if column in found.colnames])
    # An entry that is near to several galaxies is there several times.
    from astropy.table import unique

    return unique(found) if len(found) else found


def fetch_tap(service: str, query: str) -> Any:
    """Ask an archive in ADQL, and return its answer as an astropy table.

    Parameters
    ----------
    service
        Address of its TAP service.
    query
        Query in ADQL.

    Raises
    ------
    MissingDependency
        pyvo is not installed.
    DataError
        The service does not answer, or refuses the query.
    """
    try:
        import pyvo
    except ModuleNotFoundError as problem:
        raise MissingDependency("pyvo", extra=_EXTRA, purpose=_PURPOSE) from problem
    try:
        return pyvo.dal.TAPService(service).run_sync(query).to_table()
    except (OSError, ValueError, pyvo.dal.DALAccessError) as problem:
        raise _unanswered(service, problem) from problem


def _unanswered(name: str, problem: Exception) -> DataError:
    reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
    return DataError(
        f"the catalogue could not be fetched ({reason})", value=name,
        fix="Try again later, or download it and give the file.",
    )  # fmt: skip
