"""Embedding stores as HATS catalogues, for LSDB and for surveys that are served so: written and read partition-wise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.data.hats import MARGIN, PARTITION_ROWS, HatsCatalogue, is_hats, write_hats
from rarezoo.data.positions import positions_of
from rarezoo.data.reading import ids_of, read_any_table, refuse_doubled
from rarezoo.embeddings.store import IMPORTED, SHARD_ROWS, EmbeddingStore, Manifest, refuse_scale
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting

_STOP, _DROP = "refuse", "drop"
PositionsOf = Callable[[Sequence[str], np.ndarray], tuple[np.ndarray, np.ndarray]]


def positions_in(table: Path | str) -> PositionsOf:
    """Return a function from ids to positions that a table with id_str, ra and dec (degrees) knows; NaN if unknown.

    Raises
    ------
    DataError
        The table cannot be read, or has no positions.
    """
    content = read_any_table(Path(table), text=(tables.ID,))
    if tables.ID not in content.column_names:
        raise DataError(f"{table} has no column {tables.ID}", value=", ".join(content.column_names[:12]),
                        fix="It needs id_str, ra and dec (degrees).")  # fmt: skip
    ids = ids_of(content, tables.ID, source=str(table))
    refuse_doubled(ids, source=str(table))
    positions = positions_of(content, ids=ids, source=str(table))
    if len(positions.columns) < 2:
        raise DataError(f"{table} has no column of positions", value=", ".join(content.column_names[:12]),
                        fix="It needs id_str, ra and dec (degrees).")  # fmt: skip
    known = pa.array(ids, pa.string())
    ra, dec = (np.asarray(values, dtype=np.float64) for values in (positions.ra, positions.dec))

    def found(galaxies: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = pc.fill_null(pc.index_in(pa.array(galaxies, pa.string()), value_set=known), -1).to_numpy()
        return np.where(at >= 0, ra[at], np.nan), np.where(at >= 0, dec[at], np.nan)

    return found


def positions_of_store(store: EmbeddingStore) -> PositionsOf:
    """Return a function from ids and rows of the survey to positions, shard by shard where the survey allows it.

    Raises
    ------
    StoreError
        The store has no survey.
    """
    if not store.has_survey:
        raise StoreError("imported embeddings have no positions", value=store.folder,
                         fix="Give a table with id_str, ra and dec: positions=FILE.")  # fmt: skip
    survey = store.survey()
    whole = None if survey.in_partitions else store.galaxies()

    def found(galaxies: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = survey.open_at(rows) if whole is None else whole.take(rows)
        at = tables.rows_of(list(galaxies), part.catalogue, source="the survey")
        catalogue = part.catalogue.take(pa.array(at))
        ra, dec = (catalogue.column(name).to_numpy(zero_copy_only=False) for name in (tables.RA, tables.DEC))
        return np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)

    return found


def with_positions(batches: Iterator[tuple[pa.Table, np.ndarray]], positions: PositionsOf) -> Iterator[pa.Table]:
    """Yield tables with ra and dec after the id; each comes with the rows of the survey that it covers."""
    for batch, rows in batches:
        ra, dec = positions(batch.column(tables.ID).to_pylist(), rows)
        batch = batch.add_column(1, tables.RA, pa.array(ra)).add_column(2, tables.DEC, pa.array(dec))
        yield batch.replace_schema_metadata(None)


def store_to_hats(
    store: EmbeddingStore, out: Path | str, *, positions: Path | str = "", margin: float = MARGIN,
    partition_rows: int = PARTITION_ROWS,
) -> Path:  # fmt: skip
    """Write a store as a HATS collection: id_str, ra, dec, the embedding as a list of fixed size, predicted fractions.

    Parameters
    ----------
    store
        The store. One shard at a time is in memory.
    out
        Folder of the collection, which does not exist.
    positions
        Table with id_str, ra and dec; empty: the survey of the store knows them.
    margin, partition_rows
        See :func:`rarezoo.data.hats.write_hats`.

    Raises
    ------
    StoreError, DataError, OutputError, MissingDependency
        See the message.
    """
    known = positions_in(positions) if positions else positions_of_store(store)
    about = store.manifest

    def shards() -> Iterator[tuple[pa.Table, np.ndarray]]:
        for index in tqdm(range(about.shards), desc="HATS", unit="shard"):
            covered = about.rows_of(index)
            yield store.shard(index), np.arange(covered.start, covered.stop)

    return write_hats(with_positions(shards(), known), out, margin=margin, partition_rows=partition_rows)


def store_from_hats(
    catalogue: Path | str, *, out: Path | str, id_column: str = tables.ID, column: str = tables.EMBEDDING,
    name: str = "", not_finite: str = _STOP, shard_rows: int = SHARD_ROWS,
) -> EmbeddingStore:  # fmt: skip
    """Make a store of the embeddings in a HATS catalogue, partition by partition; a killed import continues.

    Parameters
    ----------
    catalogue
        HATS catalogue or collection.
    out
        Folder of the store.
    id_column, column
        Columns of ids and of vectors. Predicted fractions, if there are any, are taken over.
    name
        Name of the network; by default that of the catalogue.
    not_finite
        ``refuse``, or ``drop``: what happens to galaxies with NaN in their embedding; dropped ones are skipped.
    shard_rows
        Galaxies per file of the store.

    Raises
    ------
    DataError
        The catalogue has no such column, or no row.
    StoreError
        Embeddings are not finite, or ids are there twice, in one partition or in two.
    """
    from rarezoo.data.surveys.hats import Hats

    source = HatsCatalogue.open(catalogue)
    if column not in source.schema.names:
        raise DataError(
            f"{catalogue} has no column",
            value=column,
            fix=f"Name the vectors with columns=; there are: {', '.join(source.schema.names[:12])}.",
        )
    kind = source.schema.field(column).type
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)):
        raise DataError(f"column {column} of {catalogue} is no list of numbers of a fixed size", value=kind,
                        fix="Write it as fixed_size_list<float>.")  # fmt: skip
    survey = Hats(str(catalogue), id_column=id_column, image_column="", on_bad_image="skip")
    outline = survey.outline()
    answers = tuple(str(tables.answer_of(known)) for known in source.schema.names if tables.is_fraction_column(known))
    dtype = "float16" if pa.types.is_float16(kind.value_type) else "float32"
    name = name or Path(catalogue).name
    manifest = Manifest(
        survey="hats", survey_sha256=outline.sha256, checkpoint=name,
        checkpoint_sha256=digest({"network": name, "width": kind.list_size}), precision=IMPORTED, width=kind.list_size,
        dtype=dtype, rows=outline.rows, shard_rows=shard_rows, answers=answers, survey_settings=survey.settings(),
        content_sha256=source.stamp,
    )  # fmt: skip
    store = EmbeddingStore.create(out, manifest)
    columns = [id_column, column, *map(tables.fraction_column, answers)]
    for index in tqdm(store.missing(), desc="import", unit="shard"):
        covered = manifest.rows_of(index)
        part = source.take(np.arange(covered.start, covered.stop), columns)
        ids = np.array(ids_of(part, id_column, source=str(catalogue)), dtype=object)
        vectors = tables.matrix(part, column)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all() and not_finite != _DROP:
            raise StoreError(
                "embeddings that are not finite",
                value=f"{int((~finite).sum())} of rows {covered.start} to {covered.stop - 1}",
                fix="Leave them out: not_finite=drop.",
                ids=ids[~finite].tolist(),
            )
        refuse_scale(vectors[finite])
        fractions = [part.column(tables.fraction_column(answer)).to_numpy() for answer in answers]
        predicted = np.column_stack(fractions) if fractions else np.empty((len(ids), 0), np.float32)
        store.write_shard(
            index, ids=ids[finite].tolist(), embeddings=vectors[finite], fractions=predicted[finite],
            skipped=ids[~finite].tolist(),
        )  # fmt: skip
    return store.finish()


@dataclass(kw_only=True)
class ExportStore(Settings):
    """Write an embedding store as a HATS collection, which LSDB joins with any other."""

    store: str = setting(help="folder of an embedding store", positional=True)
    out: str = setting(help="folder of the new collection")
    positions: str = setting("", "table with id_str, ra and dec (degrees); empty: the survey's catalogue")
    margin: float = setting(MARGIN, "width of the margins of partitions; 0 = none", unit="arcsec", ge=0)
    partition_rows: int = setting(PARTITION_ROWS, "most galaxies of a partition", unit="galaxies", ge=1)

    def run(self) -> str:
        """Write the collection; return its folder."""
        return str(store_to_hats(
            EmbeddingStore.open(self.store), self.out, positions=self.positions, margin=self.margin,
            partition_rows=self.partition_rows,
        ))  # fmt: skip


def import_hats(
    catalogue: str, *, out: str, id_column: str, columns: Sequence[str], name: str, not_finite: str
) -> EmbeddingStore:
    """Make a store as ``rarezoo store import`` does; ``feat_*``, its default, stands for the column embedding."""
    if len(columns) != 1:
        raise ConfigError("a HATS catalogue has its vectors in one column", value=list(columns),
                          fix="Name it: columns=[embedding].")  # fmt: skip
    column = tables.EMBEDDING if columns[0] == "feat_*" else columns[0]
    return store_from_hats(
        catalogue, out=out, id_column=id_column, column=column, name=name, not_finite=not_finite
    )  # fmt: skip


__all__ = ["ExportStore", "is_hats", "positions_in", "positions_of_store", "store_from_hats", "store_to_hats"]
