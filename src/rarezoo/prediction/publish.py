"""Predictions that can be published: :func:`publish` turns the scores of any model into a table and a page.

The scores of a probe and those of a finetuned network go through the same door. Nothing here knows how they were made;
it needs the scores of all galaxies, the labels, and which labels the model has not learnt from.

Shape letters: n galaxies, c columns of the labels, k classes (2 for yes/no and a tag), m labelled galaxies.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold

from rarezoo import __version__, tables
from rarezoo.data.own_labels import BINARY, CLASSES, COUNTS, NUMBER, TAGS, OwnLabels
from rarezoo.data.splits import TEST, VALIDATION
from rarezoo.data.survey import Galaxies
from rarezoo.errors import ConfigError, DataError
from rarezoo.prediction.calibration import (
    Calibration,
    as_classes,
    class_quantiles,
    class_share_draws,
    conformal_quantile,
    is_share,
    share_draws,
    shifted,
)
from rarezoo.prediction.evaluation import FEWEST, Evaluation, evaluated, likely_errors, proportion
from rarezoo.report.exports import write_fits, write_votable
from rarezoo.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
CHOSEN, RANDOM = SAMPLINGS = ("chosen", "random")
LOGITS, PROBABILITIES = "logits", "probabilities"
TEST_SPLIT, CROSS_VALIDATION = "test split", "cross-validation"
EVALUATED = {TEST_SPLIT: "on a test split", CROSS_VALIDATION: "by cross-validation"}
FORMATS = ("parquet", "csv", "fits", "votable")
SET, LOW, HIGH = "set", "low", "high"
TABLE_FILE = "predictions"
# Everything that may be written into a folder.
FILES = (*(f"{TABLE_FILE}.{ending}" for ending in ("parquet", "csv", "fits", "vot")), "evaluation.json", "index.html")
# Rows of the table that are written at once.
_AT_ONCE = 100_000
_DRAWS, _FOLDS = 100, 5
# Galaxies of the survey by which shares are estimated.
_COUNTED = 50_000
_FEWEST_CALIBRATION = 20
# Two estimates disagree if their intervals are apart by more than this share of the number.
_APART = 0.2


@dataclass(frozen=True)
class LabelError:
    """A label that is likely wrong.

    Attributes
    ----------
    row : int
        Row of the galaxy.
    given, seems : str
        The label, and what the model takes the galaxy for.
    probability : float
        Probability of what it seems to be; for a number the difference in units of the usual one.
    """

    row: int
    given: str
    seems: str
    probability: float


@dataclass(frozen=True)
class Published:
    """Calibrated predictions of n galaxies, and how good they are.

    Attributes
    ----------
    labels : OwnLabels
        Labels of the n galaxies.
    splits : (n,) array
    probabilities : (n, c) array of float64
        Probabilities, corrected for the shares of the classes in the survey; shares of votes for counts, and the value
        for a number.
    sets : (n, k) array of bool or None
        Conformal sets: whether each class is in the set of a galaxy; for tags, k = 2c: *not* and *yes* of each tag.
    half_widths : (c,) array or None
        Half widths of the conformal intervals of a number or of shares of votes.
    coverage : float
        Coverage that sets and intervals promise.
    evaluations : tuple of Evaluation
        One per label, class or tag; empty for numbers and counts.
    strength : Interval
        For numbers and counts: R² of the evaluated galaxies.
    covered : Interval
        For numbers and counts: the share of evaluated galaxies whose interval holds the truth.
    unseen : (n, c) array of float64 or None
        For numbers and counts: what a model predicts of the evaluated galaxies that has not seen their labels; NaN for
        all other galaxies.
    errors : tuple of LabelError
        Likely label errors, the likeliest first.
    by : str
        How they were evaluated: ``test split`` or ``cross-validation``.
    notes : tuple of str
        What a reader must know.
    title : str
    about : dict
        How they were made.
    galaxies : Galaxies or None
        For the pictures of the page.
    """

    labels: OwnLabels
    splits: np.ndarray
    probabilities: Float64[np.ndarray, "n c"]
    sets: Bool[np.ndarray, "n _k"] | None
    half_widths: Float64[np.ndarray, " c"] | None
    coverage: float
    evaluations: tuple[Evaluation, ...]
    strength: Interval
    covered: Interval
    errors: tuple[LabelError, ...]
    by: str
    notes: tuple[str, ...] = ()
    title: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    galaxies: Galaxies | None = field(default=None, repr=False)
    unseen: Float64[np.ndarray, "n c"] | None = field(default=None, repr=False)

    def parts(self, rows: int = _AT_ONCE) -> Iterator[pa.Table]:
        """Yield :meth:`table` in parts of at most so many rows, in the order of the store."""
        places = self._positions()
        for start in range(0, len(self.labels), rows):
            part = slice(start, start + rows)
            yield self._part(part, {name: column.slice(start, rows) for name, column in places.items()})

    def table(self) -> pa.Table:
        """Return the predictions of all galaxies.

        Returns
        -------
        pyarrow.Table
            ``id_str``; ``ra`` and ``dec`` in degrees if they are known; ``probability`` for a yes/no label,
            ``NAME_probability`` for each class and tag, ``NAME_fraction`` for each answer, ``value`` for a number;
            ``set`` (the classes that the conformal set holds, with commas between them) or ``low`` and ``high`` of the
            interval (``NAME_low``, ``NAME_high`` for each answer); ``class``, the likeliest one; ``label``, the given
            one; and its ``split``.
        """
        return pa.concat_tables(self.parts())

    def _part(self, rows: slice, places: dict[str, pa.Array]) -> pa.Table:
        """Return some rows of the table; ``places`` are their positions."""
        labels = replace(self.labels, ids=self.labels.ids[rows], values=self.labels.values[rows])
        columns = {tables.ID: pa.array(labels.ids.tolist(), pa.string()), **places}
        probabilities, single = self.probabilities[rows], labels.kind in (BINARY, NUMBER)
        ending = {COUNTS: "fraction", NUMBER: tables.VALUE}.get(labels.kind, tables.PROBABILITY)
        for name, values in zip(labels.names, probabilities.T, strict=True):
            columns[ending if single else f"{name}_{ending}"] = pa.array(values.astype(np.float32))
        if self.half_widths is not None:
            for name, values, width in zip(labels.names, probabilities.T, self.half_widths, strict=True):
                prefix, (least, most) = "" if single else f"{name}_", (-np.inf, np.inf) if single else (0, 1)
                columns[f"{prefix}{LOW}"] = pa.array(np.clip(values - width, least, most).astype(np.float32))
                columns[f"{prefix}{HIGH}"] = pa.array(np.clip(values + width, least, most).astype(np.float32))
        if labels.kind == CLASSES:
            names = np.array(labels.names, dtype=object)
            columns["class"] = pa.array(names[probabilities.argmax(axis=1)].tolist(), pa.string())
        if self.sets is not None:
            for number, name in enumerate(labels.names if labels.kind == TAGS else [""]):
                held = self.sets[rows, 2 * number : 2 * number + 2] if name else self.sets[rows]
                words = _class_names(labels, name)
                columns[f"{name}_{SET}" if name else SET] = pa.array(_set_texts(held, words), pa.string())
        columns |= _given(labels)
        columns[tables.SPLIT] = pa.array([split or None for split in self.splits[rows].tolist()], pa.string())
        return pa.table(columns)

    def _positions(self) -> dict[str, pa.Array]:
        if self.galaxies is None:
            return {}
        catalogue = self.galaxies.catalogue
        rows = tables.rows_of(self.labels.ids, catalogue, source="the survey")
        places = {name: catalogue[name].take(rows).combine_chunks() for name in (tables.RA, tables.DEC)}
        return {} if any(column.null_count == len(column) for column in places.values()) else places

    def predict(self) -> "pd.DataFrame":
        """Return :meth:`table` for pandas: a row per galaxy, in the order of the store."""
        return self.table().to_pandas()

    def write(self, folder: Path | str, *, formats: Sequence[str] = ("parquet", "fits"), page: bool = True) -> Path:
        """Write the table in some formats and the page; return the path of the page, or of the folder without one.

        Parquet and CSV are written in parts. FITS and VOTable need the whole table in memory, several times over.

        Raises
        ------
        OutputError
            The folder cannot be written.
        """
        folder = Path(folder)
        about = {key: str(value) for key, value in self.about.items()}
        parquet = folder / f"{TABLE_FILE}.parquet"
        tables.write_parts(self.parts(), parquet, tables.OWN_PREDICTIONS, **tables.plain(self.about))
        if "csv" in formats:
            tables.write_csv(self.parts(), folder / f"{TABLE_FILE}.csv")
        for known, ending, writer in (("fits", "fits", write_fits), ("votable", "vot", write_votable)):
            if known in formats:
                table = self.table()
                meanings = _meanings(table, self.coverage)
                writer(folder / f"{TABLE_FILE}.{ending}", table, about, meanings=meanings)
        tables.write_json(self.content(), folder / "evaluation.json")
        if not page:
            return folder
        from rarezoo.prediction.page import write_page

        return write_page(self, folder)

    def content(self) -> dict[str, Any]:
        """Return the numbers of the evaluation, for ``evaluation.json``."""
        return {
            **self.about,
            "kind": self.labels.kind,
            "evaluated_by": self.by,
            "coverage": self.coverage,
            "notes": list(self.notes),
            "labels": [
                {
                    "name": found.name,
                    "positives": found.positives,
                    "others": found.others,
                    "auc": found.auc._asdict(),
                    "count": found.count._asdict(),
                    "share": found.share._asdict(),
                    "count_by_threshold": found.adjusted._asdict(),
                    "labelled_share": found.labelled_share,
                    "calibration_error": found.reliability.error,
                    "brier": found.reliability.brier,
                    "set_coverage": found.coverage._asdict(),
                }
                for found in self.evaluations
            ],
            "r2": self.strength._asdict(),
            "interval_coverage": self.covered._asdict(),
            "half_widths": self.half_widths,
            "likely_errors": [
                {"id_str": str(self.labels.ids[error.row]), "given": error.given, "seems": error.seems}
                for error in self.errors
            ],
        }

    def summary(self) -> str:
        """Return the text for a terminal."""
        lines = [self.labels.summary()]
        if self.evaluations:
            rows = []
            for found in self.evaluations:
                half = found.at(0.5)
                rows.append(
                    [
                        found.name,
                        f"{found.positives} and {found.others}",
                        found.auc.text(".2f"),
                        Interval(*found.completeness[half]).text(".2f"),
                        Interval(*found.purity[half]).text(".2f"),
                        found.count.text(",.0f"),
                    ]
                )
            head = [
                "label",
                "evaluated with and without",
                "AUC",
                "completeness at 0.5",
                "purity at 0.5",
                "how many in all",
            ]
            lines.append(tables.markdown(head, rows))
        else:
            lines.append(f"R² {self.strength.text('.2f')}; intervals hold {self.covered.text('.2f')} of the galaxies")
        lines.append(f"Evaluated {EVALUATED[self.by]}; 95 % intervals in brackets.")
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.labels):,} galaxies, {self.labels.kind}: {', '.join(self.labels.names)})"
        )


def _given(labels: OwnLabels) -> dict[str, pa.Array]:
    """Return the columns of the labels that were given; null where they are unknown."""
    if labels.kind in (BINARY, NUMBER):
        return {tables.LABEL: pa.array(labels.values[:, 0], from_pandas=True)}
    if labels.kind == CLASSES:
        names = np.array([*labels.names, None], dtype=object)
        places = np.where(labels.known, np.nan_to_num(labels.values).argmax(axis=1), len(labels.names))
        return {tables.LABEL: pa.array(names[places].tolist(), pa.string())}
    return {
        f"{name}_{tables.LABEL}": pa.array(column, from_pandas=True)
        for name, column in zip(labels.names, labels.values.T, strict=True)
    }


def _class_names(labels: OwnLabels, tag: str = "") -> tuple[str, ...]:
    """Return the names of classes: for yes/no and a tag *not* and *yes*."""
    name = tag or labels.names[0]
    return labels.names if labels.kind == CLASSES else (f"not {name}", name)


def _set_texts(held: Bool[np.ndarray, "n k"], names: Sequence[str]) -> list[str]:
    """Return conformal sets as texts, each different set made once."""
    if held.shape[1] > 60:
        return [", ".join(name for name, inside in zip(names, row, strict=True) if inside) for row in held]
    codes = held @ (1 << np.arange(held.shape[1], dtype=np.int64))
    texts = {
        int(code): ", ".join(name for place, name in enumerate(names) if code >> place & 1) for code in np.unique(codes)
    }
    return [texts[int(code)] for code in codes]


def _meanings(table: pa.Table, coverage: float) -> dict[str, tuple[str, str, str]]:
    """Return unit, UCD and description of the columns of a table of predictions."""
    meanings = {
        tables.PROBABILITY: ("", "stat.probability", "calibrated probability of the label, 0 to 1"),
        tables.VALUE: ("", "stat.fit.param", "predicted value"),
        "class": ("", "meta.code.class", "class with the largest probability"),
        tables.LABEL: ("", "meta.code", "label that was given"),
        tables.SPLIT: ("", "meta.code", "split that the label was in"),
    }
    endings = {
        "_probability": ("", "stat.probability", "calibrated probability, 0 to 1"),
        "_fraction": ("", "stat.fit.param;arith.ratio", "predicted share of the votes, 0 to 1"),
        "_label": ("", "meta.code", "label that was given"),
        SET: (
            "",
            "meta.code.class",
            f"conformal set: it holds the class of {coverage:.0%} of the galaxies of each class",
        ),
        LOW: ("", "stat.min", f"lower end of the {coverage:.0%} interval"),
        HIGH: ("", "stat.max", f"upper end of the {coverage:.0%} interval"),
    }
    for name in table.column_names:
        for ending, meaning in endings.items():
            if name not in meanings and name.endswith(ending):
                meanings[name] = meaning
    return meanings


# --- the door


def publish(
    scores: Float[np.ndarray, "n c"],
    labels: OwnLabels,
    splits: np.ndarray,
    *,
    out_of_fold: Float[np.ndarray, "n c"] | None = None,
    scale: str = LOGITS,
    coverage: float = 0.9,
    sampling: str = CHOSEN,
    galaxies: Galaxies | None = None,
    title: str = "",
    about: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Published:
    """Calibrate the scores of a model, evaluate them, and make a table of them.

    Probabilities are calibrated with galaxies that the model has not learnt from: those with a score in
    ``out_of_fold``,
    or those of the validation split. They are evaluated with the galaxies of the test split; without any, by
    cross-validation of the calibration, and the notes say so.

    Parameters
    ----------
    scores : (n, c) array
        Scores of all galaxies, in the order of the labels: logits for yes/no and tags, logits of a softmax for classes
        and counts, values for a number.
    labels : OwnLabels
        Labels of the same n galaxies (:meth:`~rarezoo.data.own_labels.OwnLabels.for_ids`).
    splits : (n,) array
        ``train``, ``validation``, ``test``, or an empty text.
    out_of_fold : (n, c) array, optional
        Scores from models that have not seen the label of a galaxy (cross-validation); NaN elsewhere. Those of galaxies
        without a label, if there are any, say how many there are: they are comparable with those of labelled galaxies,
        while a model that has learnt from all labels has a wider range of scores.
    scale : str
        ``logits``, or ``probabilities`` if the scores are between 0 and 1.
    coverage : float
        Share of the galaxies of each class whose set holds it, or whose interval holds the truth.
    sampling : str
        How the labelled galaxies came about: ``chosen`` (looked for; the share of a class in the survey is then
        estimated) or ``random`` (drawn at random from the survey, whose shares are those of the labels).
    galaxies : Galaxies, optional
        The survey, for positions and for the pictures of the page.
    title, about, notes
        What the page says.
    seed : int

    Returns
    -------
    Published

    Raises
    ------
    DataError
        There are too few labels that the model has not learnt from, or a test split without any of a class.
    ConfigError
        Shapes do not fit, or a setting has no such value.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = np.arange(400) % 4 == 0
    >>> labels = OwnLabels.read({f"J{row}": int(yes) for row, yes in enumerate(truth)}, label="ring")
    >>> scores = (rng.normal(size=400) + 2 * truth)[:, None]
    >>> published = publish(scores, labels, labels.splits(validation=0.5, test=0.5 - 1e-9))
    >>> published.predict().columns.tolist()
    ['id_str', 'probability', 'set', 'label', 'split']
    """
    scores = _checked(scores, labels, splits, scale=scale, coverage=coverage, sampling=sampling)
    held = _held(scores, splits, labels, out_of_fold)
    usable = np.isfinite(held).all(axis=1) & labels.known
    test = (splits == TEST) & labels.known
    notes = list(notes)
    calibration_rows = np.flatnonzero(usable & ~test)
    if len(calibration_rows) < 4:
        raise DataError(
            "too few labels that the model has not learnt from",
            value=len(calibration_rows),
            fix="Label more galaxies, or make the validation split larger (validation=0.15 is usual), as in training.",
        )
    if len(calibration_rows) < _FEWEST_CALIBRATION:
        notes.append(f"Only {len(calibration_rows)} labels calibrate the probabilities: label more to rely on them.")
    by = TEST_SPLIT if test.any() else CROSS_VALIDATION
    rows = np.flatnonzero(test) if test.any() else calibration_rows
    _refuse_one_sided(labels, rows, by=by)
    if by == CROSS_VALIDATION:
        notes.append("There is no test split, so all numbers are by cross-validation of the same labels.")
    parts = _Parts(scores, held, labels, calibration_rows, rows, by, coverage, sampling, seed)
    make = _intervals if is_share(labels.kind) else _sets
    found = make(parts, notes)
    return Published(
        labels=labels,
        splits=np.asarray(splits, dtype=object),
        coverage=coverage,
        by=by,
        notes=tuple(notes),
        title=title or f"{', '.join(labels.names)}",
        galaxies=galaxies,
        about={"rarezoo": __version__, **(about or {}), "sampling": sampling},
        **found,
    )


@dataclass(frozen=True)
class _Parts:
    """What predictions are made of; ``fit`` are the rows that calibrate and ``ask`` those that are evaluated."""

    scores: Float64[np.ndarray, "n c"]
    held: Float64[np.ndarray, "n c"]
    labels: OwnLabels
    fit: Int64[np.ndarray, " f"]
    ask: Int64[np.ndarray, " a"]
    by: str
    coverage: float
    sampling: str
    seed: int

    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (rows that calibrate, rows that are evaluated): once with a test split, otherwise in folds."""
        if self.by == TEST_SPLIT:
            return [(self.fit, self.ask)]
        strata = self.labels.strata[self.fit]
        folds = min(_FOLDS, len(self.fit) // 2)
        if self.labels.kind in (BINARY, CLASSES):
            folds = max(2, min(folds, int(np.unique(strata, return_counts=True)[1].min())))
            split = StratifiedKFold(folds, shuffle=True, random_state=self.seed).split(strata, strata)
        else:
            split = KFold(folds, shuffle=True, random_state=self.seed).split(strata)
        return [(self.fit[kept], self.fit[asked]) for kept, asked in split]

    def calibrated(self, rows: Int64[np.ndarray, " f"]) -> Calibration:
        return Calibration.fit(self.held[rows], self.labels.values[rows].astype(np.float64), kind=self.labels.kind)


def _sets(parts: _Parts, notes: list[str]) -> dict[str, Any]:
    """Make probabilities, sets and evaluations of yes/no labels, classes and tags."""
    labels, kind, n = parts.labels, parts.labels.kind, len(parts.labels)
    calibration = parts.calibrated(parts.fit)
    plain, held = calibration.probabilities(parts.scores), np.full((n, len(labels.names)), np.nan)
    for kept, asked in parts.folds():
        held[asked] = parts.calibrated(kept).probabilities(parts.held[asked])
    probabilities, sets, evaluations, errors = plain.copy(), [], list[Evaluation](), list[LabelError]()
    mixed = kind == CLASSES and len(labels.names) > 2 and parts.sampling == CHOSEN
    if mixed:
        notes.append(
            "How pure a selection of one of several classes is, is not said, because the other labelled classes are "
            "not mixed as in the survey. For that, make a yes/no label of one class (galaxies drawn at random for "
            "no), or label galaxies drawn at random and say sampling=random."
        )
    for column in range(len(labels.names)) if kind == TAGS else [0]:
        names = _class_names(labels, labels.names[column] if kind == TAGS else "")
        members = _members(labels, column)
        known = np.flatnonzero(members.any(axis=1))
        fit, ask = np.intersect1d(parts.fit, known), np.intersect1d(parts.ask, known)
        survey = as_classes(plain, kind=kind, column=column)
        before = members[fit].mean(axis=0)
        shares = _share_draws(parts, members, fit, column=column)
        # The conformal quantile of the calibration galaxies, and for those that are evaluated that of the others.
        fitted = as_classes(calibration.probabilities(parts.held), kind=kind, column=column)
        sets.append(survey >= class_quantiles(fitted[fit], members[fit], coverage=parts.coverage) - 1e-12)
        in_set = np.zeros((n, len(names)), dtype=bool)
        for kept, asked in parts.folds():
            kept = np.intersect1d(kept, known)
            own = as_classes(parts.calibrated(kept).probabilities(parts.held), kind=kind, column=column)
            least = class_quantiles(own[kept], members[kept], coverage=parts.coverage)
            in_set[asked] = own[asked] >= least - 1e-12
        # The estimate is that of galaxies without a label, and may be 0; the whole survey has the labelled ones too.
        now = np.maximum(shares[0], members[known].sum(axis=0) / len(survey))
        now /= now.sum()
        corrected = shifted(survey, before=before, now=now)
        evaluation = shifted(as_classes(held[ask], kind=kind, column=column), before=before, now=now)
        if kind == CLASSES:
            probabilities = corrected
        else:
            probabilities[:, column] = corrected[:, 1]
        for number, name in enumerate(names):
            if kind == CLASSES or number == 1:
                found = evaluated(
                    name,
                    evaluation[:, number],
                    members[ask, number],
                    corrected[:, number],
                    shares=shares[:, number],
                    known=members[:, number],
                    labelled=np.asarray(members.any(axis=1)),
                    labelled_share=float(members[known, number].mean()),
                    in_set=in_set[ask, number],
                    seed=parts.seed,
                )
                # Purity and the number by counting need galaxies without the label as they are in the survey.
                unsaid: dict[str, Any] = {
                    "adjusted": Interval(np.nan, np.nan, np.nan), "purity": np.full_like(found.purity, np.nan)
                }  # fmt: skip
                evaluations.append(replace(found, **unsaid) if mixed else found)
        errors += _errors(parts, held, members, names, column=column)
    _note(notes, evaluations, parts)
    unknown = Interval(np.nan, np.nan, np.nan)
    return {
        "probabilities": probabilities,
        "sets": np.hstack(sets),
        "half_widths": None,
        "strength": unknown,
        "covered": unknown,
        "evaluations": tuple(evaluations),
        "errors": tuple(sorted(errors, key=lambda error: -error.probability)),
    }


def _members(labels: OwnLabels, column: int) -> Bool[np.ndarray, "n k"]:
    """Return the class of each galaxy; no class if it is not known."""
    if labels.kind == CLASSES:
        return labels.values == 1
    return np.column_stack([labels.values[:, column] == 0, labels.values[:, column] == 1])


def _share_draws(
    parts: _Parts,
    members: Bool[np.ndarray, "n k"],
    fit: Int64[np.ndarray, " f"],
    *,
    column: int,
) -> Float64[np.ndarray, "r k"]:
    """Return the shares of the classes among the unlabelled galaxies, and draws of them from resampled labels."""
    rng, counts = np.random.default_rng([parts.seed, column]), members[fit].sum(axis=0)
    if parts.sampling == RANDOM:
        labelled = members[members.any(axis=1)].sum(axis=0)
        return np.vstack([labelled / labelled.sum(), rng.dirichlet(labelled + 0.5, _DRAWS)])
    kind, rest = parts.labels.kind, np.flatnonzero(~members.any(axis=1))
    # Scores of unlabelled galaxies by the models that have given those of the labelled ones, if there are any.
    compared = rest[np.isfinite(parts.held[rest]).all(axis=1) & ~parts.labels.known[rest]]
    scores = parts.held[compared] if len(compared) else parts.scores[rest[:: max(1, len(rest) // _COUNTED)]]
    if members.shape[1] == 2 and len(scores):
        both = [
            values[:, 1] - values[:, 0] if kind == CLASSES else values[:, column] for values in (parts.held, scores)
        ]
        found = share_draws(both[0][fit], members[fit, 1], both[1], rng=rng, draws=3 * _DRAWS)
        return np.column_stack([1 - found, found])
    if not len(scores):
        return (counts / counts.sum())[None]
    labelled, shown = (parts.calibrated(parts.fit).probabilities(values) for values in (parts.held[fit], scores))
    return class_share_draws(labelled, members[fit], shown, rng=rng, draws=2 * _DRAWS)


def _errors(
    parts: _Parts,
    held: Float64[np.ndarray, "n c"],
    members: Bool[np.ndarray, "n k"],
    names: Sequence[str],
    *,
    column: int,
) -> list[LabelError]:
    """Return the likely label errors among all galaxies that the model has not learnt from."""
    fitted = parts.calibrated(parts.fit).probabilities(parts.held)
    probabilities = as_classes(np.where(np.isfinite(held), held, fitted), kind=parts.labels.kind, column=column)
    rows = np.flatnonzero(np.isfinite(probabilities).all(axis=1) & members.any(axis=1))
    found, seems = likely_errors(probabilities[rows], members[rows])
    return [
        LabelError(int(row), names[int(members[row].argmax())], names[int(other)], float(probabilities[row, other]))
        for row, other in zip(rows[found], seems, strict=True)
    ]


def _note(notes: list[str], evaluations: Sequence[Evaluation], parts: _Parts) -> None:
    few = [found.name for found in evaluations if min(found.positives, found.others) < FEWEST]
    if few:
        notes.append(
            f"Fewer than {FEWEST} evaluated galaxies have, or have not, the label {', '.join(few)}: "
            "its intervals are wide, and conformal sets always hold it. Label more of them."
        )
    apart = [
        found.name
        for found in evaluations
        if max(found.count.low - found.adjusted.high, found.adjusted.low - found.count.high)
        > _APART * found.count.value
    ]
    if apart:
        notes.append(
            f"The two estimates of how many there are disagree for {', '.join(apart)}: the labelled galaxies are "
            "probably not like those of the survey. Label some that are drawn at random."
        )


def _intervals(parts: _Parts, notes: list[str]) -> dict[str, Any]:
    """Make values and conformal intervals of numbers and of counts of votes."""
    labels, calibration = parts.labels, parts.calibrated(parts.fit)
    truth = given_values(labels)
    held, inside = np.full(truth.shape, np.nan), np.zeros(truth.shape, dtype=bool)
    for kept, asked in parts.folds():
        own = parts.calibrated(kept)
        found, residuals = (
            own.probabilities(parts.held[asked]),
            np.abs(own.probabilities(parts.held[kept]) - truth[kept]),
        )
        widths = np.array([conformal_quantile(column, parts.coverage) for column in residuals.T])
        held[asked], inside[asked] = found, np.abs(found - truth[asked]) <= widths
    residuals = np.abs(calibration.probabilities(parts.held) - truth)
    widths = np.array([conformal_quantile(column, parts.coverage) for column in residuals[parts.fit].T])
    if not np.isfinite(widths).all():
        notes.append(
            "Too few labels for an interval of this coverage: label more galaxies, or choose a smaller coverage."
        )
    strength = _r2(truth[parts.ask], held[parts.ask], seed=parts.seed)
    usual = np.median(residuals[parts.fit], axis=0)
    rows = np.flatnonzero(np.isfinite(residuals).all(axis=1) & labels.known)
    size = (residuals[rows] / np.maximum(usual, 1e-12)).max(axis=1)
    far = [place for place in np.argsort(-size, kind="stable")[:24] if size[place] > 5]
    values = calibration.probabilities(parts.held)
    errors = [
        LabelError(
            int(rows[place]), f"{truth[rows[place]][0]:.3g}", f"{values[rows[place]][0]:.3g}", float(size[place])
        )
        for place in far
    ]
    return {
        "probabilities": calibration.probabilities(parts.scores),
        "sets": None,
        "half_widths": widths,
        "strength": strength,
        "covered": proportion(int(inside[parts.ask].sum()), inside[parts.ask].size),
        "unseen": np.where(np.isin(np.arange(len(labels)), parts.ask)[:, None], held, np.nan),
        "evaluations": (),
        "errors": tuple(errors),
    }


def given_values(labels: OwnLabels) -> Float64[np.ndarray, "n c"]:
    """Return labels that are numbers as they are, and counts of votes as shares; NaN where they are unknown."""
    values = labels.values.astype(np.float64)
    return values / np.maximum(np.nansum(values, axis=1, keepdims=True), 1e-12) if labels.kind == COUNTS else values


def _r2(truth: Float64[np.ndarray, "m c"], found: Float64[np.ndarray, "m c"], *, seed: int) -> Interval:
    rng, values = np.random.default_rng(seed), []
    for _ in range(_DRAWS):
        rows = rng.integers(0, len(truth), len(truth))
        if np.ptp(truth[rows], axis=0).any():
            values.append(r2_score(truth[rows], found[rows], multioutput="variance_weighted"))
    low, high = np.quantile(values, (0.025, 0.975)) if values else (np.nan, np.nan)
    return Interval(float(r2_score(truth, found, multioutput="variance_weighted")), float(low), float(high))


def _checked(
    scores: np.ndarray, labels: OwnLabels, splits: np.ndarray, *, scale: str, coverage: float, sampling: str
) -> Float64[np.ndarray, "n c"]:
    """Return scores as float64 logits, or say what does not fit."""
    values = np.asarray(scores, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape != labels.values.shape or len(splits) != len(labels):
        raise ConfigError(
            "scores, labels and splits of different shapes",
            value=f"{values.shape}, {labels.values.shape}, {len(splits)}",
            fix="Give one row per galaxy and one column per label, in the order of labels.names.",
        )
    if sampling not in SAMPLINGS or scale not in (LOGITS, PROBABILITIES) or not 0 < coverage < 1:
        raise ConfigError(
            "no such choice",
            value=f"sampling={sampling} scale={scale} coverage={coverage}",
            fix=f"sampling is {' or '.join(SAMPLINGS)}, scale {LOGITS} or {PROBABILITIES}, coverage between 0 and 1.",
        )
    bad = int((~np.isfinite(values).all(axis=1)).sum())
    if bad:
        raise DataError("scores that are not finite", value=f"{bad} galaxies", fix="Leave these galaxies out.")
    if scale == PROBABILITIES and labels.kind != NUMBER:
        kept = np.clip(values, 1e-6, 1 - 1e-6)
        return np.log(kept) - (np.log1p(-kept) if labels.kind in (BINARY, TAGS) else 0)
    return values


def _held(
    scores: Float64[np.ndarray, "n c"],
    splits: np.ndarray,
    labels: OwnLabels,
    out_of_fold: Float[np.ndarray, "n c"] | None,
) -> Float64[np.ndarray, "n c"]:
    """Return the scores of galaxies whose label the model has not seen; NaN elsewhere."""
    held = np.full(scores.shape, np.nan)
    unseen = (splits == TEST) if out_of_fold is not None else np.isin(splits, (VALIDATION, TEST))
    held[unseen] = scores[unseen]
    if out_of_fold is not None:
        given = np.asarray(out_of_fold, dtype=np.float64)
        there = np.isfinite(given).all(axis=1) & (splits != TEST)
        held[there] = given[there]
    return held


def _refuse_one_sided(labels: OwnLabels, rows: Int64[np.ndarray, " a"], *, by: str) -> None:
    """Raise DataError if the evaluated galaxies have all, or none of them, a yes/no label."""
    if labels.kind != BINARY or len(np.unique(labels.values[rows, 0])) == 2:
        return
    side = "without positives" if not (labels.values[rows, 0] == 1).any() else "with positives only"
    raise DataError(
        f"a {by} {side}",
        value=f"{len(rows)} galaxies",
        fix=f"Label more galaxies, choose another seed, or use test=0 to evaluate by {CROSS_VALIDATION}.",
    )
