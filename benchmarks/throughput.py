"""``python -m benchmarks throughput``: images per second, always as a ratio against the plain way in the same run."""

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

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
from rarezoo.settings import Settings, choice, setting
from rarezoo.training.loss import vote_loss
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.network import BottleneckNetwork, build_network
from rarezoo.zoo.views import TrainingView, inference_view, training_cutout

_BATCH = 32
# Embedding is quick: the galaxies are read several times, so that the start of the processes does not decide.
_REPEATS = 4
# The mock sky's cutouts are as wide as the real sample's.
_SIDE = 160


@dataclass(frozen=True)
class SpeedComparison:
    """One measurement: our rate, the rate of the plain way, and their ratio, each a median of interleaved rounds."""

    name: str
    unit: str
    ours: float
    plain: float
    plain_name: str
    ratio: float

    def __str__(self) -> str:
        return f"{self.name}: {self.ours:.3g} {self.unit}, {self.ratio:.2f} × {self.plain_name} ({self.plain:.3g})"


class Stopwatch:
    """Measure ways in turn, with a progress bar over all measurements of the run.

    Parameters
    ----------
    rounds
        Number of rounds. Each way is measured once per round, after one measurement that warms it up.
    comparisons
        Number of measurements of a round in the whole run, for the estimate of the remaining time.
    """

    def __init__(self, rounds: int, *, comparisons: int) -> None:
        self.rounds = rounds
        self._progress = tqdm(total=comparisons * (rounds + 1), unit="measurement")

    def compare(
        self, name: str, ours: Callable[[], float], plain: dict[str, Callable[[], float]], *, unit: str
    ) -> list[SpeedComparison]:
        """Measure our way and the plain ways; each ratio is taken within its round.

        If the speed of the machine drifts, it then drifts for all of them.
        """
        self._progress.set_description(name)
        rates = [[self._measured(way) for way in (ours, *plain.values())] for _ in range(self.rounds + 1)]
        rounds = np.array(rates[1:])
        medians, ratios = np.median(rounds, axis=0), np.median(rounds[:, :1] / rounds, axis=0)
        return [
            SpeedComparison(name, unit, float(medians[0]), float(medians[at]), plain_name, float(ratios[at]))
            for at, plain_name in enumerate(plain, start=1)
        ]

    def close(self) -> None:
        """End the progress bar."""
        self._progress.close()

    def _measured(self, way: Callable[[], float]) -> float:
        rate = way()
        self._progress.update()
        return rate


@dataclass(frozen=True)
class Workload:
    """The same galaxies, network and batches for every way of training and embedding.

    Attributes
    ----------
    galaxies
        Mock galaxies, as JPEG files in a folder.
    table
        Their file names and votes, by column.
    encoder
        Settings of the network.
    workers
        Number of processes that decode images.
    device
        Device on which the network runs.
    """

    galaxies: Galaxies
    table: pd.DataFrame
    encoder: Encoder
    workers: int
    device: torch.device

    @property
    def steps(self) -> int:
        """Return the number of batches in one pass over the galaxies."""
        return len(self.galaxies) // _BATCH

    @property
    def tree(self) -> QuestionTree:
        """Return the question tree of the votes."""
        if self.galaxies.tree is None:
            raise DataError("the mock survey has no votes", value="tree", fix="Report this.")
        return self.galaxies.tree

    @property
    def autocast(self) -> torch.autocast:
        """Return the precision context: bfloat16 on a GPU, float32 on a processor, for all ways."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def network(self) -> BottleneckNetwork:
        """Return a network with random weights in channels-last memory format."""
        torch.manual_seed(0)
        return build_network(self.encoder, self.tree).to(self.device).to(memory_format=torch.channels_last)

    def images(self, side: int) -> Tensor:
        """Return one batch of galaxies in memory; noise could cost more or less time than galaxies."""
        view = inference_view(side)
        cutouts = [torch.from_numpy(np.array(self.galaxies.images.cutout(row))) for row in range(_BATCH)]
        seen = torch.stack([view(cutout.permute(2, 0, 1)) for cutout in cutouts]).to(self.device)
        return (seen.float() / 255).contiguous(memory_format=torch.channels_last)

    def settle(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _workload(folder: Path, *, model: str, input_size: int, workers: int, steps: int) -> Workload:
    sky = Mock(n=_BATCH * steps, side=_SIDE, cache=str(folder / "sky")).open()
    names = [str(folder / f"{row}.jpg") for row in range(len(sky))]
    for row, name in enumerate(names):
        Image.fromarray(sky.images.cutout(row)).save(name, quality=85)
    galaxies = replace(sky, images=FolderImages(folder, names, list(map(str, sky.ids))))
    votes = pd.DataFrame(galaxies.votes, columns=list(galaxies.tree.answers))  # type: ignore[union-attr]
    table = votes.assign(file_loc=names, id_str=[str(id_str) for id_str in sky.ids])
    encoder = choice("model", model)(input_size=input_size)
    return Workload(galaxies, table, encoder, workers, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _training(work: Workload, stopwatch: Stopwatch) -> list[SpeedComparison]:
    """Compare training with the bare steps, and with zoobot where its training can be imported."""
    network = work.network().train()
    optimiser = torch.optim.AdamW(network.parameters())
    rows, size = np.arange(len(work.galaxies)), work.encoder.input_size
    seen, order = TrainingView(size), EpochOrder(len(rows), seed=0)

    def step(images: Tensor, votes: Tensor) -> None:
        optimiser.zero_grad()
        with work.autocast:
            prediction = network(images.contiguous(memory_format=torch.channels_last))
        vote_loss(prediction.concentrations, votes.to(work.device), work.tree).backward()
        optimiser.step()

    def epoch(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        for images, votes in batches:
            step(images, votes)

    def ours() -> float:
        loader = CutoutLoader(
            work.galaxies, rows, view=training_cutout(size), batch_size=_BATCH, workers=work.workers, order=order
        )
        return _rate(
            lambda: epoch((seen(batch.images.to(work.device)), batch.votes) for batch in loader), work, len(rows)
        )

    def plain() -> float:
        images, votes = work.images(size), torch.from_numpy(work.galaxies.votes[:_BATCH])  # type: ignore[index]
        return _rate(lambda: epoch([(images, votes)] * work.steps), work, _BATCH * work.steps)

    ways = {"the same steps on one batch in memory": plain}
    theirs = _zoobot_training(work)
    if theirs is not None:
        ways["zoobot's data module and training step"] = theirs
    return stopwatch.compare("training", ours, ways, unit="images/s")


def _zoobot_training(work: Workload) -> Callable[[], float] | None:
    """Return a function for the images/s of zoobot's training; None if lightning is not installed."""
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
        batch = {key: value.to(work.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
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
    """Return the question tree as a schema of zoobot."""
    from zoobot.shared.schemas import Schema

    pairs = {
        question.name: [answer.removeprefix(question.name) for answer in question.answers]
        for question in tree.questions
    }
    return Schema(pairs, {question.name: question.asked_after for question in tree.questions})


def _embedding(work: Workload, stopwatch: Stopwatch, folder: Path) -> list[SpeedComparison]:
    network = _normalised(work.network(), work.images(work.encoder.input_size))
    Checkpoint.save(folder / "net", network=network, encoder=work.encoder, tree=work.tree, card={})
    checkpoint = Checkpoint.open(folder / "net")
    rows = np.tile(np.arange(len(work.galaxies)), _REPEATS)
    precision = "bfloat16" if work.device.type == "cuda" else "float32"

    def ours() -> float:
        loader = CutoutLoader(work.galaxies, rows, view=checkpoint.view, batch_size=_BATCH, workers=work.workers)
        return _rate(lambda: list(embedded(loader, checkpoint, precision=precision)), work, len(rows))

    def plain() -> float:
        images = work.images(work.encoder.input_size)
        with torch.inference_mode(), work.autocast:
            return _rate(lambda: [network(images) for _ in range(work.steps * _REPEATS)], work, len(rows))

    return stopwatch.compare("embedding", ours, {"bare forward on one batch in memory": plain}, unit="images/s")


def _normalised(network: BottleneckNetwork, images: Tensor) -> BottleneckNetwork:
    """Return the network with batch statistics taken from a batch, as training would have left them.

    Random weights without them let dark images fade to denormal numbers, which a processor adds several times slower.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def _relabelling(stopwatch: Stopwatch) -> list[SpeedComparison]:
    import hdbscan

    positions = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    clusterer = Hdbscan(min_samples=50, min_cluster_size=20)
    linkage = clusterer.linkage(positions)

    def ours() -> float:
        return _rate(lambda: clusterer.classes(linkage), None, 1)

    def plain() -> float:
        fresh = hdbscan.HDBSCAN(min_samples=50, min_cluster_size=20, cluster_selection_method="leaf")
        return _rate(lambda: fresh.fit(positions), None, 1)

    return stopwatch.compare(
        "another selection, 20,000 galaxies", ours, {"hdbscan.HDBSCAN fitted afresh": plain}, unit="per s"
    )


def _rate(run: Callable[[], Any], work: Workload | None, count: int) -> float:
    """Return images (or runs) per second; starting the decoding processes is included."""
    started = time.perf_counter()
    run()
    if work is not None:
        work.settle()
    return count / (time.perf_counter() - started)


@dataclass(kw_only=True)
class Throughput(Settings):
    """Images per second of training and embedding, as ratios against the plain way in the same run.

    The default takes a few minutes on two cores. ``long=true`` measures at 224 px with more steps and rounds.
    """

    model: str = setting("efficientnet_b0", "architecture")
    input_size: int = setting(
        0, "side of the image that the network sees; 0: 96, or 224 with long=true", unit="px", ge=0
    )
    workers: int | None = setting(None, "number of processes that decode images; null: chosen for the machine")
    long: bool = setting(False, "measure with more steps and rounds")

    def run(self) -> None:
        """Measure, and print one line per comparison."""
        size, steps, rounds = (self.input_size or 224, 12, 5) if self.long else (self.input_size or 96, 4, 3)
        workers = decoding_processes(self.workers)
        print(f"{torch.get_num_threads()} threads; medians of {rounds} interleaved rounds", flush=True)
        print(f"mock sky at 96 px: {mock_throughput():.0f} galaxies/s on one core", flush=True)
        decoding = f"{workers or 'no'} processes that decode"
        print(f"{self.model} at {size} px from {_SIDE} px JPEG, {decoding}", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            work = _workload(folder, model=self.model, input_size=size, workers=workers, steps=steps)
            # Ours and the plain steps, perhaps zoobot's; ours and the bare forward pass; ours and hdbscan.
            stopwatch = Stopwatch(rounds, comparisons=(3 if _zoobot_training(work) else 2) + 2 + 2)
            for measure in (
                lambda: _training(work, stopwatch),
                lambda: _embedding(work, stopwatch, folder),
                lambda: _relabelling(stopwatch),
            ):
                for comparison in measure():
                    tqdm.write(str(comparison))
            stopwatch.close()


@dataclass(kw_only=True)
class Duplicates(Settings):
    """How well near-identical images are recognised, on the Galaxy Zoo 2 sample."""

    folder: str = setting("", f"folder of the sample; empty: the environment variable {FOLDER_VARIABLE}")

    def run(self) -> None:
        """Measure, and print the correlations of different galaxies and of images that were saved again."""
        galaxies = Gz2(folder=self.folder).open()
        prints = duplicates.fingerprints(galaxies.images, len(galaxies))
        groups = duplicates.near_identical(prints)
        highest = duplicates.highest_between(prints)
        print(f"highest correlation of two different galaxies among {len(galaxies)}: {highest:.4f}")
        for quality in (80, 50):
            lowest = duplicates.lowest_after_saving_again(galaxies.images, 500, quality=quality)
            print(f"lowest correlation of 500 pictures saved again at JPEG quality {quality}: {lowest:.4f}")
        print(f"galaxies that share a split with a near-identical one: {len(galaxies) - len(np.unique(groups))}")
