"""``data=mock``: a survey whose truth is known, drawn when it is first asked for."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mocksky.populations import BLENDS, PLANTED
from mocksky.records import Drawn, Records
from mocksky.rendering import MockCutouts, Rendering
from rarezoo import tables
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import named_tree
from rarezoo.errors import ConfigError, OutputError
from rarezoo.settings import option, setting

_NAME = "mock"
# The questions of GZ DECaLS DR5 under labels without a campaign's suffix, as DESI's published predictions have them.
_TREE = "desi"
# Below this a galaxy is a dot; above, the cutout is larger than any survey's.
_SMALLEST, _LARGEST = 16, 1024


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
    cache: str = setting("runs/cache", "folder that keeps what was drawn for the next time")
    workers: int = setting(0, "processes that render; 0 = one per core")

    def render(self) -> None:
        """Draw what is not there yet, as opening the survey does; what was killed goes on.

        Raises:
            ConfigError: settings that make no survey.
            OutputError: the cache cannot be written.
        """
        self._refuse_nonsense()
        self._drawn(self.n)

    def _read(self) -> Galaxies:
        self._refuse_nonsense()
        images, known = self._drawn(min(self.n, self.limit) if self.limit else self.n)
        return Galaxies(
            catalogue=_catalogue(self, known.table),
            images=images,
            tree=named_tree(_TREE),
            votes=known.votes,
            truth=known.truth,
        )

    def _drawn(self, count: int) -> tuple[MockCutouts, Drawn]:
        cache, seed, rates = Path(self.cache).absolute(), self.seed, self.rates
        rendering = Rendering.under(cache, galaxies=count, side=self.side, seed=seed, rates=rates)
        records = Records.under(
            cache, galaxies=count, seed=seed, rates=rates, volunteers=self.volunteers, tree=named_tree(_TREE)
        )
        try:
            return rendering.complete(workers=self.workers), records.complete(workers=self.workers)
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


def _catalogue(survey: Mock, known: pa.Table) -> pa.Table:
    ids, count = known.column(tables.ID), known.num_rows
    return pa.table(
        {
            tables.ID: ids,
            tables.RA: known.column(tables.RA),
            tables.DEC: known.column(tables.DEC),
            # The image's name says which sky: surveys of two seeds hold different galaxies under the same ids.
            tables.IMAGE: [f"{survey.seed}/{survey.side}/{one}" for one in ids.to_pylist()],
            tables.SURVEY: pa.array([_NAME] * count),
            tables.SPLIT: pa.nulls(count, pa.string()),
        }
    )
