"""The contents of the pages and the atlas: the galaxies searched, and each class with its answers and relatives."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Float64, Int32, Int64, Shaped

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.report.gallery import Gallery
from rarezoo.searches import recovery


@dataclass(frozen=True)
class Sample:
    """The n galaxies that were searched. Row i of every array is the same galaxy.

    Attributes
    ----------
    ids
        (n,) id strings.
    labels
        (n,) class of each galaxy, -1 for no class.
    probabilities
        (n,) strength of membership, 0-1.
    outlier_scores
        (n,) GLOSH outlier score, 0-1.
    positions
        (n, 2) position on the map that is drawn.
    answers
        (a,) names of the predicted answers.
    fractions
        (n, a) predicted vote fractions, NaN where unknown.

    Examples
    --------
    >>> ids = ["a", "b", "c"]
    >>> members = pa.table({
    ...     "id_str": ids, "class_id": pa.array([0, 0, -1], pa.int32()),
    ...     "probability": np.array([1, 0.5, 0], "f4"), "outlier_score": np.zeros(3, "f4"),
    ... })
    >>> map_2d = pa.table({"id_str": ids, "position": tables.vectors(np.zeros((3, 2), "f4"))})
    >>> sample = Sample.joined(members, map_2d=map_2d, predictions=pa.table({"id_str": ids}))
    >>> sample.members(0).tolist(), sample.outskirts(0, most=1).tolist()
    ([0, 1], [1])
    """

    ids: Shaped[np.ndarray, " galaxies"]
    labels: Int32[np.ndarray, " galaxies"]
    probabilities: Float32[np.ndarray, " galaxies"]
    outlier_scores: Float32[np.ndarray, " galaxies"]
    positions: Float32[np.ndarray, "galaxies 2"]
    answers: tuple[str, ...]
    fractions: Float32[np.ndarray, "galaxies answers"]

    @classmethod
    def joined(cls, members: pa.Table, *, map_2d: pa.Table, predictions: pa.Table) -> "Sample":
        """Join the MEMBERS and MAP tables and the predicted fractions of the same galaxies, in the members' order.

        Raises
        ------
        StoreError
            A galaxy is missing from the map or from the predictions, or the map is not two-dimensional.
        """
        ids = members.column(tables.ID)
        positions = tables.matrix(tables.aligned(map_2d, ids, source="the map"), tables.POSITION)
        if positions.shape[1] != 2:
            raise StoreError(
                "only a map of two dimensions can be drawn", value=positions.shape[1], fix="Set drawing.n_components=2."
            )
        predicted = tables.aligned(predictions, ids, source="the predictions")
        columns = [name for name in predicted.column_names if tables.is_fraction_column(name)]
        fractions = [predicted.column(name).to_numpy().astype(np.float32) for name in columns]
        return cls(
            ids=tables.strings(members, tables.ID),
            labels=members.column(tables.CLASS_ID).to_numpy(),
            probabilities=members.column(tables.PROBABILITY).to_numpy(),
            outlier_scores=members.column(tables.OUTLIER_SCORE).to_numpy(),
            positions=positions.astype(np.float32),
            answers=tuple(str(tables.answer_of(name)) for name in columns),
            fractions=np.stack(fractions, axis=1) if columns else np.empty((len(ids), 0), np.float32),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def members(self, class_id: int) -> Int64[np.ndarray, " members"]:
        """Return the rows of a class, sorted by id, so that a random draw does not depend on the table's order."""
        return self._sorted_by_id(np.flatnonzero(self.labels == class_id))

    def outskirts(self, class_id: int, *, most: int) -> Int64[np.ndarray, " members"]:
        """Return the rows of the least probable members of a class, the least probable first."""
        rows = self.members(class_id)
        return rows[np.argsort(self.probabilities[rows], kind="stable")[:most]]

    def drawn(
        self, class_id: int | None, *, most: int, seed: int, among: Int64[np.ndarray, " rows"] | None = None
    ) -> Int64[np.ndarray, " galaxies"]:
        """Draw rows at random from a class, or if ``class_id`` is None from all galaxies or the rows ``among``."""
        every = np.arange(len(self)) if among is None else among
        rows = self._sorted_by_id(every) if class_id is None else self.members(class_id)
        random = np.random.default_rng([seed, 0 if class_id is None else class_id + 1])
        return random.choice(rows, min(most, len(rows)), replace=False)

    def member_table(self, rows: Int64[np.ndarray, " galaxies"]) -> pa.Table:
        """Return the MEMBERS table of some rows, for download."""
        return pa.table(
            {
                tables.ID: pa.array(self.ids[rows], pa.string()), tables.CLASS_ID: self.labels[rows],
                tables.PROBABILITY: self.probabilities[rows], tables.OUTLIER_SCORE: self.outlier_scores[rows],
            }
        )  # fmt: skip

    def _sorted_by_id(self, rows: np.ndarray) -> np.ndarray:
        return rows[np.argsort(self.ids[rows].astype(str), kind="stable")]


@dataclass(frozen=True)
class AnswerMeans:
    """Mean predicted vote fraction of one answer (0-1) in a class and in the whole sample."""

    name: str
    inside: float
    sample: float


@dataclass(frozen=True)
class QuestionMeans:
    """A question with its answers, in the order of the question tree."""

    name: str
    answers: tuple[AnswerMeans, ...]

    @property
    def difference(self) -> float:
        """The largest absolute difference between class and sample among the answers."""
        return max(abs(answer.inside - answer.sample) for answer in self.answers)


def question_means(
    answers: Sequence[str],
    *,
    inside: Float64[np.ndarray, " answers"],
    sample: Float64[np.ndarray, " answers"],
) -> tuple[QuestionMeans, ...]:
    """Group answers by question, the question that differs most between class and sample first.

    Parameters
    ----------
    answers
        Names such as ``bar_strong``: the last ``_`` separates question and answer.
    inside
        Mean fractions in the class. An answer with NaN is left out.
    sample
        Mean fractions in the whole sample.

    Examples
    --------
    >>> names = ["bar_strong", "bar_no", "merging_none"]
    >>> asked = question_means(names, inside=np.array([0.9, 0.1, 0.5]), sample=np.array([0.2, 0.8, 0.4]))
    >>> [(question.name, round(question.difference, 2)) for question in asked]
    [('bar', 0.7), ('merging', 0.1)]
    """
    asked: dict[str, list[AnswerMeans]] = {}
    for label, mean, sample_mean in zip(answers, inside, sample, strict=True):
        question, _, answer = label.rpartition("_")
        if np.isfinite(mean):
            asked.setdefault(question, []).append(AnswerMeans(answer, float(mean), float(sample_mean)))
    questions = [QuestionMeans(name, tuple(means)) for name, means in asked.items()]
    return tuple(sorted(questions, key=lambda question: -question.difference))


@dataclass(frozen=True)
class PopulationShare:
    """The part of a mock population that is in a class.

    Attributes
    ----------
    population
        Name of the population.
    size
        Number of its galaxies in the class.
    purity
        Share of the class that belongs to the population, 0-1.
    completeness
        Share of the population that is in the class, 0-1.
    """

    population: str
    size: int
    purity: float
    completeness: float


def population_shares(
    sample: Sample, *, truth: pa.Table, classes: Iterable[int]
) -> dict[int, tuple[PopulationShare, ...]]:
    """Return the populations in each class, the most frequent first.

    Raises
    ------
    StoreError
        A galaxy is missing from the truth.
    """
    populations = tables.strings(tables.aligned(truth, sample.ids, source="the truth"), tables.POPULATION)
    everywhere = Counter(populations)
    shares = {}
    for class_id in classes:
        inside = Counter(populations[sample.members(class_id)])
        shares[class_id] = tuple(
            PopulationShare(name, count, count / inside.total(), count / everywhere[name])
            for name, count in sorted(inside.items(), key=lambda item: (-item[1], item[0]))
        )
    return shares


def planted_populations(sample: Sample, *, truth: pa.Table, classes: pa.Table) -> list[dict[str, object]]:
    """Return one row per planted population, by name: the class that holds most of it, and whether it was found.

    See :func:`rarezoo.searches.recovery.recovery` for the columns.
    """
    members = pa.table({tables.ID: pa.array(sample.ids, pa.string()), tables.CLASS_ID: sample.labels})
    return recovery.recovery(members, truth, classes).to_pylist()


@dataclass(frozen=True)
class ClassGroup:
    """A group of classes: a node of the tree that is more isolated than noise, with classes inside that are so too.

    Attributes
    ----------
    node
        Node of the tree.
    size
        Number of galaxies, with those in no class.
    classes
        Ids of the classes inside.
    """

    node: int
    size: int
    classes: tuple[int, ...]


def class_groups(classes: pa.Table, *, tree: pa.Table) -> dict[int, ClassGroup]:
    """Return the smallest group of each class that shares one with another class.

    Parameters
    ----------
    classes
        CLASSES table.
    tree
        TREE table.
    """
    parent_of, size_of = (_column_by_node(tree, column) for column in (tables.PARENT, tables.CHILD_SIZE))
    rows = classes.to_pylist()
    lines = {row[tables.CLASS_ID]: _ancestors(row[tables.NODE], parent_of) for row in rows}
    groups = {}
    for row in rows:
        class_id, node = row[tables.CLASS_ID], row[tables.GROUP]
        inside = tuple(other for other, line in lines.items() if node in line)
        if len(inside) > 1 and class_id in inside:
            groups[class_id] = ClassGroup(node, size_of[node], inside)
    return groups


def class_relatives(classes: pa.Table, *, tree: pa.Table) -> dict[int, tuple[int, ...]]:
    """Return for each class the other classes in its deepest shared branch, which a lower density would join with it.

    Parameters
    ----------
    classes
        CLASSES table.
    tree
        TREE table.
    """
    parent_of = _column_by_node(tree, tables.PARENT)
    lines = {row[tables.CLASS_ID]: _ancestors(row[tables.NODE], parent_of) for row in classes.to_pylist()}
    relatives = {}
    for class_id, ancestors in lines.items():
        shared: tuple[int, ...] = ()
        for ancestor in ancestors:
            shared = tuple(other for other, line in lines.items() if other != class_id and ancestor in line)
            if shared:
                break
        relatives[class_id] = shared
    return relatives


def _column_by_node(tree: pa.Table, column: str) -> dict[int, int]:
    """Return a column of TREE by node, for every node but the root."""
    nodes = tree.filter(pc.greater(tree.column(tables.CHILD_SIZE), 1))
    return dict(zip(nodes.column(tables.CHILD).to_pylist(), nodes.column(column).to_pylist(), strict=True))


def _ancestors(node: int | None, parent_of: Mapping[int, int]) -> list[int]:
    """Return the parent of a node, its parent's parent, and so on to the root."""
    line = []
    while node is not None and node in parent_of:
        node = parent_of[node]
        line.append(node)
    return line


@dataclass(frozen=True)
class ShownClass:
    """A class as the pages and the atlas show it.

    Attributes
    ----------
    id
        Id of the class.
    name
        Name that a reader gave it; empty if there is none.
    node
        Node of the tree; None for classes that were merged by hand.
    size
        Number of members.
    share
        Share of the galaxies searched, 0-1.
    birth, death
        λ = 1 / distance on the map that was clustered, at which the class appears and disappears.
    persistence, significance, p_value, false_discovery, isolation, stability
        Columns of CLASSES; None if not measured.
    grade
        How strong the evidence for the class is, see :data:`rarezoo.searches.grades.GRADES`; None if not measured.
    rank
        Its place in the order in which to look at the classes, from 1; None if the search gave none.
    answers
        Predicted answers that describe the class, the most distinctive first.
    warnings
        Flags of the class.
    beyond
        Share of its separation that remains without the predicted answers, 0-1; None if not measured.
    beyond_reason
        The same in words: verdict, interval, what was measured.
    cause
        ``clean``, ``systematics``, ``artifact`` or ``shredded``; None if nothing could be tested.
    cause_reason
        The reason for the cause.
    relatives
        Ids of the classes nearest in the tree.
    group
        The smallest group that it shares with another class; None if there is none.
    galleries
        Exemplars, random draw, outskirts, nearest galaxies outside.
    questions
        Predicted answers of the class and of the whole sample.
    populations
        Populations in the class; empty unless the survey is a mock.
    """

    id: int
    name: str
    node: int | None
    size: int
    share: float
    birth: float | None
    death: float | None
    persistence: float | None
    significance: float | None
    p_value: float | None
    false_discovery: float | None
    isolation: float | None
    stability: float | None
    grade: str | None
    rank: int | None
    answers: tuple[str, ...]
    warnings: tuple[str, ...]
    beyond: float | None
    beyond_reason: str
    cause: str | None
    cause_reason: str
    relatives: tuple[int, ...]
    group: ClassGroup | None
    galleries: tuple[Gallery, ...]
    questions: tuple[QuestionMeans, ...]
    populations: tuple[PopulationShare, ...]


@dataclass(frozen=True)
class MainGroup:
    """A broad group of galaxies that stands apart and is too large to be rare.

    Attributes
    ----------
    number
        0 for the largest.
    size
        Number of galaxies.
    share
        Share of the galaxies searched, 0-1.
    significance, p_value
        As of a class; None if not measured.
    answers
        Predicted answers that describe it, the most distinctive first.
    exemplars
        The galaxies closest to its centre.
    """

    number: int
    size: int
    share: float
    significance: float | None
    p_value: float | None
    answers: tuple[str, ...]
    exemplars: Gallery


def file_name(class_id: int) -> str:
    """Return the name of a class's files, without ending.

    >>> file_name(3)
    'class-003'
    """
    return f"class-{class_id:03d}"
