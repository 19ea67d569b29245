"""The board: tables and figures from what contestants handed in. Nothing is searched here.

Shape letters: s seeds, p populations, c classes.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from rarezoo import __version__, tables
from rarezoo.benchmark.contestants import Outliers
from rarezoo.benchmark.planted import PLACES
from rarezoo.benchmark.runs import DONE, PART, RESEEDED, Board, Job
from rarezoo.benchmark.scores import (
    ROW_WIDTH,
    ROWS,
    Enrichment,
    Tally,
    Truth,
    best_precisions,
    discovery,
    ideal_order,
    interval,
    stability,
)
from rarezoo.tables import markdown

OURS = "ours"
# Edges of size and contrast between which a share of found groups is printed.
_SIZES, _CONTRASTS = (0, 63, 200, 632, np.inf), (0, 5, 15, 30, np.inf)
# Points of a curve of the share found.
_CELLS = 6
_CURVES = ("discovery", "glimpse")
_MAIN = ("found", "impure", "pieces", "classes", "purity", *_CURVES)
# Where populations are known of some galaxies only, no class can be called false and no gallery scored.
_PARTLY = ("rich", "precision", "classes")
_UNCOMPARED = ("classes", "purity")
# What a ranking of galaxies has, too.
_RANKED = (*_CURVES, "precision")
_DECIMALS = {"purity": ".2f", "discovery": ".2f", "glimpse": ".2f", "precision": ".3f"}


@dataclass(frozen=True)
class Scored:
    """A contestant on the skies where it came to an end.

    Attributes:
        name: of the contestant.
        about: what it is, in a line.
        ranks: it hands in a ranking, no classes.
        troubles: what was said where it did not come to an end.
        seconds: of each sky.
        tallies: by seed.
        curves: discovery curves by seed, populations recognised in a row.
        glimpses: likewise, one galaxy of each being enough.
        stabilities: mean best Jaccard by variant, a value per refitted sky.
        enrichments: by seed.
        precisions: of "most like this class" by seed, where populations are known of some galaxies only.
    """

    name: str
    about: str
    ranks: bool
    troubles: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tallies: dict[int, Tally] = field(default_factory=dict)
    curves: dict[int, Float64[np.ndarray, " rows"]] = field(default_factory=dict)
    glimpses: dict[int, Float64[np.ndarray, " rows"]] = field(default_factory=dict)
    stabilities: dict[str, list[float]] = field(default_factory=lambda: {RESEEDED: [], PART: []})
    enrichments: dict[int, Enrichment] = field(default_factory=dict)
    precisions: dict[int, Float64[np.ndarray, " p"]] = field(default_factory=dict)

    @cached_property
    def measures(self) -> dict[int, dict[str, float]]:
        """By seed, then by name."""
        return {
            seed: {
                **tally.measures(),
                "discovery": float(self.curves[seed].mean()),
                "glimpse": float(self.glimpses[seed].mean()),
                "rich": float(self.enrichments[seed].rich.any(axis=1).sum()),
                "precision": _mean(self.precisions.get(seed, np.empty(0))),
            }
            for seed, tally in self.tallies.items()
        }

    def values(self, name: str) -> list[float]:
        """One measure over the seeds."""
        return [one[name] for one in self.measures.values()]


def scored(board: Board, name: str, seeds: Sequence[int], *, refits: int) -> Scored:
    """What one contestant reached, from its files."""
    contestant = board.contestants[name]
    result = Scored(name, contestant.about or name, isinstance(contestant, Outliers))
    for seed in seeds:
        outcome = board.outcome(Job(name, seed))
        if outcome is None or outcome["status"] != DONE:
            told = f"{outcome['status']}: {outcome['message']}" if outcome else "not run"
            result.troubles.append(f"sky {seed} {told}")
            continue
        truth, entry = board.truth(seed), board.handed_in(Job(name, seed))
        result.seconds.append(outcome["seconds"])
        result.tallies[seed] = Tally.of(entry["labels"], truth)
        result.curves[seed] = discovery(entry["rows"], truth.members)
        result.glimpses[seed] = discovery(entry["rows"], truth.members, share=0)
        result.enrichments[seed] = Enrichment.of(entry["labels"], truth)
        if "precisions" in entry:
            result.precisions[seed] = best_precisions(entry["precisions"], truth)
        if seed in list(seeds)[:refits]:
            _add_stabilities(result, board, seed, entry["labels"])
    return result


def _add_stabilities(result: Scored, board: Board, seed: int, labels: np.ndarray) -> None:
    for variant, values in result.stabilities.items():
        job = Job(result.name, seed, variant)
        outcome = board.outcome(job)
        if outcome and outcome["status"] == DONE:
            again = board.handed_in(job)
            values.append(stability(labels[again["members"]], again["labels"][again["members"]]))


def write_standings(board: Board, seeds: Sequence[int], *, refits: int) -> str:
    """Write tables and figures into the board's folder; what is printed."""
    truths = {seed: board.truth(seed) for seed in seeds}
    results = [scored(board, name, seeds, refits=refits) for name in board.contestants]
    first = next(iter(truths.values()))
    columns = _MAIN if first.known.all() else _PARTLY
    parts = [_heading(board, seeds, truths), _main_table(results, columns=columns, populations=len(first.names))]
    parts += [_against_ours(results, columns=columns)] if any(one.name == OURS for one in results) else []
    parts += [_shares_table(results, truths)] if "contrast" in first.about else [_population_table(results, truths)]
    parts += [_precision_table(results, first.names)] if any(one.precisions for one in results) else []
    ranked = {seed: board.ranked(seed) for seed in seeds}
    parts += [_ranking_table(ranked, first.names)] if any(ranked.values()) else []
    text = "\n\n".join(parts)
    _write(board.folder / "standings.md", text + "\n")
    _write(board.folder / "standings.csv", _csv(_rows_of(results)))
    _write(board.folder / "groups.csv", _csv(_group_rows(results, truths)))
    _write(board.folder / "false.csv", _csv(_false_rows(results, truths)))
    _draw(results, truths, board.folder)
    return text


def write_structureless(board: Board, seeds: Sequence[int], *, refits: int) -> str:
    """The table of skies in which nothing is to be found; what is printed."""
    from scipy.stats import binomtest

    rows = []
    for name, contestant in board.contestants.items():
        result = scored(board, name, seeds, refits=refits)
        counts = [len(one.classes) for one in result.tallies.values()]
        if not counts:
            rows.append([contestant.about, "0", "–", "–", "; ".join(result.troubles[:1])])
            continue
        any_class = sum(count > 0 for count in counts)
        ends = binomtest(any_class, len(counts)).proportion_ci()
        share = f"{any_class / len(counts):.3f} ({ends.low:.3f}–{ends.high:.3f})"
        seconds = f"{np.median(result.seconds):.1f}"
        rows.append([contestant.about, str(len(counts)), share, f"{np.mean(counts):.2f}", seconds])
    head = ["contestant", "skies", "share with any class (95 %)", "classes per sky", "seconds"]
    text = f"{_heading(board, seeds, {})}\n\n{markdown(head, rows)}"
    _write(board.folder / "standings.md", text + "\n")
    return text


def _heading(board: Board, seeds: Sequence[int], truths: dict[int, Truth]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in board.tier.settings().items() if value not in ("", None))
    populations = f"; {len(next(iter(truths.values())).names)} populations" if truths else ""
    span = f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 2 else ", ".join(map(str, seeds))
    return f"rarezoo {__version__}; {told}; {len(seeds)} seeds ({span}){populations}; mean (95 % interval over seeds)"


def _main_table(results: Sequence[Scored], *, columns: Sequence[str], populations: int) -> str:
    head = ["contestant", *columns, "other seed", "80 %", "seconds"]
    rows = [_main_row(one, columns) for one in sorted(results, key=lambda one: _place(one, columns[0]))]
    notes = [f"{one.about}: {'; '.join(one.troubles)}" for one in results if one.troubles]
    ideal = [f"discovery of an ideal order: {ideal_order(populations).mean():.2f}"] if columns == _MAIN else []
    return "\n".join([markdown(head, rows), "", *ideal, *notes]).strip()


def _place(one: Scored, measure: str) -> tuple[bool, float, float]:
    """The best first; those that did not come to an end last."""
    if not one.tallies:
        return True, 0.0, 0.0
    return False, -float(np.mean(one.values(measure))), -float(np.mean(one.values("discovery")))


def _main_row(one: Scored, columns: Sequence[str]) -> list[str]:
    if not one.tallies:
        return [one.about, *["–"] * (len(columns) + 2), one.troubles[0].split(" ", 2)[2][:60]]
    cells = ["–" if one.ranks and name not in _RANKED else _shown(one.values(name), name) for name in columns]
    stable = [_shown(values, "purity") if values else "–" for values in one.stabilities.values()]
    return [one.about, *cells, *(["–", "–"] if one.ranks else stable), f"{np.median(one.seconds):.0f}"]


def _shown(values: Sequence[float], name: str) -> str:
    return interval(values).text(_DECIMALS.get(name, ".1f"))


def _against_ours(results: Sequence[Scored], *, columns: Sequence[str]) -> str:
    """Differences on the same skies, and how much of what another finds ours finds too."""
    ours = next(one for one in results if one.name == OURS)
    compared = [name for name in columns if name not in _UNCOMPARED]
    rows = []
    for other in results:
        both = [seed for seed in ours.tallies if seed in other.tallies]
        if other is not ours and both:
            kept = [_kept(ours, other, both)] if columns == _MAIN else []
            rows.append([other.about, *(_difference(ours, other, name, both) for name in compared), *kept])
    head = ["ours less …", *compared, *(["of what it finds, ours finds"] if columns == _MAIN else [])]
    return markdown(head, rows)


def _kept(ours: Scored, other: Scored, seeds: Sequence[int]) -> str:
    """Share of the populations that another finds which ours finds too."""
    pairs = [(ours.tallies[seed].found, other.tallies[seed].found) for seed in seeds]
    return interval([float(mine[theirs].mean()) for mine, theirs in pairs if theirs.any()]).text(".2f")


def _difference(ours: Scored, other: Scored, name: str, seeds: Sequence[int]) -> str:
    if other.ranks and name not in _RANKED:
        return "–"
    values = [ours.measures[seed][name] - other.measures[seed][name] for seed in seeds]
    return interval(values).text("+" + _DECIMALS.get(name, ".1f"))


def _shares_table(results: Sequence[Scored], truths: dict[int, Truth]) -> str:
    """Share of the groups found by size, contrast and place."""
    cuts = {seed: _cuts(truth) for seed, truth in truths.items()}
    names = list(next(iter(cuts.values())))
    rows = []
    for one in results:
        if one.tallies and not one.ranks:
            shares = [[_share(tally.found, cuts[s][name]) for s, tally in one.tallies.items()] for name in names]
            rows.append([one.about, *(interval(values).text(".2f") for values in shares)])
    return markdown(["share found", *names], rows)


def _cuts(truth: Truth) -> dict[str, Bool[np.ndarray, " p"]]:
    """Groups of each kind: by size, by contrast, by place."""
    cuts = {}
    for name, edges in (("size", _SIZES), ("contrast", _CONTRASTS)):
        for low, high in pairwise(edges):
            span = f"< {high:g}" if not low else f"≥ {low:g}" if np.isinf(high) else f"{low:g}–{high:g}"
            cuts[f"{name} {span}"] = (_about(truth, name) >= low) & (_about(truth, name) < high)
    places = np.array(truth.about["place"])
    return cuts | {place: places == place for place in PLACES}


def _about(truth: Truth, name: str) -> np.ndarray:
    return truth.sizes if name == "size" else np.asarray(truth.about[name])


def _share(found: np.ndarray, counted: np.ndarray) -> float:
    return float(found[counted].mean()) if counted.any() else float("nan")


def _population_table(results: Sequence[Scored], truths: dict[int, Truth]) -> str:
    """Of each population: in how many classes it is rich, and the best class's share of it against its share of all."""
    names = list(dict.fromkeys(name for truth in truths.values() for name in truth.names))
    rows = []
    for one in results:
        if one.tallies and not one.ranks:
            rows.append([one.about, *(_rich(one, truths, name) for name in names)])
    sizes = [int(np.mean([t.sizes[t.names.index(n)] for t in truths.values() if n in t.names])) for n in names]
    head = [f"{name} ({size})" for name, size in zip(names, sizes, strict=True)]
    return markdown(["classes rich in it, best lift", *head], rows)


def _rich(one: Scored, truths: dict[int, Truth], name: str) -> str:
    counts, lifts = [], []
    for seed, enrichment in one.enrichments.items():
        if name in truths[seed].names:
            at = truths[seed].names.index(name)
            counts.append(float(enrichment.rich[at].sum()))
            lifts.append(float(enrichment.lifts[at][enrichment.rich[at]].max(initial=0.0)))
    return f"{interval(counts).value:.1f}, {interval(lifts).value:.1f} ×"


def _precision_table(results: Sequence[Scored], names: Sequence[str]) -> str:
    """Average precision of "most like this class", of the class that ranks each population best."""
    rows = []
    for one in results:
        if one.precisions:
            values = np.stack(list(one.precisions.values()))
            rows.append([one.about, *(interval(column).text(".3f") for column in values.T)])
    return markdown(["average precision of “most like this class”", *names], rows)


def _mean(values: Float64[np.ndarray, " p"]) -> float:
    told = values[np.isfinite(values)]
    return float(told.mean()) if len(told) else float("nan")


def _ranking_table(ranked: dict[int, dict[str, Any]], names: Sequence[str]) -> str:
    """Average precision of "most like this one", whatever the contestant."""
    kinds = list(dict.fromkeys(kind for one in ranked.values() for kind in one))
    rows = []
    for kind in kinds:
        cells = []
        for name in names:
            values = [one[kind][name]["precision"] for one in ranked.values() if name in one.get(kind, {})]
            cells.append(interval(values).text(".3f"))
        rows.append([kind, *cells])
    chances = [
        interval([one[kinds[0]][n]["chance"] for one in ranked.values() if n in one.get(kinds[0], {})]) for n in names
    ]
    rows.append(["chance", *(one._replace(low=np.nan).text(".3f") for one in chances)])
    return markdown(["average precision of “most like this one”", *names], rows)


def _rows_of(results: Sequence[Scored]) -> list[dict[str, Any]]:
    return [
        {"contestant": one.name, "seed": seed, "seconds": seconds, **measures}
        for one in results
        for (seed, measures), seconds in zip(one.measures.items(), one.seconds, strict=True)
    ]


def _group_rows(results: Sequence[Scored], truths: dict[int, Truth]) -> list[dict[str, Any]]:
    """A row per planted population and sky: who found it."""
    rows = []
    for seed, truth in truths.items():
        for at, name in enumerate(truth.names):
            about = {key: values[at] for key, values in truth.about.items()}
            found = {
                one.name: int(one.tallies[seed].found[at]) for one in results if seed in one.tallies and not one.ranks
            }
            rows.append({"seed": seed, "population": name, "size": int(truth.sizes[at]), **about, **found})
    return rows


def _false_rows(results: Sequence[Scored], truths: dict[int, Truth]) -> list[dict[str, Any]]:
    """A row per class: its size, the population that makes up most of it (empty: none does), and how much of it."""
    rows = []
    for one in results:
        for seed, tally in one.tallies.items():
            for at in range(len(tally.classes)):
                most = int(tally.counts[:, at].argmax())
                shared, size = int(tally.counts[most, at]), int(tally.classes[at])
                completeness = shared / max(int(tally.populations[most]), 1)
                rows.append({
                    "contestant": one.name, "seed": seed, "class": at, "size": size,
                    "population": truths[seed].names[most] if shared else "", "purity": round(shared / size, 3),
                    "completeness": round(completeness, 3),
                })  # fmt: skip
    return rows


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _write(path: Path, text: str) -> None:
    with tables.atomic(path) as temporary:
        temporary.write_text(text)


def _draw(results: Sequence[Scored], truths: dict[int, Truth], folder: Path) -> None:
    """Discovery curves; where groups have contrasts, also the share found by size and by contrast."""
    from matplotlib.figure import Figure

    curves = "contrast" in next(iter(truths.values())).about
    figure = Figure(figsize=(15 if curves else 9, 4.6), layout="constrained")
    axes = figure.subplots(1, 3 if curves else 1, squeeze=False)[0]
    _draw_discovery(axes[0], results, truths)
    if curves:
        for panel, name in zip(axes[1:], ("size", "contrast"), strict=True):
            _draw_shares(panel, results, truths, name)
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    for kind in ("png", "webp"):
        with tables.atomic(folder / f"standings.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=130)


def _draw_discovery(axes: Any, results: Sequence[Scored], truths: dict[int, Truth]) -> None:
    rows = np.arange(1, ROWS + 1)
    populations = int(np.mean([len(truth.names) for truth in truths.values()]))
    axes.plot(rows, ideal_order(populations), color="black", linestyle=":", label="ideal order")
    for number, one in enumerate(results):
        if one.curves:
            axes.plot(rows, np.mean(list(one.curves.values()), axis=0), label=one.about, **_style(one, number))
    axes.set(xlabel=f"rows of {ROW_WIDTH} galaxies looked at", ylabel="share of populations recognised", ylim=(0, 1.02))


def _draw_shares(axes: Any, results: Sequence[Scored], truths: dict[int, Truth], name: str) -> None:
    everywhere = np.concatenate([_about(truth, name) for truth in truths.values()])
    edges = np.geomspace(everywhere.min(), everywhere.max(), _CELLS + 1)
    for number, one in enumerate(results):
        if one.tallies and not one.ranks:
            found = np.concatenate([tally.found for tally in one.tallies.values()])
            at = np.digitize(np.concatenate([_about(truths[seed], name) for seed in one.tallies]), edges[1:-1])
            shares = [_share(found, at == cell) for cell in range(_CELLS)]
            axes.plot(np.sqrt(edges[:-1] * edges[1:]), shares, **_style(one, number))
    axes.set(xscale="log", xlabel=f"{name} of the planted group", ylabel="share found", ylim=(-0.02, 1.02))
    axes.set_xticks(edges, [f"{edge:,.0f}" if edge >= 100 else f"{edge:.3g}" for edge in edges], minor=False)
    axes.minorticks_off()


def _style(one: Scored, number: int) -> dict[str, Any]:
    style = {"color": f"C{number % 10}", "linestyle": ("-", "--")[number // 10 % 2], "linewidth": 1.3}
    return style | ({"color": "black", "linewidth": 2.6} if one.name == OURS else {})
