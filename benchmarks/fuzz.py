"""Read damaged, odd and hostile files with the real readers: only rarezoo's own errors may come out.

An input is decided by a seed and a number alone, so that each can be made again:
``python -m benchmarks fuzz seed=3 only=1204``.
The readers run in a process of their own, whose memory and time are limited. An input that makes a reader fail stays in
the output folder, with the reason beside it.
"""

import json
import multiprocessing
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.hostile_files import Folder, makers, one_by_one
from rarezoo import tables
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.settings import Settings, setting

# Longest time of one input: of the processor, and by the clock, at which the process is ended from outside.
_SECONDS, _PATIENCE = 20, 240
# What a library says about its own future does not concern a user.
_NOT_FOR_USERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)
_NOW, _DONE = "now.json", "done.json"


class TooSlow(BaseException):
    """The time of an input is over. No reader may catch it."""


@dataclass(frozen=True)
class Fault:
    """An input that made a reader fail.

    Attributes
    ----------
    seed, number
        What decides the input.
    kind
        Its kind.
    reason
        What came out of the reader.
    folder
        Where the input is kept.
    """

    seed: int
    number: int
    kind: str
    reason: str
    folder: str


@dataclass(frozen=True)
class FuzzReport:
    """What came out of the readers.

    Attributes
    ----------
    seed
        Seed of the inputs.
    read, refused
        Number of inputs of each kind that were read, and that were refused with one of our own errors.
    faults
        Inputs that made a reader fail.
    seconds
        Time that was spent, s.
    """

    seed: int
    read: Counter
    refused: Counter
    faults: tuple[Fault, ...]
    seconds: float

    def summary(self) -> str:
        """Return a table with a row per kind, and the faults."""
        kinds = sorted({*self.read, *self.refused, *(fault.kind for fault in self.faults)})
        failed = Counter(fault.kind for fault in self.faults)
        counts = [(kind, self.read[kind], self.refused[kind], failed[kind]) for kind in kinds]
        counts.append(("all", self.read.total(), self.refused.total(), len(self.faults)))
        rows = [[str(cell) for cell in row] for row in counts]
        lines = [tables.markdown(["kind", "read", "refused", "faults"], rows)]
        lines.append(f"seed {self.seed}, {self.seconds:.0f} s")
        lines += [
            f"fault: seed={fault.seed} only={fault.number} ({fault.kind}): {fault.reason}" for fault in self.faults
        ]
        return "\n".join(lines)


@dataclass(kw_only=True)
class FuzzRun(Settings):
    """Read damaged, odd and hostile files with the real readers, and report what is not one of our own errors."""

    seed: int = setting(0, "seed of the inputs", ge=0)
    seconds: float = setting(120.0, "time to spend; every input that is begun is finished", unit="s", gt=0)
    kinds: list[str] = setting([], "kinds of input; empty: all")
    only: int = setting(-1, "number of the one input to make and read; -1: as many as the time allows")
    memory: float = setting(
        3.0, "memory that a reader may use beyond what Python and the libraries take", unit="GiB", gt=0
    )
    out: str = setting("runs/fuzz", "folder for inputs that make a reader fail")

    def check(self) -> None:
        """Raise ConfigError for a kind that does not exist."""
        known = makers()
        for kind in self.kinds:
            if kind not in known:
                raise ConfigError("no such kind of input", value=kind, fix=f"Choose from: {', '.join(known)}.")

    def run(self) -> FuzzReport:
        """Make and read inputs until the time is over."""
        out, began = Path(self.out).resolve(), time.monotonic()
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        Folder(out / "base").prepare()
        number, faults, read, refused = max(self.only, 0), list[Fault](), Counter(), Counter()  # type: ignore[var-annotated]
        while True:
            (out / _DONE).unlink(missing_ok=True)
            left = self.seconds - (time.monotonic() - began)
            worker = multiprocessing.get_context("spawn").Process(target=_work, args=(self, number, left))
            worker.start()
            _wait(worker, out / _NOW)
            now: dict[str, Any] = {"number": number, "kind": "start"}
            if (out / _NOW).exists():
                now = json.loads((out / _NOW).read_text())
            read.update(now.get("read", {}))
            refused.update(now.get("refused", {}))
            faults += [Fault(**fault) for fault in now.get("faults", [])]
            if (out / _DONE).exists():
                break
            reason = f"the process ended with {worker.exitcode}"
            faults.append(Fault(self.seed, now["number"], now["kind"], reason, now.get("folder", "")))
            number = now["number"] + 1
            if self.only >= 0 or time.monotonic() - began > max(self.seconds, _PATIENCE):
                break
        for left_over in (out / "base", out / _NOW, out / _DONE):
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink(missing_ok=True)
        return FuzzReport(self.seed, read, refused, tuple(faults), time.monotonic() - began)


def _wait(worker: multiprocessing.process.BaseProcess, now: Path) -> None:
    """Wait until a worker ends, and end it if it does not come on to the next input."""
    began = time.time()
    while worker.is_alive():
        worker.join(timeout=1)
        last = now.stat().st_mtime if now.exists() else began
        if time.time() - max(last, began) > _PATIENCE:
            worker.kill()
            worker.join()


def _work(job: FuzzRun, number: int, seconds: float) -> None:
    """Make and read inputs in a process of its own, and note before each one which it is."""
    out, end = Path(job.out).resolve(), time.monotonic() + seconds
    folder, known = Folder(out / "base"), makers()
    kinds = job.kinds or list(known)
    folder.import_readers()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = taken + int(job.memory * 2**30)
    signal.signal(signal.SIGPROF, _time_is_over)
    read, refused, faults = Counter[str](), Counter[str](), list[Fault]()
    singles = sum(not known[kind].weight for kind in kinds)
    for at, kind in one_by_one(number, kinds, known):
        place = out / f"{kind}-{job.seed}-{at}"
        note = {
            "number": at, "kind": kind, "folder": str(place), "read": read, "refused": refused,
            "faults": [asdict(fault) for fault in faults],
        }  # fmt: skip
        _write(note, out / _NOW)
        place.mkdir()
        reader = known[kind].make(np.random.default_rng([job.seed, at]), at, place, folder)
        was_refused, reason = _outcome(reader, limit=limit)
        if reason:
            (place / "reason.txt").write_text(reason)
            faults.append(Fault(job.seed, at, kind, reason.strip().splitlines()[-1][:300], str(place)))
        else:
            (refused if was_refused else read)[kind] += 1
            shutil.rmtree(place)
        if job.only >= 0 or (time.monotonic() > end and at >= singles):
            break
    _write(
        {"number": -1, "kind": "", "read": read, "refused": refused, "faults": [asdict(f) for f in faults]}, out / _NOW
    )
    (out / _DONE).touch()


def _write(note: dict, path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(note))
    partial.replace(path)


def _time_is_over(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {_SECONDS} s of the processor")


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__


def _outcome(reader: Callable[[], object], *, limit: int) -> tuple[bool, str]:
    """Return whether a reader refused its input with one of our errors, and why it failed; empty if it did not.

    Parameters
    ----------
    reader
        Reads the input.
    limit
        Largest address space of the process meanwhile, bytes.
    """
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        was_refused = False
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        try:
            reader()
        except RarezooError as problem:
            was_refused = True
            # On a machine with more memory the reader would have taken it.
            if any(isinstance(cause, MemoryError) for cause in _causes(problem)):
                return True, traceback.format_exc()
        except BaseException:
            return False, traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
    told = [warning for warning in escaped if not issubclass(warning.category, _NOT_FOR_USERS)]
    return was_refused, f"a warning escaped: {told[0].category.__name__}: {told[0].message}" if told else ""
