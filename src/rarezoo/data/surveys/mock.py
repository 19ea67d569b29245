"""``data=mock``: a survey whose truth is known, drawn when it is first asked for."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from rarezoo import tables
from rarezoo.data.galaxies import Galaxies, Survey
from rarezoo.data.sky.populations import BLENDS, PLANTED, Pair, galaxy_at, stream
from rarezoo.data.sky.rendering import MockCutouts, Rendering, mock_id
from rarezoo.data.sky.votes import drawn_votes
from rarezoo.data.trees import named_tree
from rarezoo.errors import ConfigError, OutputError
from rarezoo.registry import option, setting

_NAME = "mock"
# The questions of GZ DECaLS DR5 under labels without a campaign's suffix, as DESI's published predictions have them.
_TREE = "desi"
# Below this a galaxy is a dot; above, the cutout is larger than any survey's.
_SMALLEST, _LARGEST = 16, 1024
# Centre and half-width of the patch of sky, degrees: the middle of the Legacy Surveys' southern cap.
_RA, _DEC, _HALF = 20.0, -5.0, 4.0


@option("data", _NAME)
@dataclass
class Mock(Survey):
    """Galaxies with known truth, DECaLS votes, and rare populations that the votes cannot name.

    Galaxy number i depends on the seed and i alone: neither on ``n`` nor on ``workers``.
    """

    n: int = setting(6000, "size of the survey", unit="galaxies")
    side: int = setting(96, "side of a cutout", unit="px")
    seed: int = setting(0, "which sky")
    volunteers: int = setting(40, "volunteers who look at a galaxy, on average")
    rates: dict[str, float] = setting(
        dict.fromkeys(PLANTED, 0.016), "share of galaxies in each planted population (or blend of two); 0 = none"
    )
    cache: str = setting("runs/cache", "folder that keeps rendered cutouts for the next time")
    workers: int = setting(0, "processes that render; 0 = one per core")

    def render(self) -> None:
        """Draw the cutouts that are not there yet, as opening the survey does; a killed rendering goes on.

        Raises:
            ConfigError: settings that make no survey.
            OutputError: the cache cannot be written.
        """
        self._refuse_nonsense()
        self._cutouts(self.n)

    def _opened(self) -> Galaxies:
        self._refuse_nonsense()
        count = min(self.n, self.limit) if self.limit else self.n
        images = self._cutouts(count)
        pairs = [galaxy_at(row, seed=self.seed, rates=self.rates) for row in range(count)]
        tree = named_tree(_TREE)
        votes = [
            drawn_votes(pair.host, tree, stream(self.seed, row, "votes"), volunteers=self.volunteers)
            for row, pair in enumerate(pairs)
        ]
        return Galaxies(
            catalogue=_catalogue(self, count), images=images, tree=tree, votes=np.stack(votes), truth=_truth(pairs)
        )

    def _cutouts(self, count: int) -> MockCutouts:
        cache = Path(self.cache).absolute()
        rendering = Rendering.under(cache, galaxies=count, side=self.side, seed=self.seed, rates=self.rates)
        try:
            return rendering.complete(workers=self.workers)
        except OutputError as problem:
            fix = "Choose another data.cache=DIR or make room there."
            raise OutputError(problem.what, value=problem.value, fix=fix) from problem

    def _refuse_nonsense(self) -> None:
        unknown = sorted({*self.rates} - {*PLANTED, *BLENDS})
        if unknown:
            fix = f"Choose among {', '.join(PLANTED)}, or the blends {', '.join(BLENDS)}."
            raise ConfigError("unknown planted population", value=unknown, fix=fix)
        if any(rate < 0 for rate in self.rates.values()) or sum(self.rates.values()) > 1:
            raise ConfigError("data.rates must be shares that add up to 1 at most", value=self.rates, fix="Lower them.")
        if self.n < 1 or self.volunteers < 1 or self.workers < 0 or self.seed < 0:
            raise ConfigError(
                "data.n and data.volunteers must be 1 or more, data.workers and data.seed not negative",
                value=f"n={self.n} volunteers={self.volunteers} workers={self.workers} seed={self.seed}",
                fix="Give whole numbers in that range.",
            )
        if not _SMALLEST <= self.side <= _LARGEST:
            raise ConfigError("data.side is out of range", value=self.side, fix=f"{_SMALLEST}–{_LARGEST} pixels.")


def _catalogue(survey: Mock, count: int) -> pa.Table:
    position = np.array([_position(survey.seed, row) for row in range(count)])
    ids = [mock_id(row) for row in range(count)]
    return pa.table(
        {
            tables.ID: ids,
            tables.RA: position[:, 0],
            tables.DEC: position[:, 1],
            # The image's name says which sky: surveys of two seeds hold different galaxies under the same ids.
            tables.IMAGE: [f"{survey.seed}/{survey.side}/{one}" for one in ids],
            tables.SURVEY: pa.array([_NAME] * count),
            tables.SPLIT: pa.nulls(count, pa.string()),
        }
    )


def _position(seed: int, row: int) -> Float64[np.ndarray, "2"]:
    """Right ascension and declination, degrees, uniform over the patch of sky."""
    across, height = stream(seed, row, "position").uniform(-1, 1, 2)
    low, high = np.sin(np.radians([_DEC - _HALF, _DEC + _HALF]))
    return np.array([_RA + _HALF * across, np.degrees(np.arcsin((low + high) / 2 + (high - low) / 2 * height))])


def _truth(pairs: list[Pair]) -> pa.Table:
    """Population and hidden parameters of what each cutout shows."""
    rows = [{tables.ID: mock_id(row), **asdict(pair.shown)} for row, pair in enumerate(pairs)]
    return tables.check(pa.Table.from_pylist(rows), tables.TRUTH, source="mock truth")
