"""What a survey hands over: galaxies with ids, cutouts and, where there are any, votes."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from rarezoo import tables
from rarezoo.data.duplicates import fingerprints, near_identical
from rarezoo.data.images import ImageSource
from rarezoo.data.splits import joined_splits, split_of
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import choice, name_of, setting


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
        """Hash of ids, image names, votes and truth, in order: equal hashes, equal galaxies."""
        state = hashlib.sha256()
        for column in (tables.ID, tables.IMAGE):
            state.update("\n".join(map(str, self.catalogue.column(column).to_pylist())).encode())
        if self.votes is not None:
            state.update(np.ascontiguousarray(self.votes).tobytes())
        if self.truth is not None:
            state.update("\n".join(self.truth.column(tables.POPULATION).to_pylist()).encode())
        return state.hexdigest()

    def first(self, galaxies: int) -> "Galaxies":
        """The survey's first galaxies."""
        return replace(
            self,
            catalogue=self.catalogue.slice(0, galaxies),
            votes=None if self.votes is None else self.votes[:galaxies],
            truth=None if self.truth is None else self.truth.slice(0, galaxies),
        )

    def with_splits(self, splits: np.ndarray) -> "Galaxies":
        """The same galaxies with another split column, an object array (n,)."""
        column = self.catalogue.column_names.index(tables.SPLIT)
        return replace(self, catalogue=self.catalogue.set_column(column, tables.SPLIT, pa.array(splits, pa.string())))


@dataclass
class Survey(ABC):
    """A source of galaxies; each subclass is one choice of ``data=``.

    A galaxy's split is decided by a hash of its id alone, so new rows never move old ones.
    """

    validation_share: float = setting(0.15, "share of galaxies held out for early stopping")
    test_share: float = setting(0.15, "share of galaxies held out for the numbers on the card")
    group_duplicates: bool = setting(True, "training keeps near-identical images in one split")
    on_bad_image: str = setting("stop", "what an unreadable image does: stop, or skip (and list what was skipped)")
    limit: int = setting(0, "use only the first galaxies of the survey; 0 = all", unit="galaxies")

    @abstractmethod
    def _read(self) -> Galaxies:
        """The whole survey, ``split`` still empty."""

    def open(self) -> Galaxies:
        """Open the survey, its splits filled in.

        Raises:
            DataError: the survey cannot be used as it is.
            ConfigError: a setting does not fit.
        """
        if self.on_bad_image not in ("stop", "skip"):
            raise ConfigError("unknown data.on_bad_image", value=self.on_bad_image, fix="Choose stop or skip.")
        if self.limit < 0:
            raise ConfigError("data.limit", value=self.limit, fix="Choose 0 for all galaxies, or more.")
        galaxies = self._read()
        if not len(galaxies):
            raise DataError("the survey has no galaxy", value=name_of(type(self)), fix="Give it at least one row.")
        galaxies = galaxies.first(self.limit) if self.limit else galaxies
        splits = split_of(galaxies.ids, validation_share=self.validation_share, test_share=self.test_share)
        return galaxies.with_splits(splits)

    def training_galaxies(self, *, cache: Path | None = None) -> Galaxies:
        """The survey opened for training: near-identical images share a split.

        Args:
            cache: folder in which the images' fingerprints are kept for the next time.
        """
        galaxies = self.open()
        if not self.group_duplicates:
            return galaxies
        kept = cache / f"fingerprints-{galaxies.sha256[:16]}.npy" if cache else None
        groups = near_identical(fingerprints(galaxies.images, len(galaxies), cache=kept))
        splits = tables.strings(galaxies.catalogue, tables.SPLIT)
        return galaxies.with_splits(joined_splits(splits, galaxies.ids, groups))

    def settings(self) -> dict[str, Any]:
        """What :func:`open_survey` needs to open the same survey again."""
        return {"option": name_of(type(self)), **asdict(self)}


def open_survey(settings: Mapping[str, Any]) -> Survey:
    """The survey from :meth:`Survey.settings`."""
    fields = {key: value for key, value in settings.items() if key != "option"}
    return choice("data", settings["option"])(**fields)
