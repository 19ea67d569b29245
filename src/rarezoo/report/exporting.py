"""``rarezoo export``: members of a search's classes as files that other tools open, or sent to a running one."""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rarezoo import __version__, tables
from rarezoo.data.survey import Galaxies
from rarezoo.data.surveys.catalogue import ids_of, read_any_table
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, OutputError
from rarezoo.report import exports
from rarezoo.report.samp import send_votable
from rarezoo.report.sample import rows_of
from rarezoo.searches.result import cutouts_of, galaxies_of, read_members, read_run

FORMATS = ("fits", "votable", "ds9", "csv", "huggingface")
EVERY = "all"
_WAY_OUT = "Give a table with id_str, ra and dec (--positions FILE), and leave images out (--no-images)."


@dataclass(frozen=True, kw_only=True)
class Export:
    """Which members of a finished search leave it, and with which columns.

    Attributes:
        search: ``out=`` of the search.
        classes: ids; empty for every class.
        unassigned: with the galaxies in no class, if no classes are named.
        answers: whose predicted fractions go along; ``all`` for those of the store.
        positions: table with id_str, ra and dec (deg); empty: the survey's own.
    """

    search: str
    classes: tuple[int, ...] = ()
    unassigned: bool = False
    answers: tuple[str, ...] = ()
    positions: str = ""

    @cached_property
    def store(self) -> EmbeddingStore:
        """The store that was searched."""
        return EmbeddingStore.open(read_run(self.search)["settings"]["store"])

    @cached_property
    def galaxies(self) -> Galaxies:
        """The survey that the store was made from."""
        return galaxies_of(self.store, way_out=_WAY_OUT)

    @property
    def about(self) -> dict[str, str]:
        """Where the members come from."""
        run = read_run(self.search)
        told = {key: str(run[key]) for key in ("survey", "checkpoint", "checkpoint_sha256")}
        return {**told, "search": Path(self.search).name, "rarezoo": __version__}

    def members(self) -> pa.Table:
        """The members table of :mod:`rarezoo.report.exports`, by class, the most probable first.

        Raises:
            ConfigError: no such class or answer.
            StoreError, DataError: the search, its store or the positions are not there.
        """
        found = self._chosen().sort_by(
            [(tables.CLASS_ID, "ascending"), (tables.PROBABILITY, "descending"), (tables.ID, "ascending")]
        )
        places = self._places(found.column(tables.ID))
        fractions = self._fractions(found.column(tables.ID))
        first = {tables.ID: found.column(tables.ID), **{one: places.column(one) for one in (tables.RA, tables.DEC)}}
        measured = {one: found.column(one) for one in (tables.CLASS_ID, tables.PROBABILITY, tables.OUTLIER_SCORE)}
        return pa.table({**first, **measured, **fractions})

    def _chosen(self) -> pa.Table:
        members = read_members(self.search)
        labels = members.column(tables.CLASS_ID)
        known = sorted(set(labels.to_pylist()) - {tables.NO_CLASS})
        unknown = sorted(set(self.classes) - set(known))
        if unknown:
            listed = ", ".join(map(str, known)) or "none"
            raise ConfigError(f"{self.search} has no class", value=unknown[0], fix=f"There are: {listed}.")
        if self.unassigned and not self.classes:
            return members
        return members.filter(pc.is_in(labels, pa.array(self.classes or known, pa.int32())))

    def _places(self, ids: pa.ChunkedArray) -> pa.Table:
        source = self.positions or "the survey's catalogue"
        table = read_any_table(Path(self.positions)) if self.positions else self.galaxies.catalogue
        missing = [one for one in (tables.RA, tables.DEC) if one not in table.column_names]
        if missing:
            raise DataError(f"{source} has no column", value=missing[0], fix="It needs id_str, ra and dec (deg).")
        named = pa.array(ids_of(table, tables.ID, source=source), pa.string())
        degrees = {one: table.column(one).cast(pa.float64()) for one in (tables.RA, tables.DEC)}
        return rows_of(ids, pa.table({tables.ID: named, **degrees}), source=source)

    def _fractions(self, ids: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
        known = self.store.manifest.answers
        wanted = known if self.answers == (EVERY,) else self.answers
        unknown = [one for one in wanted if one not in known]
        if unknown:
            raise ConfigError("the store predicts no answer", value=unknown[0], fix=f"There are: {', '.join(known)}.")
        if not wanted:
            return {}
        columns = [tables.fraction_column(one) for one in wanted]
        rows = rows_of(ids, self.store.read([tables.ID, *columns]), source="the store")
        return {one: rows.column(one) for one in columns}

    def write(self, out: Path | str, *, form: str, images: bool = True, radius: float = 10.0) -> Path:
        """Write the members; the path of the file or folder.

        Args:
            out: file, or folder for ``huggingface``.
            form: one of :data:`FORMATS`.
            images: put the cutouts into a ``huggingface`` data set.
            radius: of DS9's circles, arcsec.

        Raises:
            ConfigError, StoreError, DataError, OutputError: see the message.
        """
        out = Path(out)
        if form != "huggingface" and out.is_dir():
            raise OutputError("the output path is a folder", value=out, fix="Choose a file: --out FILE.")
        try:
            return self._writer(form, images=images, radius=radius)(out, self.members(), about=self.about)
        except OSError as problem:
            raise tables.unwritable(out, problem) from problem

    def _writer(self, form: str, *, images: bool, radius: float) -> Callable[..., Path]:
        cutouts = cutouts_of(self.galaxies) if images and form == "huggingface" else None
        writers: dict[str, Callable[..., Path]] = {
            "csv": exports.write_csv,
            "fits": exports.write_fits,
            "votable": exports.write_votable,
            "ds9": partial(exports.write_ds9, radius=radius),
            "huggingface": partial(exports.write_huggingface, cutouts=cutouts),
        }
        return writers[form]

    def send(self) -> list[str]:
        """Send the members to the programs that take tables by SAMP; their names.

        Raises:
            OutputError: nobody took them.
        """
        shown = " ".join(map(str, self.classes))
        name = f"{Path(self.search).name} class {shown}" if self.classes else Path(self.search).name
        with tempfile.TemporaryDirectory(prefix="rarezoo-") as folder:
            path = exports.write_votable(Path(folder) / "members.vot", self.members(), about=self.about)
            return send_votable(path, name=name)


def add_export_verb(verbs: Any) -> None:
    """``rarezoo export`` for the command line."""
    parser = verbs.add_parser("export", help="members of classes as FITS, VOTable, DS9 regions …, or sent to TOPCAT")
    parser.add_argument("search", help="out= of a search")
    parser.add_argument("--format", choices=FORMATS, default="", help="of the file; csv, unless --samp is given")
    parser.add_argument("--out", default="", help="file to write; a folder for huggingface")
    parser.add_argument("--samp", action="store_true", help="send to the running TOPCAT, Aladin or DS9")
    parser.add_argument("--class", dest="classes", nargs="+", type=int, default=[], metavar="ID", help="only these")
    parser.add_argument("--unassigned", action="store_true", help="the galaxies in no class too")
    parser.add_argument("--answers", nargs="+", default=[], help="whose predicted fractions go along; all for all")
    parser.add_argument("--positions", default="", help="table with id_str, ra, dec (deg); empty: the survey's")
    parser.add_argument("--radius", type=float, default=10.0, help="of DS9's circles, arcsec")
    parser.add_argument("--no-images", dest="images", action="store_false", help="of huggingface: without images")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    _refuse_words(options)
    export = Export(
        search=options.search, classes=tuple(options.classes), unassigned=options.unassigned,
        answers=tuple(options.answers), positions=options.positions,
    )  # fmt: skip
    if options.out:
        form = options.format or "csv"
        print(export.write(options.out, form=form, images=options.images, radius=options.radius))
    if options.samp:
        print(f"sent to {', '.join(export.send())}")


def _refuse_words(options: argparse.Namespace) -> None:
    if not options.out and (options.format or not options.samp):
        raise ConfigError("nowhere to write", value="--out", fix="Name a file: --out FILE; or send: --samp.")
    if options.radius <= 0:
        raise ConfigError("a radius must be positive", value=options.radius, fix="Give arcseconds: --radius 10.")
