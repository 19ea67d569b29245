"""``rarezoo demo``, small: every stage, the truth beside the members, and one line of JSON at the end."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.pipeline


def rarezoo(*words, cwd):
    command = [sys.executable, "-c", "from rarezoo.cli import main; main()", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, env=environment)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    home = tmp_path_factory.mktemp("demo")
    done = rarezoo("demo", "--galaxies", "300", "--epochs", "1", cwd=home)
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout.splitlines()[-1])


def test_the_last_line_tells_seconds_recovery_and_page(demo):
    home, told = demo
    assert set(told["seconds"]) == {"survey", "train", "embed", "cluster"}
    assert told["planted"] == len(told["populations"]) == 11
    assert 0 <= told["planted_found"] <= 11
    assert told["planted_found"] == sum(one["found"] for one in told["populations"])
    assert (home / told["page"]).is_file()


def test_truth_lies_beside_the_members(demo):
    home, _ = demo
    members, truth = (pq.read_table(home / "runs" / "demo" / f"{name}.parquet") for name in ("members", "truth"))
    assert set(members["id_str"].to_pylist()) == set(truth["id_str"].to_pylist())
    assert "ordinary" in truth["population"].to_pylist()


def test_classes_and_cards_are_told_in_the_terminal(demo):
    home, _ = demo
    shown = rarezoo("zoo", "show", "runs/demo/efficientnet_b0.demo", cwd=home)
    assert shown.returncode == 0
    assert "| smooth-or-featured " in shown.stdout
    classes = rarezoo("classes", "list", "runs/demo", cwd=home)
    expected = pq.read_table(home / "runs" / "demo" / "classes.parquet").num_rows
    assert len(classes.stdout.splitlines()) == expected + 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zoo", "show", "nowhere"), "no checkpoint: nowhere"),
        (("classes", "list", "nowhere"), "no finished search: nowhere"),
        (("duplicates", "--folder", "nowhere"), "no Galaxy Zoo 2 sample: nowhere"),
    ],
)
def test_mistakes_end_in_one_message(tmp_path, words, message):
    done = rarezoo(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
