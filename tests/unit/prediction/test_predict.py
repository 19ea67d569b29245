"""What a finetuned network predicts is evaluated on galaxies that it was not trained on."""

import numpy as np
import pytest

import rarezoo as rz
from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.survey import Galaxies, catalogue_table
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
