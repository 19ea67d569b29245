"""Rank the jobs of a multirun on one page, from the files that each of them leaves behind: ``rarezoo leaderboard``.

Nothing is taken from the process that ran the jobs: the page is the same for every launcher, and a job that failed, was
killed or is still running has a row.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import yaml

from rarezoo import __version__, tables
from rarezoo.errors import RarezooError, StoreError
from rarezoo.report import gallery, palette
from rarezoo.report.compare import asset
from rarezoo.report.gallery import Thumbnail
from rarezoo.report.pages import environment
from rarezoo.runs import SETTINGS_FILE
from rarezoo.searches.grades import CANDIDATE
from rarezoo.searches.matching import SAME
from rarezoo.searches.result import RUN_FILE, Search
from rarezoo.searches.systematics import CLEAN
from rarezoo.settings import Settings, setting
from rarezoo.studies.failures import failure_of
from rarezoo.track import epoch_metrics
from rarezoo.zoo.cards import is_checkpoint, read_card, whole_card

PAGE, TABLE = "leaderboard.html", "leaderboard.csv"
FINISHED, FAILED, UNFINISHED, UNREADABLE = "finished", "failed", "not finished", "unreadable"
# Classes in the row of a search, thumbnails of each class, and the size of a learning curve, px.
_CLASSES, _THUMBNAILS = 3, 4
_CURVE = (160, 44)
# Folder with Hydra's record of a job.
_HYDRA = ".hydra"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes
    ----------
    key
        Key of its values.
    title
        Heading.
    about
        Meaning of the values.
    digits
        Format of a value.
    better
        Whether more is better; None if neither is.
    """

    key: str
    title: str
    about: str
    digits: str = ",.0f"
    better: bool | None = None

    def text(self, value: float | None) -> str:
        """Return a value as the table shows it."""
        return "–" if value is None else f"{value:{self.digits}}"

    def rank(self, value: float | None) -> tuple[bool, float]:
        """Return a key that sorts the best value first and missing values last."""
        return value is None, 0.0 if value is None else -value if self.better else value


# The first column for which more is better or worse ranks the rows.
SEARCHED = (
    Column("come_back", "come back", "classes, without candidates, whose stability is at least one half", better=True),
    Column("classes", "classes", "classes found, without candidates"),
    Column("candidates", "candidates", "groups that stand apart, but that null surveys show too often"),
    Column("clean", "clean", "classes that nothing in the catalogue explains"),
    Column("stability", "stability", "median over classes of the mean best Jaccard over refits, 0–1", ".2f", True),
    Column("persistence", "persistence", "of the most persistent class", ".2f"),
    Column("beyond", "beyond", "median over classes of what the predicted answers leave of them, 0–1", ".2f"),
    Column("unassigned", "in no class", "share of the galaxies searched, 0–1", ".3f"),
    Column("searched", "galaxies", "galaxies searched"),
)
TRAINED = (
    Column("loss", "test loss", "nats per galaxy of the test split, all questions", ".4f", False),
    Column("gain", "gain", "share of the loss of always answering the mean that the network saves", ".3f", True),
    Column("rmse", "RMSE", "of the vote fractions, mean over questions", ".4f", False),
    Column("width", "D", "width of the embedding"),
    Column("weights", "weights", "numbers in the network"),
    Column("epochs", "epochs", "passes over the training split"),
    Column("galaxies", "test galaxies", "galaxies of the test split"),
)


@dataclass(frozen=True)
class ClassPreview:
    """A class in the row of a search: its id, and thumbnails of its mosaic."""

    id: int
    image: str
    thumbnails: tuple[Thumbnail, ...]
    wide: int
    high: int


@dataclass(frozen=True)
class SweepJob:
    """One job of a multirun.

    Attributes
    ----------
    name
        Path of its folder, relative to the folder of the multirun.
    verb
        ``cluster`` or ``train``.
    settings
        Overrides on the command line; all its settings if these are not known.
    state
        :data:`FINISHED`, :data:`FAILED`, :data:`UNFINISHED` or :data:`UNREADABLE`.
    reason
        Message of a job that failed, or why its files cannot be read.
    link
        Its report or card, relative to the leaderboard; empty if there is none.
    numbers
        Values by the key of a column; absent or None where not measured.
    shown
        First classes of a search.
    curve
        Validation loss by epoch, as points of an SVG line.
    """

    name: str
    verb: str
    settings: Mapping[str, str]
    state: str = UNFINISHED
    reason: str = ""
    link: str = ""
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    shown: tuple[ClassPreview, ...] = ()
    curve: str = ""


@dataclass(frozen=True)
class Leaderboard:
    """Jobs of one command, the best first.

    Attributes
    ----------
    verb
        ``cluster`` or ``train``.
    jobs
        The jobs; those without a result are last.
    settings
        Settings in which the jobs differ.
    measures
        Columns for which at least one job has a value.
    """

    verb: str
    jobs: tuple[SweepJob, ...]
    settings: tuple[str, ...]
    measures: tuple[Column, ...]

    @classmethod
    def of(cls, jobs: Sequence[SweepJob], *, verb: str, measures: Sequence[Column]) -> "Leaderboard":
        """Rank jobs by the first column with values for which more is better or worse."""
        measured = tuple(column for column in measures if any(job.numbers.get(column.key) is not None for job in jobs))
        ranking = next((column for column in measured if column.better is not None), measures[0])
        ranked = sorted(
            jobs, key=lambda job: (job.state != FINISHED, *ranking.rank(job.numbers.get(ranking.key)), job.name)
        )
        names = dict.fromkeys(name for job in jobs for name in job.settings)
        varied = tuple(name for name in names if len({job.settings.get(name) for job in jobs}) > 1)
        return cls(verb, tuple(ranked), varied, measured)


@dataclass(kw_only=True)
class LeaderboardRun(Settings):
    """Rank the jobs of a multirun on one page: leaderboard.html and leaderboard.csv in its folder."""

    folder: str = setting(help="out= of the multirun", positional=True)

    def run(self) -> Path:
        """Write the page and the table, and return the path of the page.

        Raises
        ------
        StoreError
            The folder holds no job.
        OutputError
            The folder cannot be written.
        """
        return write_leaderboard(self.folder)


def write_leaderboard(folder: Path | str) -> Path:
    """Write leaderboard.html and leaderboard.csv into the folder of a multirun, and return the path of the page.

    Raises
    ------
    StoreError
        The folder holds no job.
    OutputError
        The folder cannot be written.
    """
    folder = Path(folder)
    jobs = jobs_of(folder)
    boards = [
        Leaderboard.of(group, verb=verb, measures=measures)
        for verb, measures in (("cluster", SEARCHED), ("train", TRAINED))
        if (group := [job for job in jobs if job.verb == verb])
    ]
    if not boards:
        raise StoreError(
            "the folder holds no search and no training", value=folder,
            fix="Give the out= of a multirun: python cluster.py -m … out=DIR.",
        )  # fmt: skip
    page = environment().get_template("leaderboard.html.jinja").render(
        about={"version": __version__}, palette=palette, boards=boards, title=folder.resolve().name, curve=_CURVE,
        style="\n".join(asset(name) for name in ("style.css", "leaderboard.css")), script=asset("leaderboard.js"),
    )  # fmt: skip
    rows = [
        {"job": job.name, "verb": job.verb, "state": job.state, "reason": job.reason, **job.settings, **job.numbers}
        for board in boards
        for job in board.jobs
    ]
    with tables.atomic(folder / TABLE) as temporary:
        pd.DataFrame(rows).convert_dtypes().to_csv(temporary, index=False)
    with tables.atomic(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / PAGE


def jobs_of(folder: Path) -> list[SweepJob]:
    """Return every search and training in a folder, up to three levels deep, by name."""
    marks = (f"{depth}/{mark}" for depth in ("*", "*/*", "*/*/*") for mark in (_HYDRA, SETTINGS_FILE))
    jobs = []
    for place in sorted({path.parent for mark in marks for path in folder.glob(mark)}):
        claimed, overrides = _content(place / SETTINGS_FILE), _content(place / _HYDRA / "overrides.yaml")
        verb = str(
            _part(claimed, "verb") or _part(_content(place / _HYDRA / "hydra.yaml"), "hydra", "job", "config_name")
        )
        if verb not in ("cluster", "train"):
            continue
        if not isinstance(overrides, list):
            claimed_settings = _part(claimed, "settings")
            flat = pd.json_normalize([claimed_settings if isinstance(claimed_settings, dict) else {}]).to_dict(
                "records"
            )[0]
            settings = {str(name): str(value) for name, value in flat.items()}
        else:
            pairs = (str(text).lstrip("+~").partition("=") for text in overrides)
            settings = {name: value for name, _, value in pairs if name != "out" and not name.startswith("hydra")}
        job = SweepJob(place.relative_to(folder).as_posix(), verb, settings)
        try:
            jobs.append(_searched(job, place) if verb == "cluster" else _trained(job, place))
        except RarezooError as problem:
            jobs.append(replace(job, state=UNREADABLE, reason=str(problem)))
    return jobs


def _unfinished(job: SweepJob, place: Path) -> SweepJob:
    """Return a job without a result; it failed if its folder says why."""
    reason = failure_of(place)
    return replace(job, state=FAILED if reason else UNFINISHED, reason=reason)


def _searched(job: SweepJob, place: Path) -> SweepJob:
    """Return the job of a search with its numbers and its first classes."""
    if not (place / RUN_FILE).exists():
        return _unfinished(job, place)
    search = Search.open(place)
    everything = search.classes.to_pandas()
    candidate = everything[tables.GRADE] == CANDIDATE
    classes = everything[~candidate]
    stabilities, causes = classes[tables.STABILITY].dropna(), classes[tables.CAUSE].dropna()
    numbers = {
        "searched": search.about.get("searched"), "unassigned": search.about.get("unassigned"),
        "classes": len(classes), "candidates": int(candidate.sum()) if everything[tables.GRADE].notna().any() else None,
        "come_back": int((stabilities >= SAME).sum()) if len(stabilities) else None,
        "clean": int((causes == CLEAN).sum()) if len(causes) else None,
        "stability": stabilities.median(), "beyond": classes[tables.BEYOND].median(),
        "persistence": classes[tables.PERSISTENCE].max(),
    }  # fmt: skip
    # The classes to look at first, or the most persistent ones where there are no ranks; those with a warning last.
    order = [tables.FLAGS, tables.RANK, tables.PERSISTENCE, tables.CLASS_ID]
    warned = classes.assign(**{tables.FLAGS: [flags is not None and len(flags) > 0 for flags in classes[tables.FLAGS]]})
    shown = []
    for class_id in warned.sort_values(order, ascending=[True, True, False, True]).index[:_CLASSES]:
        image = f"report/images/class-{class_id:03d}-exemplars.jpg"
        if (place / image).is_file():
            ids = search[class_id].row[tables.EXEMPLARS][: gallery.SHOWN]
            thumbnails = tuple(
                Thumbnail(galaxy, number, "", *gallery.place(number, len(ids)))
                for number, galaxy in enumerate(ids[:_THUMBNAILS])
            )
            shown.append(ClassPreview(int(class_id), _link(job, image), thumbnails, *gallery.shape(len(ids))))
    link = _link(job, search.page.relative_to(place).as_posix()) if search.page.is_file() else ""
    return replace(job, state=FINISHED, numbers=_finite(numbers), shown=tuple(shown), link=link)


def _trained(job: SweepJob, place: Path) -> SweepJob:
    """Return the job of a training with its numbers and its learning curve."""
    curve = _curve(place)
    if not is_checkpoint(place):
        return replace(_unfinished(job, place), curve=curve)
    card = read_card(place)
    with whole_card(place):
        numbers = _test_numbers(card)
    return replace(job, state=FINISHED, numbers=_finite(numbers), link=_link(job, "README.md"), curve=curve)


def _test_numbers(card: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the values of the columns of :data:`TRAINED` by their keys."""
    rows = [row for row in card["metrics"] if row["galaxies"]]
    loss, mean = (sum(row[key] * row["galaxies"] for row in rows) for key in ("loss", "mean_loss"))
    galaxies = card["data"].get("test galaxies") or max((row["galaxies"] for row in rows), default=0)
    errors = [row["rmse"] for row in rows if row["rmse"] is not None and math.isfinite(row["rmse"])]
    return {
        "loss": loss / galaxies if rows else None, "gain": 1 - loss / mean if rows and mean else None,
        "rmse": sum(errors) / len(errors) if errors else None, "width": card["width"], "weights": card["weights"],
        "epochs": card["training"].get("epochs done"), "galaxies": galaxies,
    }  # fmt: skip


def _finite(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return numbers without those that are not finite; a damaged file may also hold something else than a number."""
    return {
        key: value if isinstance(value, (int, float)) and math.isfinite(value) else None
        for key, value in numbers.items()
    }


def _curve(place: Path) -> str:
    """Return the validation loss by epoch as points of an SVG line; empty with fewer than two epochs."""
    losses = [epoch["validation/loss"] for epoch in epoch_metrics(place) if "validation/loss" in epoch]
    if len(losses) < 2:
        return ""
    (wide, high), low, span = _CURVE, min(losses), max(max(losses) - min(losses), 1e-12)
    steps = wide / (len(losses) - 1)
    return " ".join(
        f"{at * steps:.1f},{2 + (high - 4) * (1 - (loss - low) / span):.1f}" for at, loss in enumerate(losses)
    )


def _link(job: SweepJob, inner: str) -> str:
    return quote(f"{job.name}/{inner}", errors="surrogateescape")


def _content(path: Path) -> Any:
    """Return the content of a JSON or YAML file; None if it is missing or not complete."""
    try:
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def _part(content: Any, *keys: str) -> Any:
    """Return what nested mappings hold under these keys; empty if there is none, or something else than a mapping."""
    for key in keys:
        content = content.get(key, "") if isinstance(content, dict) else ""
    return content
