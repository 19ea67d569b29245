"""Embeddings to a map of few dimensions, on which new galaxies can be placed later.

D: embedding width. k: dimensions of the map.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from rarezoo import tables
from rarezoo.errors import ConfigError, StoreError
from rarezoo.registry import choice, name_of

MAP_FILE, STATE_FILE, SETTINGS_FILE = "map.parquet", "state.npz", "map.json"

Embeddings = Float32[np.ndarray, "galaxies D"]
Positions = Float32[np.ndarray, "galaxies k"]


class Placer(ABC):
    """What a compressor learnt: puts embeddings on the map."""

    @abstractmethod
    def positions_of(self, embeddings: Embeddings) -> Positions:
        """Positions of galaxies on the map, which stays as it is."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """The arrays from which the compressor makes the same placer again."""


@dataclass
class Compressor(ABC):
    """A way from embeddings to positions; each subclass is one choice of ``compress=``."""

    def fit(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray, seed: int = 0) -> "FittedMap":
        """Learn a map from galaxies.

        The galaxies are taken in the order of their ids, so that the same galaxies in another order give the same map.

        Args:
            embeddings: (n, D) of any float type; float16 is lifted to float32.
            ids: (n,) id strings.
            seed: of every random draw.

        Raises:
            StoreError: embeddings that are not finite, or all equal.
            ConfigError: settings that do not fit the number of galaxies or the width.
        """
        names = np.asarray(ids, dtype=object).astype(str)
        values = _usable(embeddings, ids=names)
        self._refuse(galaxies=values.shape[0], width=values.shape[1])
        order = np.argsort(names, kind="stable")
        in_order, placer = self._fitted(values[order], seed=seed)
        positions = np.empty_like(in_order, dtype=np.float32)
        positions[order] = in_order
        return FittedMap(self, placer, names, positions, values.shape[1], seed)

    @abstractmethod
    def _refuse(self, *, galaxies: int, width: int) -> None:
        """Raise ConfigError for settings that fit neither the galaxies nor the width."""

    @abstractmethod
    def _fitted(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Placer]:
        """Positions of finite, unequal embeddings, and what was learnt."""

    @abstractmethod
    def reopened(self, state: Mapping[str, np.ndarray], *, seed: int) -> Placer:
        """The placer that gave this state."""


@dataclass(frozen=True)
class FittedMap:
    """A map of n galaxies and the means to place others on it.

    Attributes:
        compressor: settings that made it.
        placer: what was learnt.
        ids: (n,) id strings, in the order that :meth:`Compressor.fit` was given.
        positions: (n, k) in map units, which have no physical meaning.
        width: D of the embeddings.
        seed: of the fit.
    """

    compressor: Compressor
    placer: Placer
    ids: np.ndarray
    positions: Positions
    width: int
    seed: int

    def place(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray = ()) -> Positions:
        """Positions (m, k) of further galaxies, embedded by the same checkpoint; nothing on the map moves.

        Args:
            embeddings: (m, D).
            ids: (m,) names for error messages.

        Raises:
            StoreError: embeddings of another width, or not finite.
            ConfigError: a map that cannot place galaxies (densMAP).
        """
        values = _finite(embeddings, ids=np.asarray(ids, dtype=object).astype(str))
        if values.shape[1] != self.width:
            raise StoreError(
                "embeddings of another width", value=f"{values.shape[1]} instead of {self.width}",
                fix="Embed these galaxies with the checkpoint that the map was made with.",
            )  # fmt: skip
        return self.placer.positions_of(values) if len(values) else self.positions[:0]

    def save(self, folder: Path | str) -> Path:
        """Write the map into a folder: positions as a MAP table, what was learnt as plain arrays (no pickle).

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        positions = pa.table({tables.ID: pa.array(self.ids), tables.POSITION: tables.vectors(self.positions)})
        tables.write(positions, folder / MAP_FILE, tables.MAP)
        with tables.atomic(folder / STATE_FILE) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **self.placer.state())  # type: ignore[arg-type]
        settings = {"option": name_of(type(self.compressor)), **asdict(self.compressor)}
        # Last: a folder with this file is whole.
        tables.write_json({"settings": settings, "width": self.width, "seed": self.seed}, folder / SETTINGS_FILE)
        return folder

    @classmethod
    def open(cls, folder: Path | str) -> "FittedMap":
        """Read a map that :meth:`save` wrote.

        Raises:
            StoreError: no map there, or it is not whole.
        """
        folder = Path(folder)
        try:
            about: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text())
            with np.load(folder / STATE_FILE) as stored:
                state = dict(stored)
        except (OSError, ValueError) as problem:
            raise StoreError(
                "no fitted map, or not a whole one", value=folder, fix="Fit and save it anew."
            ) from problem
        option = about["settings"].pop("option")
        compressor: Compressor = choice("compress", option)(**about["settings"])
        table = tables.read(folder / MAP_FILE, tables.MAP)
        placer = compressor.reopened(state, seed=about["seed"])
        ids, positions = tables.strings(table, tables.ID).astype(str), tables.matrix(table, tables.POSITION)
        return cls(compressor, placer, ids, positions, about["width"], about["seed"])


def _usable(embeddings: np.ndarray, *, ids: np.ndarray) -> Embeddings:
    """Float32 embeddings from which a map can be learnt."""
    values = _finite(embeddings, ids=ids)
    if len(ids) != len(values):
        raise StoreError("ids and embeddings differ in number", value=(len(ids), len(values)), fix="Align them by id.")
    if len(values) < 2:
        raise ConfigError("too few galaxies for a map", value=len(values), fix="Give more; see select.drop and limit.")
    if np.array_equal(values, np.broadcast_to(values[0], values.shape)):
        raise StoreError(
            f"all {len(values)} embeddings are equal", value=np.array2string(values[0, :3], separator=", "),
            fix="Check the images and the checkpoint: it sees no difference between them.",
        )  # fmt: skip
    return values


def _finite(embeddings: np.ndarray, *, ids: np.ndarray) -> Embeddings:
    values = np.ascontiguousarray(embeddings, dtype=np.float32)
    if values.ndim != 2:
        raise StoreError("embeddings must be a matrix", value=values.shape, fix="Give one row per galaxy.")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise StoreError(
            "embeddings that are not finite", value=f"{bad.sum()} of {len(values)} rows",
            fix="Embed those galaxies again or leave them out.", ids=list(ids[bad]) if len(ids) == len(values) else (),
        )  # fmt: skip
    return values
