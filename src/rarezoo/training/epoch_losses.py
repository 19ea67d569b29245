"""Means of the training losses over a whole epoch, also if the training was interrupted within it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class EpochLosses:
    """Running sums of the losses of an epoch; Lightning does not keep its own in a state.

    Examples
    --------
    >>> before, after = EpochLosses(), EpochLosses()
    >>> _ = before.added({"loss": torch.tensor(4.0)}, galaxies=3, epoch=0)
    >>> after.load_state_dict(before.state_dict())
    >>> after.added({"loss": torch.tensor(8.0)}, galaxies=1, epoch=0)  # the mean of both steps, of four galaxies
    {'loss': (tensor(5.), 4)}
    >>> after.added({"loss": torch.tensor(8.0)}, galaxies=1, epoch=0)
    {'loss': (tensor(8.), 1)}
    """

    def __init__(self) -> None:
        self._epoch, self._galaxies, self._resumed = -1, 0, False
        self._sums: dict[str, Tensor] = {}

    def added(self, losses: Mapping[str, Tensor], *, galaxies: int, epoch: int) -> dict[str, tuple[Tensor, int]]:
        """Add the losses of a step; return what to log of it: means by name, and of how many galaxies they are.

        The first step after an interruption is logged together with the steps before it.
        """
        if epoch != self._epoch:
            self._epoch, self._galaxies, self._resumed, self._sums = epoch, 0, False, {}
        self._galaxies += galaxies
        for name, value in losses.items():
            # It stays on the accelerator: to wait for it in every step would take time.
            total = value.detach().float() * galaxies
            self._sums[name] = total + self._sums[name].to(total.device) if name in self._sums else total
        if not self._resumed:
            return {name: (value, galaxies) for name, value in losses.items()}
        self._resumed = False
        return {name: (self._sums[name] / self._galaxies, self._galaxies) for name in losses}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums up to now as plain numbers."""
        sums = {name: float(value) for name, value in self._sums.items()}
        return {"epoch": self._epoch, "galaxies": self._galaxies, "sums": sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._epoch, self._galaxies, self._resumed = state["epoch"], state["galaxies"], True
        self._sums = {name: torch.tensor(value) for name, value in state["sums"].items()}
