"""``rarezoo benchmark paper``: gives every claim a verdict, goes on where it stopped, refuses what says nothing."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

COMMAND = [sys.executable, "-c", "from rarezoo.apps import main; main()", "benchmark", "paper"]


def benchmark(folder, *options):
    return subprocess.run([*COMMAND, "--out", str(folder), *options], capture_output=True, text=True)


def test_every_claim_has_a_verdict_and_nothing_is_measured_twice(tmp_path):
    options = ("--galaxies", "1000", "--skies", "3", "--planted", "5", "--min-samples", "10")
    first = benchmark(tmp_path, *options)
    assert first.returncode == 0, first.stderr
    told = first.stdout.splitlines()
    claims = ["15-D worse than 5-D"] * 2 + ["densMAP smoother than UMAP"] * 2
    claims += ["no single lambda"] * 2 + ["no single epsilon"] * 2
    assert [line.split(" | ")[0] for line in told] == claims
    assert all("→ agrees" in line or "→ disagrees" in line or "→ undecided" in line for line in told)
    about = json.loads((tmp_path / "paper.json").read_text())
    assert len(about["skies"]) == 3
    assert about["skies"][0] != about["skies"][1]
    assert any(sky["5-D found"] for sky in about["skies"])
    assert all(sky[f"{kind} reachable"] <= 5 for sky in about["skies"] for kind in ("lambda", "epsilon"))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.sky*.json")}
    assert len(written) == 3
    assert benchmark(tmp_path, *options).stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.parametrize("options", [("--skies", "2"), ("--galaxies", "100"), ("--min-samples", "0")])
def test_numbers_that_make_no_benchmark_are_refused(tmp_path, options):
    ended = benchmark(tmp_path, *options)
    assert ended.returncode == 2
    assert "numbers that make no benchmark" in ended.stderr
    assert "Give at least 1000 galaxies, 3 skies" in ended.stderr
    assert not list(tmp_path.iterdir())
