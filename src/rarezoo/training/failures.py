"""``rarezoo worst``: the predictions of a checkpoint that volunteers contradict most, to be looked at."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image, ImageDraw

from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.splits import TEST
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import choice
from rarezoo.tables import atomic, unwritable
from rarezoo.training.metrics import Predicted, predictions
from rarezoo.zoo.checkpoint import Checkpoint

_TILE, _LINES, _COLUMNS = 150, 55, 10


@dataclass(frozen=True)
class Failure:
    """One prediction beside what volunteers said.

    Attributes:
        row: of the survey.
        id_str: the galaxy's id.
        question: its name.
        answer: the answer that is most wrong, in short.
        predicted: its expected vote fraction.
        observed: its vote fraction.
        volunteers: how many answered the question.
    """

    row: int
    id_str: str
    question: str
    answer: str
    predicted: float
    observed: float
    volunteers: int


def worst_predictions(predicted: Predicted, tree: QuestionTree, *, ids: np.ndarray, count: int) -> list[Failure]:
    """The galaxies whose vote fractions are furthest from the predicted ones, as many of each question.

    Args:
        predicted: concentrations and votes.
        tree: the question tree.
        ids: of every row of the survey.
        count: how many to return at most.
    """
    share = max(count // len(tree.questions), 1)
    found = []
    for question, part in zip(tree.questions, tree.slices, strict=True):
        votes, alpha = predicted.votes[:, part], predicted.concentrations[:, part]
        totals = votes.sum(axis=1)
        error = alpha / alpha.sum(axis=1, keepdims=True) - votes / np.maximum(totals, 1)[:, None]
        worst = np.where(totals > 0, np.abs(error).max(axis=1), -1.0)
        for place in np.argsort(-worst, kind="stable")[:share]:
            if totals[place] == 0:
                continue
            answer = int(np.abs(error[place]).argmax())
            observed = float(votes[place, answer] / totals[place])
            row = int(predicted.rows[place])
            found.append(
                Failure(
                    row, str(ids[row]), question.name, question.answers[answer].removeprefix(f"{question.name}_"),
                    float(error[place, answer]) + observed, observed, int(totals[place]),
                )
            )  # fmt: skip
    return found


def failures_of_test_split(checkpoint: Checkpoint, galaxies: Galaxies, *, count: int, workers: int) -> list[Failure]:
    """The worst predictions of the galaxies with votes in the survey's test split.

    Raises:
        DataError: the survey has no votes for the checkpoint's questions, or none in the test split.
    """
    if galaxies.tree is None or galaxies.tree.answers != checkpoint.tree.answers or galaxies.votes is None:
        raise DataError(
            "the survey's votes do not answer the checkpoint's questions", value=checkpoint.tree.name,
            fix="Name the survey it was trained on: --survey NAME --set KEY=VALUE.",
        )  # fmt: skip
    rows = np.intersect1d(galaxies.rows(TEST), np.flatnonzero(galaxies.votes.sum(axis=1) > 0))
    if not len(rows):
        raise DataError("no galaxy with votes in the test split", value=len(galaxies), fix="Use more galaxies.")
    loader = CutoutLoader(galaxies, rows, view=checkpoint.view, batch_size=256, workers=workers)
    said = predictions(checkpoint.network, loader)
    return worst_predictions(said, checkpoint.tree, ids=galaxies.ids, count=count)


def failures_sheet(failures: list[Failure], galaxies: Galaxies, checkpoint: Checkpoint) -> Image.Image:
    """What the network saw of each, with question, answer, predicted and observed fraction and volunteers below."""
    lines = -(-len(failures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, lines * (_TILE + _LINES)), "black")
    pen = ImageDraw.Draw(sheet)
    for place, one in enumerate(failures):
        left, top = place % _COLUMNS * _TILE, place // _COLUMNS * (_TILE + _LINES)
        cutout = Image.fromarray(galaxies.images.cutout(one.row))
        margin = (1 - 1 / checkpoint.encoder.zoom) / 2 * cutout.width
        box = (margin, margin, cutout.width - margin, cutout.height - margin)
        sheet.paste(cutout.resize((_TILE - 2, _TILE - 2), box=box), (left, top))
        said = f"{one.predicted:.2f}, voted {one.observed:.2f} of {one.volunteers}"
        for line, text in enumerate((one.question[:24], one.answer[:24], said, one.id_str[:24])):
            pen.text((left + 2, top + _TILE + 13 * line), text, fill="white")
    return sheet


def add_worst_verb(verbs: Any) -> None:
    """``rarezoo worst`` for the command line."""
    parser = verbs.add_parser("worst", help="a checkpoint's worst predictions, as a picture to look at")
    parser.add_argument("checkpoint", help="name below checkpoints/, or folder")
    parser.add_argument("--survey", default="", help="data= choice; empty: the one it was trained on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="the survey's settings")
    parser.add_argument("--count", type=int, default=100, help="how many, shared by the questions")
    parser.add_argument("--out", default="worst.webp", help="picture to write; a CSV table is written beside it")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    parser.set_defaults(run=_worst)


def _worst(options: argparse.Namespace) -> None:
    picture = Path(options.out)
    if picture.suffix.lower() not in Image.registered_extensions():
        raise ConfigError("no kind of picture", value=options.out, fix="Give --out a name that ends in .webp or .png.")
    checkpoint = Checkpoint.open(options.checkpoint)
    galaxies = _survey(options.survey or checkpoint.card["data"]["survey"], options.set).open()
    failures = failures_of_test_split(checkpoint, galaxies, count=options.count, workers=options.workers)
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        failures_sheet(failures, galaxies, checkpoint).save(picture)
        with atomic(picture.with_suffix(".csv")) as temporary:
            pd.DataFrame(failures).to_csv(temporary, index=False)
    except (OSError, ValueError) as problem:
        raise unwritable(picture, problem if isinstance(problem, OSError) else OSError(str(problem))) from problem
    print(f"{len(failures)} of {checkpoint.name}'s worst predictions: {picture}")


def _survey(name: str, settings: list[str]) -> Survey:
    """The survey of ``data=name`` with KEY=VALUE settings, read as the doors read them."""
    try:
        config = OmegaConf.merge(OmegaConf.structured(choice("data", name)), OmegaConf.from_dotlist(settings))
        survey: Any = OmegaConf.to_object(config)
    except OmegaConfBaseException as problem:
        first = str(problem).splitlines()[0]
        raise ConfigError(f"data={name} cannot be set up ({first})", value=settings, fix="Mend --set.") from problem
    return survey
