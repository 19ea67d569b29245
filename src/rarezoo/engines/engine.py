"""An engine runs the parts of long work, which write files of their own, and says which of them failed.

A part must do nothing if its file is there already, and its file must appear whole or not at all. Then it does not
matter how often a part is begun: after a worker was killed, or because the same command was given twice.
"""

import logging
import math
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tqdm.auto import tqdm

from rarezoo.errors import ConfigError, RarezooError
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)
_NAMED = 6


class PartsFailed(RarezooError, RuntimeError):
    """Some parts of long work failed; the others are finished and stay so."""


@dataclass(frozen=True)
class Part:
    """One part of long work.

    Attributes
    ----------
    name
        What messages call it, such as ``shards 12 to 15``.
    what
        Argument of the task.
    """

    name: str
    what: Any


@dataclass(kw_only=True)
class Engine(Settings, ABC):
    """Runs parts; each subclass is one choice of ``engine=``.

    A new engine implements :meth:`_outcomes` and is registered with ``@option("engine", "name")``.

    Examples
    --------
    >>> from rarezoo.engines.local import Local
    >>> Local().run(abs, [Part("minus one", -1), Part("two", 2)], title="absolute values")
    [1, 2]
    """

    prefix: ClassVar[str] = "engine"

    retries: int = setting(
        2, "how often a part is begun again whose worker died; a part that fails with a message is not", ge=0
    )

    def run(
        self, task: Callable[[Any], Any], parts: Sequence[Part], *, title: str, finished: int = 0, gpus: int = 0
    ) -> list[Any]:  # fmt: skip
        """Run a task on every part, and return the results in the order of the parts.

        Parameters
        ----------
        task
            A function that can be pickled. It is called with :attr:`Part.what`.
        parts
            The parts.
        title
            What the progress bar calls the work.
        finished
            Number of parts that are finished already and not among ``parts``, for the progress bar.
        gpus
            Number of GPUs of this machine that the task can use, one for each worker.

        Raises
        ------
        PartsFailed
            Some parts failed; all others were run to their end. The message names them and the first reason.
        """
        results: list[Any] = [None] * len(parts)
        failed: dict[int, BaseException] = {}
        total = len(parts) + finished
        hidden: dict[str, Any] = {"disable": True} if total == 1 else {}
        with tqdm(total=total, initial=finished, desc=title, unit="part", **hidden) as progress:
            for number, outcome in self._outcomes(task, parts, gpus=gpus):
                if isinstance(outcome, BaseException):
                    failed[number] = outcome
                    log.warning("%s: %s failed: %s", title, parts[number].name, reason(outcome))
                    progress.set_postfix(failed=len(failed))
                else:
                    results[number] = outcome
                progress.update()
        if failed:
            names = [parts[number].name for number in sorted(failed)]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise PartsFailed(
                f"{title}: {len(failed)} of {len(parts)} parts failed",
                value=f"{'; '.join(names[:_NAMED])}{more} ({reason(failed[min(failed)])})",
                fix="The other parts are finished and kept. Remove the cause, then give the same command again.",
            )
        return results

    @abstractmethod
    def _outcomes(self, task: Callable[[Any], Any], parts: Sequence[Part], *, gpus: int) -> Iterator[tuple[int, Any]]:
        """Yield the number of each part that has ended, with its result or with the exception that ended it."""


def gigabytes(text: str) -> float:
    """Return a text such as 16GB, 500MB or 16GiB as a number of gigabytes.

    Raises
    ------
    ConfigError
        It is no such text.
    """
    units = {"B": 1e-9, "KB": 1e-6, "MB": 1e-3, "GB": 1.0, "TB": 1e3, "KIB": 2**10 / 1e9, "MIB": 2**20 / 1e9,
             "GIB": 2**30 / 1e9, "TIB": 2**40 / 1e9, "M": 1e-3, "G": 1.0, "T": 1e3}  # fmt: skip
    number = text.strip().rstrip(string.ascii_letters + " ")
    try:
        size = float(number) * units[text.strip()[len(number) :].strip().upper()]
    except (KeyError, ValueError) as problem:
        raise ConfigError("engine.memory is no memory", value=text, fix="Write it as 16GB or 500MB.") from problem
    if not 0 < size < math.inf:
        raise ConfigError("engine.memory is no memory", value=text, fix="Write it as 16GB or 500MB.")
    return size


def reason(problem: BaseException) -> str:
    """Return why a part failed, in one line and without a stop at its end."""
    text = " ".join(str(problem).split())[:300].rstrip(".")
    return text if isinstance(problem, RarezooError) and text else f"{type(problem).__name__}: {text}".rstrip(": ")
