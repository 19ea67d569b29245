"""``rarezoo benchmark``: how many planted classes a method finds, and how many of its classes are real."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rarezoo.benchmark.harness import TrialFolder, rank_features, trials_of
from rarezoo.benchmark.methods import read_methods
from rarezoo.benchmark.planted import BULKS, NORMAL
from rarezoo.benchmark.results import write_null_results, write_results
from rarezoo.benchmark.tiers import KnownAnswers, MockGalaxies, Tier, Vectors
from rarezoo.errors import ConfigError
from rarezoo.runs import refuse_seed
from rarezoo.settings import Settings, conf_dir, setting


@dataclass(kw_only=True)
class BenchmarkRun(Settings):
    """Compare methods that search an embedding, on data whose answers are known.

    There are three tiers: ``vectors`` (planted groups of vectors), ``galaxies`` (mock galaxies with planted
    populations) and ``answers`` (an embedding store of your own and a table of known rare objects). Each method is
    tried on each sky in a process that can be stopped; the same command continues where it was stopped.
    """

    prefix: ClassVar[str] = ""

    tier: str = setting(help="kind of data", choices=("vectors", "galaxies", "answers"), positional=True)
    methods: list[str] = setting([], "methods: names of files in conf/method; empty: all that fit")
    seeds: str = setting("100-104", "skies: a range such as 100-104, or a list such as 1,2,7")
    refits: int = setting(1, "number of skies on which each method is run twice more, to measure stability", ge=0)
    limit: float = setting(900.0, "longest time that a method may take on one sky", unit="s", gt=0)
    workers: int = setting(1, "number of methods that run at the same time", ge=1)
    rescore: bool = setting(False, "read the results that are saved, and search nothing")
    galaxies: int = setting(0, "size of a sky; 0: 30,000 vectors or 5,000 mock galaxies", unit="galaxies", ge=0)
    groups: int = setting(Vectors.groups, "vectors: number of planted groups", ge=0)
    smallest: int = setting(Vectors.smallest, "vectors: size of the smallest group", unit="galaxies", ge=1)
    largest: int = setting(Vectors.largest, "vectors: size of the largest group", unit="galaxies", ge=1)
    bulk: str = setting(
        Vectors.bulk,
        "vectors: background; a mixture of broad groups that overlap is harder than one normal distribution",
        choices=BULKS,
    )
    null_skies: int = setting(
        0, "vectors: number of skies without any group, from the first seed on, instead of the skies of seeds=", ge=0
    )
    checkpoint: str = setting(
        "", "galaxies, answers: checkpoint that embeds; empty: a network is trained on each sky of mock galaxies"
    )
    epochs: int = setting(MockGalaxies.epochs, "galaxies: number of epochs of that training", ge=1)
    rarest: int = setting(
        MockGalaxies.rarest, "galaxies: expected size of the rarest population", unit="galaxies", ge=1
    )
    blends: bool = setting(False, "galaxies: also plant blends of two features")
    turns: int = setting(1, "galaxies: orientations over which an embedding is averaged; 1, 2, 4 or 8", ge=1)
    store: str = setting("", "answers: embedding store")
    answers: str = setting(
        "", "answers: CSV file of known rare objects with columns id_str and label; empty: those of Galaxy Zoo 2"
    )
    shuffled: str = setting(
        "", "answers: store of the same galaxies from a network that was trained with train.shuffle_votes=true"
    )
    out: str = setting("runs/benchmark", "folder of the results")

    def check(self) -> None:
        """Refuse settings of one tier that are given for another, and populations that do not fit."""
        if self.null_skies and self.tier != "vectors":
            raise ConfigError(
                "null_skies needs the tier vectors", value=self.tier, fix="Write: rarezoo benchmark vectors."
            )
        if self.bulk != NORMAL and self.tier != "vectors":
            raise ConfigError("bulk needs the tier vectors", value=self.tier, fix="Write: rarezoo benchmark vectors.")
        if self.tier == "answers" and not self.store:
            raise ConfigError("no store", value="store=", fix="Name an embedding store, as python embed.py writes it.")
        if self.tier == "galaxies":
            mock = self._tier()
            assert isinstance(mock, MockGalaxies)
            if sum(mock.rates().values()) > 1:
                raise ConfigError(
                    "planted populations do not fit",
                    value=f"{mock.galaxies} galaxies, {mock.rarest} of the rarest population",
                    fix="Give more galaxies=, or rarest=1.",
                )
        self._seeds()

    def run(self) -> str:
        """Try what has not been tried, write tables and figures into ``out``, and return the tables as text.

        Raises
        ------
        ConfigError
            There is no such method.
        OutputError
            The folder holds results of other settings, or of skies that an older generator drew.
        """
        tier, seeds = self._tier(), self._seeds()
        methods = {
            name: method
            for name, method in read_methods(conf_dir() / "method", self.methods).items()
            if self.methods or method.features in tier.features
        }
        folder = Path(self.out) / ("null_skies" if self.null_skies else self.tier)
        trials = TrialFolder(folder, tier, methods, self.limit)
        refits = 0 if self.null_skies else min(self.refits, len(seeds))
        if self.rescore:
            trials.refuse_other_skies()
        else:
            trials.run(list(trials_of(list(methods), seeds, refits=refits)), workers=self.workers)
            if len(tier.features) > 1:
                for seed in seeds:
                    rank_features(trials, seed)
        return (write_null_results if self.null_skies else write_results)(trials, seeds, refits=refits)

    def _tier(self) -> Tier:
        size = {"galaxies": self.galaxies} if self.galaxies else {}
        if self.tier == "vectors":
            groups = 0 if self.null_skies else self.groups
            return Vectors(groups=groups, smallest=self.smallest, largest=self.largest, bulk=self.bulk, **size)
        if self.tier == "galaxies":
            return MockGalaxies(
                checkpoint=self.checkpoint,
                epochs=self.epochs,
                rarest=self.rarest,
                blends=self.blends,
                turns=self.turns,
                **size,
            )
        return KnownAnswers(store=self.store, answers=self.answers, checkpoint=self.checkpoint, shuffled=self.shuffled)

    def _seeds(self) -> list[int]:
        """Return the seeds of the skies; those of null skies count from the first one on."""
        seeds = seeds_of(self.seeds)
        if self.null_skies:
            seeds = list(range(seeds[0], seeds[0] + self.null_skies))
            refuse_seed(seeds[-1])
        return seeds


def seeds_of(text: str) -> list[int]:
    """Return the seeds of a text such as ``3``, ``1,2,7`` or ``100-104``.

    Raises
    ------
    ConfigError
        The text has another form, or a seed is out of range.

    Examples
    --------
    >>> seeds_of("100-102"), seeds_of("1,7")
    ([100, 101, 102], [1, 7])
    """
    fix = "Give a range such as 100-104, or a list such as 1,2."
    try:
        first, _, last = text.partition("-")
        seeds = list(range(int(first), int(last) + 1)) if last else [int(seed) for seed in text.split(",")]
    except ValueError as problem:
        raise ConfigError("seeds is not a list of numbers", value=text, fix=fix) from problem
    if not seeds:
        raise ConfigError("seeds holds no seed", value=text, fix=fix)
    if len(set(seeds)) < len(seeds):
        raise ConfigError("seeds names one twice", value=text, fix="Name each once: one sky is not two.")
    for seed in seeds:
        refuse_seed(seed)
    return seeds
