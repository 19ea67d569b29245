"""Presets of machines: composed, dry-run against a SLURM of three scripts, stopped and gone on with; two processes."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import hydra
import pytest

from rarezoo import cli as apps

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
NETWORK = ["model.input_size=32", "model.bottleneck=16", "train.workers=0", "train.accelerator=cpu", "logger=none"]

# sbatch keeps the script and runs it at once; srun drops its own options; sacct knows whether the job is over.
SLURM = {
    "sbatch": """
cp "${@: -1}" "$SLURM_STUB/submitted.sh"
export SLURM_JOB_ID=4711 SLURM_JOB_NAME=rarezoo SLURM_JOB_NUM_NODES=1
export SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
(bash "$SLURM_STUB/submitted.sh"; touch "$SLURM_STUB/over") >/dev/null 2>&1 &
echo "Submitted batch job 4711"
""",
    "srun": """
while [[ $1 == -* ]]; do [[ $1 == --output || $1 == --error ]] && shift; shift; done
exec "${@//%j/4711}" 2>"$SLURM_STUB/job.err"
""",
    "sacct": """
[[ -e $SLURM_STUB/over ]] && state=COMPLETED
printf 'JobID|State\\n4711|%s\\n' "${state:-RUNNING}"
""",
    "scontrol": 'echo "$@" >> "$SLURM_STUB/scontrol.log"',
}


def composed(*overrides):
    apps.register()
    with hydra.initialize_config_dir(str(apps.conf_dir().resolve()), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides), return_hydra_config=True)


def start(*words, cwd, **environment):
    command = [sys.executable, str(ROOT / "train.py"), *map(str, words)]
    known = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **environment}
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=known)


def ended(process, *, expect=0):
    out, err = process.communicate(timeout=400)
    assert process.returncode == expect, f"{process.args} ended with {process.returncode}\n{out}\n{err}"
    return out, err


def started(process, state):
    """Wait until a training has written a file, a state to go on from, and not only opened it."""
    while not (state.exists() and state.stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def weights(checkpoint):
    return json.loads((checkpoint / "card.json").read_text())["sha256"]["weights.safetensors"]


@pytest.fixture(scope="module")
def mock(tiny_survey):
    """Words of a command line that name the survey."""
    return tiny_survey.words


@pytest.fixture
def slurm(tmp_path):
    """Environment of a cluster whose commands are stubs."""
    stub = tmp_path / "slurm"
    stub.mkdir()
    for name, script in SLURM.items():
        (stub / name).write_text(f"#!/bin/bash\n{script.strip()}\n")
        (stub / name).chmod(stub.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{stub}:{os.environ['PATH']}", "SLURM_STUB": str(stub)}


def test_gpus_is_every_gpu_with_a_process_of_its_own():
    train = composed("machine=gpus").train
    assert (train.accelerator, train.devices, train.strategy, train.precision) == ("gpu", -1, "ddp", "bf16-mixed")
    assert train.channels_last
    assert train.compile


def test_slurm_asks_for_as_many_gpus_and_tasks_as_there_are_processes():
    config = composed("machine=slurm", "train.devices=4", "train.nodes=2")
    launcher = config.hydra.launcher
    assert config.hydra.mode.name == "MULTIRUN"
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 4, 4)
    assert launcher.cpus_per_task > config.train.workers


@pytest.mark.parametrize(
    ("experiment", "side", "launcher"), [("bottleneck", 32, "BasicLauncher"), ("bottleneck_full", 224, "SlurmLauncher")]
)
def test_studies_sweep_every_width_of_both_architectures_over_seeds(experiment, side, launcher):
    config = composed(f"experiment={experiment}")
    params = config.hydra.sweeper.params
    assert params["model.bottleneck"] == "8,16,32,64,128,256,native"
    assert params.model == "efficientnet_b0,maxvit_tiny"
    assert len(str(params.seed).split(",")) >= 3
    assert (config.hydra.callbacks.sweeps.study, config.model.input_size) == ("bottleneck", side)
    assert config.hydra.launcher._target_.endswith(launcher)
    assert config.out.startswith("runs/")


def test_a_machine_without_gpus_or_slurm_says_so(cli, mock, monkeypatch, tmp_path):
    assert (
        "not possible on this machine" in cli("train.py", *mock, "machine=gpus", "out=net", cwd=tmp_path, expect=2).err
    )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "no SLURM here" in cli("train.py", *mock, "machine=slurm", "out=sweep", cwd=tmp_path, expect=2).err


@pytest.mark.slow
def test_a_job_goes_through_sbatch_and_srun_to_a_checkpoint(mock, slurm, tmp_path):
    words = ["machine=slurm", "train.compile=false", "train.precision=32-true", "train.epochs=1", "out=sweep"]
    words += ["hydra.launcher.partition=gpu", "hydra.sweep.subdir=job"]
    ended(start(*mock, *words, *NETWORK, cwd=tmp_path, **slurm))
    assert (tmp_path / "sweep" / "job" / "card.json").is_file()
    script = (tmp_path / "slurm" / "submitted.sh").read_text()
    for line in (
        "--job-name=rarezoo", "--partition=gpu",
        "--time=720", "--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=9",
        "--mem=48GB", "--signal=USR2@120", "--requeue", "--open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script, script
    assert "srun --unbuffered" in script


@pytest.mark.slow
def test_slurm_that_warns_a_training_gets_it_back_and_it_goes_on_to_the_same_weights(cli, mock, slurm, tmp_path):
    """Lightning's requeue, as under a plain ``srun python train.py``, whose script has --signal=USR1@120."""
    words = [*mock, "data.limit=120", *NETWORK, "train.epochs=3", "train.batch_size=16", "train.save_every=2"]
    task = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "net", "SLURM_PROCID": "0"}
    task |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", **slurm}
    cli("train.py", *words, "out=straight", cwd=tmp_path)
    warned = start(*words, "out=warned", cwd=tmp_path, **task)
    started(warned, tmp_path / "warned" / ".training" / "last.ckpt")
    warned.send_signal(signal.SIGUSR1)
    requeued = tmp_path / "slurm" / "scontrol.log"
    started(warned, requeued)
    assert requeued.read_text() == "requeue 77\n"
    warned.kill()
    warned.wait()
    _, err = ended(start(*words, "out=warned", cwd=tmp_path, **task))
    assert "resuming from" in err
    assert weights(tmp_path / "warned") == weights(tmp_path / "straight")


@pytest.mark.slow
def test_a_sweep_of_two_under_submitit_survives_that_one_is_preempted(mock, tmp_path):
    words = [*mock, "data.limit=120", *NETWORK, "train.batch_size=16", "train.save_every=2", "train.epochs=2"]
    words += ["seed=1,2", "out=sweep"]
    sweep = start("-m", *words, "hydra/launcher=submitit_local", "hydra.sweep.subdir=${seed}", cwd=tmp_path)
    started(sweep, tmp_path / "sweep" / "1" / ".training" / "last.ckpt")
    log = tmp_path / "sweep" / "1" / "run.log"
    for task in Path("/proc").glob("[0-9]*"):
        if _is_task(task, tmp_path) and os.path.samefile(_opened_log(task), log):
            os.kill(int(task.name), signal.SIGUSR2)
    ended(sweep)
    assert "preempted" in log.read_text()
    assert "resuming from" in log.read_text()
    assert all((tmp_path / "sweep" / seed / "card.json").is_file() for seed in "12")


def _is_task(process, folder):
    try:
        words = (process / "cmdline").read_text()
    except OSError:
        return False
    return "submitit.core._submit" in words and str(folder) in words


def _opened_log(process):
    """The run.log that a process has open, or what is no log."""
    links = (link for link in (process / "fd").iterdir() if os.path.exists(link))
    return next((os.path.realpath(link) for link in links if os.path.realpath(link).endswith("run.log")), process)


def test_a_job_of_a_multirun_cannot_start_processes_of_its_own(cli, mock, tmp_path):
    words = [*mock, *NETWORK, "train.devices=2", "train.strategy=ddp", "seed=1,2", "out=sweep"]
    err = cli("train.py", "-m", *words, cwd=tmp_path, expect=2).err
    assert "a job of a multirun cannot start processes" in err


@pytest.fixture(scope="module")
def one_process(mock, tmp_path_factory):
    """Validation loss of one process, and the settings that two share."""
    folder = tmp_path_factory.mktemp("ddp")
    words = [*mock, *NETWORK, "model.pool=last", "train.epochs=4", "data.n=400", "seed=1"]
    ended(start(*words, "train.batch_size=32", "out=one", cwd=folder))
    return _validation_loss(folder / "one"), words, folder


@pytest.mark.slow
def test_two_processes_train_to_the_loss_of_one(one_process):
    """The same global batch of 32 galaxies.

    Over eight seeds, two processes ended 0.37 ± 0.58 nats above one (batch norm sees half as many galaxies, and views
    are drawn per process), where one process alone scatters by 1.6 nats over seeds. Processes that each took all
    galaxies ended 5.7 nats below.
    """
    loss, words, folder = one_process
    ended(start(*words, "train.batch_size=16", "train.devices=2", "train.strategy=ddp", "out=two", cwd=folder))
    assert _validation_loss(folder / "two") == pytest.approx(loss, abs=2.3)
    assert (folder / "two" / "metrics.csv").read_text().splitlines()[-1].split(",")[1] == "40", "ten steps per epoch"


@pytest.mark.slow
def test_the_verb_trains_with_two_processes_and_the_automatic_strategy(mock, tmp_path):
    words = [*mock, *NETWORK, "train.epochs=1", "train.batch_size=16", "train.devices=2", "out=net"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    verb = Path(sys.executable).with_name("rarezoo")
    subprocess.run([verb, "train", *words], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
    # 191 galaxies of the training split, half of them each: six steps, not twelve.
    last = (tmp_path / "net" / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert last[1] == "6"


def _validation_loss(folder):
    head, *_, last = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    return float(last[head.index("validation/loss")])
