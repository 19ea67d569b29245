"""Images made of real galaxies: what distilled images must beat, and what matching may start from.

Shape letters: n images, s side in px.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from rarezoo.data.splits import TRAIN
from rarezoo.distillation.augmentation import generator
from rarezoo.distillation.data import GalaxySet

# What matching may start from.
REAL, MEDOID, MEAN, NOISE = "real", "medoid", "mean", "noise"
STARTS = (REAL, MEDOID, MEAN, NOISE)


def real_images(galaxies: GalaxySet, kind: str, *, per_class: int, seed: int = 0) -> tuple[Tensor, Int64[Tensor, " n"]]:
    """Return what distilled images must beat, with class numbers.

    Parameters
    ----------
    galaxies
        The set.
    kind
        ``mean``: the class mean (with several images, the means of k-means groups). ``medoid``: the galaxy with the
        smallest mean distance to its class (with several, that of each k-means group). ``kmeans``: the real galaxy
        nearest to each k-means centre. ``random``: a random draw.
    per_class
        Images of each class.
    seed
        Seed of the draw, or of k-means.
    """
    from sklearn.cluster import KMeans

    real, labels = galaxies.scaled(TRAIN), galaxies.labels_of(TRAIN)
    chosen = []
    for number in range(len(galaxies.names)):
        members = real[labels == number]
        if kind == "random":
            rows = np.random.default_rng([seed, number]).permutation(len(members))[:per_class]
            chosen.append(members[torch.from_numpy(rows)])
            continue
        # Distances are measured on images of 16 px, where noise counts less.
        small = functional.adaptive_avg_pool2d(members, 16).reshape(len(members), -1)
        groups = np.zeros(len(members), dtype=int)
        centres = small.mean(dim=0, keepdim=True)
        if per_class > 1:
            fitted = KMeans(per_class, n_init=2, random_state=seed).fit(small.numpy())
            groups, centres = fitted.labels_, torch.from_numpy(fitted.cluster_centers_).float()
        for group in range(per_class):
            inside = np.flatnonzero(groups == group)
            if kind == "mean":
                chosen.append(members[inside].mean(dim=0, keepdim=True))
            elif kind == "kmeans":
                near = (small - centres[group]).square().sum(dim=1).argmin()
                chosen.append(members[near : near + 1])
            else:
                best = medoid(small, torch.from_numpy(inside))
                chosen.append(members[best : best + 1])
    return torch.cat(chosen), torch.arange(len(galaxies.names)).repeat_interleave(per_class)


def start_images(
    galaxies: GalaxySet, *, per_class: int, start: str, seed: int
) -> tuple[Float[Tensor, "n 3 s s"], Int64[Tensor, " n"]]:
    """Return the images that matching starts from, class by class, and their class numbers.

    Parameters
    ----------
    galaxies
        The set.
    per_class
        Images of each class.
    start
        ``real``: galaxies drawn at random. ``medoid``: see :func:`real_images`. ``mean``: means of random parts of the
        class. ``noise``: Gaussian noise.
    seed
        Seed of the draw.
    """
    if start == MEDOID:
        return real_images(galaxies, MEDOID, per_class=per_class, seed=seed)
    real, labels = galaxies.scaled(TRAIN), galaxies.labels_of(TRAIN)
    images = []
    for number in range(len(galaxies.names)):
        members = real[labels == number]
        random = generator(seed, number, 3)
        if start == REAL:
            images.append(members[torch.randperm(len(members), generator=random)[:per_class]])
        elif start == MEAN:
            parts = members[torch.randperm(len(members), generator=random)].tensor_split(per_class)
            images.append(torch.stack([part.mean(dim=0) for part in parts]))
        else:
            images.append(torch.randn(per_class, *members.shape[1:], generator=random))
    return torch.cat(images), torch.arange(len(galaxies.names)).repeat_interleave(per_class)


def medoid(points: Float[Tensor, "m d"], rows: Int64[Tensor, " k"]) -> int:
    """Return which of some rows has the smallest mean distance to the others.

    >>> medoid(torch.tensor([[0.0], [1.0], [9.0], [2.0]]), torch.tensor([0, 1, 3]))
    1
    """
    return int(rows[torch.cdist(points[rows], points[rows]).mean(dim=1).argmin()])
