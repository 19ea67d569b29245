"""``rarezoo sensitivity``: what of a search's result hangs on its settings, from the folders of a sweep's jobs.

A job that failed is listed as missing and does not stop it.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.report.sensitivity import ShownSetting, shown_settings, write_sensitivity_page
from rarezoo.runs import SETTINGS_FILE
from rarezoo.searches.result import RUN_FILE, read_members, read_run
from rarezoo.studies.sensitivity import Search, Sensitivity
from rarezoo.tables import markdown

# Why a job of a sweep ended; written where it failed.
FAILED = "failed.txt"
# Hydra's record of a job, there before the job begins.
_BEGUN = ".hydra"
# What all searches must share.
_COMMON = ("store", "survey_sha256", "checkpoint_sha256")
_PARTS = {"searches": tables.SEARCHES, "agreements": tables.AGREEMENTS, "lives": tables.LIVES}


def sensitivity_of(folder: Path | str, *, centre: str = "") -> Sensitivity:
    """The searches in the folder of a sweep.

    Args:
        folder: out= of the sweep.
        centre: folder name of the search whose setting is the centre; empty: the setting nearest to all others.

    Raises:
        StoreError: no finished search there, or searches of different stores or galaxies.
    """
    places = sorted({one.parent for name in (SETTINGS_FILE, FAILED, _BEGUN) for one in Path(folder).glob(f"*/{name}")})
    finished = [place for place in places if (place / RUN_FILE).exists()]
    if not finished:
        raise StoreError(
            "no finished search in the folder", value=folder, fix="Run python cluster.py experiment=sensitivity."
        )
    runs = {place: read_run(place) for place in finished}
    _refuse_mixture(runs)
    missing = {place.name: _reason(place) for place in places if place not in runs}
    return Sensitivity(_searches(runs), missing, named=centre)


def _refuse_mixture(runs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise StoreError unless all searches are of one store."""
    first = next(iter(runs))
    for place, run in runs.items():
        told = {**run, "store": run["settings"]["store"]}
        common = {**runs[first], "store": runs[first]["settings"]["store"]}
        changed = [name for name in _COMMON if told[name] != common[name]]
        if changed:
            raise StoreError(
                f"searches of different stores cannot be compared; these differ in {', '.join(changed)}",
                value=f"{first} and {place}", fix="Move one of them out of the folder.",
            )  # fmt: skip


def _searches(runs: Mapping[Path, Mapping[str, Any]]) -> list[Search]:
    known: np.ndarray | None = None
    searches = []
    for place, run in tqdm(runs.items(), desc="reading", unit="search", mininterval=1.0):
        members = read_members(place)
        ids = tables.strings(members, tables.ID)
        known = ids if known is None else known
        if not np.array_equal(known, ids):
            raise StoreError(
                "searches of different galaxies cannot be compared", value=f"{next(iter(runs))} and {place}",
                fix="Give all the same select=.",
            )  # fmt: skip
        settings = pd.json_normalize(run["settings"], sep=".").to_dict("records")[0]
        seed = int(settings.pop("seed"))
        labels = members.column(tables.CLASS_ID).to_numpy()
        searches.append(Search(place.name, {str(name): value for name, value in settings.items()}, seed, labels))
    return searches


def _reason(place: Path) -> str:
    told = place / FAILED
    return told.read_text().strip() if told.exists() else "not finished"


def write_sensitivity(folder: Path | str, *, centre: str = "") -> str:
    """Summarise a sweep: its page (``index.html``) and its tables, Parquet and CSV; the text for a terminal.

    Raises:
        StoreError, OutputError: see the message.
    """
    folder = Path(folder)
    found = sensitivity_of(folder, centre=centre)
    about = {"centre": found.centre.name, "varied": list(found.varied)}
    for (name, kind), table in zip(_PARTS.items(), (found.table, found.agreements, found.lives), strict=True):
        tables.write(table, folder / f"{name}.parquet", kind, **about)
        _write_csv(table, folder / f"{name}.csv")
    page = write_sensitivity_page(folder, found)
    return "\n".join([_text(found), str(page)])


def _write_csv(table: pa.Table, path: Path) -> None:
    if tables.SIZES in table.column_names:
        joined = [" ".join(map(str, one or ())) for one in table[tables.SIZES].to_pylist()]
        table = table.set_column(table.column_names.index(tables.SIZES), tables.SIZES, pa.array(joined))
    with tables.atomic(path) as temporary:
        pyarrow.csv.write_csv(table, temporary)


def _text(found: Sensitivity) -> str:
    head = ["setting", "seeds", "classes", "unassigned", "co-assignment with the centre", "classes matched"]
    lost = [f"missing: {name} ({reason})" for name, reason in found.missing.items()]
    others = len(found.settings) - 1
    lived = int(np.sum(found.lived_through == others))
    told = f"{lived} of the centre's {len(found.classes)} classes live through every other setting ({others})"
    return "\n".join([markdown(head, [_row(one) for one in shown_settings(found)]), *lost, told])


def _row(one: ShownSetting) -> list[str]:
    indices = ["–" if value is None else f"{value:.2f}" for value in (one.co_assignment, one.matched)]
    return [one.name, str(len(one.seeds)), f"{one.classes[0]:.3g}", f"{one.unassigned:.1%}", *indices]


def add_sensitivity_verb(verbs: Any) -> None:
    """``rarezoo sensitivity`` for the command line."""
    parser = verbs.add_parser("sensitivity", help="what hangs on the settings: the jobs of experiment=sensitivity")
    parser.add_argument("folder", help="out= of the sweep")
    parser.add_argument("--centre", default="", help="folder name of the search to compare the others with")
    parser.set_defaults(run=_sensitivity)


def _sensitivity(options: argparse.Namespace) -> None:
    print(write_sensitivity(options.folder, centre=options.centre))
