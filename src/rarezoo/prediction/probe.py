"""``rarezoo probe``: learn a label of one's own from an embedding in seconds, without images and without torch.

Below about 200 labels this is the recommended way: a small model on a frozen embedding is there nearly as good as a
finetuned network (Walmsley et al. 2022; docs/how-to/finetune.md has measurements of this project), and costs seconds.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from rarezoo.data.own_labels import AUTO as ANY_KIND
from rarezoo.data.own_labels import BINARY, CLASSES, KINDS, TAGS, OwnLabels
from rarezoo.data.splits import TEST, VALIDATION
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import RarezooError
from rarezoo.prediction.models import KERNEL, LINEAR, Fitted, Strength, candidates, chosen_model
from rarezoo.prediction.publish import CHOSEN, FILES, FORMATS, SAMPLINGS, Published, publish
from rarezoo.prediction.ratings import own_labels
from rarezoo.prediction.space import AUTO, Space
from rarezoo.runs import claim, fingerprint
from rarezoo.settings import Settings, refuse_unknown, setting

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
LEARNERS = (AUTO, LINEAR, KERNEL)
# Number of labels up to which a probe is recommended, and above which a finetuned network may be better.
RECOMMENDED = 200
# A test split is kept only if it holds so many galaxies of the rarest class: below, cross-validation says more.
_FEWEST_TESTED = 10
# Galaxies without a label that the models of cross-validation predict too.
_COUNTED = 5000


@dataclass(frozen=True)
class Probe:
    """A label that was learnt from an embedding.

    Attributes
    ----------
    labels : OwnLabels
        Labels of the galaxies of the store, in its order.
    splits : (n,) array
        ``train``, ``validation``, ``test``, or an empty text.
    strength : Strength
        The model that was chosen, and how well it predicts galaxies that it has not seen, by cross-validation.
    strengths : tuple of Strength
        Those of all models that were tried.
    published : Published
        The calibrated predictions.
    features : tuple of str
        What was learnt from: ``embedding``, ``photometry``, ``structure``, or columns of the catalogue.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> vectors = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    >>> ids = [f"J{row}" for row in range(300)]
    >>> store = EmbeddingStore.from_array(ids, vectors, out=mkdtemp())
    >>> found = probe(store, {ids[row]: int(vectors[row, 0] > 0.5) for row in range(80)})
    >>> found.predict()[["id_str", "probability"]].shape, found.strength.value > 0.9
    ((300, 2), True)
    """

    labels: OwnLabels
    splits: np.ndarray
    strength: Strength
    strengths: tuple[Strength, ...]
    published: Published
    features: tuple[str, ...]
    folder: Path | None = None

    def predict(self) -> "pd.DataFrame":
        """Return what is predicted of every galaxy of the store: see :meth:`Published.table`."""
        return self.published.predict()

    def table(self) -> pa.Table:
        """Return the same as an Arrow table."""
        return self.published.table()

    def write(self, folder: Path | str, *, formats: Sequence[str] = ("parquet", "fits"), page: bool = True) -> Path:
        """Write the predictions and their page; see :meth:`Published.write`."""
        return self.published.write(folder, formats=formats, page=page)

    @cached_property
    def advice(self) -> str:
        """Which way is recommended for this number of labels."""
        number = int(self.labels.known.sum())
        if number < RECOMMENDED:
            return f"{number} labels: below about {RECOMMENDED} labels the probe is the recommended way."
        return (
            f"{number} labels: from about {RECOMMENDED} labels on, a finetuned network may be better "
            "(train.py objective=labels); the probe remains what it has to beat."
        )

    def summary(self) -> str:
        """Return the text for a terminal."""
        tried = ", ".join(f"{found.model} {found.value:.3f}" for found in self.strengths)
        lines = [
            self.published.summary(),
            f"Learnt from {', '.join(self.features)}; {self.strength.measure} by cross-validation: {tried}; "
            f"used: {self.strength.model}.",
            self.advice,
        ]
        return "\n".join([*lines, *([str(self.folder / "index.html")] if self.folder else [])])

    def __repr__(self) -> str:
        return f"Probe({self.labels.summary()}; {self.strength.measure} {self.strength.value:.3f} by cross-validation)"


@dataclass(kw_only=True)
class ProbeSettings(Settings):
    """How a label is learnt from an embedding."""

    prefix: ClassVar[str] = ""

    learner: str = setting(AUTO, "model: linear, kernel (a Gaussian process), or the better one", choices=LEARNERS)
    beside: list[str] = setting(
        [AUTO],
        "what stands beside the embedding: photometry, structure, columns of the catalogue; auto: photometry and "
        "structure if the survey of the store has images; empty: nothing",
    )
    weight: float = setting(2.0, "weight of what stands beside the embedding", gt=0)
    embedding: bool = setting(True, "learn from the embedding; false: only from what stands beside it")
    balance: bool = setting(True, "give all classes the same total weight while learning")
    validation: float = setting(0.0, "share of the labels that only calibrate; 0: by cross-validation", ge=0, lt=1)
    test: float = setting(
        0.2,
        "share of the labels that nothing looks at before the evaluation; it is 0 if too few would be in it",
        ge=0,
        lt=1,
    )
    coverage: float = setting(0.9, "share of galaxies whose conformal set or interval holds the truth", gt=0, lt=1)
    sampling: str = setting(
        CHOSEN,
        "how the labelled galaxies came about: chosen (looked for) or drawn at random from the store",
        choices=SAMPLINGS,
    )
    seed: int = setting(0, "seed of splits, folds and draws", ge=0)

    def probe(self, store: EmbeddingStore, labels: OwnLabels, *, galaxies: Galaxies | None = None) -> Probe:
        """Learn the labels; see :func:`probe`."""
        given, labels = labels, labels.for_ids(store.ids).usable()
        space = Space.of(store, beside=self.beside, weight=self.weight, embedding=self.embedding, galaxies=galaxies)
        splits, notes = self._splits(given, labels)
        learnt = np.flatnonzero(labels.known & (splits != TEST))
        matrix, own = space.rows(learnt), _part(labels, learnt)
        models = candidates(self.learner, balance=self.balance)
        # Galaxies without a label, by which it is estimated how many there are.
        free = np.flatnonzero(~labels.known)
        shown = np.sort(np.random.default_rng(self.seed).permutation(free)[:_COUNTED])
        strength, held, strengths = chosen_model(
            models, matrix, own, distance=space.distance, seed=self.seed, others=space.rows(shown)
        )
        model = strength.model.fit(matrix, own.values, kind=own.kind, distance=space.distance)
        out_of_fold = np.full(labels.values.shape, np.nan)
        out_of_fold[np.concatenate([learnt, shown])] = held
        if (splits == VALIDATION).any():
            # Galaxies of the validation split calibrate a model that has not learnt from them.
            first = learnt[splits[learnt] != VALIDATION]
            early = strength.model.fit(space.rows(first), labels.values[first], kind=own.kind, distance=space.distance)
            only = np.flatnonzero(splits == VALIDATION)
            out_of_fold[:] = np.nan
            for rows in (only, shown):
                out_of_fold[rows] = early.scores(space.rows(rows))
        notes += [f"Learnt without {part}." for part in space.left_out]
        if galaxies is None and store.has_survey:
            try:
                galaxies = store.galaxies()
            except RarezooError as problem:
                log.info("the page has no pictures: %s", problem)
        published = publish(
            scores_of(model, space, columns=len(labels.names)),
            labels,
            splits,
            out_of_fold=out_of_fold,
            coverage=self.coverage,
            sampling=self.sampling,
            galaxies=galaxies,
            notes=notes,
            seed=self.seed,
            about={
                "made_by": "rarezoo probe",
                "network": store.manifest.checkpoint,
                "features": ", ".join(space.names),
                "model": str(strength.model),
                "measure": strength.measure,
                "cross_validated": round(strength.value, 4),
                "labels": labels.summary(),
            },
        )
        return Probe(labels, splits, strength, tuple(strengths), published, space.names)

    def _splits(self, given: OwnLabels, labels: OwnLabels) -> tuple[np.ndarray, list[str]]:
        """Return the splits among all given labels, without a test split if it would hold too few of a class."""
        splits = splits_of(given, labels, validation=self.validation, test=self.test, seed=self.seed)
        if not self.test:
            return splits, []
        tested, strata, inside = [int((splits == TEST).sum())], labels.strata, splits == TEST
        if labels.kind in (BINARY, CLASSES):
            tested = [int((inside & (strata == group)).sum()) for group in np.unique(strata[strata >= 0])]
        elif labels.kind == TAGS:
            tested = [int((inside & (column == has)).sum()) for column in labels.values.T for has in (0, 1)]
        if min(tested) >= _FEWEST_TESTED:
            return splits, []
        rarest = " of the rarest class"
        of_what = {BINARY: rarest, CLASSES: rarest, TAGS: " with, or without, one of the tags"}.get(labels.kind, "")
        enough = f"{int(np.ceil(_FEWEST_TESTED / self.test))}{' of each' if of_what else ''}"
        note = (
            f"A test split would hold only {min(tested)} galaxies{of_what}, so there is none: all labels are learnt "
            f"from. With about {enough} there is one."
        )
        return splits_of(given, labels, validation=self.validation, test=0, seed=self.seed), [note]


def splits_of(given: OwnLabels, labels: OwnLabels, *, validation: float, test: float, seed: int) -> np.ndarray:
    """Return the splits of matched and usable labels, which are those among all given ones, as in finetuning.

    Parameters
    ----------
    given, labels : OwnLabels
        Labels as they were read, and those of the n galaxies of a store that can be used.
    validation, test, seed
        See :meth:`~rarezoo.data.own_labels.OwnLabels.splits`.

    Returns
    -------
    numpy.ndarray
        (n,) object array; empty text for a galaxy without a usable label.
    """
    splits = given.splits_for(labels.ids, validation=validation, test=test, seed=seed)
    return np.where(labels.known, splits, "").astype(object)


def scores_of(model: Fitted, space: Space, *, columns: int) -> Float64[np.ndarray, "n c"]:
    """Return the scores of all galaxies, computed shard by shard."""
    scores = np.empty((len(space.store.ids), columns))
    for rows, matrix in space.blocks("predicting"):
        scores[rows] = model.scores(matrix)
    return scores


def _part(labels: OwnLabels, rows: np.ndarray) -> OwnLabels:
    return replace(labels, ids=labels.ids[rows], values=labels.values[rows])


def probe(
    store: EmbeddingStore | Path | str,
    labels: Any,
    *,
    label: str | Sequence[str] = "",
    kind: str = ANY_KIND,
    id_column: str = "",
    galaxies: Galaxies | None = None,
    out: Path | str = "",
    **settings: Any,
) -> Probe:
    """Learn a label of one's own from the embedding of a store, and predict it for every galaxy.

    Below about 200 labels this is the recommended way. It needs neither images nor torch: a linear model and a
    Gaussian process are compared by cross-validation. Photometry and structure stand beside the embedding if the
    survey of the store has images.

    Parameters
    ----------
    store : EmbeddingStore, Path or str
    labels : mapping, table, Path, str or OwnLabels
        Labels of some galaxies, see :meth:`~rarezoo.data.own_labels.OwnLabels.read`, or the ratings of the rating page
        (its database, or the folder of a search).
    label : str or sequence of str
        Column of the label, or several; for ratings what was judged.
    kind : str
        ``binary``, ``classes``, ``tags``, ``number`` or ``counts``; by default what the values say.
    id_column : str
        Column of ids; by default ``id_str`` or ``id``.
    galaxies : Galaxies, optional
        The survey, if it is open already.
    out : Path or str
        Folder for the table and the page; empty: nothing is written.
    settings
        Settings of :class:`ProbeSettings`, such as ``learner="linear"`` or ``beside=[]``.

    Returns
    -------
    Probe

    Raises
    ------
    DataError
        The labels cannot be read, none is of a galaxy of the store, or nothing can be learnt from them.
    StoreError
        There is no complete store.
    ConfigError
        There is no such setting, or it has no such value.

    Examples
    --------
    >>> import rarezoo as rz
    >>> found = rz.probe("runs/mine/store", "rings.csv", label="ring")  # doctest: +SKIP
    >>> found.predict().sort_values("probability")  # doctest: +SKIP
    """
    refuse_unknown(settings, [field.name for field in fields(ProbeSettings)], of="a probe")
    opened = store if isinstance(store, EmbeddingStore) else EmbeddingStore.open(store)
    given = own_labels(labels, opened, label=label, kind=kind, id_column=id_column)
    found = ProbeSettings(**settings).probe(opened, given, galaxies=galaxies)
    if out:
        found.write(out)
    return found


@dataclass(kw_only=True)
class ProbeRun(ProbeSettings):
    """Learn a label of your own from an embedding store in seconds, and predict it for every galaxy.

    Examples
    --------
    >>> ProbeRun(store="runs/mine/store", labels="rings.csv", label="ring").learner
    'auto'
    """

    prefix: ClassVar[str] = ""

    store: str = setting(help="folder of an embedding store", positional=True)
    labels: str = setting(
        help="table with ids and labels, a folder with one sub-folder of images per class, or the folder or database "
        "of the rating page"
    )
    label: str = setting("", "column of the label, or several with commas; for ratings what was judged")
    kind: str = setting(ANY_KIND, "what the labels are; auto: by their values", choices=(ANY_KIND, *KINDS))
    id_column: str = setting("", "column of ids of the labels; empty: id_str or id")
    formats: list[str] = setting(
        ["parquet", "fits"], "formats of the table beside Parquet: csv, fits, votable", choices=FORMATS
    )
    page: bool = setting(True, "write a page beside the table")
    out: str = setting("runs/probe", "output folder")

    def run(self) -> Probe:
        """Learn, predict and write; return the probe.

        Raises
        ------
        DataError, StoreError, ConfigError
            See :func:`probe`.
        OutputError
            The folder cannot be written, or holds another run.
        """
        store = EmbeddingStore.open(self.store)
        labels = own_labels(self.labels, store, label=self.label, kind=self.kind, id_column=self.id_column)
        settings = {key: value for key, value in asdict(self).items() if key not in ("out", "store", "labels", "page")}
        folder = claim(
            self.out,
            verb="probe",
            settings=settings,
            inputs=lambda: {"store": store.identity, "labels": fingerprint(labels.values, ids=labels.ids)},
            begun=lambda place: (place / "evaluation.json").exists(),
            writes=FILES,
        )
        found = replace(self.probe(store, labels), folder=folder if self.page else None)
        found.write(folder, formats=self.formats, page=self.page)
        return found
