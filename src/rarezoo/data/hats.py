"""Catalogues in the HATS format: partitions of the sky in Parquet, as Rubin, Gaia and Euclid are served.

They are read partition by partition with ``hats`` and PyArrow, and written by ``hats-import`` on Dask.
"""

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from rarezoo import tables
from rarezoo.engines.dask import client_in_this_process
from rarezoo.errors import DataError, DataNotFound, MissingDependency, OutputError, RarezooError
from rarezoo.runs import digest

log = logging.getLogger(__name__)
# Files that only a HATS catalogue, a collection of them, or a catalogue of the older HiPSCat format has.
_MARKS = ("collection.properties", "hats.properties", "properties")
_OLD_MARK = "catalog_info.json"
# Columns that say in which partition a row is.
_PARTITION_COLUMNS = ("Norder", "Dir", "Npix")
# Rows of a partition that are in one group, which is what a reader must hold in memory for one image.
_GROUP_ROWS = 10_000
MARGIN, PARTITION_ROWS, _HIGHEST_ORDER = 10.0, 100_000, 7


def is_hats(folder: Path | str) -> bool:
    """Return whether a folder holds a HATS catalogue or a collection of them."""
    return any((Path(folder) / mark).is_file() for mark in _MARKS)


@dataclass(frozen=True)
class HatsCatalogue:
    """A HATS catalogue on disk; nothing but the ends of its files is read before it is asked for.

    Attributes
    ----------
    folder : Path
        Folder of the catalogue itself, inside of a collection if it is in one.
    ra_column, dec_column : str
        Columns of the position, degrees.
    files : tuple of tuples of Path
        Parquet files of each partition, mostly one, in the order of the sky.
    counts : tuple of int
        Number of rows of each partition.

    Examples
    --------
    >>> HatsCatalogue.open("no/such/catalogue")
    Traceback (most recent call last):
    rarezoo.errors.DataNotFound: no HATS catalogue: no/such/catalogue. Give its folder, with a file hats.properties.
    """

    folder: Path
    ra_column: str
    dec_column: str
    files: tuple[tuple[Path, ...], ...]
    counts: tuple[int, ...]

    @classmethod
    def open(cls, folder: Path | str) -> "HatsCatalogue":
        """Open a catalogue, or the main catalogue of a collection.

        Raises
        ------
        DataNotFound
            There is no such catalogue.
        DataError
            It is of the older format HiPSCat, it is damaged, or a partition lacks columns that another one has.
        MissingDependency
            hats is not installed.
        """
        given, folder = folder, Path(folder)
        if not is_hats(folder):
            if (folder / _OLD_MARK).is_file():
                raise DataError(
                    "a catalogue of the older format HiPSCat", value=folder,
                    fix="Convert it with hats-import (hats_import.hipscat_conversion).",
                )  # fmt: skip
            raise DataNotFound("no HATS catalogue", value=given, fix="Give its folder, with a file hats.properties.")
        hats = hats_package()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                catalogue = hats.read_hats(str(folder), read_moc=False)
                catalogue = getattr(catalogue, "main_catalog", catalogue)
            about = catalogue.catalog_info
            base = Path(str(catalogue.catalog_base_dir))
            suffix = getattr(about, "npix_suffix", None) or ".parquet"
            paths = [
                Path(str(hats.io.pixel_catalog_file(base, pixel, npix_suffix=suffix)))
                for pixel in catalogue.get_healpix_pixels()
            ]
            files = tuple(tuple(sorted(path.glob("*.parquet"))) if path.is_dir() else (path,) for path in paths)
            ends = [[pq.read_metadata(file) for file in group] for group in files]
        except RarezooError:
            raise
        except Exception as problem:  # The library raises many kinds of error for damaged catalogues.
            raise DataError(
                f"the HATS catalogue cannot be read ({reason_of(problem)})", value=folder,
                fix="Check that it was copied as a whole; hats.io.validation.is_valid_catalog looks at every file.",
            ) from problem  # fmt: skip
        schemas = {str(end.schema.to_arrow_schema().remove_metadata()) for group in ends for end in group}
        if len(schemas) > 1:
            raise DataError(
                "partitions of different versions: their columns differ", value=f"{folder}: {len(schemas)} kinds",
                fix="Import the catalogue again as a whole.",
            )  # fmt: skip
        counts = tuple(sum(end.num_rows for end in group) for group in ends)
        return cls(base, about.ra_column, about.dec_column, files, counts)

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def starts(self) -> Int64[np.ndarray, " partitions"]:
        """Row of the catalogue at which each partition begins."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the catalogue with their types."""
        for group in self.files:
            for file in group:
                return pq.read_schema(file)
        return pa.schema([])

    def read(self, partition: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one partition, all columns or some."""
        wanted = None if columns is None else list(columns)
        return pa.concat_tables(
            [pq.read_table(file, columns=wanted, partitioning=None) for file in self.files[partition]]
        ).replace_schema_metadata(None)

    def partitions(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the partitions one after the other; those without a galaxy are tables without rows."""
        return (self.read(partition, columns) for partition in range(len(self.files)))

    def table(self) -> pa.Table:
        """Read all partitions as one table, without vectors and other lists, images, and columns of the format itself.

        These are Norder, Dir, Npix and those that begin with _, such as _healpix_29.
        """
        names = [
            field.name
            for field in self.schema
            if not (
                pa.types.is_nested(field.type) or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
            )
            and not field.name.startswith("_")
            and field.name not in _PARTITION_COLUMNS
        ]
        empty = self.schema.empty_table().select(names).replace_schema_metadata(None)
        return pa.concat_tables([empty, *self.partitions(names)])

    def take(self, rows: Int64[np.ndarray, " m"], columns: Sequence[str]) -> pa.Table:
        """Read some rows of the catalogue in the order that is given, partition by partition.

        Parameters
        ----------
        rows
            (m,) rows of the catalogue.
        columns
            Columns to read.
        """
        rows = np.asarray(rows, dtype=np.int64)
        place = np.searchsorted(self.starts, rows, side="right") - 1
        # A partition without a row begins where the next one does.
        parts, order = [self.schema.empty_table().select(list(columns)).replace_schema_metadata(None)], [rows[:0]]
        for partition in np.unique(place):
            here = np.flatnonzero(place == partition)
            parts.append(self.read(int(partition), columns).take(pa.array(rows[here] - self.starts[partition])))
            order.append(here)
        back = np.argsort(np.concatenate(order), kind="stable")
        return pa.concat_tables(parts).take(pa.array(back))

    @cached_property
    def stamp(self) -> str:
        """Hash of sizes and times of all files: the same stamp means the same catalogue."""
        return digest({
            str(file.relative_to(self.folder)): [file.stat().st_size, file.stat().st_mtime_ns]
            for group in self.files for file in group
        })  # fmt: skip


def write_hats(
    batches: Iterable[pa.Table],
    out: Path | str,
    *,
    margin: float = MARGIN,
    partition_rows: int = PARTITION_ROWS,
    ra_column: str = tables.RA,
    dec_column: str = tables.DEC,
) -> Path:
    """Write tables with positions as a HATS collection: the catalogue and its margins.

    Rows without a position are left out, because the sky has no place for them; a warning gives their number. The
    catalogue appears as a whole: until then it is in the folder ``.NAME.partial`` beside it.

    Parameters
    ----------
    batches
        Tables with the same columns, of any number of rows. One at a time is in memory.
    out
        A folder that does not exist, or is empty. Its name becomes that of the catalogue.
    margin
        Width of the margin of each partition, arcsec: other galaxies this near to its border are repeated there, so
        that a cross-match misses no pair. 0 writes none.
    partition_rows
        Most rows of a partition, unless they are at one place.
    ra_column, dec_column
        Columns of the position, degrees, ICRS.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        No row has a position.
    OutputError
        The folder holds something, or cannot be written.
    MissingDependency
        hats-import is not installed.
    """
    out = Path(out).resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError("the folder is not empty", value=out, fix="Choose another folder: out=DIR.")
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        files = _staged(batches, partial / "staged", ra_column, dec_column)
        _import(files, partial, out.name, margin, partition_rows, ra_column, dec_column)
        if out.exists():
            out.rmdir()
        tables.settle(partial / out.name, out)
    except OSError as problem:
        raise tables.unwritable(out, problem) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _staged(batches: Iterable[pa.Table], folder: Path, ra_column: str, dec_column: str) -> list[Path]:
    """Write the rows that have a position into files, which hats-import reads several times; return the files."""
    folder.mkdir()
    files, left_out = [], 0
    for number, batch in enumerate(batches):
        ra, dec = (batch.column(name).cast(pa.float64()).to_numpy() for name in (ra_column, dec_column))
        known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        left_out += int((~known).sum())
        if not known.any():
            continue
        # hats wants 0 <= ra < 360. Rounding can make 360 of a tiny negative number.
        at = batch.column_names.index(ra_column)
        turned = np.where(known, np.mod(np.mod(ra, 360.0), 360.0), np.nan)
        batch = batch.set_column(at, ra_column, pa.array(turned))
        files.append(folder / f"{number:06d}.parquet")
        pq.write_table(batch.filter(pa.array(known)).replace_schema_metadata(None), files[-1], compression="zstd")
    if left_out:
        log.warning("%d rows without a position are left out", left_out)
    if not files:
        raise DataError(
            "no galaxy has a position",
            value=f"{left_out} rows",
            fix="Give a table with id_str, ra and dec: positions=.",
        )
    return files


def _import(
    files: Sequence[Path], folder: Path, name: str, margin: float, partition_rows: int, ra_column: str, dec_column: str
) -> None:
    """Let hats-import write a collection ``folder/name`` from Parquet files."""
    try:
        import dask.distributed  # noqa: F401
        from hats_import.catalog.file_readers import ParquetPyarrowReader  # type: ignore[attr-defined,unused-ignore]
        from hats_import.collection.arguments import CollectionArguments
        from hats_import.collection.run_import import run
    except ImportError as problem:
        raise MissingDependency("hats-import", extra="hats", purpose="A HATS catalogue") from problem
    arguments = CollectionArguments(
        output_path=folder, output_artifact_name=name, progress_bar=False, resume=False, tmp_dir=folder / "tmp",
        addl_hats_properties={"hats_creator": "rarezoo"},
    ).catalog(
        input_file_list=list(files), file_reader=ParquetPyarrowReader(chunksize=100_000), ra_column=ra_column,
        dec_column=dec_column, pixel_threshold=partition_rows, highest_healpix_order=_HIGHEST_ORDER,
        row_group_kwargs={"num_rows": _GROUP_ROWS}, should_write_skymap=False,
    )  # fmt: skip
    if margin:
        arguments = arguments.add_margin(margin_threshold=margin, is_default=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # hats writes remarks as warnings of the root logger.
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)
        with client_in_this_process() as client:
            try:
                run(arguments, client)
            except OSError:
                raise
            except Exception as problem:  # hats-import raises many kinds of error.
                raise OutputError(
                    f"the HATS catalogue cannot be written ({reason_of(problem)})", value=folder.parent / name,
                    fix="Check the space on that disk, and that no column has a name that begins with an underscore.",
                ) from problem  # fmt: skip
            finally:
                root.setLevel(level)


def hats_package() -> Any:
    """Return the package hats; MissingDependency if it is not installed."""
    try:
        import hats
        import hats.io.paths
    except ImportError as problem:
        raise MissingDependency("hats", extra="hats", purpose="A HATS catalogue") from problem
    return hats


def reason_of(problem: BaseException) -> str:
    """Return the text of another package's error in one line."""
    return " ".join(str(problem).split())[:200].rstrip(".") or type(problem).__name__
