"""Where the parts of long work run: in this process, on a Dask cluster, or as jobs of SLURM. One file per choice."""

from rarezoo.engines.engine import Engine, Part, PartsFailed

__all__ = ["Engine", "Part", "PartsFailed"]
