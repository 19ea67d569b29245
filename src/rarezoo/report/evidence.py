"""The figure that shows how the classes of a search were chosen: its groups beside those of the null surveys.

Left: the isolation of each node against its number of galaxies. Right: how many candidates have at least a given
score, in the survey and in a null survey. The second number divided by the first is the false discovery rate.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from rarezoo import tables
from rarezoo.searches.null_surveys import logit_isolations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito (2008), safe for colour-blind readers; shapes and lightness differ too.
_NULL, _SURVEY, _CANDIDATE, _SIGNIFICANT, _INK = "#c4c4c4", "#56b4e9", "#0072b2", "#d55e00", "#444444"
# Isolations that are written on the axis.
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
# Size of the figure, inches, and its resolution; more labels than this would hide each other.
_WIDE, _HIGH, _DPI, _LABELLED = 10.4, 4.9, 120, 30
# Number of candidates at the bottom of the right panel.
_FEWEST = 0.02


def draw_evidence(nodes: pa.Table, target: Path, *, level: float, labels: Mapping[int, str] | None = None) -> bool:
    """Draw the nodes of a survey beside those of its null surveys.

    Parameters
    ----------
    nodes : pyarrow.Table
        NODES table, see :meth:`rarezoo.searches.significance.TreeScores.table`.
    target : Path
        WebP file to write.
    level : float
        Largest false discovery rate of a significant candidate.
    labels : mapping of int to str, optional
        What is written beside significant candidates, by their node; None: their place by score, from 1.

    Returns
    -------
    bool
        False if nothing was drawn, because no candidate has a score.
    """
    from matplotlib.figure import Figure

    frame = nodes.to_pandas().dropna(subset=[tables.SIGNIFICANCE])
    frame["logit"] = logit_isolations(frame[tables.ISOLATION].to_numpy(), frame[tables.SIZE].to_numpy())
    is_null = frame[tables.NULL_SURVEY].notna()
    null, survey = frame[is_null], frame[~is_null]
    best = survey[survey[tables.IS_CANDIDATE]].sort_values(tables.SIGNIFICANCE, ascending=False, kind="stable")
    if not len(best):
        return False
    curve = frame[np.isfinite(frame[tables.EXPECTED])].sort_values(tables.SIGNIFICANCE, ascending=False)
    ordinals = np.arange(1, len(best) + 1)
    passing = np.flatnonzero(best[tables.EXPECTED] <= level * ordinals)
    significant, threshold = best.iloc[: passing[-1] + 1 if len(passing) else 0], None
    if len(significant):
        # The score at which the expected number is this share of the number of significant candidates.
        logs = np.log(curve[tables.EXPECTED].clip(lower=1e-300))
        threshold = float(np.interp(np.log(level * len(significant)), logs, curve[tables.SIGNIFICANCE]))
    names = dict(zip(significant[tables.NODE], map(str, ordinals), strict=False)) if labels is None else labels

    figure = Figure(figsize=(_WIDE, _HIGH), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_isolations(left, null, survey, best, significant, threshold=threshold)
    labelled = significant.head(_LABELLED)
    logs = np.log(labelled[tables.SIZE].to_numpy())
    for place, (_, row) in enumerate(labelled.iterrows()):
        # On the side away from the nearest other one, so that they do not hide each other.
        others = np.delete(logs, place) - logs[place]
        crowded = len(others) and others[np.abs(others).argmin()] > 0
        aside, side = (-7, "right") if crowded else (7, "left")
        left.annotate(
            names.get(int(row[tables.NODE]), ""), (row[tables.SIZE], row["logit"]), xytext=(aside, 3), ha=side,
            textcoords="offset points", color=_SIGNIFICANT, fontweight="bold", fontsize=11, zorder=6,
        )  # fmt: skip
    _draw_counts(right, null, curve, best, significant, threshold=threshold, level=level)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    with tables.atomic(target) as temporary:
        figure.savefig(temporary, format="webp", dpi=_DPI)
    return True


def _draw_isolations(
    panel: "Axes", null: pd.DataFrame, survey: pd.DataFrame, best: pd.DataFrame, significant: pd.DataFrame, *,
    threshold: float | None,
) -> None:  # fmt: skip
    """Draw each node as a point: its number of galaxies, and its isolation."""
    lines = survey.sort_values(tables.SIZE)
    usual, scatter = lines[tables.USUAL], lines[tables.SCATTER]
    panel.scatter(null[tables.SIZE], null["logit"], s=5, color=_NULL, linewidth=0, label="groups of null surveys")
    panel.fill_between(lines[tables.SIZE], usual, usual + scatter, color=_INK, alpha=0.22, linewidth=0)
    panel.plot(lines[tables.SIZE], usual, color=_INK, linewidth=1.6, label="their usual isolation, and its scatter")
    panel.scatter(
        survey[tables.SIZE], survey["logit"], s=16, facecolor="none", edgecolor=_SURVEY, linewidth=0.7,
        label="groups of the survey", zorder=3,
    )  # fmt: skip
    candidates = best.drop(significant.index)
    panel.scatter(candidates[tables.SIZE], candidates["logit"], s=20, color=_CANDIDATE, label="candidates", zorder=4)
    panel.scatter(
        significant[tables.SIZE], significant["logit"], s=58, marker="D", color=_SIGNIFICANT, edgecolor="white",
        linewidth=0.8, label="significant candidates", zorder=5,
    )  # fmt: skip
    if threshold is not None:
        # What nodes of the survey have in common is no evidence, so the line lies higher where they are more isolated.
        needed = lines["logit"] + scatter * (threshold - lines[tables.SIGNIFICANCE])
        panel.plot(
            lines[tables.SIZE],
            needed,
            color=_SIGNIFICANT,
            linestyle="--",
            linewidth=1.2,
            label="needed: significant above",
        )
    drawn = pd.concat([null, survey])
    largest = best[tables.SIZE].max()
    shown = drawn[drawn[tables.SIZE] <= 1.5 * largest]["logit"]
    ticks = [share for share in _TICKS if shown.min() - 0.3 < np.log(share / (1 - share)) < shown.max() + 0.3]
    panel.set(
        xscale="log", xlim=(0.9 * drawn[tables.SIZE].min(), 1.5 * largest), xlabel="galaxies in the group",
        ylim=(shown.min() - 0.3, shown.max() + 0.5), ylabel="isolation: share of neighbours inside the group",
        title="How isolated is each group?",
    )  # fmt: skip
    panel.set_yticks([np.log(share / (1 - share)) for share in ticks], [f"{share:g}" for share in ticks])
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.legend(frameon=False, fontsize=9, loc="lower right")


def _draw_counts(
    panel: "Axes", null: pd.DataFrame, curve: pd.DataFrame, best: pd.DataFrame, significant: pd.DataFrame, *,
    threshold: float | None, level: float,
) -> None:  # fmt: skip
    """Draw how many candidates have at least each score: of the survey, of each null survey, and expected in one."""
    from matplotlib.ticker import MaxNLocator

    scores, expected = best[tables.SIGNIFICANCE].to_numpy(), curve[tables.EXPECTED].to_numpy()
    label = "each null survey"
    for _, one in null[null[tables.IS_CANDIDATE]].groupby(tables.NULL_SURVEY):
        ratio = best[tables.GALAXIES].iloc[0] / one[tables.GALAXIES].iloc[0]
        found = np.sort(one[tables.SIGNIFICANCE])[::-1]
        panel.step(found, ratio * np.arange(1, len(found) + 1), where="post", color=_NULL, linewidth=0.7, label=label)
        label = ""
    panel.plot(curve[tables.SIGNIFICANCE], expected, color=_INK, linewidth=2, label="expected in a null survey")
    panel.step(
        np.append(scores, scores[-1]), np.append(np.arange(1, len(best) + 1), len(best)), where="post",
        color=_CANDIDATE, linewidth=2, label="the survey",
    )  # fmt: skip
    panel.scatter(
        significant[tables.SIGNIFICANCE], np.arange(1, len(significant) + 1), marker="D", s=30, color=_SIGNIFICANT,
        edgecolor="white", linewidth=0.6, zorder=5,
    )  # fmt: skip
    panel.set(
        yscale="log", ylim=(_FEWEST, 4 * max(len(best), expected.max())), xlim=(min(0, np.quantile(scores, 0.1)), None),
        xlabel="score: scatters above the usual isolation", ylabel="candidates with at least this score",
        title="How many such groups are chance?",
    )  # fmt: skip
    panel.yaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if threshold is not None:
        panel.axvline(threshold, color=_SIGNIFICANT, linestyle="--", linewidth=0.8)
        panel.annotate(
            "", (threshold, level * len(significant)), (threshold, len(significant)),
            arrowprops={"arrowstyle": "<->", "color": _SIGNIFICANT, "linewidth": 2, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        panel.annotate(
            f"false discovery rate {level:g}:\nexpected / survey = {level:g}",
            (threshold, level**0.77 * len(significant)), xytext=(8, 0), textcoords="offset points", va="center",
            color=_SIGNIFICANT, fontsize=9.5, zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
        for text, aside, side in (("significant", 6, "left"), ("candidates", -6, "right")):
            panel.annotate(
                text, (threshold, 0.97), xycoords=panel.get_xaxis_transform(), xytext=(aside, 0), ha=side, va="center",
                textcoords="offset points", color=_SIGNIFICANT if side == "left" else _CANDIDATE, fontsize=10,
            )  # fmt: skip
    panel.legend(frameon=False, fontsize=9, loc="upper right")
