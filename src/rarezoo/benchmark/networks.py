"""Features of the trunk of a checkpoint, before its bottleneck, and features of the network before it was trained.

Shape letters: n galaxies, b in the batch, s input side in px, D features.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from tqdm.auto import tqdm

from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.embed import embedded
from rarezoo.errors import DataError
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.network import BottleneckNetwork, Prediction, blank_network

_BATCH = 256


class _Trunk(nn.Module):
    """A network whose embedding is the output of its trunk, in the width of the trunk."""

    def __init__(self, network: BottleneckNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Prediction:
        """Return the features of the trunk as the embedding, and the concentrations of the whole network."""
        features = self.network.features(images.float().div_(255))
        return Prediction(self.network.standardise(features), self.network.from_features(features).concentrations)


def trunk_features(galaxies: Galaxies, rows: Int64[np.ndarray, " n"], *, checkpoint: str) -> Float32[np.ndarray, "n D"]:
    """Return the features of the trained trunk, before the bottleneck."""
    opened = Checkpoint.open(checkpoint)
    return _features(galaxies, rows, opened, network=_Trunk(opened.network))


def untrained_features(
    galaxies: Galaxies, rows: Int64[np.ndarray, " n"], *, checkpoint: str
) -> Float32[np.ndarray, "n D"]:
    """Return embeddings by the architecture of the checkpoint with random weights."""
    opened = Checkpoint.open(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = blank_network(opened.encoder, answers=len(opened.tree.answers))
    return _features(galaxies, rows, opened, network=network)


def _features(galaxies: Galaxies, rows: np.ndarray, checkpoint: Checkpoint, *, network: Any) -> np.ndarray:
    """Return features in the order of the rows; those of galaxies whose image cannot be read are NaN."""
    loader = CutoutLoader(
        galaxies, rows, view=checkpoint.view, batch_size=_BATCH, workers=0, on_bad_image="skip"
    )  # fmt: skip
    batches = embedded(loader, replace(checkpoint, network=network), precision="float32")
    parts = list(tqdm(batches, desc="computing features", total=-(-len(rows) // _BATCH)))
    if not parts:
        raise DataError("no image can be read", value=f"{len(rows)} galaxies", fix="Bring the images back.")
    seen, features = np.concatenate([part.rows for part in parts]), np.concatenate([part.embeddings for part in parts])
    values = np.full((len(rows), features.shape[1]), np.nan, dtype=np.float32)
    values[np.flatnonzero(np.isin(rows, seen))] = features
    return values
