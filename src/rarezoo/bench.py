"""``rarezoo bench``: throughput, always as a ratio against the plain way in the same run."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rarezoo.data import duplicates
from rarezoo.data.galaxies import Galaxies
from rarezoo.data.loaders import CutoutLoader, EpochOrder
from rarezoo.data.sky.sheet import mock_throughput
from rarezoo.data.surveys.gz2 import FOLDER_VARIABLE, Gz2
from rarezoo.data.surveys.mock import Mock
from rarezoo.embed import embedded
from rarezoo.explore.clusterers.hdbscan import Hdbscan
from rarezoo.train.loss import vote_loss
from rarezoo.zoo.cards import open_checkpoint, save_checkpoint
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import BottleneckNetwork, build_network
from rarezoo.zoo.views import training_view

_INPUT_SIZE = 64
_BATCH = 64
_STEPS = 12
_ROUNDS = 3


@dataclass(frozen=True)
class Comparison:
    """One measurement: our rate, the plain way's, medians of interleaved rounds."""

    name: str
    unit: str
    ours: float
    plain: float
    plain_name: str

    @property
    def ratio(self) -> float:
        """Our rate over the plain way's."""
        return self.ours / self.plain


def compared(
    name: str, ours: Callable[[], float], plain: Callable[[], float], *, unit: str, plain_name: str
) -> Comparison:
    """Rates of two ways, measured in turn so that a drifting machine drifts for both."""
    rounds = [(ours(), plain()) for _ in range(_ROUNDS)]
    rates = np.median(rounds, axis=0)
    return Comparison(name, unit, float(rates[0]), float(rates[1]), plain_name)


def comparisons(*, workers: int) -> Iterator[Comparison]:
    """Every comparison, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        galaxies = Mock(n=_BATCH * _STEPS, cache=folder).galaxies()
        encoder = EfficientNetB0(input_size=_INPUT_SIZE)
        yield _training(galaxies, encoder, workers=workers)
        yield _embedding(galaxies, encoder, Path(folder), workers=workers)
    yield _relabelling()


def _training(galaxies: Galaxies, encoder: Encoder, *, workers: int) -> Comparison:
    network = build_network(encoder, galaxies.tree)  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(network.parameters())
    rows = np.arange(len(galaxies))

    def step(images: Tensor, votes: Tensor) -> int:
        optimiser.zero_grad()
        vote_loss(network(images).concentrations, votes, galaxies.tree).backward()  # type: ignore[arg-type]
        optimiser.step()
        return len(images)

    def ours() -> float:
        view, order = training_view(_INPUT_SIZE), EpochOrder(len(rows), seed=0)
        loader = CutoutLoader(galaxies, rows, view=view, batch_size=_BATCH, workers=workers, order=order)
        return _rate(lambda: [step(batch.images, batch.votes) for batch in loader], len(rows))

    def plain() -> float:
        images, votes = torch.rand(_BATCH, 3, _INPUT_SIZE, _INPUT_SIZE), torch.from_numpy(galaxies.votes[:_BATCH])  # type: ignore[index]
        return _rate(lambda: [step(images, votes) for _ in range(_STEPS)], _BATCH * _STEPS)

    network.train()
    step(torch.rand(_BATCH, 3, _INPUT_SIZE, _INPUT_SIZE), torch.from_numpy(galaxies.votes[:_BATCH]))  # type: ignore[index]
    return compared("training", ours, plain, unit="images/s", plain_name="the same steps on one batch in memory")


def _embedding(galaxies: Galaxies, encoder: Encoder, folder: Path, *, workers: int) -> Comparison:
    network: BottleneckNetwork = build_network(encoder, galaxies.tree).eval()  # type: ignore[arg-type]
    save_checkpoint(folder / "net", network=network, encoder=encoder, tree=galaxies.tree, card={})  # type: ignore[arg-type]
    checkpoint = open_checkpoint(folder / "net")
    rows = np.arange(len(galaxies))

    def ours() -> float:
        loader = CutoutLoader(galaxies, rows, view=checkpoint.view, batch_size=_BATCH, workers=workers)
        return _rate(lambda: list(embedded(loader, checkpoint, precision="float32")), len(rows))

    def plain() -> float:
        images = torch.rand(_BATCH, 3, _INPUT_SIZE, _INPUT_SIZE)
        with torch.inference_mode():
            return _rate(lambda: [network(images) for _ in range(_STEPS)], _BATCH * _STEPS)

    return compared("embedding", ours, plain, unit="images/s", plain_name="bare forward on one batch in memory")


def _relabelling() -> Comparison:
    import hdbscan

    positions = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    clusterer = Hdbscan(min_samples=50, min_cluster_size=20)
    linkage = clusterer.linkage(positions)

    def ours() -> float:
        return _rate(lambda: clusterer.classes(linkage), 1)

    def plain() -> float:
        fresh = hdbscan.HDBSCAN(min_samples=50, min_cluster_size=20, cluster_selection_method="leaf")
        return _rate(lambda: fresh.fit(positions), 1)

    return compared(
        "another selection, 20,000 galaxies", ours, plain, unit="per s", plain_name="hdbscan.HDBSCAN fitted afresh"
    )


def _rate(run: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    run()
    return count / (time.perf_counter() - started)


def add_bench_verb(verbs: Any) -> None:
    """``rarezoo bench`` for the command line."""
    parser = verbs.add_parser("bench", help="throughput, as ratios against the plain way")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    parser.set_defaults(run=_bench)
    parser = verbs.add_parser("duplicates", help="how well near-identical images are told apart, on a GZ2 sample")
    parser.add_argument("--folder", default="", help=f"folder of the sample; empty: the variable {FOLDER_VARIABLE}")
    parser.set_defaults(run=_duplicates)


def _bench(options: argparse.Namespace) -> None:
    print(f"{torch.get_num_threads()} threads; medians of {_ROUNDS} interleaved rounds")
    print(f"mock sky at 96 px: {mock_throughput():.0f} galaxies/s on one core")
    for one in comparisons(workers=options.workers):
        print(
            f"{one.name}: {one.ours:.3g} {one.unit}, {one.ratio:.2f} × {one.plain_name} ({one.plain:.3g})", flush=True
        )


def _duplicates(options: argparse.Namespace) -> None:
    galaxies = Gz2(folder=options.folder).galaxies()
    prints = duplicates.fingerprints(galaxies.images, len(galaxies))
    groups = duplicates.near_identical(prints)
    print(f"different galaxies, {len(galaxies)} of them: highest correlation {duplicates.highest_between(prints):.4f}")
    for quality in (80, 50):
        lowest = duplicates.lowest_after_saving_again(galaxies.images, 500, quality=quality)
        print(f"500 pictures saved again at JPEG quality {quality}: lowest correlation {lowest:.4f}")
    print(f"galaxies that share a split with a near-identical one: {len(galaxies) - len(np.unique(groups))}")
