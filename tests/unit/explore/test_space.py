import numpy as np
import pytest
from made_up import survey_on_disk

from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError
from rarezoo.explore.features import Features, parts_beside
from rarezoo.explore.pool import Pool
from rarezoo.explore.scores import scores_of
from rarezoo.explore.similar import similar
from rarezoo.searches.result import Search

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return Search.open(survey_on_disk(tmp_path_factory.mktemp("space")))


def unit_length(values):
    about = values - values.mean(axis=0)
    return about / np.sqrt(np.square(about).sum(axis=1).mean())


def test_galaxies_with_images_are_compared_by_embedding_photometry_structure_and_answers_alike(search):
    pool, store = Pool.of(search), search.store
    measured = Features.of(parts_beside(store, ["photometry", "structure"], weight=1)[0]).matrix
    answers = np.column_stack([column.to_numpy() for column in pool.predicted_answers().columns])
    joint = np.hstack([unit_length(part.astype(np.float64)) for part in (store.embeddings(), measured, answers)])
    joint /= np.linalg.norm(joint - joint.mean(axis=0), axis=1, keepdims=True)
    found = similar(pool, "g0010", 20, by="cosine", identical=False, apart=0)
    row = list(store.ids).index("g0010")
    np.testing.assert_allclose(found.scores, (joint @ joint[row])[found.rows], atol=1e-4)
    best = np.argsort(-np.delete(joint @ joint[row], row))[:20]
    assert set(found.rows) == set(np.delete(np.arange(len(joint)), row)[best])
    assert found.way.endswith("by the embedding, photometry, structure and predicted answers")
    assert pool.space(["auto"]) is pool.space(["auto"])
    # The whitening is made once for each seed.
    assert pool.space(["auto"]).whitening(0)[1] is pool.space(["auto"]).whitening(0)[1]
    space = pool.space(["auto"])
    expected = scores_of(space.index, space.index.centred.directions[row : row + 1]).values
    by_probe = similar(pool, "g0010", 20, identical=False, apart=0)
    np.testing.assert_allclose(by_probe.scores, expected[by_probe.rows], atol=1e-5)


def test_the_embedding_alone_is_compared_on_request_without_images_and_for_vectors_from_elsewhere(search):
    bare = EmbeddingStore.from_array(
        search.store.ids, search.store.embeddings(), out=search.folder.with_name("bare"), name="made_up"
    )
    expected = similar(bare, "g0010", 10, identical=False, apart=0)
    for found in (
        similar(search, "g0010", 10, beside="", identical=False, apart=0),
        similar(search, "g0010", 10, beside=[], identical=False, apart=0),
    ):
        assert found.ids == expected.ids
        assert found.way == expected.way
    vector = search.store.embeddings()[list(search.store.ids).index("g0010")]
    assert similar(search, vector, 11, identical=False).ids[1:] == expected.ids


def test_a_column_of_the_catalogue_can_stand_beside_the_embedding(search):
    found = similar(search, "g0010", 5, beside="mass", identical=False, apart=0)
    assert found.way.endswith("by the embedding and mass")
    assert found.ids != similar(search, "g0010", 5, beside="", identical=False, apart=0).ids


@pytest.mark.parametrize(
    ("beside", "named"),
    [("masss", "mass"), ("note", "note"), ("auto,mass", "auto"), ("answers", "answers")],
    ids=["misspelt", "text", "auto and more", "no answers"],
)
def test_what_cannot_stand_beside_the_embedding_is_refused(search, beside, named, tmp_path):
    source = search
    if beside == "answers":
        source = EmbeddingStore.from_array(["a", "b", "c"], np.eye(3, dtype=np.float32), out=tmp_path / "s", name="net")
    with pytest.raises(ConfigError, match=named):
        similar(source, "a" if beside == "answers" else "g0010", 1, beside=beside)
    with pytest.raises(ConfigError, match="beside"):
        similar(search, search.store.embeddings()[0], beside="mass")
