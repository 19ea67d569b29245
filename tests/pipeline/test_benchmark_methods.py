"""``rarezoo benchmark classes``: goes on after a kill, scores what is saved; the default search beats raw leaves."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rarezoo.benchmark.methods import read_methods
from rarezoo.benchmark.planted import planted_vectors
from rarezoo.benchmark.scores import Tally, Truth
from rarezoo.benchmark.tiers import MockGalaxies
from rarezoo.data.surveys.mock import Mock
from rarezoo.embeddings.store import EmbeddingStore

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "efficientnet_b0.mock_64px"
CONF = Path(__file__).parents[2] / "conf" / "method"
COMMAND = [sys.executable, "-c", "from rarezoo.cli import main; main()", "benchmark"]
TINY = ("vectors", "galaxies=1500", "groups=4", "largest=120", "seeds=1,2")
CHEAP = ("methods=[leaf_10,kmeans_100,random]",)


def benchmark(folder, *options):
    return subprocess.run([*COMMAND, *options, f"out={folder}"], capture_output=True, text=True)


def test_a_killed_run_goes_on_and_is_scored_again_from_its_files(tmp_path):
    killed = subprocess.Popen(
        [*COMMAND, *TINY, *CHEAP, f"out={tmp_path}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    results = tmp_path / "vectors"
    while not list(results.glob("sky1/*.json")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in results.glob("sky*/*.json")}
    whole = benchmark(tmp_path, *TINY, *CHEAP)
    assert whole.returncode == 0, whole.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Three methods on two skies, and twice again on the first.
    assert len(list(results.glob("sky*/*.json"))) == 12
    assert {"k-means, k = 100", "random order"} <= {line.split("|")[1].strip() for line in table(whole.stdout)}
    shelved = list(results.glob("cache/*/map.npz"))
    assert shelved
    for path in shelved:
        path.unlink()
    again = benchmark(tmp_path, *TINY, *CHEAP, "rescore=true")
    assert again.stdout == whole.stdout
    assert (results / "results.md").read_text() == whole.stdout
    with Image.open(results / "results.webp") as figure:
        assert figure.width > 1000


def table(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_skies_without_groups_are_counted(tmp_path):
    finished = benchmark(tmp_path, "vectors", "null_skies=2", "galaxies=800", "methods=[leaf_10]")
    assert finished.returncode == 0, finished.stderr
    # Noise has leaves, too: that is why they must be held against it.
    assert "| 2     | 1.000" in finished.stdout


def test_a_mixture_of_broad_groups_is_another_background(tmp_path):
    options = (*TINY, "bulk=mixture", "refits=0", "methods=[kmeans_100,kmeans_1000_whitened]")
    finished = benchmark(tmp_path, *options)
    assert finished.returncode == 0, finished.stderr
    assert "bulk mixture" in finished.stdout
    assert "k-means, k = 1000, half-whitened" in finished.stdout
    assert next(line for line in table(finished.stdout) if "method" in line).split("|")[2].strip() == "discovery"
    # The folder holds results on this background only.
    refused = benchmark(tmp_path, *TINY, "refits=0", "methods=[kmeans_100]")
    assert refused.returncode == 2
    assert "bulk" in refused.stderr


def test_galaxies_are_planted_and_a_table_of_known_ones_is_scored_alike(tmp_path):
    seen = (f"checkpoint={CHECKPOINT}", "methods=[kmeans_100,random]", "seeds=3", "refits=0")
    # Both start on the same sky, which is rendered and embedded once.
    first = benchmark(tmp_path, "galaxies", "galaxies=240", "rarest=6", "workers=2", *seen)
    assert first.returncode == 0, first.stderr
    outcomes = [json.loads(path.read_text()) for path in (tmp_path / "galaxies" / "sky3").glob("*.whole.json")]
    assert [outcome["status"] for outcome in outcomes] == ["done"] * 2
    store = tmp_path / "galaxies" / "sky3" / "embeddings"
    truth = Mock(n=240, seed=3, rates=MockGalaxies(galaxies=240, rarest=6).rates(), cache=str(tmp_path)).open().truth
    known = truth.to_pandas().query("population in ('one_armed', 'off_centre_ring')")
    known = known.rename(columns={"population": "label"})[["id_str", "label"]]
    known.to_csv(tmp_path / "known.csv", index=False)
    finished = benchmark(tmp_path, "answers", f"store={store}", f"answers={tmp_path / 'known.csv'}", *seen)
    assert finished.returncode == 0, finished.stderr
    assert "2 populations" in finished.stdout
    # Both tiers rank the same galaxies by the same embeddings.
    assert precisions(finished.stdout)["off_centre_ring"] == precisions(first.stdout)["off_centre_ring"]
    assert precisions(finished.stdout)["one_armed"] > 0.2


def test_votes_are_shuffled_for_a_contestant_that_asks_for_it_and_once(tmp_path):
    seen = ("galaxies=240", "rarest=6", f"checkpoint={CHECKPOINT}", "epochs=1")
    seen = ("galaxies", *seen, "seeds=3", "refits=0")
    sky = tmp_path / "galaxies" / "sky3"
    without = benchmark(tmp_path, *seen, "methods=[kmeans_100]")
    assert without.returncode == 0, without.stderr
    assert not list(sky.glob("*shuffled*"))
    finished = benchmark(tmp_path, *seen, "methods=[kmeans_100,ours_shuffled]")
    assert finished.returncode == 0, finished.stderr
    row = next(line for line in table(finished.stdout) if "ours on a network with shuffled votes" in line)
    assert "failed" not in row
    blind, own = (EmbeddingStore.open(sky / name) for name in ("embeddings_shuffled", "embeddings"))
    assert blind.ids.tolist() == own.ids.tolist()
    assert not np.allclose(blind.embeddings(), own.embeddings(), atol=0.1)
    card = json.loads((sky / "efficientnet_b0.shuffled" / "card.json").read_text())
    assert "shuffled" in json.dumps(card)
    # It is ranked now that it is there; what the votes taught, it cannot rank.
    assert precisions(finished.stdout, "shuffled")["one_armed"] < precisions(finished.stdout)["one_armed"]
    written = {path: path.stat().st_mtime_ns for path in sky.glob("*shuffled/*") if path.is_file()}
    assert written
    (sky / "ours_shuffled.whole.json").unlink()
    again = benchmark(tmp_path, *seen, "methods=[kmeans_100,ours_shuffled]")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written


def precisions(text, features="embedding"):
    """Average precision of some features by population."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(text)]
    head = next(at for at, line in enumerate(lines) if line[0].startswith("average precision"))
    row = next(line for line in lines[head:] if line[0] == features)
    return {name: float(value) for name, value in zip(lines[head][1:], row[1:], strict=True)}


def test_a_wrong_name_is_reported_before_anything_runs(tmp_path):
    ended = benchmark(tmp_path, "vectors", "methods=[our]")
    assert ended.returncode == 2
    assert "unknown method: our. Did you mean ours? There are: evoc" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "vectors").exists()


def test_the_default_finds_as_much_as_raw_leaves_and_hardly_any_noise(tmp_path):
    """Counts over three skies that were never tuned on; five null surveys instead of twenty, for time."""
    methods = read_methods(CONF, ["ours", "leaf_10"])
    methods["ours"] = replace(methods["ours"], surveys=5)
    hits, false, noise = (dict.fromkeys(methods, 0) for _ in range(3))
    for seed in (200, 201, 202):
        planted = planted_vectors(seed, galaxies=1500, groups=8, largest=150)
        truth = Truth.of_groups(planted.groups, names=[str(group) for group in range(8)])
        for name, method in methods.items():
            tally = Tally.of(method.run(planted.embeddings, seed=seed, cache=tmp_path).labels, truth)
            hits[name] += int(tally.found.sum())
            false[name] += tally.impure + tally.pieces
            # Noise: no group makes up more than half of it, and of none does it hold more than half.
            share_of_class, share_of_group = tally.counts / tally.classes, tally.counts / tally.populations[:, None]
            noise[name] += int((np.maximum(share_of_class, share_of_group).max(axis=0) <= 0.5).sum())
    # They found 14 and 13 when this was written: leaves too gain from the whitened map.
    assert hits["ours"] >= 11
    assert hits["ours"] >= hits["leaf_10"] - 1
    assert false["ours"] <= 10
    assert false["leaf_10"] >= 40
    assert noise["ours"] <= 2
    assert noise["leaf_10"] >= 20
