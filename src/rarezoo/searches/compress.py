"""From embeddings to a map of few dimensions, on which new galaxies can be placed later.

A :class:`Compressor` holds settings. Its ``fit`` returns a :class:`FittedMap`, whose ``transform`` places further
galaxies.

Shape letters: n galaxies that were fitted, m further ones, D width of the embeddings, k dimensions of the map.
"""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from rarezoo import tables
from rarezoo.embeddings.whitening import principal_axes, projected
from rarezoo.errors import ConfigError, StoreError
from rarezoo.runs import fingerprint
from rarezoo.settings import Settings, choice, described, setting

_MEAN, _AXES = "whitening_mean", "whitening_axes"
MAP_FILE, STATE_FILE, SETTINGS_FILE = "map.parquet", "state.npz", "map.json"

Embeddings = Float32[np.ndarray, "galaxies D"]
Positions = Float32[np.ndarray, "galaxies k"]


class Transform(ABC):
    """What a compressor learnt: it places embeddings on the map, as a fitted estimator of scikit-learn does."""

    @abstractmethod
    def transform(self, embeddings: Embeddings) -> Positions:
        """Return the positions of galaxies on the map, which does not change."""

    def features(self, embeddings: Embeddings) -> Float32[np.ndarray, "galaxies d"]:
        """Return what the compressor works on: by default the embeddings themselves."""
        return embeddings

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays from which :meth:`Compressor.restored` makes the same transform again."""


@dataclass(frozen=True)
class _Whitened(Transform):
    """Another transform after a projection on principal components of unit variance."""

    inner: Transform
    mean: Float32[np.ndarray, " D"]
    axes: Float32[np.ndarray, "D components"]

    def transform(self, embeddings: Embeddings) -> Positions:
        return self.inner.transform(self.features(embeddings))

    def features(self, embeddings: Embeddings) -> Float32[np.ndarray, "galaxies components"]:
        return projected(embeddings, self.mean, self.axes)

    def state(self) -> dict[str, np.ndarray]:
        return {**self.inner.state(), _MEAN: self.mean, _AXES: self.axes}


@dataclass
class Compressor(Settings, ABC):
    """Makes a map of few dimensions from embeddings; each subclass is one choice of ``compress=``.

    A network that was trained on few questions puts nearly all variance of its embedding into one or two directions,
    those of the questions. Everything else that it noticed lies in the other directions. ``whiten`` gives the first
    principal components equal weight before anything is compressed, or with a ``whiten_power`` below 1 weights that
    are more nearly equal than they were: the components of least variance may hold noise.

    A new compressor implements :meth:`_fit`, :meth:`_check_shape` and :meth:`restored`.

    Attributes
    ----------
    computed_by
        Modules and packages that do the work besides the class's own module. A cached result is computed again when
        their code changes.

    Examples
    --------
    >>> from rarezoo.searches.compressors.pca import Pca
    >>> embeddings = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    >>> fitted = Pca(n_components=2).fit(embeddings, ids=[f"g{row:02d}" for row in range(50)])
    >>> fitted.positions.shape, fitted.transform(embeddings[:3]).shape
    ((50, 2), (3, 2))
    """

    prefix: ClassVar[str] = "compress"
    computed_by: ClassVar[tuple[str, ...]] = ()

    whiten: int = setting(
        0,
        "number of principal components that are brought to unit variance first; fewer if fewer vary; 0 = no whitening",
        ge=0,
    )
    whiten_power: float = setting(
        1.0,
        "power of its scatter by which each of these components is divided: 1 = unit variance, 0.5 = half of the way "
        "there on a logarithmic scale",
        gt=0, le=1,
    )  # fmt: skip

    def fit(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray, seed: int = 0) -> "FittedMap":
        """Learn a map from n galaxies.

        The galaxies are taken in the order of their ids, so that the same galaxies in another order give the same map.

        Parameters
        ----------
        embeddings : (n, D) array of floats
            float16 is converted to float32.
        ids : (n,) sequence of str
            Ids of the galaxies.
        seed : int
            Seed of every random draw.

        Raises
        ------
        StoreError
            Embeddings are not finite (``select.not_finite=drop`` leaves such galaxies out), or all equal.
        ConfigError
            Settings do not fit the number of galaxies or the width.
        """
        names = np.asarray(ids, dtype=object).astype(str)
        values = _finite(embeddings, ids=names)
        if len(names) != len(values):
            raise StoreError(
                "ids and embeddings differ in number", value=(len(names), len(values)), fix="Align them by id."
            )
        if len(values) < 2:
            fix = "Give more; see select.drop and limit."
            raise ConfigError("too few galaxies for a map", value=len(values), fix=fix)
        if (values == values[0]).all():
            raise StoreError(
                f"all {len(values)} embeddings are equal", value=np.array2string(values[0, :3], separator=", "),
                fix="Check the images and the checkpoint: it sees no difference between them.",
            )  # fmt: skip
        self._check_shape(galaxies=values.shape[0], width=values.shape[1])
        order = np.argsort(names, kind="stable")
        # Galaxies that are in the order of their ids already are not copied.
        sorted_values = values if (order[:-1] < order[1:]).all() else values[order]
        if self.whiten:
            mean, axes = principal_axes(sorted_values, components=self.whiten, power=self.whiten_power)
            in_order, inner = self._fit(projected(sorted_values, mean, axes), seed=seed)
            transform: Transform = _Whitened(inner, mean, axes)
        else:
            in_order, transform = self._fit(sorted_values, seed=seed)
        positions = np.empty_like(in_order, dtype=np.float32)
        positions[order] = in_order
        made_from = fingerprint(values, ids=names)
        return FittedMap(self, transform, names, positions, values.shape[1], seed, made_from)

    def transform_from(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the transform that gave this state, after its projection if it had one."""
        inner = self.restored(state, seed=seed)
        return _Whitened(inner, state[_MEAN], state[_AXES]) if self.whiten else inner

    @abstractmethod
    def _check_shape(self, *, galaxies: int, width: int) -> None:
        """Raise ConfigError if the settings do not fit the number of galaxies or the width of the embeddings."""

    @abstractmethod
    def _fit(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Transform]:
        """Return positions of finite, unequal embeddings, and what was learnt."""

    @abstractmethod
    def restored(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the transform that gave this state, without whitening."""


@dataclass(frozen=True)
class FittedMap:
    """A map of n galaxies, on which further galaxies can be placed.

    Attributes
    ----------
    compressor : Compressor
        Settings that made it.
    learnt : Transform
        What was learnt.
    ids : (n,) array of str
        Ids of the galaxies, in the order in which :meth:`Compressor.fit` got them.
    positions : (n, k) array of float32
        Positions in map units, which have no physical meaning.
    width : int
        Width of the embeddings, D.
    seed : int
        Seed of the fit.
    made_from : str
        Hash of the embeddings and ids that it was fitted to; empty for a map of an earlier rarezoo.
    """

    compressor: Compressor
    learnt: Transform
    ids: np.ndarray
    positions: Positions
    width: int
    seed: int
    made_from: str = ""

    def is_of(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray) -> bool:
        """Return whether the map was fitted to these embeddings (n, D) of these galaxies, in this order."""
        return self.made_from == fingerprint(np.asarray(embeddings, dtype=np.float32), ids=ids)

    def transform(
        self, embeddings: Float[np.ndarray, "galaxies D"], *, ids: Sequence[str] | np.ndarray = ()
    ) -> Positions:
        """Place m further galaxies, embedded by the same checkpoint; nothing on the map moves.

        Parameters
        ----------
        embeddings : (m, D) array of floats
            Their embeddings.
        ids : (m,) sequence of str, optional
            Their ids, for error messages.

        Returns
        -------
        (m, k) array of float32
            Their positions.

        Raises
        ------
        StoreError
            Embeddings have another width or are not finite.
        ConfigError
            The map cannot place galaxies (densMAP).
        """
        values = self._checked(embeddings, ids=ids)
        return self.learnt.transform(values) if len(values) else self.positions[:0]

    def features(
        self, embeddings: Float[np.ndarray, "galaxies D"], *, ids: Sequence[str] | np.ndarray = ()
    ) -> Float32[np.ndarray, "galaxies d"]:
        """Return what was compressed: the embeddings themselves or, if the map whitens, their whitened components.

        Raises
        ------
        StoreError
            Embeddings have another width or are not finite.
        """
        return self.learnt.features(self._checked(embeddings, ids=ids))

    def _checked(self, embeddings: np.ndarray, *, ids: Sequence[str] | np.ndarray) -> Embeddings:
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

        Raises
        ------
        OutputError
            The folder cannot be written.
        """
        folder = Path(folder)
        positions = pa.table({tables.ID: pa.array(self.ids), tables.POSITION: tables.vectors(self.positions)})
        tables.write(positions, folder / MAP_FILE, tables.MAP)
        with tables.atomic(folder / STATE_FILE) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **self.learnt.state())  # type: ignore[arg-type]
        # Last: a folder with this file is complete.
        about = {
            "settings": described(self.compressor), "width": self.width, "seed": self.seed, "made_from": self.made_from,
        }  # fmt: skip
        tables.write_json(about, folder / SETTINGS_FILE)
        return folder

    @classmethod
    def open(cls, folder: Path | str) -> "FittedMap":
        """Read a map that :meth:`save` wrote.

        Raises
        ------
        StoreError
            There is no map, or it is not complete or damaged.
        """
        folder = Path(folder)
        try:
            about = tables.read_json(folder / SETTINGS_FILE, fix="")
            # Arrays of objects, which could run code when they are read, are refused by numpy.
            with np.load(folder / STATE_FILE, allow_pickle=False) as stored:
                state = dict(stored)
            settings = dict(about["settings"])
            compressor: Compressor = choice("compress", settings.pop("option"))(**settings)
            table = tables.read(folder / MAP_FILE, tables.MAP)
            learnt = compressor.transform_from(state, seed=about["seed"])
            ids, positions = tables.strings(table, tables.ID).astype(str), tables.matrix(table, tables.POSITION)
            return cls(
                compressor, learnt, ids, positions, int(about["width"]), int(about["seed"]), about.get("made_from", "")
            )  # fmt: skip
        except ConfigError:
            raise
        except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as problem:
            raise StoreError(
                "no fitted map, or an incomplete or damaged one", value=folder, fix="Fit it and save it again."
            ) from problem


def _finite(embeddings: np.ndarray, *, ids: np.ndarray) -> Embeddings:
    """Embeddings as a float32 matrix."""
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
