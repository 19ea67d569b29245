"""HATS catalogues: every galaxy is there once, whatever its place on the sky, and what cannot be used is refused."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rarezoo import tables
from rarezoo.data.crossmatch import CrossMatchRun
from rarezoo.data.hats import HatsCatalogue, write_hats
from rarezoo.data.reading import read_any_table
from rarezoo.data.surveys.hats import Hats
from rarezoo.embeddings.hats import store_from_hats, store_to_hats
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, DataNotFound, OutputError, StoreError
from rarezoo.physical.join import join

pytest.importorskip("hats_import")
pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]
GALAXIES, WIDTH = 120, 5
# Both poles, and both sides of right ascension 0.
ODD = [(0.0, 90.0), (123.0, -90.0), (359.9999, 1.0), (0.0001, 1.0), (360.0, -3.0), (-1.0, 20.0)]


def picture(row):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (row, 255 - row, 9)).save(stream, format="PNG")
    return stream.getvalue()


def galaxies():
    random = np.random.default_rng(0)
    ra, dec = random.uniform(0, 360, GALAXIES), np.degrees(np.arcsin(random.uniform(-1, 1, GALAXIES)))
    ra[: len(ODD)], dec[: len(ODD)] = zip(*ODD, strict=True)
    return pa.table({
        "id_str": [f"g{row:03d}" for row in range(GALAXIES)], "ra": ra, "dec": dec,
        "mag": np.linspace(15, 20, GALAXIES),
        "embedding": tables.vectors(random.normal(size=(GALAXIES, WIDTH)).astype(np.float32)),
        "image": pa.array([picture(row) for row in range(GALAXIES)], pa.binary()),
        "file": [f"{row}.png" for row in range(GALAXIES)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A catalogue in several partitions, of which some hold one galaxy."""
    folder = tmp_path_factory.mktemp("hats") / "survey"
    return write_hats(iter([galaxies().slice(0, 50), galaxies().slice(50)]), folder, margin=0, partition_rows=12)


@pytest.fixture
def copy(catalogue, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(catalogue, tmp_path / "copy")


def partition_files(folder):
    return [file for group in HatsCatalogue.open(folder).files for file in group]


def test_every_galaxy_is_in_one_partition(catalogue):
    known = HatsCatalogue.open(catalogue)
    ids = [galaxy for part in known.partitions(["id_str"]) for galaxy in part["id_str"].to_pylist()]
    assert sorted(ids) == galaxies()["id_str"].to_pylist()
    assert len(known.counts) > 8
    rows = np.array([GALAXIES - 1, 0, 17])
    assert known.take(rows, ["id_str"])["id_str"].to_pylist() == [ids[row] for row in rows]


def test_a_survey_opens_only_what_is_asked_for_and_reads_its_images(catalogue):
    survey = Hats(str(catalogue), columns=["mag"])
    whole, outline = survey.open(), survey.outline()
    assert (len(whole), whole.sha256) == (outline.rows, outline.sha256)
    some = survey.open_at(np.array([70, 3]))
    assert some.ids.tolist() == whole.ids[[70, 3]].tolist()
    for row, galaxy in enumerate(some.ids):
        number = int(galaxy[1:])
        assert some.images.cutout(row)[0, 0].tolist() == [number, 255 - number, 9]
        assert some.catalogue["mag"][row].as_py() == galaxies()["mag"][number].as_py()


def test_images_can_be_files_that_a_column_names(catalogue, tmp_path):
    for row in range(GALAXIES):
        (tmp_path / f"{row}.png").write_bytes(picture(row))
    opened = Hats(str(catalogue), image_column="file", images=str(tmp_path)).open()
    assert opened.images.cutout(5)[0, 0, 0] == int(opened.ids[5][1:])


def test_an_id_in_two_partitions_is_refused(copy):
    first, second = (pq.read_table(file, partitioning=None) for file in partition_files(copy)[:2])
    names = second["id_str"].to_pylist()
    names[0] = first["id_str"][0].as_py()
    at = second.column_names.index("id_str")
    pq.write_table(second.set_column(at, "id_str", pa.array(names)), partition_files(copy)[1])
    with pytest.raises(DataError, match=f"partitions \\[0, 1\\].*{names[0]}"):
        Hats(str(copy)).outline()


def test_partitions_of_different_versions_are_refused(copy):
    file = partition_files(copy)[2]
    pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["mag"]), file)
    with pytest.raises(DataError, match="different versions"):
        HatsCatalogue.open(copy)


def test_a_partition_may_have_no_galaxy(copy):
    file = partition_files(copy)[0]
    lost = pq.read_table(file, partitioning=None)
    pq.write_table(lost.slice(0, 0), file)
    survey = Hats(str(copy))
    opened = survey.open()
    assert len(opened) == GALAXIES - len(lost)
    assert survey.open_at(np.array([0])).ids[0] == opened.ids[0]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("collection", DataNotFound, "hats.properties"), ("catalog_info.json", DataError, "HiPSCat")],
)
def test_a_folder_that_is_no_catalogue_is_refused(tmp_path, name, error, message):
    (tmp_path / name).write_text("{}")
    with pytest.raises(error, match=message):
        HatsCatalogue.open(tmp_path)


def test_a_column_that_is_not_there_is_named(catalogue):
    with pytest.raises(DataError, match="id_column"):
        Hats(str(catalogue), id_column="name").open()
    with pytest.raises(DataError, match="no images"):
        Hats(str(catalogue), image_column="mag").open()
    with pytest.raises(ConfigError, match=r"data\.image_column"):
        Hats(str(catalogue), image_column="", images="cutouts")


def test_a_store_survives_the_way_to_hats_and_back(catalogue, tmp_path):
    store = store_from_hats(catalogue, out=tmp_path / "store", shard_rows=50)
    again = store_to_hats(store, tmp_path / "hats", margin=0, partition_rows=40)
    kind = HatsCatalogue.open(again).schema.field("embedding").type
    assert (kind.list_size, str(kind.value_type)) == (WIDTH, "float")
    back = store_from_hats(again, out=tmp_path / "back", shard_rows=7)
    # Both are in the order of the sky.
    assert back.ids.tolist() == store.ids.tolist()
    assert np.array_equal(back.embeddings(), store.embeddings())
    at = [int(galaxy[1:]) for galaxy in store.ids]
    assert np.array_equal(store.embeddings(), tables.matrix(galaxies(), "embedding")[at])
    assert store.survey().outline().rows == GALAXIES


def test_embeddings_that_are_not_finite_are_refused_or_left_out(copy, tmp_path):
    file = partition_files(copy)[1]
    part = pq.read_table(file, partitioning=None)
    vectors = tables.matrix(part, "embedding").copy()
    vectors[0, 2] = np.nan
    at = part.column_names.index("embedding")
    pq.write_table(part.set_column(at, "embedding", tables.vectors(vectors)), file)
    name = part["id_str"][0].as_py()
    with pytest.raises(StoreError, match=f"{name}.*not_finite=drop"):
        store_from_hats(copy, out=tmp_path / "refused")
    store = store_from_hats(copy, out=tmp_path / "store", not_finite="drop")
    assert (len(store), store.skipped()) == (GALAXIES - 1, [name])
    vectors[0, 2] = 1e30
    pq.write_table(part.set_column(at, "embedding", tables.vectors(vectors)), file)
    with pytest.raises(StoreError, match=r"the largest number: 1e\+30"):
        store_from_hats(copy, out=tmp_path / "large", not_finite="drop")


def test_a_newer_version_of_the_catalogue_is_another_survey(copy, tmp_path):
    store = store_from_hats(copy, out=tmp_path / "store")
    file = partition_files(copy)[0]
    part = pq.read_table(file, partitioning=None)
    names = [f"new{row}" for row in range(len(part))]
    pq.write_table(part.set_column(part.column_names.index("id_str"), "id_str", pa.array(names)), file)
    with pytest.raises(StoreError, match="survey has changed"):
        store.galaxies()
    with pytest.raises(StoreError, match="another run"):
        store_from_hats(copy, out=tmp_path / "store")


def test_nothing_is_written_over_and_rows_without_a_position_are_left_out(catalogue, tmp_path):
    with pytest.raises(OutputError, match="not empty"):
        write_hats(iter([galaxies()]), catalogue)
    nowhere = galaxies().set_column(1, "ra", pa.array(np.full(GALAXIES, np.nan)))
    with pytest.raises(DataError, match="positions="):
        write_hats(iter([nowhere]), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_store_without_positions_asks_for_them(tmp_path):
    store = EmbeddingStore.from_array(["a", "b"], np.eye(2, dtype=np.float32), out=tmp_path / "store")
    with pytest.raises(StoreError, match="positions="):
        store_to_hats(store, tmp_path / "hats")


def test_a_match_crosses_right_ascension_zero(catalogue, tmp_path):
    (tmp_path / "other.csv").write_text("name,ra,dec\nhere,0.0,1.0\npole,77.0,90.0\nnowhere,10.0,5.0\n")
    run = CrossMatchRun(
        left=str(tmp_path / "other.csv"), right=str(catalogue), out=str(tmp_path / "m.parquet"), radius=1
    )
    assert run.run().startswith("2 pairs")
    matched = pq.read_table(tmp_path / "m.parquet")
    assert dict(zip(matched["name"].to_pylist(), matched["id_str"].to_pylist(), strict=True)) == {
        "here": "g003", "pole": "g000",
    }  # fmt: skip
    with pytest.raises(OutputError, match="exists"):
        run.run()
    with pytest.raises(ConfigError, match="by=astropy"):
        CrossMatchRun(left=run.left, right=run.right, out=str(tmp_path / "n"), by="lsdb").run()


def test_a_catalogue_is_a_table_to_join_without_its_margins_vectors_and_images(tmp_path):
    folder = write_hats(iter([galaxies()]), tmp_path / "with_margins", margin=3600.0, partition_rows=12)
    read = read_any_table(folder)
    assert sorted(read["id_str"].to_pylist()) == galaxies()["id_str"].to_pylist()
    assert set(read.column_names) == {"id_str", "ra", "dec", "mag", "file"}
    some = galaxies().take([5, 50])
    for by in ("id", "position"):
        joined = join(some["id_str"].to_pylist(), some["ra"], some["dec"], [str(folder)], by=by)
        assert joined.table["mag"].to_pylist() == some["mag"].to_pylist()
