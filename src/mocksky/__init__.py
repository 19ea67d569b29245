"""The mock sky: galaxies with a known truth, their cutouts, and the votes that volunteers would give them.

Galaxy number i of a sky follows from the sky's seed and i alone, so a larger survey of the same sky contains the
smaller one. :func:`mocksky.populations.galaxy_at` draws the truth, :func:`mocksky.rendering.cutout_of` the picture,
:func:`mocksky.votes.drawn_votes` the votes. :class:`mocksky.cutouts.SkyCutouts` and
:class:`mocksky.records.SkyRecords` draw many galaxies with several processes and keep them on disk.

The package needs GalSim for the pictures (:mod:`mocksky.profiles` and the modules that import it) and imports nothing
of rarezoo.
"""
