"""Tables and figures from the submissions of the methods. Nothing is searched here.

Shape letters: s seeds, p populations, c classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from rarezoo import __version__, tables
from rarezoo.benchmark.harness import DONE, PART, RESEEDED, Trial, TrialFolder
from rarezoo.benchmark.methods import OutlierRanking
from rarezoo.benchmark.planted import PLACES
from rarezoo.benchmark.scores import (
    FIRST_ROWS,
    ROW_WIDTH,
    ROWS,
    Enrichment,
    Tally,
    Truth,
    best_precisions,
    discovery,
    expected_shown,
    galaxies_shown,
    ideal_order,
    interval,
    meetings,
    rows_to_half,
    stability,
)
from rarezoo.benchmark.tiers import ODD
from rarezoo.escapes import figure_text
from rarezoo.tables import markdown

OURS = "ours"
# Edges of size and contrast between which a share of found groups is printed.
_SIZES, _CONTRASTS = (0, 63, 200, 632, np.inf), (0, 5, 15, 30, np.inf)
# Points of a curve of the share found.
_CELLS = 6
_SEEN, _TO_HALF, _MET, _ODD_SHOWN = f"seen at {FIRST_ROWS}", "rows to half", f"met at {FIRST_ROWS}", "odd shown"
_MAIN = ("discovery", _SEEN, _TO_HALF, "found", "impure", "pieces", "classes", "purity", "glimpse")
# Where populations are known of some galaxies only, no class can be called false.
_PARTLY = (_MET, "discovery", _ODD_SHOWN, "rich", "precision", "classes")
_UNCOMPARED = (_TO_HALF, "classes", "purity")
# What a ranking of galaxies has, too.
_RANKED = ("discovery", _SEEN, _TO_HALF, "glimpse", _MET, _ODD_SHOWN, "precision")
_GREY: dict[str, Any] = {"color": "#cccccc", "linewidth": 0.8, "zorder": 1}
# Number of methods whose lines in the figure have a colour, ours included.
_COLOURED = 8
_CSV: dict[str, Any] = {"index": False, "lineterminator": "\r\n"}
_DECIMALS = {"purity": ".2f", "discovery": ".2f", _SEEN: ".2f", "glimpse": ".2f", "precision": ".3f"}


@dataclass(frozen=True)
class SkyScores:
    """The scores of a method on one sky.

    Attributes
    ----------
    seconds
        Seconds that it took.
    tally
        Counts of populations in classes.
    curve
        Discovery curve: a population is recognised in a row half of which it makes up; where populations are known of
        some galaxies only, it is met as :func:`rarezoo.benchmark.scores.meetings` says.
    glimpses
        Discovery curve for which one galaxy of a population is enough.
    enrichment
        Enrichment of classes in populations.
    precisions
        Average precision of "most like this class"; empty unless populations are known of some galaxies only.
    partly
        Further measures where populations are known of some galaxies only, by the name of their column.
    """

    seconds: float
    tally: Tally
    curve: Float64[np.ndarray, " rows"]
    glimpses: Float64[np.ndarray, " rows"]
    enrichment: Enrichment
    precisions: Float64[np.ndarray, " p"]
    partly: dict[str, float]

    @cached_property
    def measures(self) -> dict[str, float]:
        """The measures, by the name of their column."""
        return {
            "discovery": float(self.curve.mean()),
            _SEEN: float(self.curve[FIRST_ROWS - 1]),
            _TO_HALF: rows_to_half(self.curve),
            **self.partly,
            **self.tally.measures(),
            "glimpse": float(self.glimpses.mean()),
            "rich": float(self.enrichment.rich.any(axis=1).sum()),
            "precision": _mean(self.precisions),
        }


@dataclass(frozen=True)
class MethodScores:
    """The scores of a method on all skies.

    Attributes
    ----------
    name
        Name of the method.
    about
        Its description, one line.
    ranks
        Whether it ranks galaxies instead of finding classes.
    skies
        Its scores on each sky that it finished, by seed.
    unfinished
        For each sky that it did not finish, the reason.
    stabilities
        Mean best Jaccard index with another seed and on a part of the galaxies, one value per sky that was searched
        again.
    """

    name: str
    about: str
    ranks: bool
    skies: dict[int, SkyScores] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    stabilities: dict[str, list[float]] = field(default_factory=lambda: {RESEEDED: [], PART: []})

    def values(self, name: str) -> list[float]:
        """Return one measure over the skies."""
        return [sky.measures[name] for sky in self.skies.values()]

    @property
    def seconds(self) -> float:
        """Median of the seconds that a sky took."""
        return float(np.median([sky.seconds for sky in self.skies.values()]))


def method_scores(trials: TrialFolder, name: str, seeds: Sequence[int], *, refits: int) -> MethodScores:
    """Score one method from its files."""
    method = trials.methods[name]
    scores = MethodScores(name, method.about or name, isinstance(method, OutlierRanking))
    for seed in seeds:
        outcome = trials.outcome(Trial(name, seed))
        if outcome is None or outcome["status"] != DONE:
            reason = f"{outcome['status']}: {outcome['message']}" if outcome else "not run"
            scores.unfinished.append(f"sky {seed} {reason}")
            continue
        truth, entry = trials.truth(seed), trials.submission(Trial(name, seed))
        known = bool(truth.known.all())
        curve = discovery(entry["rows"], truth.members) if known else meetings(entry["rows"], truth)
        scores.skies[seed] = SkyScores(
            seconds=outcome["seconds"],
            tally=Tally.of(entry["labels"], truth),
            curve=curve,
            glimpses=discovery(entry["rows"], truth.members, share=0),
            enrichment=Enrichment.of(entry["labels"], truth),
            precisions=best_precisions(entry["precisions"], truth) if "precisions" in entry else np.empty(0),
            partly={} if known else _partly_known(curve, entry["rows"], truth),
        )
        if seed in list(seeds)[:refits]:
            for variant, values in scores.stabilities.items():
                again = trials.outcome(Trial(name, seed, variant))
                if again and again["status"] == DONE:
                    repeated = trials.submission(Trial(name, seed, variant))
                    searched = repeated["members"]
                    values.append(stability(entry["labels"][searched], repeated["labels"][searched]))
    return scores


def _partly_known(curve: Float64[np.ndarray, " rows"], rows: Int[np.ndarray, "r w"], truth: Truth) -> dict[str, float]:
    """Return the number of kinds met within the first rows, and the number of odd galaxies there, if any are known."""
    measures = {_MET: float(np.rint(curve[FIRST_ROWS - 1] * len(truth.names)))}
    if ODD.name in truth.names:
        measures[_ODD_SHOWN] = float(galaxies_shown(rows, truth.members[:, truth.names.index(ODD.name)]))
    return measures


def write_results(trials: TrialFolder, seeds: Sequence[int], *, refits: int) -> str:
    """Write tables and figures into the folder of the trials, and return the tables as text."""
    truths = {seed: trials.truth(seed) for seed in seeds}
    first = next(iter(truths.values()))
    columns: Sequence[str] = _MAIN if first.known.all() else _PARTLY
    columns = [name for name in columns if name != _ODD_SHOWN or ODD.name in first.names]
    scored = [method_scores(trials, name, seeds, refits=refits) for name in trials.methods]
    results = sorted(scored, key=partial(_place, columns=columns))
    parts = [_heading(trials, seeds, truths), _main_table(results, columns=columns, truth=first)]
    parts += [_against_ours(results, columns=columns)] if any(score.name == OURS for score in results) else []
    groups = _groups(results, truths)
    parts += [_shares_table(results, groups)] if "contrast" in first.about else [_population_table(results, truths)]
    skies = [sky for score in results for sky in score.skies.values()]
    parts += [_precision_table(results, first.names)] if any(len(sky.precisions) for sky in skies) else []
    ranked = {seed: trials.ranked(seed) for seed in seeds}
    parts += [_ranking_table(ranked, first.names)] if any(ranked.values()) else []
    text = "\n\n".join(parts)
    measures = [
        {"method": score.name, "seed": seed, **sky.measures, "seconds": sky.seconds}
        for score in results
        for seed, sky in score.skies.items()
    ]
    _write(trials.folder / "results.md", text + "\n")
    _write(trials.folder / "results.csv", pd.DataFrame(measures).to_csv(**_CSV, na_rep="nan"))
    _write(trials.folder / "groups.csv", groups.to_csv(**_CSV))
    _write(trials.folder / "false.csv", _classes(results, truths).to_csv(**_CSV))
    _draw(results, truths, groups, trials.folder)
    return text


def write_null_results(trials: TrialFolder, seeds: Sequence[int], *, refits: int) -> str:
    """Write the table for skies without any group, and return it as text."""
    from scipy.stats import binomtest

    rows = []
    for name, method in trials.methods.items():
        result = method_scores(trials, name, seeds, refits=refits)
        counts = [len(sky.tally.classes) for sky in result.skies.values()]
        if not counts:
            rows.append([method.about, "0", "–", "–", "–", "; ".join(result.unfinished[:1])])
            continue
        submissions = [trials.submission(Trial(name, seed)) for seed in result.skies]
        groups = [int(entry["main_groups"]) for entry in submissions if "main_groups" in entry]
        any_class = sum(count > 0 for count in counts)
        ends = binomtest(any_class, len(counts)).proportion_ci()
        share = f"{any_class / len(counts):.3f} ({ends.low:.3f}–{ends.high:.3f})"
        means = [f"{np.mean(numbers):.2f}" if numbers else "–" for numbers in (counts, groups)]
        rows.append([method.about, str(len(counts)), share, *means, f"{result.seconds:.1f}"])
    head = ["method", "skies", "share with any class (95 %)", "classes per sky", "main groups per sky", "seconds"]
    text = f"{_heading(trials, seeds, {})}\n\n{markdown(head, rows)}"
    _write(trials.folder / "results.md", text + "\n")
    return text


def _heading(trials: TrialFolder, seeds: Sequence[int], truths: dict[int, Truth]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in trials.tier.settings().items() if value not in ("", None))
    count = len(next(iter(truths.values())).names) if truths else 0
    populations = f"; {count} population{'s' * (count > 1)}" if count else ""
    span = f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 2 else ", ".join(map(str, seeds))
    return (
        f"rarezoo {__version__}; {settings}; {len(seeds)} seeds ({span}){populations}; mean (95 % interval over seeds)"
    )


def _place(score: MethodScores, columns: Sequence[str]) -> tuple[bool, float, float]:
    """Return what sorts the methods: the best in the first column comes first, those that did not finish come last."""
    if not score.skies:
        return True, 0.0, 0.0
    return False, -float(np.mean(score.values(columns[0]))), -float(np.mean(score.values(columns[1])))


def _main_table(results: Sequence[MethodScores], *, columns: Sequence[str], truth: Truth) -> str:
    """Return the table of measures, with notes on the methods that did not finish and on single columns."""
    rows = []
    for score in results:
        if not score.skies:
            rows.append([score.about, *["–"] * (len(columns) + 2), score.unfinished[0].split(" ", 2)[2][:60]])
            continue
        cells = ["–" if score.ranks and name not in _RANKED else _shown(score.values(name), name) for name in columns]
        stable = [_shown(v, "purity") if v and not score.ranks else "–" for v in score.stabilities.values()]
        rows.append([score.about, *cells, *stable, f"{score.seconds:.0f}"])
    notes = [f"{score.about}: {'; '.join(score.unfinished)}" for score in results if score.unfinished]
    if _MET not in columns:
        notes.insert(0, f"discovery of an ideal order: {ideal_order(len(truth.names)).mean():.2f}")
    if _ODD_SHOWN in columns:
        by_chance = expected_shown(truth.members[:, truth.names.index(ODD.name)])
        notes.insert(0, f"{_ODD_SHOWN}: {by_chance:.1f} are expected of {FIRST_ROWS * ROW_WIDTH} random galaxies")
    head = ["method", *columns, "other seed", "80 %", "seconds"]
    return "\n".join([markdown(head, rows), "", *notes]).strip()


def _shown(values: Sequence[float], name: str) -> str:
    """Return a measure over the skies: its mean and interval; of numbers of rows, which have no end, the median."""
    if name == _TO_HALF:
        # The higher one of the two in the middle, because the mean with "never" is no number of rows.
        median = int(np.quantile(values, 0.5, method="higher"))
        return f"> {ROWS}" if median > ROWS else str(median)
    return interval(values).text(_DECIMALS.get(name, ".1f"))


def _against_ours(results: Sequence[MethodScores], *, columns: Sequence[str]) -> str:
    """Return the table of differences on the same skies, and the share of what another method finds that ours finds."""
    ours = next(score for score in results if score.name == OURS)
    compared = [name for name in columns if name not in _UNCOMPARED]
    rows = []
    for other in results:
        both = [(ours.skies[seed], other.skies[seed]) for seed in ours.skies if seed in other.skies]
        if other is ours or not both:
            continue
        cells = [other.about]
        for name in compared:
            values = [ours_there.measures[name] - others.measures[name] for ours_there, others in both]
            unranked = other.ranks and name not in _RANKED
            cells.append("–" if unranked else interval(values).text("+" + _DECIMALS.get(name, ".1f")))
        if "found" in columns:
            pairs = [(ours_there.tally.found, others.tally.found) for ours_there, others in both]
            shares = [float(by_ours[by_other].mean()) for by_ours, by_other in pairs if by_other.any()]
            cells.append(interval(shares).text(".2f"))
        rows.append(cells)
    head = ["ours minus …", *compared, *(["share of its finds that ours finds"] if "found" in columns else [])]
    return markdown(head, rows)


def _groups(results: Sequence[MethodScores], truths: dict[int, Truth]) -> pd.DataFrame:
    """Return a row per planted population and sky: its size, contrast and place, and which methods found it, 0 or 1.

    The column of a method is empty on skies that it did not finish.
    """
    rows = []
    for seed, truth in truths.items():
        for at, name in enumerate(truth.names):
            about = {key: values[at] for key, values in truth.about.items()}
            by_method = {
                score.name: int(score.skies[seed].tally.found[at])
                for score in results
                if seed in score.skies and not score.ranks
            }
            rows.append({"seed": seed, "population": name, "size": int(truth.sizes[at]), **about, **by_method})
    # Objects, so that a method that did not finish on some sky keeps whole numbers on the others.
    return pd.DataFrame(rows, dtype=object)


def _classes(results: Sequence[MethodScores], truths: dict[int, Truth]) -> pd.DataFrame:
    """Return a row per class: its size, the population that makes up most of it, and how much of it."""
    rows = []
    for score in results:
        for seed, tally in ((seed, sky.tally) for seed, sky in score.skies.items()):
            for at in range(len(tally.classes)):
                most = int(tally.counts[:, at].argmax())
                shared, size = int(tally.counts[most, at]), int(tally.classes[at])
                completeness = shared / max(int(tally.populations[most]), 1)
                rows.append({
                    "method": score.name, "seed": seed, "class": at, "size": size,
                    "population": truths[seed].names[most] if shared else "", "purity": round(shared / size, 3),
                    "completeness": round(completeness, 3),
                })  # fmt: skip
    return pd.DataFrame(rows)


def _shares_table(results: Sequence[MethodScores], groups: pd.DataFrame) -> str:
    """Return the table of the share of groups that are found, by size, contrast and place."""
    cuts = {}
    for name, edges in (("size", _SIZES), ("contrast", _CONTRASTS)):
        for low, high in pairwise(edges):
            span = f"< {high:g}" if not low else f"≥ {low:g}" if np.isinf(high) else f"{low:g}–{high:g}"
            cuts[f"{name} {span}"] = (groups[name] >= low) & (groups[name] < high)
    cuts |= {place: groups["place"] == place for place in PLACES}
    rows = []
    for score in results:
        if score.skies and not score.ranks:
            found = groups[score.name].astype(float)
            # A mean per sky; a sky without such a group has none.
            shares = [found[cut].groupby(groups["seed"]).mean().to_numpy() for cut in cuts.values()]
            rows.append([score.about, *(interval(values).text(".2f") for values in shares)])
    return markdown(["share found", *cuts], rows)


def _population_table(results: Sequence[MethodScores], truths: dict[int, Truth]) -> str:
    """Return the table of enrichment: in how many classes a population is enriched, and the lift of the best class."""
    names = list(dict.fromkeys(name for truth in truths.values() for name in truth.names))
    rows = []
    for score in results:
        if not score.skies or score.ranks:
            continue
        cells = []
        for name in names:
            counts, lifts = [], []
            for seed, sky in score.skies.items():
                if name in truths[seed].names:
                    at, enrichment = truths[seed].names.index(name), sky.enrichment
                    counts.append(float(enrichment.rich[at].sum()))
                    lifts.append(float(enrichment.lifts[at][enrichment.rich[at]].max(initial=0.0)))
            cells.append(f"{interval(counts).value:.1f}, {interval(lifts).value:.1f} ×")
        rows.append([score.about, *cells])
    sizes = [int(np.mean([t.sizes[t.names.index(n)] for t in truths.values() if n in t.names])) for n in names]
    head = [f"{name} ({size})" for name, size in zip(names, sizes, strict=True)]
    return markdown(["enriched classes, best lift", *head], rows)


def _precision_table(results: Sequence[MethodScores], names: Sequence[str]) -> str:
    """Return the average precision of "most like this class" of the class that ranks each population best."""
    rows = []
    for score in results:
        measured = [sky.precisions for sky in score.skies.values() if len(sky.precisions)]
        if measured:
            values = np.stack(measured)
            rows.append([score.about, *(interval(column).text(".3f") for column in values.T)])
    return markdown(["average precision of “most like this class”", *names], rows)


def _mean(values: Float64[np.ndarray, " p"]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _ranking_table(ranked: dict[int, dict[str, Any]], names: Sequence[str]) -> str:
    """Return the average precision of "most like this galaxy", which does not depend on the method."""
    kinds = list(dict.fromkeys(kind for measured in ranked.values() for kind in measured))
    rows = []
    for kind in kinds:
        cells = []
        for name in names:
            values = [
                measured[kind][name]["precision"] for measured in ranked.values() if name in measured.get(kind, {})
            ]
            cells.append(interval(values).text(".3f"))
        rows.append([kind, *cells])
    chances = [
        interval([measured[kinds[0]][n]["chance"] for measured in ranked.values() if n in measured.get(kinds[0], {})])
        for n in names
    ]
    rows.append(["chance", *(measured._replace(low=np.nan).text(".3f") for measured in chances)])
    return markdown(["average precision of “most like this galaxy”", *names], rows)


def _write(path: Path, text: str) -> None:
    with tables.atomic(path) as temporary:
        temporary.write_text(text)


def _draw(results: Sequence[MethodScores], truths: dict[int, Truth], groups: pd.DataFrame, folder: Path) -> None:
    """Draw discovery curves; where groups have contrasts, also the share found by size and by contrast.

    Ours is black, the methods with the highest discovery have a colour each, and all others are thin and grey.
    """
    from matplotlib.figure import Figure

    measures = ("size", "contrast") if "contrast" in groups else ()
    figure = Figure(figsize=(15 if measures else 9, 4.6), layout="constrained")
    curves, *panels = figure.subplots(1, 1 + len(measures), squeeze=False)[0]
    rows, styles = np.arange(1, ROWS + 1), _styles(results)
    populations = int(np.mean([len(truth.names) for truth in truths.values()]))
    known = all(truth.known.all() for truth in truths.values())
    if known:
        curves.plot(rows, ideal_order(populations), color="black", linestyle=":", label="ideal order")
    for score in results:
        if score.skies:
            mean, style = np.mean([sky.curve for sky in score.skies.values()], axis=0), styles[score.name]
            curves.plot(rows, mean, label=None if style == _GREY else figure_text(score.about), **style)
    recognised = "populations recognised" if known else f"the {populations} kinds met"
    curves.set(xlabel=f"rows of {ROW_WIDTH} galaxies looked at", ylabel=f"share of {recognised}", ylim=(0, 1.02))
    for axes, name in zip(panels, measures, strict=True):
        values = groups[name].to_numpy(dtype=float)
        edges = np.geomspace(values.min(), values.max(), _CELLS + 1)
        cells = pd.Series(np.digitize(values, edges[1:-1]), index=groups.index)
        for score in results:
            if score.skies and not score.ranks:
                shares = groups[score.name].astype(float).groupby(cells).mean().reindex(range(_CELLS))
                axes.plot(np.sqrt(edges[:-1] * edges[1:]), shares, **styles[score.name])
        axes.set(xscale="log", xlabel=f"{name} of the planted group", ylabel="share found", ylim=(-0.02, 1.02))
        axes.set_xticks(edges, [f"{edge:,.0f}" if edge >= 100 else f"{edge:.3g}" for edge in edges], minor=False)
        axes.minorticks_off()
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    for kind in ("png", "webp"):
        with tables.atomic(folder / f"results.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=130)


def _styles(results: Sequence[MethodScores]) -> dict[str, dict[str, Any]]:
    """Return the style of the lines of each method that finished a sky, by its name."""
    finished = [score for score in results if score.skies and score.name != OURS]
    finished.sort(key=lambda score: -float(np.mean(score.values("discovery"))))
    styles = {score.name: _GREY for score in finished}
    styles |= {score.name: {"color": f"C{at}", "linewidth": 1.4} for at, score in enumerate(finished[: _COLOURED - 1])}
    return styles | {OURS: {"color": "black", "linewidth": 2.6}}
