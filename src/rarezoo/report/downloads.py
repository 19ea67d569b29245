"""Members of a class as files that other tools open."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from rarezoo import tables
from rarezoo.report.sample import Sample

_COLUMNS = (tables.ID, tables.CLASS_ID, tables.PROBABILITY, tables.OUTLIER_SCORE)


def write_csv(path: Path, sample: Sample, *, rows: Int64[np.ndarray, " members"]) -> Path:
    """Members as CSV (UTF-8)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(zip(*(column.tolist() for column in _columns(sample, rows)), strict=True))
    return path


def write_fits(path: Path, sample: Sample, *, rows: Int64[np.ndarray, " members"]) -> Path:
    """Members as a FITS table, which TOPCAT reads.

    FITS knows ASCII only: other characters of an id are written as Python escapes them, é as \\xe9.
    """
    from astropy.table import Table

    path.parent.mkdir(parents=True, exist_ok=True)
    ids, *numbers = _columns(sample, rows)
    Table([ascii_bytes(ids), *numbers], names=_COLUMNS).write(path, format="fits", overwrite=True)
    return path


def ascii_bytes(texts: Iterable[object]) -> np.ndarray:
    """Texts as FITS can hold them, a bytes array: é becomes \\xe9."""
    return np.array([str(one).encode("ascii", "backslashreplace") for one in texts], dtype="S")


def _columns(sample: Sample, rows: np.ndarray) -> list[np.ndarray]:
    return [column[rows] for column in (sample.ids, sample.labels, sample.probabilities, sample.outlier_scores)]
