"""``engine=dask``: workers of a Dask cluster, on this machine, on SLURM, or wherever a scheduler is running."""

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rarezoo.engines.engine import Engine, Part, PartsFailed, gigabytes
from rarezoo.errors import ConfigError, MissingDependency
from rarezoo.settings import option, setting

log = logging.getLogger(__name__)
_WAIT, _AUTO = 60, "auto"


def quieten(level: int) -> None:
    """Let distributed, and what it is built on, write no message below a level."""
    for name in ("asyncio", "tornado.application", *logging.root.manager.loggerDict):
        if name.startswith(("asyncio", "tornado.application", "distributed")):
            logging.getLogger(name).setLevel(level)


@contextmanager
def client_in_this_process() -> Iterator[Any]:
    """Give a Dask client whose only worker is a thread of this process, for packages that need one.

    Raises
    ------
    ImportError
        distributed is not installed.
    """
    from dask.distributed import Client, LocalCluster

    quieten(logging.WARNING)
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, Client(cluster) as client:
        yield client


@option("engine", "dask")
@dataclass(kw_only=True)
class Dask(Engine):
    """Workers of a Dask cluster. A worker that dies is replaced, and its part is begun again by another one.

    Every worker runs one part at a time. On a machine with GPUs, each worker of this machine sees one of them. All
    workers must see the same folders.

    Examples
    --------
    >>> Dask(workers=2, memory="4GB").workers
    2
    """

    workers: int = setting(0, "number of workers; 0 = one per GPU or, without a GPU, one per core", ge=0)
    memory: str = setting(_AUTO, "memory of a worker, such as 8GB; a worker of this machine that exceeds it is ended")
    address: str = setting("", "address of a scheduler that is running, such as tcp://host:8786; empty: a new cluster")
    cluster: dict[str, Any] = setting(
        {}, "a cluster of dask-jobqueue: {kind: SLURMCluster, and its settings}; empty: processes of this machine"
    )

    def check(self) -> None:
        """Raise ConfigError for what is no memory, or if both a running scheduler and a new cluster are asked for."""
        if self.memory != _AUTO:
            gigabytes(self.memory)
        if self.address and self.cluster:
            raise ConfigError("engine.address and engine.cluster exclude each other", value=self.address,
                              fix="Leave one of them out.")  # fmt: skip

    def _outcomes(self, task: Callable[[Any], Any], parts: Sequence[Part], *, gpus: int) -> Iterator[tuple[int, Any]]:
        try:
            from dask.distributed import as_completed
        except ImportError as problem:
            raise MissingDependency("dask", extra="hats", purpose="engine=dask") from problem
        connected = False
        try:
            with self._client(len(parts), gpus) as client:
                connected = True
                futures = {
                    client.submit(task, part.what, pure=False, retries=0, key=f"{part.name} #{number}"): number
                    for number, part in enumerate(parts)
                }
                for future in as_completed(futures):
                    failure = future.exception()
                    outcome = future.result() if failure is None else failure
                    if future.status in ("cancelled", "lost") or client.status != "running":
                        raise self._gone()
                    yield futures[future], outcome
        # A scheduler that is lost shows in any call, also in the one that closes the client.
        except (asyncio.CancelledError, concurrent.futures.CancelledError, OSError) as problem:
            if not connected:
                raise
            raise self._gone() from problem

    def _gone(self) -> PartsFailed:
        return PartsFailed(
            "the scheduler of the Dask cluster is gone", value=self.address or "the cluster",
            fix="Finished parts are kept: start it again and give the same command again.",
        )  # fmt: skip

    @contextmanager
    def _client(self, parts: int, gpus: int) -> Iterator[Any]:
        """Give a client of the cluster, which is closed at the end if it was started here."""
        import dask
        from dask.distributed import Client

        # A lost worker or scheduler is told in one message; distributed would write the traceback of every connection.
        quieten(logging.CRITICAL)
        settings = {
            "distributed.scheduler.allowed-failures": self.retries,
            # With Dask's setting glibc gives back the memory of every array at once, and a network takes twice as long.
            "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
            # A profile of what a worker computes, a hundred times per second, is for Dask's dashboard, which is off.
            "distributed.worker.profile.enabled": False,
            "distributed.admin.system-monitor.gil.enabled": False,
            # Every process asks the system so often how it is, which interrupts what a worker computes.
            "distributed.admin.tick.interval": "500ms",
            "distributed.admin.system-monitor.interval": "5s",
            "distributed.worker.memory.monitor-interval": "500ms",
        }
        with dask.config.set(settings):
            if self.address:
                try:
                    client = Client(self.address, timeout=_WAIT)
                except (OSError, ValueError) as problem:
                    raise ConfigError(
                        "no Dask scheduler answers", value=self.address,
                        fix="Start one (dask scheduler), or leave out engine.address.",
                    ) from problem  # fmt: skip
                with client:
                    yield client
                return
            with self._new_cluster(parts, gpus) as cluster, Client(cluster, timeout=_WAIT) as client:
                log.info("Dask: %d workers, scheduler at %s", len(cluster.workers), cluster.scheduler_address)
                yield client

    def job_script(self) -> str:
        """Return what a job of ``cluster`` would submit; nothing is submitted.

        Raises
        ------
        ConfigError, MissingDependency
            The cluster or its settings do not exist.
        """
        with self._job_queue() as cluster:
            return str(cluster.job_script())

    def _job_queue(self) -> Any:
        """Return a cluster of dask-jobqueue without any job yet."""
        settings = dict(self.cluster)
        kind = settings.pop("kind", "SLURMCluster")
        try:
            import dask_jobqueue
        except ImportError as problem:
            raise MissingDependency("dask-jobqueue", extra="hats", purpose="engine.cluster") from problem
        if not hasattr(dask_jobqueue, kind):
            raise ConfigError(
                "dask-jobqueue has no such cluster", value=kind, fix="Choose one, such as SLURMCluster or PBSCluster."
            )
        settings = {"cores": 1, "processes": 1, "memory": self.memory, **settings}
        if settings["memory"] == _AUTO:
            raise ConfigError(
                "a job of a cluster needs a memory", value="engine.memory=auto", fix="Give one: engine.memory=16GB."
            )
        try:
            return getattr(dask_jobqueue, kind)(**settings)
        except (TypeError, ValueError) as problem:
            raise ConfigError(
                f"{kind} refuses the settings of engine.cluster", value=problem, fix="See dask-jobqueue's manual."
            ) from problem

    def _new_cluster(self, parts: int, gpus: int) -> Any:
        """Return a new cluster: of dask-jobqueue, or of processes of this machine, each with a GPU of its own."""
        if self.cluster:
            cluster = self._job_queue()
            cluster.scale(jobs=min(self.workers or 1, parts))
            return cluster
        from dask.distributed import Nanny, Scheduler, SpecCluster
        from dask.system import CPU_COUNT

        count = max(1, min(self.workers or gpus or CPU_COUNT, parts))
        workers = {
            number: {
                "cls": Nanny,
                "options": {
                    "nthreads": 1,
                    "memory_limit": self.memory,
                    "silence_logs": logging.ERROR,
                    # Libraries must not start a thread per core in each worker.
                    "env": {
                        "OMP_NUM_THREADS": "1",
                        "NUMBA_NUM_THREADS": "1",
                        **({"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus else {}),
                    },
                },
            }
            for number in range(count)
        }
        scheduler = {"cls": Scheduler, "options": {"dashboard": False, "host": "127.0.0.1"}}
        return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR, name="rarezoo")
