"""The probe learns every kind of label from a made-up embedding, and says what it was measured by."""

import numpy as np
import pytest

import rarezoo as rz
from rarezoo.errors import ConfigError, DataError
from rarezoo.prediction.space import Space

pytestmark = pytest.mark.unit
N = 700


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory, vectors):
    """A store of three shards."""
    ids = [f"g{row}" for row in range(N)]
    return rz.EmbeddingStore.from_array(ids, vectors, out=tmp_path_factory.mktemp("store"), shard_rows=300)


def test_the_space_is_the_same_for_chosen_rows_and_for_all(store, vectors):
    space, rows = Space.of(store), np.array([650, 3, 310])
    whole = np.vstack([matrix for _, matrix in space.blocks()])
    np.testing.assert_array_equal(space.rows(rows), whole[rows])
    np.testing.assert_allclose(whole, (vectors - vectors.mean(axis=0)) / vectors.std(axis=0), atol=1e-4)
    assert space.distance == pytest.approx(4, rel=0.01)


def test_a_rare_kind_is_found_from_a_few_labels_and_the_probe_is_recommended(store, vectors):
    truth = vectors[:, 0] + vectors[:, 1] > 1.8
    random = np.random.default_rng(1)
    rows = [
        *random.choice(np.flatnonzero(truth), 12, replace=False),
        *random.choice(np.flatnonzero(~truth), 48, replace=False),
    ]
    found = rz.probe(store, {f"g{row}": int(truth[row]) for row in rows}, label="ring")
    table = found.predict()
    assert table["id_str"].tolist() == store.ids.tolist()
    assert truth[np.argsort(-table["probability"].to_numpy())[:20]].mean() > 0.8
    assert found.published.by == "cross-validation"
    assert "60 labels" in found.summary()
    assert "recommended" in found.summary()


def test_labelled_galaxies_are_a_share_of_the_survey_also_if_no_other_seems_to_be_like_them(tmp_path):
    random = np.random.default_rng(0)
    values = random.normal(size=(600, 16)).astype(np.float32)
    values[:40] = 6 + 0.2 * values[:40]
    ids = [f"J{row:04d}" for row in range(600)]
    own = rz.EmbeddingStore.from_array(ids, values, out=tmp_path / "store")
    labels = {ids[row]: int(row < 40) for row in [*range(20), *range(100, 120)]}
    chances = rz.probe(own, labels, label="ring").predict()["probability"].to_numpy()
    # With a share of 0 the twenty rings among the labels would be none.
    assert chances[:20].min() > 0.05
    assert chances.sum() > 10


def test_many_labels_keep_a_test_split_apart(store, vectors):
    labels = {f"g{row}": int(vectors[row, 0] > 0) for row in range(300)}
    found = rz.probe(store, labels, learner="linear")
    assert found.published.by == "test split"
    assert (found.splits == "test").sum() > 30
    assert found.published.evaluations[0].auc.value > 0.95


@pytest.mark.parametrize(("rare", "by"), [(2.0, "cross-validation"), (0.0, "test split")])
def test_a_rare_tag_is_not_evaluated_on_a_handful_of_galaxies(store, vectors, rare, by):
    tags = {f"g{row}": ["up"] * int(vectors[row, 0] > 0) + ["far"] * int(vectors[row, 1] > rare) for row in range(300)}
    published = rz.probe(store, tags, label="x", learner="linear").published
    assert published.by == by
    assert any("one of the tags" in note for note in published.notes) == (by == "cross-validation")


@pytest.mark.parametrize(
    ("kind", "method"),
    [("number", "linear"), ("number", "kernel"), ("classes", "linear"), ("tags", "kernel"), ("counts", "linear")],
)
def test_every_kind_of_label_is_learnt(store, vectors, kind, method):
    share = 1 / (1 + np.exp(-2 * vectors[:, 0]))
    sign = vectors[:, 0] > 0
    cells = {
        "number": lambda row: float(vectors[row, 0]),
        "classes": lambda row: "up" if sign[row] else "down",
        "tags": lambda row: ["up"] * int(sign[row]) + ["right"] * int(vectors[row, 1] > 0),
    }
    if kind == "counts":
        yes = np.round(20 * share[:200])
        labels = rz.OwnLabels(
            store.ids[:200], kind, ("up", "down"), np.column_stack([yes, 20 - yes]).astype(np.float32)
        )
    else:
        labels = {f"g{row}": cells[kind](row) for row in range(200)}
    table = rz.probe(store, labels, label="x", learner=method).predict()
    column = {"number": "value", "counts": "up_fraction"}.get(kind, "up_probability")
    assert abs(np.corrcoef(table[column], vectors[:, 0])[0, 1]) > 0.75
    assert {"number": "low", "counts": "up_low", "classes": "class", "tags": "up_set"}[kind] in table


@pytest.mark.parametrize(
    ("labels", "settings", "error", "message"),
    [
        ({"other": 1, "another": 0}, {}, DataError, ["the labels"]),
        ({"g1": 1, "g2": 1, "g3": 1}, {}, DataError, ["one class only"]),
        ({"g1": 1, "g2": 0}, {"lerner": "linear"}, ConfigError, ["lerner", "learner"]),
        ({"g1": 1, "g2": 0}, {"learner": "forest"}, ConfigError, ["forest", "kernel"]),
    ],
)
def test_what_cannot_be_learnt_is_refused(store, labels, settings, error, message):
    with pytest.raises(error) as refused:
        rz.probe(store, labels, **settings)
    assert all(part in str(refused.value) for part in message), refused.value
