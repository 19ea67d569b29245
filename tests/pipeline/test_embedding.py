"""Embedding survives being killed: no galaxy is missing, none is there twice, and the numbers are the same."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rarezoo.embeddings.store import EmbeddingStore

pytestmark = pytest.mark.pipeline

ROWS, SHARD_ROWS = 60, 10
# A survey of 60 grey cutouts, decoded slowly, under a real checkpoint folder of a stand-in network.
SCRIPT = """
import sys, time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from rarezoo.embeddings import embed
from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.settings import option
from rarezoo.zoo.network import Prediction

class Grey(ImageSource):
    def cutout(self, row):
        time.sleep(float(sys.argv[2]))
        return np.full((4, 4, 3), row, dtype=np.uint8)

@option("data", "grey")
@dataclass
class GreySurvey(Survey):
    def _read(self):
        kinds = tables.CATALOGUE.columns
        ids = [f"g{row}" for row in range(60)]
        columns = {name: pa.nulls(60, kind) for name, kind in kinds.items()}
        return Galaxies(pa.table({**columns, tables.ID: ids, tables.IMAGE: ids}), Grey())

def network(images):
    level = images.mean(dim=(1, 2, 3))[:, None]
    return Prediction(torch.cat([level, 1 - level], 1), torch.ones(len(images), 2))

class Network(torch.nn.Module):
    def forward(self, images):
        return network(images)

tree = QuestionTree("own", (Question("bar", ("bar_no", "bar_yes"), None),))
checkpoint = SimpleNamespace(name="grey", network=Network(), tree=tree, width=2, sha256="s", view=lambda one: one / 255)
embed.Checkpoint = SimpleNamespace(open=lambda name: checkpoint)
embed.EmbedRun(
    data=GreySurvey(), checkpoint="grey", out=sys.argv[1], batch_size=4, shard_rows=10, workers=int(sys.argv[3])
).run()
"""


def command(out, *, seconds, workers):
    return [sys.executable, "-c", SCRIPT, str(out), str(seconds), str(workers)]


def shards(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.parquet")}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_embedding_goes_on_where_it_stopped(tmp_path, workers):
    out = tmp_path / "embed"
    running = subprocess.Popen(command(out, seconds=0.05, workers=workers), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(shards(out)) < 2 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    output = running.communicate()[1].decode()
    assert running.returncode == -signal.SIGKILL, output
    before = shards(out)
    assert 2 <= len(before) < ROWS // SHARD_ROWS

    subprocess.run(command(out, seconds=0, workers=workers), check=True, capture_output=True)
    store = EmbeddingStore.open(out)
    assert list(store.ids) == [f"g{row}" for row in range(ROWS)]
    np.testing.assert_allclose(store.embeddings()[:, 0], np.arange(ROWS) / 255, atol=1e-6)
    assert {name: shards(out)[name] for name in before} == before
    assert not list(out.glob(".shard-*"))
