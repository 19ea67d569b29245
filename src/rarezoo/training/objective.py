"""What every training objective shares.

An objective decides what a network learns: which targets the galaxies have, what is minimised, what decides about early
stopping, and what is measured at the end. :class:`~rarezoo.training.fit.TrainRun` does not know any of this.

Shape letters: b galaxies in a batch, v views of each galaxy, a answers (columns of the targets).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.survey import Galaxies
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import DataError
from rarezoo.settings import Settings, name_of
from rarezoo.zoo.network import BottleneckNetwork, Prediction

# Names under which the total loss is returned and logged.
LOSS = "loss"


@dataclass(kw_only=True)
class Objective(Settings, ABC):
    """What a network learns; each subclass is one choice of ``objective=``.

    A new objective is one file with a subclass that is registered with ``@option("objective", NAME)``. It must define
    :meth:`losses` and :meth:`validation`; the other methods have defaults that suit targets which are votes.

    The head of the network predicts one positive number (a Dirichlet concentration) for every answer of a question
    tree. The share of an answer in the sum over its question is its predicted fraction.

    Attributes
    ----------
    views
        Number of random views of each galaxy in a training step.
    shapes_trunk
        Whether something besides the head's predictions is minimised, which needs a trunk that is trained.
    adopts_start
        Whether a checkpoint that ``model.start`` names also decides the settings of the architecture.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(kw_only=True)
    ... class Squares(Objective):
    ...     def losses(self, prediction, targets, *, tree, network, modules):
    ...         return {"loss": (prediction.concentrations - targets).square().mean()}
    ...
    ...     def validation(self, prediction, targets, *, tree):
    ...         return {"loss": ((prediction.concentrations - targets).square().mean(), len(targets))}
    >>> Squares().views
    1
    """

    views: ClassVar[int] = 1
    shapes_trunk: ClassVar[bool] = False
    adopts_start: ClassVar[bool] = False

    @property
    def view_jitter(self) -> float:
        """Strength of random brightness, colour and noise of the training views, 0 (none) to 1."""
        return 0.0

    def select(self, galaxies: Galaxies) -> Galaxies:
        """Return the galaxies that are used, with their splits: by default all, with the splits of the survey."""
        return galaxies

    def warn(self, galaxies: Galaxies) -> None:
        """Say in the log what may go wrong with the galaxies that :meth:`prepare` returned; nothing by default."""

    def sampling_weights(self, galaxies: Galaxies, rows: Int64[np.ndarray, " n"]) -> Float[np.ndarray, " n"] | None:
        """Return the share of the training in which each of some rows is shown; None: all are shown once an epoch."""
        return None

    def prepare(self, galaxies: Galaxies) -> Galaxies:
        """Return the survey's galaxies with the targets as ``votes`` and the answers that they belong to as ``tree``.

        By default the targets are the survey's votes. An objective with other targets, such as labels, replaces both.

        Raises
        ------
        DataError
            The survey has no votes.
        """
        if galaxies.tree is None or galaxies.votes is None:
            raise DataError(
                "the survey has no votes to train on", value="data.votes is empty",
                fix="Name the question tree of its vote columns, e.g. data.votes=desi.",
            )  # fmt: skip
        return galaxies

    def rows(self, galaxies: Galaxies, split: str) -> Int64[np.ndarray, " rows"]:
        """Return the rows of a split that can be used: by default those with any target above zero."""
        return np.intersect1d(galaxies.rows(split), np.flatnonzero(targets_of(galaxies).sum(axis=1) > 0))

    def modules(self, *, width: int, processes: int) -> nn.ModuleDict:
        """Return modules that are trained beside the network and are not kept; none by default.

        Parameters
        ----------
        width
            Number of dimensions of the embedding.
        processes
            Number of processes that train together.
        """
        return nn.ModuleDict()

    @abstractmethod
    def losses(
        self,
        prediction: Prediction,
        targets: Float[Tensor, "b a"],
        *,
        tree: QuestionTree,
        network: BottleneckNetwork,
        modules: nn.ModuleDict,
    ) -> Mapping[str, Tensor]:
        """Return the losses of one batch by name; the one named ``loss`` is minimised, the others are only logged.

        Parameters
        ----------
        prediction
            Prediction for the views, one view of all galaxies after the other: v · b rows.
        targets
            Targets of the b galaxies.
        tree
            Question tree that names the columns of the targets.
        network
            The network that is trained.
        modules
            What :meth:`modules` returned.
        """

    @abstractmethod
    def validation(
        self, prediction: Prediction, targets: Float[Tensor, "b a"], *, tree: QuestionTree
    ) -> Mapping[str, tuple[Tensor, int]]:
        """Return what is watched on the validation split, by name: the mean over a batch, and its number of galaxies.

        The value named ``loss`` decides which epoch is the best and when training stops.
        """

    def measure(
        self,
        network: BottleneckNetwork,
        galaxies: Galaxies,
        *,
        rows: Mapping[str, Int64[np.ndarray, " rows"]],
        test: CutoutLoader,
        cache: Path,
    ) -> dict[str, Any]:
        """Measure the trained network on the test split and return entries of the card; none by default.

        Parameters
        ----------
        network
            The network that is kept, on the CPU.
        galaxies
            What :meth:`prepare` returned.
        rows
            Rows of each split.
        test
            Batches of the test split.
        cache
            Folder for intermediate results. It is deleted with the training's other scratch files.
        """
        return {}

    def places(self) -> list[str]:
        """Return the dotted names of settings that only say where an input lies; its content is what counts."""
        return []

    def card_entries(self) -> dict[str, Any]:
        """Return the objective and its settings as flat entries of the card."""
        settings = {f"objective.{name}": value for name, value in vars(self).items()}
        return {"objective": name_of(type(self)), **settings}


def targets_of(galaxies: Galaxies) -> Float[np.ndarray, "galaxies a"]:
    """Return the targets of galaxies that an objective has prepared."""
    if galaxies.votes is None:
        raise TypeError("Objective.prepare returned galaxies without votes")
    return galaxies.votes


def watched_losses(
    losses: Float[Tensor, "b q"], targets: Float[Tensor, "b a"], tree: QuestionTree
) -> dict[str, tuple[Tensor, int]]:
    """Return what :meth:`Objective.validation` returns, from the losses of questions, 0 where there is no target.

    They are the mean loss of a galaxy, and that of each question over the galaxies that have its target.
    """
    watched = {LOSS: (losses.sum(dim=1).mean(), len(targets))}
    for place, (question, part) in enumerate(zip(tree.questions, tree.slices, strict=True)):
        known = int((targets[:, part].sum(dim=1) > 0).sum())
        if known:
            watched[f"{LOSS}/{question.name}"] = (losses[:, place].sum() / known, known)
    return watched
