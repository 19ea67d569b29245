"""Similar galaxies are those of the definition, without the examples and copies of them, which are counted."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError
from rarezoo.explore.pool import Pool
from rarezoo.explore.similar import IDENTICAL, NEAR, similar

pytestmark = pytest.mark.unit


def expected_order(store, galaxy):
    """Ids in the order of the cosine with a galaxy about the mean, in double precision."""
    vectors = store.embeddings().astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = units @ units[list(store.ids).index(galaxy)]
    order = np.argsort(-cosines, kind="stable")
    return [str(store.ids[row]) for row in order if store.ids[row] != galaxy], np.sort(cosines)[::-1][1:]


def test_galaxies_come_in_the_order_of_the_cosine_about_the_mean(plain_store):
    frame = plain_store.similar("J0007", k=299, by="cosine")
    ids, cosines = expected_order(plain_store, "J0007")
    assert frame["id_str"].tolist() == ids
    np.testing.assert_allclose(frame["score"], cosines, atol=1e-6)
    assert frame["rank"].tolist() == list(range(1, 300))
    neighbours = plain_store.neighbours("J0007", k=5)
    assert neighbours["neighbour"].tolist() == ids[:5]


def test_a_vector_can_be_asked_for_instead_of_a_galaxy(plain_store):
    row = list(plain_store.ids).index("J0007")
    frame = plain_store.similar(plain_store.embeddings()[row], k=3)
    others = plain_store.similar("J0007", k=2)
    assert frame["id_str"].tolist() == ["J0007", *others["id_str"]]
    assert frame["score"][0] > frame["score"][1]
    by_cosine = plain_store.similar(plain_store.embeddings()[row], k=3, by="cosine")
    assert by_cosine["score"][0] == pytest.approx(1)
    assert frame.attrs["left_out"]["examples"] == 0


def test_examples_are_left_out_and_counted(plain_store):
    frame = plain_store.similar(["J0001", "J0002", "J0001"], k=200, against="J0003,J0004")
    assert not {"J0001", "J0002", "J0003", "J0004"} & set(frame["id_str"])
    assert frame.attrs["left_out"] == {"examples": 4, "within_apart": 0, "near_identical": 0}
    assert frame.attrs["examples"] == ["J0001", "J0002"]
    assert frame.attrs["against"] == ["J0003", "J0004"]
    assert frame.attrs["ranked_by"].startswith("probe")


def test_entries_near_an_example_on_the_sky_are_left_out_and_counted(sky):
    result = similar(sky, "g0", 14 - 1)
    assert "g1" not in result.ids
    assert [(entry.reason, entry.of) for entry in result.left_out if entry.reason == NEAR] == [(NEAR, "g0")]
    assert result.about["left_out"]["within_apart"] == 1
    assert "g1" in similar(sky, "g0", 13, apart=20).ids
    assert "g1" in similar(sky, "g0", 13, apart=0).ids


def test_near_identical_images_are_left_out_and_counted(sky):
    result = similar(sky, "g2", 12)
    assert "g3" not in result.ids
    assert result.compared == "images"
    assert [(entry.reason, entry.of) for entry in result.left_out] == [(IDENTICAL, "g2")]
    assert "g3" in similar(sky, "g2", 14, identical=False).ids


def test_of_two_copies_in_a_result_only_the_first_is_shown(sky):
    result = similar(sky, "g8", 14)
    assert len({"g2", "g3"} & set(result.ids)) == 1
    (copy,) = result.left_out
    assert copy.reason == IDENTICAL
    assert {copy.of, str(sky.ids[copy.row])} == {"g2", "g3"}


def test_without_images_equal_embeddings_are_copies(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    vectors[5] = vectors[0]
    vectors[7] = vectors[6] * (1 + 1e-6)
    store = EmbeddingStore.from_array([f"g{row}" for row in range(20)], vectors, out=tmp_path, name="net")
    result = similar(store, "g0", 17)
    assert result.compared == "embeddings"
    assert {entry.of for entry in result.left_out} in ({"g0", "g6"}, {"g0", "g7"})
    assert result.about["left_out"]["near_identical"] == 2


def test_the_distance_from_the_nearest_example_is_given_and_positions_with_it(sky):
    frame = sky.similar(["g0", "g4"], k=12)
    row = frame[frame["id_str"] == "g5"].iloc[0]
    assert (row["ra"], row["dec"]) == (15.0, 2.5)
    assert row["distance_arcsec"] == pytest.approx(3600 * np.hypot(np.cos(np.radians(2.25)), 0.5), rel=1e-3)
    assert np.isnan(frame[frame["id_str"] == "g15"]["distance_arcsec"].iloc[0])


def test_filters_come_before_the_ranking(sky):
    frame = sky.similar("g0", where="redshift > 0.05 and redshift < 0.09", apart=0)
    assert sorted(frame["id_str"]) == ["g6", "g7", "g8"]
    assert frame.attrs["filters"] == [
        {"filter": "redshift > 0.05 and redshift < 0.09", "kept": 3, "undecided": 1}
    ]  # fmt: skip
    assert frame.attrs["searched"] == 3


def test_a_position_stands_for_the_galaxy_that_is_there(sky):
    frame = sky.similar("15.001 2.5", k=2)
    assert frame.attrs["examples"] == ["g5"]
    assert "taken for g5, 3.6 arcsec away" in frame.attrs["notes"][0]
    with pytest.raises(ConfigError, match=r"within 20.0 arcsec.*nearest is g5, 36.0 arcsec"):
        sky.similar("15.01 2.5")
    assert similar(sky, "15.01 2.5", 2, radius=40).about["examples"] == ["g5"]


def test_a_galaxy_that_was_skipped_at_embedding_says_so(sky):
    for target in ("g14", "24 7"):
        with pytest.raises(ConfigError, match=r"no embedding, because its image could not be read.*: g14"):
            sky.similar(target)


@pytest.mark.parametrize(
    ("examples", "settings", "message"),
    [
        ("J007", {}, "has this id: J007. Did you mean J0007"),
        ("something else", {}, "has this id: something else. Ids are such as J0000, J0001"),
        ("J0007, J9999x", {}, "has this id: J9999x"),
        ("", {}, "no example"),
        ([], {}, "no example"),
        ("10 20", {}, "positions of the galaxies are not known"),
        ("J0007", {"k": 300}, "number of galaxies: 300. Choose 1 to 299"),
        ("J0007", {"k": 0}, "Choose 1 to 299"),
        ("J0007", {"against": "J0007"}, "an example and a counter-example: J0007"),
        ("J0007", {"by": "magic"}, "no such way to rank: magic. Choose auto, cosine, probe"),
        (np.zeros(3), {}, "as wide as those of the store"),
        (np.full(8, np.nan), {}, "finite numbers"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_way_out(plain_store, examples, settings, message):
    with pytest.raises(ConfigError, match=message):
        plain_store.similar(examples, **settings)


def test_one_galaxy_has_no_others(tmp_path):
    store = EmbeddingStore.from_array(["only"], np.ones((1, 4), dtype=np.float32), out=tmp_path, name="net")
    with pytest.raises(ConfigError, match="no other galaxy than the examples"):
        store.similar("only")


def test_fewer_galaxies_than_asked_for_are_all_shown_with_a_warning(sky, caplog):
    frame = sky.similar("g0", k=14)
    assert len(frame) == 12
    assert "only 12 galaxies can be shown instead of 14" in caplog.text


def test_without_a_number_24_are_shown_or_all(sky, plain_store):
    assert len(plain_store.similar("J0001")) == 24
    assert len(sky.similar("g0", apart=0, where="redshift > 0.05")) == 9


def with_nan(folder):
    """A store of which a shard was changed so that the embedding of g3 is not finite."""
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    store = EmbeddingStore.from_array([f"g{row}" for row in range(20)], vectors, out=folder, name="net")
    (path,) = folder.glob("shard-*.parquet")
    table = pq.read_table(path)
    vectors[3, 1] = np.nan
    place = table.column_names.index(tables.EMBEDDING)
    changed = table.set_column(place, table.schema.field(place), pa.chunked_array([tables.vectors(vectors)]))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    return EmbeddingStore.open(store.folder)


def test_a_galaxy_whose_embedding_is_not_finite_is_no_result_and_no_example(tmp_path):
    store = with_nan(tmp_path)
    assert "g3" not in set(store.similar("g0", k=18)["id_str"])
    assert "g3" not in set(store.neighbours("g0", k=18)["neighbour"])
    assert "g3" not in set(store.similar(["g0", "g1", "g2"], k=16)["id_str"])
    with pytest.raises(ConfigError, match="embedding of this galaxy is not finite: g3"):
        store.similar("g3")
    with pytest.raises(ConfigError, match="Choose 1 to 18"):
        store.similar("g0", k=19)


def test_a_folder_that_holds_neither_search_nor_store_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a finished search nor an embedding store"):
        Pool.of(tmp_path)


def test_a_survey_that_is_gone_is_done_without(sky, tmp_path, caplog):
    shutil.copytree(sky.folder, tmp_path / "moved")
    manifest = tmp_path / "moved" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("galaxies.csv", "gone.csv"))
    frame = EmbeddingStore.open(tmp_path / "moved").similar("g2", k=3)
    assert len(frame) == 3
    assert "ra" not in frame
    assert "survey is not used" in caplog.text


def test_equal_embeddings_are_copies_although_they_have_no_direction(tmp_path):
    # The mean of the survey is where a, b and c are.
    ids, vectors = ["a", "b", "c", "d", "e"], np.array([[2, 2], [2, 2], [2, 2], [3, 2], [1, 2]], dtype=np.float32)
    store = EmbeddingStore.from_array(ids, vectors, out=tmp_path, name="net")
    assert similar(store, "d", 4).ids == ["a", "e"]
    assert similar(store, "d", 4, identical=False).ids == ["a", "b", "c", "e"]
    for by in ("cosine", "probe"):
        with pytest.raises(ConfigError, match="no common direction: 3 examples"):
            similar(store, ids[:3], 2, by=by)
