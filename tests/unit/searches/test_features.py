"""What a search works on: images with columns of a catalogue, and what the images do not predict of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarezoo.benchmark.hidden import hidden_vectors
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError
from rarezoo.searches.assign import AssignRun
from rarezoo.searches.compressors.none import NoCompression
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.features.catalogue import ImageAndCatalogue
from rarezoo.searches.features.contrast import Contrast
from rarezoo.searches.features.image import Image
from rarezoo.searches.run import SearchRun, search
from rarezoo.searches.significance import Significance
from rarezoo.searches.stability import Stability

pytestmark = pytest.mark.unit

COLUMNS = ["colour", "log_mass"]
QUICK = {
    "images": False, "beyond": False, "stability": Stability(refits=0), "compress": NoCompression(),
    "drawing": Pca(n_components=2), "significance": Significance(surveys=5, galaxies=500),
}  # fmt: skip


@pytest.fixture(scope="module")
def sky():
    return hidden_vectors(1, galaxies=500, members=25, offset=6.0)


def searched(features, sky, catalogue=None, rows=slice(None)):
    return features.searched(
        sky.embeddings[rows], ids=sky.ids[rows], catalogue=sky.catalogue if catalogue is None else catalogue,
        compressor=Pca(whiten=16), seed=0,
    )  # fmt: skip


def with_column(sky, name, values):
    return sky.catalogue.append_column(name, pa.array(values))


def test_a_pair_of_galaxies_is_as_far_apart_in_the_columns_as_in_the_images(sky):
    for weight in (1.0, 3.0):
        matrix = searched(ImageAndCatalogue(columns=COLUMNS, weight=weight), sky).matrix
        variances = matrix.var(axis=0)
        assert variances[:-2].sum() == pytest.approx(1, rel=0.01)
        assert variances[-2:].sum() == pytest.approx(weight**2, rel=0.01)
    heavier = searched(ImageAndCatalogue(columns=COLUMNS, weights={"colour": 3.0}), sky).matrix.std(axis=0)
    assert heavier[-2] / heavier[-1] > 2


def test_the_features_do_not_depend_on_the_order_of_the_galaxies_or_on_outliers(sky):
    turned = np.arange(len(sky.ids))[::-1]
    for features in (Contrast(columns=COLUMNS), ImageAndCatalogue(columns=COLUMNS)):
        matrix = searched(features, sky).matrix
        assert searched(features, sky, rows=turned).matrix[::-1] == pytest.approx(matrix, abs=2e-3)
        wild = sky.catalogue.set_column(1, "colour", pa.array([1e6, *sky.catalogue["colour"].to_pylist()[1:]]))
        other = searched(features, sky, wild).matrix
        assert np.abs(other[1:, -2:]).max() < 2 * np.abs(matrix[1:, -2:]).max()


def test_the_contrast_is_what_the_images_do_not_predict(sky):
    left = searched(Contrast(columns=COLUMNS), sky).matrix
    assert left[~sky.members].std(axis=0) == pytest.approx([1, 1], rel=0.15)
    centred = sky.embeddings - sky.embeddings.mean(axis=0)
    looks = np.linalg.svd(centred, full_matrices=False)[0][:, :5]
    colour = sky.catalogue["colour"].to_numpy()
    assert np.abs(np.corrcoef(looks, left, rowvar=False)[:5, 5:]).max() < 0.2
    assert np.abs(np.corrcoef(looks, colour, rowvar=False)[:5, 5]).max() > 0.2
    away = np.abs(left[sky.members].mean(axis=0) - left[~sky.members].mean(axis=0)).max()
    assert away > 5


def test_columns_that_say_the_same_or_stand_alone_are_no_mistake(sky):
    catalogue = sky.catalogue.append_column("twice", pa.array(2 * sky.catalogue["colour"].to_numpy() + 1))
    both = searched(Contrast(columns=["colour", "twice"]), sky, catalogue).matrix
    alone = searched(Contrast(columns=["colour"]), sky).matrix
    assert np.isfinite(both).all()
    assert np.abs(np.corrcoef(both[:, 1], alone[:, 0])[0, 1]) == pytest.approx(1, abs=1e-3)


def test_galaxies_without_a_value_are_left_out_or_spread_as_the_others_are(sky):
    colours = sky.catalogue["colour"].to_numpy().copy()
    lacking = np.arange(0, 500, 5)
    colours[lacking] = np.nan
    catalogue = sky.catalogue.set_column(1, "colour", pa.array(colours))
    dropped = searched(ImageAndCatalogue(columns=COLUMNS), sky, catalogue)
    assert dropped.kept.sum() == len(dropped.matrix) == 400
    assert "no value in colour, log_mass drops 100" in str(dropped.cuts[0])
    drawn = searched(ImageAndCatalogue(columns=COLUMNS, missing="draw"), sky, catalogue).matrix[:, -2]
    assert len(drawn) == 500
    assert 0.7 < drawn[lacking].std() / np.delete(drawn, lacking).std() < 1.4


@pytest.mark.parametrize(
    ("column", "values", "error", "contains"),
    [
        ("kind", ["spiral"] * 500, ConfigError, ["kind", "string"]),
        ("kind", [float("nan")] * 500, DataError, ["kind", "unknown"]),
        ("kind", [3.5] * 500, DataError, ["kind = 3.5", "same value"]),
        ("kind", [*[-99.0] * 60, *np.arange(440.0)], DataError, ["12%", "-99", "kind"]),
        ("kind", [*np.arange(50.0), *[None] * 450], ConfigError, ["50 of 500", "100 galaxies"]),
        ("knd", np.arange(500.0), ConfigError, ["kind", "Did you mean knd"]),
    ],
)
def test_columns_that_cannot_be_used_have_one_message_each(sky, column, values, error, contains):
    with pytest.raises(error) as caught:
        searched(Contrast(columns=["kind"]), sky, with_column(sky, column, values))
    for text in contains:
        assert text in str(caught.value)


def test_settings_that_do_not_fit_are_refused(sky):
    with pytest.raises(ConfigError, match=r"features\.columns="):
        Contrast()
    with pytest.raises(ConfigError, match="twice"):
        Contrast(columns=["a", "a"])
    with pytest.raises(ConfigError, match=r"features\.weights"):
        ImageAndCatalogue(columns=["a"], weights={"b": 1.0})
    with pytest.raises(ConfigError, match=r"features\.table=FILE"):
        Contrast(columns=COLUMNS).values(sky.ids, None)
    with pytest.raises(ConfigError, match="features=image"):
        SearchRun(store="a", features=Contrast(columns=COLUMNS), stability=Stability(stores=["b"]))
    assert "features" not in SearchRun(store="a").settings()
    assert SearchRun(store="a", features=Contrast(columns=["a"])).settings()["features"]["option"] == "contrast"
    assert Image().of_images


def test_a_whole_search_of_a_table_records_its_features_and_is_not_assigned(sky, tmp_path):
    store = EmbeddingStore.from_array(sky.ids, sky.embeddings, out=tmp_path / "store", name="network")
    pq.write_table(sky.catalogue.slice(0, 480), tmp_path / "columns.parquet")
    features = Contrast(columns=COLUMNS, table=str(tmp_path / "columns.parquet"))
    found = search(store, out=tmp_path / "search", features=features, **QUICK)
    assert found.about["searched"] == 480
    assert found.settings["features"]["columns"] == COLUMNS
    assert {"features.table"} <= set(found.about["inputs"])
    assert found.fitted.width == 2
    page = found.page.read_text()
    assert "no value in colour, log_mass" in page
    assert "features.columns" in page
    with pytest.raises(ConfigError, match="features=image"):
        AssignRun(search=str(found.folder), store=str(store.folder)).run()
    pq.write_table(sky.catalogue.slice(0, 470), tmp_path / "columns.parquet")
    with pytest.raises(OSError, match="other inputs"):
        search(store, out=tmp_path / "search", features=features, **QUICK)
