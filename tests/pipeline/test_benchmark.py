"""``rarezoo benchmark``: measures, goes on where it stopped, and says what cannot be measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "efficientnet_b0.mock_64px"
COMMAND = [sys.executable, "-m", "benchmarks"]
ROOT = Path(__file__).parents[2]


def benchmark(what, folder, *options):
    return subprocess.run([*COMMAND, what, f"out={folder}", *options], cwd=ROOT, capture_output=True, text=True)


def times(folder, pattern):
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def test_a_small_search_benchmark_prints_every_number_and_measures_nothing_twice(tmp_path):
    options = ("galaxies=2000", "skies=1", "threads=1,2", "min_samples=10")
    first = benchmark("search", tmp_path, *options)
    assert first.returncode == 0, first.stderr
    assert "map and linkage: the same bits (2 threads, 2 threads again, 1 threads)" in first.stdout
    for text in (
        "another selection",
        "found:",
        "trustworthiness:",
        "preservation:",
        "agreement:",
        "plain / ours",
        "GB",
    ):
        assert text in first.stdout
    written = times(tmp_path, "*.json")
    assert len(written) == 6
    assert benchmark("search", tmp_path, *options).stdout == first.stdout
    assert times(tmp_path, "*.json") == written


@pytest.mark.parametrize("sky", [("planted=5",), (f"checkpoint={CHECKPOINT}",)], ids=["vectors", "galaxies"])
def test_every_claim_of_the_paper_has_a_verdict_and_nothing_is_measured_twice(tmp_path, sky):
    options = ("galaxies=1000", "skies=3", "min_samples=10", *sky)
    first = benchmark("paper", tmp_path, *options)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    claims = ["15-D worse than 5-D"] * 2 + ["densMAP smoother than UMAP"] * 2
    claims += ["no single lambda"] * 2 + ["no single epsilon"] * 2
    assert [line.split(" | ")[0] for line in lines] == claims
    assert all("→ agrees" in line or "→ disagrees" in line or "→ undecided" in line for line in lines)
    about = json.loads((tmp_path / "paper.json").read_text())
    assert len(about["skies"]) == 3
    assert about["skies"][0] != about["skies"][1]
    assert any(sky["5-D found"] for sky in about["skies"])
    assert all(0 < sky[f"{kind} reachable"] <= 11 for sky in about["skies"] for kind in ("lambda", "epsilon"))
    written = times(tmp_path, "*.sky*.json")
    assert len(written) == 3
    assert benchmark("paper", tmp_path, *options).stdout == first.stdout
    assert times(tmp_path, "*.sky*.json") == written


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("search", ("threads=two",), "threads"),
        ("search", ("galaxies=100",), "at least 2000"),
        ("paper", ("skies=2",), "at least 3"),
        ("paper", ("galaxies=100",), "at least 1000"),
        ("paper", ("min_samples=0",), "at least 1"),
        ("paper", ("planted=500",), "planted groups must leave a bulk"),
    ],
)
def test_numbers_that_make_no_benchmark_are_refused(tmp_path, what, options, message):
    ended = benchmark(what, tmp_path, *options)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())
