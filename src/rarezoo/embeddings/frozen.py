"""``rarezoo store frozen``: embed a survey with initial weights, without any training.

What a trained network must beat is the network that it began with, and the same network with random weights. Their
features are wide, so they are reduced to the width of a bottleneck by their principal components.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from sklearn.decomposition import PCA
from tqdm.auto import tqdm

from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.survey import Survey
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.embeddings.embed import embedded
from rarezoo.embeddings.measures import standardised
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import DataError
from rarezoo.runs import digest, fingerprint, refuse_seed
from rarezoo.settings import Settings, setting
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import NATIVE, Encoder
from rarezoo.zoo.network import build_network, trunk_sha256

# A head is part of every network; that of a frozen network is never asked.
_NO_QUESTION = QuestionTree("none", (Question("none", ("none_yes", "none_no")),))


@dataclass(kw_only=True)
class FrozenStore(Settings):
    """Embed one survey with the initial weights of a network: published ones, or random ones (``model.start=none``).

    Examples
    --------
    >>> from rarezoo.data.surveys.mock import Mock
    >>> from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
    >>> job = FrozenStore(data=Mock(n=200), model=EfficientNetB0(input_size=64), out="runs/untrained")
    >>> job.network_name
    'efficientnet_b0.untrained'
    >>> store = job.run()  # doctest: +SKIP
    """

    data: Survey
    model: Encoder
    out: str = setting("runs/frozen", "folder of the new store")
    name: str = setting("", "name of the network; empty: the architecture, with .frozen or .untrained")
    width: int = setting(
        128, "principal components of the features that make the embedding; 0: all features as they are",
        unit="dimensions", ge=0,
    )  # fmt: skip
    standardise: bool = setting(True, "whether features are brought to unit variance before the principal components")
    seed: int = setting(0, "seed of random weights")
    batch_size: int = setting(64, "galaxies that the network sees at once", unit="galaxies", ge=1)
    workers: int | None = setting(
        None, "processes that decode images; 0 = a thread of this process; null = depends on the machine",
        unit="processes", ge=0,
    )  # fmt: skip

    def check(self) -> None:
        """Raise ConfigError for a negative seed."""
        refuse_seed(self.seed)

    @property
    def network_name(self) -> str:
        """Name under which the store is judged."""
        return self.name or f"{self.model.architecture}.{'untrained' if self.model.start == 'none' else 'frozen'}"

    def run(self) -> EmbeddingStore:
        """Embed the survey; return the store.

        Raises
        ------
        ConfigError, CheckpointError
            A setting does not fit the architecture, or the initial weights cannot be found.
        DataError
            The survey or an image cannot be used.
        StoreError, OutputError
            The folder holds another store, or cannot be written.
        """
        galaxies = self.data.open()
        encoder = replace(self.model, bottleneck=NATIVE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = build_network(encoder, _NO_QUESTION)
        frozen = Checkpoint(self.network_name, Path(), network, encoder, _NO_QUESTION, {})
        loader = CutoutLoader(
            galaxies, np.arange(len(galaxies)), view=frozen.view, batch_size=self.batch_size, workers=self.workers,
            on_bad_image=self.data.on_bad_image,
        )  # fmt: skip
        rows, features = [], []
        with tqdm(total=len(galaxies), unit=" images", desc="features of initial weights") as progress:
            for batch in embedded(loader, frozen, precision="float32"):
                rows.append(batch.rows)
                features.append(batch.embeddings)
                progress.update(len(batch.rows))
        if not rows:
            raise DataError(
                "no image can be read", value=f"{len(galaxies)} galaxies", fix="Check the folder of images."
            )
        vectors = reduced(np.concatenate(features), width=self.width, standardise=self.standardise)
        ids = galaxies.ids[np.concatenate(rows)]
        # Principal components are those of this survey: what they make of another one cannot be compared.
        is_reduced = vectors.shape[1] < features[0].shape[1] or self.standardise
        identity = {
            "trunk": trunk_sha256(network), "zoom": encoder.zoom, "input_size": encoder.input_size,
            "components": fingerprint(vectors, ids=ids) if is_reduced else None,
        }  # fmt: skip
        return EmbeddingStore.from_array(
            ids, vectors, out=self.out, name=self.network_name, survey=self.data, network_sha256=digest(identity)
        )


def reduced(
    features: Float[np.ndarray, "n d"], *, width: int, standardise: bool
) -> Float32[np.ndarray, "n width"]:  # fmt: skip
    """Return the first principal components of features; with ``width=0`` the features as they are.

    Parameters
    ----------
    features : (n, d) array
    width : int
        Largest number of components.
    standardise : bool
        Whether each feature is brought to unit variance first.

    Examples
    --------
    >>> reduced(np.random.default_rng(0).normal(size=(20, 9)), width=4, standardise=True).shape
    (20, 4)
    """
    values = standardised(features) if standardise else np.asarray(features, dtype=np.float64)
    if width and width < min(values.shape):
        values = PCA(width, svd_solver="covariance_eigh").fit_transform(values)
    return np.asarray(values, dtype=np.float32)
