"""A population that looks ordinary: ordinary galaxies of the mock sky that share an offset in colour and mass.

Their images are those of ordinary galaxies of every type, so no search of images can find them. They are too blue for
their mass, and alike in that: their colour and mass scatter half as much as usual. Nothing that the sky draws depends
on them.
"""

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from mocksky.populations import ORDINARY

COLOUR, MASS = "u_r_colour", "log_stellar_mass"
# What is added to colour (mag) and to the logarithm of the mass, and the share of the scatter that remains.
OFFSETS = {COLOUR: -1.0, MASS: 0.6}
_REMAINING = 0.5
# Random numbers of purpose 0 to 4 are those of populations.stream and of properties.
_PURPOSE = 5


def plant_hidden(
    properties: pa.Table, truth: pa.Table, *, seed: int, rate: float = 0.03, strength: float = 1.0
) -> tuple[pa.Table, Bool[np.ndarray, " n"]]:
    """Shift colour and mass of some ordinary galaxies.

    Parameters
    ----------
    properties
        Table of n galaxies with the columns ``u_r_colour`` (mag) and ``log_stellar_mass``.
    truth
        Truth of the same galaxies in the same order.
    seed
        Seed of the sky.
    rate
        Share of the ordinary galaxies that are shifted.
    strength
        What the offsets are multiplied by.

    Returns
    -------
    pyarrow.Table
        The same table with other values of these galaxies.
    (n,) array of bool
        Which galaxies they are.

    Examples
    --------
    >>> before = pa.table({"u_r_colour": np.full(200, 2.0), "log_stellar_mass": np.full(200, 10.0)})
    >>> after, hidden = plant_hidden(before, pa.table({"population": ["ordinary"] * 200}), seed=0, rate=0.1)
    >>> bool(np.allclose(after["u_r_colour"].to_numpy()[hidden], 1.0)), bool(10 < hidden.sum() < 30)
    (True, True)
    """
    ordinary = np.array(truth["population"].to_pylist()) == ORDINARY
    drawn = np.array([np.random.default_rng((seed, row, _PURPOSE)).uniform() for row in range(properties.num_rows)])
    hidden = ordinary & (drawn < rate)
    for name, offset in OFFSETS.items():
        values = properties[name].to_numpy().copy()
        usual = values[ordinary].mean()
        values[hidden] = usual + _REMAINING * (values[hidden] - usual) + strength * offset
        place = properties.column_names.index(name)
        properties = properties.set_column(place, properties.schema.field(name), pa.array(values))
    return properties, hidden
