"""``data=mock``: a survey whose truth is known, drawn when it is opened for the first time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from mocksky.blocks import CacheError, DamagedBlockError
from mocksky.populations import BLENDS, PLANTED
from mocksky.properties import OFFSETS, properties
from mocksky.records import DrawnRecords, SkyRecords, mock_id
from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.reading import UNIT
from rarezoo.data.survey import Galaxies, Survey, catalogue_table
from rarezoo.data.trees import named_tree
from rarezoo.errors import ConfigError, DataError, MissingDependency, OutputError
from rarezoo.settings import option, setting

if TYPE_CHECKING:
    from mocksky.cutouts import SkyCutouts

T = TypeVar("T")

_NAME = "mock"
# Columns of Mock.properties that depend on mass and population.
PLANTED_PROPERTIES = ("u_r_colour", "log_sfr", "metallicity", "log_gas_fraction", "is_active")
# The questions of GZ DECaLS DR5 under labels without the suffix of a campaign, as in DESI's published predictions.
_TREE = "desi"
_DELETE = "Delete it; the next run draws it again."


@option("data", _NAME)
@dataclass(kw_only=True)
class Mock(Survey):
    """Galaxies with known truth, DECaLS votes, and rare populations that the votes cannot name.

    Galaxy number i depends on the seed and i alone: neither on ``n`` nor on ``workers``. The pictures need GalSim:
    ``pip install "rarezoo[mock]"``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     galaxies = Mock(n=2, side=16, cache=folder, workers=1).open()
    ...     galaxies, galaxies.images.cutout(0).shape
    (Galaxies(2 galaxies, votes of tree desi, truth), (16, 16, 3))
    """

    path_settings = ("cache",)

    n: int = setting(6000, "size of the survey", unit="galaxies", ge=1)
    # Smaller galaxies would be dots; larger cutouts than 1024 pixels exist in no survey.
    side: int = setting(96, "side of a cutout", unit="px", ge=16, le=1024)
    seed: int = setting(0, "seed of the sky", ge=0)
    volunteers: int = setting(40, "number of volunteers who look at a galaxy, on average", ge=1)
    rates: dict[str, float] = setting(
        dict.fromkeys(PLANTED, 0.016), "share of galaxies in each planted population or blend of two; 0 = none"
    )
    cache: str = setting("runs/cache", "folder that keeps what was drawn for the next time")
    workers: int = setting(0, "number of processes that draw; 0 = one per core", ge=0)

    def check(self) -> None:
        """Raise ConfigError for rates that make no sky."""
        super().check()
        unknown = sorted({*self.rates} - {*PLANTED, *BLENDS})
        if unknown:
            fix = f"Choose among {', '.join(PLANTED)}, or the blends {', '.join(BLENDS)}."
            raise ConfigError("unknown planted population in data.rates", value=unknown, fix=fix)
        if any(rate < 0 for rate in self.rates.values()) or sum(self.rates.values()) > 1:
            raise ConfigError(
                "data.rates must be shares that add up to 1 at most", value=self.rates, fix="Choose smaller shares."
            )

    def render(self) -> None:
        """Draw what is missing in the cache, as opening the survey does; a killed drawing continues.

        Raises
        ------
        OutputError
            The cache cannot be written.
        """
        self._draw(self.n)

    def properties(self) -> pa.Table:
        """Return what another catalogue says about the galaxies: redshift, mass, colour and others, with units.

        They are no columns of the survey's own catalogue, so that a search joins them as it joins any catalogue. What
        planted populations add to them at a given mass is :func:`planted_offset`.

        Returns
        -------
        pyarrow.Table
            ``id_str``, ``ra``, ``dec`` with an error of 0.1 arcsec, and the columns of
            :func:`mocksky.properties.properties`.
        """
        records = _translated(self._records(self.n), fix="Choose another data.cache=DIR or make room there.")
        table = properties(records.truth, seed=self.seed)
        for place, name in enumerate((tables.RA, tables.DEC), start=1):
            error = np.random.default_rng((self.seed, place)).normal(scale=0.1 / 3600, size=self.n)
            positions = pa.array(records.table.column(name).to_numpy() + error)
            table = table.add_column(place, pa.field(name, pa.float64(), metadata={UNIT: b"deg"}), positions)
        return table

    def _read(self) -> Galaxies:
        cutouts, records = self._draw(min(self.n, self.limit) if self.limit else self.n)
        ids = records.table.column("id_str").to_pylist()
        return Galaxies(
            catalogue=catalogue_table(
                ids,
                # The name of an image contains the seed: surveys of two seeds hold different galaxies of the same id.
                [f"{self.seed}/{self.side}/{name}" for name in ids],
                survey=_NAME, source="mock sky", ra=records.table.column("ra"), dec=records.table.column("dec"),
            ),
            images=MockImages(cutouts),
            tree=named_tree(_TREE),
            votes=records.votes,
            truth=tables.check(records.truth, tables.TRUTH, source="truth of the mock sky"),
        )  # fmt: skip

    def _draw(self, galaxies: int) -> tuple["SkyCutouts", DrawnRecords]:
        folder = Path(self.cache).absolute()

        def draw() -> tuple["SkyCutouts", DrawnRecords]:
            from mocksky.cutouts import SkyCutouts

            cutouts = SkyCutouts(folder, galaxies=galaxies, side=self.side, seed=self.seed, rates=self.rates)
            return cutouts.complete(workers=self.workers), self._records(galaxies)()

        return _translated(draw, fix="Choose another data.cache=DIR or make room there.")

    def _records(self, galaxies: int) -> Callable[[], DrawnRecords]:
        """Return a function that draws what is missing of positions, truth and votes, and returns all of it."""
        records = SkyRecords(
            Path(self.cache).absolute(), galaxies=galaxies, seed=self.seed, rates=self.rates,
            volunteers=self.volunteers, tree=named_tree(_TREE),
        )  # fmt: skip
        return lambda: records.complete(workers=self.workers)


def planted_offset(population: str, column: str) -> float | None:
    """Return what a population of the mock sky adds to a property at a given mass; None if it is no such property.

    >>> planted_offset("off_centre_ring", "u_r_colour"), planted_offset("ordinary", "u_r_colour")
    (-0.3, 0.0)
    """
    if column not in PLANTED_PROPERTIES:
        return None
    return float(OFFSETS.get(population, {}).get(column, 0.0))


def write_mock_sheet(path: Path | str, *, seed: int = 0) -> Path:
    """Write a contact sheet of the mock sky as WebP, a row per population; return its path.

    Raises
    ------
    OutputError
        The folder cannot be written.
    MissingDependency
        GalSim is not installed.
    """

    def write() -> Path:
        from mocksky.sheet import write_contact_sheet

        return write_contact_sheet(path, seed=seed)

    return _translated(write, fix="Choose another folder or make room there.")


def _translated(draw: Callable[[], T], *, fix: str) -> T:
    """Return what ``draw`` returns; errors of the mock sky become errors of rarezoo."""
    try:
        return draw()
    except CacheError as problem:
        raise OutputError(f"cannot write ({problem.strerror})", value=problem.filename, fix=fix) from problem
    except DamagedBlockError as problem:
        raise DataError("unreadable records of the mock sky", value=problem.path, fix=_DELETE) from problem
    except ModuleNotFoundError as problem:
        if (problem.name or "").split(".")[0] != "galsim":
            raise
        raise MissingDependency("galsim", extra="mock", purpose="The mock sky") from problem


class MockImages(ImageSource):
    """Cutouts of a mock survey, read from its cache when they are needed."""

    def __init__(self, cutouts: "SkyCutouts") -> None:
        self.cutouts = cutouts

    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one galaxy.

        Raises
        ------
        DataError
            Its block has been deleted or damaged since it was drawn.
        """
        try:
            return self.cutouts.cutout(row)
        except DamagedBlockError as problem:
            raise DataError(
                "unreadable block of mock cutouts", value=problem.path, fix=_DELETE, ids=[mock_id(row)]
            ) from problem

    def stamp(self, row: int) -> str:
        """Return what the pixels follow from: the code that draws, the settings of the sky, and the row."""
        return f"{self.cutouts.folder.name} {row}"

    def content(self, row: int) -> bytes:
        """Return the same as :meth:`stamp`."""
        return self.stamp(row).encode()
