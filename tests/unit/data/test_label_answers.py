"""Labels become answers of a tree and come back from predicted fractions."""

import numpy as np
import pytest

from rarezoo.data.label_answers import both_sides, kind_of_tree, label_shares, label_tree, predicted_values
from rarezoo.data.own_labels import OwnLabels
from rarezoo.data.trees import named_tree
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit
LABELS = {
    "binary": OwnLabels.read({"a": 1, "b": 0, "c": None}, label="ring"),
    "classes": OwnLabels.read({"a": "ring", "b": "spiral", "c": "merger"}, label="shape"),
    "tags": OwnLabels.read({"a": ["ring", "bar"], "b": [], "c": None}, label="tags"),
    "number": OwnLabels.read({"a": 0.5, "b": -2.0, "c": 7.25}, label="size", kind="number"),
    "counts": OwnLabels(np.array(["a", "b"]), "counts", ("yes", "no"), np.array([[3, 1], [2, 2]], np.float32)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_what_is_known_comes_back_from_its_own_shares(kind):
    labels = LABELS[kind]
    tree = label_tree(labels, name="shape")
    shares = label_shares(labels, tree)
    assert kind_of_tree(tree) == kind
    known = np.isfinite(labels.values)
    assert (tree.totals(shares) > 0).sum() == (known.any(axis=1).sum() if kind != "tags" else known.sum())
    back = predicted_values(labels, tree.answers, np.nan_to_num(tree.fractions(shares)), source="the store")
    truth = labels.values / labels.values.sum(axis=1, keepdims=True) if kind == "counts" else labels.values
    np.testing.assert_allclose(back[known], truth[known], atol=1e-4)


def test_a_tree_of_votes_is_no_tree_of_labels():
    assert kind_of_tree(named_tree("desi")) is None


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("binary", ("merger_yes", "merger_no")),
        ("binary", ("smooth-or-featured_smooth",)),
        ("classes", ("ring", "spiral", "merger", "irregular")),
        ("number", ("mass_8", "mass_12")),
        ("tags", ("ring_yes", "ring_no")),
        ("counts", ()),
    ],
)
def test_a_network_that_learnt_other_labels_is_refused_by_what_it_predicts(kind, answers):
    with pytest.raises(DataError, match=r"it predicts .*Finetune") as refused:
        predicted_values(LABELS[kind], answers, np.full((2, len(answers)), 0.5), source="the store x")
    assert "the store x" in str(refused.value)


def test_columns_with_one_side_only_are_known_as_such():
    assert both_sides(LABELS["binary"]).all()
    assert not both_sides(OwnLabels.read({"a": 1, "b": 1})).any()
    assert both_sides(LABELS["number"]).all()
    assert not both_sides(OwnLabels.read({"a": 3.5, "b": 3.5}, kind="number")).any()
