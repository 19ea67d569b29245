"""``rarezoo classes``: the classes of a search, what became of them in another, and a reader's decisions about them."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from rarezoo import tables
from rarezoo.errors import ConfigError, OutputError
from rarezoo.report.cards import classes_table, markdown
from rarezoo.searches.deciding import apply_decisions
from rarezoo.searches.matching import EVENTS, Comparison, fates
from rarezoo.searches.run import read_members


def class_matches(old: Path | str, new: Path | str, *, out: str = "") -> str:
    """What became of the classes of one search in another, for a terminal.

    Args:
        old: folder of a finished search.
        new: folder of another, of some of the same galaxies.
        out: folder for matches.parquet, matches.csv and diff.json; empty writes nothing.

    Raises:
        StoreError: no finished search, or no galaxy in common.
        OutputError: the folder cannot be written.
    """
    comparison = Comparison.of_members(read_members(old), read_members(new))
    matches = comparison.matches()
    counted = {event: count for event in EVENTS if (count := fates(matches)[event])}
    if out:
        about = {
            "old": str(old), "new": str(new), "galaxies": comparison.galaxies, "events": counted,
            "old_classes": len(comparison.old), "new_classes": len(comparison.new),
        }  # fmt: skip
        write_matches(matches, about, Path(out))
        tables.write_json({**about, "matches": matches.to_pylist()}, Path(out) / "diff.json")
    told = (
        f"{comparison.galaxies:,} galaxies in both searches; {len(comparison.old)} classes before, "
        f"{len(comparison.new)} now: {', '.join(f'{count} {event}' for event, count in counted.items()) or 'none'}"
    )
    head = ["event", "old", "new", "galaxies of old", "of new", "of both", "Jaccard", "p"]
    return "\n".join([told, markdown(head, [_cells(row) for row in matches.to_pylist()])])


def write_matches(matches: pa.Table, about: Mapping[str, Any], folder: Path) -> None:
    """Write matches.parquet and matches.csv.

    Raises:
        OutputError: the folder is a file, or cannot be written.
    """
    if folder.is_file():
        raise OutputError("the output path is a file", value=folder, fix="Choose a folder: --out DIR.")
    tables.write(matches, folder / "matches.parquet", tables.MATCHES, **about)
    with tables.atomic(folder / "matches.csv") as temporary:
        pyarrow.csv.write_csv(matches, temporary)


def _cells(row: Mapping[str, Any]) -> list[str]:
    names = [str(row[one]) if row[one] != tables.NO_CLASS else "–" for one in (tables.CLASS_A, tables.CLASS_B)]
    sizes = [str(row[one]) for one in (tables.SIZE_A, tables.SIZE_B, tables.OVERLAP)]
    return [row[tables.EVENT], *names, *sizes, f"{row[tables.JACCARD]:.3f}", f"{row[tables.P_VALUE]:.2g}"]


def add_classes_verb(verbs: Any) -> None:
    """``rarezoo classes`` for the command line."""
    classes = verbs.add_parser(
        "classes", help="the classes of a search; diff: what became of them in another; apply: decisions about them",
        usage="rarezoo classes SEARCH [--column NAME] | diff OLD NEW [--out DIR] | apply SEARCH FILE [--out DIR]",
    )  # fmt: skip
    classes.add_argument(
        "words", nargs="+", metavar="SEARCH", help="out= of a search; or diff and two of them; or apply, one, and FILE"
    )
    classes.add_argument("--column", default="", help="a numeric catalogue column: its mean per class")
    classes.add_argument("--out", default="", help="folder of what diff (empty: none) or apply writes")
    classes.set_defaults(run=_classes)


def _classes(options: argparse.Namespace) -> None:
    words = " ".join(options.words)
    if options.words[0] == "diff":
        if len(options.words) != 3 or options.column:
            raise ConfigError("diff compares two searches", value=words, fix="Say: rarezoo classes diff OLD NEW.")
        print(class_matches(*options.words[1:], out=options.out))
    elif options.words[0] == "apply":
        if len(options.words) != 3 or options.column:
            raise ConfigError(
                "apply takes a search and a file of decisions",
                value=words,
                fix="Say: rarezoo classes apply SEARCH FILE.",
            )
        print(apply_decisions(*options.words[1:], out=options.out))
    elif len(options.words) != 1 or options.out:
        raise ConfigError("one search at a time", value=words, fix="For two, say: rarezoo classes diff OLD NEW.")
    else:
        print(classes_table(options.words[0], column=options.column))
