"""What a search works on: images, images with columns of a catalogue, or what images do not predict of the columns.

Each file in this package is one choice of ``features=``.

Shape letters: n galaxies, D width of the embeddings, c columns, d features.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Float64

from rarezoo import tables
from rarezoo.data.reading import ids_of, matched_rows, no_column, read_any_table, refuse_doubled
from rarezoo.embeddings.whitening import principal_axes, projected
from rarezoo.errors import ConfigError, DataError
from rarezoo.runs import path_sha256
from rarezoo.searches.compress import Compressor
from rarezoo.searches.select import CutResult
from rarezoo.settings import Settings, described, setting

DROP, DRAW = "drop", "draw"
# Standard deviations per median absolute deviation of a normal distribution.
_MAD_TO_SIGMA = 1.4826
# Values farther out than this many deviations are drawn in: beyond it, distance grows as its logarithm.
_FAR = 4.0
# Largest share of galaxies with exactly the same value, because they would be a group for this reason alone.
_SAME = 0.05
# Galaxies with all values that are needed.
FEWEST = 100


class Searched(NamedTuple):
    """What is searched.

    Attributes
    ----------
    matrix : (n, d) array of floats
        Features of the galaxies that are kept.
    kept : (m,) array of bool
        Which of the m galaxies that were given these are.
    cuts : tuple of CutResult
        Why the others were dropped.
    """

    matrix: Float[np.ndarray, "n d"]
    kept: Bool[np.ndarray, " m"]
    cuts: tuple[CutResult, ...] = ()


@dataclass
class Features(Settings, ABC):
    """What a search works on; each subclass is one choice of ``features=``.

    A subclass that needs columns of a catalogue is a :class:`WithColumns`.
    """

    prefix: ClassVar[str] = "features"

    @property
    def of_images(self) -> bool:
        """Whether only embeddings of images are searched, so that every other embedding can be searched alike."""
        return True

    @abstractmethod
    def searched(
        self, embeddings: Float[np.ndarray, "n D"], *, ids: np.ndarray, catalogue: pa.Table | None,
        compressor: Compressor, seed: int,
    ) -> Searched:  # fmt: skip
        """Return the features of n galaxies.

        Parameters
        ----------
        embeddings : (n, D) array of floats
            Their embeddings.
        ids : (n,) array of str
            Their ids.
        catalogue : pyarrow.Table or None
            Catalogue of the survey; None without a survey.
        compressor : Compressor
            Of the search: its whitening says how the directions of the embedding are weighted.
        seed : int
            Seed of every random draw.

        Raises
        ------
        ConfigError, DataError
            Columns are missing or cannot be used.
        """

    def compressor(self, compressor: Compressor) -> Compressor:
        """Return the compressor for these features, which may be few or weighted already."""
        return compressor

    def drawing(self, compressor: Compressor) -> Compressor:
        """Return the compressor of the map that is drawn."""
        return compressor

    def settings(self) -> dict[str, Any]:
        """Return what identifies the features, for the record of a search."""
        return described(self)

    def inputs(self) -> dict[str, str]:
        """Return the hashes of the files that they come from."""
        return {}


@dataclass(kw_only=True)
class WithColumns(Features):
    """Features that need columns of a catalogue.

    Each column is centred on its median and divided by its scatter (from the median absolute deviation); beyond four
    scatters the logarithm of the distance is taken, so that a few extreme values do not stretch the space. Galaxies
    without a value in one of the columns are left out, or get a drawn one: the prediction from their image plus the
    error that the prediction makes for a random galaxy with a value. They are then spread as the others are and form no
    group of their own.
    """

    # What else a user can do if too many values are unknown.
    other_way: ClassVar[str] = f", or set features.missing={DRAW}"

    columns: list[str] = setting([], "columns of numbers of the catalogue, such as colour,log_mass")
    table: str = setting("", "table that has the columns, joined by id; empty: the survey's catalogue")
    id_column: str = setting(tables.ID, "column of ids in that table")
    missing: str = setting(
        DROP, "galaxies without a value: left out, or with a drawn one, which is predicted from the image with the "
        "error of a random galaxy", choices=(DROP, DRAW),
    )  # fmt: skip

    @property
    def of_images(self) -> bool:
        """False: columns of a catalogue are searched too."""
        return False

    def compressor(self, compressor: Compressor) -> Compressor:
        """Return it without whitening, because the features are weighted already."""
        return replace(compressor, whiten=0)

    def drawing(self, compressor: Compressor) -> Compressor:
        """Return it without whitening too."""
        return replace(compressor, whiten=0)

    def check(self) -> None:
        """Raise ConfigError if no column is named, or one twice."""
        if not self.columns:
            raise ConfigError(
                "features of a catalogue need columns", value="features.columns=",
                fix="Name columns of numbers, such as features.columns=colour,log_mass.",
            )  # fmt: skip
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError("features.columns names a column twice", value=self.columns, fix="Name each once.")

    def settings(self) -> dict[str, Any]:
        """Return what identifies the features; the table by its absolute path."""
        return {**described(self), "table": str(Path(self.table).resolve()) if self.table else ""}

    def inputs(self) -> dict[str, str]:
        """Return the hash of the table."""
        return {"features.table": path_sha256(self.table)} if self.table else {}

    def values(self, ids: np.ndarray, catalogue: pa.Table | None) -> Float64[np.ndarray, "n c"]:
        """Return the columns of n galaxies, NaN where a value is unknown.

        Raises
        ------
        ConfigError, DataError
            A column does not exist, holds no numbers, is unknown everywhere, does not vary, or has one value far too
            often.
        """
        if self.table:
            source = Path(self.table).name
            table = read_any_table(Path(self.table), text=[self.id_column])
            if not table.num_rows:
                raise DataError(
                    "the table of features has no rows", value=source, fix="Give one with a row per galaxy."
                )
            if self.id_column not in table.column_names:
                raise no_column(table, self.id_column, source=source, setting_name="features.id_column")
            others = ids_of(table, self.id_column, source=source)
            refuse_doubled(others, source=source)
            rows = matched_rows(
                list(map(str, ids)), others, source="the store", other_source=source,
                fix="Name the column of ids with features.id_column=.",
            )  # fmt: skip
        elif catalogue is not None:
            source, table = "the survey's catalogue", catalogue
            rows = tables.rows_of(ids, table, source="the survey")
        else:
            raise ConfigError(
                "the store has no survey with a catalogue", value=f"features.columns={','.join(self.columns)}",
                fix="Give a table of ids and columns: features.table=FILE.",
            )  # fmt: skip
        taken = pa.array(rows, mask=rows < 0)
        return np.column_stack([_column(table, name, taken, source=source) for name in self.columns])

    def complete(
        self, values: Float64[np.ndarray, "m c"], embeddings: Float[np.ndarray, "m D"], *, ids: np.ndarray, seed: int
    ) -> tuple[Float64[np.ndarray, "n c"], Bool[np.ndarray, " m"], tuple[CutResult, ...]]:
        """Return scaled columns without unknown values, which galaxies they belong to, and what was dropped."""
        standard = robustly_scaled(values)
        known = np.isfinite(standard)
        if self.missing == DRAW and not known.all():
            from rarezoo.searches.features.contrast import predicted

            guess = predicted(standard, embeddings, ids=ids, seed=seed)
            random, by_id = np.random.default_rng([seed, 1]), np.argsort(ids.astype(str), kind="stable")
            for column in range(standard.shape[1]):
                have, lack = by_id[known[by_id, column]], by_id[~known[by_id, column]]
                error = (standard - guess)[random.choice(have, len(lack)), column]
                standard[lack, column] = guess[lack, column] + error
        kept = np.isfinite(standard).all(axis=1)
        if kept.sum() < FEWEST:
            raise ConfigError(
                "too few galaxies have a value in all columns", value=f"{kept.sum()} of {len(kept)}",
                fix=f"Name columns that at least {FEWEST} galaxies have{self.other_way}.",
            )  # fmt: skip
        cut = CutResult(f"no value in {', '.join(self.columns)}", int((~kept).sum()), 0)
        return standard[kept], kept, (cut,) if cut.dropped else ()


def robustly_scaled(values: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
    """Return columns in scatters from their medians; beyond four scatters the logarithm of the distance is taken.

    >>> robustly_scaled(np.array([[0.0], [1.0], [2.0], [3.0], [1000.0], [np.nan]])).round(1).ravel().tolist()
    [-1.3, -0.7, 0.0, 0.7, 10.5, nan]
    """
    middle = np.nanmedian(values, axis=0)
    scatter = _MAD_TO_SIGMA * np.nanmedian(np.abs(values - middle), axis=0)
    scatter = np.where(scatter > 0, scatter, np.nanstd(values, axis=0))
    standard = (values - middle) / scatter
    distance = np.abs(standard)
    far = _FAR + np.log1p(np.maximum(distance - _FAR, 0))
    return np.where(distance > _FAR, np.sign(standard) * far, standard)


def image_block(embeddings: Float[np.ndarray, "n D"], compressor: Compressor) -> Float32[np.ndarray, "n d"]:
    """Return embeddings as the compressor would weight them, scaled so that their summed variance is 1."""
    values = np.ascontiguousarray(embeddings, dtype=np.float32)
    if compressor.whiten:
        mean, axes = principal_axes(values, components=compressor.whiten, power=compressor.whiten_power)
        values = projected(values, mean, axes)
    else:
        values = values - values.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.square(values, dtype=np.float64).sum(axis=1).mean())
    return np.asarray(values / max(spread, np.finfo(np.float32).tiny), dtype=np.float32)


def _column(table: pa.Table, name: str, rows: pa.Array, *, source: str) -> Float64[np.ndarray, " n"]:
    """Return one column of numbers of some rows; NaN where a value is unknown."""
    import difflib

    if name not in table.column_names:
        near = difflib.get_close_matches(name, table.column_names, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"features.columns: {source} has no such column", value=name,
            fix=f"{hint}It has: {', '.join(table.column_names[:30])}.",
        )  # fmt: skip
    kind = table.schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise ConfigError(
            f"features.columns: a column of {source} that holds no numbers", value=f"{name} ({kind})",
            fix="Name columns of numbers; galaxies of one category can be searched alone with select.drop=.",
        )  # fmt: skip
    column = table.column(name).cast(pa.float64(), safe=False).take(rows)
    values = np.array(column.to_pandas(), dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    known = values[np.isfinite(values)]
    if not len(known):
        raise DataError(
            f"{source}: all values are unknown in column", value=name, fix="Leave it out of features.columns."
        )
    different, counts = np.unique(known, return_counts=True)
    if len(different) < 2:
        raise DataError(
            f"{source}: all galaxies have the same value in column", value=f"{name} = {different[0]:g}",
            fix="Leave it out of features.columns.",
        )  # fmt: skip
    if counts.max() > max(_SAME * len(known), 2):
        raise DataError(
            f"{source}: {counts.max() / len(known):.0%} of the galaxies have the same value in column {name}, and "
            "would be a group for this reason alone", value=f"{different[counts.argmax()]:g}",
            fix="If it means unknown, empty these cells; a column of few values is no feature.",
        )  # fmt: skip
    return values
