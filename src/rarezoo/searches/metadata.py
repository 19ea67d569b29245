"""What may explain a class besides its images: the predicted answers and the survey's catalogue.

Shape letters: n galaxies searched, a answers, D width of the embeddings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float64, Int32

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.data.trees import QuestionTree, named_tree, tree_names
from rarezoo.searches.beyond import VOLUNTEERS, beyond_columns, beyond_labels
from rarezoo.searches.systematics import Cause, Systematics


@dataclass(frozen=True)
class Metadata:
    """Information of a survey about its galaxies besides their images.

    Attributes
    ----------
    systematics : Systematics
        Settings of the tests.
    columns : tuple of str
        Columns of the catalogue that may explain a class.
    catalogue : pyarrow.Table or None
        CATALOGUE table; None without a survey.
    tree : QuestionTree or None
        Question tree of its votes, if it has any.
    """

    systematics: Systematics
    columns: tuple[str, ...] = ()
    catalogue: pa.Table | None = None
    tree: QuestionTree | None = None

    @classmethod
    def of(cls, galaxies: Galaxies | None, *, systematics: Systematics) -> "Metadata":
        """Read the metadata of a survey and check the settings against it.

        Raises
        ------
        ConfigError
            A column is named that is not there or cannot be tested.
        """
        if galaxies is None:
            return cls(systematics, tuple(systematics.tested(None)))
        # Columns of votes in this and every published tree, because a catalogue may hold several campaigns.
        trees = [named_tree(name) for name in tree_names()] + ([galaxies.tree] if galaxies.tree else [])
        votes = {f"{question.name}_total" for tree in trees for question in tree.questions}
        votes |= {answer for tree in trees for answer in tree.answers}
        columns = systematics.tested(galaxies.catalogue, votes=sorted(votes))
        return cls(systematics, tuple(columns), galaxies.catalogue, galaxies.tree)

    def causes(self, sample: pa.Table, *, labels: Int32[np.ndarray, " n"], classes: int) -> list[Cause]:
        """Test whether something other than the galaxies made each class.

        Parameters
        ----------
        sample : pyarrow.Table
            Ids and predicted fractions of the n galaxies searched.
        labels : (n,) array of integers
            Class of each, −1 for none.
        classes : int
            Number of classes.
        """
        rows = None
        if self.catalogue is not None:
            rows = tables.rows_of(sample.column(tables.ID), self.catalogue, source="the survey")
        return self.systematics.causes(
            labels, classes=classes, catalogue=self.catalogue, rows=rows, columns=self.columns, predictions=sample
        )

    def beyond(
        self,
        sample: pa.Table,
        embeddings: Float[np.ndarray, "n D"],
        *,
        labels: Int32[np.ndarray, " n"],
        classes: int,
        seed: int,
    ) -> Mapping[str, Sequence[object]]:
        """Measure what is left of each class beyond the predicted answers, as columns of the classes table.

        Parameters
        ----------
        sample, labels, classes
            See :meth:`causes`.
        embeddings : (n, D) array of floats
            Embeddings of the galaxies.
        seed : int
            Seed of every random draw.
        """
        names = [name for name in sample.column_names if tables.is_fraction_column(name)]
        values = [sample.column(name).cast(pa.float64()).to_numpy() for name in names]
        fractions = np.column_stack(values) if names else np.empty((sample.num_rows, 0))
        volunteers = self._volunteers([str(tables.answer_of(name)) for name in names], fractions)
        return beyond_columns(
            beyond_labels(
                embeddings, labels=labels, classes=classes, fractions=fractions, volunteers=volunteers, seed=seed
            )
        )

    def _volunteers(self, answers: Sequence[str], fractions: Float64[np.ndarray, "n a"]) -> Float64[np.ndarray, "n a"]:
        """Votes behind each predicted fraction: fewer further down the tree, where fewer volunteers are asked."""
        votes = np.full(fractions.shape, float(VOLUNTEERS))
        questions = self.tree.questions if self.tree else ()
        unpredicted = [question.name for question in questions if not set(question.answers) <= set(answers)]
        if self.tree is None or len(unpredicted) == len(questions):
            return votes
        tree = self.tree.without(unpredicted)
        if tuple(answers) != tree.answers:
            return votes
        asked = tree.totals(tree.joint_fractions(np.nan_to_num(fractions)))
        return votes * np.repeat(asked, [len(question.answers) for question in tree.questions], axis=1)
