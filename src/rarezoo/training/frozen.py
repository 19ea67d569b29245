"""Features of a frozen trunk, computed once for several orientations of each galaxy and kept on disk.

Training a bottleneck and a head on them takes minutes, because the trunk sees each orientation only once.

Shape letters: n galaxies, o orientations, f native features, d width of the embedding.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Float16, Float64, Int64
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from rarezoo.cache import Cache
from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.embed import turned
from rarezoo.errors import DataError
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.network import BottleneckNetwork, concentrations_of, trunk_sha256
from rarezoo.zoo.views import inference_view

# Galaxies whose features are one file of the cache: a killed training loses at most this much work.
_CHUNK = 1024
_BATCH = 64


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of some rows of a survey in several orientations.

    Attributes
    ----------
    rows
        (n,) rows of the survey, ascending; those whose image could not be read are absent.
    values
        (n, o, f) features, the first orientation as the image is.
    skipped
        Ids of galaxies whose image could not be read.
    """

    rows: Int64[np.ndarray, " n"]
    values: Float16[np.ndarray, "n o f"]
    skipped: tuple[str, ...] = ()

    def of(self, rows: Int64[np.ndarray, " m"]) -> Float16[np.ndarray, "m o f"]:
        """Return the features of some of the rows."""
        return self.values[np.searchsorted(self.rows, rows)]


class FeatureDataset(Dataset[tuple[int, Tensor, Tensor]]):
    """Item i is (row, features (o, f), votes) of ``rows[i]``; rows without features are left out.

    Parameters
    ----------
    features
        Features of at least these rows, but for unreadable images.
    rows
        Rows of the survey.
    votes
        (galaxies, answers) votes of the whole survey.
    """

    def __init__(self, features: FrozenFeatures, rows: Int64[np.ndarray, " m"], votes: np.ndarray) -> None:
        self.features, self.votes = features, votes
        self.rows = np.asarray(rows[np.isin(rows, features.rows)], dtype=np.int64)
        self.places = np.searchsorted(features.rows, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Tensor, Tensor]:
        row = int(self.rows[index])
        features = torch.from_numpy(self.features.values[self.places[index]].astype(np.float32))
        return row, features, torch.from_numpy(np.array(self.votes[row], dtype=np.float32))


def frozen_features(
    network: BottleneckNetwork,
    galaxies: Galaxies,
    rows: Int64[np.ndarray, " n"],
    *,
    encoder: Encoder,
    turns: int,
    cache: Path,
    on_bad_image: str = "stop",
    workers: int | None = None,
) -> FrozenFeatures:
    """Return the features that the trunk of a network has for some galaxies.

    They are kept in files of 1,024 galaxies, each under a hash of the trunk (layers and weights), the view, the
    number of orientations and the pixels: with another trunk, view or image, they are computed again.

    Parameters
    ----------
    network
        Network whose trunk is frozen.
    galaxies
        The survey.
    rows
        Rows of the survey.
    encoder
        Settings of the architecture, which decide the view.
    turns
        Number of orientations: 1; 2 or 4 quarter turns; 8 = these and their mirror images.
    cache
        Folder that keeps the features.
    on_bad_image
        What an unreadable image does: ``stop`` or ``skip``.
    workers
        Processes that decode images; see :func:`rarezoo.data.loaders.decoding_processes`.

    Raises
    ------
    DataError
        An image cannot be read, or features are not finite in half precision.
    OutputError
        The folder cannot be written.
    """
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training, network = network.training, network.to(device).eval()
    key = {
        "trunk": trunk_sha256(network), "input_size": encoder.input_size,
        "zoom": encoder.zoom, "turns": turns,
    }  # fmt: skip
    view = inference_view(encoder.input_size, zoom=encoder.zoom)
    parts, kept, skipped = [], [], list[str]()
    with tqdm(total=len(rows), unit=" images", desc="features of the frozen trunk") as progress:
        for start in range(0, len(rows), _CHUNK):
            loader = CutoutLoader(
                galaxies, rows[start : start + _CHUNK], view=view, batch_size=_BATCH, workers=workers,
                on_bad_image=on_bad_image,
            )  # fmt: skip
            batches = list(loader)
            skipped += loader.skipped
            if not batches:
                continue
            images = torch.cat([batch.images for batch in batches])
            pixels = hashlib.sha256(images.numpy().tobytes()).hexdigest()
            values = Cache(cache).array(
                {**key, "pixels": pixels},
                lambda images=images: _computed(network, images, turns, device),  # type: ignore[misc]
                code=("rarezoo.zoo.stages", "rarezoo.zoo.views"),
            )
            parts.append(values)
            kept.append(torch.cat([batch.rows for batch in batches]).numpy())
            progress.update(len(loader.cutouts))
    network.train(training)
    if not parts:
        raise DataError("no image can be read", value=f"{len(rows)} galaxies", fix="Check the folder of images.")
    return FrozenFeatures(np.concatenate(kept), np.concatenate(parts), tuple(skipped))


def _computed(
    network: BottleneckNetwork, images: Tensor, turns: int, device: torch.device
) -> Float16[np.ndarray, "n o f"]:
    found = []
    with torch.inference_mode():
        for batch in images.split(_BATCH):
            pixels = batch.to(device).float().div_(255).contiguous(memory_format=torch.channels_last)
            views = [network.features(view) for view in turned(pixels, turns=turns)]
            found.append(torch.stack(views, dim=1).half().cpu())
    values = torch.cat(found)
    if not values.isfinite().all():
        raise DataError(
            "features of the trunk are too large for half precision", value="inf", fix="Train without train.turns."
        )
    return np.asarray(values.numpy())


def invariant_directions(
    features: Float[np.ndarray, "n o f"], *, width: int, ridge: float
) -> Float64[np.ndarray, "d f"]:
    """Return the directions in which galaxies differ most, compared with how much orientations of one galaxy differ.

    What is the same however the camera was turned belongs to the galaxy; the rest is noise to a search. The directions
    maximise the variance of the galaxies' means over the variance among their orientations (linear discriminant
    analysis with one class per galaxy), to which ``ridge`` times its mean is added in every direction::

        between = covariance of the mean features of galaxies
        within  = mean over galaxies of the covariance of their orientations
        solve     between · v = λ · (within + ridge · mean(diagonal of within) · 1) · v,   keep the largest λ

    Parameters
    ----------
    features
        Standardised features.
    width
        Number of directions.
    ridge
        With 0 only the ratio counts; the larger it is, the more the variance of the galaxies counts, as in a principal
        component analysis.

    Returns
    -------
    numpy.ndarray
        Directions as rows, the best first; all are divided by one number, after which the galaxies' means have a mean
        variance of one in these directions.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> galaxy, turn = random.normal(size=(500, 1, 2)), random.normal(size=(500, 8, 2))
    >>> features = galaxy * [1, 1] + turn * [0.1, 5]
    >>> np.abs(invariant_directions(features, width=1, ridge=0)).round(1)
    array([[1., 0.]])
    """
    means = features.mean(axis=1, dtype=np.float64)
    within = np.zeros((features.shape[2],) * 2)
    for turn in range(features.shape[1]):
        off = features[:, turn] - means
        within += off.T @ off
    within /= max(len(features) * (features.shape[1] - 1), 1)
    between = np.cov(means, rowvar=False)
    noise = within + (ridge * within.trace() / len(within) + 1e-6) * np.eye(len(within))
    size = len(within)
    _, vectors = scipy.linalg.eigh(between, noise, subset_by_index=[max(size - width, 0), size - 1])
    directions = vectors[:, ::-1].T
    spread = np.sqrt((means @ directions.T).var(axis=0).mean())
    return np.asarray(directions / spread)


def start_bottleneck(network: BottleneckNetwork, features: Float[np.ndarray, "n o f"], *, ridge: float) -> None:
    """Fit the standardisation to features and make the bottleneck their invariant directions.

    Parameters
    ----------
    network
        A network with a linear bottleneck, which is changed.
    features
        Features of the training split in several orientations.
    ridge
        See :func:`invariant_directions`.
    """
    bottleneck = network.bottleneck
    assert isinstance(bottleneck, torch.nn.Linear)
    with torch.inference_mode():
        standard = network.standardise(torch.from_numpy(features.reshape(-1, features.shape[2]).astype(np.float32)))
        standard = standard.reshape(features.shape).numpy()
        directions = invariant_directions(standard, width=bottleneck.out_features, ridge=ridge)
        weight = torch.from_numpy(directions).float()
        centre = torch.from_numpy(standard.mean(axis=(0, 1)))
    with torch.no_grad():
        bottleneck.weight.copy_(weight)
        bottleneck.bias.copy_(-(weight @ centre))


def start_head(
    network: BottleneckNetwork,
    features: Float[np.ndarray, "n o f"],
    loss: Callable[[Tensor], Tensor],
    *,
    strength: float,
) -> None:
    """Fit the last layer of the head to a loss on features, before anything else of the network learns.

    Training then begins from a linear probe and not from random predictions. Gradients of random predictions would
    distort what the start knows (Kumar et al. 2022, arXiv:2202.10054), and where a few galaxies decide about early
    stopping, a random head would be taken for the best.

    Parameters
    ----------
    network
        The network, whose last layer is changed.
    features
        Features of the training split in several orientations.
    loss
        Function of the concentrations (n · o, answers), galaxy by galaxy, that is minimised: a mean over its rows.
    strength
        Strength of the penalty on the weights, which act on standardised inputs: with 1/(2 · strength · n) times their
        squared sum. It is C of a logistic regression.
    """
    last: nn.Module = network.head[-1] if isinstance(network.head, nn.Sequential) else network.head
    assert isinstance(last, nn.Linear)
    with torch.inference_mode():
        flat = torch.from_numpy(features.reshape(-1, features.shape[2]).astype(np.float32))
        inputs = network.bottleneck(network.standardise(flat))
        for layer in network.head[:-1] if isinstance(network.head, nn.Sequential) else ():
            inputs = layer(inputs)
        mean, spread = inputs.mean(dim=0), inputs.std(dim=0, correction=0).clamp(min=1e-6)
        standard = ((inputs - mean) / spread).clone()
    weight = torch.zeros(last.out_features, last.in_features, requires_grad=True)
    bias = last.bias.detach().clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        penalty = weight.square().sum() / (2 * strength * len(features))
        total = loss(concentrations_of(standard.clone() @ weight.T + bias)) + penalty
        total.backward()
        return total

    # Also where a caller has switched gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        optimiser.step(closure)
    with torch.no_grad():
        last.weight.copy_(weight / spread)
        last.bias.copy_(bias - weight @ (mean / spread))
