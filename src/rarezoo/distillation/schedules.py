"""Which epoch of an expert a student starts from: three schedules of trajectory matching.

``mtt``
    Cazenavette et al. (2022, CVPR): any of the first epochs, at random.
``widening``
    Guo et al. (2024, ICLR; DATM): at random, below a bound that grows linearly.
``stm``
    Guan et al. (arXiv 2311.17967), self-adaptive: the epochs below a cap in turn; the cap grows when a test says that
    the images have learnt what there is to learn below it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

MTT, STM, WIDENING = "mtt", "stm", "widening"
SCHEDULES = (STM, MTT, WIDENING)


@dataclass
class Schedule(ABC):
    """Chooses start epochs.

    Attributes
    ----------
    last
        The last epoch that may be chosen.
    """

    last: int

    @abstractmethod
    def start(self, iteration: int, random: torch.Generator) -> int:
        """Return the start epoch of an iteration."""

    @property
    def probed(self) -> int | None:
        """The epoch whose loss the schedule wants to know in this iteration; None: none."""
        return None

    def observe(self, loss: float) -> None:  # noqa: B027
        """Take the loss of a student that started from the probed epoch."""

    @property
    def rate(self) -> float:
        """Factor of the learning rate of the images."""
        return 1.0

    @property
    def finished(self) -> bool:
        """Whether the schedule wants to stop."""
        return False

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Continue from :meth:`state`."""


@dataclass
class Uniform(Schedule):
    """MTT: any epoch up to the last, with equal chances."""

    def start(self, iteration: int, random: torch.Generator) -> int:
        """Draw an epoch."""
        return int(torch.randint(self.last + 1, (), generator=random))


@dataclass
class Widening(Schedule):
    """Epochs up to a bound that grows linearly from 0 to the last within a number of iterations.

    Examples
    --------
    >>> schedule = Widening(last=4, iterations=100)
    >>> max(schedule.start(0, torch.Generator()) for _ in range(20))
    0
    """

    iterations: int = 1000

    def start(self, iteration: int, random: torch.Generator) -> int:
        """Draw an epoch."""
        bound = min(self.last, (self.last + 1) * iteration // self.iterations)
        return int(torch.randint(bound + 1, (), generator=random))


@dataclass
class SelfAdaptive(Schedule):
    """STM: start epochs 0 … cap − 1 in turn.

    In each iteration the loss p of a student that starts at the cap is observed. With r the Pearson correlation of p
    with the number of the iteration in this stage of n iterations, and σ = √(1 / (n − 2))::

        every 10 iterations:
            r < −falling σ:  the images help the next epoch too    → cap + 1, a new stage
            r > +rising σ:   the images fit the pool too closely   → cap + 1, a new stage
        n > patience, or the cap is the last epoch and n > patience:
            finish: no more probes; every ``decay_every`` iterations the image rate × ``decay``; stop below ``lowest``

    The tests are repeated, so σ is a unit and not a level of significance.

    Examples
    --------
    >>> schedule = SelfAdaptive(last=5)
    >>> for number in range(30):
    ...     schedule.observe(1 - 0.01 * number)
    >>> schedule.cap
    2
    """

    falling: float = 5.0
    rising: float = 3.0
    patience: int = 1000
    decay: float = 0.8
    decay_every: int = 50
    lowest: float = 0.05
    cap: int = 1
    probes: list[float] = field(default_factory=list)
    finishing: int = -1

    def start(self, iteration: int, random: torch.Generator) -> int:
        """Return the epochs of the pool in turn."""
        if self.finishing >= 0:
            self.finishing += 1
        return iteration % self.cap

    @property
    def probed(self) -> int | None:
        """The first epoch that is not yet in the pool; None if experts of one epoch have no such epoch."""
        return None if self.finishing >= 0 or self.cap > self.last else self.cap

    def observe(self, loss: float) -> None:
        """Take a probe, and test every ten of them."""
        self.probes.append(loss)
        count = len(self.probes)
        if count % 10 == 0 and count > 2:
            correlation, sigma = _correlation(self.probes), (1 / (count - 2)) ** 0.5
            if (correlation < -self.falling * sigma or correlation > self.rising * sigma) and self.cap < self.last:
                self.cap, self.probes = self.cap + 1, []
                return
        if count > self.patience:
            self.finishing = 0

    @property
    def rate(self) -> float:
        """1 until the schedule finishes, then a decaying factor."""
        return 1.0 if self.finishing < 0 else float(self.decay ** (self.finishing // self.decay_every))

    @property
    def finished(self) -> bool:
        """Whether the image rate has decayed away."""
        return self.rate < self.lowest

    def state(self) -> dict[str, Any]:
        """Return cap, probes and how long the schedule has been finishing."""
        return {"cap": self.cap, "probes": list(self.probes), "finishing": self.finishing}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.cap, self.probes, self.finishing = state["cap"], list(state["probes"]), state["finishing"]


def _correlation(values: list[float]) -> float:
    """Return Pearson's correlation of values with their number; 0 if they are all equal."""
    numbers, losses = np.arange(len(values), dtype=np.float64), np.asarray(values, dtype=np.float64)
    if not np.ptp(losses) > 0:
        return 0.0
    return float(np.corrcoef(numbers, losses)[0, 1])
