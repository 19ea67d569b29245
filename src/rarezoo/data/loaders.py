"""Batches of cutouts and votes, decoded while the network computes, in a thread or in processes.

The loader saves its place within an epoch itself instead of through torchdata's StatefulDataLoader: the order follows
from seed and epoch, so the place is two numbers, while StatefulDataLoader would draw and drop every batch done before.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rarezoo.data.images import ImageSource
from rarezoo.data.survey import Galaxies
from rarezoo.errors import ConfigError, DataError

log = logging.getLogger(__name__)
View = Callable[[Tensor], Tensor]
_AHEAD = 4
_MOST_PROCESSES = 8


def decoding_processes(wanted: int | None) -> int:
    """Return the number of processes that decode images.

    A network that runs on the processor already uses its cores, and a fork of its process copies every memory page that
    the next step touches: there one thread, which decodes while the network computes, is faster.

    Parameters
    ----------
    wanted
        The number; None stands for up to 8 with a GPU and 0 without.

    Raises
    ------
    ConfigError
        The number is negative.

    Examples
    --------
    >>> decoding_processes(3)
    3
    """
    if wanted is not None:
        if wanted < 0:
            raise ConfigError(
                "workers must be at least 0", value=wanted, fix="Choose 0 or more, or null to choose by the machine."
            )
        return wanted
    return min(_MOST_PROCESSES, max((os.cpu_count() or 1) - 1, 0)) if torch.cuda.is_available() else 0


class Batch(NamedTuple):
    """Rows of the survey, their cutouts after the view, and their votes (no columns if there are none)."""

    rows: Int64[Tensor, " b"]
    images: UInt8[Tensor, "b 3 s s"]
    votes: Float32[Tensor, "b answers"]


class EpochOrder(Sampler[int]):
    """Positions 0 … size − 1 in an order that follows from seed and epoch alone, split among processes.

    Parameters
    ----------
    size
        Number of positions.
    seed
        Seed of the order.
    rank
        Number of this process.
    world
        Number of processes that share the positions.
    weights
        Share of the epoch in which each position comes, with repetitions; None: each position comes once.

    Attributes
    ----------
    epoch
        Number of the epoch; the trainer sets it before each epoch.
    start
        Number of positions of this process to leave out, for an epoch that continues.

    Examples
    --------
    >>> sorted(EpochOrder(4, seed=0))
    [0, 1, 2, 3]
    """

    def __init__(
        self, size: int, *, seed: int, rank: int = 0, world: int = 1, weights: np.ndarray | None = None
    ) -> None:
        self.size, self.seed, self.rank, self.world, self.weights = size, seed, rank, world, weights
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.size // self.world)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        if self.weights is None:
            order = random.permutation(self.size)
        else:
            order = random.choice(self.size, size=self.size, p=self.weights)
        # Every process takes the same number of steps, so a few galaxies are seen twice.
        order = np.resize(order, len(self) * self.world)
        yield from order[self.rank :: self.world][self.start :].tolist()


class _EpochBatches(Sampler[list[int]]):
    """Batches of an epoch's order. A galaxy that would be alone in the last batch joins the batch before.

    Batch normalisation and losses that compare galaxies cannot learn from one galaxy.
    """

    def __init__(self, order: EpochOrder, size: int) -> None:
        self.order, self.size = order, size

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.size)
        return whole + (rest > 1 or whole == 0) if self.size > 1 else whole

    def __iter__(self) -> Iterator[list[int]]:
        positions = list(self.order)
        while positions:
            alone = self.size > 1 and len(positions) == self.size + 1
            batch, positions = (positions, []) if alone else (positions[: self.size], positions[self.size :])
            yield batch


class _Unreadable(NamedTuple):
    """The error of an image that could not be read; it travels from a worker to the main process."""

    error: DataError


class CutoutDataset(Dataset[Any]):
    """Item i is (row, image after the view, votes) of ``rows[i]``, or the error of its image."""

    def __init__(self, galaxies: Galaxies, rows: Int64[np.ndarray, " galaxies"], *, view: View) -> None:
        self.images: ImageSource = galaxies.images
        self.rows = np.asarray(rows, dtype=np.int64)
        votes = galaxies.votes if galaxies.votes is not None else np.zeros((len(galaxies), 0), dtype=np.float32)
        self.votes = votes
        self.view = view

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Tensor, Tensor] | _Unreadable:
        row = int(self.rows[index])
        try:
            pixels = self.images.cutout(row)
        except DataError as problem:
            return _Unreadable(problem)
        image = torch.from_numpy(np.array(pixels, copy=True)).permute(2, 0, 1)
        return row, self.view(image), torch.from_numpy(np.array(self.votes[row], dtype=np.float32))


def _collated(items: Sequence[Any]) -> tuple[Batch | None, list[DataError]]:
    whole = [item for item in items if not isinstance(item, _Unreadable)]
    errors = [item.error for item in items if isinstance(item, _Unreadable)]
    if not whole:
        return None, errors
    rows, images, votes = zip(*whole, strict=True)
    return Batch(torch.tensor(rows), torch.stack(images), torch.stack(votes)), errors


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the same batches; a thread prepares the next few of them meanwhile."""
    thread = ThreadPoolExecutor(1)
    try:
        coming = deque(thread.submit(next, batches, None) for _ in range(_AHEAD))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, batches, None))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)


def no_readable_image(split: str, skipped: Sequence[str]) -> DataError:
    """Return the error for a split of which unreadable images have left nothing to use."""
    return DataError(
        f"too few images of the {split} split can be read", value=f"{len(skipped)} are unreadable",
        fix="Repair them, or use more galaxies.", ids=skipped,
    )  # fmt: skip


class CutoutLoader:
    """Batches of some rows of a survey.

    Parameters
    ----------
    galaxies
        The survey.
    rows
        Rows of the survey.
    view
        Brings a uint8 image (3, H, W) to the side that all images of a batch have.
    batch_size
        Galaxies per batch.
    workers
        Number of processes that decode; 0 decodes in a thread of this process; None: see :func:`decoding_processes`.
    on_bad_image
        ``stop`` raises the DataError of the image; ``skip`` leaves it out and adds its id to ``skipped``.
    order
        Random order of positions in ``rows``, new in every epoch; None keeps the order of ``rows``. With it, the state
        of the loader (epoch and batches done) can be saved and loaded, so that an epoch continues where it stopped, and
        no galaxy is alone in a batch: the last batch may have one galaxy more, and a batch of which unreadable images
        have left one galaxy is left out.
    cutouts
        Data set whose items stand for the images of ``rows``, such as features of them; None reads the images.
    split
        Split that must give at least one batch, such as ``train``; otherwise DataError is raised at its end.

    Attributes
    ----------
    cutouts
        The data set that the batches come from.
    skipped
        Ids left out so far.
    """

    def __init__(
        self,
        galaxies: Galaxies,
        rows: Int64[np.ndarray, " galaxies"],
        *,
        view: View,
        batch_size: int,
        workers: int | None = 0,
        on_bad_image: str = "stop",
        order: EpochOrder | None = None,
        cutouts: Dataset[Any] | None = None,
        split: str = "",
    ) -> None:
        self.on_bad_image, self.split = on_bad_image, split
        self.skipped: list[str] = []
        # Lightning sets the epoch of the sampler, and expects a batch_sampler wherever there is a sampler.
        self.sampler, self.batch_sampler, self.batch_size = order, None, batch_size
        self._resumed = {"epoch": -1, "done": 0}
        self._done = 0
        self.cutouts: Any = CutoutDataset(galaxies, rows, view=view) if cutouts is None else cutouts
        processes = decoding_processes(workers)
        self._loader: DataLoader[Any] = DataLoader(
            self.cutouts,
            **({"batch_size": batch_size} if order is None else {"batch_sampler": _EpochBatches(order, batch_size)}),
            num_workers=processes,
            collate_fn=_collated,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=False,
            # Processes that joblib started cannot spawn children; fork works everywhere.
            multiprocessing_context="fork" if processes else None,
            prefetch_factor=_AHEAD if processes else None,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        self._done = 0
        if self.sampler is not None:
            continues = self._resumed["epoch"] == self.sampler.epoch and self._resumed["done"] < len(self)
            self._done = self._resumed["done"] if continues else 0
            self.sampler.start = self._done * self.batch_size
        begins, returned = not self._done, 0
        batches = iter(self._loader)
        for batch, errors in batches if self._loader.num_workers else _ahead(batches):
            self._done += 1
            for error in errors:
                self._skip(error)
            alone = self.sampler is not None and bool(errors) and batch is not None and len(batch.rows) == 1
            if batch is not None and not alone:
                returned += 1
                yield batch
        if self.split and begins and not returned:
            raise no_readable_image(self.split, self.skipped)

    def _skip(self, error: DataError) -> None:
        """List the galaxies of an unreadable image, or raise its error."""
        if self.on_bad_image != "skip":
            raise error
        for galaxy in error.ids:
            if galaxy not in self.skipped:
                self.skipped.append(galaxy)
                log.warning("skipped: %s", error)

    def state_dict(self) -> dict[str, int]:
        """Return where the loader is: the epoch, and the number of its batches that were returned."""
        return {"epoch": self.sampler.epoch if self.sampler else 0, "done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a :meth:`state_dict`."""
        self._resumed = dict(state)
