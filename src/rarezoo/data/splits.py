"""Train, validation and test by a hash of the id: stable when rows are added, the same on any machine."""

import hashlib
import logging
from collections.abc import Sequence

import numpy as np

log = logging.getLogger(__name__)
# Groups of near-identical images up to this number, or this share of all images, are taken for the same galaxies.
_FEW, _SHARE = 20, 0.01
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

    A group of more than 20 images that is more than 1 % of all is hardly one galaxy: it is the picture of a missing
    image, or of an empty field. Such a group is in the training split, because validation and test would otherwise
    measure little else, and a warning says how many images it has.

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
    numbers, sizes = np.unique(groups, return_counts=True)
    for number in numbers[sizes > max(_FEW, _SHARE * len(ids))]:
        alike = np.flatnonzero(groups == number)
        log.warning(
            "%d of %d images are nearly the same picture, such as those of galaxies %s. They are all in the training "
            "split. If it is a placeholder for missing images, remove these galaxies from the table.",
            len(alike), len(ids), ", ".join(map(str, ids[alike[:3]])),
        )  # fmt: skip
        joined[alike] = TRAIN
    return joined
