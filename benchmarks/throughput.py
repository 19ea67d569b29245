"""``python -m benchmarks throughput``: throughput, always as a ratio against the plain way in the same run."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from mocksky.sheet import mock_throughput
from rarezoo.data import duplicates
from rarezoo.data.images import FolderImages
from rarezoo.data.loaders import CutoutLoader, EpochOrder, decoding_processes
from rarezoo.data.survey import Galaxies
from rarezoo.data.surveys.gz2 import FOLDER_VARIABLE, Gz2
from rarezoo.data.surveys.mock import Mock
from rarezoo.data.trees import QuestionTree
from rarezoo.embeddings.embed import embedded
from rarezoo.errors import DataError
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.settings import choice
from rarezoo.training.loss import vote_loss
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.network import BottleneckNetwork, build_network
from rarezoo.zoo.views import TrainingView, inference_view, training_cutout

_BATCH = 32
_STEPS = 12
_ROUNDS = 5
_REPEATS = 4
# The mock sky's cutouts are as wide as the real sample's.
_SIDE = 160


@dataclass(frozen=True)
class Comparison:
    """One measurement: our rate, the plain way's, and their ratio, medians of interleaved rounds."""

    name: str
    unit: str
    ours: float
    plain: float
    plain_name: str
    ratio: float


def compared(
    name: str, ours: Callable[[], float], plain: dict[str, Callable[[], float]], *, unit: str
) -> list[Comparison]:
    """Rates of our way and of plain ones by name, measured in turn, each ratio within its round.

    A machine whose speed drifts then drifts for all of them.
    """
    rounds = np.array([[ours(), *(one() for one in plain.values())] for _ in range(_ROUNDS)])
    rates, ratios = np.median(rounds, axis=0), np.median(rounds[:, :1] / rounds, axis=0)
    return [
        Comparison(name, unit, float(rates[0]), float(rates[number]), plain_name, float(ratios[number]))
        for number, plain_name in enumerate(plain, start=1)
    ]


@dataclass(frozen=True)
class Workload:
    """The same galaxies, network and batches for every way of training and embedding.

    Attributes
    ----------
        galaxies: mock galaxies, as JPEG files in a folder.
        table: their file names and votes, by column.
        encoder: the network's settings.
        workers: processes that decode.
        device: where the network runs.
    """

    galaxies: Galaxies
    table: pd.DataFrame
    encoder: Encoder
    workers: int
    device: torch.device

    @property
    def tree(self) -> QuestionTree:
        """The votes' question tree."""
        if self.galaxies.tree is None:
            raise DataError("the mock survey has no votes", value="tree", fix="Report this.")
        return self.galaxies.tree

    @property
    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU, float32 on a processor, for ours and the plain way alike."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def network(self) -> BottleneckNetwork:
        """A network with random weights, its memory laid out channels last."""
        torch.manual_seed(0)
        return build_network(self.encoder, self.tree).to(self.device).to(memory_format=torch.channels_last)

    def images(self, side: int) -> Tensor:
        """One batch in memory: galaxies, since noise may cost more or less than they do."""
        view = inference_view(side)
        cutouts = [torch.from_numpy(np.array(self.galaxies.images.cutout(row))) for row in range(_BATCH)]
        seen = torch.stack([view(one.permute(2, 0, 1)) for one in cutouts]).to(self.device)
        return (seen.float() / 255).contiguous(memory_format=torch.channels_last)

    def settle(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def comparisons(*, model: str, input_size: int, workers: int) -> Iterator[Comparison]:
    """Every comparison, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        work = _workload(Path(folder), model=model, input_size=input_size, workers=workers)
        yield from _training(work)
        yield from _embedding(work, Path(folder))
    yield from _relabelling()


def _workload(folder: Path, *, model: str, input_size: int, workers: int) -> Workload:
    sky = Mock(n=_BATCH * _STEPS, side=_SIDE, cache=str(folder / "sky")).open()
    names = [str(folder / f"{row}.jpg") for row in range(len(sky))]
    for row, name in enumerate(names):
        Image.fromarray(sky.images.cutout(row)).save(name, quality=85)
    galaxies = replace(sky, images=FolderImages(folder, names, list(map(str, sky.ids))))
    votes = pd.DataFrame(galaxies.votes, columns=list(galaxies.tree.answers))  # type: ignore[union-attr]
    table = votes.assign(file_loc=names, id_str=[str(one) for one in sky.ids])
    encoder = choice("model", model)(input_size=input_size)
    return Workload(galaxies, table, encoder, workers, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _training(work: Workload) -> list[Comparison]:
    """Training against the bare steps, and against zoobot where its own training can be imported."""
    network = work.network().train()
    optimiser = torch.optim.AdamW(network.parameters())
    rows, size = np.arange(len(work.galaxies)), work.encoder.input_size
    seen, order = TrainingView(size), EpochOrder(len(rows), seed=0)

    def step(images: Tensor, votes: Tensor) -> None:
        optimiser.zero_grad()
        with work.autocast:
            said = network(images.contiguous(memory_format=torch.channels_last))
        vote_loss(said.concentrations, votes.to(work.device), work.tree).backward()
        optimiser.step()

    def epoch(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        for images, votes in batches:
            step(images, votes)

    def ours() -> float:
        loader = CutoutLoader(
            work.galaxies, rows, view=training_cutout(size), batch_size=_BATCH, workers=work.workers, order=order
        )
        return _rate(lambda: epoch((seen(one.images.to(work.device)), one.votes) for one in loader), work, len(rows))

    def plain() -> float:
        images, votes = work.images(size), torch.from_numpy(work.galaxies.votes[:_BATCH])  # type: ignore[index]
        return _rate(lambda: epoch([(images, votes)] * _STEPS), work, _BATCH * _STEPS)

    ways = {"the same steps on one batch in memory": plain}
    theirs = _zoobot_training(work)
    if theirs is not None:
        ways["zoobot's data module and training step"] = theirs
    for warmed in (plain, ours):
        warmed()
    return compared("training", ours, ways, unit="images/s")


def _zoobot_training(work: Workload) -> Callable[[], float] | None:
    """Images/s of zoobot's FinetuneableZoobotTree on its own data module; None where ``lightning`` is not installed."""
    try:
        from galaxy_datasets.pytorch.galaxy_datamodule import CatalogDataModule
        from galaxy_datasets.transforms import default_view_config, get_galaxy_transform
        from zoobot.pytorch.training.finetune import FinetuneableZoobotTree
    except ImportError:
        return None
    size = work.encoder.input_size
    view = default_view_config()
    view.output_size = size
    catalogues = {f"{split}_catalog": work.table for split in ("train", "val")}
    data = CatalogDataModule(
        label_cols=list(work.tree.answers), batch_size=_BATCH, num_workers=work.workers,
        train_transform=get_galaxy_transform(view), **catalogues,
    )  # fmt: skip
    data.setup("fit")
    learner = (
        FinetuneableZoobotTree(schema=_zoobot_schema(work.tree), encoder=work.encoder.trunk(), head_dropout_prob=0.0)
        .to(work.device)
        .to(memory_format=torch.channels_last)
    )
    optimiser = learner.configure_optimizers()

    def step(batch: Any) -> None:
        batch = {key: one.to(work.device) if isinstance(one, Tensor) else one for key, one in batch.items()}
        optimiser.zero_grad()
        with work.autocast:
            loss = learner.training_step(batch, 0)["loss"]
        loss.backward()
        optimiser.step()

    def epoch() -> None:
        for batch in data.train_dataloader():
            step(batch)

    return lambda: _rate(epoch, work, len(work.table))


def _zoobot_schema(tree: QuestionTree) -> Any:
    """The tree as zoobot has it."""
    from zoobot.shared.schemas import Schema

    pairs = {one.name: [answer.removeprefix(one.name) for answer in one.answers] for one in tree.questions}
    return Schema(pairs, {one.name: one.asked_after for one in tree.questions})


def _embedding(work: Workload, folder: Path) -> list[Comparison]:
    network = _normalised(work.network(), work.images(work.encoder.input_size))
    Checkpoint.save(folder / "net", network=network, encoder=work.encoder, tree=work.tree, card={})
    checkpoint = Checkpoint.open(folder / "net")
    # Embedding is quick: the galaxies are read several times over, so that start-up does not decide.
    rows = np.tile(np.arange(len(work.galaxies)), _REPEATS)
    precision = "bfloat16" if work.device.type == "cuda" else "float32"

    def ours() -> float:
        loader = CutoutLoader(work.galaxies, rows, view=checkpoint.view, batch_size=_BATCH, workers=work.workers)
        return _rate(lambda: list(embedded(loader, checkpoint, precision=precision)), work, len(rows))

    def plain() -> float:
        images = work.images(work.encoder.input_size)
        with torch.inference_mode(), work.autocast:
            return _rate(lambda: [network(images) for _ in range(_STEPS * _REPEATS)], work, len(rows))

    for warmed in (plain, ours):
        warmed()
    return compared("embedding", ours, {"bare forward on one batch in memory": plain}, unit="images/s")


def _normalised(network: BottleneckNetwork, images: Tensor) -> BottleneckNetwork:
    """The network with its norms' statistics taken from a batch, as training would have left them.

    Random weights without them let dark images fade to denormal numbers, which a processor adds several times slower.
    """
    for one in network.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def _relabelling() -> list[Comparison]:
    import hdbscan

    positions = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    clusterer = Hdbscan(min_samples=50, min_cluster_size=20)
    linkage = clusterer.linkage(positions)

    def ours() -> float:
        return _rate(lambda: clusterer.classes(linkage), None, 1)

    def plain() -> float:
        fresh = hdbscan.HDBSCAN(min_samples=50, min_cluster_size=20, cluster_selection_method="leaf")
        return _rate(lambda: fresh.fit(positions), None, 1)

    return compared("another selection, 20,000 galaxies", ours, {"hdbscan.HDBSCAN fitted afresh": plain}, unit="per s")


def _rate(run: Callable[[], Any], work: Workload | None, count: int) -> float:
    """Images (or runs) per second, start-up of what decodes included."""
    started = time.perf_counter()
    run()
    if work is not None:
        work.settle()
    return count / (time.perf_counter() - started)


def add_bench_verb(verbs: Any) -> None:
    """``python -m benchmarks throughput`` for the command line."""
    parser = verbs.add_parser("throughput", help="throughput, as ratios against the plain way")
    parser.add_argument("--workers", type=int, help="processes that decode images; left out: by the machine")
    parser.add_argument("--model", default="efficientnet_b0", help="architecture")
    parser.add_argument("--input-size", type=int, default=224, help="side of what the network sees, px")
    parser.set_defaults(run=_bench)
    parser = verbs.add_parser("duplicates", help="how well near-identical images are told apart, on a GZ2 sample")
    parser.add_argument("--folder", default="", help=f"folder of the sample; empty: the variable {FOLDER_VARIABLE}")
    parser.set_defaults(run=_duplicates)


def _bench(options: argparse.Namespace) -> None:
    print(f"{torch.get_num_threads()} threads; medians of {_ROUNDS} interleaved rounds")
    print(f"mock sky at 96 px: {mock_throughput():.0f} galaxies/s on one core")
    workers = decoding_processes(options.workers)
    print(f"{options.model} at {options.input_size} px from {_SIDE} px JPEG, {workers or 'no'} processes that decode")
    for one in comparisons(model=options.model, input_size=options.input_size, workers=workers):
        print(
            f"{one.name}: {one.ours:.3g} {one.unit}, {one.ratio:.2f} × {one.plain_name} ({one.plain:.3g})", flush=True
        )


def _duplicates(options: argparse.Namespace) -> None:
    galaxies = Gz2(folder=options.folder).open()
    prints = duplicates.fingerprints(galaxies.images, len(galaxies))
    groups = duplicates.near_identical(prints)
    print(f"different galaxies, {len(galaxies)} of them: highest correlation {duplicates.highest_between(prints):.4f}")
    for quality in (80, 50):
        lowest = duplicates.lowest_after_saving_again(galaxies.images, 500, quality=quality)
        print(f"500 pictures saved again at JPEG quality {quality}: lowest correlation {lowest:.4f}")
    print(f"galaxies that share a split with a near-identical one: {len(galaxies) - len(np.unique(groups))}")
