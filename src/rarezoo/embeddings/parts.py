"""Parts of the shards of a store, which several processes or machines write at the same time."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rarezoo.cache import locked
from rarezoo.engines import Part
from rarezoo.errors import ConfigError, OutputError

log = logging.getLogger(__name__)
# Folder of a store, while it is being written, with the locks of the parts.
LOCKS = ".locks"


def shards_of_part(part: str, *, shards: int) -> list[int]:
    """Return the shards of one part.

    Parameters
    ----------
    part : str
        Such as ``3/64``: the third of 64 parts; empty for all shards.
    shards : int
        Number of shards.

    Returns
    -------
    list of int
        Neighbouring shards. It is empty if there are more parts than shards and this one got none.

    Raises
    ------
    ConfigError
        The text is no such part.

    Examples
    --------
    >>> shards_of_part("2/3", shards=7)
    [3, 4]
    """
    if not part:
        return list(range(shards))
    numbers = part.split("/")
    if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers) or not int(numbers[1]):
        raise ConfigError("part is no part", value=part, fix="Write it as part=3/64, the third of 64 parts.")
    number, count = map(int, numbers)
    if not 1 <= number <= count:
        raise ConfigError("there is no such part", value=part, fix=f"The parts are 1/{count} to {count}/{count}.")
    # The first parts get one shard more if they cannot all get the same number.
    each, further = divmod(shards, count)
    start = (number - 1) * each + min(number - 1, further)
    return list(range(start, start + each + (number <= further)))


def parts_of_shards(shards: Sequence[int], count: int, *, title: str = "") -> list[Part]:
    """Divide shards into parts for an engine, each of neighbouring ones: at most ``count``, and none without a shard.

    Examples
    --------
    >>> parts_of_shards(range(5), 2)
    [Part(name='shards 0 to 2', what=[0, 1, 2]), Part(name='shards 3 to 4', what=[3, 4])]
    """
    groups = np.array_split(np.asarray(shards), max(min(count, len(shards)), 1))
    return [Part(f"{title} shards {group[0]} to {group[-1]}".strip(), group.tolist()) for group in groups]


@contextmanager
def lock_if_possible(place: Path) -> Iterator[None]:
    """Hold the lock of a part in a ``with`` block, so that no other process works on it.

    It only saves time. Where the file system has no locks, two processes do the same work and write the same file.
    """
    try:
        lock = locked(place)
    except OutputError as problem:
        log.info("a part is not locked: %s", problem.what)
        yield
        return
    with lock:
        yield
