"""``engine=local``: the parts one after the other, in this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rarezoo.engines.engine import Engine, Part
from rarezoo.errors import RarezooError
from rarezoo.settings import option


@option("engine", "local")
@dataclass(kw_only=True)
class Local(Engine):
    """One part after the other in this process; a mistake of the program ends it at once, with its traceback."""

    def _outcomes(self, task: Callable[[Any], Any], parts: Sequence[Part], *, gpus: int) -> Iterator[tuple[int, Any]]:
        for number, part in enumerate(parts):
            try:
                yield number, task(part.what)
            except (RarezooError, OSError) as problem:
                if len(parts) == 1:
                    raise
                yield number, problem
