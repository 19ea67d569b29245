"""Write the result of a bottleneck study: text for a terminal, study.json, study.png and study.webp."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rarezoo import tables
from rarezoo.escapes import figure_text
from rarezoo.studies.bottleneck import RANK, RATIO, BottleneckStudy
from rarezoo.studies.measurement import LOSS, PRECISION, PROBE, RMSE, TEN_SHOT
from rarezoo.tables import markdown
from rarezoo.zoo.encoder import NATIVE

# The width whose cost Walmsley & Scaife (2023) call not measurable.
_PAPER = "128"
# Shares of the variance for which the number of principal components is printed.
_SHARES = (0.5, 0.9, 0.95, 0.99)
# Tables of measures whose names begin with these words, and their titles.
_TABLES = {
    RMSE: "RMSE of vote fractions",
    PRECISION: "Average precision of a ranking by similarity to one example",
    TEN_SHOT: "Average precision of a classifier that has learnt from 10 galaxies of the kind and 100 others",
    PROBE: "Average precision of a classifier that has learnt from four fifths of all galaxies (probe)",
}
# Factor in D over which the measures of one width are spread in the figure.
_BESIDE = 1.3


def write_report(study: BottleneckStudy, folder: Path) -> str:
    """Write study.json, study.png and study.webp into a folder, and return the text for a terminal.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    tables.write_json(study_content(study), folder / "study.json")
    _draw(study, folder / "study.png")
    return study_text(study)


def study_text(study: BottleneckStudy) -> str:
    """Return the text for a terminal."""
    parts = [part for architecture in study.architectures for part in _architecture_text(study, architecture)]
    missing = [f"missing: {job} ({reason})" for job, reason in study.missing.items()]
    return "\n".join([*parts, *missing, *(verdict(study, name) for name in study.architectures)])


def _architecture_text(study: BottleneckStudy, architecture: str) -> Iterator[str]:
    table = study.to_pandas().loc[architecture]
    widths = list(table.index.unique("width"))
    yield f"## {architecture}\n"
    if native := [measurement.spectrum for measurement in study.of(architecture, NATIVE).values()]:
        components = {share: [spectrum.components(share) for spectrum in native] for share in _SHARES}
        held = ", ".join(
            f"{share:.0%} in {_spread(float(np.mean(counts)), pd.Series(counts).std(), '.1f')}"
            for share, counts in components.items()
        )
        yield f"Number of components that hold a share of the variance of the native {len(native[0].ratios)}: {held}\n"
    rows = []
    for width in widths:
        loss, rank, ratio = (table.loc[(width, name)] for name in (LOSS, RANK, RATIO))
        cost = f"{_signed(loss.cost)} ({_signed(loss.low)} … {_signed(loss.high)})" if loss.paired_seeds else "–"
        rows.append([
            f"{NATIVE} ({loss.dimensions:.0f})" if width == NATIVE else width, f"{loss.seeds:.0f}",
            _spread(loss["mean"], loss.deviation, ".4f"), cost,
            *(_spread(measure["mean"], measure.deviation, ".1f") for measure in (rank, ratio)),
        ])  # fmt: skip
    head = ["D", "seeds", "test loss (nats)", "cost against native (95 %)", "effective rank", "participation ratio"]
    yield markdown(head, rows) + "\n"
    for prefix, title in _TABLES.items():
        names = [name for name in table.loc[widths[-1]].index if name.startswith(prefix)]
        if names:
            cells = [
                [_cost_cell(table.loc[(width, name)]) if (width, name) in table.index else "–" for width in widths]
                for name in names
            ]
            rows = [[name.removeprefix(prefix), *row] for name, row in zip(names, cells, strict=True)]
            yield (
                f"{title}: for the native width the value, for the others the difference from it, with half of its "
                "95 % interval\n"
            )
            yield markdown(["", *(f"D = {width}" for width in widths)], rows) + "\n"


def verdict(study: BottleneckStudy, architecture: str) -> str:
    """Describe the cost of 128 dimensions in one sentence."""
    losses: Any = study.to_pandas().xs(LOSS, level="measure").loc[architecture]
    if _PAPER not in losses.index or not losses.loc[_PAPER].paired_seeds:
        return f"{architecture}: no verdict on {_PAPER} dimensions; it needs them and {NATIVE} from one seed."
    narrow, native = losses.loc[_PAPER], losses.loc[NATIVE]
    galaxies = len(next(iter(study.of(architecture, NATIVE).values())).test)
    seeds = f"{narrow.paired_seeds:.0f} seeds" if narrow.paired_seeds > 1 else "1 seed, whose own scatter is not in it"
    return (
        f"{architecture}: {_PAPER} dimensions cost {_signed(narrow.cost)} nats per galaxy (95 % interval "
        f"{_signed(narrow.low)} … {_signed(narrow.high)}; {galaxies} test galaxies, {seeds}) against the native "
        f"{native.dimensions:.0f}, whose loss is {native['mean']:.3f}; these data exclude a cost above "
        f"{_signed(narrow.high)} nats ({_signed(narrow.high / native['mean'] * 100)} %)."
    )


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _spread(mean: float, deviation: float, digits: str) -> str:
    return f"{mean:{digits}}" + (f" ± {deviation:{digits}}" if np.isfinite(deviation) else "")


def _cost_cell(row: "pd.Series[Any]") -> str:
    if not row.paired_seeds:
        return _spread(row["mean"], row.deviation, ".4f")
    half = (row.high - row.low) / 2
    return _signed(row.cost) + (f" ± {half:.4f}" if np.isfinite(half) else " (too few galaxies)")


def study_content(study: BottleneckStudy) -> dict[str, Any]:
    """Return the content for study.json."""
    architectures = {}
    for architecture in study.architectures:
        widths = []
        for width, table in study.to_pandas().loc[architecture].groupby("width", sort=False):
            rows = table.droplevel("width")
            measures = {
                name: {
                    "mean": row["mean"], "deviation": row.deviation,
                    "against_native": {"value": row.cost, "low": row.low, "high": row.high}
                    if row.paired_seeds else None,
                }
                for name, row in rows.drop([RANK, RATIO]).iterrows()
            }  # fmt: skip
            dimensions = {
                key: rows.loc[name, ["mean", "deviation"]].to_dict()
                for key, name in (("effective_rank", RANK), ("participation_ratio", RATIO))
            }
            widths.append({
                "width": width, "dimensions": rows.dimensions.iloc[0],
                "seeds": tuple(study.of(architecture, str(width))), "paired_seeds": rows.paired_seeds[LOSS],
                **dimensions, "measures": measures,
            })  # fmt: skip
        architectures[architecture] = {
            "native_explained_variance": {
                seed: measurement.spectrum.ratios for seed, measurement in study.of(architecture, NATIVE).items()
            },
            "widths": widths,
            "verdict": verdict(study, architecture),
        }
    missing = [{**job._asdict(), "reason": reason} for job, reason in study.missing.items()]
    return {"architectures": architectures, "missing": missing}


def _draw(study: BottleneckStudy, path: Path) -> None:
    """Draw per architecture the explained variance, the cost in loss, and what narrower embeddings find less."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(13, 3.8 * len(study.architectures)), layout="constrained")
    panels = figure.subplots(len(study.architectures), 3, squeeze=False)
    for (variance, loss, precision), architecture in zip(panels, study.architectures, strict=True):
        for measurement in study.of(architecture, NATIVE).values():
            held = np.cumsum(measurement.spectrum.ratios)
            variance.plot(np.arange(1, len(held) + 1), held, color="C0", alpha=0.6)
        variance.axvline(int(_PAPER), color="grey", linestyle=":", linewidth=1)
        variance.set(xscale="log", ylim=(0, 1.02), xlabel="principal components")
        variance.set(ylabel="variance held, native, each seed")
        variance.set_title(figure_text(architecture), loc="left")
        table: Any = study.to_pandas().loc[architecture]
        measures = list(table.loc[table.index[-1][0]].index)
        # A probe where there is one: it shows more than a ranking by one example.
        prefix = PROBE if any(name.startswith(PROBE) for name in measures) else PRECISION
        kinds = [name for name in measures if name.startswith(prefix)]
        _draw_costs(loss, table, [LOSS], "test loss less native's (nats per galaxy)")
        _draw_costs(precision, table, kinds, f"{prefix.strip()}: value less native's")
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    with tables.atomic(path.with_suffix(".webp")) as temporary, Image.open(path) as picture:
        picture.convert("RGB").save(temporary, format="WEBP", quality=85)


def _draw_costs(axes: Any, table: pd.DataFrame, names: Sequence[str], label: str) -> None:
    """Draw the cost of each width in some measures; the table is that of one architecture."""
    narrow = table[table.paired_seeds > 0]
    dimensions = narrow.dimensions.groupby("width", sort=False).first().to_numpy()
    for number, name in enumerate(names):
        costs = narrow[narrow.index.get_level_values("measure") == name]
        # Side by side, so that the intervals do not overlap.
        places = costs.dimensions * _BESIDE ** ((number + 0.5) / len(names) - 0.5)
        ends = [costs.cost - costs.low, costs.high - costs.cost]
        kind = name.removeprefix(PRECISION).removeprefix(PROBE)
        axes.errorbar(places, costs.cost, yerr=ends, marker=".", capsize=2, label=figure_text(kind))
    axes.axhline(0, color="grey", linewidth=1)
    axes.set(xscale="log", xlabel="D", ylabel=label)
    axes.set_xticks(dimensions, map(str, dimensions))
    axes.minorticks_off()
    if len(dimensions):
        axes.set_xlim(dimensions[0] / 1.5, dimensions[-1] * 1.5)
    if len(names) > 1:
        axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
