"""A folder of images with a table of ids and labels goes to a published table, where torch cannot be imported."""

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from made_up import survey_on_disk

from rarezoo.data.own_labels import OwnLabels
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.explore.labels import Labels
from rarezoo.explore.rating import Rating

pytestmark = pytest.mark.pipeline

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "pytorch_lightning", "timm", "wandb"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, NoTorch())
import rarezoo as rz
found = rz.probe(sys.argv[1], sys.argv[2], label="round", beside=["photometry"])
print(len(found.predict()), found.features)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store with its survey of images; a table says which galaxies are round."""
    home = tmp_path_factory.mktemp("labels")
    survey_on_disk(home, galaxies=120)
    ids = EmbeddingStore.open(home / "store").ids
    rows = [f'"{galaxy}",{int(row % 4 == 0)}' for row, galaxy in enumerate(ids) if 3 <= row < 80]
    (home / "round.csv").write_text("id,round\n" + "\n".join([*rows, "stranger,1"]) + "\n")
    return home


def test_the_command_writes_a_table_a_page_and_what_it_recommends(cli, home):
    words = [
        "probe",
        "store",
        "labels=round.csv",
        "label=round",
        "formats=fits,votable,csv",
        "learner=linear",
        "out=rings",
    ]
    done = cli("rarezoo", *words, cwd=home)
    table = pq.read_table(home / "rings" / "predictions.parquet")
    assert table.num_rows == 120
    assert {"id_str", "ra", "probability", "set", "label"} <= set(table.column_names)
    truth = np.arange(120) % 4 == 0
    assert np.corrcoef(truth, table["probability"].to_numpy())[0, 1] > 0.7
    assert len(Table.read(home / "rings" / "predictions.fits")) == 120
    assert {path.suffix for path in (home / "rings").glob("predictions.*")} == {".parquet", ".fits", ".vot", ".csv"}
    page = (home / "rings" / "index.html").read_text()
    assert all(part in page for part in ("The surest", "The least sure", "Likely label errors", "completeness"))
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "recommended" in done.out
    assert "stranger" in done.err + done.out
    assert cli("rarezoo", *words, cwd=home).out == done.out
    refused = cli("rarezoo", *words, "seed=3", cwd=home, expect=2)
    assert "seed" in refused.err


def test_a_file_of_the_user_in_the_output_folder_stays(cli, home):
    (home / "mine").mkdir()
    (home / "mine" / "predictions.csv").write_text("of last year\n")
    refused = cli("rarezoo", "probe", "store", "labels=round.csv", "label=round", "out=mine", cwd=home, expect=2)
    assert "would replace: mine/predictions.csv" in refused.err
    assert [path.name for path in (home / "mine").iterdir()] == ["predictions.csv"]


def test_ratings_are_labels_too(cli, home):
    store = EmbeddingStore.open(home / "store")
    with Labels.of(store) as labels:
        labels.add(
            [Rating(galaxy, "round", float(row % 4 == 0), "answer", "ann") for row, galaxy in enumerate(store.ids[:40])]
        )
        labels.write_table(home / "ratings.csv")
    first = cli("rarezoo", "probe", "store", "labels=store", "label=round", "page=false", "out=rated", cwd=home)
    second = cli("rarezoo", "probe", "store", "labels=ratings.csv", "label=round", "page=false", "out=export", cwd=home)
    assert "10 round, 30 not" in first.out
    # Finetuning reads them by the same door.
    for source in ("store", "store/labels.sqlite", "ratings.csv"):
        read = OwnLabels.read(home / source, label="round")
        assert (read.kind, read.names, int(read.values.sum()), len(read)) == ("binary", ("round",), 10, 40)
    assert first.out == second.out
    assert not (home / "rated" / "index.html").exists()
    refused = cli("rarezoo", "probe", "store", "labels=store", "label=rund", "out=other", cwd=home, expect=2)
    assert "round" in refused.err


def test_a_store_without_a_finetuned_label_sends_to_the_probe(cli, home):
    refused = cli("rarezoo", "predict", "store", "labels=round.csv", "label=round", "out=refused", cwd=home, expect=2)
    assert "rarezoo probe" in refused.err


def test_answers_of_a_finetuned_network_are_published(cli, home):
    whole = EmbeddingStore.open(home / "store")
    random, truth = np.random.default_rng(0), np.arange(120) % 4 == 0
    yes = np.clip(np.where(truth, 0.8, 0.2) + 0.1 * random.normal(size=120), 0.01, 0.99)
    EmbeddingStore.from_array(
        whole.ids,
        whole.embeddings(),
        out=home / "tuned",
        name="tuned",
        survey=whole.survey(),
        fractions={"round_yes": yes, "round_no": 1 - yes},
    )
    words = ["tuned", "labels=round.csv", "label=round", "validation=0.3", "test=0.3", "page=false", "out=published"]
    done = cli("rarezoo", "predict", *words, cwd=home)
    assert "test split" in done.out
    table = pq.read_table(home / "published" / "predictions.parquet")
    assert np.corrcoef(yes, table["probability"].to_numpy())[0, 1] > 0.8


def test_a_probe_needs_no_torch(home):
    words = [sys.executable, "-c", WITHOUT_TORCH, str(home / "store"), str(home / "round.csv")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["120", "('embedding',", "'photometry')"]
