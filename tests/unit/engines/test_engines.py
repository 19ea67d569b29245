"""Engines run every part, name those that failed, and survive workers that die."""

import os
import signal
import stat
from pathlib import Path

import pytest

from rarezoo.engines import Part, PartsFailed
from rarezoo.engines.dask import Dask
from rarezoo.engines.local import Local
from rarezoo.engines.submitit import Submitit
from rarezoo.errors import ConfigError, OutputError

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]


def work(what):
    """Write a file; die once, or fail, if the part says so."""
    folder, number, fate = what
    mark = Path(folder) / f"begun-{number}"
    if fate == "die" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "full":
        raise OutputError("cannot write (No space left on device)", value=f"{folder}/{number}", fix="Free some space.")
    (Path(folder) / str(number)).write_text(fate)
    return number


def parts(folder, *fates):
    return [Part(f"part {number}", (str(folder), number, fate)) for number, fate in enumerate(fates)]


def test_parts_that_fail_are_named_and_the_others_are_finished(tmp_path):
    with pytest.raises(PartsFailed, match=r"1 of 3 parts failed.*part 1.*No space left.*same command"):
        Local().run(work, parts(tmp_path, "", "full", ""), title="write")
    assert {path.name for path in tmp_path.iterdir()} == {"0", "2"}


def test_one_part_alone_fails_with_its_own_message(tmp_path):
    with pytest.raises(OutputError, match="Free some space"):
        Local().run(work, parts(tmp_path, "full"), title="write")


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_is_replaced_and_a_full_disk_stops_one_part_only(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(PartsFailed, match=r"1 of 4 parts failed.*part 3.*No space left"):
        Dask(workers=2).run(work, parts(tmp_path, "", "die", "", "full"), title="write")
    assert {"0", "1", "2"} <= {path.name for path in tmp_path.iterdir()}


def test_a_scheduler_that_does_not_answer_is_one_message():
    pytest.importorskip("distributed")
    with pytest.raises(ConfigError, match="no Dask scheduler answers"):
        Dask(address="nonsense://127.0.0.1:1").run(abs, [Part("one", 1)], title="none")


@pytest.mark.slow
def test_submitit_runs_parts_as_processes_and_begins_one_that_died_again(tmp_path):
    pytest.importorskip("submitit")
    engine = Submitit(cluster="local", workers=2, logs=str(tmp_path / "logs"), memory="1GB")
    with pytest.raises(PartsFailed, match=r"1 of 3 parts failed.*part 2.*No space left"):
        engine.run(work, parts(tmp_path, "", "die", "full"), title="write")
    assert {"0", "1"} <= {path.name for path in tmp_path.iterdir()}


def test_an_array_of_slurm_asks_for_what_the_settings_say(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    for name, says in (("srun", ""), ("sbatch", f'cp "${{@: -1}}" {tmp_path}/sent; echo Submitted batch job 12')):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{says}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = Submitit(workers=2, memory="48GB", gpus=1, partition="gpu", timeout=30, logs=str(tmp_path / "logs"))
    assert len(engine.executor().map_array(abs, [1, 2, 3])) == 3
    sent = (tmp_path / "sent").read_text()
    for line in ("--array=0-2%2", "--mem=48GB", "--gpus-per-node=1", "--partition=gpu", "--time=30"):
        assert line in sent


def test_a_cluster_of_dask_jobqueue_asks_for_what_the_settings_say():
    pytest.importorskip("dask_jobqueue")
    engine = Dask(memory="48GB", cluster={"kind": "SLURMCluster", "queue": "gpu", "job_extra_directives": ["--gpus=1"]})
    script = engine.job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH --gpus=1", "#SBATCH --mem=45G"):
        assert line in script


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (lambda: Submitit(cluster="local", memory="much").executor(), "16GB"),
        (lambda: Submitit(cluster="local", parameters={"colour": 1}).executor(), "engine.parameters"),
        (lambda: Dask(memory="lots"), "engine.memory.*lots.*16GB"),
        (lambda: Dask(memory="-1GB"), "engine.memory"),
        (lambda: Dask(address="tcp://host:1", cluster={"kind": "SLURMCluster"}), "engine.address"),
        (lambda: Dask(cluster={"kind": "Mine"}, memory="1GB").job_script(), "SLURMCluster"),
        (lambda: Dask(cluster={"kind": "SLURMCluster"}).job_script(), "engine.memory"),
    ],
)
def test_settings_that_cannot_be_are_refused(engine, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        engine()


def test_without_slurm_the_message_names_another_way(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cluster=local"):
        Submitit().executor()
