"""Self-supervised losses between two views of each galaxy, from lightly, which is only imported when one is used."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rarezoo.data.splits import TRAIN
from rarezoo.data.survey import Galaxies
from rarezoo.errors import ConfigError
from rarezoo.settings import setting
from rarezoo.training.objectives.votes import Votes

SIMILARITIES = ("vicreg", "barlow_twins", "nt_xent")
# Chen et al. 2020 (SimCLR) find 0.1-0.5 best.
_TEMPERATURE = 0.2


@dataclass(kw_only=True)
class TwoViews(Votes):
    """Votes beside a self-supervised loss between two views of each galaxy; base of ``hybrid`` and ``self_supervised``.

    All galaxies of the training split are used, with or without votes.
    """

    views: ClassVar[int] = 2
    shapes_trunk: ClassVar[bool] = True

    similarity: str = setting("vicreg", "loss of lightly between the embeddings of two views", choices=SIMILARITIES)
    projector: int = setting(0, "width of a two-layer projector between embedding and that loss; 0 = none", ge=0)
    jitter: float = setting(0.4, "strength of random brightness, colour and noise of the views, 0 to 1", ge=0)

    @property
    def view_jitter(self) -> float:
        """Strength of random brightness, colour and noise of the training views."""
        return self.jitter

    def rows(self, galaxies: Galaxies, split: str) -> Int64[np.ndarray, " rows"]:
        """Return the rows of a split: for training all of them, else those with votes."""
        return galaxies.rows(split) if split == TRAIN else super().rows(galaxies, split)

    def modules(self, *, width: int, processes: int) -> nn.ModuleDict:
        """Return the similarity loss and its projector; several processes compare their views as one batch."""
        projector: nn.Module = nn.Identity()
        if self.projector:
            first, second = nn.Linear(width, self.projector), nn.Linear(self.projector, self.projector)
            projector = nn.Sequential(first, nn.BatchNorm1d(self.projector), nn.ReLU(), second)
        return nn.ModuleDict({"similarity": similarity_loss(self.similarity, processes > 1), "projector": projector})


def similarity_loss(name: str, gather: bool) -> nn.Module:
    """Return a loss of lightly by its name.

    Parameters
    ----------
    name
        ``vicreg`` (Bardes et al. 2022), ``barlow_twins`` (Zbontar et al. 2021) or ``nt_xent`` (Chen et al. 2020).
    gather
        Whether the views of all processes are compared as one batch.

    Raises
    ------
    ConfigError
        lightly is not installed.
    """
    try:
        from lightly import loss
    except ImportError as problem:
        raise ConfigError(
            "this objective needs a package that is not installed", value="lightly",
            fix="Run pip install lightly, or choose objective=votes.",
        ) from problem  # fmt: skip
    if name == "vicreg":
        return loss.VICRegLoss(gather_distributed=gather)
    if name == "barlow_twins":
        return loss.BarlowTwinsLoss(gather_distributed=gather)
    return loss.NTXentLoss(temperature=_TEMPERATURE, gather_distributed=gather)


def similarity_of_views(embedding: Float[Tensor, "vb d"], modules: nn.ModuleDict) -> Float[Tensor, ""]:
    """Return the self-supervised loss of two views, in float32 whatever the precision of the training.

    Parameters
    ----------
    embedding
        Embeddings of the first view of all galaxies, then of the second.
    modules
        What :meth:`TwoViews.modules` returned.
    """
    with torch.autocast(device_type=embedding.device.type, enabled=False):
        first, second = modules["projector"](embedding.float()).chunk(2)
        return modules["similarity"](first, second)
