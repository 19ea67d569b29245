"""cluster.py features=…: columns of a catalogue beside the images, and what the images do not predict of them."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from rarezoo import tables
from rarezoo.benchmark.hidden import hidden_vectors
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.searches.grades import SIGNIFICANT, STABLE
from rarezoo.searches.result import Search

pytestmark = pytest.mark.pipeline

SEARCH = [
    "store=store", "images=false", "beyond=false", "stability.refits=0", "logger=none", "compress@drawing=pca",
    "drawing.n_components=2", "significance.surveys=10", "significance.galaxies=1000",
]  # fmt: skip
COLUMNS = ["features.columns=colour,log_mass", "features.table=columns.parquet"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store of vectors, and a table in which some galaxies share an offset."""
    folder = tmp_path_factory.mktemp("features")
    sky = hidden_vectors(110, galaxies=1000, members=50, offset=5.0)
    EmbeddingStore.from_array(sky.ids, sky.embeddings, out=folder / "store", name="network")
    pq.write_table(sky.catalogue, folder / "columns.parquet")
    (folder / "header.csv").write_text("id_str,colour,log_mass\n")
    return folder, sky


def found(folder, members):
    """Purity and completeness of the significant class with most of the members; zeros if there is none."""
    search = Search.open(folder)
    shares = [(0.0, 0.0)]
    for each in search:
        if each.grade in (SIGNIFICANT, STABLE):
            inside = search.labels == each.id
            shares.append((float(members[inside].mean()), float(members[inside].sum() / members.sum())))
    return max(shares, key=lambda share: share[1])


def test_a_population_that_looks_ordinary_is_a_class_of_the_contrast(home, cli):
    folder, sky = home
    cli("cluster.py", *SEARCH, "features=contrast", *COLUMNS, "out=contrast", cwd=folder)
    purity, completeness = found(folder / "contrast", sky.members)
    assert purity > 0.8
    assert completeness > 0.8


@pytest.mark.parametrize(
    ("words", "contains"),
    [
        (["features=contrast"], ["features.columns="]),
        (["features=contrast", "features.columns=colour"], ["features.table=FILE"]),
        (["features=contrst", *COLUMNS], ["contrst", "Did you mean features=contrast"]),
        (["features=contrast", "features.columns=color", COLUMNS[1]], ["color", "Did you mean colour"]),
        (["features=contrast", *COLUMNS, "features.id_column=name"], ["name", "features"]),
        (["features=image", "features.columns=colour"], ["features.columns"]),
        (["features=image+catalogue", *COLUMNS, "features.weights={color:2}"], ["features.weights", "color"]),
        (["features=image+catalogue", *COLUMNS, "features.weights={colour:nan}"], ["features.weights", "colour"]),
        (["features=image+catalogue", *COLUMNS, "features.weight=inf"], ["features.weight", "inf"]),
        (["features=contrast", COLUMNS[0], "features.table=header.csv"], ["header.csv", "no rows"]),
    ],
)  # fmt: skip
def test_mistakes_have_one_message(home, cli, words, contains):
    finished = cli("cluster.py", *SEARCH, *words, "out=refused", cwd=home[0], expect=2)
    for text in contains:
        assert text in finished.message
    assert not (home[0] / "refused").exists()


@pytest.mark.slow
def test_it_is_found_with_the_columns_and_not_by_images_alone(home, cli):
    folder, sky = home
    for words, name in (([], "image"), (["features=image+catalogue", *COLUMNS], "both")):
        cli("cluster.py", *SEARCH, *words, f"out={name}", cwd=folder)
    assert found(folder / "image", sky.members) == (0.0, 0.0)
    purity, completeness = found(folder / "both", sky.members)
    assert purity > 0.8
    assert completeness > 0.8
    assert tables.read_json(folder / "both" / "run.json", fix="")["settings"]["features"]["option"] == "image+catalogue"


@pytest.mark.slow
def test_shuffled_columns_show_no_class():
    from benchmarks.hidden import measured
    from rarezoo.searches.features.contrast import Contrast

    features = Contrast(columns=["colour", "log_mass"])
    wrong = 0
    for seed in range(200, 240):
        sky = hidden_vectors(seed, galaxies=1000, members=0)
        wrong += measured(sky, sky.shuffled(seed), features, surveys=10, seed=seed)["classes"] > 0
    assert binomtest(wrong, 40, 0.05, alternative="greater").pvalue > 0.01, wrong
    assert np.isfinite(wrong)
