"""What a finetuned network predicts is evaluated on galaxies that it was not trained on."""

import numpy as np
import pytest

import rarezoo as rz
from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.survey import Galaxies, catalogue_table
from rarezoo.errors import DataError
from rarezoo.prediction.predict import predictions_of
from rarezoo.training.objectives.labels import Labels

pytestmark = pytest.mark.unit


class Black(ImageSource):
    """The same black image for every galaxy."""

    def cutout(self, row):
        return np.zeros((8, 8, 3), dtype=np.uint8)


def galaxies(ids):
    catalogue = catalogue_table(ids, ids, survey="made up", source="a test")
    return Galaxies(catalogue=catalogue, images=Black())


def test_splits_are_those_of_the_training_when_the_store_holds_other_galaxies_than_the_survey(tmp_path):
    labels = rz.OwnLabels.read({f"J{row}": int(row < 60) for row in range(180)}, label="ring")
    survey = [f"J{row}" for row in range(20, 180)]
    chosen = Labels.of(labels, label="ring").select(galaxies(survey))
    trained = dict(zip(chosen.ids, tables.strings(chosen.catalogue, tables.SPLIT), strict=True))
    ids = [f"J{row}" for row in range(0, 240, 2)]
    yes = np.random.default_rng(0).uniform(0.1, 0.9, len(ids))
    fractions = {"ring_yes": yes, "ring_no": 1 - yes}
    store = rz.EmbeddingStore.from_array(ids, np.ones((len(ids), 2), np.float32), out=tmp_path, fractions=fractions)
    found = dict(zip(ids, predictions_of(store, labels).splits, strict=True))
    assert all(found[galaxy] == trained[galaxy] for galaxy in set(trained) & set(found))
    assert set(found.values()) == {"train", "validation", "test", ""}
    assert found["J200"] == ""


def test_a_class_with_one_member_which_no_network_learns_does_not_stop_its_predictions(tmp_path, caplog):
    classes = {f"J{row}": ["ring", "bar", "other"][row % 3] for row in range(180)}
    labels = rz.OwnLabels.read({**classes, "J180": "lens"})
    ids, fractions = [f"J{row}" for row in range(200)], np.random.default_rng(0).dirichlet([1, 1, 1], 200).T
    named = dict(zip(("bar", "other", "ring"), fractions, strict=True))
    store = rz.EmbeddingStore.from_array(ids, np.ones((200, 2), np.float32), out=tmp_path, fractions=named)
    found = predictions_of(store, labels)
    assert found.labels.names == ("bar", "other", "ring")
    assert found.splits[180] == ""
    assert "lens" in caplog.text
    with pytest.raises(DataError, match="one class only"):
        predictions_of(store, rz.OwnLabels.read({f"J{row}": 1 for row in range(40)}))
