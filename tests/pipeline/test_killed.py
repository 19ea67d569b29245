"""Commands that are killed in the middle: they go on with the same inputs only, and to the same bytes."""

import shutil
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from rarezoo.data.trees import named_tree
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.slow
GALAXIES, VECTORS = 90, 300
SURVEY = [
    "data=catalogue", "data.table=galaxies.csv", "data.images=images", "data.votes=desi", "data.group_duplicates=false",
]  # fmt: skip
TRAIN = [
    "train.py", *SURVEY, "model.input_size=32", "model.bottleneck=4", "train.epochs=1", "train.batch_size=8",
    "train.workers=0", "train.save_every=1", "logger=none", "seed=4",
]  # fmt: skip
# Batches do not end where shards do.
EMBED = ["embed.py", *SURVEY, "checkpoint=net", "batch_size=7", "shard_rows=6", "workers=0"]
SEARCH = [
    "cluster.py", "store=store", "compress=none", "compress@drawing=pca", "drawing.n_components=2", "preset=null",
    "clusterer.min_samples=5", "significance.surveys=8", "stability.refits=0", "images=false", "logger=none",
    "beyond=false", "seed=1",
]  # fmt: skip


@pytest.fixture
def home(tmp_path):
    """A survey in files, a network that has learnt nothing, and a store of vectors."""
    home = tmp_path / "home"
    (home / "images").mkdir(parents=True)
    lines = ["id_str,smooth-or-featured_smooth,smooth-or-featured_featured-or-disk"]
    for row in range(GALAXIES):
        pixels = np.random.default_rng(row).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "images" / f"g{row:02d}.bmp")
        lines.append(f"g{row:02d},{row % 7 + 1},{row % 3}")
    (home / "galaxies.csv").write_text("\n".join(lines) + "\n")
    encoder, tree = EfficientNetB0(input_size=32, bottleneck="4"), named_tree("desi")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(encoder, tree)
    Checkpoint.save(home / "net", network=network, encoder=encoder, tree=tree, card={})
    write_store(home / "store", seed=0)
    return home


def write_store(folder, *, seed):
    vectors = np.random.default_rng(seed).normal(size=(VECTORS, 6)).astype(np.float32)
    vectors[:40] = 0.01 * vectors[:40] + 5
    shutil.rmtree(folder, ignore_errors=True)
    EmbeddingStore.from_array([f"g{row}" for row in range(VECTORS)], vectors, out=folder)


def write_another_image(home):
    Image.new("RGB", (32, 32), (9, 99, 200)).save(home / "images" / "g00.bmp")


def write_other_votes(home):
    table = home / "galaxies.csv"
    table.write_text(table.read_text().replace("g03,4,0", "g03,4,1"))


def write_another_store(home):
    write_store(home / "store", seed=7)


@pytest.mark.parametrize(
    ("words", "begun", "changes", "results"),
    [
        (
            TRAIN, ".training/last.ckpt", {"survey.votes": write_other_votes, "survey.images": write_another_image},
            ["weights.safetensors", "metrics.csv"],
        ),
        (
            EMBED, "shard-00001.parquet", {"votes|survey": write_other_votes, "images": write_another_image},
            [f"shard-{shard:05d}.parquet" for shard in range(15)],
        ),
        (SEARCH, "null_surveys/*.npy", {"store": write_another_store}, ["members.parquet", "classes.parquet"]),
    ],
    ids=["training", "embedding", "search"],
)  # fmt: skip
def test_a_killed_command_goes_on_with_the_same_inputs_only(
    cli, start_process, home, words, begun, changes, results, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    cli(*words, "out=straight", cwd=home)
    process = start_process(*words, "out=killed", cwd=home)
    while not list((home / "killed").glob(begun)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not all((home / "killed" / name).exists() for name in results)

    shutil.copytree(home, before := home.parent / "before")
    for named, change in changes.items():
        change(home)
        refused = cli(*words, "out=killed", cwd=home, expect=2)
        assert any(part in refused.message for part in named.split("|")), refused.message
        for changed in ("galaxies.csv", "images/g00.bmp"):
            shutil.copyfile(before / changed, home / changed)
        shutil.rmtree(home / "store")
        shutil.copytree(before / "store", home / "store")
    cli(*words, "out=killed", cwd=home)
    for name in results:
        assert (home / "killed" / name).read_bytes() == (home / "straight" / name).read_bytes(), name
