"""Vectors with columns of a catalogue, and a population that only the columns show, because it shares an offset.

The bulk is that of :mod:`rarezoo.benchmark.planted`. Each column depends on one direction of the embedding, as colour
and mass depend on looks, and has as much scatter besides. The members of the population lie anywhere in the bulk. In
their columns the scatter is smaller, and the offset is added to it.

Shape letters: n galaxies, D embedding width, c columns.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from rarezoo import tables
from rarezoo.benchmark.planted import planted_vectors

COLUMNS = ("colour", "log_mass")


@dataclass(frozen=True)
class Hidden:
    """Embeddings, a catalogue, and the members of a population that only the catalogue shows.

    Attributes
    ----------
    ids
        (n,) ids.
    embeddings
        (n, D) embeddings.
    catalogue
        ``id_str`` and the columns.
    members
        (n,) whether the galaxy belongs to the population.
    """

    ids: np.ndarray
    embeddings: Float32[np.ndarray, "n D"]
    catalogue: pa.Table
    members: Bool[np.ndarray, " n"]

    def shuffled(self, seed: int) -> pa.Table:
        """Return the catalogue with the values of each column in an order of their own, so that nothing is left."""
        random = np.random.default_rng(seed)
        columns = {
            name: random.permutation(self.catalogue[name].to_numpy()) for name in self.catalogue.column_names[1:]
        }
        return pa.table({tables.ID: self.catalogue[tables.ID], **columns})


def hidden_vectors(
    seed: int, *, galaxies: int = 2000, members: int = 60, offset: float = 4.0, scatter: float = 0.5
) -> Hidden:
    """Draw them.

    Parameters
    ----------
    seed
        Seed of everything.
    galaxies
        Number of galaxies n.
    members
        Number of galaxies in the population; 0 plants none.
    offset
        What the population has less of colour and more of mass, in units of the scatter that looks do not explain.
    scatter
        Scatter of the population in these units.

    Examples
    --------
    >>> hidden = hidden_vectors(0, galaxies=300, members=20)
    >>> hidden.embeddings.shape, hidden.catalogue.column_names, int(hidden.members.sum())
    ((300, 128), ['id_str', 'colour', 'log_mass'], 20)
    """
    embeddings = planted_vectors(seed, galaxies=galaxies, groups=0).embeddings
    random = np.random.default_rng([seed, 1])
    inside = np.zeros(galaxies, dtype=bool)
    inside[random.choice(galaxies, members, replace=False)] = True
    ids = np.array([f"g{row:06d}" for row in range(galaxies)], dtype=object)
    columns = {tables.ID: pa.array(ids, pa.string())}
    for name, sign in zip(COLUMNS, (-1, 1), strict=True):
        looks = embeddings @ random.normal(size=embeddings.shape[1])
        left = random.normal(size=galaxies)
        left[inside] = scatter * left[inside] + sign * offset
        columns[name] = pa.array((looks - looks.mean()) / looks.std() + left)
    return Hidden(ids, embeddings, pa.table(columns), inside)
