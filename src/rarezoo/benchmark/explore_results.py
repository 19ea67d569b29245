"""Tables and the figure of ``rarezoo benchmark explore``. Nothing is searched here.

Seeds are the unit of every interval: a seed is a simulated person.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from rarezoo import __version__, tables
from rarezoo.benchmark.explore import Explorer, Outcome, Protocol
from rarezoo.embeddings.answers import Answer
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.escapes import figure_text
from rarezoo.statistics import Interval, bootstrap_interval
from rarezoo.tables import markdown

# The default, and the default without what its estimate of how many are left costs.
OURS, OURS_WITHOUT_DRAWS = "ours", "ours_no_random"
WHOLE, PART = "whole", "part"
Outcomes = Mapping[tuple[str, str, str, int], Mapping[str, Outcome]]
# Lines that have a colour in the figure, ours included.
_COLOURED = 8


def write_explore(
    folder: Path,
    outcomes: Outcomes,
    explorers: Sequence[Explorer],
    protocols: Sequence[Protocol],
    kinds: Mapping[str, Answer],
    seeds: Sequence[int],
    *,
    store: EmbeddingStore,
) -> str:
    """Write ``results.md``, ``results.csv`` and ``results.webp`` into a folder; return the tables as text.

    Parameters
    ----------
    folder
        Folder of the results.
    outcomes
        Outcomes by kind, explorer, protocol and seed.
    explorers, protocols, kinds, seeds
        What was searched.
    store
        The store that was searched.
    """
    parts = [_heading(store, kinds, seeds)]
    for protocol in protocols:
        about = (outcomes, explorers, str(protocol), list(kinds), seeds)
        parts += [
            f"## Found among the rated galaxies: {protocol}", _found(*about),
            "Ours minus the others, over the same people:", _differences(*about),
            *without_draws(*about),
            "Rankings at the end, as a mean over the kinds:", _rankings(*about),
        ]  # fmt: skip
    parts += ["## Estimates of how many are left", _left(outcomes, explorers, protocols, list(kinds), seeds)]
    text = "\n\n".join(parts) + "\n"
    with tables.atomic(folder / "results.md") as temporary:
        temporary.write_text(text)
    long = pd.DataFrame([
        {"kind": kind, "explorer": name, "protocol": protocol, "seed": seed, "pool": pool}
        | {key: value for key, value in asdict(outcome).items() if not isinstance(value, list)}
        | {"found": outcome.found[-1], "curve": " ".join(map(str, outcome.found))}
        for (kind, name, protocol, seed), pools in sorted(outcomes.items())
        for pool, outcome in pools.items()
    ])  # fmt: skip
    with tables.atomic(folder / "results.csv") as temporary:
        long.to_csv(temporary, index=False, lineterminator="\r\n")
    _draw(outcomes, explorers, protocols, kinds, seeds, folder)
    return text


def _heading(store: EmbeddingStore, kinds: Mapping[str, Answer], seeds: Sequence[int]) -> str:
    counts = "; ".join(f"{answer.criterion}: {answer.positives:,} of {answer.galaxies:,}" for answer in kinds.values())
    return (
        f"# Simulated people rate galaxies\n\nrarezoo {__version__}, {store.manifest.checkpoint}, "
        f"{len(seeds)} people for each kind. Kinds: {counts}."
    )


def _values(
    outcomes: Outcomes, name: str, protocol: str, kind: str, seeds: Sequence[int],
    measure: Callable[[Outcome], float | None], *, pool: str = WHOLE,
) -> np.ndarray:  # fmt: skip
    """Return a measure for each seed; NaN where it is not there."""
    values = []
    for seed in seeds:
        outcome = outcomes[kind, name, protocol, seed].get(pool)
        value = None if outcome is None else measure(outcome)
        values.append(np.nan if value is None else float(value))
    return np.array(values)


def _last(outcome: Outcome) -> float:
    return float(outcome.found[-1])


def _found(
    outcomes: Outcomes, explorers: Sequence[Explorer], protocol: str, kinds: Sequence[str], seeds: Sequence[int]
) -> str:
    """Return the number found with its interval and the worst person, the best explorer first."""
    rows = []
    for explorer in explorers:
        values = [_values(outcomes, explorer.name, protocol, kind, seeds, _last) for kind in kinds]
        cells = [f"{bootstrap_interval(found).text('.1f')}, worst {found.min():.0f}" for found in values]
        seconds = np.median([
            _values(outcomes, explorer.name, protocol, kind, seeds, lambda outcome: outcome.seconds) for kind in kinds
        ])  # fmt: skip
        best = [_most(outcomes, protocol, kind, explorers, seeds) for kind in kinds]
        share = np.mean([found.mean() / max(most, 1) for most, found in zip(best, values, strict=True)])
        rows.append((-float(share), [explorer.about, *cells, f"{seconds:.2f}"]))
    rows.sort(key=lambda row: row[0])
    return markdown(["explorer", *kinds, "seconds per batch"], [row[-1] for row in rows])


def _most(outcomes: Outcomes, protocol: str, kind: str, explorers: Sequence[Explorer], seeds: Sequence[int]) -> float:
    return max(float(_values(outcomes, each.name, protocol, kind, seeds, _last).mean()) for each in explorers)


def without_draws(
    outcomes: Outcomes, explorers: Sequence[Explorer], protocol: str, kinds: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    """Return ours without random galaxies minus the explorers that draw none either; nothing if it is not among them.

    A galaxy that is drawn at random is a rating that finds less, so that this is the comparison of models.
    """
    equal = [explorer for explorer in explorers if not explorer.settings.choose.random_share]
    if not any(explorer.name == OURS_WITHOUT_DRAWS for explorer in equal):
        return []
    table = _differences(outcomes, equal, protocol, kinds, seeds, ours=OURS_WITHOUT_DRAWS)
    return ["Ours without galaxies drawn at random, minus those that draw none either:", table]


def _differences(
    outcomes: Outcomes, explorers: Sequence[Explorer], protocol: str, kinds: Sequence[str], seeds: Sequence[int],
    *, ours: str = OURS,
) -> str:  # fmt: skip
    """Return ours minus each other explorer, paired by person, with 95 % intervals."""
    rows = []
    if not any(explorer.name == ours for explorer in explorers):
        return "Ours was not among them."
    for explorer in explorers:
        if explorer.name == ours:
            continue
        cells = []
        for kind in kinds:
            first, other = (_values(outcomes, name, protocol, kind, seeds, _last) for name in (ours, explorer.name))
            cells.append(bootstrap_interval(first - other).text("+.1f"))
        rows.append([explorer.about, *cells])
    return markdown(["ours minus", *kinds], rows)


_MEASURES: Mapping[str, tuple[Callable[[Outcome], float | None], str]] = {
    "average precision, untouched galaxies": (lambda outcome: outcome.average_precision, PART),
    "precision at 50": (lambda outcome: outcome.precision_50, WHOLE),
    "at 200": (lambda outcome: outcome.precision_200, WHOLE),
    "precision at 50, unrated": (lambda outcome: outcome.unrated_50, WHOLE),
    "at 200, unrated": (lambda outcome: outcome.unrated_200, WHOLE),
}


def _rankings(
    outcomes: Outcomes, explorers: Sequence[Explorer], protocol: str, kinds: Sequence[str], seeds: Sequence[int]
) -> str:
    """Return the quality of the ranking after the last rating, as a mean over kinds."""
    rows = []
    for explorer in explorers:
        cells = []
        for measure, pool in _MEASURES.values():
            # A person is the unit: first the mean over the kinds, then the interval over people.
            values = [_values(outcomes, explorer.name, protocol, kind, seeds, measure, pool=pool) for kind in kinds]
            means = np.mean(values, axis=0)
            cells.append(_interval(means).text(".3f"))
        rows.append([explorer.about, *cells])
    return markdown(["explorer", *_MEASURES], rows)


def _interval(values: np.ndarray) -> Interval:
    return bootstrap_interval(values[np.isfinite(values)])


def _left(
    outcomes: Outcomes, explorers: Sequence[Explorer], protocols: Sequence[Protocol], kinds: Sequence[str],
    seeds: Sequence[int],
) -> str:  # fmt: skip
    """Return how often the interval of what is left holds the truth, and how wide it is."""
    rows = []
    for explorer in explorers:
        for protocol in protocols:
            found = [outcomes[kind, explorer.name, str(protocol), seed][WHOLE] for kind in kinds for seed in seeds]
            known = [item for item in found if item.left_low is not None and item.left_high is not None]
            if known:
                held = np.mean([item.left_low <= item.left <= item.left_high for item in known])  # type: ignore[operator]
                ends = [float(np.median([getattr(item, end) for item in known])) for end in ("left_low", "left_high")]
                truth = float(np.median([item.left for item in known]))
                cells = [f"{held:.2f}", str(len(known)), f"{ends[0]:.0f}–{ends[1]:.0f}", f"{truth:.0f}"]
                rows.append([explorer.about, str(protocol), *cells])
    if not rows:
        return "No galaxies were drawn at random, so there is no estimate."
    head = [
        "explorer",
        "people",
        "share that hold the truth",
        "searches",
        "median interval",
        "median truth",
    ]
    return markdown(head, rows)


def _draw(
    outcomes: Outcomes, explorers: Sequence[Explorer], protocols: Sequence[Protocol], kinds: Mapping[str, Answer],
    seeds: Sequence[int], folder: Path,
) -> None:  # fmt: skip
    """Draw the number found against the number of ratings: a row for each protocol, a column for each kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(kinds) + 3, 3.4 * len(protocols)), layout="constrained")
    panels = figure.subplots(len(protocols), len(kinds), squeeze=False)
    total = {
        explorer.name: float(np.mean([
            _values(outcomes, explorer.name, str(protocol), kind, seeds, _last).mean() / kinds[kind].positives
            for protocol in protocols for kind in kinds
        ]))
        for explorer in explorers
    }  # fmt: skip
    best = [name for name in sorted(total, key=lambda name: -total[name]) if name != OURS][: _COLOURED - 1]
    for line, protocol in zip(panels, protocols, strict=True):
        for axes, (kind, answer) in zip(line, kinds.items(), strict=True):
            for explorer in explorers:
                found = [outcomes[kind, explorer.name, str(protocol), seed][WHOLE] for seed in seeds]
                mean = np.mean([item.found for item in found], axis=0)
                if explorer.name == OURS:
                    style: dict[str, object] = {"color": "black", "linewidth": 2.4, "zorder": 3}
                elif explorer.name in best:
                    style = {"color": f"C{best.index(explorer.name)}", "linewidth": 1.3}
                else:
                    style = {"color": "#cccccc", "linewidth": 0.8, "zorder": 1}
                shown = explorer.name in (OURS, *best) and axes is panels[0, 0]
                axes.plot(found[0].labels, mean, label=figure_text(explorer.about) if shown else None, **style)
            last = np.array(found[0].labels, dtype=float)
            axes.plot(last, np.minimum(last, answer.positives), color="black", linestyle=":", linewidth=0.8)
            axes.set(title=f"{kind}; {protocol}", xlabel="ratings", ylim=(0, None))
            axes.title.set_fontsize(9)
        line[0].set_ylabel("wanted galaxies found")
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    for kind in ("png", "webp"):
        with tables.atomic(folder / f"results.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=120)
