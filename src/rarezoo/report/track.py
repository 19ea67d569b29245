"""Where metrics and galleries are logged besides the disk: W&B. The only file that imports wandb.

Logging never decides the science: whatever W&B does, the search or training goes on, and one warning says so.
"""

import json
import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32
from PIL import Image, ImageColor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.registry import setting
from rarezoo.report import gallery, palette
from rarezoo.report.sample import rows_of
from rarezoo.store import SETTINGS_FILE

log = logging.getLogger(__name__)

_MODES = ("offline", "wandb", "none")
# Sides of the map's picture, px, and of a point that is in a class.
_PICTURE, _POINT = 900, 3
# Longest wait for W&B's servers, s: what was not sent by then stays on disk for ``wandb sync``.
_PATIENCE = 60


@dataclass
class Tracker:
    """Where a run is logged: to disk for ``wandb sync`` later, to W&B at once, or nowhere."""

    mode: str = setting("offline", "offline (W&B files under out=), wandb (sent at once), or none")
    project: str = setting("rarezoo", "W&B project")
    entity: str | None = setting(None, "W&B user or team; none = the user's default")
    group: str | None = setting(None, "W&B group, to keep a sweep's runs together")

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigError("unknown logger.mode", value=self.mode, fix=f"Choose one of {', '.join(_MODES)}.")

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
        """Log a search as a W&B run of its own: numbers, the class table, the map, a mosaic per class.

        Args:
            out: the search's folder; W&B's files go to ``out/wandb``.
            classes: CLASSES table.
            members: MEMBERS table.
            map_2d: MAP table, two-dimensional.
            cutouts: ids → uint8 (H, W, 3) each; None leaves the mosaics out.
            about: what becomes the run's config.
        """
        if self.mode == "none":
            return

        def record() -> None:
            run = self.start(out, name=Path(out).name, job="cluster", config=about)
            try:
                run.log({**_numbers(classes, about), **_pictures(classes, members, map_2d, cutouts)})
            finally:
                run.finish()

        _went_well(record)

    def lightning_logger(self, out: Path | str, *, name: str) -> Logger | None:
        """A logger for Lightning's Trainer; None if nothing is to be logged.

        Its run begins with the first metric and ends with the training, so a second training is a second run.

        Args:
            out: the training's folder; W&B's files go to ``out/wandb``, and settings.json becomes the run's config.
            name: of the run.
        """
        return None if self.mode == "none" else TrainingLogger(self, Path(out), run_name=name)

    def start(self, out: Path | str, *, name: str, job: str, config: Mapping[str, Any]) -> Any:
        """A new W&B run, whatever other runs this process has open. Never asks at the terminal for a key."""
        import wandb

        if self.mode == "wandb" and not wandb.login(prompt=False):
            raise ConfigError("no W&B key", value="logger=wandb", fix="Run wandb login, or choose logger=offline.")
        Path(out).mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True,
            init_timeout=_PATIENCE, finish_timeout=_PATIENCE,
        )  # fmt: skip
        return wandb.init(
            project=self.project, entity=self.entity, group=self.group, name=name, job_type=job, dir=str(out),
            config=tables.plain(config), mode="offline" if self.mode == "offline" else None, reinit="create_new",
            settings=quiet,
        )  # fmt: skip


class TrainingLogger(Logger):
    """Lightning's metrics to a W&B run that begins with the first of them; silent for good once W&B has failed."""

    def __init__(self, tracker: Tracker, out: Path, *, run_name: str) -> None:
        super().__init__()
        self.tracker, self.out, self.run_name = tracker, out, run_name
        self._run: Any = None
        self._given_up = False

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.run_name

    @property
    def version(self) -> str:
        """Id of the W&B run, empty before it begins."""
        return str(self._run.id) if self._run is not None else ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one step's metrics."""

        def record() -> None:
            if self._run is None:
                self._run = self.tracker.start(self.out, name=self.name, job="train", config=self._config())
            self._run.log({**metrics, "trainer/global_step": step})

        self._given_up = self._given_up or not _went_well(record)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's settings come from settings.json."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish the run."""
        run, self._run = self._run, None
        if run is not None:
            _went_well(lambda: run.finish(exit_code=0 if status == "success" else 1))

    def _config(self) -> dict[str, Any]:
        """The settings that the training claimed its folder with."""
        record = self.out / SETTINGS_FILE
        content: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
        return content


def _went_well(record: Callable[[], object]) -> bool:
    """Whether something could be logged; if not, a warning says why."""
    try:
        record()
    except Exception as problem:
        log.warning("not logged to W&B (%s); everything else is whole", problem)
        return False
    return True


def _numbers(classes: pa.Table, about: Mapping[str, Any]) -> dict[str, Any]:
    """A search's metrics."""
    known = {key: about[key] for key in ("galaxies", "searched", "classes", "unassigned") if key in about}
    seconds = {f"seconds/{stage}": spent for stage, spent in (about.get("seconds") or {}).items()}
    persistence = [value for value in classes.column(tables.PERSISTENCE).to_pylist() if value is not None]
    most = {"persistence/most": max(persistence)} if persistence else {}
    return {**known, **seconds, **most}


def _pictures(
    classes: pa.Table,
    members: pa.Table,
    map_2d: pa.Table,
    cutouts: Callable[[Sequence[str]], list[np.ndarray]] | None,
) -> dict[str, Any]:
    """The map, the class table and a mosaic per class, as W&B shows them.

    The table holds no images: W&B stages those outside the run's folder, and a copied folder would lose them.
    """
    import wandb

    labels = rows_of(map_2d.column(tables.ID), members, source="the members").column(tables.CLASS_ID).to_numpy()
    picture = map_picture(tables.matrix(map_2d, tables.POSITION), labels=labels)
    table = wandb.Table(columns=classes.column_names)
    for row in classes.to_pylist():
        table.add_data(*map(_cell, row.values()))
    shown = {"map": wandb.Image(picture), "class_table": table}
    if cutouts is None:
        return shown
    for one in classes.to_pylist():
        ids = one[tables.EXEMPLARS][: gallery.SHOWN]
        caption = f"{one[tables.SIZE]} galaxies; {', '.join(ids)}"
        image = wandb.Image(gallery.mosaic(cutouts(ids)), caption=caption, file_type="jpg")
        shown[f"mosaics/class-{one[tables.CLASS_ID]:03d}"] = image
    return shown


def _cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else value


def map_picture(positions: Float32[np.ndarray, "galaxies 2"], *, labels: Int32[np.ndarray, " galaxies"]) -> Image.Image:
    """The map as a square picture on white: galaxies in no class grey, the others in their class's colour over them."""
    low, span = positions.min(axis=0), max(np.ptp(positions, axis=0).max(), 1e-9)
    pixels = ((positions - low) / span * (_PICTURE - 1 - 2 * _POINT)).astype(int) + _POINT
    colours = np.array([ImageColor.getrgb(colour) for colour in palette.LIGHT], dtype=np.uint8)
    picture = np.full((_PICTURE, _PICTURE, 3), 255, dtype=np.uint8)
    grey, coloured = labels == tables.NO_CLASS, labels != tables.NO_CLASS
    picture[_PICTURE - 1 - pixels[grey, 1], pixels[grey, 0]] = 200
    for down in range(_POINT):
        for right in range(_POINT):
            at = (_PICTURE - 1 - pixels[coloured, 1] + down - 1, pixels[coloured, 0] + right - 1)
            picture[at] = colours[[palette.mark(int(label)).colour for label in labels[coloured]]]
    return Image.fromarray(picture)
