"""Adam on a few tensors, such as images, with a state on disk from which the same call continues."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rarezoo.distillation.matching import restored_state, save_state


def lowered(
    tensors: list[Tensor], loss: Callable[[int], Tensor], *, steps: int, rate: float, every: int, title: str,
    saved: Path | None, key: str,
) -> list[dict[str, float]]:  # fmt: skip
    """Lower a loss of tensors by Adam and return the losses on the way.

    Parameters
    ----------
    tensors
        What is changed, in place.
    loss
        From the number of the step to the loss. What is random in it must follow from this number.
    steps, rate
        Number of steps, and the learning rate.
    every
        Steps between two rows of the curve.
    title
        Name of the progress bar.
    saved
        File that keeps the state; None: nothing is kept.
    key
        What the state depends on besides its file; a state with another key is not used.
    """
    adam = torch.optim.Adam(tensors, lr=rate)
    first = 0
    curve: list[dict[str, float]] = []
    kept = None if saved is None else restored_state(saved, key)
    if kept:
        first, curve = kept["step"], kept["curve"]
        adam.load_state_dict(kept["adam"])
        with torch.no_grad():
            for tensor, value in zip(tensors, kept["tensors"], strict=True):
                tensor.copy_(value)
    for step in tqdm(range(first, steps), desc=title, initial=first, total=steps):
        found = loss(step)
        adam.zero_grad()
        found.backward()
        adam.step()
        last = step + 1 == steps
        if step % every == 0 or last:
            curve.append({"iteration": step + 1, "loss": float(found.detach())})
        if saved is not None and ((step + 1) % 50 == 0 or last):
            plain = [tensor.detach() for tensor in tensors]
            save_state(saved, key, {"step": step + 1, "curve": curve, "adam": adam.state_dict(), "tensors": plain})
    return curve
