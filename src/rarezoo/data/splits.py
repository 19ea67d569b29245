"""Train, validation and test by a hash of the id: stable when rows are added, the same on any machine."""

import hashlib
from collections.abc import Sequence

import numpy as np

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def split_of(ids: Sequence[str] | np.ndarray, *, validation_share: float, test_share: float) -> np.ndarray:
    """Return the split of each galaxy.

    Parameters
    ----------
    ids
        Ids of n galaxies.
    validation_share, test_share
        Shares of the galaxies in these two splits; the others are for training.

    Returns
    -------
    numpy.ndarray
        Object array (n,) of ``train``, ``validation`` or ``test``.

    Examples
    --------
    >>> split_of(["a", "b", "c"], validation_share=0.2, test_share=0.2).tolist()
    ['train', 'validation', 'test']
    """
    hashes = [hashlib.sha256(galaxy.encode()).digest()[:8] for galaxy in ids]
    place = np.array([int.from_bytes(digits, "big") / 2**64 for digits in hashes])
    return np.select([place < test_share, place < test_share + validation_share], [TEST, VALIDATION], TRAIN).astype(
        object
    )


def joined_splits(splits: np.ndarray, ids: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return splits in which each group of near-identical images is in one split: that of the group's smallest id.

    Parameters
    ----------
    splits
        Object array (n,) of splits.
    ids
        Object array (n,) of ids.
    groups
        Integer array (n,) of group numbers.
    """
    order = np.lexsort((ids.astype(str), groups))
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    joined = splits.copy()
    joined[order] = splits[order][first][inverse]
    return joined
