"""Labels of one's own as answers of a question tree, so that a network which predicts votes can predict labels.

====================  ==================================================================  ============================
kind of labels        questions and answers                                               a predicted fraction is
====================  ==================================================================  ============================
``binary``            one question, ``NAME_yes`` and ``NAME_no``                          the probability
``tags``              one such question for each tag                                      the probability of the tag
``classes``           one question, whose answers are the classes                         the probability of the class
``number``            one question, whose answers ``NAME_LOW`` and ``NAME_HIGH`` are the   how near the number is to
                      ends of a range                                                     that end
``counts``            one question, whose answers are the columns                         the expected share of votes
====================  ==================================================================  ============================

A predicted number is the mean of the two ends, weighted with their fractions.

Shape letters: n galaxies, c columns of the labels, a answers of the tree.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32

from rarezoo.data.own_labels import BINARY, CLASSES, KINDS, NUMBER, TAGS, OwnLabels
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import DataError

_YES, _NO = "_yes", "_no"
# The range of a number is that of the labels of the training split, and this share of it on either side.
_BEYOND = 0.25
_TREE = "labels: "


def label_tree(labels: OwnLabels, *, name: str = "label") -> QuestionTree:
    """Return the questions and answers that stand for labels.

    Parameters
    ----------
    labels
        Labels. Those of kind ``number`` decide the range of the numbers that can be predicted.
    name
        Name of the question of classes and counts.

    Examples
    --------
    >>> label_tree(OwnLabels.read({"J1": 1, "J2": 0}, label="ring")).answers
    ('ring_yes', 'ring_no')
    >>> label_tree(OwnLabels.read({"J1": 0.0, "J2": 0.1, "J3": 2.0}, label="size")).answers
    ('size_-0.5', 'size_2.5')
    """
    if labels.kind in (BINARY, TAGS):
        questions = [Question(column, (f"{column}{_YES}", f"{column}{_NO}")) for column in labels.names]
    elif labels.kind == NUMBER:
        numbers = labels.values[labels.known].astype(np.float64)
        margin = _BEYOND * np.ptp(numbers)
        ends = (f"{numbers.min() - margin:.5g}", f"{numbers.max() + margin:.5g}")
        column = labels.names[0]
        questions = [Question(column, (f"{column}_{ends[0]}", f"{column}_{ends[1]}"))]
    else:
        questions = [Question(name, labels.names)]
    return QuestionTree(f"{_TREE}{labels.kind}", tuple(questions))


def kind_of_tree(tree: QuestionTree) -> str | None:
    """Return the kind of labels that a tree stands for; None if it is a tree of votes.

    >>> kind_of_tree(label_tree(OwnLabels.read({"J1": 1, "J2": 0})))
    'binary'
    """
    kind = tree.name.removeprefix(_TREE)
    return kind if kind in KINDS and tree.name != kind else None


def label_shares(labels: OwnLabels, tree: QuestionTree) -> Float32[np.ndarray, "n a"]:
    """Return labels as shares of the answers of their tree, 0 for all answers of a question whose label is unknown.

    Counts stay counts.

    >>> labels = OwnLabels.read({"J1": 1, "J2": 0, "J3": None}, label="ring")
    >>> label_shares(labels, label_tree(labels)).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    known = np.isfinite(labels.values)
    values = np.where(known, labels.values, 0)
    if labels.kind in (BINARY, TAGS):
        pairs = np.stack([values, 1 - values], axis=2) * known[:, :, None]
        return np.asarray(pairs.reshape(len(labels), -1), dtype=np.float32)
    if labels.kind == NUMBER:
        low, high = _ends(tree.answers)
        share = (values - low) / (high - low)
        return np.asarray(np.hstack([1 - share, share]).clip(0, 1) * known, dtype=np.float32)
    return np.asarray(values, dtype=np.float32)


def predicted_values(
    labels: OwnLabels, answers: Sequence[str], fractions: Float[np.ndarray, "n a"], *, source: str
) -> Float32[np.ndarray, "n c"]:
    """Return predictions for the columns of labels, from the predicted answers of an embedding store.

    Parameters
    ----------
    labels
        The labels whose kind and columns are wanted.
    answers
        Names of the predicted answers.
    fractions
        (n, a) their predicted fractions.
    source
        Name of the store or the checkpoint, for messages.

    Returns
    -------
    numpy.ndarray
        (n, c): probabilities; for ``number`` the number; for ``counts`` shares of the votes.

    Raises
    ------
    DataError
        The answers are those of other labels, or votes.

    Examples
    --------
    >>> labels = OwnLabels.read({"J1": 1, "J2": 0}, label="ring")
    >>> predicted_values(labels, ["ring_yes", "ring_no"], np.array([[0.75, 0.25]]), source="the store").tolist()
    [[0.75]]
    """
    place = {answer: index for index, answer in enumerate(answers)}
    if labels.kind in (BINARY, TAGS):
        wanted = [f"{column}{_YES}" for column in labels.names]
    elif labels.kind == NUMBER:
        wanted = [answer for answer in answers if _end(answer, labels.names[0]) is not None] or [labels.names[0]]
    else:
        wanted = list(labels.names)
    absent = [answer for answer in wanted if answer not in place]
    # A class that was not among those learnt has no probability, and those of the others would be too large.
    others = labels.kind == CLASSES and set(answers) != set(wanted)
    if absent or others or (labels.kind == NUMBER and len(wanted) != 2):
        raise DataError(
            f"{source} does not predict these labels ({labels.kind}: {', '.join(labels.names[:5])})",
            value=f"it predicts {', '.join(answers[:6]) or 'nothing'}{' …' if len(answers) > 6 else ''}",
            fix="Finetune a checkpoint on these labels and embed the survey with it, or use rarezoo probe.",
        )  # fmt: skip
    columns = np.asarray(fractions, dtype=np.float64)[:, [place[answer] for answer in wanted]]
    if labels.kind == NUMBER:
        return np.asarray(columns @ np.array(_ends(wanted))[:, None], dtype=np.float32)
    return np.asarray(columns, dtype=np.float32)


def _end(answer: str, name: str) -> float | None:
    """Return the number in the name of an answer; None if it is no answer of a number of this name."""
    try:
        number = float(answer.removeprefix(f"{name}_")) if answer.startswith(f"{name}_") else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _ends(answers: Sequence[str]) -> tuple[float, float]:
    low, high = (float(answer.rpartition("_")[2]) for answer in answers)
    return low, high


def both_sides(labels: OwnLabels) -> Bool[np.ndarray, " c"]:
    """Return for each column whether some galaxy has it and another has it not; for a number, whether values differ."""
    known = np.isfinite(labels.values)
    if labels.kind == NUMBER:
        numbers = labels.values[known]
        return np.array([len(numbers) > 1 and np.ptp(numbers) > 0])
    return np.asarray(((labels.values > 0) & known).any(axis=0) & ((labels.values == 0) & known).any(axis=0))
