"""Stores, searches and comparisons work where torch cannot be imported."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarezoo.embeddings.store import EmbeddingStore

pytestmark = pytest.mark.pipeline

SCRIPT = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "pytorch_lightning", "timm", "wandb"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, NoTorch())

import numpy as np
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.run import SearchRun
from rarezoo.searches.significance import Significance

random = np.random.default_rng(0)
centres = np.repeat([0, 8, -8], 60)[:, None] * np.eye(6)[0] + np.repeat([0, 0, 9], 60)[:, None] * np.eye(6)[1]
vectors = (random.normal(size=(180, 6)) + centres).astype(np.float32)
ids = [f"g{row}" for row in range(180)]
for name in ("one", "two"):
    store = EmbeddingStore.from_array(ids, vectors, out=f"{sys.argv[1]}/{name}", name=name)
    run = SearchRun(
        store=str(store.folder), compress=Pca(n_components=2), drawing=Pca(n_components=2),
        clusterer=Hdbscan(min_samples=5, min_cluster_size=20, selection="leaf"),
        significance=Significance(surveys=0), out=f"{sys.argv[1]}/search_{name}",
    )
    search = run.run()
    assert run.run().about == search.about, "a second run of the same object returns the same search"
    assert search.page.exists()
    print(sorted(found.size > 40 for found in search))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folder of two imported stores and a search of each; the script fails if it imports torch."""
    home = tmp_path_factory.mktemp("imported")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (home / "printed").write_text(done.stdout)
    return home


def test_an_imported_store_is_searched_without_torch_and_without_a_survey(home):
    assert (home / "printed").read_text().splitlines() == ["[True, True, True]"] * 2


def test_searches_of_imported_stores_are_compared(home):
    from rarezoo.searches.compare import CompareRun

    CompareRun(searches=[str(home / "search_one"), str(home / "search_two")], out=str(home / "both")).run()
    assert list((home / "both").rglob("*.html"))


def test_the_command_imports_a_table(tmp_path):
    vectors = {f"feat_pca_{axis}": [float(axis), 0.5, 2.0] for axis in range(11)}
    pq.write_table(pa.table({"iauname": ["a", "b", "c"], **vectors}), tmp_path / "zoobot.parquet")
    words = ["store", "import", "zoobot.parquet", "out=mine", "id_column=iauname", "columns=feat_*"]
    done = subprocess.run(
        [sys.executable, "-c", "from rarezoo.cli import main; main()", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 embeddings of width 11" in done.stdout
    assert EmbeddingStore.open(tmp_path / "mine").embeddings()[0].tolist() == list(map(float, range(11)))
