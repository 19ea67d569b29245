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
    loader = CutoutLoader(galaxies, rows, view=checkpoint.view, batch_size=_BATCH, workers=0)
    batches = embedded(loader, replace(checkpoint, network=network), precision="float32")
    return np.concatenate(
        [batch.embeddings for batch in tqdm(batches, desc="computing features", total=-(-len(rows) // _BATCH))]
    )
