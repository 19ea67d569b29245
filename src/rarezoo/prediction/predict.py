"""``rarezoo predict``: publish what a finetuned network predicts of a label of one's own.

A network that was finetuned on a label predicts it as an answer, and an embedding store holds the predicted answers.
The command calibrates them with the validation split of the labels and evaluates them with the test split; nothing is
learnt, and neither images nor torch are needed.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from rarezoo import tables
from rarezoo.data.label_answers import predicted_values
from rarezoo.data.own_labels import AUTO as ANY_KIND
from rarezoo.data.own_labels import KINDS, NUMBER, OwnLabels
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import DataError, RarezooError
from rarezoo.prediction.probe import splits_of
from rarezoo.prediction.publish import CHOSEN, FILES, FORMATS, LOGITS, PROBABILITIES, SAMPLINGS, Published, publish
from rarezoo.prediction.ratings import own_labels
from rarezoo.runs import claim, fingerprint
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class PredictRun(Settings):
    """Publish what a finetuned network predicts: calibrated probabilities with sets, a table and a page.

    The splits must be those that the network was trained with: by default both commands make them of the ids in the
    same way.

    Examples
    --------
    >>> PredictRun(store="runs/mine/store", labels="rings.csv", label="ring").validation
    0.15
    """

    prefix: ClassVar[str] = ""

    store: str = setting(help="folder of an embedding store that a finetuned checkpoint made", positional=True)
    labels: str = setting(help="labels that the checkpoint was finetuned on")
    label: str = setting("", "column of the label, or several with commas; for ratings what was judged")
    kind: str = setting(ANY_KIND, "what the labels are; auto: by their values", choices=(ANY_KIND, *KINDS))
    id_column: str = setting("", "column of ids of the labels; empty: id_str or id")
    validation: float = setting(0.15, "share of the labels that calibrate, as in training", ge=0, lt=1)
    test: float = setting(0.2, "share of the labels that only evaluate, as in training", ge=0, lt=1)
    split_seed: int = setting(0, "seed of the splits, as in training", ge=0)
    coverage: float = setting(0.9, "share of galaxies whose conformal set or interval holds the truth", gt=0, lt=1)
    sampling: str = setting(
        CHOSEN,
        "how the labelled galaxies came about: chosen (looked for) or drawn at random from the store",
        choices=SAMPLINGS,
    )
    formats: list[str] = setting(
        ["parquet", "fits"], "formats of the table beside Parquet: csv, fits, votable", choices=FORMATS
    )
    page: bool = setting(True, "write a page beside the table")
    seed: int = setting(0, "seed of draws", ge=0)
    out: str = setting("runs/predicted", "output folder")

    def run(self) -> "Predicted":
        """Publish the predictions.

        Raises
        ------
        DataError
            The store has no predictions of these labels, or the labels cannot be used.
        StoreError, OutputError
            The store cannot be opened, or the folder cannot be written.
        """
        store = EmbeddingStore.open(self.store)
        labels = own_labels(self.labels, store, label=self.label, kind=self.kind, id_column=self.id_column)
        published = predictions_of(
            store,
            labels,
            validation=self.validation,
            test=self.test,
            split_seed=self.split_seed,
            coverage=self.coverage,
            sampling=self.sampling,
            seed=self.seed,
        )
        settings = {key: value for key, value in asdict(self).items() if key not in ("out", "store", "labels", "page")}
        folder = claim(
            self.out,
            verb="predict",
            settings=settings,
            inputs=lambda: {"store": store.identity, "labels": fingerprint(labels.values, ids=labels.ids)},
            begun=lambda place: (place / "evaluation.json").exists(),
            writes=FILES,
        )
        published.write(folder, formats=self.formats, page=self.page)
        return Predicted(published, folder)


@dataclass(frozen=True)
class Predicted:
    """Published predictions and their folder."""

    published: Published
    folder: Path

    def summary(self) -> str:
        """Return the text for a terminal."""
        return f"{self.published.summary()}\n{self.folder}"


def predictions_of(
    store: EmbeddingStore,
    labels: OwnLabels,
    *,
    validation: float = 0.15,
    test: float = 0.2,
    split_seed: int = 0,
    coverage: float = 0.9,
    sampling: str = CHOSEN,
    seed: int = 0,
) -> Published:
    """Return the predictions that a finetuned checkpoint left in a store, calibrated and evaluated.

    Parameters
    ----------
    store : EmbeddingStore
    labels : OwnLabels
        The labels that the checkpoint was finetuned on.
    validation, test, split_seed
        Splits of the training.
    coverage, sampling, seed
        See :func:`~rarezoo.prediction.publish.publish`.

    Raises
    ------
    DataError
        The store has no predictions of these labels.
    """
    # A class with one member is not learnt in training either; the splits are those of all labels.
    given, labels = labels, labels.usable()
    answers = store.manifest.answers
    columns = store.read([tables.ID, *map(tables.fraction_column, answers)])
    fractions = np.column_stack(
        [columns[tables.fraction_column(answer)].to_numpy() for answer in answers] or [np.empty((len(store.ids), 0))]
    )
    try:
        values = predicted_values(labels, answers, fractions, source=f"the store {store.folder}")
    except DataError as problem:
        raise DataError(
            f"the store has no predictions of {', '.join(labels.names)} by a finetuned network",
            value=problem.value or store.manifest.checkpoint,
            fix="Learn the label from the embedding, in seconds: rarezoo probe STORE labels=FILE. Or finetune a "
            "checkpoint on it (python train.py objective=labels) and embed the survey with that.",
        ) from problem
    aligned = labels.for_ids(store.ids)
    galaxies = None
    if store.has_survey:
        try:
            galaxies = store.galaxies()
        except RarezooError as problem:
            log.info("the page has no pictures: %s", problem)
    splits, notes = _training_splits(store, galaxies, given, aligned, validation=validation, test=test, seed=split_seed)
    return publish(
        values,
        aligned,
        splits,
        scale=LOGITS if labels.kind == NUMBER else PROBABILITIES,
        coverage=coverage,
        sampling=sampling,
        galaxies=galaxies,
        notes=notes,
        seed=seed,
        about={"made_by": "rarezoo predict", "network": store.manifest.checkpoint, "labels": aligned.summary()},
    )


def _training_splits(
    store: EmbeddingStore,
    galaxies: Galaxies | None,
    labels: OwnLabels,
    aligned: OwnLabels,
    *,
    validation: float,
    test: float,
    seed: int,
) -> tuple[np.ndarray, list[str]]:
    """Return the splits that the network was trained with, as far as they can be known, and what must be noted.

    The training divides all labels, before they are matched with a survey, and then puts near-identical images into the
    split of one of them.
    """
    splits = splits_of(labels, aligned, validation=validation, test=test, seed=seed)
    rows = np.flatnonzero(aligned.known)
    try:
        survey = store.survey() if galaxies is not None else None
        if galaxies is not None and survey is not None:
            chosen = galaxies.take(tables.rows_of(store.ids[rows], galaxies.catalogue, source="the survey"))
            splits[rows] = tables.strings(survey.grouped(chosen.with_splits(splits[rows])).catalogue, tables.SPLIT)
            return splits, []
    except RarezooError as problem:
        log.info("images cannot be compared: %s", problem)
    return splits, [
        "The images of the survey cannot be read, so a galaxy whose image is near-identical to one that was trained on "
        "may be in the test split."
    ]
