"""``rarezoo classes apply SEARCH FILE``: a reader's decisions about the classes of a search, made into a search."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.data.survey import Galaxies, open_survey
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, RarezooError, StoreError
from rarezoo.report.pages import write_report
from rarezoo.report.sample import rows_of
from rarezoo.searches.decisions import Decided, Decisions, decided, search_key
from rarezoo.searches.run import RUN_FILE, cutouts_of, read_members, read_run

log = logging.getLogger(__name__)
# What the decisions leave as it was.
_COPIED = ("map.parquet", "map_2d.parquet", "tree.parquet", "linkage.parquet")
# What tables.write says of every table by itself.
_WRITTEN = ("kind", "schema", "version")


def apply_decisions(search: Path | str, file: Path | str, *, out: str = "") -> str:
    """Write the search that a reader's decisions leave, with its report; what changed, for a terminal.

    Without the search's store the answers of merged classes stay empty; without its survey the report has no images.

    Args:
        search: folder of a finished search.
        file: decisions as the atlas saves them, JSON or CSV.
        out: folder; empty: ``decided`` in the search's.

    Raises:
        StoreError: no finished search there.
        ConfigError: the file holds no decisions, or those of another search, or they do not fit together.
        OutputError: the folder cannot be written.
    """
    source, folder = Path(search), Path(out or Path(search) / "decided")
    if folder.resolve() == source.resolve():
        raise ConfigError("the search itself would be overwritten", value=folder, fix="Give another folder: --out DIR.")
    run, members = read_run(source), read_members(source)
    classes = tables.read(source / "classes.parquet", tables.CLASSES)
    decisions = Decisions.read(file)
    decisions.refuse_other_search(search_key(members[tables.ID].to_pylist(), members[tables.CLASS_ID].to_numpy()))
    positions = rows_of(members[tables.ID], tables.read(source / "map.parquet", tables.MAP), source="the map")
    store, predictions = _predictions(run, members)
    after = decided(
        decisions, members=members, classes=classes, positions=tables.matrix(positions, tables.POSITION),
        predictions=predictions,
    )  # fmt: skip
    about = _about(run, after, decisions=Path(file).resolve())
    _write(folder, source, after, about)
    page = _report(folder, after, about, predictions, None if store is None else _galaxies(store))
    return "\n".join([_told(classes, after, members), str(page)])


def _predictions(run: Mapping[str, Any], members: pa.Table) -> tuple[EmbeddingStore | None, pa.Table]:
    """The search's store and its predictions, in the members' order; None and no answers where it is gone."""
    try:
        store = EmbeddingStore.open(run["settings"]["store"])
        rows = rows_of(members[tables.ID], store.read(), source="the store")
    except StoreError as problem:
        log.warning("no answers are counted: %s", problem)
        return None, members.select([tables.ID])
    return store, rows.drop_columns([tables.EMBEDDING])


def _galaxies(store: EmbeddingStore) -> Galaxies | None:
    try:
        galaxies = open_survey(store.manifest.survey_settings).open()
    except RarezooError as problem:
        log.warning("a report without images: %s", problem)
        return None
    return galaxies if galaxies.sha256 == store.manifest.survey_sha256 else None


def _about(run: Mapping[str, Any], after: Decided, *, decisions: Path) -> dict[str, Any]:
    unassigned = float(np.mean(after.members[tables.CLASS_ID].to_numpy() == tables.NO_CLASS))
    settings = {**run["settings"], "decisions": str(decisions)}
    return {**run, "settings": settings, "classes": after.classes.num_rows, "unassigned": unassigned}


def _write(folder: Path, source: Path, after: Decided, about: Mapping[str, Any]) -> None:
    for name, table, kind in (("members", after.members, tables.MEMBERS), ("classes", after.classes, tables.CLASSES)):
        keep = {key: value for key, value in tables.provenance(table).items() if key not in _WRITTEN}
        tables.write(table, folder / f"{name}.parquet", kind, **{**keep, "settings": about["settings"]})
    for name in _COPIED:
        if (source / name).exists():
            with tables.atomic(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)
    tables.write_json(about, folder / RUN_FILE)


def _report(
    folder: Path, after: Decided, about: Mapping[str, Any], predictions: pa.Table, galaxies: Galaxies | None
) -> Path:
    read = {name: tables.read(folder / f"{name}.parquet", tables.MAP) for name in ("map", "map_2d")}
    return write_report(
        folder / "report", members=after.members, classes=after.classes, map_2d=read["map_2d"],
        tree=tables.read(folder / "tree.parquet", tables.TREE), predictions=predictions, searched_map=read["map"],
        cutouts=None if galaxies is None else cutouts_of(galaxies), about=about,
        catalogue=None if galaxies is None else galaxies.catalogue,
        truth=None if galaxies is None else galaxies.truth, seed=int(about["settings"]["seed"]),
    )  # fmt: skip


def _told(before: pa.Table, after: Decided, members: pa.Table) -> str:
    ids = set(after.classes[tables.CLASS_ID].to_pylist())
    named = sum(bool(name) for name in after.classes[tables.NAME].to_pylist())
    counts = [int(np.sum(one[tables.CLASS_ID].to_numpy() != tables.NO_CLASS)) for one in (members, after.members)]
    return (
        f"{before.num_rows} classes of {counts[0]:,} galaxies before, {len(ids)} of {counts[1]:,} now; "
        f"{before.num_rows - len(ids)} dropped or merged, {named} named"
    )
