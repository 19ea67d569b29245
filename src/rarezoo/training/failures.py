"""``rarezoo zoo worst``: the predictions of a checkpoint that the volunteers' votes, or labels, contradict most."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image, ImageDraw

from rarezoo.data.label_answers import kind_of_tree
from rarezoo.data.loaders import CutoutLoader, no_readable_image
from rarezoo.data.own_labels import COUNTS, NUMBER
from rarezoo.data.splits import TEST
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import Settings, choice, setting
from rarezoo.tables import unwritable, write_csv
from rarezoo.training.metrics import Predicted, predictions
from rarezoo.training.objectives.labels import Labels
from rarezoo.zoo.checkpoint import Checkpoint

_TILE, _LINES, _COLUMNS = 150, 55, 10


@dataclass(frozen=True)
class WrongPrediction:
    """A predicted vote fraction beside the observed one.

    Attributes
    ----------
    row, id_str
        Row of the survey and id of the galaxy.
    question
        Name of the question.
    answer
        The answer whose fraction is most wrong, without the name of the question.
    predicted, observed
        Expected and observed vote fraction of that answer.
    volunteers
        Number of votes on the question; 0 for a label.
    """

    row: int
    id_str: str
    question: str
    answer: str
    predicted: float
    observed: float
    volunteers: int


def worst_predictions(
    predicted: Predicted, tree: QuestionTree, *, ids: np.ndarray, count: int
) -> list[WrongPrediction]:
    """Return the predictions whose vote fractions are furthest from the observed ones, equally many of each question.

    Parameters
    ----------
    predicted
        Predicted concentrations and observed votes.
    tree
        The question tree.
    ids
        Ids of all rows of the survey.
    count
        Largest number of predictions; at least one of each question is returned.
    """
    share = max(count // len(tree.questions), 1)
    wrong = []
    for question, part in zip(tree.questions, tree.slices, strict=True):
        votes, alpha = predicted.votes[:, part], predicted.concentrations[:, part]
        totals = votes.sum(axis=1)
        error = alpha / alpha.sum(axis=1, keepdims=True) - votes / np.maximum(totals, 1)[:, None]
        largest = np.where(totals > 0, np.abs(error).max(axis=1), -1.0)
        for place in np.argsort(-largest, kind="stable")[:share]:
            if totals[place] == 0:
                continue
            answer = int(np.abs(error[place]).argmax())
            observed = float(votes[place, answer] / totals[place])
            row = int(predicted.rows[place])
            wrong.append(
                WrongPrediction(
                    row, str(ids[row]), question.name, question.answers[answer].removeprefix(f"{question.name}_"),
                    float(error[place, answer]) + observed, observed, int(totals[place]),
                )
            )  # fmt: skip
    return wrong


def worst_of_test_split(
    checkpoint: Checkpoint, galaxies: Galaxies, *, count: int, workers: int, on_bad_image: str = "stop"
) -> list[WrongPrediction]:
    """Return the worst predictions of the galaxies with votes in the test split of a survey.

    Raises
    ------
    DataError
        The survey has no votes on the checkpoint's questions, none in the test split, or an image cannot be read.
    """
    if galaxies.tree is None or galaxies.tree.answers != checkpoint.tree.answers or galaxies.votes is None:
        raise DataError(
            "the votes of the survey do not answer the questions of the checkpoint", value=checkpoint.tree.name,
            fix="Give the survey that it was trained on: data=NAME data.KEY=VALUE.",
        )  # fmt: skip
    rows = np.intersect1d(galaxies.rows(TEST), np.flatnonzero(galaxies.votes.sum(axis=1) > 0))
    if not len(rows):
        raise DataError(
            "no galaxy with votes or labels in the test split", value=len(galaxies), fix="Use more galaxies."
        )
    loader = CutoutLoader(
        galaxies, rows, view=checkpoint.view, batch_size=256, workers=workers, on_bad_image=on_bad_image
    )
    predicted = predictions(checkpoint.network, loader)
    if not len(predicted.rows):
        raise no_readable_image(TEST, loader.skipped)
    wrong = worst_predictions(predicted, checkpoint.tree, ids=galaxies.ids, count=count)
    kind = kind_of_tree(checkpoint.tree)
    if kind == NUMBER:
        low, high = (float(answer.rpartition("_")[2]) for answer in checkpoint.tree.answers)

        def number(share: float, answer: str) -> float:
            return low + (high - low) * (share if float(answer) == high else 1 - share)

        wrong = [
            replace(
                prediction, answer="", predicted=number(prediction.predicted, prediction.answer),
                observed=number(prediction.observed, prediction.answer),
            )
            for prediction in wrong
        ]  # fmt: skip
    return wrong if kind in (None, COUNTS) else [replace(one, volunteers=0) for one in wrong]


def with_labels_of(checkpoint: Checkpoint, galaxies: Galaxies, labels: str) -> Galaxies:
    """Return the galaxies that have a label, with the splits with which a checkpoint was finetuned on these labels.

    Raises
    ------
    ConfigError
        The labels lie in a file that is not named.
    DataError
        The labels cannot be used.
    """
    training, about = checkpoint.card.get("training", {}), checkpoint.card.get("labels", {})
    if not labels and about.get("source") != "the table of labels":
        raise ConfigError(
            f"the checkpoint {checkpoint.name} was finetuned on labels", value=about.get("source", "unknown"),
            fix="Name the table of the labels: labels=FILE.",
        )  # fmt: skip
    kept = ("label", "id_column", "validation_share", "test_share", "split_seed")
    given = {name: training[f"objective.{name}"] for name in kept if f"objective.{name}" in training}
    objective = Labels(labels=labels, kind=about.get("kind", "auto"), balance="none", **given)
    return objective.prepare(objective.select(galaxies))


def contact_sheet(wrong: list[WrongPrediction], galaxies: Galaxies, checkpoint: Checkpoint) -> Image.Image:
    """Draw the part of each cutout that the network saw, with the prediction and the votes below it."""
    lines = -(-len(wrong) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, lines * (_TILE + _LINES)), "black")
    pen = ImageDraw.Draw(sheet)
    for place, prediction in enumerate(wrong):
        left, top = place % _COLUMNS * _TILE, place // _COLUMNS * (_TILE + _LINES)
        cutout = Image.fromarray(galaxies.images.cutout(prediction.row))
        margin = (1 - 1 / checkpoint.encoder.zoom) / 2 * cutout.width
        box = (margin, margin, cutout.width - margin, cutout.height - margin)
        sheet.paste(cutout.resize((_TILE - 2, _TILE - 2), box=box), (left, top))
        voted = f"voted {prediction.observed:.2f} of {prediction.volunteers}"
        numbers = (
            f"{prediction.predicted:.2f}, {voted if prediction.volunteers else f'label {prediction.observed:.2f}'}"
        )
        texts = (prediction.question[:24], prediction.answer[:24], numbers, prediction.id_str[:24])
        for line, text in enumerate(texts):
            pen.text((left + 2, top + _TILE + 13 * line), text, fill="white")
    return sheet


@dataclass(kw_only=True)
class WorstPredictions(Settings):
    """Show the galaxies of the test split whose votes, or labels, contradict a checkpoint most.

    The result is a picture of what the network saw, and a CSV table beside it.
    """

    checkpoint: str = setting(help="checkpoint: a name below checkpoints/, or a folder", positional=True)
    data: Survey | None = setting(
        None, "the survey that it was trained on; null = the one that its card names, with default settings"
    )
    labels: str = setting("", "table of the labels, or folder, for a checkpoint that was finetuned on labels")
    count: int = setting(100, "number of predictions, shared equally by the questions", ge=1)
    out: str = setting("worst.webp", "picture to write; its ending says the format, such as .webp or .png")
    workers: int = setting(2, "processes that decode images", ge=0)

    def check(self) -> None:
        """Raise ConfigError for a name that is not one of a picture."""
        if Path(self.out).suffix.lower() not in Image.registered_extensions():
            raise ConfigError("no kind of picture", value=self.out, fix="Choose a name that ends in .webp or .png.")

    def run(self) -> str:
        """Write the picture and the table, and return a sentence that names them.

        Raises
        ------
        CheckpointError, ConfigError, DataError, OutputError
            The checkpoint or its survey cannot be opened, or the picture cannot be written.
        """
        checkpoint, picture = Checkpoint.open(self.checkpoint), Path(self.out)
        survey = self.data or _survey_of(checkpoint)
        galaxies = survey.open()
        if kind_of_tree(checkpoint.tree) is not None:
            galaxies = with_labels_of(checkpoint, galaxies, self.labels)
        wrong = worst_of_test_split(
            checkpoint, galaxies, count=self.count, workers=self.workers, on_bad_image=survey.on_bad_image
        )
        try:
            picture.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(wrong, galaxies, checkpoint).save(picture)
            write_csv(pa.Table.from_pandas(pd.DataFrame(wrong), preserve_index=False), picture.with_suffix(".csv"))
        except (OSError, ValueError) as problem:
            raise unwritable(picture, problem if isinstance(problem, OSError) else OSError(str(problem))) from problem
        return f"{len(wrong)} of the worst predictions of {checkpoint.name}: {picture}"


def _survey_of(checkpoint: Checkpoint) -> Survey:
    """Return the survey that a checkpoint's card names, with the default settings.

    Raises
    ------
    ConfigError
        The card names none, or it has no defaults.
    """
    name = str(checkpoint.card.get("data", {}).get("survey", ""))
    try:
        survey: Survey = choice("data", name)()
    except (ConfigError, TypeError) as problem:
        raise ConfigError(
            "the survey of the checkpoint is not known", value=name or checkpoint.name,
            fix="Give it with its settings: data=NAME data.KEY=VALUE.",
        ) from problem  # fmt: skip
    return survey
