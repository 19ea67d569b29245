"""Compare searches of the same galaxies under different settings: ``rarezoo sensitivity``.

The result tells which classes depend on a setting of the search, and which come back under all of them. It is made from
the folders that the jobs of a multirun leave behind; a job that failed is listed as missing.
:mod:`rarezoo.studies.swept` arranges the searches by their settings; :mod:`rarezoo.studies.sensitivity_page` writes
the page.

Shape letters: n galaxies, s settings, c classes of the centre.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64, Int64
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.errors import StoreError, StoreNotFound
from rarezoo.runs import SETTINGS_FILE
from rarezoo.searches.matching import SAME, ClassOverlap, agreement
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting
from rarezoo.studies.failures import FAILED_FILE, failure_of
from rarezoo.studies.swept import SweptSearch, SweptSetting, settings_around, varied_settings

# Hydra's record of a job, which exists before the job begins.
_BEGUN = ".hydra"
# What all searches of a study must have in common.
_COMMON = ("store", "survey_sha256", "checkpoint_sha256")


@dataclass(kw_only=True)
class SensitivityRun(Settings):
    """Compare the searches of a multirun under different settings, as a page (index.html) and tables."""

    folder: str = setting(help="out= of the multirun, python cluster.py experiment=sensitivity", positional=True)
    centre: str = setting("", "folder name of the search to compare the others with; empty: the one in the middle")

    def run(self) -> str:
        """Write the page and the tables, and return the text for a terminal.

        Raises
        ------
        StoreError
            There is no finished search, or the searches are of different stores or galaxies.
        OutputError
            The folder cannot be written.
        """
        return write_sensitivity(self.folder, centre=self.centre)


def write_sensitivity(folder: Path | str, *, centre: str = "") -> str:
    """Write the page and the tables of a multirun's folder, and return the text; see :class:`SensitivityRun`."""
    from rarezoo.studies.sensitivity_page import write_sensitivity_page

    folder = Path(folder)
    result = read_sensitivity(folder, centre=centre)
    about = {"centre": result.centre.name, "varied": list(result.varied)}
    for name, kind, table in (
        ("searches", tables.SEARCHES, result.table),
        ("agreements", tables.AGREEMENTS, result.agreements),
        ("lives", tables.LIVES, result.lives),
    ):
        tables.write(table, folder / f"{name}.parquet", kind, **about)
        if tables.SIZES in table.column_names:
            texts = [" ".join(map(str, sizes or ())) for sizes in table[tables.SIZES].to_pylist()]
            table = table.set_column(table.column_names.index(tables.SIZES), tables.SIZES, pa.array(texts))
        tables.write_csv(table, folder / f"{name}.csv")
    page = write_sensitivity_page(folder, result)
    return f"{result.summary()}\n{page}"


def read_sensitivity(folder: Path | str, *, centre: str = "") -> "Sensitivity":
    """Read the searches in the folder of a multirun.

    Parameters
    ----------
    folder
        ``out=`` of the multirun.
    centre
        Folder name of the search whose setting is the centre; empty: the setting that differs least from all others.

    Raises
    ------
    StoreNotFound
        There is no finished search.
    StoreError
        The searches are of different stores or galaxies.
    """
    marks = (SETTINGS_FILE, FAILED_FILE, _BEGUN)
    places = sorted({path.parent for mark in marks for path in Path(folder).glob(f"*/{mark}")})
    searches = {place: Search.open(place) for place in places if _is_finished(place)}
    if not searches:
        raise StoreNotFound(
            "no finished search in the folder", value=folder, fix="Run python cluster.py experiment=sensitivity."
        )
    first = next(iter(searches))
    swept = []
    for place, search in tqdm(searches.items(), desc="reading", unit="search", mininterval=1.0):
        _require_same_galaxies(searches[first], search)
        settings = {name: value for name, value in search.settings.items() if name != "store"}
        flat = pd.json_normalize(settings, sep=".").to_dict("records")[0]
        seed = int(flat.pop("seed"))
        swept.append(SweptSearch(place.name, {str(name): value for name, value in flat.items()}, seed, search.labels))
    missing = {place.name: failure_of(place) or "not finished" for place in places if place not in searches}
    return Sensitivity(swept, missing, named=centre)


def _is_finished(place: Path) -> bool:
    try:
        Search.open(place)
    except StoreNotFound:
        return False
    return True


def _require_same_galaxies(first: Search, search: Search) -> None:
    """Raise StoreError unless two searches are of the same store and of the same galaxies in the same order."""
    both = f"{first.folder} and {search.folder}"
    # The place of a store may change; of searches by an earlier rarezoo nothing else is known.
    wanted, present = (
        {**side.about, "store": side.about.get("inputs", {}).get("store", side.settings["store"])}
        for side in (first, search)
    )
    changed = [name for name in _COMMON if present[name] != wanted[name]]
    if changed:
        raise StoreError(
            f"searches of different stores cannot be compared; these differ in {', '.join(changed)}",
            value=both,
            fix="Move one of them out of the folder.",
        )
    if not np.array_equal(first.ids, search.ids):
        raise StoreError(
            "searches of different galaxies cannot be compared", value=both, fix="Search all with the same select=."
        )


@dataclass(frozen=True)
class Sensitivity:
    """Searches of the same galaxies under different settings.

    Attributes
    ----------
    searches
        At least one search; of two with the same settings and seed the first is used.
    missing
        Reason why a search is missing, by its name.
    named
        Name of the search whose setting is the centre. Empty: the setting that differs least from all others, which is
        the one in the middle if one setting is varied at a time.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, -1])
    >>> searches = [SweptSearch(f"min_samples={n}", {"clusterer.min_samples": n}, 0, labels) for n in (5, 10, 20)]
    >>> [setting.name for setting in Sensitivity(searches, {}).settings]
    ['centre', 'min_samples 5', 'min_samples 20']
    """

    searches: Sequence[SweptSearch]
    missing: Mapping[str, str]
    named: str = ""

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """Settings in which the searches differ."""
        return varied_settings(self.searches)

    @cached_property
    def settings(self) -> tuple[SweptSetting, ...]:
        """The centre, then the other settings, those that differ from it in fewest values first.

        Raises
        ------
        StoreError
            No search has the name of the centre.
        """
        return settings_around(self.searches, named=self.named)

    @property
    def centre(self) -> SweptSearch:
        """The search whose classes are followed: the first seed of the centre."""
        return self.settings[0].searches[0]

    @property
    def classes(self) -> Int64[np.ndarray, " c"]:
        """Ids of the classes of :attr:`centre`."""
        return np.unique(self.centre.labels[self.centre.labels != tables.NO_CLASS]).astype(np.int64)

    @cached_property
    def table(self) -> pa.Table:
        """SEARCHES table: one row per search, with the value of every varied setting, then the missing searches."""
        schema = pa.schema([*tables.SEARCHES.columns.items(), *((name, pa.string()) for name in self.varied)])
        finished = [
            {
                tables.SEARCH: search.name,
                tables.SETTING: swept.name,
                tables.SEED: search.seed,
                tables.CLASS_COUNT: len(search.sizes),
                tables.SIZES: search.sizes.tolist(),
                tables.UNASSIGNED: search.unassigned,
                **dict(zip(self.varied, swept.values, strict=True)),
            }
            for swept in self.settings
            for search in swept.searches
        ]
        missing = [{tables.SEARCH: name, tables.MISSING: reason} for name, reason in sorted(self.missing.items())]
        return pa.Table.from_pylist([*finished, *missing], schema)

    @cached_property
    def agreements(self) -> pa.Table:
        """AGREEMENTS table: every two settings at the same seed, and every two seeds of the same setting."""
        rows = []
        for (first_setting, first), (second_setting, second) in tqdm(
            list(self._pairs()), desc="comparing", unit="pair", mininterval=1.0
        ):
            names = {
                tables.SEARCH_A: first.name,
                tables.SEARCH_B: second.name,
                tables.SETTING_A: first_setting.name,
                tables.SETTING_B: second_setting.name,
                tables.SEED_A: first.seed,
                tables.SEED_B: second.seed,
            }
            rows.append({**names, **asdict(agreement(first.labels, second.labels))})
        return pa.Table.from_pylist(rows, pa.schema(list(tables.AGREEMENTS.columns.items())))

    def _pairs(self) -> Iterator[tuple[tuple[SweptSetting, SweptSearch], tuple[SweptSetting, SweptSearch]]]:
        every = [(swept, search) for swept in self.settings for search in swept.searches]
        for first, second in combinations(every, 2):
            if first[0] is second[0] or first[1].seed == second[1].seed:
                yield first, second

    @cached_property
    def lives(self) -> pa.Table:
        """LIVES table: best Jaccard index of every class of :attr:`centre` in every other search."""
        rows = []
        for swept in self.settings:
            for search in swept.searches:
                if search is self.centre:
                    continue
                best = ClassOverlap.of_labels(self.centre.labels, search.labels).best
                rows += [
                    {
                        tables.CLASS_ID: int(class_id),
                        tables.SEARCH: search.name,
                        tables.SETTING: swept.name,
                        tables.SEED: search.seed,
                        tables.JACCARD: float(jaccard),
                    }
                    for class_id, jaccard in zip(self.classes, best, strict=True)
                ]
        return pa.Table.from_pylist(rows, pa.schema(list(tables.LIVES.columns.items())))

    @cached_property
    def co_assignment(self) -> Float64[np.ndarray, "s s"]:
        """Mean co-assignment of every two settings over their common seeds; on the diagonal, between the seeds."""
        names = [swept.name for swept in self.settings]
        pairs = self.agreements.to_pandas().groupby([tables.SETTING_A, tables.SETTING_B])[tables.CO_ASSIGNMENT].mean()
        one_way = pairs.unstack().reindex(index=names, columns=names).to_numpy(np.float64)
        # Every pair is in the table in one order only.
        return np.where(np.isnan(one_way), one_way.T, one_way)

    @cached_property
    def living(self) -> Float64[np.ndarray, "c s"]:
        """Mean best Jaccard index of every class of the centre in the searches of every setting."""
        names = [swept.name for swept in self.settings]
        best = self.lives.to_pandas().groupby([tables.CLASS_ID, tables.SETTING])[tables.JACCARD].mean()
        return best.unstack().reindex(index=self.classes, columns=names).to_numpy(np.float64)

    @property
    def lived_through(self) -> Int64[np.ndarray, " c"]:
        """Number of other settings in which each class of the centre is kept: mean best Jaccard index at least ½."""
        return np.sum(np.nan_to_num(self.living[:, 1:]) >= SAME, axis=1)

    @cached_property
    def summaries(self) -> tuple["SettingSummary", ...]:
        """One summary per setting, the centre first."""
        return tuple(self._summary(swept) for swept in self.settings)

    def _summary(self, swept: SweptSetting) -> "SettingSummary":
        counts = [len(search.sizes) for search in swept.searches]
        sizes = np.concatenate([search.sizes for search in swept.searches])
        pair = {self.settings[0].name, swept.name}
        rows = [row for row in self.agreements.to_pylist() if {row[tables.SETTING_A], row[tables.SETTING_B]} == pair]
        indices = (tables.CO_ASSIGNMENT, tables.ARI_BOTH, tables.AMI_BOTH, tables.ASSIGNED_BOTH, tables.MATCHED)
        return SettingSummary(
            swept.name,
            tuple((search.seed, search.name) for search in swept.searches),
            (float(np.mean(counts)), min(counts), max(counts)),
            (float(np.median(sizes)), int(sizes.min()), int(sizes.max())) if len(sizes) else None,
            float(np.mean([search.unassigned for search in swept.searches])),
            *(_mean([row[name] for row in rows]) for name in indices),
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per setting, the centre first: numbers of classes and agreement with the centre.

        Returns
        -------
        pandas.DataFrame
            Columns setting, seeds, classes (mean over the seeds), unassigned, and the indices of agreement with the
            centre; for the centre, between its seeds.
        """
        indices = ("co_assignment", "ari_both", "ami_both", "assigned", "matched")
        return pd.DataFrame(
            [
                {
                    "setting": summary.name,
                    "seeds": len(summary.seeds),
                    "classes": summary.classes[0],
                    "unassigned": summary.unassigned,
                    **{name: getattr(summary, name) for name in indices},
                }
                for summary in self.summaries
            ]
        ).astype(dict.fromkeys(indices, float))

    def summary(self) -> str:
        """Return the text for a terminal."""
        head = ["setting", "seeds", "classes", "unassigned", "co-assignment with the centre", "classes matched"]
        rows = [
            [
                row.name,
                str(len(row.seeds)),
                f"{row.classes[0]:.3g}",
                f"{row.unassigned:.1%}",
                *("–" if value is None else f"{value:.2f}" for value in (row.co_assignment, row.matched)),
            ]
            for row in self.summaries
        ]
        missing = [f"missing: {name} ({reason})" for name, reason in self.missing.items()]
        others = len(self.settings) - 1
        kept = int(np.sum(self.lived_through == others))
        last = f"{kept} of the {len(self.classes)} classes of the centre are kept in every other setting ({others})"
        return "\n".join([tables.markdown(head, rows), *missing, last])


@dataclass(frozen=True)
class SettingSummary:
    """Classes that a setting finds, as means over its seeds.

    Attributes
    ----------
    name
        Difference from the centre.
    seeds
        Seeds of the finished searches, and the folder of each.
    classes
        Mean number of classes, and the smallest and the largest over the seeds.
    size
        Median size of all classes, and the smallest and the largest; None without a class.
    unassigned
        Share of the galaxies in no class, 0–1.
    co_assignment, ari_both, ami_both, assigned, matched
        Agreement with the centre at the same seed; for the centre, between its seeds. None without such a pair.
    """

    name: str
    seeds: tuple[tuple[int, str], ...]
    classes: tuple[float, int, int]
    size: tuple[float, int, int] | None
    unassigned: float
    co_assignment: float | None
    ari_both: float | None
    ami_both: float | None
    assigned: float | None
    matched: float | None


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None
