"""What a survey hands over: galaxies with ids, cutouts and, where there are any, votes."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, UInt8

from rarezoo import tables
from rarezoo.data.trees import QuestionTree
from rarezoo.registry import setting

TRAIN, VALIDATION, TEST = "train", "validation", "test"


class ImageSource(ABC):
    """Cutouts by row of the catalogue. Picklable, and safe to use from several worker processes."""

    @abstractmethod
    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """One galaxy's pixels, any size, 0–255.

        Raises:
            DataError: the image is missing or unreadable (``ids`` names the galaxy).
        """


@dataclass(frozen=True)
class Galaxies:
    """A survey opened: n galaxies in a fixed order.

    Attributes:
        catalogue: CATALOGUE table of n rows, ``split`` filled in.
        images: cutouts by row.
        tree: the question tree of the votes, None if there are no votes.
        votes: float32 (n, answers), 0 where an answer got none or was not asked; None if there are no votes.
        truth: TRUTH table (mock surveys only): what was planted, by id.
    """

    catalogue: pa.Table
    images: ImageSource
    tree: QuestionTree | None = None
    votes: Float32[np.ndarray, "galaxies answers"] | None = None
    truth: pa.Table | None = None

    def __len__(self) -> int:
        return int(self.catalogue.num_rows)

    @cached_property
    def ids(self) -> np.ndarray:
        """Object array (n,) of id strings."""
        return tables.strings(self.catalogue, tables.ID)

    def rows(self, split: str) -> Int64[np.ndarray, " galaxies"]:
        """Rows of one split: ``train``, ``validation`` or ``test``."""
        return np.flatnonzero(tables.strings(self.catalogue, tables.SPLIT) == split)

    @cached_property
    def sha256(self) -> str:
        """Hash of ids, image names and votes, in order: two surveys with the same hash hold the same galaxies."""
        state = hashlib.sha256()
        for column in (tables.ID, tables.IMAGE):
            state.update("\n".join(map(str, self.catalogue.column(column).to_pylist())).encode())
        if self.votes is not None:
            state.update(np.ascontiguousarray(self.votes).tobytes())
        return state.hexdigest()


@dataclass
class Survey(ABC):
    """A source of galaxies; each subclass is one choice of ``data=``.

    A galaxy's split is decided by a hash of its id alone, so new rows never move old ones.
    """

    validation_share: float = setting(0.15, "share of galaxies held out for early stopping")
    test_share: float = setting(0.15, "share of galaxies held out for the numbers on the card")
    on_bad_image: str = setting("stop", "what an unreadable image does: stop, or skip (and list what was skipped)")
    limit: int = setting(0, "use only the first galaxies of the survey; 0 = all", unit="galaxies")

    @abstractmethod
    def galaxies(self) -> Galaxies:
        """Open the survey.

        Raises:
            DataError: the survey cannot be used as it is.
        """
