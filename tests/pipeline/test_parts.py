"""Embedding in parts: the store is whole when every part is, with the bytes of one process, whoever dies meanwhile."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from PIL import Image

from rarezoo.data.hats import HatsCatalogue, write_hats
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.data.surveys.hats import Hats
from rarezoo.data.trees import named_tree
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines.dask import Dask
from rarezoo.engines.submitit import Submitit
from rarezoo.errors import StoreError
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = [pytest.mark.pipeline, pytest.mark.filterwarnings("ignore")]
GALAXIES = 40
# Batches do not end where shards or parts do.
SETTINGS = {"batch_size": 7, "shard_rows": 6, "workers": 0}


def picture(row):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(row).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A survey in files and the same in HATS, and a network that has learnt nothing."""
    home = tmp_path_factory.mktemp("home")
    (home / "images").mkdir()
    for row in range(GALAXIES):
        (home / "images" / f"g{row:02d}.png").write_bytes(picture(row))
    (home / "galaxies.csv").write_text("\n".join(["id_str", *(f"g{row:02d}" for row in range(GALAXIES))]) + "\n")
    encoder, tree = EfficientNetB0(input_size=32, bottleneck="4"), named_tree("desi")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(encoder, tree)
    Checkpoint.save(home / "net", network=network, encoder=encoder, tree=tree, card={})
    return home


def survey(home):
    return Catalogue(str(home / "galaxies.csv"), images=str(home / "images"))


def shards(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.parquet")}


@pytest.fixture(scope="module")
def whole(home):
    return EmbedRun(data=survey(home), checkpoint=str(home / "net"), out=str(home / "whole"), **SETTINGS).run()


def test_parts_make_the_bytes_of_one_process_and_the_store_is_whole_with_the_last(home, whole, tmp_path):
    run = {"data": survey(home), "checkpoint": str(home / "net"), "out": str(tmp_path), **SETTINGS}
    for part in ("3/3", "1/3"):
        store = EmbedRun(**run, part=part).run()
        assert "of 7 shards" in store.summary()
        with pytest.raises(StoreError, match="not complete"):
            EmbeddingStore.open(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    last = EmbedRun(**run, part="2/3").run()
    assert shards(tmp_path) == shards(whole.folder)
    assert len(last) == GALAXIES
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())


def test_a_hats_survey_is_embedded_part_by_part_like_the_same_galaxies_in_files(home, whole, tmp_path):
    pytest.importorskip("hats_import")
    table = pa.table({
        "id_str": [f"g{row:02d}" for row in range(GALAXIES)], "ra": np.linspace(0, 359, GALAXIES),
        "dec": np.linspace(-90, 90, GALAXIES), "image": pa.array(map(picture, range(GALAXIES)), pa.binary()),
    })  # fmt: skip
    folder = write_hats(iter([table]), tmp_path / "hats", margin=0, partition_rows=5)
    assert len(HatsCatalogue.open(folder).counts) > 6
    run = {"data": Hats(str(folder)), "checkpoint": str(home / "net"), **SETTINGS}
    store = EmbedRun(**run, out=str(tmp_path / "store"), parts=3).run()
    at = {galaxy: row for row, galaxy in enumerate(whole.ids)}
    rows = [at[galaxy] for galaxy in store.ids]
    # Other batches, so that the last bits differ.
    assert np.allclose(store.embeddings(), whole.embeddings()[rows], atol=1e-4)
    assert store.galaxies().images.cutout(0).shape == (32, 32, 3)


# ── minutes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def command(home, out, *words):
    survey_words = ["data=catalogue", f"data.table={home}/galaxies.csv", f"data.images={home}/images"]
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]
    return [sys.executable, "embed.py", *survey_words, f"checkpoint={home}/net", f"out={out}", *settings, *words]


@pytest.mark.slow
def test_the_same_command_given_twice_at_once_is_safe(home, whole, tmp_path):
    runs = [subprocess.Popen(command(home, tmp_path / "store")) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert shards(tmp_path / "store") == shards(whole.folder)
    assert not list((tmp_path / "store").glob(".*.partial"))


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_changes_no_byte(home, whole, tmp_path):
    out = tmp_path / "store"
    run = subprocess.Popen(command(home, out, "engine=dask", "engine.workers=2", "parts=7"))
    while not list(out.glob("shard-*.parquet")) and run.poll() is None:
        time.sleep(0.02)
    workers = [
        child for child in psutil.Process(run.pid).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]
    if workers:
        os.kill(workers[0].pid, signal.SIGKILL)
    assert run.wait() == 0
    assert shards(out) == shards(whole.folder)


@pytest.mark.slow
def test_after_the_command_with_its_scheduler_was_killed_the_same_command_goes_on(home, whole, tmp_path):
    out = tmp_path / "store"
    words = ["engine=dask", "engine.workers=2", "parts=7"]
    run = subprocess.Popen(command(home, out, *words))
    while not list(out.glob("shard-*.parquet")) and run.poll() is None:
        time.sleep(0.02)
    run.kill()
    run.wait()
    time.sleep(2)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shard-*.parquet")}
    assert kept
    EmbedRun(
        data=survey(home), checkpoint=str(home / "net"), out=str(out), parts=7, engine=Dask(workers=2), **SETTINGS
    ).run()
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert shards(out) == shards(whole.folder)


@pytest.mark.slow
def test_submitit_jobs_make_the_bytes_of_one_process(home, whole, tmp_path):
    engine = Submitit(cluster="local", workers=2, memory="2GB", logs=str(tmp_path / "logs"))
    run = {"data": survey(home), "checkpoint": str(home / "net"), "out": str(tmp_path / "store"), **SETTINGS}
    EmbedRun(**run, parts=2, engine=engine).run()
    assert shards(tmp_path / "store") == shards(whole.folder)


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_the_same_command_goes_on(home, whole, tmp_path):
    out = tmp_path / "store"
    # A limit on the size of files stands for a full disk.
    limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 4; exec \"$@\"", "bash", *command(home, out, "parts=3")]
    failed = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "cannot write" in failed.stderr
    assert "Traceback" not in failed.stderr
    shutil.rmtree(out / ".hydra", ignore_errors=True)
    subprocess.run(command(home, out, "parts=3"), check=True)
    assert shards(out) == shards(whole.folder)
