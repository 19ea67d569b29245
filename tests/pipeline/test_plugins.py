"""A package that is not part of rarezoo adds a clusterer, which is then a choice of the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo.embeddings.store import EmbeddingStore

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
MODULE = '''
"""Somebody else's clusterer."""

from dataclasses import dataclass

from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.settings import setting


@dataclass
class Theirs(Hdbscan):
    """HDBSCAN with a setting of its own."""

    patience: int = setting(3, "how patient it is", unit="minutes", ge=1)
'''
METADATA = "Metadata-Version: 2.1\nName: their-clusterer\nVersion: 1.0\n"
ENTRY_POINTS = "[rarezoo.clusterers]\ntheirs = their_clusterer:Theirs\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with an installed foreign package and an embedding store that was made from an array."""
    home = tmp_path_factory.mktemp("home")
    (home / "site" / "their_clusterer-1.0.dist-info").mkdir(parents=True)
    (home / "site" / "their_clusterer.py").write_text(MODULE)
    (home / "site" / "their_clusterer-1.0.dist-info" / "METADATA").write_text(METADATA)
    (home / "site" / "their_clusterer-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(120, 4))
    embeddings[:20] = rng.normal(scale=0.01, size=(20, 4)) + 8
    EmbeddingStore.from_array([f"g{row}" for row in range(120)], embeddings, out=home / "store")
    return home


def cluster(home, *words, expect=0):
    paths = [str(home / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(ROOT / "cluster.py"), *words]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == expect, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_help_lists_the_clusterer_and_its_settings(home):
    text = cluster(home, "clusterer=theirs", "--help")
    assert "|theirs  (now theirs)" in text
    assert "clusterer.patience: int = 3 [minutes] (at least 1)  how patient it is" in text


def test_it_finds_classes_and_its_settings_are_checked(home):
    words = ["store=store", "clusterer=theirs", "clusterer.min_samples=5", "compress=none", "compress@drawing=pca"]
    words += ["drawing.n_components=2", "preset=null", "significance.surveys=0", "stability.refits=0", "images=false"]
    words += ["logger=none", "beyond=false", "out=found"]
    assert "clusterer.patience" in cluster(home, *words, "clusterer.patience=long", expect=2)
    cluster(home, *words, "clusterer.patience=7")
    labels = pq.read_table(home / "found" / "members.parquet")["class_id"].to_numpy()
    assert len(set(labels[:20])) == 1
    assert labels[0] >= 0
