"""``rarezoo store frozen``: a survey under initial weights, without any training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.data.surveys.mock import Mock
from rarezoo.data.trees import named_tree
from rarezoo.embeddings.frozen import FrozenStore, reduced
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import CheckpointNotFound, ConfigError, DataError
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.pipeline
SMALL = ["model=efficientnet_b0", "model.input_size=32", "workers=0"]


@pytest.fixture
def survey(tiny_survey):
    return Mock(n=tiny_survey.galaxies, side=48, seed=3, workers=1, cache=str(tiny_survey.cache))


def test_the_command_makes_a_store_that_can_be_judged_with_its_survey(cli, tiny_survey, tmp_path):
    out = cli("rarezoo", "store", "frozen", *tiny_survey.words, *SMALL, "width=8", "out=frozen", cwd=tmp_path).out
    assert "260 embeddings of width 8 (mock, efficientnet_b0.untrained)" in out
    store = EmbeddingStore.open(tmp_path / "frozen")
    assert store.has_survey
    assert store.manifest.answers == ()
    words = ["measures=like_this", "beside=[]", "cache=kept"]
    judged = cli("rarezoo", "judge", "frozen", *words, cwd=tmp_path).out
    assert judged.startswith("efficientnet_b0.untrained: effective rank")
    assert "like this" in judged


def test_features_are_those_of_the_first_weights_and_random_ones_follow_the_seed(survey, tmp_path):
    encoder = EfficientNetB0(input_size=32, bottleneck="native")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = build_network(encoder, named_tree("desi"))
    torch.save(network.trunk.state_dict(), tmp_path / "first.pt")
    settings = {"data": survey, "width": 0, "standardise": False, "workers": 0}
    from_file = FrozenStore(
        model=EfficientNetB0(input_size=32, start=str(tmp_path / "first.pt")), out=str(tmp_path / "file"), **settings
    ).run()
    assert from_file.manifest.checkpoint == "efficientnet_b0.frozen"
    random = [
        FrozenStore(model=EfficientNetB0(input_size=32), seed=seed, out=str(tmp_path / f"seed{seed}"), **settings).run()
        for seed in (5, 6)
    ]
    # The same weights are the same network, wherever they come from; others are not, although they have one name.
    assert random[0].manifest.checkpoint == random[1].manifest.checkpoint
    assert random[0].manifest.checkpoint_sha256 == from_file.manifest.checkpoint_sha256
    assert random[0].manifest.checkpoint_sha256 != random[1].manifest.checkpoint_sha256
    values = [store.embeddings() for store in (from_file, *random)]
    assert values[0].shape == (260, network.width)
    # Features of random weights are tiny.
    largest = np.abs(values[0]).max()
    np.testing.assert_allclose(values[0] / largest, values[1] / largest, atol=1e-4)
    assert np.abs(values[1] - values[2]).max() > 0.1 * largest


def test_principal_components_of_other_galaxies_are_another_network(survey, tmp_path):
    made = [
        FrozenStore(
            data=replace(survey, limit=limit), model=EfficientNetB0(input_size=32), width=4, workers=0,
            out=str(tmp_path / f"{limit}"),
        ).run()
        for limit in (60, 50)
    ]  # fmt: skip
    assert made[0].manifest.checkpoint_sha256 != made[1].manifest.checkpoint_sha256


def test_without_a_readable_image_there_is_no_store(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"damaged")
    (tmp_path / "own.csv").write_text("id_str\na\n")
    survey = Catalogue(str(tmp_path / "own.csv"), images=str(tmp_path / "images"), on_bad_image="skip")
    with pytest.raises(DataError, match="no image can be read: 1 galaxies"):
        FrozenStore(data=survey, model=EfficientNetB0(input_size=32), workers=0, out=str(tmp_path / "out")).run()


def test_weights_that_do_not_exist_and_a_width_below_zero_are_refused(survey, tmp_path):
    missing = EfficientNetB0(input_size=32, start=str(tmp_path / "nowhere.pt"))
    with pytest.raises(CheckpointNotFound, match=r"nowhere\.pt"):
        FrozenStore(data=survey, model=missing, out=str(tmp_path / "out")).run()
    for wrong in ({"width": -1}, {"seed": -1}):
        with pytest.raises(ConfigError, match="-1"):
            FrozenStore(data=survey, model=missing, **wrong)


def test_principal_components_keep_the_largest_directions_and_need_finite_features():
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 20)) * np.geomspace(100, 0.01, 20)
    as_they_are = reduced(features, width=3, standardise=False)
    assert as_they_are.var(axis=0)[0] == pytest.approx(features.var(axis=0)[0], rel=0.01)
    even = reduced(features, width=3, standardise=True)
    assert even.var(axis=0).max() < 3
    np.testing.assert_array_equal(reduced(features, width=0, standardise=False), features.astype(np.float32))
    assert reduced(features[:4], width=10, standardise=True).shape == (4, 20)
    with pytest.raises(DataError, match="not finite"):
        reduced(np.full((3, 2), np.nan), width=1, standardise=True)
