"""Members of classes in the formats of other tools: CSV, FITS, VOTable, DS9 regions, a Hugging Face data set, or SAMP.

A members table has the columns id_str, class_id, probability, outlier_score. In an export it also has ra and dec
(degrees, ICRS; null if unknown), grade and rank of the class of each galaxy (if the search gave grades; null for
galaxies in no class), and any number of predicted vote fractions (0-1).
"""

import io
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from tqdm.auto import tqdm

from rarezoo import __version__, tables
from rarezoo.data.positions import positions_of
from rarezoo.data.reading import ids_of, read_any_table, refuse_doubled
from rarezoo.errors import ConfigError, DataError, MissingDependency, OutputError
from rarezoo.escapes import escape, markdown, markdown_code, visible
from rarezoo.report import palette
from rarezoo.report.gallery import Cutouts
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)

# Galaxies whose images are in memory at once, and of which one warning names those that cannot be read.
_AT_ONCE = 256
CSV, FITS, VOTABLE, DS9, HUGGINGFACE, HATS = FORMATS = ("csv", "fits", "votable", "ds9", "huggingface", "hats")
_ALL = "all"
# By column: unit, UCD (https://www.ivoa.net/documents/UCD1+) and description.
_MEANINGS = {
    tables.ID: ("", "meta.id;meta.main", "galaxy"),
    tables.RA: ("deg", "pos.eq.ra;meta.main", "right ascension, ICRS"),
    tables.DEC: ("deg", "pos.eq.dec;meta.main", "declination, ICRS"),
    tables.CLASS_ID: ("", "meta.code.class", "class; -1: in no class"),
    tables.GRADE: ("", "meta.code.qual", "evidence for the class: significant and stable, significant, or candidate"),
    tables.RANK: ("", "stat.rank", "place of the class in the list of classes; 1: look at it first"),
    tables.PROBABILITY: ("", "stat.probability", "strength of membership, 0 to 1"),
    tables.OUTLIER_SCORE: ("", "stat.value", "GLOSH outlier score, 0 to 1"),
    tables.NEAREST_CLASS: ("", "meta.code.class", "the class that is nearest"),
    tables.P_NONE: ("", "stat.probability", "p-value of being in no class"),
    tables.P_CLASS: ("", "stat.probability", "p-value of being a member of the nearest class"),
    tables.P_KNOWN: ("", "stat.probability", "p-value of being like the galaxies that were searched"),
}
# The same column in a table of all galaxies of a search out of core.
_PLACED = {tables.PROBABILITY: ("", "stat.probability", "probability that the search would say the same of it")}
# Columns of every export, by which it is known; the tables of a search have no positions.
_OF_EXPORT = (tables.ID, tables.RA, tables.CLASS_ID)
# Columns of the members of a search that an export has, in this order.
_OF_MEMBERS = (tables.CLASS_ID, tables.GRADE, tables.RANK, tables.PROBABILITY, tables.OUTLIER_SCORE)
Meanings = Mapping[str, tuple[str, str, str]]
_FRACTION_MEANING = ("", "stat.fit.param;arith.ratio", "predicted vote fraction among those asked, 0 to 1")
_LOADS_TABLES = "table.load.votable"
# Characters that a format cannot hold. FITS has printable ASCII and drops spaces at the end of a text; XML 1.0 has no
# control characters, its readers turn \r into \n, and astropy's reader drops white space around a text.
_UNFIT_FITS = re.compile(r"[^ -~]| \Z")
# In a header apostrophes are doubled, which astropy's reader misunderstands before a slash.
_UNFIT_FITS_HEADER = re.compile(r"[^ -&(-~]| \Z")
_UNFIT_XML = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|\\A\\s|\\s\\Z")
_UNFIT_XML_ATTRIBUTE = re.compile(_UNFIT_XML.pattern.replace("\x0b-", "\t\n\x0b-"))
# Characters that end or begin something in a region file of DS9, and those that Tcl interprets.
_UNFIT_DS9 = "{}[]$\\;|"
# Keywords of a FITS header, which have at most eight letters.
_FITS_KEYS = {"checkpoint_sha256": "CKPT_SHA"}
_LONGEST_FITS_NAME = 68


@dataclass(kw_only=True)
class ExportRun(Settings):
    """Write members of the classes of a finished search as a file of another tool, or send them to a running one.

    Examples
    --------
    >>> ExportRun(search="runs/cluster", out="members.vot", format="votable", classes=[3, 5]).format
    'votable'
    >>> ExportRun(search="runs/cluster")
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: nothing to do: out=. Name a file (out=FILE), or send the members (samp=true).
    """

    search: str = setting(help="folder of a finished search", positional=True)
    out: str = setting("", "file to write, or folder for format=huggingface and hats; must be given unless samp=true")
    format: str = setting(CSV, "format of the file", choices=FORMATS)
    samp: bool = setting(False, "send the members to TOPCAT, Aladin or DS9, which must be running")
    classes: list[int] = setting([], "ids of the classes, such as 3,5; empty: every class")
    unassigned: bool = setting(
        False, "also write the galaxies that are in no class; only possible if classes= is empty"
    )
    answers: list[str] = setting(
        [],
        "answers whose predicted vote fractions are added as columns, such as bar_strong,bar_weak; all = every answer",
    )
    positions: str = setting("", "table with id_str, ra and dec (degrees); empty: the survey's catalogue")
    radius: float = setting(10.0, "radius of the circles of format=ds9", unit="arcsec", gt=0)
    images: bool = setting(True, "format=huggingface: add the images of the galaxies")

    def check(self) -> None:
        """Raise ConfigError if nothing would be written or sent."""
        if not self.out and not self.samp:
            fix = "Name a file (out=FILE), or send the members (samp=true)."
            raise ConfigError("nothing to do", value="out=", fix=fix)

    def run(self) -> str:
        """Write or send the members and return one line per file or program.

        Raises
        ------
        ConfigError
            The search has no such class, or its store no such answer.
        StoreError
            There is no finished search, or its store is missing.
        DataError
            The positions or images cannot be read.
        OutputError
            The file cannot be written, or no program took the table.
        """
        return self.export(Search.open(self.search))

    def export(self, search: Search) -> str:
        """Write or send the members of an open search; see :meth:`run`."""
        if self.format == HATS and not self.samp:
            return str(write_hats_export(self, search, Path(self.out)))
        if self.out and self.format not in (HUGGINGFACE, HATS):
            # DS9 knows no columns; what is written for it names rarezoo.
            tables.refuse_other_file(self.out, ["rarezoo"] if self.format == DS9 else _OF_EXPORT)
        members, about = self.members(search), about_text(search)
        done = []
        if self.out:
            try:
                done.append(str(self._write(search, Path(self.out), members, about)))
            except OSError as problem:
                raise tables.unwritable(Path(self.out), problem) from problem
        if self.samp:
            classes = f" class {' '.join(map(str, self.classes))}" if self.classes else ""
            with tempfile.TemporaryDirectory(prefix="rarezoo-") as folder:
                meanings = _PLACED if self.everything(search) else None
                path = write_votable(Path(folder) / "members.vot", members, about, meanings=meanings)
                programs = send_votable(path, name=f"{search.folder.name}{classes}")
            done.append(f"sent to {', '.join(programs)}")
        return "\n".join(done)

    def members(self, search: Search) -> pa.Table:
        """Return the members table that is exported, sorted by class and then by probability, highest first.

        Raises
        ------
        ConfigError
            The search has no such class, or its store no such answer.
        StoreError, DataError
            The store or the positions are missing.
        """
        return self._everything(search) if self.everything(search) else self._shown(search)

    def _shown(self, search: Search) -> pa.Table:
        members = search.table("members")
        labels = members.column(tables.CLASS_ID)
        known = sorted(set(labels.to_pylist()) - {tables.NO_CLASS})
        unknown = sorted(set(self.classes) - set(known))
        if unknown:
            listed = ", ".join(map(str, known)) or "none"
            raise ConfigError(f"{search.folder} has no class", value=unknown[0], fix=f"Its classes are: {listed}.")
        if self.classes or not self.unassigned:
            members = members.filter(pc.is_in(labels, pa.array(self.classes or known, pa.int32())))
        members = members.sort_by(
            [(tables.CLASS_ID, "ascending"), (tables.PROBABILITY, "descending"), (tables.ID, "ascending")]
        )
        ids = members.column(tables.ID)
        positions = self._positions(search, ids)
        answers = search.store.manifest.answers if self.answers else ()
        wanted = list(answers) if self.answers == [_ALL] else self.answers
        unknown_answers = [answer for answer in wanted if answer not in answers]
        if unknown_answers:
            raise ConfigError(
                "the store predicts no such answer", value=unknown_answers[0],
                fix=f"Its answers are: {', '.join(answers)}.",
            )  # fmt: skip
        fractions = [tables.fraction_column(answer) for answer in wanted]
        stored = tables.aligned(search.store.read([tables.ID, *fractions]), ids, source="the store") if wanted else None
        graded = with_grades(members, search.table("classes"))
        return pa.table(
            {
                tables.ID: ids,
                **{name: positions.column(name) for name in (tables.RA, tables.DEC)},
                **{name: graded.column(name) for name in graded.column_names if name in _OF_MEMBERS},
                **{name: stored.column(name) for name in fractions if stored is not None},
            }
        )

    def everything(self, search: Search) -> bool:
        """Return whether all galaxies of a search out of core are exported, and not only those that it shows."""
        return self.unassigned and not self.classes and "large" in search.about

    def _everything(self, search: Search) -> pa.Table:
        """Return every galaxy of a search out of core with its class, all in the memory."""
        if self.answers or self.format == HUGGINGFACE:
            value = f"answers={','.join(self.answers)}" if self.answers else f"format={HUGGINGFACE}"
            raise ConfigError(
                "unassigned=true writes all galaxies of a search out of core, without images and answers", value=value,
                fix="Leave out unassigned=true, or that setting.",
            )  # fmt: skip
        placed = pa.concat_tables(_placed_with_positions(self, search), promote_options="default")
        return placed.sort_by(
            [(tables.CLASS_ID, "ascending"), (tables.PROBABILITY, "descending"), (tables.ID, "ascending")]
        )

    def _positions(self, search: Search, ids: pa.ChunkedArray) -> pa.Table:
        if self.positions:
            table = read_any_table(Path(self.positions), text=(tables.ID,))
            galaxies = ids_of(table, tables.ID, source=self.positions)
            refuse_doubled(galaxies, source=self.positions)
            positions = positions_of(table, ids=galaxies, source=self.positions)
            if len(positions.columns) < 2:
                raise DataError(
                    f"{self.positions} has no column of positions", value=", ".join(table.column_names[:12]),
                    fix="It needs id_str, ra and dec (degrees).",
                )  # fmt: skip
            known = pa.table(
                {tables.ID: pa.array(galaxies, pa.string()), tables.RA: positions.ra, tables.DEC: positions.dec}
            )
            return tables.aligned(known, ids, source=self.positions)
        if not search.has_survey:
            unknown = pa.nulls(len(ids), pa.float64())
            return pa.table({tables.ID: ids, tables.RA: unknown, tables.DEC: unknown})
        way_out = "Give a table with id_str, ra and dec (positions=FILE), and leave images out (images=false)."
        catalogue = search.survey(way_out=way_out).catalogue.select([tables.ID, tables.RA, tables.DEC])
        return tables.aligned(catalogue, ids, source="the survey's catalogue")

    def _write(self, search: Search, out: Path, members: pa.Table, about: Mapping[str, str]) -> Path:
        if self.format == HATS:
            return write_hats_export(self, search, out)
        if self.format == HUGGINGFACE:
            cutouts = search.cutouts if self.images and search.has_survey else None
            return write_huggingface(out, members, about, cutouts=cutouts)
        if self.format == DS9:
            return write_ds9(out, members, about, radius=self.radius)
        write = {CSV: write_csv, FITS: write_fits, VOTABLE: write_votable}[self.format]
        return write(out, members, about, meanings=_PLACED if self.everything(search) else None)


def write_hats_export(run: ExportRun, search: Search, out: Path) -> Path:
    """Write a search as HATS: a folder with the collections ``members`` and ``classes``.

    ``members`` is what other formats have, but with every galaxy of a search out of core (``unassigned=true``) it is
    written shard by shard. ``classes`` has the position of the first example of each class.

    Parameters
    ----------
    run
        What is exported.
    search
        The search.
    out
        A folder that is absent or empty.

    Raises
    ------
    DataError
        No galaxy has a position.
    OutputError, MissingDependency
        See :func:`rarezoo.data.hats.write_hats`.
    """
    from rarezoo.data.hats import write_hats

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError("the folder is not empty", value=out, fix="Choose another folder: out=DIR.")
    partial = out.resolve().with_name(f".{out.resolve().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        members = _placed_with_positions(run, search) if run.everything(search) else iter([run.members(search)])
        write_hats(members, partial / "members")
        classes = search.table("classes").replace_schema_metadata(None)
        examples = [(row or [""])[0] for row in classes.column(tables.EXEMPLARS).to_pylist()]
        known = replace(run, classes=[], unassigned=True, answers=[], format=CSV)._shown(search)
        at = pc.index_in(pa.array(examples, pa.string()), value_set=known.column(tables.ID))
        for name in (tables.DEC, tables.RA):
            classes = classes.add_column(1, name, known.column(name).take(at))
        if classes.num_rows:
            write_hats(iter([classes]), partial / "classes")
        if out.exists():
            out.rmdir()
        tables.settle(partial, out.resolve())
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _unknown_positions(ids: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(ids), np.nan), np.full(len(ids), np.nan)


def _placed_with_positions(run: ExportRun, search: Search) -> Iterator[pa.Table]:
    """Yield every galaxy of a search out of core with its class and position, shard by shard."""
    from rarezoo.embeddings.hats import PositionsOf, positions_in, positions_of_store, with_positions
    from rarezoo.searches.large import placed_tables, whole_store

    store, classes = whole_store(search), search.table("classes")
    positions: PositionsOf
    if run.format != HATS and not run.positions and not store.has_survey:
        # A table may have galaxies without positions; a partition of the sky cannot.
        positions = _unknown_positions
    else:
        positions = positions_in(run.positions) if run.positions else positions_of_store(store)
    rows = (
        np.arange(covered.start, covered.stop) for covered in map(store.manifest.rows_of, range(store.manifest.shards))
    )
    placed = (with_grades(part, classes) for part in placed_tables(search))
    yield from with_positions(zip(placed, rows, strict=True), positions)


def with_grades(members: pa.Table, classes: pa.Table) -> pa.Table:
    """Return members with grade and rank of their classes, after the class id; unchanged if no class has a rank.

    Both are null for galaxies in no class, and the grade also for classes without one.

    Parameters
    ----------
    members
        MEMBERS table.
    classes
        CLASSES table.
    """
    if classes.column(tables.RANK).null_count == classes.num_rows:
        return members
    rows = pc.index_in(members.column(tables.CLASS_ID), value_set=classes.column(tables.CLASS_ID).combine_chunks())
    place = members.column_names.index(tables.CLASS_ID) + 1
    for name in (tables.RANK, tables.GRADE):
        members = members.add_column(place, name, classes.column(name).take(rows))
    return members


def about_text(search: Search) -> dict[str, str]:
    """Return the origin of a search as text: survey, checkpoint, name of the search, version of rarezoo."""
    origin = {key: str(search.about.get(key) or "") for key in ("survey", "checkpoint", "checkpoint_sha256")}
    return {**origin, "search": search.folder.name, "rarezoo": __version__}


def write_csv(
    path: Path, members: pa.Table, about: Mapping[str, str] | None = None, *, meanings: Meanings | None = None
) -> Path:
    """Write members as CSV (UTF-8). Unknown values are empty; ``about`` and ``meanings`` are not written.

    Texts are written as they are, also those that a spreadsheet would take for a formula.
    """
    return tables.write_csv(members, path)


def write_fits(
    path: Path, members: pa.Table, about: Mapping[str, str] | None = None, *, meanings: Meanings | None = None
) -> Path:
    """Write members as a FITS table with units, which TOPCAT reads.

    FITS knows printable ASCII only: other characters of an id or a name are written as Python's escapes, see
    :func:`rarezoo.escapes.escape`.

    Parameters
    ----------
    path
        File to write.
    members
        Members table, or another table with ids.
    about
        Origin of the rows, written into the header.
    meanings
        Unit, UCD and description of columns that mean something else than in a members table.

    Raises
    ------
    OutputError
        The name of a column is too long for FITS, or the file cannot be written.
    """
    table = _astropy_table(members, unfit=_UNFIT_FITS, unfit_names=_UNFIT_FITS_HEADER, meanings=meanings)
    long = [name for name in table.colnames if len(name) > _LONGEST_FITS_NAME]
    if long:
        raise OutputError(
            f"a column name of more than {_LONGEST_FITS_NAME} characters, which FITS does not allow", value=long[0],
            fix="Choose format=votable, or leave this answer out.",
        )  # fmt: skip
    table.meta = {
        _FITS_KEYS.get(key, key[:8]).upper(): escape(value, _UNFIT_FITS_HEADER) for key, value in (about or {}).items()
    }
    with tables.atomic(path) as temporary:
        table.write(temporary, format="fits", overwrite=True)
    return path


def write_votable(path: Path, members: pa.Table, about: Mapping[str, str], *, meanings: Meanings | None = None) -> Path:
    """Write members as a VOTable with units, UCDs and the ICRS, so that TOPCAT and Aladin know the sky position.

    Characters that XML cannot hold are written as Python's escapes, see :func:`rarezoo.escapes.escape`. Parameters are
    those of :func:`write_fits`.
    """
    from astropy.io.votable import writeto
    from astropy.io.votable.tree import CooSys, VOTableFile

    columns = _astropy_table(members, unfit=_UNFIT_XML, unfit_names=_UNFIT_XML_ATTRIBUTE, meanings=meanings)
    file = VOTableFile.from_table(columns)
    table = file.get_first_table()
    file.resources[0].coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    table.description = visible("; ".join(f"{key} {value}" for key, value in about.items()))
    # astropy makes the ids of columns from their names, and may make the same one twice.
    for number, column in enumerate(table.fields):
        if column.ID in [earlier.ID for earlier in table.fields[:number]]:
            column.ID = f"column_{number}"
        column.ucd = _meaning(column.name, meanings)[1]
        column.ref = "icrs" if column.name in (tables.RA, tables.DEC) else None
    with tables.atomic(path) as temporary:
        writeto(file, str(temporary))
    return path


def write_ds9(path: Path, members: pa.Table, about: Mapping[str, str], *, radius: float = 10.0) -> Path:
    """Write members as circles for DS9, in the colour of their class, with tags of their class and of its grade.

    Galaxies whose position is unknown are left out, and a warning gives their number. Characters of an id that DS9
    could take for something else than text become spaces.

    Parameters
    ----------
    path
        File to write.
    members
        Members table.
    about
        Origin of the members, written as comments.
    radius
        Radius of a circle, arcsec.

    Raises
    ------
    DataError
        No galaxy has a position.
    """
    finite = [pc.fill_null(pc.is_finite(members.column(name)), False) for name in (tables.RA, tables.DEC)]
    known = members.filter(pc.and_(*finite))
    if not known.num_rows:
        raise DataError(
            "no galaxy has a position", value=f"{members.num_rows} members",
            fix="Give a table with id_str, ra and dec: positions=FILE.",
        )  # fmt: skip
    if known.num_rows < members.num_rows:
        log.warning("%d galaxies without a position are left out", members.num_rows - known.num_rows)
    lines = ["# Region file format: DS9 version 4.1"]
    lines += [f"# {key}: {_ds9_text(value)}" for key, value in about.items()]
    lines += ['global dashlist=8 3 width=1 font="helvetica 10 normal"', "icrs"]
    for row in known.to_pylist():
        class_id = row[tables.CLASS_ID]
        colour = palette.LIGHT[palette.mark(class_id).colour] if class_id != tables.NO_CLASS else "#8d929b"
        tag = f"class {class_id}" if class_id != tables.NO_CLASS else "no class"
        grade = f" tag={{{row[tables.GRADE]}}}" if row.get(tables.GRADE) else ""
        place = f'{row[tables.RA]:.7f},{row[tables.DEC]:.7f},{radius:g}"'
        lines.append(f"circle({place}) # color={colour} text={{{_ds9_text(row[tables.ID])}}} tag={{{tag}}}{grade}")
    with tables.atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_huggingface(
    folder: Path,
    members: pa.Table,
    about: Mapping[str, str],
    *,
    cutouts: Cutouts | None = None,
    rows_per_file: int = 2000,
) -> Path:
    """Write members as a data set folder that ``datasets.load_dataset(folder)`` reads, and ``data=huggingface`` too.

    Parameters
    ----------
    folder
        A folder that is absent or empty. It appears when it is complete; what a killed write has left is in the folder
        ``.NAME.partial`` beside it, and is deleted.
    members
        Members table.
    about
        Origin of the members, written into the card of the data set.
    cutouts
        Function from ids to uint8 (H, W, 3) each, which are kept as PNG in a column ``image``; None leaves images out.
    rows_per_file
        Largest number of galaxies in one file. 2000 with images are some ten megabytes.

    Raises
    ------
    MissingDependency
        The package datasets is not installed.
    OutputError
        The folder holds something else, or cannot be written.
    """
    try:
        import datasets
    except ImportError as problem:
        raise MissingDependency("datasets", extra="huggingface", purpose="A Hugging Face data set") from problem
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError("the folder is not empty", value=folder, fix="Choose another folder: out=DIR.")
    # Arrow and datasets have different names for floating-point types.
    types = {"float": "float32", "double": "float64"}
    features = {"image": datasets.Image()} if cutouts else {}
    features |= {field.name: datasets.Value(types.get(str(field.type), str(field.type))) for field in members.schema}
    schema = datasets.Features(features).arrow_schema
    files = max(1, -(-members.num_rows // rows_per_file))
    partial = folder.resolve().with_name(f".{folder.resolve().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number in tqdm(range(files), desc="data set", unit="file", mininterval=1.0):
        rows = members.slice(number * rows_per_file, rows_per_file)
        if cutouts:
            ids = rows.column(tables.ID).to_pylist()
            shown = (cutouts(ids[start : start + _AT_ONCE]) for start in range(0, len(ids), _AT_ONCE))
            images = [{"bytes": _png(image), "path": None} for part in shown for image in part]
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            rows = rows.add_column(0, "image", pa.array(images, kind))
        with tables.atomic(partial / "data" / f"train-{number:05d}-of-{files:05d}.parquet") as temporary:
            pq.write_table(rows.cast(schema), temporary)
    head = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet"
    origin = "\n".join(f"- {key}: {markdown(value)}" for key, value in about.items())
    columns = "\n".join(f"- `{markdown_code(name)}`: {_meaning(name)[2]}" for name in members.column_names)
    title = f"{members.num_rows:,} galaxies in classes found by rarezoo"
    with tables.atomic(partial / "README.md") as temporary:
        temporary.write_text(f"---\n{head}\n---\n\n# {title}\n\n{origin}\n\nColumns:\n\n{columns}\n", encoding="utf-8")
    # A folder is renamed onto an empty one.
    partial.replace(folder.resolve())
    return folder


def send_votable(path: Path, *, name: str, patience: int = 60) -> list[str]:
    """Send a VOTable by SAMP to every running program that takes tables, and return the names of those that loaded it.

    Parameters
    ----------
    path
        VOTable file; it may be removed afterwards.
    name
        Name of the table in those programs.
    patience
        Longest wait for each program, seconds.

    Raises
    ------
    OutputError
        No SAMP hub is running, no program there takes tables, or none could load this one.
    """
    samp = samp_package()
    client = samp.SAMPIntegratedClient(name="rarezoo", metadata={"samp.name": "rarezoo"})
    try:
        client.connect()
    except (samp.SAMPHubError, KeyError, OSError) as problem:
        raise OutputError(
            f"no SAMP hub is running ({problem})", value="samp=true", fix="Start TOPCAT or Aladin first."
        ) from problem
    try:
        listeners = client.get_subscribed_clients(_LOADS_TABLES)
        if not listeners:
            raise OutputError(
                "no running program takes tables by SAMP", value="samp=true", fix="Start TOPCAT or Aladin first."
            )
        # SAMP sends XML, which has no control characters.
        name = visible(name)
        parameters = {"url": path.resolve().as_uri(), "table-id": name, "name": name}
        message = {"samp.mtype": _LOADS_TABLES, "samp.params": parameters}
        complaints = {}
        for listener in sorted(listeners):
            program = str(client.get_metadata(listener).get("samp.name", listener))
            try:
                response = client.call_and_wait(listener, message, str(patience))
                failed = response["samp.status"] == "samp.error"
                error = response.get("samp.error", {}).get("samp.errortxt", "refused")
                complaints[program] = str(error) if failed else ""
            except (samp.SAMPProxyError, OSError) as problem:
                complaints[program] = str(problem) or "no answer"
    finally:
        client.disconnect()
    loaded = [program for program, complaint in complaints.items() if not complaint]
    if not loaded:
        raise OutputError(
            "no program could load the table",
            value="; ".join(f"{program}: {complaint}" for program, complaint in complaints.items()),
            fix="Write it to a file instead: out=FILE format=votable.",
        )  # fmt: skip
    return loaded


def samp_package() -> Any:
    """Return the SAMP package: PyVO's if it is installed, else astropy's, which is the same and deprecated there."""
    try:
        import pyvo.samp as samp
    except ImportError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import astropy.samp as samp
    return samp


def _meaning(column: str, meanings: Meanings | None = None) -> tuple[str, str, str]:
    return {**_MEANINGS, **(meanings or {})}.get(column, _FRACTION_MEANING)


def _astropy_table(
    members: pa.Table, *, unfit: re.Pattern[str], unfit_names: re.Pattern[str], meanings: Meanings | None = None
) -> Any:
    """Return members with units and descriptions; an unknown position is NaN, texts are escaped, no text is empty."""
    from astropy.table import Column, MaskedColumn, Table

    columns = []
    for name in members.column_names:
        unit, _, description = _meaning(name, meanings)
        if name == tables.ID or pa.types.is_string(members.column(name).type):
            values = np.array([escape(text or "", unfit) for text in members.column(name).to_pylist()], dtype=np.str_)
        elif name == tables.RANK:
            values = np.ma.masked_equal(pc.fill_null(members.column(name), 0).to_numpy(), 0)
        else:
            values = members.column(name).to_numpy()
        kind = MaskedColumn if np.ma.is_masked(values) else Column
        columns.append(kind(values, name=escape(name, unfit_names), unit=unit or None, description=description))
    return Table(columns)


def _ds9_text(text: str) -> str:
    """Return a text for a region file, with spaces for all characters that DS9 could take for something else."""
    return "".join(letter if letter.isprintable() and letter not in _UNFIT_DS9 else " " for letter in text)


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, format="PNG")
    return stream.getvalue()
