"""The objective that learns labels of one's own: its losses, its splits, what it refuses and what it warns of."""

import logging

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score, roc_auc_score

from rarezoo import cli, tables
from rarezoo.data.images import ImageSource
from rarezoo.data.label_answers import label_tree
from rarezoo.data.own_labels import OwnLabels
from rarezoo.data.survey import Galaxies, catalogue_table
from rarezoo.errors import ConfigError, DataError
from rarezoo.training.finetune import RECIPES
from rarezoo.training.frozen import start_head
from rarezoo.training.label_metrics import label_rows
from rarezoo.training.module import TrainSettings, first_groups, mixed
from rarezoo.training.objectives.labels import Labels
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import BottleneckNetwork, Prediction

pytestmark = pytest.mark.unit


class Black(ImageSource):
    """The same black image for every galaxy."""

    def cutout(self, row):
        return np.zeros((8, 8, 3), dtype=np.uint8)


def galaxies(number=60, **columns):
    ids = [f"J{row}" for row in range(number)]
    columns = pa.table(columns) if columns else None
    catalogue = catalogue_table(ids, ids, survey="made up", source="a test", columns=columns)
    return Galaxies(catalogue=catalogue, images=Black()).with_splits(np.full(number, "train", object))


def prepared(labels, number=60, label="ring", kind="auto", **settings):
    objective = Labels.of(OwnLabels.read(labels, label=label, kind=kind), label=label, **settings)
    return objective, objective.prepare(objective.select(galaxies(number)))


def rings(yes, no):
    return {f"J{row}": int(row < yes) for row in range(yes + no)}


def test_only_labelled_galaxies_are_used_and_every_split_has_both_kinds():
    _, chosen = prepared(rings(10, 20))
    assert len(chosen) == 30
    for split in ("train", "validation", "test"):
        assert (chosen.votes[chosen.rows(split)] > 0).any(axis=0).all()


def test_rare_classes_count_as_much_as_common_ones_and_nothing_is_learnt_from_other_splits():
    _, chosen = prepared(rings(5, 40))
    training = chosen.votes[chosen.rows("train")].sum(axis=0)
    assert training[0] == pytest.approx(training[1])
    assert training.sum() == pytest.approx(len(chosen.rows("train")))
    objective, sampled = prepared(rings(5, 40), balance="sampling")
    rows = sampled.rows("train")
    weights = objective.sampling_weights(sampled, rows)
    assert weights[sampled.votes[rows, 0] > 0].sum() == pytest.approx(0.5)
    assert sampled.votes[rows].max() == 1
    stopping = sampled.rows("validation")
    assert np.array_equal(sampled.votes[stopping], chosen.votes[stopping])


def test_labels_can_be_a_column_of_the_survey_and_the_range_of_a_number_is_that_of_the_training_split():
    values = np.arange(60, dtype=float)
    objective = Labels(label="size", kind="number")
    chosen = objective.prepare(objective.select(galaxies(size=values)))
    training = values[chosen.rows("train")]
    low, high = (float(answer.rpartition("_")[2]) for answer in chosen.tree.answers)
    assert low == pytest.approx(training.min() - 0.25 * np.ptp(training), rel=1e-3)
    assert high > training.max()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (rings(0, 20), "no galaxy is marked as having the label"),
        (rings(20, 0), "one class only"),
        (rings(1, 20), "only one galaxy"),
        ({"K1": 1, "K2": 0}, "K1|match"),
        ({f"J{row}": 1.5 for row in range(9)}, "different values"),
    ],
)
def test_labels_from_which_nothing_can_be_learnt_are_refused_with_a_way_out(labels, message):
    with pytest.raises(DataError, match=message):
        prepared(labels)


def test_without_labels_or_without_a_training_split_a_setting_is_named():
    with pytest.raises(ConfigError, match=r"objective\.labels"):
        Labels().select(galaxies())
    with pytest.raises(ConfigError, match="leave some galaxies"):
        Labels(labels="x.csv", validation_share=0.5, test_share=0.5)
    with pytest.raises(DataError, match=r"objective\.validation_share"):
        prepared(rings(10, 20), validation_share=0.0)


def test_splits_that_are_too_small_are_warned_of_and_large_ones_are_not(caplog):
    for yes, no, words in ((4, 4, ["validation split", "1 ring", "probe"]), (90, 110, [])):
        objective, chosen = prepared(rings(yes, no), number=200)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="rarezoo"):
            objective.warn(chosen)
        assert all(word in caplog.text for word in words)
        assert bool(caplog.text) == bool(words)
    objective, chosen = prepared(rings(3, 40))
    splits = tables.strings(chosen.catalogue, tables.SPLIT)
    splits[(splits == "test") & (chosen.votes[:, 0] > 0)] = "train"
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        objective.warn(chosen.with_splits(splits))
    assert "the test split has no galaxy" in caplog.text
    assert "objective.test_share" in caplog.text


def loss(objective, labels, alpha, targets=None):
    tree = label_tree(labels)
    from rarezoo.data.label_answers import label_shares

    targets = torch.from_numpy(label_shares(labels, tree)) if targets is None else targets
    prediction = Prediction(torch.zeros(len(targets), 2), torch.as_tensor(alpha, dtype=torch.float32))
    losses = objective.losses(prediction, targets, tree=tree, network=None, modules=None)
    return float(losses["loss"])


def test_the_losses_are_the_known_ones_and_unknown_tags_count_nothing():
    labels = OwnLabels.read({"a": 1, "b": 0}, label="ring")
    assert loss(Labels(), labels, [[3, 1], [1, 1]]) == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)
    smooth = -(0.95 * np.log(0.75) + 0.05 * np.log(0.25) + np.log(0.5)) / 2
    assert loss(Labels(smoothing=0.1), labels, [[3, 1], [1, 1]]) == pytest.approx(smooth)
    tags = OwnLabels(np.array(["a"]), "tags", ("bar", "ring"), np.array([[1, np.nan]], np.float32))
    assert loss(Labels(), tags, [[3, 1, 1, 1]]) == loss(Labels(), tags, [[3, 1, 50, 2]])
    number = OwnLabels.read({"a": 0.0, "b": 4.0, "c": 1.0}, label="size", kind="number")
    right = [[5, 1], [1, 5], [4 - 1 / 3, 2 + 1 / 3]]
    assert loss(Labels(), number, [[2, 2]] * 3) > loss(Labels(), number, right)
    # An error of one standard deviation costs one; Huber's loss grows more slowly above it.
    far = torch.tensor([[36.0, 0.0]])
    alpha = [[1, 1]]
    assert loss(Labels(), number, alpha, far) == pytest.approx(9)
    assert loss(Labels(number_loss="huber"), number, alpha, far) == pytest.approx(5)


def test_mixed_galaxies_have_mixed_targets():
    torch.manual_seed(3)
    targets = torch.eye(4)
    views, mixed_targets = mixed(torch.eye(4)[:, None], targets, 0.5)
    torch.testing.assert_close(views[:, 0], mixed_targets)
    assert ((mixed_targets > 0).sum(dim=1) <= 2).all()
    torch.testing.assert_close(mixed_targets.sum(dim=1), torch.ones(4))


def test_all_but_the_last_groups_of_layers_can_be_frozen():
    trunk = EfficientNetB0(input_size=32).trunk()
    last = {name for name, weight in trunk.named_parameters()}
    frozen = {id(weight) for module in first_groups(trunk, -2) for weight in module.parameters(recurse=False)}
    learning = [name for name, weight in trunk.named_parameters() if id(weight) not in frozen]
    assert 0 < len(learning) < len(last) / 2
    assert "conv_stem.weight" not in learning


def test_a_fitted_head_tells_separate_groups_apart_before_training():
    torch.manual_seed(0)
    network = BottleneckNetwork(torch.nn.Identity(), native=6, width=6, answers=2, dropout=0, head_width=8)
    truth = np.arange(40) % 2
    features = np.random.default_rng(0).normal(size=(40, 2, 6)) + 4 * truth[:, None, None] * [1, 0, 0, 0, 0, 0]
    targets = torch.nn.functional.one_hot(torch.from_numpy(truth).repeat_interleave(2), 2)

    def loss(alpha):
        return -(targets * (alpha / alpha.sum(dim=1, keepdim=True)).log()).sum(dim=1).mean()

    start_head(network, features, loss, strength=1.0)
    with torch.inference_mode():
        alpha = network.from_features(torch.from_numpy(features[:, 0]).float()).concentrations
    assert (alpha.argmax(dim=1).numpy() == truth).mean() > 0.9


def test_the_card_has_numbers_with_intervals_and_none_where_they_are_not_possible():
    labels = OwnLabels.read({f"J{row}": row % 2 for row in range(40)}, label="ring")
    alpha = np.where(np.arange(40)[:, None] % 2 == [1, 0], 30.0, 2.0).astype(np.float32)
    (row,) = label_rows(labels, label_tree(labels), alpha)
    assert (row["auc"], row["balanced_accuracy"], row["positive"]) == (1, 1, 20)
    assert row["auc_interval"][0] <= row["auc"]
    few = OwnLabels.read({f"J{row}": int(row == 1) for row in range(40)}, label="ring")
    assert label_rows(few, label_tree(labels), alpha)[0]["auc"] > 0.5
    assert label_rows(few, label_tree(labels), alpha)[0]["auc_interval"] is None
    truth, alpha = np.arange(40) % 3 == 0, np.random.default_rng(0).integers(1, 5, (40, 2)).astype(np.float32)
    mixed_up = OwnLabels.read({f"J{row}": int(truth[row]) for row in range(40)}, label="ring")
    (row,), share = label_rows(mixed_up, label_tree(labels), alpha), alpha[:, 0] / alpha.sum(axis=1)
    assert row["auc"] == pytest.approx(roc_auc_score(truth, share))
    assert row["average_precision"] == pytest.approx(average_precision_score(truth, share))
    assert row["auc_interval"][0] < row["auc"] < row["auc_interval"][1]
    one_sided = OwnLabels.read({f"J{row}": 0 for row in range(40)}, label="ring")
    assert label_rows(one_sided, label_tree(labels), alpha)[0]["auc"] is None


@pytest.mark.parametrize(("recipe", "experiment"), [("frozen", "frozen"), ("last", "last_stages"), ("all", "all")])
def test_the_command_line_and_python_finetune_with_the_same_settings(recipe, experiment):
    written = yaml.safe_load((cli.conf_dir() / "experiment" / f"finetune_{experiment}.yaml").read_text())
    assert TrainSettings(**written["train"]) == TrainSettings(**RECIPES[recipe])


def test_views_cannot_be_compared_and_mixed_at_once():
    from rarezoo.data.surveys.mock import Mock
    from rarezoo.training.fit import TrainRun
    from rarezoo.training.objectives.hybrid import Hybrid

    with pytest.raises(ConfigError, match=r"train\.mixup"):
        TrainRun(data=Mock(n=9), model=EfficientNetB0(), objective=Hybrid(), train=TrainSettings(mixup=0.2), out="x")
