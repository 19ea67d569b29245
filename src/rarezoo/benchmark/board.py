"""``rarezoo benchmark classes``: how many planted classes a search finds, and how many of its classes are real.

``--rescore`` reads what is saved and searches nothing; the same command goes on where it was killed.
"""

import argparse
from pathlib import Path
from typing import Any

from rarezoo.benchmark.contestants import read_contestants
from rarezoo.benchmark.runs import Board, jobs_of, rank_features
from rarezoo.benchmark.standings import write_standings, write_structureless
from rarezoo.benchmark.tiers import TIERS, KnownAnswers, MockGalaxies, Tier, Vectors
from rarezoo.errors import ConfigError
from rarezoo.runs import refuse_seed


def add_classes_benchmark(kinds: Any, *, conf: Path) -> None:
    """``rarezoo benchmark classes`` for the command line.

    Args:
        kinds: of benchmarks.
        conf: folder of presets, with a folder ``contestant``.
    """
    parser = kinds.add_parser("classes", help="which planted classes a search finds, and how many of its own are real")
    parser.add_argument("tier", choices=TIERS, help="planted vectors, mock galaxies, or real ones with known answers")
    parser.add_argument(
        "--contestants", default="", metavar="A,B", help="names in conf/contestant; empty: all that fit"
    )
    parser.add_argument("--seeds", default="100-104", help="skies: a range or a list")
    parser.add_argument("--refits", type=int, default=1, help="skies that are searched twice again, for stability")
    parser.add_argument("--limit", type=float, default=900, help="seconds that a contestant may take on one sky")
    parser.add_argument("--workers", type=int, default=1, help="contestants that run at once")
    parser.add_argument("--rescore", action="store_true", help="read what is saved, and search nothing")
    parser.add_argument("--out", default="runs/benchmark_classes", help="folder of the results")
    parser.add_argument("--galaxies", type=int, default=0, help="of a sky; 0: 30,000 vectors or 5,000 mock galaxies")
    vectors = parser.add_argument_group("vectors")
    vectors.add_argument("--groups", type=int, default=Vectors.groups, help="planted groups")
    vectors.add_argument("--smallest", type=int, default=Vectors.smallest, help="galaxies in the smallest group")
    vectors.add_argument("--largest", type=int, default=Vectors.largest, help="galaxies in the largest")
    vectors.add_argument(
        "--structureless", type=int, default=0, metavar="N", help="instead: N skies with no group, seeds from the first"
    )
    galaxies = parser.add_argument_group("galaxies and answers")
    galaxies.add_argument(
        "--checkpoint", default="", help="network to see with; galaxies: trained on each sky if empty"
    )
    galaxies.add_argument("--epochs", type=int, default=MockGalaxies.epochs, help="of that training")
    galaxies.add_argument("--rarest", type=int, default=MockGalaxies.rarest, help="expected of the rarest population")
    galaxies.add_argument("--blends", action="store_true", help="galaxies: plant blends of two features, too")
    galaxies.add_argument("--store", default="", help="answers: embedding store")
    galaxies.add_argument(
        "--answers", default="", metavar="CSV", help="known rare objects: id_str, label; empty: GZ2's"
    )
    galaxies.add_argument(
        "--shuffled",
        default="",
        metavar="DIR",
        help="answers: store of the same galaxies by a network whose votes were shuffled",
    )
    parser.set_defaults(run=lambda options: _benchmark_classes(options, conf=conf))


def _benchmark_classes(options: argparse.Namespace, *, conf: Path) -> None:
    for name, least in (("workers", 1), ("refits", 0), ("structureless", 0), ("galaxies", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name}", value=getattr(options, name), fix=f"Give {least} or more.")
    tier, seeds = _tier(options), _seeds(options.seeds)
    if options.structureless:
        seeds = list(range(seeds[0], seeds[0] + options.structureless))
    wanted = [name for name in options.contestants.split(",") if name]
    contestants = {
        name: one
        for name, one in read_contestants(conf / "contestant", wanted).items()
        if wanted or one.features in tier.features
    }
    folder = Path(options.out) / ("structureless" if options.structureless else options.tier)
    board = Board(folder, tier, contestants, options.limit)
    refits = 0 if options.structureless else min(options.refits, len(seeds))
    if options.rescore:
        board.refuse_other_skies()
    else:
        board.run(list(jobs_of(list(contestants), seeds, refits=refits)), workers=options.workers)
        if len(tier.features) > 1:
            for seed in seeds:
                rank_features(board, seed)
    print((write_structureless if options.structureless else write_standings)(board, seeds, refits=refits))


def _tier(options: argparse.Namespace) -> Tier:
    sized = {"galaxies": options.galaxies} if options.galaxies else {}
    if options.structureless and options.tier != "vectors":
        raise ConfigError("--structureless goes with planted vectors", value=options.tier, fix="Choose vectors.")
    if options.tier == "vectors":
        groups = 0 if options.structureless else options.groups
        return Vectors(groups=groups, smallest=options.smallest, largest=options.largest, **sized)
    if options.tier == "galaxies":
        mock = MockGalaxies(
            checkpoint=options.checkpoint, epochs=options.epochs, rarest=options.rarest, blends=options.blends, **sized
        )
        if mock.rarest < 1 or sum(mock.rates().values()) > 1:
            given = f"{mock.galaxies} galaxies, {mock.rarest} of the rarest population"
            raise ConfigError("planted populations do not fit", value=given, fix="Give more --galaxies, or --rarest 1.")
        return mock
    if not options.store:
        raise ConfigError("no store", value="--store", fix="Name an embedding store, as python embed.py writes it.")
    return KnownAnswers(
        store=options.store, answers=options.answers, checkpoint=options.checkpoint, shuffled=options.shuffled
    )


def _seeds(text: str) -> list[int]:
    """``3``, ``1,2,7`` or ``100-104``."""
    try:
        first, _, last = text.partition("-")
        seeds = list(range(int(first), int(last) + 1)) if last else [int(one) for one in text.split(",")]
    except ValueError as problem:
        raise ConfigError(
            "--seeds", value=text, fix="Give a range such as 100-104, or a list such as 1,2."
        ) from problem
    if not seeds:
        raise ConfigError("--seeds holds no seed", value=text, fix="Give a range such as 100-104.")
    for seed in seeds:
        refuse_seed(seed)
    return seeds
