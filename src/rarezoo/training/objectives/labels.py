"""Learn labels of one's own: 0/1, classes, tags, a number, or counts of votes (finetuning, Walmsley et al. 2022)."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from rarezoo import tables
from rarezoo.data.label_answers import both_sides, kind_of_tree, label_shares, label_tree
from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.own_labels import AUTO, CLASSES, COUNTS, KINDS, NUMBER, OwnLabels
from rarezoo.data.splits import TEST, TRAIN, VALIDATION
from rarezoo.data.survey import Galaxies
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import option, setting
from rarezoo.training import metrics
from rarezoo.training.label_metrics import label_rows
from rarezoo.training.loss import question_losses
from rarezoo.training.objective import LOSS, Objective, watched_losses
from rarezoo.zoo.network import BottleneckNetwork, Prediction

log = logging.getLogger(__name__)
# With fewer galaxies on either side, the loss of the validation split says little: see docs/how-to/finetune.md.
_ENOUGH = 10


@option("objective", "labels")
@dataclass(kw_only=True)
class Labels(Objective):
    """Minimise the loss of labels of one's own; only the galaxies that have a label are used.

    =============================  ===========================================================================
    kind of labels                 loss of a galaxy
    =============================  ===========================================================================
    ``binary``, ``classes``        cross-entropy
    ``tags``                       sum of the cross-entropies of the tags that are known
    ``number``                     squared error, or Huber's, in standard deviations of the training split
    ``counts``                     Dirichlet-multinomial, as for votes
    =============================  ===========================================================================

    The splits are those of :meth:`rarezoo.data.own_labels.OwnLabels.splits_for`, so that a probe and a finetuned
    network are measured on the same galaxies. Nothing looks at the test split before training has ended.

    Examples
    --------
    >>> Labels(labels="rings.csv", label="ring").balance
    'weights'
    """

    adopts_start: ClassVar[bool] = True

    labels: str = setting(
        "",
        "table of ids and labels, folder with one sub-folder of images per class, or folder or database of the rating "
        "page; empty: the survey's own table",
    )
    label: str = setting("", "column of the label, or several with commas between them (tags, counts)")
    kind: str = setting(AUTO, "what the labels are; auto = decided by their values", choices=(AUTO, *KINDS))
    id_column: str = setting("", "column of ids in the table of labels; empty = id_str or id")
    validation_share: float = setting(
        0.15, "share of the labelled galaxies that are held out for early stopping", ge=0, lt=1
    )
    test_share: float = setting(
        0.2, "share of the labelled galaxies that are held out for the numbers on the card", ge=0, lt=1
    )
    split_seed: int = setting(0, "another seed gives other splits", ge=0)
    balance: str = setting(
        "weights",
        "weights = rare classes count as much as common ones in the loss; sampling = their galaxies are shown as often",
        choices=("weights", "sampling", "none"),
    )
    smoothing: float = setting(0.0, "share of a label that is spread over all answers of its question", ge=0, lt=1)
    number_loss: str = setting("squared", "loss of a number; huber forgives outliers", choices=("squared", "huber"))

    @classmethod
    def of(cls, labels: OwnLabels, **settings: Any) -> "Labels":
        """Return the objective for labels that are in memory."""
        objective = cls(**settings)
        objective._given = labels
        return objective

    def check(self) -> None:
        """Raise ConfigError if the splits leave nothing to train on."""
        self._given: OwnLabels | None = None
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                "the shares of validation and test must leave some galaxies to train on",
                value=(self.validation_share, self.test_share),
                fix="For example objective.validation_share=0.15 objective.test_share=0.2.",
            )  # fmt: skip

    def select(self, galaxies: Galaxies) -> Galaxies:
        """Return the galaxies with a label, with the splits of the labels.

        Raises
        ------
        DataError
            There is no usable label, or no label belongs to a galaxy of the survey.
        """
        if self._given is None and not self.labels and not self.label:
            raise ConfigError(
                "no labels to learn", value="objective.labels=",
                fix="Name a table (objective.labels=FILE objective.label=COLUMN), or a column of the survey's table "
                "(objective.label=COLUMN).",
            )  # fmt: skip
        source: Any = self._given if self._given is not None else self.labels
        if self._given is None and not self.labels:
            source = galaxies.catalogue
        read = OwnLabels.read(source, label=self.label, kind=self.kind, id_column=self.id_column)
        labels = read.for_ids(galaxies.ids, of="the survey").usable()
        rows = np.flatnonzero(labels.known)
        self._given = _of_rows(labels, rows)
        log.info(self._given.summary())
        # Those of all labels, whether their galaxies are in this survey or not, as in rarezoo predict.
        splits = read.splits_for(
            galaxies.ids[rows], validation=self.validation_share, test=self.test_share, seed=self.split_seed
        )
        return galaxies.take(rows).with_splits(splits)

    def prepare(self, galaxies: Galaxies) -> Galaxies:
        """Return the galaxies with the shares of the answers as targets, which are larger for rare classes.

        Raises
        ------
        DataError
            The training split has one class only.
        """
        if self._given is None:
            raise DataError("no labels to learn", value="objective.labels=", fix="Name a table: objective.labels=FILE.")
        labels = _of_galaxies(self._given, galaxies.ids)
        splits = tables.strings(galaxies.catalogue, tables.SPLIT)
        part = {split: _of_rows(labels, splits == split) for split in (TRAIN, VALIDATION, TEST)}
        lacking = [name for name, both in zip(labels.names, both_sides(part[TRAIN]), strict=False) if not both]
        if lacking:
            raise DataError(
                f"{labels.source}: the training split has one class only", value=", ".join(lacking[:5]),
                fix="Label more galaxies, those that are not of the kind too, or lower "
                "objective.validation_share and objective.test_share.",
            )  # fmt: skip
        if not len(part[VALIDATION]):
            raise DataError(
                f"{labels.source}: no galaxy for early stopping", value=f"{len(labels)} galaxies with labels",
                fix="Label more galaxies, or raise objective.validation_share.",
            )  # fmt: skip
        tree = label_tree(part[TRAIN], name=self.label if labels.kind in (CLASSES, COUNTS) and self.label else "label")
        shares = label_shares(labels, tree)
        training = splits == TRAIN
        if labels.kind == NUMBER:
            low, high = (float(answer.rpartition("_")[2]) for answer in tree.answers)
            spread = float(np.nanstd(labels.values[training]))
            shares *= np.float32(((high - low) / spread) ** 2)
        elif self.balance != "none" and labels.kind != COUNTS:
            # Sampling balances the galaxies that are shown; the others are balanced by weights, for early stopping.
            weighted = slice(None) if self.balance == "weights" else ~training
            shares[weighted] *= _class_weights(shares[training], tree)
        return replace(galaxies, tree=tree, votes=shares)

    def warn(self, galaxies: Galaxies) -> None:
        """Say in the log if a split is too small for what it is there for."""
        assert self._given is not None
        splits = tables.strings(galaxies.catalogue, tables.SPLIT)
        labels = _of_galaxies(self._given, galaxies.ids)
        for split in (VALIDATION, TEST):
            part = _of_rows(labels, splits == split)
            numbers = _fewest(part)
            if split == TEST and self.test_share and not both_sides(part).all():
                log.warning(
                    "the test split has no galaxy, or only galaxies, with %s, so that the card has no numbers for it; "
                    "label more galaxies, or raise objective.test_share (now %g)",
                    ", ".join(name for name, both in zip(labels.names, both_sides(part), strict=False) if not both),
                    self.test_share,
                )  # fmt: skip
            elif split == VALIDATION and min(numbers.values()) < _ENOUGH:
                shown = ", ".join(f"{number} {name}" for name, number in list(numbers.items())[:6])
                log.warning(
                    "the validation split (%s) is too small to tell which epoch is the best: an accuracy measured on "
                    "%d galaxies is uncertain by %.2f. Label more galaxies, raise objective.validation_share (now %g), "
                    "or use rarezoo probe, which needs no such split",
                    shown, len(part), 0.5 / np.sqrt(max(len(part), 1)), self.validation_share,
                )  # fmt: skip

    def sampling_weights(self, galaxies: Galaxies, rows: Int64[np.ndarray, " n"]) -> Float[np.ndarray, " n"] | None:
        """Return how often each row is shown, as a share, if classes are balanced by sampling; None: once each."""
        if self.balance != "sampling" or galaxies.tree is None or galaxies.votes is None:
            return None
        if kind_of_tree(galaxies.tree) in (NUMBER, COUNTS):
            return None
        shares = galaxies.votes[rows]
        weights = (shares * _class_weights(shares, galaxies.tree)).max(axis=1).astype(np.float64)
        return np.asarray(weights / weights.sum())

    def losses(
        self,
        prediction: Prediction,
        targets: Float[Tensor, "b a"],
        *,
        tree: QuestionTree,
        network: BottleneckNetwork,
        modules: nn.ModuleDict,
    ) -> Mapping[str, Tensor]:
        """Return the mean loss of a galaxy."""
        return {LOSS: self._losses(prediction.concentrations, targets, tree, self.smoothing).sum(dim=1).mean()}

    def validation(
        self, prediction: Prediction, targets: Float[Tensor, "b a"], *, tree: QuestionTree
    ) -> Mapping[str, tuple[Tensor, int]]:
        """Return the loss, and that of each tag over the galaxies of which it is known."""
        return watched_losses(self._losses(prediction.concentrations, targets, tree, 0.0), targets, tree)

    def _losses(
        self, concentrations: Float[Tensor, "b a"], targets: Float[Tensor, "b a"], tree: QuestionTree, smoothing: float
    ) -> Float[Tensor, "b q"]:
        """Return the loss of each question for each galaxy, 0 where its label is unknown."""
        kind = kind_of_tree(tree)
        if kind == COUNTS:
            return question_losses(concentrations, targets, tree)
        losses = []
        for part in tree.slices:
            alpha, target = concentrations[:, part].float(), targets[:, part].float()
            weight = target.sum(dim=1)
            fractions = alpha / alpha.sum(dim=1, keepdim=True)
            if kind == NUMBER:
                # The weight of a number is the square of its range in standard deviations.
                wanted = target[:, 1] / weight.clamp(min=1e-6)
                error = (fractions[:, 1] - wanted) * weight.sqrt()
                huber = nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")
                losses.append(error.square() if self.number_loss == "squared" else 2 * huber)
                continue
            smooth = (1 - smoothing) * target + smoothing * weight[:, None] / target.shape[1]
            losses.append(-(smooth * fractions.log()).sum(dim=1))
        return torch.stack(losses, dim=1)

    def measure(
        self,
        network: BottleneckNetwork,
        galaxies: Galaxies,
        *,
        rows: Mapping[str, Int64[np.ndarray, " rows"]],
        test: CutoutLoader,
        cache: Path,
    ) -> dict[str, Any]:
        """Measure the predictions for the labels of the test split, with intervals over its galaxies."""
        assert self._given is not None
        assert galaxies.tree is not None
        predicted = metrics.predictions(network, test) if len(rows[TEST]) else None
        about = {"kind": self._given.kind, "names": list(self._given.names), "source": Path(self._given.source).name}
        if predicted is None or not len(predicted.rows):
            return {"labels": about, "label_metrics": []}
        labels = _of_galaxies(self._given, galaxies.ids[predicted.rows])
        return {"labels": about, "label_metrics": label_rows(labels, galaxies.tree, predicted.concentrations)}

    def places(self) -> list[str]:
        """Return the setting that says where the labels lie."""
        return ["objective.labels"]

    def card_entries(self) -> dict[str, Any]:
        """Return the objective and its settings as flat entries of the card; a path becomes a name."""
        settings = {**asdict(self), "labels": Path(self.labels).name}
        return {"objective": "labels", **{f"objective.{name}": value for name, value in settings.items()}}


def _of_galaxies(labels: OwnLabels, ids: np.ndarray) -> OwnLabels:
    """Return the labels of galaxies, all of which have one, in their order."""
    place = {galaxy: row for row, galaxy in enumerate(labels.ids)}
    return _of_rows(labels, np.array([place[galaxy] for galaxy in ids], dtype=np.int64))


def _of_rows(labels: OwnLabels, rows: np.ndarray) -> OwnLabels:
    return replace(labels, ids=labels.ids[rows], values=labels.values[rows], unmatched=())


def _class_weights(shares: Float32[np.ndarray, "n a"], tree: QuestionTree) -> Float32[np.ndarray, " a"]:
    """Return weights of the answers with which those of a question count equally; their mean over galaxies is one."""
    weights = np.ones(shares.shape[1], dtype=np.float32)
    for part in tree.slices:
        number = shares[:, part].sum(axis=0)
        weights[part] = number.sum() / (np.maximum(number, 1) * np.count_nonzero(number))
    return weights


def _fewest(labels: OwnLabels) -> dict[str, int]:
    """Return the number of galaxies on each side of each label."""
    if labels.kind in (NUMBER, COUNTS):
        return {"galaxies": int(labels.known.sum())}
    members = {name: int((labels.values[:, column] == 1).sum()) for column, name in enumerate(labels.names)}
    if labels.kind == CLASSES:
        return members
    others = {f"not {name}": int((labels.values[:, column] == 0).sum()) for column, name in enumerate(labels.names)}
    return members | others
