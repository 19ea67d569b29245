"""Tables and the figure of ``rarezoo benchmark few-labels``. Nothing is learnt here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from rarezoo import __version__, tables
from rarezoo.benchmark.few_labels import Contestant, FewLabelOutcome
from rarezoo.embeddings.answers import Answer
from rarezoo.escapes import figure_text
from rarezoo.report import palette
from rarezoo.statistics import students_interval
from rarezoo.tables import markdown

MEASURES = {"auc": "AUC", "average_precision": "average precision", "accuracy": "balanced accuracy"}
# The contestant from which differences are shown: what rarezoo probe does by default.
SHIPPED = "probe"
Outcomes = Mapping[tuple[str, str, int, int], FewLabelOutcome]


def write_few_labels(
    folder: Path,
    outcomes: Outcomes,
    contestants: Sequence[Contestant],
    kinds: Mapping[str, Answer],
    draws: Sequence[int],
    *,
    others: int,
) -> str:
    """Write ``results.md``, ``results.csv`` and ``results.webp`` into a folder; return the tables as text.

    Parameters
    ----------
    folder
        Folder of the results.
    outcomes
        Outcomes by kind, contestant, number of positives and draw.
    contestants, kinds, draws
        What was measured.
    others
        Other galaxies for each of the kind.
    """
    counts = "; ".join(f"{answer.criterion}: {answer.positives:,} of {answer.galaxies:,}" for answer in kinds.values())
    parts = [
        f"# How many labels are enough?\n\nrarezoo {__version__}, {len(draws)} draws of N galaxies of a kind "
        f"and {others} N others, "
        f"tested on the other galaxies; 95 % intervals (Student's) over draws. Kinds: {counts}."
    ]
    for measure, name in MEASURES.items():
        parts += [f"## {name}", _table(outcomes, contestants, list(kinds), draws, measure)]
    if any(contestant.name == SHIPPED for contestant in contestants):
        parts += [
            "## Probe minus the others, AUC, over the same draws",
            _differences(outcomes, contestants, list(kinds), draws),
        ]
    text = "\n\n".join(parts) + "\n"
    with tables.atomic(folder / "results.md") as temporary:
        temporary.write_text(text)
    about = {contestant.name: contestant.about for contestant in contestants}
    long = pd.DataFrame(
        [
            {
                "kind": kind,
                "contestant": name,
                "about": about[name],
                "positives": number,
                "draw": draw,
                **asdict(outcome),
            }
            for (kind, name, number, draw), outcome in sorted(outcomes.items())
        ]
    )
    with tables.atomic(folder / "results.csv") as temporary:
        long.to_csv(temporary, index=False)
    _draw(outcomes, contestants, list(kinds), draws, folder)
    return text


def _values(outcomes: Outcomes, kind: str, name: str, number: int, draws: Sequence[int], measure: str) -> np.ndarray:
    found = [outcomes.get((kind, name, number, draw)) for draw in draws]
    return np.array([np.nan if each is None else getattr(each, measure) for each in found])


def _numbers(outcomes: Outcomes) -> list[int]:
    return sorted({number for _, _, number, _ in outcomes})


def _table(
    outcomes: Outcomes, contestants: Sequence[Contestant], kinds: Sequence[str], draws: Sequence[int], measure: str
) -> str:
    """Return a row per kind and contestant and a column per number of labels."""
    rows = []
    for kind in kinds:
        for contestant in contestants:
            cells = []
            for number in _numbers(outcomes):
                values = _values(outcomes, kind, contestant.name, number, draws, measure)
                cells.append("–" if np.isnan(values).any() else students_interval(values).text(".3f"))
            rows.append([kind, contestant.about, *cells])
    return markdown(["kind", "contestant", *(f"N = {number}" for number in _numbers(outcomes))], rows)


def _differences(
    outcomes: Outcomes, contestants: Sequence[Contestant], kinds: Sequence[str], draws: Sequence[int]
) -> str:
    rows = []
    for kind in kinds:
        for contestant in contestants:
            if contestant.name == SHIPPED:
                continue
            cells = []
            for number in _numbers(outcomes):
                ours, other = (
                    _values(outcomes, kind, name, number, draws, "auc") for name in (SHIPPED, contestant.name)
                )
                values = ours - other
                cells.append("–" if np.isnan(values).any() else students_interval(values).text("+.3f"))
            rows.append([kind, contestant.about, *cells])
    return markdown(["kind", "probe minus", *(f"N = {number}" for number in _numbers(outcomes))], rows)


def _draw(
    outcomes: Outcomes, contestants: Sequence[Contestant], kinds: Sequence[str], draws: Sequence[int], folder: Path
) -> None:
    """Draw balanced accuracy and AUC against the number of labels: a column for each kind."""
    from matplotlib.figure import Figure

    shown = [kind for kind in kinds if any(key[0] == kind for key in outcomes)]
    if not shown:
        return
    figure = Figure(figsize=(3.6 * len(shown) + 3, 6.4), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    for line, measure in zip(panels, ("accuracy", "auc"), strict=True):
        for axes, kind in zip(line, shown, strict=True):
            for place, contestant in enumerate(contestants):
                numbers, means, lows, highs = [], [], [], []
                for number in _numbers(outcomes):
                    values = _values(outcomes, kind, contestant.name, number, draws, measure)
                    if not np.isnan(values).any():
                        value, low, high = students_interval(values)
                        numbers.append(number)
                        means.append(value)
                        lows.append(low)
                        highs.append(high)
                if not numbers:
                    continue
                ours = contestant.name == SHIPPED
                colour = "black" if ours else palette.LIGHT[place % len(palette.LIGHT)]
                label = figure_text(contestant.about) if axes is panels[0, 0] else None
                marker = "osD^vP*X"[place % 8]
                axes.plot(
                    numbers,
                    means,
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linewidth=2.2 if ours else 1.2,
                    label=label,
                )
                axes.fill_between(numbers, lows, highs, color=colour, alpha=0.1, linewidth=0)
            axes.set(xscale="log", title=figure_text(kind), xlabel="galaxies of the kind that are learnt from")
            ticks = _numbers(outcomes)
            axes.set_xticks(ticks, [str(number) for number in ticks])
            axes.minorticks_off()
            axes.grid(alpha=0.2)
        line[0].set_ylabel(MEASURES[measure])
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    for kind in ("png", "webp"):
        with tables.atomic(folder / f"results.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=110)
