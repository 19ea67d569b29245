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
from rarezoo.embeddings.whitening import principal_axes, projected
from rarezoo.errors import ConfigError, StoreError
from rarezoo.settings import choice, name_of, setting

_MEAN, _AXES = "whitening_mean", "whitening_axes"
MAP_FILE, STATE_FILE, SETTINGS_FILE = "map.parquet", "state.npz", "map.json"

Embeddings = Float32[np.ndarray, "galaxies D"]
Positions = Float32[np.ndarray, "galaxies k"]


class Placer(ABC):
    """What a compressor learnt: puts embeddings on the map."""

    @abstractmethod
    def positions_of(self, embeddings: Embeddings) -> Positions:
        """Positions of galaxies on the map, which stays as it is."""

    def features_of(self, embeddings: Embeddings) -> Float32[np.ndarray, "galaxies d"]:
        """What the compressor sees of embeddings."""
        return embeddings

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """The arrays from which the compressor makes the same placer again."""


@dataclass(frozen=True)
class _Whitened(Placer):
    """Another placer behind a projection on principal components of unit variance."""

    inner: Placer
    mean: Float32[np.ndarray, " D"]
    axes: Float32[np.ndarray, "D components"]

    def positions_of(self, embeddings: Embeddings) -> Positions:
        return self.inner.positions_of(self.features_of(embeddings))

    def features_of(self, embeddings: Embeddings) -> Float32[np.ndarray, "galaxies components"]:
        return projected(embeddings, self.mean, self.axes)

    def state(self) -> dict[str, np.ndarray]:
        return {**self.inner.state(), _MEAN: self.mean, _AXES: self.axes}


@dataclass
class Compressor(ABC):
    """A way from embeddings to positions; each subclass is one choice of ``compress=``.

    A network trained on few questions puts nearly all variance of its embedding into one or two directions, those of
    the questions; what it noticed besides lies in the others. ``whiten`` gives the first so many principal components
    (or as many as the embeddings vary in) equal weight before anything is compressed.
    """

    whiten: int = setting(0, "at most so many principal components brought to unit variance first; 0 = none")

    def fit(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray, seed: int = 0) -> "FittedMap":
        """Learn a map from galaxies.

        The galaxies are taken in the order of their ids, so that the same galaxies in another order give the same map.

        Args:
            embeddings: (n, D) of any float type; float16 is lifted to float32.
            ids: (n,) id strings.
            seed: of every random draw.

        Raises:
            StoreError: embeddings that are not finite (``select.not_finite=drop`` leaves such galaxies out), or all
                equal.
            ConfigError: settings that do not fit the number of galaxies or the width.
        """
        names = np.asarray(ids, dtype=object).astype(str)
        values = _usable(embeddings, ids=names)
        self._refuse(galaxies=values.shape[0], width=values.shape[1])
        order = np.argsort(names, kind="stable")
        in_order, placer = self._fitted_whitened(values[order], seed=seed)
        positions = np.empty_like(in_order, dtype=np.float32)
        positions[order] = in_order
        return FittedMap(self, placer, names, positions, values.shape[1], seed)

    def _fitted_whitened(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Placer]:
        if self.whiten < 0:
            raise ConfigError("compress.whiten", value=self.whiten, fix="Choose 0 or more.")
        if not self.whiten:
            return self._fitted(embeddings, seed=seed)
        mean, axes = principal_axes(embeddings, components=self.whiten)
        positions, placer = self._fitted(projected(embeddings, mean, axes), seed=seed)
        return positions, _Whitened(placer, mean, axes)

    def placer_from(self, state: Mapping[str, np.ndarray], *, seed: int) -> Placer:
        """The placer that gave this state, behind its projection if it had one."""
        inner = self.reopened(state, seed=seed)
        return _Whitened(inner, state[_MEAN], state[_AXES]) if self.whiten else inner

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
        values = self._fitting(embeddings, ids=ids)
        return self.placer.positions_of(values) if len(values) else self.positions[:0]

    def features(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray = ()) -> Embeddings:
        """What was compressed (m, d): the embeddings (m, D) themselves or, if it whitens, their whitened components.

        Raises:
            StoreError: embeddings of another width, or not finite.
        """
        return self.placer.features_of(self._fitting(embeddings, ids=ids))

    def _fitting(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray) -> Embeddings:
        """Float32 embeddings of the map's width."""
        values = _finite(embeddings, ids=np.asarray(ids, dtype=object).astype(str))
        if values.shape[1] != self.width:
            raise StoreError(
                "embeddings of another width", value=f"{values.shape[1]} instead of {self.width}",
                fix="Embed these galaxies with the checkpoint that the map was made with.",
            )  # fmt: skip
        return values

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
        placer = compressor.placer_from(state, seed=about["seed"])
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
            fix="Embed those galaxies again, or search without them: select.not_finite=drop.",
            ids=list(ids[bad]) if len(ids) == len(values) else (),
        )  # fmt: skip
    return values
