"""Matched controls: for each member of a class, galaxies of no class with the same redshift, mass, size and so on.

The members of a class and all galaxies of no class are compared in a few covariates::

    propensity      logistic regression of being a member on the covariates and their squares
    candidates      galaxies of no class whose logit of the propensity is within caliper × its standard deviation
    distance        Mahalanobis distance in the covariates, or the difference of the logits (distance=propensity)
    controls        in rounds: every member gets its nearest candidate that no member has yet; closest pairs first
    balance         standardised mean difference of each covariate: (mean of members − mean of their controls) divided
                    by the root mean square of the standard deviations of members and of galaxies of no class
    matched         the largest number of rounds, at most ``controls``, after which every covariate is balanced to
                    within 0.1; if there is none, once more with half and with a quarter of the caliper
    cannot be       fewer than half of the members, or fewer than eight, have a control, or a covariate stays unbalanced
    matched

The properties that are compared later play no part here. Sources: Rosenbaum & Rubin (1985, The American Statistician
39, 33) for the distance within calipers, Austin (2009, Statistics in Medicine 28, 3083) for the limit of 0.1.

Shape letters: n galaxies, c covariates, m members with controls, k controls of a member.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.settings import Settings, setting

MAHALANOBIS, PROPENSITY = "mahalanobis", "propensity"
# Standardised mean difference up to which a covariate counts as balanced.
BALANCED = 0.1
# Members with controls that a comparison needs, and the share of the members that must have them.
FEWEST, _LEAST_SHARE = 8, 0.5
_CALIPERS = (1.0, 0.5, 0.25)
# Nearest candidates of a member per control; more change nothing unless members crowd.
_CANDIDATES = 20
# What a column is by its name, the first role that fits: covariates that are matched unless others are named.
_END = r"(_?(r|err)?|_?(best|spec|phot|sdss|desi|median|p50|auto|total|tot))"
ROLES: Mapping[str, re.Pattern[str]] = {
    "redshift": re.compile(rf"z|redshift{_END}|z_?(spec|phot|best|helio|cmb)|(spec|phot|photo)_?z", re.IGNORECASE),
    "mass": re.compile(
        rf"(log|lg|log10)?_?(stellar_?)?m(ass|star|_?stellar){_END}|log_?m|lgm.*", re.IGNORECASE
    ),
    "magnitude": re.compile(
        r"(petro|model|cmodel|auto|abs)?_?mag(nitude)?(_?(r|auto|dered))?|r_?mag|(petro|model|cmodel)mag_?r|mag_r_.*",
        re.IGNORECASE,
    ),
    "size": re.compile(
        r"radius|(petro|half_?light|effective|kron)_?(rad(ius)?|r)(_?(r|50))?|r_?(e|50|eff|kron|petro)|petror(50|90)_?r|a_px|"
        r"shape_?r", re.IGNORECASE,
    ),
    "psf": re.compile(r"seeing|(psf|fwhm)(_?(size|fwhm|depth))?_?r?", re.IGNORECASE),
    "depth": re.compile(r"(gal|psf|sky|survey)?_?depth_?r?|sky(_?(level|noise|rms|brightness))?(_?r)?|n_?exp(osures)?",
                        re.IGNORECASE),
}  # fmt: skip
# A magnitude is a covariate only where there is no mass.
_DEFAULTS = ("redshift", "mass", "magnitude", "size", "psf", "depth")


class Balance(NamedTuple):
    """Standardised mean differences of one covariate.

    Attributes
    ----------
    covariate : str
        Name of the column.
    before, after : float
        Members against all galaxies of no class, and against their controls; NaN if there are none.
    """

    covariate: str
    before: float
    after: float


@dataclass(frozen=True)
class Matched:
    """The controls of one class.

    Attributes
    ----------
    members
        (m,) rows of the members that have controls.
    controls
        (m, k) rows of their controls, −1 where a member has fewer.
    balance
        One entry per covariate.
    size
        Members of the class, with or without controls.
    reason
        Why the class cannot be matched; empty if it is.

    Examples
    --------
    >>> Matched(np.array([4]), np.array([[1, -1]]), (), size=1).counts.tolist()
    [1]
    """

    members: Int64[np.ndarray, " m"]
    controls: Int64[np.ndarray, "m k"]
    balance: tuple[Balance, ...]
    size: int
    reason: str = ""

    @property
    def is_balanced(self) -> bool:
        """Whether the class is matched."""
        return not self.reason

    @property
    def counts(self) -> Int64[np.ndarray, " m"]:
        """Number of controls of each member."""
        return np.sum(self.controls >= 0, axis=1)

    @property
    def pool(self) -> Int64[np.ndarray, " controls"]:
        """Rows of all controls."""
        return self.controls[self.controls >= 0]


@dataclass(kw_only=True)
class Matching(Settings):
    """How controls are matched.

    Examples
    --------
    >>> Matching(controls=7)
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: matching.controls must be at most 5: 7. ...
    """

    prefix: ClassVar[str] = "matching"

    controls: int = setting(5, "largest number of controls for each member", unit="galaxies", ge=1, le=5)
    distance: str = setting(
        MAHALANOBIS, "distance by which the nearest candidate is found", choices=(MAHALANOBIS, PROPENSITY)
    )
    caliper: float = setting(
        0.2, "largest difference of the logits of the propensity, in their standard deviations", gt=0, le=5
    )

    def match(
        self,
        covariates: Mapping[str, Float64[np.ndarray, " n"]],
        labels: Int[np.ndarray, " n"],
        class_id: int,
        *,
        ids: Sequence[str] | np.ndarray,
    ) -> Matched:
        """Match the members of a class with galaxies of no class; the order of the rows changes nothing.

        Parameters
        ----------
        covariates
            Values by the name of the covariate, NaN where unknown.
        labels
            (n,) class of each galaxy, −1 for none.
        class_id
            The class.
        ids
            (n,) ids, which decide between pairs of equal distance.
        """
        inside = labels == class_id
        size = int(inside.sum())
        none = np.empty(0, dtype=np.int64), np.empty((0, self.controls), dtype=np.int64)
        if not covariates:
            return Matched(*none, (), size, "no covariate is known")
        values = np.column_stack(list(covariates.values()))
        known = np.isfinite(values).all(axis=1)
        members, others = np.flatnonzero(inside & known), np.flatnonzero((labels == tables.NO_CLASS) & known)
        names = ", ".join(covariates)
        if len(members) < FEWEST:
            return Matched(*none, (), size, f"{names} is known for only {len(members)} of {size} members")
        if len(others) < len(members):
            return Matched(*none, (), size, f"{names} is known for only {len(others)} galaxies of no class")
        order = np.argsort(np.asarray(ids).astype(str)[members], kind="stable")
        other_order = np.argsort(np.asarray(ids).astype(str)[others], kind="stable")
        members, others = members[order], others[other_order]
        scale = np.sqrt((values[members].var(axis=0) + values[others].var(axis=0)) / 2)
        varies = scale > 1e-12 * (1 + np.abs(values[others].mean(axis=0)))
        if not varies.any():
            return Matched(*none, (), size, f"{names} is the same for all galaxies")
        scaled = (values[:, varies] - values[others][:, varies].mean(axis=0)) / scale[varies]
        before = scaled[members].mean(axis=0) - scaled[others].mean(axis=0)
        varying = [name for name, moves in zip(covariates, varies, strict=True) if moves]
        logits = _logits(scaled[members], scaled[others])
        best, alike = np.full(len(varying), np.inf), 0
        for factor in _CALIPERS:
            chosen = self._chosen(scaled[members], scaled[others], logits, factor * self.caliper)
            kept = np.flatnonzero(chosen[:, 0] >= 0)
            alike = max(alike, len(kept))
            if len(kept) < max(FEWEST, _LEAST_SHARE * size):
                break
            for rounds in range(self.controls, 0, -1):
                part = chosen[kept, :rounds]
                after = _imbalance(scaled[members[kept]], scaled[others], part)
                best = min(best, after, key=lambda entry: float(np.abs(entry).max()))
                if np.abs(after).max() < BALANCED:
                    balance = tuple(map(Balance, varying, before.tolist(), after.tolist()))
                    return Matched(members[kept], np.where(part >= 0, others[part], -1), balance, size)
        reason = f"only {alike} of {size} members have a like galaxy in no class"
        if np.isfinite(best).all():
            worst = int(np.argmax(np.abs(best)))
            reason = f"{varying[worst]} still differs by {abs(best[worst]):.2f} standard deviations after matching"
        after = np.where(np.isfinite(best), best, np.nan)
        return Matched(*none, tuple(map(Balance, varying, before.tolist(), after.tolist())), size, reason)

    def _chosen(
        self,
        members: Float64[np.ndarray, "m c"],
        others: Float64[np.ndarray, "o c"],
        logits: tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " o"]],
        caliper: float,
    ) -> Int64[np.ndarray, "m k"]:
        """Return the places of the controls of each member among the others, −1 where it has fewer."""
        from scipy.spatial import KDTree

        spread = float(np.concatenate(logits).std())
        if self.distance == PROPENSITY:
            here, there = logits[0][:, None], logits[1][:, None]
        else:
            here, there = _whitened(members, others)
        most = min(_CANDIDATES * self.controls, len(others))
        distances, places = map(np.asarray, KDTree(there).query(here, k=most))
        distances, places = distances.reshape(len(here), -1), places.reshape(len(here), -1)
        allowed = np.abs(logits[0][:, None] - logits[1][places]) <= caliper * spread + 1e-12
        rows, columns = np.nonzero(allowed)
        pairs = np.lexsort((places[rows, columns], rows, distances[rows, columns]))
        pair_rows, pair_places = rows[pairs].tolist(), places[rows, columns][pairs].tolist()
        chosen = np.full((len(here), self.controls), -1, dtype=np.int64)
        used: set[int] = set()
        for number in range(self.controls):
            served: set[int] = set()
            for row, place in zip(pair_rows, pair_places, strict=True):
                if row not in served and place not in used and (not number or chosen[row, number - 1] >= 0):
                    chosen[row, number] = place
                    served.add(row)
                    used.add(place)
        return chosen


def _logits(
    members: Float64[np.ndarray, "m c"], others: Float64[np.ndarray, "o c"]
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " o"]]:
    """Return the logit of the propensity of members and others, without the constant."""
    from sklearn.linear_model import LogisticRegression

    # Squares of values far from the mean would decide everything.
    terms = np.clip(np.concatenate([members, others]), -5, 5)
    terms = np.column_stack([terms, terms**2])
    is_member = np.arange(len(terms)) < len(members)
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(terms, is_member)
    logits = terms @ model.coef_[0]
    return logits[is_member], logits[~is_member]


def _whitened(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in which the Mahalanobis distance is the Euclidean one."""
    centred = np.concatenate([members - members.mean(axis=0), others - others.mean(axis=0)])
    covariance = np.atleast_2d(centred.T @ centred / len(centred)) + 1e-6 * np.eye(members.shape[1])
    half = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return members @ half, others @ half


def _imbalance(
    members: Float64[np.ndarray, "m c"], others: Float64[np.ndarray, "o c"], controls: Int64[np.ndarray, "m k"]
) -> Float64[np.ndarray, " c"]:
    """Return the standardised mean differences; every member weighs one, and so do its controls together."""
    present = (controls >= 0)[:, :, None]
    means = np.sum(np.where(present, others[controls], 0), axis=1) / present.sum(axis=1)
    return np.asarray(members.mean(axis=0) - means.mean(axis=0))


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are by their names.

    Attributes
    ----------
    columns
        Columns of each role, in the order of the table.

    Examples
    --------
    >>> Roles.of(["z_spec", "petroMag_r", "petroR50_r", "lgm_tot_p50"]).defaults()
    ['z_spec', 'lgm_tot_p50', 'petroR50_r']
    """

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str]) -> "Roles":
        """Read the names of columns of numbers."""
        return cls({role: tuple(filter(pattern.fullmatch, names)) for role, pattern in ROLES.items()})

    def first(self, role: str) -> str | None:
        """Return the first column of a role, or None."""
        return next(iter(self.columns.get(role, ())), None)

    def defaults(self) -> list[str]:
        """Return the covariates: redshift, mass or else magnitude, apparent size, PSF and depth, if they are there."""
        roles = [role for role in _DEFAULTS if role != "magnitude" or self.first("mass") is None]
        return list(dict.fromkeys(name for role in roles if (name := self.first(role)) is not None))


def chosen_covariates(
    named: Sequence[str], values: Mapping[str, Float64[np.ndarray, " n"]], inside: Bool[np.ndarray, " n"]
) -> list[str]:
    """Return the covariates: those that are named, or by default those that are there.

    Parameters
    ----------
    named
        Columns that the user named; empty: the defaults that are known for half of the members of classes.
    values
        Columns of numbers.
    inside
        Whether each galaxy is in a class.

    Raises
    ------
    ConfigError
        A named column does not exist, holds no numbers or is the same for all, or none is named and none is there.
    """
    unknown = [name for name in named if name not in values]
    listed = ", ".join(list(values)[:12]) or "none"
    if unknown:
        raise ConfigError("covariates: no column of numbers", value=unknown[0], fix=f"Columns of numbers: {listed}.")
    flat = [name for name in named if np.ptp(values[name][np.isfinite(values[name])]) == 0]
    if flat:
        raise ConfigError(
            "covariates: all galaxies have the same value", value=flat[0], fix="Name columns in which galaxies differ."
        )
    if named:
        return list(dict.fromkeys(named))
    rows = inside if inside.any() else np.ones_like(inside)
    known = [name for name, column in values.items() if np.isfinite(column[rows]).mean() >= _LEAST_SHARE]
    chosen = Roles.of(known).defaults()
    if not chosen:
        raise ConfigError(
            "no column is a redshift, mass, magnitude, size, PSF or depth by its name, so galaxies cannot be matched",
            value=listed, fix="Name the columns to match in: covariates=COLUMN,COLUMN.",
        )  # fmt: skip
    return chosen
