"""What a ranking works on: scaled alike, finite whatever the catalogue holds, and clear about what is not there."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from rarezoo.cache import Cache
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, RarezooError, StoreError
from rarezoo.explore.features import Features, Part, components_of, features_of, standardised
from rarezoo.explore.ranking import RankingSettings

pytestmark = pytest.mark.unit

GALAXIES = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve galaxies with images, of which the last is not in the store; the third has no mass."""
    folder = tmp_path_factory.mktemp("survey")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    with (folder / "galaxies.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["id_str", "mass", "flat", "number", "name"])
        for number in range(GALAXIES):
            pixels = random.integers(0, 255, (24, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"g{number}.png")
            mass = "" if number == 2 else 9 + number / 10
            rows.writerow([f"g{number}", mass, 3.5, number, f"NGC {number}"])
    order = [*range(GALAXIES - 1)][::-1]
    return EmbeddingStore.from_array(
        [f"g{number}" for number in order], random.normal(size=(GALAXIES - 1, 4)).astype(np.float32),
        survey=Catalogue(table=str(folder / "galaxies.csv"), images=str(folder / "images")), out=folder / "store",
    )  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A store without a survey."""
    vectors = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    return EmbeddingStore.from_array([f"g{n}" for n in range(20)], vectors, out=tmp_path_factory.mktemp("bare"))


def test_columns_have_mean_0_and_variance_1_and_what_is_not_known_is_average():
    random = np.random.default_rng(0)
    values = random.normal(7, 3, size=(5000, 3))
    values[::5, 1] = np.nan
    values[::7, 2] = np.inf
    standard = standardised(values)
    assert standard.dtype == np.float32
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-6)
    assert standard[:, 0].std() == pytest.approx(1, abs=1e-5)
    assert not standard[::5, 1].any()
    assert not standard[::7, 2].any()
    known = np.arange(5000) % 5 > 0
    assert standard[known, 1].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("constant", [0.0, 3.3, 1e12, -1e-9])
def test_constant_columns_and_columns_without_any_value_are_0(constant):
    values = np.stack([np.full(1000, constant), np.full(1000, np.nan)], axis=1)
    assert not standardised(values).any()
    assert not standardised(values.astype(np.float32)).any()


def test_one_value_that_is_far_out_does_not_decide_everything():
    values = np.r_[np.random.default_rng(0).normal(size=999), 1e9][:, None]
    assert np.abs(standardised(values)).max() < 10


def test_more_galaxies_than_a_block_are_standardised_as_one():
    values = np.arange(40_000, dtype=float)[:, None]
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(standardised(values), expected, atol=1e-5)


def test_the_weight_is_the_deviation_of_what_stands_beside_the_embedding():
    random = np.random.default_rng(0)
    parts = [Part("embedding", random.normal(size=(400, 3)), 1.0), Part("mass", random.normal(size=(400, 1)), 2.5)]
    features = Features.of(parts)
    assert features.matrix[:, features.blocks["embedding"]].std(axis=0) == pytest.approx(1, abs=1e-5)
    assert features.matrix[:, features.blocks["mass"]].std() == pytest.approx(2.5, abs=1e-4)
    first, second = random.permutation(400), random.permutation(400)
    between = np.square(features.matrix[first] - features.matrix[second]).sum(axis=1).mean()
    assert features.distance == pytest.approx(np.sqrt(between), rel=0.1)


def test_galaxies_that_are_all_the_same_have_no_distance():
    assert Features.of([Part("embedding", np.full((30, 3), 4.2), 1.0)]).distance == 0


def test_components_are_those_of_the_largest_variance_and_0_keeps_the_embedding():
    random = np.random.default_rng(0)
    embeddings = (random.normal(size=(500, 6)) * [1, 9, 1, 4, 1, 1]).astype(np.float32)
    components = components_of(embeddings, 2)
    assert components.shape == (500, 2)
    assert abs(np.corrcoef(components[:, 0], embeddings[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(components[:, 1], embeddings[:, 3])[0, 1]) > 0.99
    np.testing.assert_array_equal(components_of(embeddings, 0), embeddings)
    assert components_of(embeddings, 99).shape == (500, 6)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_galaxies_have_features(count):
    embeddings = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)
    features = Features.of([Part("embedding", components_of(embeddings, 3), 1.0)])
    assert len(features.matrix) == count
    assert np.isfinite(features.matrix).all()


def test_a_column_of_the_catalogue_stands_in_the_order_of_the_store(store):
    features = features_of(store, beside=["number"], weight=1.0)
    column = features.matrix[:, features.blocks["number"]][:, 0]
    numbers = np.array([int(name[1:]) for name in store.ids])
    np.testing.assert_allclose(column, (numbers - numbers.mean()) / numbers.std(), atol=1e-5)


def test_a_value_that_the_catalogue_lacks_is_average(store):
    features = features_of(store, beside=["mass", "flat"])
    missing = list(store.ids).index("g2")
    assert features.matrix[missing, features.blocks["mass"]] == 0
    assert not features.matrix[:, features.blocks["flat"]].any()


@pytest.mark.parametrize("name", ["name", "id_str"])
def test_a_column_of_text_is_refused(store, name):
    with pytest.raises(ConfigError, match=rf"numbers.*{name}"):
        features_of(store, beside=[name])


def test_an_unknown_column_is_refused_with_the_names_that_are_near(store):
    with pytest.raises(ConfigError, match=r"masss.*Did you mean mass"):
        features_of(store, beside=["masss"])
    with pytest.raises(ConfigError, match=r"photometrie.*photometry"):
        features_of(store, beside=["photometrie"])


def test_photometry_and_structure_are_measured_once(store, tmp_path):
    cache = Cache(tmp_path / "features")
    first = features_of(store, beside=["photometry", "structure"], cache=cache)
    assert first.left_out == ()
    assert {"embedding", "photometry", "structure"} == set(first.blocks)
    survey = store.galaxies()
    no_images = SimpleNamespace(catalogue=survey.catalogue, measured_from=survey.measured_from, images=None)
    again = features_of(store, beside=["photometry", "structure"], cache=cache, galaxies=no_images)
    np.testing.assert_array_equal(first.matrix, again.matrix)


def test_what_cannot_be_kept_is_measured_all_the_same(store, tmp_path, caplog):
    (tmp_path / "file").touch()
    features = features_of(store, beside=["photometry"], cache=Cache(tmp_path / "file" / "features"))
    assert features.left_out == ()
    assert features.matrix[:, features.blocks["photometry"]].any()
    assert "photometry is measured again each time" in caplog.text


def test_a_store_without_a_survey_is_ranked_by_its_embedding_and_says_what_was_left_out(bare, caplog):
    features = RankingSettings(beside=["photometry", "structure"]).features(bare)
    assert features.matrix.shape == (20, 4)
    assert [text.split()[0] for text in features.left_out] == ["photometry", "structure"]
    assert "without photometry" in caplog.text


def test_a_catalogue_column_of_a_store_without_a_survey_is_an_error(bare):
    with pytest.raises(RarezooError, match="survey"):
        features_of(bare, beside=["mass"])


def test_nothing_to_rank_by_is_refused(bare, store):
    for beside in ([], ["photometry"]):
        with pytest.raises(ConfigError, match="rank by"):
            features_of(bare, embedding=False, beside=beside)
    assert features_of(store, embedding=False, beside=["mass"]).matrix.shape == (GALAXIES - 1, 1)


def test_embeddings_that_are_not_finite_are_refused_with_the_galaxies():
    embeddings = np.ones((5, 3), dtype=np.float32)
    embeddings[[1, 3], 0] = [np.nan, np.inf]
    damaged = SimpleNamespace(ids=np.array(list("abcde")), embeddings=lambda: embeddings)
    with pytest.raises(StoreError, match=r"2 of 5") as caught:
        features_of(damaged, beside=[])
    assert "b" in str(caught.value)
    assert "d" in str(caught.value)
