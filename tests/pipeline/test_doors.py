"""The three commands train.py, embed.py and cluster.py as a user meets them, on mock galaxies."""

import json
import shutil
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


@pytest.fixture(scope="module")
def home(tiny_checkpoint, tiny_store, tiny_search, tmp_path_factory):
    """A folder with links to the survey's checkpoint, store and search, in which commands write what is their own."""
    folder = tmp_path_factory.mktemp("home")
    for name, made in {"net": tiny_checkpoint, "store": tiny_store, "found": tiny_search}.items():
        (folder / name).symlink_to(made)
    return folder


@pytest.fixture
def mock(tiny_survey):
    """Words of a command line that name the survey."""
    return tiny_survey.words


@pytest.fixture
def small(mock, tiny_settings):
    """Words of a command line that name the survey and a small network."""
    return [*mock, *tiny_settings.network]


@pytest.fixture
def quick(small, tiny_settings):
    """Words of a command line that train the tiny checkpoint but for its seed and its folder."""
    return [*small, *tiny_settings.training]


def test_training_leaves_a_whole_checkpoint(home):
    card = json.loads((home / "net" / "card.json").read_text())
    assert card["width"] == 16
    assert {row["question"] for row in card["metrics"]} >= {"smooth-or-featured", "bar"}
    assert (home / "net" / "README.md").read_text().startswith("# checkpoint\n")
    assert not (home / "net" / ".training").exists()
    assert len((home / "net" / "metrics.csv").read_text().splitlines()) == 3


def test_embedding_holds_every_galaxy_once(home, tiny_survey):
    table = pq.read_table(sorted((home / "store").glob("shard-*.parquet")))
    assert table.num_rows == len(set(table["id_str"].to_pylist())) == tiny_survey.galaxies
    sums = sum(table[f"disk-edge-on_{answer}_fraction"].to_numpy() for answer in ("yes", "no"))
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_search_leaves_every_table_and_the_report(home, tiny_survey):
    for name in ("classes", "members", "tree", "linkage", "map", "map_2d"):
        assert pq.read_metadata(home / "found" / f"{name}.parquet").metadata[b"rarezoo"]
    assert pq.read_table(home / "found" / "linkage.parquet").num_rows == tiny_survey.galaxies - 1
    about = json.loads((home / "found" / "run.json").read_text())
    assert about["searched"] == tiny_survey.galaxies
    assert "<html" in (home / "found" / "report" / "index.html").read_text()
    assert list((home / "found").glob("wandb/**/*.wandb")), "offline W&B run"


def test_same_seed_gives_the_same_weights_and_the_same_classes(cli, tiny_settings, home, quick):
    cli("train.py", *quick, "out=net2", "seed=1", "logger=none", cwd=home)
    cards = [json.loads((home / net / "card.json").read_text()) for net in ("net", "net2")]
    assert cards[0]["sha256"] == cards[1]["sha256"]
    cli("cluster.py", "store=store", *tiny_settings.search, "out=found2", "seed=1", "logger=none", cwd=home)
    first, second = (pq.read_table(home / folder / "members.parquet") for folder in ("found", "found2"))
    assert first.equals(second)


def test_a_command_that_is_done_returns_at_once_and_changes_nothing(cli, home, quick):
    before = (home / "net" / "weights.safetensors").stat().st_mtime_ns
    finished = cli("train.py", *quick, "out=net", "seed=1", cwd=home)
    assert "already trained" in finished.err
    assert (home / "net" / "weights.safetensors").stat().st_mtime_ns == before


def test_another_setting_into_the_same_folder_is_refused_and_changes_nothing_in_it(cli, home, tiny_settings, quick):
    names = ("run.log", "settings.json", ".hydra/config.yaml", ".hydra/overrides.yaml")
    for folder, words in {
        "net": ("train.py", *quick, "out=net", "seed=2"),
        "found": ("cluster.py", "store=store", *tiny_settings.search, "out=found", "seed=2"),
    }.items():  # fmt: skip
        before = [(home / folder / name).read_bytes() for name in names]
        assert "seed 1 → 2" in cli(*words, cwd=home, expect=2).message
        assert [(home / folder / name).read_bytes() for name in names] == before


def test_training_killed_in_the_middle_goes_on_to_the_same_weights(cli, start_process, home, small):
    words = ("train.py", *small, "data.limit=120", "train.epochs=3", "train.batch_size=16", "train.workers=0")
    words = (*words, "train.save_every=2", "logger=none", "seed=4")
    cli(*words, "out=straight", cwd=home)
    process = start_process(*words, "out=killed", cwd=home)
    state = home / "killed" / ".training" / "last.ckpt"
    while not state.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (home / "killed" / "card.json").exists()
    assert "resuming from" in cli(*words, "out=killed", cwd=home).err
    straight, killed = (json.loads((home / name / "card.json").read_text()) for name in ("straight", "killed"))
    assert killed["sha256"] == straight["sha256"]


@pytest.mark.slow
def test_training_killed_after_any_state_goes_on_to_the_same_weights(cli, home, small, monkeypatch):
    """Three steps of two batches make an epoch, of which the third is followed by the validation.

    What a killed training leaves is what its folder holds right after a state is written.
    """
    from rarezoo.training.progress import States

    words = [*small, "data.limit=120", "train.epochs=2", "train.batch_size=16", "train.accumulate=2"]
    words += ["train.workers=0", "train.save_every=1", "logger=none", "seed=4"]
    save, states = States.save, []

    def save_and_copy(callback, trainer):
        save(callback, trainer)
        states.append(home / f"killed{len(states) + 1}")
        shutil.copytree(home / "whole", states[-1])

    with monkeypatch.context() as patched:
        patched.setattr(States, "save", save_and_copy)
        cli("train.py", *words, "out=whole", cwd=home)
    weights = json.loads((home / "whole" / "card.json").read_text())["sha256"]
    curves = pd.read_csv(home / "whole" / "metrics.csv")
    assert "train/loss" in curves
    assert len(states) >= 6
    for state in (states[1], states[2], states[5]):
        assert "resuming from" in cli("train.py", *words, f"out={state.name}", cwd=home).err
        assert json.loads((state / "card.json").read_text())["sha256"] == weights
        pd.testing.assert_frame_equal(pd.read_csv(state / "metrics.csv"), curves)


def test_ctrl_c_says_so_and_leaves_a_state(start_process, home, small):
    words = ("train.py", *small, "train.epochs=50", "train.batch_size=16", "train.workers=0")
    process = start_process(
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
    assert "continues where it stopped" in err
    assert "Traceback" not in err


def test_multirun_gives_each_job_a_folder_and_a_wandb_run(cli, home, tiny_settings):
    words = ("-m", "store=store", *tiny_settings.search, "clusterer.min_samples=5,8", "out=sweep")
    cli("cluster.py", *words, cwd=home)
    jobs = sorted(path.parent for path in (home / "sweep").glob("*/run.json"))
    assert len(jobs) == 2
    assert all(len(list(job.glob("wandb/**/*.wandb"))) == 1 for job in jobs)


def test_relabelling_takes_map_and_linkage_from_an_earlier_run(cli, home, tiny_settings):
    words = (
        "cluster.py",
        "store=store",
        *tiny_settings.search,
        "clusterer.min_cluster_size=12",
        "seed=1",
        "logger=none",
    )
    cli(*words, "reuse=found", "out=relabelled", cwd=home)
    cli(*words, "out=afresh", cwd=home)
    reused, afresh = (pq.read_table(home / name / "members.parquet") for name in ("relabelled", "afresh"))
    assert reused.equals(afresh)
    about = json.loads((home / "relabelled" / "run.json").read_text())
    assert "compress" not in about["seconds"]


def test_another_compressor_takes_from_the_default_preset_what_it_has(cli, home):
    words = [
        "compress=pca", "clusterer.min_samples=5", "clusterer.min_cluster_size=5", "significance.surveys=5",
        "stability.refits=0", "beyond=false", "images=false", "logger=none",
    ]  # fmt: skip
    cli("cluster.py", "store=store", *words, "out=pca", cwd=home)
    settings = json.loads((home / "pca" / "run.json").read_text())["settings"]
    assert (settings["compress"]["option"], settings["compress"]["n_components"]) == ("pca", 5)
    assert settings["clusterer"]["selection"] == "isolated"


@pytest.mark.parametrize("script", ["train.py", "embed.py", "cluster.py"])
def test_help_lists_settings_with_types_and_units(cli, script, tmp_path):
    text = cli(script, "--help", cwd=tmp_path).out
    assert "data=" in text
    assert "seed: int = 0" in text or script == "embed.py"
    assert "[px]" in text or "[galaxies]" in text


MISTAKES = [
    ("train.py train.colour=red", "colour"),
    ("train.py model=resnet out=x", "resnet"),
    ("train.py train.epochs=many out=x", "epochs"),
    ("cluster.py out=x", "store"),
    ("cluster.py store=nowhere out=x1", "nowhere"),
    ("embed.py checkpoint=nowhere out=x2", "nowhere"),
    ("train.py model.input_size=300 out=x3", "multiple of 32"),
    ("cluster.py store=store compress.n_neighbors=10 clusterer.min_samples=300 out=x4", "clusterer.min_samples: 300"),
    ("cluster.py store=store compress.n_neighbors=500 out=x5", "n_neighbors"),
    ("train.py seed=-1 out=x7", "seed"),
    ("train.py data.limit=-5 out=x8", "limit"),
    ("train.py out=", "out="),
    ("train.py out=file", "out="),
    ("train.py out=/proc/rarezoo", "/proc/rarezoo"),
]


@pytest.mark.parametrize(("typed", "named"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_ends_in_one_message_that_names_it_and_leaves_nothing(cli, home, mock, typed, named):
    (home / "file").write_text("")
    script, *words = typed.split()
    survey = [] if script == "cluster.py" else mock
    before = set(home.iterdir())
    assert named in cli(script, *survey, *words, cwd=home, expect=2).message
    assert set(home.iterdir()) == before


def test_a_full_disk_is_reported_as_such(start_process, ended, home, mock):
    """RLIMIT_FSIZE stands for the full disk: writing past it fails as writing to a full disk does."""
    import resource

    process = start_process(
        "embed.py", *mock, "checkpoint=net", "out=full", "workers=0", cwd=home,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )  # fmt: skip
    finished = ended(process, expect=2)
    assert "cannot write" in finished.message
    assert "full" in finished.message


def test_a_corrupted_checkpoint_is_refused(cli, home, mock):
    shutil.copytree(home / "net", home / "broken", ignore=shutil.ignore_patterns("wandb"))
    weights = home / "broken" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 0xFF
    weights.write_bytes(content)
    assert "corrupted" in cli("embed.py", *mock, "checkpoint=broken", "out=x6", cwd=home, expect=2).message


def test_a_store_of_another_checkpoint_is_not_mixed(cli, home, mock, two_networks):
    words = (*mock, f"checkpoint={two_networks / 'net-a'}", "out=store", "shard_rows=100")
    assert "checkpoint" in cli("embed.py", *words, cwd=home, expect=2).message


# Runs a command and says last whether torch was imported.
TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["store=store", "out=found", "seed=1"]])
def test_a_search_does_without_torch(tiny_settings, home, words):
    """Importing it takes longer than all else in the start of a command."""
    search = [] if "--help" in words else tiny_settings.search
    command = [sys.executable, "-c", TORCH, str(ROOT / "cluster.py"), *words, *search]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"
