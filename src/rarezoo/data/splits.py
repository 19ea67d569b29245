"""Train, validation and test by a hash of the id: stable when rows are added, the same on any machine."""

import hashlib
from collections.abc import Sequence

import numpy as np

from rarezoo.errors import ConfigError

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def split_of(ids: Sequence[str] | np.ndarray, *, validation_share: float, test_share: float) -> np.ndarray:
    """The split of each id, an object array (n,).

    Raises:
        ConfigError: the shares leave nothing to train on.
    """
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise ConfigError(
            "the shares of validation and test must leave some galaxies to train on",
            value=(validation_share, test_share),
            fix="Set data.validation_share and data.test_share, e.g. 0.15 each.",
        )
    place = np.array([_uniform(one) for one in ids])
    return np.select([place < test_share, place < test_share + validation_share], [TEST, VALIDATION], TRAIN).astype(
        object
    )


def _uniform(galaxy: str) -> float:
    """An id's place in [0, 1), from sha256."""
    return int.from_bytes(hashlib.sha256(galaxy.encode()).digest()[:8], "big") / 2**64


def joined_splits(splits: np.ndarray, ids: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The splits with every group of near-identical images in one: that of the group's smallest id.

    Args:
        splits: object array (n,).
        ids: object array (n,).
        groups: int array (n,); equal numbers mean the same galaxy.
    """
    order = np.lexsort((ids.astype(str), groups))
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    joined = splits.copy()
    joined[order] = splits[order][first][inverse]
    return joined
