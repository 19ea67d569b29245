"""``rarezoo demo``: a mock survey from votes to a page of classes, and which planted populations were found."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from rarezoo import tables
from rarezoo.data.surveys.mock import Mock, write_mock_sheet
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.physical.join import BY_POSITION
from rarezoo.physical.result import Physical
from rarezoo.physical.run import PhysicalRun
from rarezoo.searches import recovery
from rarezoo.searches.presets import preset
from rarezoo.searches.run import SearchRun
from rarezoo.searches.significance import Significance
from rarezoo.searches.stability import Stability
from rarezoo.settings import Settings, setting
from rarezoo.training.objectives.votes import Votes
from rarezoo.training.short import MOCK_CHECKPOINT, short_training, start_folder

log = logging.getLogger(__name__)
T = TypeVar("T")

_GALAXIES = 4000
_EPOCHS = 5
# A galaxy has no up or down: its embedding is the mean over orientations.
_TURNS = 4
_SURVEYS, _REFITS = 20, 2
# Seconds per 1,000 galaxies on two processor cores, for the estimate; those that a demo printed.
_SECONDS = {"survey": 11.0, "train": 19.0, "embed": 42.0, "search": 16.0, "physical": 1.0}
# The same for one pass of a training from random weights.
_WHOLE_EPOCH = 14.0
_STAGES = {
    "survey": "draw {galaxies:,} mock galaxies, some of them of rare populations",
    "train": "train a network on the volunteers' votes",
    "embed": "embed every galaxy",
    "search": "search the embeddings for rare classes, with null surveys and a report",
    "physical": "compare the physical properties of the classes with those of matched controls",
}
RECORD, _PROPERTIES = "demo.json", "properties.parquet"


@dataclass(frozen=True)
class DemoResult:
    """What a demo found.

    Attributes
    ----------
    populations
        One row per planted population, see :func:`rarezoo.searches.recovery.recovery`.
    seconds
        Wall time per stage, s.
    page
        The report's first page.
    physical
        The classes against their matched controls.
    """

    populations: pa.Table
    seconds: Mapping[str, float]
    page: Path
    physical: Physical

    def record(self) -> dict[str, Any]:
        """Return the result as plain data; ``demo.json`` holds it."""
        found = self.populations[recovery.FOUND].to_pylist()
        return {
            "seconds": {stage: round(spent, 1) for stage, spent in self.seconds.items()},
            "planted": len(found),
            "planted_found": sum(found),
            "planted_shown": sum(self.populations[recovery.SHOWN].to_pylist()),
            "populations": self.populations.to_pylist(),
            "page": str(self.page),
        }

    def summary(self) -> str:
        """Return the planted populations as a table, and where the report is."""
        rows = self.populations.sort_by([(recovery.FOUND, "descending"), (recovery.COMPLETENESS, "descending")])
        head = ["planted population", "galaxies", "best class", "grade", "purity", "completeness", "found"]
        cells = [
            [
                row[tables.POPULATION], str(row[tables.SIZE]),
                "–" if row[recovery.BEST_CLASS] == tables.NO_CLASS else str(row[recovery.BEST_CLASS]),
                row[tables.GRADE] or "–",
                f"{row[recovery.PURITY]:.2f}", f"{row[recovery.COMPLETENESS]:.2f}",
                "yes" if row[recovery.FOUND] else "as a candidate" if row[recovery.SHOWN] else "no",
            ]
            for row in rows.to_pylist()
        ]  # fmt: skip
        meaning = (
            "Found: more than half of a class belongs to the population, more than half of the population to the "
            "class, and the class is no mere candidate."
        )
        text = recovery.recovery_text(self.populations.to_pylist())
        compared = self.physical.summary()
        return "\n".join([tables.markdown(head, cells), "", text, meaning, compared, f"Report: {self.page}"])


@dataclass(kw_only=True)
class DemoRun(Settings):
    """Run all steps on a mock survey: survey, checkpoint, embedding store, classes and report, in one folder.

    If it was stopped, the same command continues where it stopped.
    """

    out: str = setting("runs/demo", "output folder")
    galaxies: int = setting(_GALAXIES, "size of the mock survey", unit="galaxies", ge=100)
    epochs: int = setting(_EPOCHS, "passes over the training split", ge=1)
    surveys: int = setting(_SURVEYS, "null surveys that the classes are compared with", unit="surveys", ge=5)
    refits: int = setting(_REFITS, "repetitions of the search, which measure the stability of classes", ge=0)
    start: str = setting(MOCK_CHECKPOINT, "checkpoint whose weights the training starts from; none = random weights")
    seed: int = setting(0, "seed of the mock sky, the training and the search", ge=0)

    def run(self) -> DemoResult:
        """Run every stage, with one line for each, and return what was found.

        Raises
        ------
        ConfigError, OutputError
            The checkpoint to start from does not exist, or the folder cannot be written.
        """
        folder, seconds = Path(self.out), dict[str, float]()
        start = start_folder(self.start)
        stage = self._announced(seconds)
        with _only_stages_on_the_console():
            self._estimate(start)
            survey = Mock(n=self.galaxies, seed=self.seed, cache=str(folder / "survey"))
            galaxies = stage("survey", survey.open)
            training = short_training(
                survey,
                folder / "efficientnet_b0.demo",
                epochs=self.epochs,
                seed=self.seed,
                start=start,
                objective=Votes(),
            )
            checkpoint = stage("train", training.run)
            embedding = EmbedRun(
                data=survey, checkpoint=str(checkpoint.folder), turns=_TURNS, out=str(folder / "embeddings")
            )  # fmt: skip
            store = stage("embed", embedding.run)
            tables.write(galaxies.truth, folder / "truth.parquet", tables.TRUTH)
            search = stage("search", self._search(store.folder).run)
            catalogue = tables.write(survey.properties(), folder / _PROPERTIES, tables.JOINED)
            physical = PhysicalRun(search=self.out, catalogues=[str(catalogue)], by=BY_POSITION, seed=self.seed)
            compared = stage("physical", lambda: physical.write(search))
        populations = recovery.recovery(search.table("members"), galaxies.truth, search.table("classes"))
        result = DemoResult(populations, seconds, Path(search.page), compared.measured)
        tables.write_json(result.record(), folder / RECORD)
        return result

    def _search(self, store: Path) -> SearchRun:
        """Return the default search, with fewer null surveys and refits."""
        return SearchRun(
            store=str(store),
            significance=Significance(surveys=self.surveys),
            stability=Stability(refits=self.refits),
            out=self.out,
            seed=self.seed,
            **preset(),
        )

    def _estimate(self, start: str) -> None:
        """Say how long the demo will take, and what the training starts from."""
        scale = {"search": (self.surveys + self.refits + 4) / (_SURVEYS + _REFITS + 4)}
        if start == "none":
            scale["train"] = self.epochs * _WHOLE_EPOCH / _SECONDS["train"]
        seconds = sum(spent * scale.get(stage, 1) for stage, spent in _SECONDS.items()) * self.galaxies / 1000
        log.info(
            "The demo takes about %.0f minutes on two processor cores (this machine has %d). Everything lies in %s.",
            max(seconds / 60, 1), os.cpu_count() or 1, self.out,
        )  # fmt: skip
        if start == "none":
            log.warning(
                "The training starts from random weights. Unless it is long (epochs=30), few populations will be "
                "found. start= names a checkpoint to start from."
            )
        else:
            log.info("The training starts from %s.", start)

    def _announced(self, seconds: dict[str, float]) -> Callable[[str, Callable[[], Any]], Any]:
        """Return a function that runs a stage with a line before it, and notes its wall time."""

        def stage(name: str, run: Callable[[], T]) -> T:
            number = list(_STAGES).index(name) + 1
            log.info("[%d/%d] %s …", number, len(_STAGES), _STAGES[name].format(galaxies=self.galaxies))
            started = time.perf_counter()
            result = run()
            seconds[name] = time.perf_counter() - started
            log.info("[%d/%d] %s: %.0f s", number, len(_STAGES), name, seconds[name])
            return result

        return stage


@contextmanager
def _only_stages_on_the_console() -> Iterator[None]:
    """Show only this module's messages and warnings on the console; the log file gets everything."""

    def wanted(record: logging.LogRecord) -> bool:
        return record.name == __name__ or record.levelno >= logging.WARNING

    consoles = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
    for handler in consoles:
        handler.addFilter(wanted)
    try:
        yield
    finally:
        for handler in consoles:
            handler.removeFilter(wanted)


@dataclass(kw_only=True)
class MockSheet(Settings):
    """Draw a picture of the mock sky with one row per population."""

    file: str = setting(help="picture to write, such as sheet.webp", positional=True)
    seed: int = setting(0, "seed of the sky", ge=0)

    def run(self) -> Path:
        """Return the picture's path.

        Raises
        ------
        OutputError
            The picture cannot be written.
        """
        return Path(write_mock_sheet(self.file, seed=self.seed))


@dataclass(kw_only=True)
class MockProperties(Settings):
    """Write a catalogue of the physical properties of mock galaxies, to be joined to a search of them."""

    file: str = setting(help="file to write, such as properties.parquet", positional=True)
    n: int = setting(_GALAXIES, "size of the mock survey", unit="galaxies", ge=1)
    seed: int = setting(0, "seed of the sky", ge=0)
    cache: str = setting("runs/cache", "folder that keeps what was drawn for the next time")

    def run(self) -> Path:
        """Return the path of the catalogue.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        try:
            Path(self.file).parent.mkdir(parents=True, exist_ok=True)
            survey = Mock(n=self.n, seed=self.seed, cache=self.cache)
            return tables.write(survey.properties(), self.file, tables.JOINED)
        except OSError as problem:
            raise tables.unwritable(Path(self.file), problem, setting="file") from problem
