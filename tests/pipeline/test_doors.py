"""The three doors as a user meets them: mock galaxies through train.py, embed.py and cluster.py by subprocess."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
GALAXIES = 260
MOCK = ["data=mock", f"data.n={GALAXIES}", "data.side=48", "data.seed=3"]
NETWORK = ["model.input_size=32", "model.bottleneck=16"]
QUICK = ["train.epochs=2", "train.batch_size=32", "train.workers=0"]
SEARCH = ["compress.n_neighbors=10", "clusterer.min_samples=5", "clusterer.min_cluster_size=5"]
NOISE = "significance.surveys=5"


def start(*words, cwd, **settings):
    """A command, as a user would type it, from a folder of its own."""
    script, *arguments = words
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **settings
    )


def run(*words, cwd, expect=0):
    process = start(*words, cwd=cwd)
    out, err = process.communicate(timeout=400)
    assert process.returncode == expect, f"{words} ended with {process.returncode}\n{out}\n{err}"
    return out, err


def refused(*words, cwd):
    """Standard error of a command that must end in one message, status 2 and no traceback."""
    _, err = run(*words, cwd=cwd, expect=2)
    assert "Traceback" not in err, err
    messages = [line for line in err.splitlines() if line.startswith("rarezoo: ")]
    assert len(messages) == 1, err
    return messages[0]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which one survey was trained on, embedded and searched."""
    folder = tmp_path_factory.mktemp("home")
    mock = [*MOCK, f"data.cache={folder / 'cache'}"]
    run("train.py", *mock, *NETWORK, *QUICK, "out=net", "seed=1", cwd=folder)
    run("embed.py", *mock, "checkpoint=net", "out=store", "shard_rows=100", "workers=0", cwd=folder)
    run("cluster.py", "store=store", *SEARCH, NOISE, "out=found", "seed=1", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def mock(home):
    return [*MOCK, f"data.cache={home / 'cache'}"]


def test_training_leaves_a_whole_checkpoint(home):
    card = json.loads((home / "net" / "card.json").read_text())
    assert card["width"] == 16
    assert {row["question"] for row in card["metrics"]} >= {"smooth-or-featured", "bar"}
    assert (home / "net" / "README.md").read_text().startswith("# net")
    assert not (home / "net" / ".training").exists()
    assert len((home / "net" / "metrics.csv").read_text().splitlines()) == 3


def test_embedding_holds_every_galaxy_once(home):
    table = pq.read_table(sorted((home / "store").glob("shard-*.parquet")))
    assert table.num_rows == len(set(table["id_str"].to_pylist())) == GALAXIES
    sums = sum(table[f"disk-edge-on_{answer}_fraction"].to_numpy() for answer in ("yes", "no"))
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_search_leaves_every_table_and_the_report(home):
    for name in ("classes", "members", "tree", "linkage", "map", "map_2d"):
        assert pq.read_metadata(home / "found" / f"{name}.parquet").metadata[b"rarezoo"]
    assert pq.read_table(home / "found" / "linkage.parquet").num_rows == GALAXIES - 1
    about = json.loads((home / "found" / "run.json").read_text())
    assert about["searched"] == GALAXIES
    assert "<html" in (home / "found" / "report" / "index.html").read_text()
    assert list((home / "found").glob("wandb/**/*.wandb")), "offline W&B run"


def test_same_seed_gives_the_same_weights_and_the_same_classes(home, mock):
    run("train.py", *mock, *NETWORK, *QUICK, "out=net2", "seed=1", "logger=none", cwd=home)
    cards = [json.loads((home / net / "card.json").read_text()) for net in ("net", "net2")]
    assert cards[0]["sha256"] == cards[1]["sha256"]
    run("cluster.py", "store=store", *SEARCH, NOISE, "out=found2", "seed=1", "logger=none", cwd=home)
    first, second = (pq.read_table(home / folder / "members.parquet") for folder in ("found", "found2"))
    assert first.equals(second)


def test_a_command_that_is_done_returns_at_once_and_changes_nothing(home, mock):
    before = (home / "net" / "weights.safetensors").stat().st_mtime_ns
    _, err = run("train.py", *mock, *NETWORK, *QUICK, "out=net", "seed=1", cwd=home)
    assert "already trained" in err
    assert (home / "net" / "weights.safetensors").stat().st_mtime_ns == before


def test_another_setting_into_the_same_folder_is_refused(home, mock):
    assert "seed 1 → 2" in refused("train.py", *mock, *NETWORK, *QUICK, "out=net", "seed=2", cwd=home)
    assert "other settings" in refused("cluster.py", "store=store", *SEARCH, NOISE, "out=found", "seed=2", cwd=home)


def test_training_killed_in_the_middle_goes_on_to_the_same_weights(home, mock):
    words = ("train.py", *mock, *NETWORK, "train.epochs=3", "train.batch_size=16", "train.workers=0")
    words = (*words, "train.save_every=2", "logger=none", "seed=4")
    run(*words, "out=straight", cwd=home)
    process = start(*words, "out=killed", cwd=home)
    state = home / "killed" / ".training" / "last.ckpt"
    while not state.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (home / "killed" / "card.json").exists()
    _, err = run(*words, "out=killed", cwd=home)
    assert "resuming from" in err
    straight, killed = (json.loads((home / name / "card.json").read_text()) for name in ("straight", "killed"))
    assert killed["sha256"] == straight["sha256"]


# train.py, killed as soon as so many states are written.
KILLED = """
import os, sys
from rarezoo.training.progress import States
save, left = States.save, [int(sys.argv.pop(1))]
def saved(self, trainer):
    save(self, trainer)
    left[0] -= 1
    if not left[0]:
        os._exit(137)
States.save = saved
from rarezoo.cli import main
main("train")
"""


def test_training_killed_after_any_state_goes_on_to_the_same_weights(home, mock):
    """Three steps of two batches make an epoch, of which the third is followed by the validation."""
    words = [*mock, *NETWORK, "train.epochs=2", "train.batch_size=32", "train.accumulate=2", "train.workers=0"]
    words += ["train.save_every=1", "logger=none", "seed=4"]
    run("train.py", *words, "out=whole", cwd=home)
    told = [json.loads((home / "whole" / "card.json").read_text())["sha256"]]
    (home / "killed_train.py").write_text(KILLED)
    for states in (2, 3, 6):
        run(home / "killed_train.py", states, *words, f"out=killed{states}", cwd=home, expect=137)
        run("train.py", *words, f"out=killed{states}", cwd=home)
        told.append(json.loads((home / f"killed{states}" / "card.json").read_text())["sha256"])
        # The training loss is the mean over the batches since the last start.
        whole, killed = (
            pd.read_csv(home / name / "metrics.csv").drop(columns="train/loss") for name in ("whole", f"killed{states}")
        )
        pd.testing.assert_frame_equal(killed, whole)
    assert all(one == told[0] for one in told)


def test_ctrl_c_says_so_and_leaves_a_state(home, mock):
    words = ("train.py", *mock, *NETWORK, "train.epochs=50", "train.batch_size=16", "train.workers=0")
    process = start(
        *words, "train.save_every=2", "logger=none", "out=stopped", cwd=home,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not (home / "stopped" / ".training" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on where it stopped" in err
    assert "Traceback" not in err


def test_multirun_gives_each_job_a_folder_and_a_wandb_run(home):
    run("cluster.py", "-m", "store=store", *SEARCH[:1], NOISE, "clusterer.min_samples=5,8", "out=sweep", cwd=home)
    jobs = sorted(path.parent for path in (home / "sweep").glob("*/run.json"))
    assert len(jobs) == 2
    assert all(len(list(job.glob("wandb/**/*.wandb"))) == 1 for job in jobs)


def test_relabelling_takes_map_and_linkage_from_an_earlier_run(home):
    words = (
        "cluster.py",
        "store=store",
        SEARCH[0],
        SEARCH[1],
        NOISE,
        "clusterer.min_cluster_size=12",
        "seed=1",
        "logger=none",
    )
    run(*words, "reuse=found", "out=relabelled", cwd=home)
    run(*words, "out=afresh", cwd=home)
    reused, afresh = (pq.read_table(home / name / "members.parquet") for name in ("relabelled", "afresh"))
    assert reused.equals(afresh)
    about = json.loads((home / "relabelled" / "run.json").read_text())
    assert "compress" not in about["seconds"]


@pytest.mark.parametrize("script", ["train.py", "embed.py", "cluster.py"])
def test_help_lists_settings_with_types_and_units(script, tmp_path):
    out, _ = run(script, "--help", cwd=tmp_path)
    assert "data=" in out
    assert "seed: int = 0" in out or script == "embed.py"
    assert "[px]" in out or "[galaxies]" in out


def test_user_mistakes_end_in_one_message(home, mock, tmp_path):
    (tmp_path / "file").write_text("")
    searching, training = ("cluster.py", "store=store", "compress.n_neighbors=10"), ("train.py", *mock)
    mistakes = [
        ((*training, "train.colour=red"), "colour"),
        ((*training, "model=resnet", "out=x"), "resnet"),
        ((*training, "train.epochs=many", "out=x"), "epochs"),
        (("cluster.py", "out=x"), "store"),
        (("cluster.py", "store=nowhere", "out=x1"), "no embedding store"),
        (("embed.py", *mock, "checkpoint=nowhere", "out=x2"), "no checkpoint"),
        ((*training, "model.input_size=300", "out=x3"), "multiple of 32"),
        ((*searching, "clusterer.min_samples=300", "out=x4"), "too few"),
        (("cluster.py", "store=store", "compress.n_neighbors=500", "out=x5"), "n_neighbors"),
        ((*training, "seed=-1", "out=x7"), "seed must be at least 0"),
        ((*training, "data.limit=-5", "out=x8"), "data.limit"),
        ((*training, "out="), "no output folder"),
        ((*training, f"out={tmp_path / 'file'}"), "out"),
        ((*training, "out=/proc/rarezoo"), "cannot write"),
    ]
    # One process for all of them: importing torch and Lightning takes longer than any of these mistakes.
    command = [sys.executable, "-c", IN_TURN, json.dumps([[str(ROOT / words[0]), *words[1:]] for words, _ in mistakes])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    *told, rest = done.stderr.split("ended with ")
    ends = [int(one.split("\n", 1)[0]) for one in [*told[1:], rest]]
    assert ends == [2] * len(mistakes)
    for (words, message), said in zip(mistakes, told, strict=True):
        messages = [line for line in said.splitlines() if line.startswith("rarezoo: ")]
        assert len(messages) == 1, (words, said)
        assert message in messages[0], words


# Runs commands one after the other, as if each were a process of its own.
IN_TURN = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        print("ended with", end.code, file=sys.stderr, flush=True)
"""


def test_a_full_disk_is_told_as_such(home, mock):
    """RLIMIT_FSIZE stands for the full disk: writing past it fails as writing to a full disk does."""
    import resource

    process = start(
        "embed.py", *mock, "checkpoint=net", "out=full", "workers=0", cwd=home,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )  # fmt: skip
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    assert "cannot write" in err
    assert "Traceback" not in err


def test_a_corrupted_checkpoint_is_refused(home, mock):
    import shutil

    shutil.copytree(home / "net", home / "broken", ignore=shutil.ignore_patterns("wandb"))
    weights = home / "broken" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 0xFF
    weights.write_bytes(content)
    assert "corrupted" in refused("embed.py", *mock, "checkpoint=broken", "out=x6", cwd=home)


def test_a_store_of_another_checkpoint_is_not_mixed(home, mock):
    run("train.py", *mock, *NETWORK, *QUICK, "out=other", "seed=9", "logger=none", cwd=home)
    assert "another run" in refused("embed.py", *mock, "checkpoint=other", "out=store", "shard_rows=100", cwd=home)


# Runs a command and says last whether torch was imported.
TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["store=store", *SEARCH, NOISE, "out=found", "seed=1"]])
def test_a_search_does_without_torch(home, words):
    """Importing it takes longer than all else in the start of a command."""
    command = [sys.executable, "-c", TORCH, str(ROOT / "cluster.py"), *words]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"
