"""Which galaxies are searched: cuts on predicted fractions and on any other column of the store.

The language of cuts is that of :func:`rarezoo.data.expressions.decide`.
"""

import logging
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from rarezoo import tables
from rarezoo.data.expressions import decide
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CutResult:
    """What one cut dropped, whatever the other cuts dropped.

    Attributes
    ----------
    cut : str
        The expression.
    dropped : int
        Galaxies that it drops, including those undecided if ``nan=drop``.
    undecided : int
        Galaxies for which a NaN leaves the expression neither true nor false.
    """

    cut: str
    dropped: int
    undecided: int

    def __str__(self) -> str:
        return f"{self.cut} drops {self.dropped} ({self.undecided} undecided by NaN)"


class Selection(NamedTuple):
    """Which of n galaxies are kept, and what each cut dropped.

    Attributes
    ----------
    mask : (n,) array of bool
        True for galaxies that are kept.
    cuts : tuple of CutResult
        One per cut.
    """

    mask: Bool[np.ndarray, " galaxies"]
    cuts: tuple[CutResult, ...]


@dataclass
class Select(Settings):
    """Which galaxies are searched: cuts, then a random subset of what is left.

    A comparison with NaN is neither true nor false, and stays so under ``and``, ``or`` and ``not`` as long as the other
    side does not decide: ``x >= 0.3`` and ``not (x < 0.3)`` drop the same galaxies. ``nan`` says what happens to
    galaxies for which a cut stays undecided.

    A cut may name an answer without its campaign: where there is no column ``disk-edge-on_yes_fraction``, these words
    stand for ``disk-edge-on-gz2_yes_fraction``, so that one cut serves surveys of any campaign.

    Examples
    --------
    >>> galaxies = pa.table({"id_str": ["a", "b", "c"], "bar_no_fraction": [0.9, 0.2, float("nan")]})
    >>> kept = Select(drop=["bar_no_fraction >= 0.5"]).kept(galaxies)
    >>> kept.mask.tolist()
    [False, True, True]
    >>> print(kept.cuts[0])
    bar_no_fraction >= 0.5 drops 1 (1 undecided by NaN)
    """

    prefix: ClassVar[str] = "select"

    drop: list[str] = setting([], "cuts: each drops the galaxies for which it is true, e.g. '`bar_no_fraction` >= 0.5'")
    nan: str = setting(
        "keep",
        "what happens to galaxies for which a cut cannot be decided because a value is NaN",
        choices=("keep", "drop"),
    )
    fractions_from: str = setting("", "store of the same galaxies whose predicted fractions are used; empty: its own")
    fractions_by: str = setting("", "architecture that must have predicted those fractions; empty: any")
    not_finite: str = setting(
        "refuse",
        "what happens to galaxies whose embedding is not finite: the search stops, or they are left out",
        choices=("refuse", "drop"),
    )
    sample: int = setting(0, "largest random subset that is searched; 0 = all", unit="galaxies", ge=0)

    def judged(self, galaxies: pa.Table, *, store: EmbeddingStore) -> pa.Table:
        """Replace the predicted fractions of galaxies by those that ``fractions_from`` predicts, joined by id.

        Cuts use these, and so do the answers that describe classes.

        Parameters
        ----------
        galaxies : pyarrow.Table
            Rows read from ``store``.
        store : EmbeddingStore
            The store that is searched.

        Raises
        ------
        StoreError
            ``fractions_from`` is not a complete store, or one of another survey, or it lacks some of the galaxies.
        ConfigError
            The fractions would be those of another architecture than ``fractions_by``.
        """
        other = EmbeddingStore.open(self.fractions_from) if self.fractions_from else store
        # Checkpoints are named architecture.tag; one that is not may be of any architecture.
        architecture, dot, _ = other.manifest.checkpoint.partition(".")
        if self.fractions_by and architecture != self.fractions_by:
            if dot:
                raise ConfigError(
                    f"cuts need fractions that {self.fractions_by} predicts, and these are predicted by",
                    value=other.manifest.checkpoint,
                    fix=f"Give select.fractions_from=STORE made with {self.fractions_by}, or select.fractions_by= for "
                    "any.",
                )
            log.warning(
                "cuts use the fractions of checkpoint %s, which is taken to be a %s", other.manifest.checkpoint,
                self.fractions_by,
            )  # fmt: skip
        if other.folder.resolve() == store.folder.resolve():
            return galaxies
        if not _of_one_survey(other, store):
            raise StoreError(
                "select.fractions_from is a store of another survey", value=other.folder,
                fix=f"Embed the survey of {store.folder} with that checkpoint too.",
            )  # fmt: skip
        fractions = other.read([tables.ID, *map(tables.fraction_column, other.manifest.answers)])
        fractions = tables.aligned(
            fractions, galaxies.column(tables.ID), source=f"{other.folder} (select.fractions_from)"
        )
        judged = galaxies.drop_columns([name for name in galaxies.column_names if tables.is_fraction_column(name)])
        for name in fractions.column_names[1:]:
            judged = judged.append_column(name, fractions.column(name))
        return judged

    def kept(
        self, galaxies: pa.Table, *, embeddings: Float[np.ndarray, "galaxies D"] | None = None, seed: int = 0
    ) -> Selection:
        """Apply the cuts.

        Parameters
        ----------
        galaxies : pyarrow.Table
            Table of n rows with ids and the columns that cuts name.
        embeddings : (n, D) array of floats, optional
            Their embeddings, which ``not_finite=drop`` needs; by default the table's.
        seed : int
            Seed of the random subset, which does not depend on the order of the rows.

        Raises
        ------
        ConfigError
            A cut cannot be read or names an unknown column, or no galaxy is left.
        """
        mask, cuts = np.ones(galaxies.num_rows, dtype=bool), []
        for cut in self.drop:
            verdict = decide(cut, galaxies)
            dropped = pc.fill_null(verdict, self.nan == "drop").to_numpy(zero_copy_only=False)
            cuts.append(CutResult(cut, int(dropped.sum()), verdict.null_count))
            mask &= ~dropped
        if self.not_finite == "drop":
            values = tables.matrix(galaxies, tables.EMBEDDING) if embeddings is None else embeddings
            bad = ~np.isfinite(values).all(axis=1)
            cuts.append(CutResult("an embedding that is not finite", int(bad.sum()), 0))
            mask &= ~bad
        log.info("%d of %d galaxies kept. %s", mask.sum(), len(mask), "; ".join(map(str, cuts)))
        if not mask.any():
            reason = "; ".join(map(str, cuts)) or "there are none"
            raise ConfigError(f"none of {len(mask)} galaxies is left to search", value=reason, fix="Loosen a cut.")
        if self.sample and self.sample < mask.sum():
            rows = np.flatnonzero(mask)
            by_id = rows[np.argsort(tables.strings(galaxies, tables.ID)[rows].astype(str))]
            mask = np.zeros_like(mask)
            mask[np.random.default_rng(seed).choice(by_id, self.sample, replace=False)] = True
        return Selection(mask, tuple(cuts))


def _of_one_survey(store: EmbeddingStore, other: EmbeddingStore) -> bool:
    """Return whether two stores are of one survey, of which one may hold only the first galaxies.

    Equal ids mean equal galaxies only within one survey. Imported embeddings without a survey are known by their ids.
    If the survey cannot be opened, its settings decide.
    """
    fewer, more = sorted((store, other), key=lambda either: either.manifest.rows)
    if fewer.manifest.survey_sha256 == more.manifest.survey_sha256 or not (fewer.has_survey or more.has_survey):
        return True
    try:
        return more.galaxies().first(fewer.manifest.rows).sha256 == fewer.manifest.survey_sha256
    except StoreError:
        return False
    except (ConfigError, DataError):
        return {**more.manifest.survey_settings, "limit": 0} == {**fewer.manifest.survey_settings, "limit": 0}
