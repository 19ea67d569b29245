"""Physical properties of the mock sky's galaxies: each depends on the stellar mass, and some on the planted population.

At a given mass, galaxies of all types have the same properties, apart from scatter and from the offsets of
:data:`OFFSETS`. So a comparison with galaxies of equal mass must find these offsets and nothing else. Populations that
are only of another mass, such as ``low_mass_barred_clumpy``, differ much from other galaxies and not at all from
galaxies of their mass. Relations and offsets are made up; only their sizes are those of real galaxies.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from scipy.special import ndtr

from mocksky.populations import ELLIPTICAL, LENTICULAR, SPIRAL

# Mean and scatter of log10 of the stellar mass in solar masses by type.
_MASSES = {ELLIPTICAL: (10.75, 0.40), LENTICULAR: (10.55, 0.40), SPIRAL: (10.15, 0.50)}
_LOW_MASS = {"low_mass_barred_clumpy": (9.55, 0.25), "clumpy_with_trail": (9.55, 0.25)}
# Value at 10^10.3 solar masses, change per dex of mass, and scatter.
_RELATIONS = {
    "u_r_colour": (2.10, 0.45, 0.22),
    "log_sfr": (0.05, 0.55, 0.30),
    "metallicity": (8.95, 0.30, 0.08),
    "log_gas_fraction": (-0.65, -0.55, 0.25),
}
_PIVOT = 10.3
# What planted populations add to a property at a given mass.
OFFSETS: Mapping[str, Mapping[str, float]] = {
    "off_centre_ring": {"u_r_colour": -0.30, "log_sfr": 0.45},
    "one_armed": {"log_gas_fraction": 0.25},
    "merging_pair": {"log_sfr": 0.35, "metallicity": -0.08},
    "shells": {"log_gas_fraction": -0.30},
}
UNITS = {
    "magnitude": "mag", "radius": "arcsec", "seeing": "arcsec", "redshift": "", "log_stellar_mass": "dex(solMass)",
    "u_r_colour": "mag", "log_sfr": "dex(solMass / yr)", "metallicity": "dex", "log_gas_fraction": "dex",
    "is_active": "",
}  # fmt: skip
# Speed of light over the Hubble constant in Mpc, and the share of active nuclei at the pivot and its change per dex.
_HUBBLE_LENGTH, _ACTIVE, _ACTIVE_SLOPE = 299_792.458 / 70.0, 0.08, 0.06
# Random numbers of purpose 0 to 3 are those of populations.stream.
_PURPOSE = 4


def properties(truth: pa.Table, *, seed: int) -> pa.Table:
    """Return what a catalogue would say about the galaxies of a mock sky.

    Parameters
    ----------
    truth
        Truth of n galaxies, see :attr:`mocksky.records.DrawnRecords.truth`; row i is the galaxy of number i.
    seed
        Seed of the sky.

    Returns
    -------
    pyarrow.Table
        ``id_str`` and the columns of :data:`UNITS`; a unit is in the metadata of its column, key ``unit``.

    Examples
    --------
    >>> truth = {"id_str": ["a"], "population": ["ordinary"], "kind": ["spiral"], "magnitude": [17.0]}
    >>> table = properties(pa.table({**truth, "radius": [4.0], "seeing": [1.2]}), seed=0)
    >>> table.column_names[:5]
    ['id_str', 'magnitude', 'radius', 'seeing', 'redshift']
    """
    count = truth.num_rows
    populations, kinds = truth["population"].to_pylist(), truth["kind"].to_pylist()
    # Eight numbers for each galaxy, whether they are used or not, so that a further property moves none of the others.
    random = np.array([np.random.default_rng((seed, row, _PURPOSE)).normal(size=8) for row in range(count)])
    means, scatters = np.array(
        [_LOW_MASS.get(population, _MASSES[kind]) for population, kind in zip(populations, kinds, strict=True)]
    ).reshape(count, 2).T  # fmt: skip
    mass = means + scatters * random[:, 0]
    magnitude = truth["magnitude"].to_numpy()
    absolute = -20.9 - 2.2 * (mass - _PIVOT) + 0.25 * random[:, 1]
    distance = 10 ** ((magnitude - absolute - 25) / 5)
    columns = {
        "magnitude": magnitude, "radius": truth["radius"].to_numpy(), "seeing": truth["seeing"].to_numpy(),
        "redshift": distance / _HUBBLE_LENGTH, "log_stellar_mass": mass,
    }  # fmt: skip
    for place, (name, (value, slope, scatter)) in enumerate(_RELATIONS.items(), start=2):
        offsets = np.array([OFFSETS.get(population, {}).get(name, 0.0) for population in populations])
        columns[name] = value + slope * (mass - _PIVOT) + scatter * random[:, place] + offsets
    share = np.clip(_ACTIVE + _ACTIVE_SLOPE * (mass - _PIVOT), 0.01, 0.5)
    columns["is_active"] = ndtr(random[:, 6]) < share
    fields = [pa.field("id_str", pa.string())]
    for name, values in columns.items():
        unit = {b"unit": UNITS[name].encode()} if UNITS[name] else None
        fields.append(pa.field(name, pa.bool_() if values.dtype == bool else pa.float64(), metadata=unit))
    return pa.table([truth["id_str"], *columns.values()], schema=pa.schema(fields))
