"""``engine=submitit``: one job per part, by SLURM or as a process of this machine."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarezoo.engines.engine import Engine, Part, gigabytes
from rarezoo.errors import ConfigError, MissingDependency, RarezooError
from rarezoo.settings import option, setting

_CLUSTERS = ("slurm", "local", "debug")
_PATIENCE = 0.5


@option("engine", "submitit")
@dataclass(kw_only=True)
class Submitit(Engine):
    """Jobs of submitit: an array of SLURM, or with ``cluster=local`` processes of this machine.

    A job that died is submitted again, as often as ``retries`` says. The command waits until all jobs have ended; if it
    is stopped, the jobs go on, and the same command takes up what they have finished.

    Examples
    --------
    >>> Submitit(cluster="local", workers=2).timeout
    720
    """

    cluster: str = setting("slurm", "slurm; local = processes of this machine; debug = this process", choices=_CLUSTERS)
    workers: int = setting(16, "number of jobs that run at the same time", ge=1)
    timeout: int = setting(720, "longest time that a job may take", unit="minutes", ge=1)
    memory: str = setting("16GB", "memory of a job")
    cores: int = setting(1, "cores of a job", ge=1)
    gpus: int = setting(0, "GPUs of a job", ge=0)
    partition: str = setting("", "partition of SLURM; empty: the cluster's own")
    account: str = setting("", "account of SLURM; empty: the user's own")
    parameters: dict[str, Any] = setting({}, "further parameters of submitit's executor, such as {slurm_qos: long}")
    logs: str = setting("submitit_logs", "folder of the jobs' logs; all machines must see it")

    def _outcomes(self, task: Callable[[Any], Any], parts: Sequence[Part], *, gpus: int) -> Iterator[tuple[int, Any]]:
        executor, task = self.executor(), _Answered(task)
        waiting = deque((number, 0) for number in range(len(parts)))
        running: dict[int, tuple[Any, int]] = {}
        # SLURM limits the jobs of an array itself; a local executor would start all of them at once.
        at_once = len(parts) if self.cluster == "slurm" else self.workers
        if self.cluster == "slurm" and parts:
            jobs = executor.map_array(task, [part.what for part in parts])
            running, waiting = {number: (job, 0) for number, job in enumerate(jobs)}, deque()
        while waiting or running:
            while waiting and len(running) < at_once:
                number, begun = waiting.popleft()
                running[number] = (executor.submit(task, parts[number].what), begun)
            for number, (job, begun) in list(running.items()):
                if not job.done():
                    continue
                del running[number]
                # A job without a result has died; one that ended with a message would do so again.
                problem = job.exception()
                if problem is not None and begun < self.retries:
                    waiting.append((number, begun + 1))
                    continue
                yield number, job.result() if problem is None else problem
            time.sleep(_PATIENCE if running and self.cluster != "debug" else 0)

    def executor(self) -> Any:
        """Return the executor of submitit with these settings.

        Raises
        ------
        MissingDependency
            submitit is not installed.
        ConfigError
            There is no SLURM here, or submitit does not know one of ``parameters``.
        """
        try:
            import submitit
        except ImportError as problem:
            raise MissingDependency("submitit", extra="hats", purpose="engine=submitit") from problem
        own: dict[str, Any] = {"timeout_min": self.timeout, "name": "rarezoo", "cpus_per_task": self.cores}
        own |= {"mem_gb": gigabytes(self.memory), "gpus_per_node": self.gpus, "slurm_array_parallelism": self.workers}
        own |= {f"slurm_{name}": getattr(self, name) for name in ("partition", "account") if getattr(self, name)}
        try:
            executor = submitit.AutoExecutor(folder=Path(self.logs) / "%j", cluster=self.cluster)
            executor.update_parameters(**own, **self.parameters)
        except RuntimeError as problem:
            raise ConfigError(
                "no SLURM here",
                value=str(problem).rstrip("?. "),
                fix="Start it on the cluster, or choose engine.cluster=local.",
            ) from problem
        except (AssertionError, NameError, TypeError, ValueError) as problem:
            raise ConfigError(
                "submitit refuses engine.parameters", value=problem, fix="See the manual of submitit's executors."
            ) from problem
        return executor


@dataclass(frozen=True)
class _Answered:
    """A task that returns its message instead of raising it, because submitit keeps only the text of an error."""

    task: Callable[[Any], Any]

    def __call__(self, what: Any) -> Any:
        try:
            return self.task(what)
        except (RarezooError, OSError) as problem:
            return problem
