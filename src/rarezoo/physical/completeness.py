"""What the cuts of a survey hide of a class: up to which redshift its members would still be in the survey.

A galaxy at redshift z with magnitude m is fainter further away. At small redshifts, without the change of its
colour, it reaches the limit m_limit at::

    z_max = z × 10^((m_limit − m) / 5)

The mean of (z / z_max)³, the share of the volume in which it could be seen that lies in front of it, is 0.5 for
galaxies that fill their volume evenly (Schmidt 1968, ApJ 151, 393). More means that the class is lost nearby, less
that it is lost far away. The galaxies of no class are given beside it, because the cuts of a survey act on all.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float64

from rarezoo.physical.controls import FEWEST, Roles
from rarezoo.statistics import bootstrap_interval

# Without a limit, it is the magnitude that all but this share of the galaxies exceed in brightness.
_FAINTEST = 0.995
_NEAR_LIMIT = 0.25
_SHOWN = ("redshift", "mass", "magnitude", "size")


def completeness(
    numbers: Mapping[str, Float64[np.ndarray, " n"]],
    members: Bool[np.ndarray, " n"],
    others: Bool[np.ndarray, " n"],
    *,
    limit: float | None = None,
) -> list[str]:
    """Return what the survey's cuts hide, in sentences.

    Parameters
    ----------
    numbers
        Columns of numbers of the n galaxies.
    members, others
        Which galaxies are in the class, and which in no class.
    limit
        Faint limit of the survey, mag; None: the magnitude of its faintest galaxies.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> numbers = {"z": random.uniform(0.01, 0.1, 60), "mag_r": random.uniform(14, 17.7, 60)}
    >>> completeness(numbers, np.arange(60) < 20, np.arange(60) >= 20)[0]
    'z: 90 % of the members have 0.0114 to 0.0922, of the galaxies of no class 0.0152 to 0.0943.'
    """
    roles = Roles.of(list(numbers))
    said = []
    for role in _SHOWN:
        name = roles.first(role)
        if name is None:
            continue
        own, rest = (numbers[name][rows & np.isfinite(numbers[name])] for rows in (members, others))
        if len(own) >= FEWEST and len(rest) >= FEWEST:
            ends = (*np.quantile(own, (0.05, 0.95)), *np.quantile(rest, (0.05, 0.95)))
            low, high, rest_low, rest_high = (f"{end:.3g}" for end in ends)
            said.append(
                f"{name}: 90 % of the members have {low} to {high}, of the galaxies of no class {rest_low} to "
                f"{rest_high}."
            )
    name, redshift = roles.first("magnitude"), roles.first("redshift")
    if name is None:
        said.append("No magnitude is known, so the limit of the survey cannot be compared with the members.")
        return said
    magnitude = numbers[name]
    known = np.isfinite(magnitude)
    faint = float(np.quantile(magnitude[known], _FAINTEST)) if limit is None else limit
    near = known & (magnitude > faint - _NEAR_LIMIT)
    if (members & known).any() and (others & known).any():
        shares = [float(near[rows & known].mean()) for rows in (members, others)]
        given = "the limit of the survey" if limit is not None else "the faintest galaxies of the survey"
        own_share, rest_share = (f"{100 * share:.0f} %" for share in shares)
        said.append(
            f"{own_share} of the members are within {_NEAR_LIMIT} mag of {given} ({name} {faint:.2f}), and "
            f"{rest_share} of the galaxies of no class."
        )
    if redshift is None:
        said.append("No redshift is known, so it cannot be said how far away the members would still be seen.")
        return said
    z = numbers[redshift]
    seen = known & np.isfinite(z) & (z > 0) & (magnitude <= faint)
    if np.sum(members & seen) < FEWEST or np.sum(others & seen) < FEWEST:
        return said
    farthest = z * 10 ** ((faint - magnitude) / 5)
    shares_of_volume = (z / farthest) ** 3
    reach = np.median(farthest[members & seen])
    own, rest = (bootstrap_interval(shares_of_volume[rows & seen]) for rows in (members, others))
    said.append(
        f"Half of the members would still be in the survey at {redshift} {reach:.3g}; beyond it the class is "
        "incomplete. "
        f"Mean V/Vmax is {own.text('.2f')} for members and {rest.text('.2f')} for galaxies of no class; 0.5 means "
        "that they fill their volume evenly."
    )
    return said
