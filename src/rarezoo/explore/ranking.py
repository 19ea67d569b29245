"""A ranking of all galaxies of a survey by what one person, or a group, finds interesting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32, Int64

from rarezoo import tables
from rarezoo.cache import Cache
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.explore.acquisition import Acquisition
from rarezoo.explore.acquisitions.from_model import Mean
from rarezoo.explore.choose import INTERESTING, Chooser
from rarezoo.explore.features import PHOTOMETRY, STRUCTURE, Features, features_of
from rarezoo.explore.ranker import Prediction, Ranker
from rarezoo.explore.rankers.gaussian_process import GaussianProcess
from rarezoo.settings import Settings, setting


@dataclass(kw_only=True)
class RankingSettings(Settings):
    """How galaxies are ranked."""

    prefix: ClassVar[str] = "ranking"

    ranker: Ranker = setting(GaussianProcess, "model that learns from ratings")
    embedding: bool = setting(True, "rank by the embedding; false: only by what stands beside it")
    beside: list[str] = setting(
        [PHOTOMETRY, STRUCTURE], "what stands beside the embedding: photometry, structure, or catalogue columns"
    )
    components: int = setting(0, "principal components of the embedding; 0 = the embedding itself", ge=0)
    weight: float = setting(3.0, "weight of what stands beside the embedding", gt=0)
    seed: int = setting(0, "seed of every random draw", ge=0)

    def features(
        self, store: EmbeddingStore, *, galaxies: Galaxies | None = None, cache: Cache | None = None
    ) -> Features:
        """Return the features of all galaxies of a store; see :func:`~rarezoo.explore.features.features_of`."""
        return features_of(
            store, embedding=self.embedding, beside=self.beside, components=self.components, weight=self.weight,
            galaxies=galaxies, cache=cache,
        )  # fmt: skip

    def learn(
        self, features: Features, rated: Int64[np.ndarray, " m"], interest: Float[np.ndarray, " m"]
    ) -> Prediction | None:
        """Return what the model expects of all galaxies after some ratings; None without any."""
        if not len(rated):
            return None
        model = self.ranker.fit(
            features.matrix[rated], interest, distance=features.distance, seed=self.seed
        )  # fmt: skip
        return model.predict(features.matrix)


@dataclass(kw_only=True)
class RatingSettings(RankingSettings):
    """How galaxies are ranked, and which of them a person sees next."""

    acquisition: Acquisition = setting(Mean, "what a galaxy is worth that is shown next")
    choose: Chooser = setting(Chooser, "how the next galaxies are chosen")


def ranking_table(
    ids: np.ndarray,
    prediction: Prediction,
    *,
    rated: Mapping[str, float],
    features: Float32[np.ndarray, "n d"],
    first: int | None = None,
) -> pa.Table:
    """Return a RANKING table, the most interesting galaxy first; rated galaxies stand at their predicted places.

    Parameters
    ----------
    ids : (n,) array of text
    prediction : Prediction
        What the model expects of them.
    rated : mapping from ids to interest
        Interest of the rated galaxies, 0 to 1, for the column ``interest``.
    features : (n, d) array of floats
        Features, by which the nearest interesting rated galaxy is found.
    first : int, optional
        Number of rows; all by default.
    """
    order = np.argsort(-prediction.mean, kind="stable")[:first]
    names = ids[order]
    return pa.table({
        tables.ID: pa.array(names.tolist(), pa.string()),
        tables.SCORE: pa.array(prediction.mean[order].astype(np.float64)),
        tables.RANK: pa.array(np.arange(1, len(order) + 1), pa.int32()),
        tables.UNCERTAINTY: pa.array(prediction.deviation[order].astype(np.float64)),
        tables.INTEREST: pa.array([rated.get(str(name)) for name in names], pa.float64()),
        tables.NEAREST_RATED: pa.array(nearest_rated(ids, order, rated=rated, features=features), pa.string()),
    })  # fmt: skip


def nearest_rated(
    ids: np.ndarray,
    rows: Int64[np.ndarray, " k"],
    *,
    rated: Mapping[str, float],
    features: Float32[np.ndarray, "n d"],
    places: Mapping[str, int] | None = None,
) -> list[str | None]:
    """Return for each row the nearest galaxy that was rated interesting, or else the nearest rated one.

    Parameters
    ----------
    ids : (n,) array of text
    rows : (k,) array of integers
    rated : mapping from ids to interest
    features : (n, d) array of floats
    places : mapping from ids to rows, optional
        Where each galaxy stands, if that is known already: looking for it takes a second for a million galaxies.
    """
    if places is None:
        places = {str(name): row for row, name in enumerate(ids)}
    inside = {places[name]: value for name, value in rated.items() if name in places}
    known = np.array(sorted(inside), dtype=np.int64)
    liked = np.array([row for row in sorted(inside) if inside[row] > INTERESTING], dtype=np.int64)
    examples = liked if len(liked) else known
    if not len(examples) or not len(rows):
        return [None] * len(rows)
    from sklearn.neighbors import NearestNeighbors

    places = NearestNeighbors(n_neighbors=min(2, len(examples))).fit(features[examples]).kneighbors(features[rows])[1]
    nearest: list[str | None] = []
    for row, found in zip(rows, places, strict=True):
        others = [int(examples[place]) for place in found if examples[place] != row]
        nearest.append(str(ids[others[0]]) if others else None)
    return nearest
