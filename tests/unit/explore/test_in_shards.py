"""What a scan shard by shard finds is what is found in memory."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines.local import Local
from rarezoo.errors import ConfigError, OutputError, StoreError
from rarezoo.explore.in_shards import similar_in_shards
from rarezoo.explore.labels import Labels, Rating
from rarezoo.explore.labels_commands import LabelsExport
from rarezoo.explore.rank import RankRun
from rarezoo.explore.rankers.logistic import Logistic
from rarezoo.explore.rankers.ridge import Ridge
from rarezoo.explore.similar import similar
from rarezoo.explore.similar_command import SimilarRun

pytestmark = pytest.mark.unit
IDS = [f"g{row}" for row in range(400)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of many shards, in which one galaxy is there twice and one has no finite embedding."""
    vectors = np.random.default_rng(0).normal([3, -1, 0, 0, 2, 0], [1, 2, 1, 1, 1, 3], (400, 6)).astype(np.float32)
    vectors[250] = vectors[3]
    out = tmp_path_factory.mktemp("shards") / "store"
    store = EmbeddingStore.from_array(IDS, vectors, out=out, shard_rows=31)
    shard = pq.read_table(out / "shard-00000.parquet")
    vectors[9, 2] = np.nan
    at = shard.column_names.index(tables.EMBEDDING)
    pq.write_table(
        shard.set_column(at, shard.schema.field(at), tables.vectors(vectors[:31])), out / "shard-00000.parquet"
    )
    return EmbeddingStore.open(store.folder)


@pytest.mark.parametrize(
    ("examples", "settings"),
    [
        (["g3"], {}),
        (["g3"], {"identical": False}),
        (["g5", "g7"], {"by": "cosine"}),
        (["g5", "g7", "g8"], {}),
        (["g5"], {"against": ["g100", "g101"], "seed": 4}),
    ],
)
def test_similar_galaxies_are_those_found_in_memory(store, tmp_path, examples, settings):
    in_memory = similar(store, examples, 200, **settings)
    scanned = similar_in_shards(store, examples, 200, engine=Local(), folder=tmp_path, **settings)
    assert scanned.ids == in_memory.ids
    assert np.allclose(scanned.scores, in_memory.scores, atol=1e-5)
    assert scanned.way == in_memory.way
    assert scanned.about["left_out"] == in_memory.about["left_out"]
    assert scanned.about["searched"] == in_memory.about["searched"]


def test_entries_near_an_example_on_the_sky_are_left_out_as_in_memory(sky, tmp_path):
    in_memory = similar(sky, "g0", 13, beside="")
    scanned = similar_in_shards(sky, ["g0"], 13, engine=Local(), folder=tmp_path)
    assert scanned.ids == in_memory.ids
    assert [entry.of for entry in scanned.left_out] == [entry.of for entry in in_memory.left_out]
    assert np.allclose(scanned.distances, in_memory.distances, equal_nan=True)


@pytest.fixture
def rated(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
    # A column without spread, and a galaxy that is far out.
    vectors[:, 4] = 7
    vectors[11, 0] = 90
    store = EmbeddingStore.from_array(IDS[:300], vectors, out=tmp_path / "store", shard_rows=29)
    with Labels.of(store) as labels:
        for row in range(0, 120, 6):
            value = float(vectors[row, 0] > 0)
            why = "random" if row % 4 else "model"
            labels.add([Rating(IDS[row], "interesting", value, "answer", "ann", why=why)])
    return store


@pytest.mark.parametrize("ranker", [None, Ridge(), Logistic()])
def test_a_ranking_is_that_of_the_memory(rated, ranker):
    settings = {"source": str(rated.folder), "beside": [], "first": 40, **({"ranker": ranker} if ranker else {})}
    in_memory, scanned = (RankRun(**settings, engine=engine).run() for engine in (None, Local()))
    for name in (tables.ID, tables.RANK, tables.INTEREST, tables.NEAREST_RATED):
        assert scanned.table[name].to_pylist() == in_memory.table[name].to_pylist()
    for name in (tables.SCORE, tables.UNCERTAINTY):
        assert np.allclose(scanned.table[name].to_numpy(), in_memory.table[name].to_numpy(), atol=1e-4)
    assert scanned.progress == in_memory.progress


def test_a_ranking_of_embeddings_that_are_not_finite_is_refused(store):
    with Labels.of(store) as labels:
        labels.add([Rating("g1", "interesting", 1.0, "answer", "ann", why="model")])
    with pytest.raises(StoreError, match=r"not finite.*1 of 400"):
        RankRun(source=str(store.folder), first=5, engine=Local()).run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "nobody"}, "nobody"),
        ({"id": "g9"}, "not finite.*g9"),
        ({"id": "g1", "against": "g1"}, "example and a counter-example.*g1"),
        ({"id": "g1", "k": 400}, "k, the number of galaxies.*1 to 398"),
        ({"id": "g1", "where": "redshift < 1"}, "where="),
        ({"words": "ring"}, "words=.*engine="),
    ],
)
def test_what_cannot_be_scanned_is_one_message(store, settings, message):
    with pytest.raises(ConfigError, match=message):
        SimilarRun(search_or_store=str(store.folder), engine=Local(), **settings).run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "first=0"),
        ({"first": 5, "beside": ["mass"]}, "beside=mass"),
        ({"first": 5, "components": 2}, "components=2"),
    ],
)
def test_a_ranking_that_cannot_be_scanned_is_one_message(rated, settings, message):
    with pytest.raises(ConfigError, match=message):
        RankRun(source=str(rated.folder), engine=Local(), **settings).run()


def test_a_ranking_and_ratings_replace_an_earlier_file_of_theirs_and_no_other(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    folder = EmbeddingStore.from_array(IDS[:60], vectors, out=tmp_path / "store").folder
    with Labels.of(EmbeddingStore.open(folder)) as labels:
        labels.add([Rating(f"g{row}", "odd", row % 2, "answer", "ann") for row in range(10, 20)])
    commands = {
        "ranking.csv": lambda out: RankRun(
            source=str(folder), label="odd", first=50, engine=Local(), out=str(out)
        ).run(),
        "labels.csv": lambda out: LabelsExport(search=str(folder), out=str(out)).run(),
    }
    (tmp_path / "mine.csv").write_text("id_str,magnitude\n")
    for name, command in commands.items():
        command(tmp_path / name)
        command(tmp_path / name)
    for name, command in commands.items():
        for other in {"mine.csv", *commands} - {name}:
            before = (tmp_path / other).read_bytes()
            with pytest.raises(OutputError, match="another file is there already"):
                command(tmp_path / other)
            assert (tmp_path / other).read_bytes() == before
