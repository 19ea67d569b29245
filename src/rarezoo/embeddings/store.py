"""The embedding store: a folder with the embeddings of a survey, written in shards that a killed run can continue.

Files of a store::

    manifest.json          survey and checkpoint with their hashes, type, width, rows, shard size
    shard-00000.parquet …  EMBEDDINGS rows in the survey's order; a shard exists as a whole or not at all
    skipped.csv            ids of the galaxies whose images could not be read, if there are any
    neighbours/            index of nearest neighbours of a large store; it can be deleted

A store is written by :class:`~rarezoo.embeddings.embed.EmbedRun`, or made from vectors of another network by
:meth:`EmbeddingStore.from_array` and :meth:`EmbeddingStore.from_table`. This module works without torch.
"""

import csv
import html
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rarezoo import tables
from rarezoo.cache import Cache
from rarezoo.data.survey import Galaxies, Survey, open_survey
from rarezoo.embeddings.neighbours import NeighbourIndex, centred
from rarezoo.embeddings.parts import LOCKS
from rarezoo.engines import Engine
from rarezoo.errors import ConfigError, DataError, OutputError, StoreError, StoreNotFound
from rarezoo.runs import SETTINGS_FILE, Stamped, digest, fingerprint
from rarezoo.settings import Settings, name_of, setting

if TYPE_CHECKING:
    import pandas as pd

    from rarezoo.explore.pool import Pool

log = logging.getLogger(__name__)
T = TypeVar("T")
MANIFEST_FILE = "manifest.json"
SKIPPED_FILE = "skipped.csv"
# What the manifest says of survey and arithmetic where embeddings come from another network.
IMPORTED = "imported"
SHARD_ROWS = 10_000
# Between these, sums of the squares of thousands of numbers are possible in single precision.
_SMALLEST, _LARGEST = 1e-12, 1e15
DTYPES = ("float32", "float16")
NEIGHBOURS_FOLDER = "neighbours"
# Galaxies whose nearest neighbours are measured to know how near galaxies are to each other.
_MEASURED = 2000
_MOST_SHARDS = 1_000_000
# Fields of the manifest that a shard must share with its store.
_TIED = ("survey_sha256", "checkpoint_sha256")
# Fields of the manifest that say where something lies, what it is called, or what a bad image does: the hashes identify
# survey and network.
_NAMES = ("survey", "survey_settings", "checkpoint", "folder")
_IMAGES, _IMAGES_STAMP, _SKIPPED = "images_sha256", "images_stamp", "skipped"


@dataclass(frozen=True)
class Manifest:
    """What a store holds. Two stores with different survey or checkpoint hashes are never mixed.

    Attributes
    ----------
    survey : str
        Option name of the survey; ``imported`` if there is none.
    survey_sha256 : str
        Hash of its galaxies; of the ids if there is no survey.
    checkpoint : str
        Name of the checkpoint, or of the network that somebody else has used.
    checkpoint_sha256 : str
        Hash of its card; of its name and width if the embeddings are imported.
    precision : str
        Arithmetic of the network: ``float32``, ``bfloat16``, or ``imported``.
    width : int
        Width D of the embeddings.
    dtype : str
        Type in which they are stored: ``float32`` or ``float16``.
    rows : int
        Number of galaxies in the survey.
    shard_rows : int
        Number of galaxies per shard; the last holds fewer.
    answers : tuple of str
        Answers whose predicted vote fractions are stored.
    survey_settings : dict
        ``option`` and settings from which the survey can be opened again; empty if there is no survey.
    turns : int
        Number of orientations of each galaxy over which its row is a mean.
    content_sha256 : str
        Hash of imported ids and embeddings; empty for a store that rarezoo has embedded.
    folder : str
        Where the store was when it was written: a survey that was moved together with it is found again.
    """

    survey: str
    survey_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    precision: str
    width: int
    dtype: str
    rows: int
    shard_rows: int
    answers: tuple[str, ...] = ()
    survey_settings: dict[str, Any] = field(default_factory=dict)
    turns: int = 1
    content_sha256: str = ""
    folder: str = field(default="", compare=False)

    @property
    def shards(self) -> int:
        """Number of shards of the complete store."""
        return -(-self.rows // self.shard_rows)

    @property
    def title(self) -> str:
        """What a search of the store is called: its survey and its network, as far as they have names."""
        unnamed = self.checkpoint.startswith(f"{IMPORTED}-")
        if self.survey == IMPORTED:
            return "imported embeddings" if unnamed else f"embeddings by {self.checkpoint}"
        return f"{self.survey}, imported embeddings" if unnamed else f"{self.survey} seen by {self.checkpoint}"

    def rows_of(self, shard: int) -> slice:
        """Return the rows of the survey that a shard covers."""
        start = shard * self.shard_rows
        return slice(start, min(start + self.shard_rows, self.rows))


class EmbeddingStore:
    """Embeddings (n, D) and predicted vote fractions of a survey under one checkpoint.

    Use :meth:`open` to read a complete store, :meth:`from_array` or :meth:`from_table` to make one of vectors that you
    have, and :meth:`create` to begin or continue one shard by shard. Galaxies are in the order of the survey. Galaxies
    whose image could not be read are absent and listed by :meth:`skipped`.

    Attributes
    ----------
    in_memory : int
        Bytes of embeddings up to which the index of nearest neighbours is made in memory, for each store that is
        opened. For larger ones it is kept on the disk.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> vectors = np.array([[0.0, 1.0], [0.1, 1.0], [5.0, 0.0]], dtype=np.float32)
    >>> store = EmbeddingStore.from_array(["a", "b", "c"], vectors, out=mkdtemp(), name="my_network")
    >>> store.embeddings().shape
    (3, 2)
    >>> store.neighbours("a", 1)["neighbour"].tolist()
    ['b']
    >>> store.similar("a")["id_str"].tolist()
    ['b', 'c']
    """

    in_memory = 2**26

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    # --- opening and making

    @classmethod
    def open(cls, folder: Path | str) -> "EmbeddingStore":
        """Open a complete store.

        Raises
        ------
        StoreNotFound
            The folder holds no store. It is a StoreError and a FileNotFoundError.
        StoreError
            Shards are missing, or the manifest cannot be read.
        """
        folder = Path(folder)
        store = cls(folder, _read_manifest(folder))
        missing = store.missing()
        if missing:
            raise StoreError(
                f"store {folder} is not complete",
                value=f"{len(missing)} of {store.manifest.shards} shards missing or damaged",
                fix="Run the command that began it again: it continues where it stopped.",
            )  # fmt: skip
        return store

    @classmethod
    def from_array(
        cls,
        ids: Sequence[object] | np.ndarray,
        X: np.ndarray,  # noqa: N803
        *,
        out: Path | str,
        name: str = "",
        fractions: Mapping[str, np.ndarray] | None = None,
        survey: Survey | None = None,
        shard_rows: int = SHARD_ROWS,
        network_sha256: str = "",
    ) -> "EmbeddingStore":
        """Make a store of embeddings from any network, which can then be searched, compared and judged.

        Parameters
        ----------
        ids : sequence of n ids
            Text or integers, each one once.
        X : (n, D) array of floats
            Embeddings. float16 is stored as such, every other type as float32.
        out : Path or str
            Folder of the new store.
        name : str
            Name of the network. Stores under one name and width count as embedded by the same network, so that new
            galaxies can be assigned to classes. By default a name that depends on the content.
        fractions : mapping from answers to (n,) arrays, optional
            Predicted vote fractions, 0 to 1, by answer.
        survey : Survey, optional
            The survey that the galaxies belong to, for images and catalogue. Galaxies of the survey without an
            embedding are listed as skipped.
        shard_rows : int
            Number of galaxies per file.
        network_sha256 : str
            Hash of the network, by which stores count as embedded by the same one; empty: name and width decide.

        Raises
        ------
        StoreError
            Ids are missing or doubled, lengths differ, values are not finite, or the folder holds another store.
        OutputError
            The folder cannot be written.
        """
        names, vectors = _text_ids(ids), np.asarray(X)
        predicted = {answer: np.asarray(values, dtype=np.float32) for answer, values in (fractions or {}).items()}
        _refuse_unusable(names, vectors, predicted)
        vectors = vectors.astype(np.float16 if vectors.dtype == np.float16 else np.float32, copy=False)
        content = fingerprint(vectors, ids=names)
        name = name or f"{IMPORTED}-{content[:8]}"
        order, opened = np.arange(len(names)), None
        if survey is not None:
            opened = survey.open()
            row_of = {galaxy: row for row, galaxy in enumerate(opened.ids)}
            strangers = [galaxy for galaxy in names if galaxy not in row_of]
            if strangers:
                raise StoreError(
                    "embeddings of galaxies that are not in the survey", value=f"{len(strangers)} of {len(names)}",
                    fix="Leave those galaxies out, or check that both use the same ids.", ids=strangers,
                )  # fmt: skip
            order = np.argsort([row_of[galaxy] for galaxy in names], kind="stable")
        manifest = Manifest(
            survey=name_of(type(survey)) if survey else IMPORTED,
            survey_sha256=opened.sha256 if opened else digest({"ids": sorted(names)}),
            checkpoint=name,
            checkpoint_sha256=network_sha256 or digest({"network": name, "width": vectors.shape[1]}),
            precision=IMPORTED,
            width=vectors.shape[1],
            dtype=str(vectors.dtype),
            rows=len(opened) if opened else len(names),
            shard_rows=shard_rows,
            answers=tuple(predicted),
            survey_settings=survey.settings() if survey else {},
            content_sha256=content,
        )
        store = cls.create(out, manifest)
        row_in_survey = np.arange(len(names)) if opened is None else np.sort([row_of[galaxy] for galaxy in names])
        columns = np.column_stack(list(predicted.values())) if predicted else np.empty((len(names), 0), np.float32)
        for shard in store.missing():
            covered = manifest.rows_of(shard)
            first, end = np.searchsorted(row_in_survey, [covered.start, covered.stop])
            rows = order[first:end]
            present = [names[row] for row in rows]
            absent = [] if opened is None else sorted(set(opened.ids[covered]) - set(present))
            store.write_shard(
                shard, ids=present, embeddings=vectors[rows], fractions=columns[rows], skipped=absent
            )  # fmt: skip
        return store.finish()

    @classmethod
    def from_table(
        cls,
        file: Path | str,
        *,
        out: Path | str,
        id_column: str = tables.ID,
        columns: str | Sequence[str] = "feat_*",
        name: str = "",
        survey: Survey | None = None,
    ) -> "EmbeddingStore":
        """Make a store of embeddings in a file: Parquet, CSV, FITS, VOTable or ECSV.

        Parameters
        ----------
        file : Path or str
            Table with one row per galaxy.
        out : Path or str
            Folder of the new store.
        id_column : str
            Column of ids.
        columns : str or list of str
            One column of vectors (a list in each row), or the columns of numbers that make the vector in this order. A
            pattern such as ``feat_pca_*`` stands for all columns that it fits, ordered by the numbers in their names:
            Zoobot's public tables have ``feat_pca_0``, ``feat_pca_1``, …
        name : str
            Name of the network; by default that of the file.
        survey : Survey, optional
            See :meth:`from_array`.

        Raises
        ------
        DataError
            The file is missing or unreadable, or has no such column.
        StoreError, OutputError
            See :meth:`from_array`.
        """
        from rarezoo.embeddings.reading import read_vectors

        ids, vectors = read_vectors(Path(file), id_column=id_column, columns=columns)
        return cls.from_array(ids, vectors, out=out, name=name or Path(file).name.split(".")[0], survey=survey)

    @classmethod
    def create(cls, folder: Path | str, manifest: Manifest) -> "EmbeddingStore":
        """Begin a store, or continue one of the same survey, checkpoint and format.

        Raises
        ------
        StoreError
            The folder holds a store of another survey or checkpoint, or with other settings.
        OutputError
            The folder cannot be written, or holds a run of another command.
        """
        folder = Path(folder)
        if (folder / SETTINGS_FILE).exists():
            raise OutputError("the folder holds another command's run", value=folder, fix="Choose another out=DIR.")
        if folder.exists() and not folder.is_dir():
            raise OutputError("the output path is a file", value=folder, fix="Choose a folder: out=DIR.")
        if (folder / MANIFEST_FILE).exists():
            before = _read_manifest(folder)
            names = [known.name for known in fields(Manifest) if known.name not in ("survey_settings", "folder")]
            changed = [name for name in names if getattr(before, name) != getattr(manifest, name)]
            if set(changed) - {*_NAMES}:
                raise StoreError(
                    f"{folder} is a store of another run: {', '.join(changed)} differ",
                    value="; ".join(f"{name} {getattr(before, name)} → {getattr(manifest, name)}"
                                    for name in changed[:3]),
                    fix="Choose another out=DIR; a store holds one survey under one checkpoint.",
                )  # fmt: skip
        manifest = replace(manifest, folder=str(folder.resolve()))
        tables.write_json(asdict(manifest), folder / MANIFEST_FILE)
        return cls(folder, manifest)

    # --- reading

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the n galaxies, an object array of strings; nothing else is read."""
        return tables.strings(self.read([tables.ID]), tables.ID)

    def __len__(self) -> int:
        return sum(pq.read_metadata(self._path(index)).num_rows for index in range(self.manifest.shards))

    def embeddings(self) -> np.ndarray:
        """Return the embeddings (n, D) in the type in which they are stored, in the order of :attr:`ids`.

        There is never a second copy of them in memory.
        """
        # A damaged manifest may claim any width, so nothing is allocated before a shard has shown it.
        self.shard(0, [tables.EMBEDDING])
        whole, filled = np.empty((len(self), self.manifest.width), dtype=self.manifest.dtype), 0
        for shard in self._shards([tables.EMBEDDING]):
            whole[filled : filled + shard.num_rows] = tables.matrix(shard, tables.EMBEDDING)
            filled += shard.num_rows
        return whole

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read all rows as one EMBEDDINGS table in the survey's order, in one chunk per shard.

        Parameters
        ----------
        columns : sequence of str, optional
            Only these columns. A survey of millions may not fit in memory with its embeddings.

        Raises
        ------
        StoreError
            A shard is damaged or belongs to another survey or checkpoint, or ids are doubled.
        """
        whole = pa.concat_tables(self._shards(columns))
        kind = tables.EMBEDDINGS if columns is None else tables.EMBEDDINGS.narrowed(columns)
        return tables.check(whole, kind, source=str(self.folder))

    def shard(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of one shard; see :meth:`read`.

        Raises
        ------
        StoreError
            The shard is damaged, or belongs to another survey or checkpoint.
        """
        shard = tables.read(self._path(index), tables.EMBEDDINGS, columns=columns)
        about = tables.provenance(shard)
        other = [name for name in _TIED if about.get(name) != getattr(self.manifest, name)]
        if other:
            raise StoreError(
                f"shard from another {' and '.join(name.removesuffix('_sha256') for name in other)}",
                value=self._path(index), fix="Delete that shard and run the embed command again.",
            )  # fmt: skip
        if tables.EMBEDDING in shard.column_names:
            kind = shard.schema.field(tables.EMBEDDING).type
            if not (
                pa.types.is_fixed_size_list(kind)
                and pa.types.is_floating(kind.value_type)
                and kind.list_size == self.manifest.width
                and np.dtype(kind.value_type.to_pandas_dtype()) == self.manifest.dtype
            ):
                raise StoreError(
                    f"{self._path(index)} does not hold {self.manifest.dtype} vectors of width {self.manifest.width}",
                    value=kind, fix="Write the store again.",
                )  # fmt: skip
        covered = self.manifest.rows_of(index)
        rows = shard.num_rows + len(about.get(_SKIPPED, ()))
        if shard.num_columns and rows != covered.stop - covered.start:
            raise StoreError(
                f"{self._path(index)} does not hold the galaxies that the manifest says",
                value=f"{rows:,} instead of {covered.stop - covered.start:,}",
                fix="Delete that shard and run the embed command again, or import the table again.",
            )  # fmt: skip
        return shard

    def skipped(self) -> list[str]:
        """Return the ids of galaxies of the survey that have no embedding, for example because of a bad image."""
        return [galaxy for shard in self._shards([]) for galaxy in tables.provenance(shard)[_SKIPPED]]

    def skipped_in(self, shard: int) -> list[str]:
        """Return the ids of galaxies of one shard that have no embedding; its rows are not read."""
        return list(self._about_shard(shard).get(_SKIPPED, ()))

    @property
    def identity(self) -> dict[str, str]:
        """What the store is, wherever it lies and whatever its name: hashes, as inputs of :func:`rarezoo.runs.claim`.

        Only the manifest and the end of each shard are read. Two stores are the same if they hold the same galaxies,
        embedded by the same network in the same way from the same images, or the same imported embeddings.
        """
        about = self.manifest
        shards = [self._about_shard(index) for index in range(about.shards)]
        content = {
            **{name: value for name, value in asdict(about).items() if name not in _NAMES},
            "images": [shard.get(_IMAGES) for shard in shards], "skipped": [shard.get(_SKIPPED) for shard in shards],
        }  # fmt: skip
        return {
            "survey": about.survey_sha256, "checkpoint": about.checkpoint_sha256, "embeddings": digest(content),
        }  # fmt: skip

    def neighbours(self, ids: str | Sequence[str], k: int = 10, *, engine: Engine | None = None) -> "pd.DataFrame":
        """Find the most similar galaxies: the k with the smallest angle to each galaxy, about the mean embedding.

        Parameters
        ----------
        ids : str or sequence of str
            Galaxies to ask for.
        k : int
            Number of neighbours of each, without the galaxy itself.
        engine : Engine, optional
            Scan the store shard by shard, for stores of any size, instead of making an index: the same answer.

        Returns
        -------
        pandas.DataFrame
            ``id_str``, ``rank`` (1 is the most similar), ``neighbour`` and ``similarity`` (cosine, −1 to 1).

        Raises
        ------
        StoreError
            The store does not hold some of the galaxies.
        ConfigError
            k is less than 1, or not less than the number of galaxies.
        """
        import pandas as pd

        if engine is not None:
            from rarezoo.embeddings.scan import nearest_in_parts

            return nearest_in_parts(self, ids, k, engine=engine)
        wanted = [ids] if isinstance(ids, str) else list(ids)
        if not 1 <= k < len(self.ids):
            raise ConfigError("k, the number of neighbours", value=k, fix=f"Choose 1 to {len(self.ids) - 1}.")
        rows = tables.rows_of(wanted, pa.table({tables.ID: pa.array(self.ids, pa.string())}), source=str(self.folder))
        nearest = self.index.query_rows(rows, k)
        if not np.isfinite(nearest.distances).all():
            raise StoreError(
                f"too few galaxies with a finite embedding for {k} neighbours", value=int(self.index.finite.sum()),
                fix="Choose a smaller k, or embed the galaxies again.",
            )  # fmt: skip
        return pd.DataFrame({
            tables.ID: np.repeat(np.asarray(wanted, dtype=object), k),
            "rank": np.tile(np.arange(1, k + 1), len(wanted)),
            "neighbour": self.ids[nearest.rows.ravel()],
            "similarity": 1 - np.asarray(nearest.distances, dtype=np.float64).ravel() ** 2 / 2,
        })  # fmt: skip

    def similar(
        self, examples: "str | Sequence[str] | np.ndarray", k: int | None = None, **settings: Any
    ) -> "pd.DataFrame":
        """Find the galaxies that are most alike to some examples, without the examples and copies of them.

        Parameters
        ----------
        examples : str, sequence of str, or array of floats
            Ids, positions on the sky, links to maps and paths of images, as :mod:`rarezoo.explore.places` reads them;
            or embeddings.
        k : int, optional
            Number of galaxies; by default 24, or all if there are fewer.
        **settings
            ``against`` (counter-examples), the filters ``where`` and ``cone``, and further ones of
            :func:`rarezoo.explore.similar.similar`.

        Returns
        -------
        pandas.DataFrame
            ``id_str``, ``score`` (higher is more alike), ``rank`` (1 is the most alike) and positions if they are
            known. Its ``attrs`` say how the galaxies were ranked and how many were left out.

        Raises
        ------
        ConfigError
            An example is unknown, a filter cannot be used or leaves no galaxy, or k is too large.
        """
        from rarezoo.explore.similar import similar

        return similar(self._pool, examples, k, **settings).frame()

    @cached_property
    def _pool(self) -> "Pool":
        """What :meth:`similar` has opened for an earlier call, such as the survey."""
        from rarezoo.explore.pool import Pool

        return Pool.of(self)

    @cached_property
    def index(self) -> NeighbourIndex:
        """Nearest neighbours by the cosine about the mean embedding, over the n galaxies in the order of :attr:`ids`.

        It is made when it is first needed. If the embeddings take more than 64 MB, a copy of them as unit vectors is
        kept in the folder ``neighbours`` of the store, or in the user's cache if the store cannot be written, and is
        not read into memory as a whole.
        """
        shape = (len(self), self.manifest.width)
        return self._kept(
            lambda cache, key: NeighbourIndex.of(centred(self._blocks, shape=shape, cache=cache, key=key))
        )

    @cached_property
    def nearest_distances(self) -> np.ndarray:
        """Euclidean distances of up to 2,000 galaxies, drawn at random, from the nearest other galaxy, sorted."""

        def measure() -> np.ndarray:
            known = np.flatnonzero(self.index.finite)
            rows = np.sort(np.random.default_rng(0).choice(known, min(_MEASURED, len(known)), replace=False))
            about = self.index.centred
            vectors = about.directions[rows] * about.lengths[rows, None] + about.mean
            return np.sort(self.index.nearest_distances(vectors, itself=rows))

        def kept(cache: Cache | None, key: dict[str, str]) -> np.ndarray:
            return (
                measure()
                if cache is None
                else cache.array({**key, "part": "distances"}, measure, code=[NeighbourIndex])
            )

        return self._kept(kept)

    def _kept(self, make: Callable[[Cache | None, dict[str, str]], T]) -> T:
        """Return what is made with a cache and a key if the store is large, and without them if it is small."""
        if 4 * len(self) * self.manifest.width > self.in_memory:
            for folder in self._index_folders():
                try:
                    return make(Cache(folder), {"store": self.identity["embeddings"]})
                except OutputError as problem:
                    log.warning("the index of neighbours is not kept in %s: %s", folder, problem.what)
        return make(None, {})

    def _index_folders(self) -> list[Path]:
        """Return where the index can be kept, the first choice first."""
        users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return [self.folder / NEIGHBOURS_FOLDER, users / "rarezoo" / NEIGHBOURS_FOLDER]

    def _blocks(self) -> Iterator[np.ndarray]:
        """Yield the embeddings of each shard."""
        return (tables.matrix(shard, tables.EMBEDDING) for shard in self._shards([tables.EMBEDDING]))

    # --- the survey

    @property
    def has_survey(self) -> bool:
        """Whether the store knows its survey; imported embeddings may have none."""
        return bool(self.manifest.survey_settings)

    def survey(self) -> Survey:
        """Return the survey that was embedded, where the store remembers it, or where both were moved to together."""
        about = self.manifest
        return open_survey(about.survey_settings, recorded_in=about.folder, folder=self.folder)

    def galaxies(
        self, survey: Survey | None = None, *, way_out: str = "Bring the survey back, or embed it again."
    ) -> Galaxies:
        """Open the survey that was embedded, and check that it is the same.

        Parameters
        ----------
        survey : Survey, optional
            Where the survey is now; by default where the store remembers it. Imported embeddings without a survey
            accept any survey that holds all their galaxies.
        way_out : str
            What a user can do if the survey cannot be opened; it becomes part of the message.

        Raises
        ------
        DataError
            The survey cannot be opened.
        StoreError
            It is not the survey of this store, or there is none.
        """
        if survey is None and not self.has_survey:
            raise StoreError(
                "imported embeddings without a survey", value=self.folder,
                fix="Name the survey that holds these galaxies, for images and catalogue: data=….",
            )  # fmt: skip
        survey = survey or self.survey()
        try:
            galaxies = survey.open()
        except DataError as problem:
            raise DataError(
                f"the survey of store {self.folder} cannot be opened ({problem.what})", value=problem.value,
                fix=way_out, ids=problem.ids,
            ) from problem  # fmt: skip
        same = galaxies.sha256 == self.manifest.survey_sha256 or (
            not self.has_survey and set(self.ids) <= set(galaxies.ids)
        )
        if not same:
            raise StoreError(
                f"the survey has changed since it was embedded, or {self.folder} was made from another survey",
                value=name_of(type(survey)), fix=way_out,
            )  # fmt: skip
        return galaxies

    # --- writing

    def missing(self, shards: Sequence[int] | None = None) -> list[int]:
        """Return the numbers of the shards, all or some, that are not written, or that a power failure has cut off."""
        wanted = range(self.manifest.shards) if shards is None else shards
        return [index for index in wanted if not self._is_whole(index)]

    def _is_whole(self, shard: int) -> bool:
        path = self._path(shard)
        if not path.exists():
            return False
        try:
            pq.read_metadata(path)
        except Exception:  # The library raises many kinds of error for damaged files.
            log.warning("%s is damaged and counts as missing", path)
            return False
        return True

    def refuse_other_images(self, galaxies: Galaxies, *, shards: Sequence[int] | None = None, first: int = 0) -> None:
        """Raise StoreError if images have changed since their shards were written; missing shards have no images yet.

        Parameters
        ----------
        galaxies : Galaxies
            The survey as it is now, or a part of it.
        shards : sequence of int, optional
            Shards whose images are compared; by default all.
        first : int
            Row of the survey at which the part begins. Shards that are not wholly in it are left out.
        """
        changed = []
        wanted = set(range(self.manifest.shards) if shards is None else shards)
        for index in sorted(wanted - set(self.missing(sorted(wanted)))):
            covered = self.manifest.rows_of(index)
            if covered.start < first or covered.stop > first + len(galaxies):
                continue
            about = self._about_shard(index)
            now = galaxies.images_identity(np.arange(covered.start, covered.stop) - first)
            known = about.get(_IMAGES)
            if known and about.get(_IMAGES_STAMP) != (now.stamp or None) and known != now.read():
                changed.append(str(self._path(index)))
        if changed:
            raise StoreError(
                "images have changed since they were embedded",
                value=f"{len(changed)} of {self.manifest.shards} shards",
                fix="Bring the images back as they were, choose another out=DIR, or delete these files to embed their "
                f"galaxies again: {', '.join(changed[:3])}{' …' if len(changed) > 3 else ''}",
            )  # fmt: skip

    def _about_shard(self, index: int) -> dict[str, Any]:
        """Return what the metadata of a shard records; its rows are not read."""
        return tables.provenance(pq.read_schema(self._path(index)).empty_table())

    def write_shard(
        self,
        shard: int,
        *,
        ids: Sequence[str],
        embeddings: np.ndarray,
        fractions: np.ndarray,
        skipped: Sequence[str] = (),
        images: Stamped | None = None,
    ) -> Path:
        """Write one shard; it appears as a whole or not at all.

        Parameters
        ----------
        shard : int
            Number of the shard.
        ids : sequence of m ids
            Galaxies embedded, in the survey's order.
        embeddings : (m, D) array
        fractions : (m, answers) array
            Predicted vote fractions.
        skipped : sequence of ids
            The other galaxies of the shard, which have no embedding.
        images : Stamped, optional
            Identity of the images from which the embeddings were made.

        Raises
        ------
        StoreError
            The store's type cannot hold the embeddings.
        OutputError
            The folder cannot be written or is full.
        """
        covered = self.manifest.rows_of(shard)
        if len(ids) + len(skipped) != covered.stop - covered.start or embeddings.shape[1] != self.manifest.width:
            raise ValueError(f"shard {shard} covers {covered}: got {len(ids)} + {len(skipped)} rows")
        with np.errstate(over="ignore"):
            stored = embeddings.astype(self.manifest.dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(bad):
            raise StoreError(
                f"embeddings that {self.manifest.dtype} cannot hold", value=f"{len(bad)} galaxies",
                fix="Use dtype=float32 and precision=float32; if that fails too, the checkpoint is broken.",
                ids=[ids[int(row)] for row in bad],
            )  # fmt: skip
        columns: dict[str, Any] = {
            tables.ID: pa.array(list(ids), pa.string()),
            tables.EMBEDDING: tables.vectors(stored),
        }
        for index, answer in enumerate(self.manifest.answers):
            columns[tables.fraction_column(answer)] = pa.array(fractions[:, index].astype(np.float32))
        hashes = {key: getattr(self.manifest, key) for key in _TIED}
        if images:
            hashes |= {_IMAGES: images.read(), _IMAGES_STAMP: images.stamp}
        about = {**hashes, _SKIPPED: list(skipped)}
        return tables.write(pa.table(columns), self._path(shard), tables.EMBEDDINGS, **about)

    def finish(self) -> "EmbeddingStore":
        """Return the complete store; list skipped galaxies in skipped.csv and delete what a killed run left.

        Raises
        ------
        StoreError
            Shards are missing, or every galaxy was skipped.
        """
        store = EmbeddingStore.open(self.folder)
        skipped = store.skipped()
        if len(skipped) == self.manifest.rows:
            raise StoreError(
                "no image of the survey could be read", value=f"{len(skipped)} skipped",
                fix="Check where the survey's images are; data.on_bad_image=stop says what is wrong with the first.",
            )  # fmt: skip
        if skipped:
            log.warning("%d galaxies skipped, listed in %s", len(skipped), self.folder / SKIPPED_FILE)
            with (
                tables.atomic(self.folder / SKIPPED_FILE) as temporary,
                temporary.open("w", encoding="utf-8", newline="") as stream,
            ):
                # A carriage return in an id ends a line too, and Python does not put it in quotes by itself.
                unusual = any("\r" in galaxy for galaxy in skipped)
                writer = csv.writer(
                    stream, quoting=csv.QUOTE_ALL if unusual else csv.QUOTE_MINIMAL, lineterminator="\n"
                )
                writer.writerows([[tables.ID], *([galaxy] for galaxy in skipped)])
        for partial in self.folder.glob(".shard-*.partial"):
            if tables.is_left_behind(partial):
                partial.unlink(missing_ok=True)
        shutil.rmtree(self.folder / LOCKS, ignore_errors=True)
        return store

    def _shards(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        return (self.shard(index, columns) for index in range(self.manifest.shards))

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.parquet"

    # --- showing

    def _facts(self) -> dict[str, str]:
        about = self.manifest
        rows = f"{about.rows:,}"
        if self.missing():
            rows += f" ({len(self.missing())} of {about.shards} shards missing)"
        return {
            "folder": str(self.folder), "galaxies": rows, "width": f"{about.width} ({about.dtype})",
            "survey": about.survey, "checkpoint": about.checkpoint, "predicted answers": str(len(about.answers)),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"EmbeddingStore({', '.join(f'{name}: {value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table><caption>EmbeddingStore</caption>{rows}</table>"

    def summary(self) -> str:
        """Return what a terminal shows: what the store holds, or how much of it is missing."""
        about, missing = self.manifest, self.missing()
        if missing:
            return f"{about.shards - len(missing):,} of {about.shards:,} shards are written in {self.folder}"
        return f"{len(self):,} embeddings of width {about.width} ({about.survey}, {about.checkpoint}) in {self.folder}"


def _text_ids(ids: Sequence[object] | np.ndarray) -> list[str]:
    """Return ids as text: 123, 123.0 and b"123" are "123"; see :func:`rarezoo.data.reading.ids_of`."""
    import pandas as pd

    from rarezoo.data.reading import ids_of

    if isinstance(ids, (pa.Array, pa.ChunkedArray)) or (isinstance(ids, np.ndarray) and ids.dtype.kind in "iufSU"):
        column = ids if not isinstance(ids, np.ndarray) else pa.array(ids.reshape(-1), from_pandas=True)
    else:
        # Arrow has one type per column, and Python's whole numbers have no bound.
        values = [None if value is None or value is pd.NA or value != value else value for value in ids]
        kinds = {type(value) for value in values if value is not None}
        if not all(issubclass(kind, (float, np.floating)) for kind in kinds):
            values = [_text_id(value) for value in values]
        column = pa.array(values, from_pandas=True)
    try:
        return ids_of(pa.table({tables.ID: column}), tables.ID, source="the ids")
    except DataError as problem:
        raise StoreError(problem.what, value=problem.value, fix=problem.fix) from problem


def _text_id(value: object) -> str | None:
    """Return one id of a list that holds ids of several types."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace").strip(" \0")
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else str(value)


def _refuse_unusable(ids: Sequence[str], vectors: np.ndarray, fractions: Mapping[str, np.ndarray]) -> None:
    """Raise StoreError for ids and embeddings that cannot make a store."""
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.number) or not vectors.shape[1]:
        raise StoreError(
            "embeddings must be a matrix of numbers with one row per galaxy", value=(vectors.shape, str(vectors.dtype)),
            fix="Give an array of shape (galaxies, width).",
        )  # fmt: skip
    if not len(ids):
        raise StoreError("no embeddings", value=vectors.shape, fix="Give at least one galaxy.")
    for what, values in {"embeddings": vectors, **{f"fractions of {name}": v for name, v in fractions.items()}}.items():
        if len(values) != len(ids):
            raise StoreError(
                f"ids and {what} differ in number", value=f"{len(ids)} ids, {len(values)} rows", fix="Align them by id."
            )
    if len(set(ids)) < len(ids):
        unique, counts = np.unique(np.asarray(ids), return_counts=True)
        doubled = unique[counts > 1].tolist()
        raise StoreError(
            "ids occur more than once", value=len(doubled), fix="Keep one row per galaxy.", ids=doubled
        )  # fmt: skip
    with np.errstate(over="ignore"):
        kept = vectors if vectors.dtype == np.float16 else vectors.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
    if len(bad):
        raise StoreError(
            "embeddings that are not finite", value=f"{len(bad)} of {len(ids)} rows",
            fix="Leave those galaxies out, or embed them again.", ids=[ids[int(row)] for row in bad],
        )  # fmt: skip
    refuse_scale(kept)


def refuse_scale(vectors: np.ndarray) -> None:
    """Refuse embeddings between which distances cannot be computed in single precision.

    Parameters
    ----------
    vectors
        (n, d) embeddings, all finite.

    Raises
    ------
    StoreError
        The largest number is above 1e15, or below 1e-12 and not zero.

    Examples
    --------
    >>> refuse_scale(np.array([[1.0, -250.0]]))
    """
    largest = float(np.abs(vectors).max(initial=0))
    if largest and not _SMALLEST <= largest <= _LARGEST:
        raise StoreError(
            "distances of such embeddings cannot be computed; the largest number", value=f"{largest:.3g}",
            fix="Divide or multiply all embeddings by one number, so that the largest is near 1.",
        )  # fmt: skip


def _read_manifest(folder: Path) -> Manifest:
    try:
        content = tables.read_json(folder / MANIFEST_FILE, fix="Delete the folder and write the store again.")
        manifest = Manifest(**{**content, "answers": tuple(content["answers"])})
        whole = [getattr(manifest, name) for name in ("width", "rows", "shard_rows", "turns")]
        texts = [getattr(manifest, known.name) for known in fields(Manifest) if known.type in (str, "str")]
        if not (
            all(type(number) is int and number >= 1 for number in whole)
            and all(isinstance(text, str) for text in (*texts, *manifest.answers))
            and isinstance(manifest.survey_settings, dict)
            and manifest.dtype in DTYPES
            and manifest.shards <= _MOST_SHARDS
        ):
            raise ValueError("a field of another type")
        return manifest
    except StoreNotFound as problem:
        raise StoreNotFound(
            "no embedding store", value=folder,
            fix="Write one: python embed.py out=DIR …, or rarezoo store import TABLE out=DIR.",
        ) from problem  # fmt: skip
    except (StoreError, ValueError, KeyError, TypeError) as problem:
        raise StoreError(
            "unreadable manifest", value=folder / MANIFEST_FILE, fix="Delete the folder and write the store again."
        ) from problem


@dataclass(kw_only=True)
class ImportStore(Settings):
    """Make an embedding store of a table with the embeddings of any network."""

    table: str = setting(
        help="Parquet, CSV, FITS, VOTable or ECSV file with one row per galaxy, or a HATS catalogue", positional=True
    )
    out: str = setting(help="folder of the new store")
    id_column: str = setting(tables.ID, "column of galaxy ids")
    columns: list[str] = setting(["feat_*"], "a column of vectors, or columns of numbers; feat_* = all that fit")
    name: str = setting("", "name of the network; empty: name of the file")
    data: Survey | None = setting(None, "survey that the galaxies belong to, for images and catalogue")
    not_finite: str = setting(
        "refuse", "HATS: what happens to galaxies whose embedding is not finite", choices=("refuse", "drop")
    )

    def run(self) -> EmbeddingStore:
        """Import the table; return the store."""
        from rarezoo.data.hats import is_hats

        if is_hats(self.table):
            from rarezoo.embeddings.hats import import_hats

            return import_hats(
                self.table, out=self.out, id_column=self.id_column, columns=self.columns, name=self.name,
                not_finite=self.not_finite,
            )  # fmt: skip
        return EmbeddingStore.from_table(
            self.table, out=self.out, id_column=self.id_column, columns=self.columns, name=self.name, survey=self.data
        )
