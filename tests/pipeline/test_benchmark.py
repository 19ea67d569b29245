"""``rarezoo benchmark search``: measures, goes on where it stopped, and says what cannot be measured."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

COMMAND = [sys.executable, "-c", "from rarezoo.apps import main; main()", "benchmark", "search"]


def benchmark(folder, *options):
    return subprocess.run([*COMMAND, "--out", str(folder), *options], capture_output=True, text=True)


def test_a_small_benchmark_prints_every_number_and_measures_nothing_twice(tmp_path):
    options = ("--galaxies", "2000", "--skies", "1", "--threads", "1,2", "--min-samples", "10")
    first = benchmark(tmp_path, *options)
    assert first.returncode == 0, first.stderr
    assert "map and linkage: the same bits (2 threads, 2 threads again, 1 threads)" in first.stdout
    for told in (
        "another selection",
        "found:",
        "trustworthiness:",
        "preservation:",
        "agreement:",
        "plain / ours",
        "GB",
    ):
        assert told in first.stdout
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert len(written) == 6
    assert benchmark(tmp_path, *options).stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == written


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--threads", "two"), "--threads: two. Give counts"), (("--galaxies", "100"), "Give at least 2000 galaxies")],
)
def test_numbers_that_make_no_benchmark_are_refused(tmp_path, options, told):
    ended = benchmark(tmp_path, *options)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
