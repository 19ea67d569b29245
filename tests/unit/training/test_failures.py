"""The worst predictions: which they are, and what the picture needs."""

import numpy as np
import pytest

from rarezoo import cli as apps
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.training.failures import worst_predictions
from rarezoo.training.metrics import Predicted

pytestmark = pytest.mark.unit
TREE = QuestionTree("two", (Question("shape", ("shape_a", "shape_b")), Question("bar", ("bar_a", "bar_b"))))
IDS = np.array([f"g{row}" for row in range(10)], dtype=object)


def test_each_question_gives_its_worst_galaxies_and_those_not_asked_give_none():
    alpha = np.array([[9, 1, 5, 5], [5, 5, 9, 1], [2, 8, 5, 5]], np.float32)
    votes = np.array([[1, 9, 0, 0], [20, 20, 0, 4], [8, 32, 0, 0]], np.float32)
    worst = worst_predictions(Predicted(np.array([3, 5, 7]), alpha, votes), TREE, ids=IDS, count=4)
    assert [(failure.row, failure.id_str, failure.question) for failure in worst] == [
        (3, "g3", "shape"), (5, "g5", "shape"), (5, "g5", "bar"),
    ]  # fmt: skip
    first = worst[0]
    assert (first.answer, first.volunteers) == ("a", 10)
    assert (first.predicted, first.observed) == (pytest.approx(0.9), pytest.approx(0.1))


def test_a_name_that_is_no_picture_is_refused_before_anything_is_opened(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rarezoo", "zoo", "worst", "no.such_checkpoint", "out=worst.txt"])
    with pytest.raises(SystemExit) as ended:
        apps.main()
    assert ended.value.code
    assert "no kind of picture: worst.txt" in capsys.readouterr().err
