"""Where metrics and galleries are logged besides the disk: W&B, CSV or TensorBoard. The only file that imports wandb.

Logging never decides the science: whatever becomes of the log, the search or training goes on, and one warning says so.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.report.ledgers import CsvLedger, Ledger, TensorBoardLedger, write_csv, write_tensorboard
from rarezoo.report.record import Search, Training
from rarezoo.runs import SETTINGS_FILE
from rarezoo.settings import setting

if TYPE_CHECKING:
    from rarezoo.report.lightning import TrainingLogger

log = logging.getLogger(__name__)

OFFLINE, WANDB, CSV, TENSORBOARD, NONE = "offline", "wandb", "csv", "tensorboard", "none"
_MODES = (OFFLINE, WANDB, CSV, TENSORBOARD, NONE)
CALLED = {OFFLINE: "W&B", WANDB: "W&B", CSV: "CSV", TENSORBOARD: "TensorBoard"}
# Longest wait for W&B's servers, s: what was not sent by then stays on disk for ``wandb sync``.
_PATIENCE = 60
# Written and removed again to see whether there is room, bytes.
_ROOM = 1 << 16
_STAGING = "WANDB_DATA_DIR"


@dataclass
class Tracker:
    """Where a run is logged: to disk for ``wandb sync`` later, to W&B at once, to other kinds of files, or nowhere."""

    mode: str = setting(
        "offline", "offline (W&B files under out=), wandb (sent at once), csv, tensorboard (files under out=), or none"
    )
    project: str = setting("rarezoo", "W&B project")
    entity: str | None = setting(None, "W&B user or team; none = the user's default")
    group: str | None = setting(None, "W&B group, to keep a sweep's runs together")
    checkpoint: str | None = setting(
        None, "folder of the checkpoint that a search's log tells of; none = the store's, below checkpoints/"
    )

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigError("unknown logger.mode", value=self.mode, fix=f"Choose one of {', '.join(_MODES)}.")
        if self.mode == TENSORBOARD and find_spec("tensorboard") is None:
            raise ConfigError(
                "TensorBoard is not installed", value="logger=tensorboard",
                fix="Run pip install tensorboard, or choose logger=csv.",
            )  # fmt: skip

    def log_search(
        self,
        out: Path | str,
        *,
        classes: pa.Table,
        members: pa.Table,
        map_2d: pa.Table,
        cutouts: Callable[[Sequence[str]], list[np.ndarray]] | None,
        about: Mapping[str, Any],
    ) -> None:
        """Log a search: numbers, the class table, the map, a mosaic per class, and the training of its network.

        Args:
            out: the search's folder, below which all files go.
            classes: CLASSES table.
            members: MEMBERS table.
            map_2d: MAP table, two-dimensional.
            cutouts: ids → uint8 (H, W, 3) each; None leaves the mosaics out.
            about: what run.json holds; becomes the W&B run's config.
        """
        if self.mode == NONE:
            return
        out = Path(out)
        writers = {CSV: write_csv, TENSORBOARD: write_tensorboard}

        def record() -> None:
            training = Training.behind(about, places=self._places(about))
            search = Search(out.name, classes, members, map_2d, cutouts, about, training)
            writers.get(self.mode, self._send)(search, out)

        went_well(record, to=CALLED[self.mode])

    def _places(self, about: Mapping[str, Any]) -> list[Path]:
        return [Path(self.checkpoint)] if self.checkpoint else [Path("checkpoints") / str(about.get("checkpoint", ""))]

    def lightning_logger(self, out: Path | str, *, name: str) -> "TrainingLogger | None":
        """A logger for Lightning's Trainer; None if nothing is to be logged.

        Its run begins with the first metric and ends with the training, so a second training is a second run.

        Args:
            out: the training's folder, below which all files go; settings.json becomes the W&B run's config.
            name: of the run.
        """
        if self.mode == NONE:
            return None
        from rarezoo.report.lightning import TrainingLogger

        return TrainingLogger(self, Path(out), run_name=name)

    def opened(self, out: Path, *, name: str) -> Ledger:
        """A new log of a training."""
        others: dict[str, Callable[[Path], Ledger]] = {CSV: CsvLedger, TENSORBOARD: TensorBoardLedger}
        if self.mode in others:
            return others[self.mode](out)
        record = out / SETTINGS_FILE
        config = json.loads(record.read_text()) if record.is_file() else {}
        return WandbLedger(self.start(out, name=name, job="train", config=config), out)

    def start(self, out: Path | str, *, name: str, job: str, config: Mapping[str, Any]) -> Any:
        """A new W&B run, whatever other runs this process has open. Never asks at the terminal for a key."""
        import wandb

        if self.mode == WANDB and not wandb.login(prompt=False):
            raise ConfigError("no W&B key", value="logger=wandb", fix="Run wandb login, or choose logger=offline.")
        Path(out).mkdir(parents=True, exist_ok=True)
        # W&B would go to a temporary folder without a word.
        _refuse_full(Path(out) / "wandb")
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True,
            init_timeout=_PATIENCE, finish_timeout=_PATIENCE,
        )  # fmt: skip
        return wandb.init(
            project=self.project, entity=self.entity, group=self.group, name=name, job_type=job, dir=str(out),
            config=tables.plain(config), mode="offline" if self.mode == OFFLINE else None, reinit="create_new",
            settings=quiet,
        )  # fmt: skip

    def _send(self, search: Search, out: Path) -> None:
        """A search as a W&B run of its own."""
        config = {**search.about, **({} if search.training is None else {"trained": _trained(search.training)})}
        run = self.start(out, name=search.name, job="cluster", config=config)
        try:
            with _staged_in(out):
                if search.training is not None:
                    _log_curves(run, search.training)
                    _log_checkpoint(run, search.training)
                if search.store is not None:
                    _link(run, search.store, kind="store", name=f"{search.store.name}-store", told=search.about)
                run.log({**search.numbers, **_pictures(search)})
        finally:
            run.finish()
        _refuse_unwritten(run, out / "wandb")


class WandbLedger:
    """A W&B run of a training."""

    def __init__(self, run: Any, out: Path) -> None:
        self._run, self._out = run, out
        self.id = str(run.id)

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """One step's metrics."""
        self._run.log({**metrics, "trainer/global_step": step})

    def conclude(self, training: Training) -> None:
        """Scores, calibration, and a reference to the checkpoint."""
        with _staged_in(self._out):
            _log_checkpoint(self._run, training)

    def finish(self, *, good: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if good else 1)
        _refuse_unwritten(self._run, self._out / "wandb")


def went_well(record: Callable[[], object], *, to: str, quietly: bool = False) -> bool:
    """Whether something could be logged; if not, a warning says why, unless one did already."""
    try:
        record()
    except Exception as problem:
        if not quietly:
            log.warning("not logged to %s (%s); everything else is whole", to, problem)
        return False
    return True


@contextmanager
def _staged_in(out: Path) -> Iterator[None]:
    """W&B copies what tables hold to a folder of its own, where ``wandb sync`` looks for it: keep it with the run."""
    before = os.environ.get(_STAGING)
    os.environ[_STAGING] = str((out / "wandb" / "staged").resolve())
    try:
        yield
    finally:
        os.environ.pop(_STAGING)
        if before is not None:
            os.environ[_STAGING] = before


def _refuse_full(folder: Path) -> None:
    """Raise OSError where nothing more can be written."""
    folder.mkdir(exist_ok=True)
    probe = folder / f".room-{os.getpid()}"
    try:
        probe.write_bytes(bytes(_ROOM))
    finally:
        probe.unlink(missing_ok=True)


def _refuse_unwritten(run: Any, folder: Path) -> None:
    """Raise OSError if a finished run is not on disk, or not whole there: W&B's writer tells nobody."""
    _refuse_full(folder)
    if not any(folder.glob(f"*/run-{run.id}.wandb")):
        raise FileNotFoundError(f"{folder} holds no file of the run {run.id}")


def _trained(training: Training) -> dict[str, Any]:
    """How a network was made, for the config of a run."""
    return {key: training.card[key] for key in ("name", "encoder", "training", "data", "width") if key in training.card}


def _log_curves(run: Any, training: Training) -> None:
    run.define_metric("training/epoch")
    run.define_metric("training/*", step_metric="training/epoch")
    for row in training.curves:
        run.log({f"training/{name}": value for name, value in row.items()})


def _log_checkpoint(run: Any, training: Training) -> None:
    """Scores and calibration on the test split, and a reference to the checkpoint."""
    import wandb

    rows = training.calibration
    shown: dict[str, Any] = {**training.scores, **training.coverages}
    if rows:
        shown["calibration_table"] = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    if shown:
        run.log(shown)
    _link(run, training.folder, kind="checkpoint", name=training.name, told={"sha256": training.card.get("sha256")})


def _link(run: Any, folder: Path, *, kind: str, name: str, told: Mapping[str, Any]) -> None:
    """A reference to a folder, as an artifact: nothing is copied."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), kind, metadata=tables.plain(told))
    for path in sorted(one for one in folder.iterdir() if one.is_file()):
        # Checksums would read the whole store; the metadata holds those that matter.
        artifact.add_reference(path.resolve().as_uri(), name=path.name, checksum=False)
    run.log_artifact(artifact)


def _pictures(search: Search) -> dict[str, Any]:
    """The map, the class table with exemplars, and a mosaic per class, as W&B shows them."""
    import wandb

    shown: dict[str, Any] = {"map": wandb.Image(search.map)}
    exemplars = {}
    for mosaic in search.mosaics():
        whole = wandb.Image(mosaic.whole, caption=mosaic.caption, file_type="jpg")
        shown[f"mosaics/class-{mosaic.class_id:03d}"] = whole
        exemplars[mosaic.class_id] = wandb.Image(mosaic.row, file_type="jpg")
    names = search.classes.column_names
    table = wandb.Table(columns=[*names, "galaxies"] if exemplars else names)
    for row in search.rows:
        picture = [exemplars[row[tables.CLASS_ID]]] if exemplars else []
        table.add_data(*row.values(), *picture)
    return {**shown, "class_table": table}
