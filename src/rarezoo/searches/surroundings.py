"""What the classes are held against: the predicted answers and the survey's catalogue.

Shape letters: n galaxies searched, a answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int32

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.data.trees import QuestionTree, named_tree, tree_names
from rarezoo.searches.beyond import VOLUNTEERS, beyond_columns, beyond_labels
from rarezoo.searches.systematics import Cause, Systematics


@dataclass(frozen=True)
class Surroundings:
    """What a survey says of its galaxies besides their images.

    Attributes:
        systematics: what is looked for.
        columns: of the catalogue that may explain a class.
        catalogue: CATALOGUE table; None if the survey is not at hand.
        tree: of its votes, if it has any.
    """

    systematics: Systematics
    columns: tuple[str, ...] = ()
    catalogue: pa.Table | None = None
    tree: QuestionTree | None = None

    @classmethod
    def of(cls, galaxies: Galaxies | None, *, systematics: Systematics) -> "Surroundings":
        """A survey's, with mistakes in the settings told at once.

        Raises:
            ConfigError: see :meth:`Systematics.tested`.
        """
        if galaxies is None:
            return cls(systematics, tuple(systematics.tested(None)))
        columns = systematics.tested(galaxies.catalogue, votes=_vote_columns(galaxies.tree))
        return cls(systematics, tuple(columns), galaxies.catalogue, galaxies.tree)

    def causes(self, sample: pa.Table, *, labels: Int32[np.ndarray, " n"], classes: int) -> list[Cause]:
        """Whether the telescope made each class, and every test of it.

        Args:
            sample: EMBEDDINGS table of the n galaxies searched.
            labels: class of each, −1 for none.
            classes: how many there are.
        """
        rows = None
        if self.catalogue is not None:
            rows = pc.index_in(sample[tables.ID], value_set=self.catalogue[tables.ID].combine_chunks()).to_numpy()
        return self.systematics.causes(
            labels, classes=classes, catalogue=self.catalogue, rows=rows, columns=self.columns, predictions=sample
        )

    def beyond(
        self, sample: pa.Table, *, labels: Int32[np.ndarray, " n"], classes: int, seed: int
    ) -> Mapping[str, Sequence[object]]:
        """Columns of CLASSES: what is left of each class beyond the predicted answers.

        Args:
            sample, labels, classes: see :meth:`causes`.
            seed: of every random draw.
        """
        names = [name for name in sample.column_names if tables.is_fraction_column(name)]
        values = [sample.column(name).cast(pa.float64()).to_numpy() for name in names]
        fractions = np.column_stack(values) if names else np.empty((sample.num_rows, 0))
        volunteers = self._volunteers([str(tables.answer_of(name)) for name in names], fractions)
        embeddings = tables.matrix(sample, tables.EMBEDDING)
        found = beyond_labels(
            embeddings, labels=labels, classes=classes, fractions=fractions, volunteers=volunteers, seed=seed
        )
        return beyond_columns(found)

    def _volunteers(self, answers: Sequence[str], fractions: Float64[np.ndarray, "n a"]) -> Float64[np.ndarray, "n a"]:
        """Votes that each predicted fraction stands for: fewer down the tree, where fewer are asked."""
        votes = np.full(fractions.shape, float(VOLUNTEERS))
        questions = self.tree.questions if self.tree else ()
        unpredicted = [one.name for one in questions if not set(one.answers) <= set(answers)]
        if self.tree is None or len(unpredicted) == len(questions):
            return votes
        tree = self.tree.without(unpredicted)
        if tuple(answers) != tree.answers:
            return votes
        asked = tree.totals(tree.joint_fractions(np.nan_to_num(fractions)))
        return votes * np.repeat(asked, [len(one.answers) for one in tree.questions], axis=1)


def _vote_columns(tree: QuestionTree | None) -> list[str]:
    """What columns of votes begin with, in this and every published tree: a catalogue may hold several campaigns."""
    trees = [named_tree(name) for name in tree_names()] + ([tree] if tree else [])
    totals = {f"{question.name}_total" for one in trees for question in one.questions}
    return sorted(totals | {answer for one in trees for answer in one.answers})
