"""A scan shard by shard finds what the index in memory finds."""

import numpy as np
import pytest

from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines.local import Local
from rarezoo.errors import ConfigError, StoreError

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    vectors = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    # Two galaxies with the same embedding, and one without a direction from the mean.
    vectors[250] = vectors[3]
    vectors[77] = vectors.mean(axis=0)
    out = tmp_path_factory.mktemp("scan") / "store"
    return EmbeddingStore.from_array([f"g{row}" for row in range(300)], vectors, out=out, shard_rows=31)


def test_the_answer_is_that_of_the_index_in_memory(store):
    wanted = ["g3", "g299", "g120"]
    in_memory, scanned = (store.neighbours(wanted, 12, engine=engine) for engine in (None, Local()))
    assert scanned["neighbour"].tolist() == in_memory["neighbour"].tolist()
    assert np.allclose(scanned["similarity"], in_memory["similarity"], atol=1e-6)
    assert scanned["neighbour"][0] == "g250"


@pytest.mark.parametrize(
    ("ids", "k", "error"), [("nobody", 3, StoreError), ("g1", 0, ConfigError), ("g1", 300, StoreError)]
)
def test_what_cannot_be_found_is_refused(store, ids, k, error):
    with pytest.raises(error):
        store.neighbours(ids, k, engine=Local())
