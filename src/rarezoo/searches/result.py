"""A finished search: its folder, opened as one object.

This is the only file that knows the names of the files that a search leaves in its folder.
"""

import html
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rarezoo import tables
from rarezoo.data.images import shown_cutouts
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, RarezooError, StoreError, StoreNotFound
from rarezoo.runs import digest, fingerprint, relocated
from rarezoo.searches.compress import FittedMap
from rarezoo.searches.grades import counted
from rarezoo.searches.metadata import Metadata
from rarezoo.searches.select import Select
from rarezoo.searches.systematics import ColumnTest, Systematics
from rarezoo.settings import described, refuse_unknown
from rarezoo.track import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from rarezoo.distillation.prototype import Prototype
    from rarezoo.explore.pool import Pool
    from rarezoo.physical.join import Joined
    from rarezoo.physical.known import Known
    from rarezoo.physical.result import Physical
    from rarezoo.searches.compare import Comparison

log = logging.getLogger(__name__)

RUN_FILE, PAGE, FITTED = "run.json", Path("report") / "index.html", "fitted_map"
# Key in the metadata of the classes table: the smallest class id that no search of the chain has used.
FREE = "free_class_id"
# Name of a table: its file and its schema. The last six exist only where refits were made, where an earlier search
# was continued, where broad groups of galaxies stand apart, where there are null surveys, and where rarezoo known
# compared the classes with known kinds.
TABLES: dict[str, tuple[str, tables.Kind]] = {
    "classes": ("classes.parquet", tables.CLASSES),
    "members": ("members.parquet", tables.MEMBERS),
    "map": ("map.parquet", tables.MAP),
    "map_2d": ("map_2d.parquet", tables.MAP),
    "tree": ("tree.parquet", tables.TREE),
    "linkage": ("linkage.parquet", tables.LINKAGE),
    "stability": ("stability.parquet", tables.STABILITIES),
    "evolution": ("evolution.parquet", tables.MATCHES),
    "main_groups": ("main_groups.parquet", tables.MAIN_GROUPS),
    "nodes": ("nodes.parquet", tables.NODES),
    "known": ("known/known.parquet", tables.KNOWN),
    "kinds": ("known/kinds.parquet", tables.KINDS),
}
# Keys of run.json that every table repeats in its metadata.
_PROVENANCE = ("survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "settings")


class Search:
    """A finished search, read from its folder when needed.

    Iterating gives its classes; ``search[3]`` is the class with id 3 (not the third class) and ``len(search)`` is how
    many classes there are.

    Parameters
    ----------
    folder
        Folder of the search.
    about
        Content of its ``run.json``.
    survey
        Where the survey is now; None: where the embedding store remembers it.

    Attributes
    ----------
    folder : Path
        Folder of the search.
    about : Mapping
        Content of ``run.json``: survey, checkpoint and their hashes, settings, numbers of galaxies and classes, seconds
        per step.

    Examples
    --------
    >>> Search.open("runs/never_made")
    Traceback (most recent call last):
    rarezoo.errors.StoreNotFound: no finished search: runs/never_made. Run python cluster.py out=DIR first.
    """

    def __init__(self, folder: Path | str, about: Mapping[str, Any], *, survey: Survey | None = None) -> None:
        self.folder, self.about = Path(folder), about
        self._survey = survey
        self._galaxies: Galaxies | None = None
        self._store: EmbeddingStore | None = None
        self._tables: dict[str, pa.Table] = {}
        self._tests: Mapping[int, Sequence[ColumnTest]] | None = None
        self._predictions: pa.Table | None = None

    @classmethod
    def open(cls, folder: Path | str, *, survey: Survey | None = None, store: EmbeddingStore | None = None) -> "Search":
        """Open a finished search.

        Parameters
        ----------
        folder
            ``out=`` of the search.
        survey
            Where the survey is now, if its images moved.
        store
            The store that was searched, if it moved.

        Raises
        ------
        StoreNotFound
            There is no finished search; it is a ``StoreError`` and a ``FileNotFoundError``.
        """
        try:
            about = tables.read_json(Path(folder) / RUN_FILE, fix="Search again.")
            settings = about.get("settings")
            texts = [about.get(key) for key in ("survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "folder")]
            if not isinstance(settings, dict) or not all(
                text is None or isinstance(text, str) for text in [*texts, settings.get("store")]
            ):
                raise tables.damaged(Path(folder) / RUN_FILE, fix="Search again.")
        except StoreError as problem:
            raise StoreNotFound(
                "no finished search", value=folder, fix="Run python cluster.py out=DIR first."
            ) from problem
        search = cls(folder, about, survey=survey)
        search._store = store
        return search

    @classmethod
    def write(
        cls,
        folder: Path,
        about: Mapping[str, Any],
        found: Mapping[str, pa.Table],
        *,
        free_class_id: int,
        store: EmbeddingStore | None = None,
        galaxies: Galaxies | None = None,
        tests: Mapping[int, Sequence[ColumnTest]] | None = None,
        predictions: pa.Table | None = None,
    ) -> "Search":
        """Write the tables of a search; ``run.json``, which makes it a finished one, is written by :meth:`finish`.

        Parameters
        ----------
        folder
            Where.
        about
            What ``run.json`` will hold.
        found
            Tables by their names in :data:`TABLES`.
        free_class_id
            Smallest class id that neither this search nor those before it have given.
        store, galaxies, tests, predictions
            What the search has opened or computed already: its store, its survey, the tests of its classes against
            the catalogue, and the predicted fractions of its galaxies in the order of the members table.
        """
        keep = {key: about[key] for key in _PROVENANCE}
        for name, table in found.items():
            file, kind = TABLES[name]
            free = {FREE: free_class_id} if name == "classes" else {}
            tables.write(table, folder / file, kind, **keep, **free)
        search = cls(folder, about)
        search._tables = {name: tables.check(table, TABLES[name][1]) for name, table in found.items()}
        search._store, search._galaxies, search._tests, search._predictions = store, galaxies, tests, predictions
        return search

    def finish(self, about: Mapping[str, Any] | None = None) -> None:
        """Write ``run.json``, after which the search is finished and can be opened."""
        self.about = self.about if about is None else about
        report = self.folder / PAGE.parent
        if report.is_dir():
            tables.sync(report)
        tables.write_json(self.about, self.folder / RUN_FILE)

    # --- what it was made from

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the search, as ``run.json`` holds them."""
        return self.about["settings"] or {}

    @property
    def store(self) -> EmbeddingStore:
        """The embedding store that was searched.

        Raises
        ------
        StoreError
            It is no longer where it was, or it has changed since.
        """
        if self._store is None:
            if not self.settings.get("store"):
                raise StoreError(
                    "the search does not say which store was searched", value=self.folder / RUN_FILE,
                    fix="Search again.",
                )  # fmt: skip
            where = self._moved(self.settings["store"])
            store = EmbeddingStore.open(where[0])
            changed = self._changed(store)
            for other in where[1:] if changed else ():
                store = EmbeddingStore.open(other)
                changed = self._changed(store)
            if changed:
                raise StoreError(
                    f"the store that was searched has changed ({' and '.join(changed)})", value=store.folder,
                    fix="Bring it back as it was, or search again.",
                )  # fmt: skip
            self._store = store
        return self._store

    @property
    def identity(self) -> dict[str, Any]:
        """What the search is, wherever it lies: hashes of its classes, map and store, as inputs of another run."""
        fitted = self.fitted
        return {
            "classes": fingerprint(self.labels, ids=self.ids),
            "map": digest({"compressor": described(fitted.compressor), "made_from": fitted.made_from}),
            "store": self.store.identity,
        }

    def _changed(self, store: EmbeddingStore) -> list[str]:
        """Return what of a store differs from the one that was searched."""
        about = store.manifest
        known = {"survey_sha256": about.survey_sha256, "checkpoint_sha256": about.checkpoint_sha256}
        changed = [name for name, value in known.items() if value != self.about.get(name, value)]
        searched = self.about.get("inputs", {}).get("store")
        return changed or (["embeddings or images"] if searched and searched != store.identity else [])

    @property
    def store_folder(self) -> str:
        """Folder in which the store that was searched is now, or was."""
        return self._moved(self.settings["store"])[0] if self._store is None else str(self._store.folder.resolve())

    def _moved(self, path: str) -> list[str]:
        """Return where a recorded folder may be now: where it was, and where it was moved to with this folder."""
        moved = relocated(path, recorded_in=self.about.get("folder") or "", folder=self.folder)
        return list(dict.fromkeys([path, moved] if Path(path).exists() else [moved]))

    @property
    def has_survey(self) -> bool:
        """Whether a survey with catalogue and images is known; imported embeddings may have none."""
        return self._galaxies is not None or self._survey is not None or self.store.has_survey

    def survey(self, *, way_out: str = "Bring the survey back to where it was.") -> Galaxies:
        """Open the survey that was searched: catalogue, images, votes.

        Parameters
        ----------
        way_out
            What a user can do if the survey cannot be opened; becomes part of the message.

        Raises
        ------
        DataError
            The survey cannot be opened.
        StoreError
            It is not the survey that the embedding store was made from.
        """
        if self._galaxies is None:
            self._galaxies = galaxies_of(self.store, survey=self._survey, way_out=way_out)
        return self._galaxies

    def cutouts(self, ids: Sequence[str]) -> list[np.ndarray]:
        """Images of some galaxies, uint8 (height, width, 3) each, in the order of their ids.

        A crossed square stands for an image that cannot be read any more, and a warning names the galaxy.

        Raises
        ------
        DataError, StoreError
            See :meth:`survey`.
        """
        rows = [self._catalogue_rows[galaxy] for galaxy in ids]
        return shown_cutouts(self.survey().images, rows, named=self._unreadable)

    @cached_property
    def _unreadable(self) -> set[str]:
        """Ids of galaxies whose images could not be shown; each is named in one warning."""
        return set()

    @cached_property
    def _catalogue_rows(self) -> dict[str, int]:
        return {galaxy: row for row, galaxy in enumerate(self.survey().ids)}

    @cached_property
    def fitted(self) -> FittedMap:
        """The map that was clustered, on which new galaxies can be placed.

        Raises
        ------
        StoreError
            The map is not there or not whole.
        """
        return FittedMap.open(self.folder / FITTED)

    # --- its tables

    def table(self, name: str) -> pa.Table:
        """One of the search's tables.

        Parameters
        ----------
        name
            ``classes``, ``members``, ``map`` (the space that was clustered), ``map_2d`` (the map that is drawn),
            ``tree``, ``linkage``; ``stability``, ``evolution``, ``main_groups`` and ``nodes`` where they were made.

        Raises
        ------
        ConfigError
            There is no such table.
        StoreError
            The table is missing or damaged.
        """
        if name not in TABLES:
            raise ConfigError("a search has no such table", value=name, fix=f"Choose one of: {', '.join(TABLES)}.")
        if name not in self._tables:
            file, kind = TABLES[name]
            self._tables[name] = tables.read(self.folder / file, kind)
        return self._tables[name]

    def has_table(self, name: str) -> bool:
        """Return whether the search has a table that not every search has."""
        return name in self._tables or (self.folder / TABLES[name][0]).exists()

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the n galaxies searched, strings, in the order of the members table."""
        return tables.strings(self.table("members"), tables.ID)

    @property
    def searched(self) -> int:
        """Number of galaxies searched; after a search out of core that of all galaxies, also of those not shown."""
        return int(self.about.get("searched") or len(self.ids))

    @property
    def labels(self) -> np.ndarray:
        """Class id of each galaxy searched, int32 (n,), −1 for none."""
        return self.table("members").column(tables.CLASS_ID).to_numpy()

    @property
    def classes(self) -> "Classes":
        """Its classes; a table with small pictures in a notebook."""
        return Classes(self)

    @property
    def members(self) -> pd.DataFrame:
        """Every galaxy searched: id, class id (−1 for none), membership probability and outlier score."""
        return self.table("members").to_pandas()

    @property
    def main_groups(self) -> pa.Table:
        """Broad groups that stand apart and are too large to be rare, as a MAIN_GROUPS table; often without rows."""
        if not self.has_table("main_groups"):
            columns = tables.MAIN_GROUPS.columns
            return pa.table({name: pa.array([], kind) for name, kind in columns.items()})
        return self.table("main_groups")

    @property
    def predictions(self) -> pa.Table:
        """Id and predicted vote fractions of the galaxies searched, in the order of the members table.

        Raises
        ------
        StoreError
            The embedding store, or the one that ``select.fractions_from`` names, is not there any more.
        """
        if self._predictions is not None:
            return self._predictions
        answers = [tables.fraction_column(answer) for answer in self.store.manifest.answers]
        predicted = self.store.read([tables.ID, *answers])
        select = Select(**self.settings.get("select", {}))
        if select.fractions_from:
            select = replace(select, fractions_from=self._moved(select.fractions_from)[0])
        predicted = select.judged(predicted, store=self.store)
        self._predictions = tables.aligned(predicted, self.table("members").column(tables.ID), source="the store")
        return self._predictions

    @property
    def tests(self) -> Mapping[int, Sequence[ColumnTest]]:
        """By class id: its tests against the catalogue and the predicted artifacts; without a catalogue fewer."""
        if self._tests is None:
            galaxies = None
            try:
                galaxies = self.survey()
            except RarezooError as problem:
                log.warning("classes are not tested against the catalogue: %s", problem)
            systematics = Systematics(**self.settings.get("systematics", {}))
            metadata = Metadata.of(galaxies, systematics=systematics)
            known = self.table("classes").column(tables.CLASS_ID).to_pylist()
            numbers = np.searchsorted(np.sort(known), self.labels) if known else self.labels
            labels = np.where(self.labels == tables.NO_CLASS, tables.NO_CLASS, numbers).astype(np.int32)
            causes = metadata.causes(self.predictions, labels=labels, classes=len(known))
            self._tests = {class_id: cause.tests for class_id, cause in zip(sorted(known), causes, strict=True)}
        return self._tests

    @property
    def kinds(self) -> dict[int, dict[str, Any]]:
        """By class id: verdict, known_as and reason of ``rarezoo known``; empty if it was not run on these classes."""
        if not self.has_table("kinds"):
            return {}
        rows = {row[tables.CLASS_ID]: row for row in self.table("kinds").to_pylist()}
        if set(rows) != set(self.table("classes").column(tables.CLASS_ID).to_pylist()):
            log.warning("%s is about other classes and is not shown; run rarezoo known again", TABLES["kinds"][0])
            return {}
        return rows

    # --- its classes

    def __len__(self) -> int:
        return int(self.table("classes").num_rows)

    def __iter__(self) -> Iterator["FoundClass"]:
        return (self[class_id] for class_id in self.table("classes").column(tables.CLASS_ID).to_pylist())

    def __getitem__(self, class_id: int) -> "FoundClass":
        known = self.table("classes").column(tables.CLASS_ID).to_pylist()
        if class_id not in known:
            raise KeyError(f"no class {class_id}; there are: {', '.join(map(str, known)) or 'none'}")
        return FoundClass(self, self.table("classes").slice(known.index(class_id), 1).to_pylist()[0])

    def __repr__(self) -> str:
        searched = self.searched
        return f"Search({str(self.folder)!r}: {self._counted} among {searched:,} galaxies)"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.classes._repr_html_()}"

    def summary(self) -> str:
        """Return what a terminal shows when the search is done."""
        return f"{self._counted}; {self.page if self.page.exists() else self.folder}"

    @property
    def _counted(self) -> str:
        """The number of classes of each grade, in words."""
        return counted(self.table("classes").column(tables.GRADE).to_pylist())

    # --- what can be done with it

    @property
    def page(self) -> Path:
        """The report's index page, whether it has been written or not."""
        return self.folder / PAGE

    def report(self, *, images: bool = True, **settings: Any) -> Path:
        """Write the report, a folder of static pages; the path of its index page.

        Parameters
        ----------
        images
            Show galaxies; False if the survey cannot be opened.
        settings
            See :func:`rarezoo.report.pages.write_report`.

        Raises
        ------
        StoreError, DataError, OutputError
            See the message.
        """
        from rarezoo.report.pages import write_report

        return write_report(self, images=images, **settings)

    def assign(self, store: EmbeddingStore | Path | str, *, level: float = 0.05, out: Path | str = "") -> pd.DataFrame:
        """Assign the galaxies of another embedding store to the classes of this search, or to none of them.

        Parameters
        ----------
        store
            Embedding store that was made with the same checkpoint, or its folder.
        level
            Expected share of galaxies of no class that are wrongly assigned to a class, 0–1.
        out
            Folder in which the result is kept and an interrupted run is continued; empty keeps nothing.

        Returns
        -------
        pandas.DataFrame
            One row per galaxy: id, class (−1 for none), probability, nearest class and p-values; see
            :class:`rarezoo.searches.assigner.Assignment`.

        Raises
        ------
        ConfigError, StoreError, OutputError
            See :meth:`rarezoo.searches.assign.AssignRun.run`.
        """
        from rarezoo.searches.assign import AssignRun

        folder = store.folder if isinstance(store, EmbeddingStore) else store
        return AssignRun(search=str(self.folder), store=str(folder), level=level, out=str(out)).run().to_pandas()

    def similar(
        self, examples: "str | Sequence[str] | np.ndarray", k: int | None = None, **settings: Any
    ) -> pd.DataFrame:
        """Find the galaxies of the search that are most alike to some examples, without the examples and their copies.

        Parameters
        ----------
        examples
            Ids, positions on the sky, links to maps and paths of images, as :mod:`rarezoo.explore.places` reads them;
            or embeddings.
            Galaxies of the store that were not searched can be examples too.
        k
            Number of galaxies; by default 24, or all if there are fewer.
        settings
            ``against`` (counter-examples), the filters ``where``, ``classes`` and ``cone``, and further ones of
            :func:`rarezoo.explore.similar.similar`.

        Returns
        -------
        pandas.DataFrame
            ``id_str``, ``score`` (higher is more alike), ``rank`` (1 is the most alike), positions if they are known,
            and ``class_id``. Its ``attrs`` say how the galaxies were ranked and how many were left out.

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

    def compare(self, *others: "Search", **settings: Any) -> "Comparison":
        """Compare this search with others over the galaxies that all of them have.

        Parameters
        ----------
        others
            One to 25 other searches.
        settings
            See :func:`rarezoo.searches.compare.compare`.

        Returns
        -------
        Comparison
            A table in a notebook; its method ``report`` writes pages.
        """
        from rarezoo.searches.compare import compare

        return compare(self, *others, **settings)

    def crossmatch(self, table: Any, radius: float = 1.0, **settings: Any) -> "Joined":
        """Join a catalogue to the galaxies searched, by id or by position.

        Parameters
        ----------
        table
            Path of a CSV, Parquet, FITS, VOTable or ECSV file, or a table of pyarrow, pandas or astropy; or a list.
        radius
            Largest distance of a match by position, arcsec.
        settings
            See :func:`rarezoo.physical.join.join`: ``by``, ``id_column``, ``ra_column``, ``dec_column``.

        Returns
        -------
        Joined
            The table in the order of ``ids``, its match rate, and how many galaxies would match by chance.

        Raises
        ------
        ConfigError, DataError
            No galaxy matches, or the table cannot be used.
        """
        from rarezoo.physical.join import join

        catalogues = list(table) if isinstance(table, (list, tuple)) else [table]
        ra, dec = self.sky
        return join(self.ids, ra, dec, catalogues, radius, **settings)

    def physical(self, catalogues: Any = (), *, out: Path | str = "", **settings: Any) -> "Physical":
        """Compare the physical properties of each class with those of matched controls.

        Parameters
        ----------
        catalogues
            Paths or tables that are joined to the galaxies, one or a list, as for :meth:`crossmatch`; none: only the
            columns of the survey are compared.
        out
            Folder in which tables, a page and a table for a paper are written; empty writes nothing.
        settings
            See :class:`rarezoo.physical.run.PhysicalRun`: ``covariates``, ``properties``, ``controls``, ``within`` …

        Returns
        -------
        Physical
            A table in a notebook.

        Raises
        ------
        ConfigError, DataError, OutputError
            See the message.
        """
        from rarezoo.physical.run import PhysicalRun

        given = list(catalogues) if isinstance(catalogues, (list, tuple)) else [catalogues]
        refuse_unknown(settings, [known.name for known in fields(PhysicalRun)], of="search.physical")
        run = PhysicalRun(search=str(self.folder), out=str(out), **settings)
        return run.write(self, given).measured if str(out) else run.measure(self, given)

    def known(
        self, lists: "str | Path | Sequence[str | Path]" = (), kind: "str | Sequence[str]" = (), **settings: Any
    ) -> "Known":
        """Say of each class whether it is a known kind, part of one, a mix, or not in these lists.

        Parameters
        ----------
        lists
            Tables of known galaxies, which you have downloaded.
        kind
            What each table is: see :func:`rarezoo.physical.known_list.list_names`, ``table``, or a YAML file; one for
            all, or one for each.
        settings
            See :class:`rarezoo.physical.known.KnownRun`: ``out``, ``radius``, ``label_column``, ``columns`` …

        Raises
        ------
        StoreError, ConfigError, DataError, OutputError
            See the message.
        """
        from rarezoo.physical.known import KnownRun

        files, kinds = ([given] if isinstance(given, (str, Path)) else list(given) for given in (lists, kind))
        return KnownRun(
            search=str(self.folder), list=[str(file) for file in files], kind=[str(k) for k in kinds], **settings
        ).run()

    @property
    def sky(self) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Right ascension and declination of the galaxies searched, degrees, NaN if unknown; None without a survey."""
        if not self.has_survey:
            return None, None
        placed = tables.aligned(self.survey().catalogue, self.table("members").column(tables.ID), source="the survey")
        ra, dec = (placed.column(name).to_pandas().to_numpy(dtype=np.float64) for name in (tables.RA, tables.DEC))
        return ra, dec

    def log(self, logger: Tracker, *, images: bool = True) -> None:
        """Log it: numbers, the classes table, the map, pictures of each class, and the training of its network.

        Parameters
        ----------
        logger
            Where to.
        images
            Log pictures of galaxies; False if the survey cannot be opened.
        """
        from rarezoo.report.record import search_record

        logger.log_search(str(self.folder), lambda: search_record(self, images=images, checkpoint=logger.checkpoint))

    def plot_map(self, colour: str | None = "class") -> "Figure":
        """Draw the two-dimensional map.

        Parameters
        ----------
        colour
            ``class``; or a predicted answer (``bar_strong``); or a column of the survey's catalogue; None: one colour.

        Raises
        ------
        ConfigError
            There is no such answer or column, or it does not hold numbers.
        """
        from rarezoo.report.notebook import map_figure

        return map_figure(self, colour)

    def export(self, out: Path | str = "", *, format: str = "csv", **settings: Any) -> str:
        """Write members of the classes as a file of another tool; the paths written, one per line.

        Parameters
        ----------
        out
            File to write; a folder for ``format="huggingface"`` and ``format="hats"``.
        format
            ``csv``, ``fits``, ``votable``, ``ds9``, ``huggingface`` or ``hats``.
        settings
            See :class:`rarezoo.report.exports.ExportRun`: ``classes=[3, 5]``, ``answers=["all"]``, ``samp=True`` …

        Raises
        ------
        ConfigError, StoreError, DataError, OutputError
            See the message.
        """
        from rarezoo.report.exports import ExportRun

        return ExportRun(search=str(self.folder), out=str(out), format=format, **settings).export(self)


@dataclass(frozen=True)
class FoundClass:
    """One class of a search.

    Attributes
    ----------
    search
        The search that found it.
    row
        Its row of the classes table, by column.
    """

    search: Search
    row: Mapping[str, Any]

    @property
    def id(self) -> int:
        """Its id."""
        return int(self.row[tables.CLASS_ID])

    @property
    def name(self) -> str:
        """The name that a reader gave it; empty if none did."""
        return str(self.row.get(tables.NAME) or "")

    @property
    def size(self) -> int:
        """Galaxies in it."""
        return int(self.row[tables.SIZE])

    @property
    def grade(self) -> str | None:
        """How strong the evidence for it is, see :data:`rarezoo.searches.grades.GRADES`; None if not measured."""
        grade: str | None = self.row[tables.GRADE]
        return grade

    @property
    def members(self) -> pd.DataFrame:
        """Its galaxies, the most probable members first."""
        members = self.search.members
        inside = members[members[tables.CLASS_ID] == self.id]
        return inside.sort_values([tables.PROBABILITY, tables.ID], ascending=[False, True]).reset_index(drop=True)

    def gallery(self, most: int = 24, *, random: bool = False, seed: int = 0) -> "Image.Image":
        """Show the members nearest to its medoid, the medoid first, or random members.

        The nearest members look more alike than the class is; random members show how pure it is.

        Parameters
        ----------
        most
            Galaxies shown, at most 24 of those nearest to the medoid.
        random
            Show random members, each with the same chance.
        seed
            Seed that random members are drawn with.

        Raises
        ------
        DataError, StoreError
            See :meth:`Search.survey`.
        """
        from rarezoo.report.notebook import gallery_image

        ids = list(self.row[tables.EXEMPLARS])[:most]
        if random:
            members = self.members[tables.ID]
            ids = members.sample(min(most, len(members)), random_state=seed).tolist()
        return gallery_image(self.search.cutouts(ids))

    def prototype(self, **settings: Any) -> "Prototype":
        """Make one picture of what the network thinks its members share, and judge whether it is worth anything.

        The members are set against galaxies of the same magnitude, size and colour. The picture is kept in the folder
        of the search, and the report shows it if it passed.

        Parameters
        ----------
        settings
            Settings of :class:`rarezoo.distillation.prototype.PrototypeSettings`.

        Returns
        -------
        Prototype
            With ``image``, ``passed``, and the two numbers behind it: ``over_medoid`` and ``over_mean``, which say how
            much better held-out members are told from other galaxies with it than with the medoid and the mean image.

        Raises
        ------
        DataError, CheckpointError
            See :func:`rarezoo.distillation.prototype.prototype_of_class`.
        """
        from rarezoo.distillation.prototype import PrototypeSettings, prototype_of_class

        return prototype_of_class(self, PrototypeSettings(**settings))

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        grade = f", {self.grade}" if self.grade else ""
        return f"<class {self.id}{name}: {self.size:,} galaxies{grade}>"


@dataclass(frozen=True)
class Classes:
    """The classes of a search as a table.

    Attributes
    ----------
    search
        The search that found them.
    """

    search: Search

    def to_pandas(self) -> pd.DataFrame:
        """Return the classes table, indexed by class id."""
        return self.search.table("classes").to_pandas().set_index(tables.CLASS_ID)

    def __len__(self) -> int:
        return len(self.search)

    def __iter__(self) -> Iterator[FoundClass]:
        return iter(self.search)

    def __getitem__(self, class_id: int) -> FoundClass:
        return self.search[class_id]

    def __repr__(self) -> str:
        from rarezoo.report.notebook import classes_frame

        return repr(classes_frame(self.search))

    def _repr_html_(self) -> str:
        from rarezoo.report.notebook import classes_html

        return classes_html(self.search)


def galaxies_of(store: EmbeddingStore, *, survey: Survey | None = None, way_out: str) -> Galaxies:
    """Open the survey that a store was made from, and compare it with the store by its hash.

    Parameters
    ----------
    store
        A whole store.
    survey
        Where the survey is now; None: where the store remembers it.
    way_out
        What a user can do if it is there no longer.

    Raises
    ------
    DataError
        The survey cannot be opened.
    StoreError
        It is not the one that the store was made from.
    """
    return store.galaxies(survey, way_out=way_out)


def cutouts_of(galaxies: Galaxies) -> Callable[[Sequence[str]], list[np.ndarray]]:
    """Return a function from ids to cutouts, for galleries."""
    row_of = {galaxy: row for row, galaxy in enumerate(galaxies.ids)}
    named: set[str] = set()

    def cutouts(ids: Sequence[str]) -> list[np.ndarray]:
        return shown_cutouts(galaxies.images, [row_of[galaxy] for galaxy in ids], named=named)

    return cutouts
