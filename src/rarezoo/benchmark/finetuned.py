"""Contestants of the few-labels board that see images: finetuned networks, and Zoobot's own finetuning.

Each is given the same labelled galaxies and predicts the same others. A share of the labelled galaxies is used for
early stopping, by all of them the same.

Shape letters: n galaxies, m galaxies that are predicted.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from tqdm.auto import tqdm

from rarezoo.benchmark.few_labels import Task
from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.own_labels import OwnLabels
from rarezoo.data.splits import TRAIN, VALIDATION
from rarezoo.data.survey import Survey
from rarezoo.errors import DataError, MissingDependency
from rarezoo.settings import choice
from rarezoo.training.finetune import RECIPES, finetune
from rarezoo.training.frozen import frozen_features
from rarezoo.training.metrics import predictions
from rarezoo.zoo.encoder import Encoder, encoder_of_start
from rarezoo.zoo.network import BottleneckNetwork, blank_network, build_network
from rarezoo.zoo.views import TurnedView, inference_view

_BATCH = 64
# Of the labelled galaxies, the share with which training is stopped.
VALIDATION_SHARE = 0.2


class ImageContestant(ABC):
    """A method that learns from images."""

    @abstractmethod
    def probabilities(self, task: Task) -> Float64[np.ndarray, " m"]:
        """Return the predicted probability of the galaxies that are wanted."""


@dataclass(frozen=True)
class Finetuned(ImageContestant):
    """A network that :func:`rarezoo.finetune` makes.

    Attributes
    ----------
    model
        Architecture, start and input size, as settings of :class:`~rarezoo.zoo.encoder.Encoder` by name, and
        ``architecture``.
    trained
        ``frozen``, ``last`` or ``all``.
    settings
        Settings of the training that replace those of the recipe.

    Examples
    --------
    >>> Finetuned({"start": "efficientnet_b0.gz2"}).trained
    'frozen'
    """

    model: Mapping[str, Any]
    trained: str = "frozen"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, task: Task) -> Float64[np.ndarray, " m"]:
        """Finetune and predict."""
        survey = _survey_of(task)
        # What an earlier draw left there.
        shutil.rmtree(task.scratch, ignore_errors=True)
        settings, frozen = dict(self.settings), bool(RECIPES[self.trained].get("freeze_trunk"))
        if frozen:
            settings.setdefault("cache", str(task.scratch.parent / "features"))
        encoder = encoder_of_start(encoder_of(self.model), given=self.model)
        checkpoint = finetune(
            encoder, survey, task.labels, out=task.scratch, trained=self.trained, seed=task.seed,
            objective={"validation_share": VALIDATION_SHARE, "test_share": 0.0}, **settings,
        )  # fmt: skip
        return _predicted(checkpoint.network, checkpoint.encoder, task, cache=settings["cache"] if frozen else "")


@dataclass(frozen=True)
class ZoobotClassifier(ImageContestant):
    """Zoobot's ``FinetuneableZoobotClassifier`` on an encoder: its head, loss, optimiser and layer decay.

    The loop over batches is ours, because zoobot's trainer is of another package of the same Lightning; it stops early
    by the same rule and returns to the best epoch, as Zoobot's trainer does.

    Attributes
    ----------
    model
        As that of :class:`Finetuned`; the encoder is the trunk, whose output is Zoobot's feature.
    mode
        ``full`` or ``head_only``, in Zoobot's words.
    learning_rate
        Zoobot's default is 1e-4, for more epochs than are affordable here.
    epochs, patience, batch_size
        Largest number of epochs, epochs without a better validation loss, galaxies in a step.
    """

    model: Mapping[str, Any]
    mode: str = "full"
    learning_rate: float = 1e-4
    epochs: int = 100
    patience: int = 10
    batch_size: int = 32

    def probabilities(self, task: Task) -> Float64[np.ndarray, " m"]:
        """Finetune as Zoobot does, and predict."""
        try:
            from zoobot.pytorch.training.finetune import FinetuneableZoobotClassifier
        except ImportError as problem:
            # Zoobot itself is installed with rarezoo, but not what its classes for training import.
            raise MissingDependency("lightning", extra="benchmark", purpose="Zoobot's finetuning") from problem
        encoder = encoder_of_start(encoder_of(self.model), given=self.model)
        torch.manual_seed(task.seed)
        network = _started(encoder)
        classifier = FinetuneableZoobotClassifier(
            num_classes=2, encoder=network.trunk, training_mode=self.mode, learning_rate=self.learning_rate,
            prog_bar=False, seed=task.seed,
        )  # fmt: skip
        survey = _survey_of(task)
        galaxies = survey.open()
        place = {galaxy: row for row, galaxy in enumerate(galaxies.ids)}
        splits = task.labels.splits(VALIDATION_SHARE, 0.0)
        images, truth = {}, {}
        for split in (TRAIN, VALIDATION):
            ids = task.labels.ids[splits == split]
            images[split] = _images(survey, np.array([place[galaxy] for galaxy in ids]), encoder)
            truth[split] = torch.from_numpy(task.labels.values[splits == split, 0].astype(np.int64))
        self._fit(classifier, images, truth)
        wanted = _images(survey, np.array([place[galaxy] for galaxy in task.wanted]), encoder)
        with torch.inference_mode():
            logits = torch.cat([classifier(part.float() / 255) for part in wanted.split(_BATCH)])
        return np.asarray(logits.softmax(dim=1)[:, 1].numpy(), dtype=np.float64)

    def _fit(self, classifier: Any, images: Mapping[str, torch.Tensor], truth: Mapping[str, torch.Tensor]) -> None:
        """Train with Zoobot's steps until the validation loss no longer falls, and keep the best weights."""
        optimiser, view = classifier.configure_optimizers(), TurnedView()
        best, since, kept = np.inf, 0, None
        for _ in tqdm(range(self.epochs), desc="Zoobot's finetuning", leave=False):
            classifier.train()
            if self.mode == "head_only":
                classifier.encoder.eval()
            order = torch.randperm(len(truth[TRAIN]))
            for chosen in order.split(self.batch_size):
                if len(chosen) == 1 and len(order) > 1:
                    continue
                optimiser.zero_grad()
                batch = {"image": view(images[TRAIN][chosen]), "label": truth[TRAIN][chosen]}
                classifier.training_step(batch, 0)["loss"].backward()
                optimiser.step()
            classifier.eval()
            with torch.inference_mode():
                batch = {"image": images[VALIDATION].float() / 255, "label": truth[VALIDATION]}
                loss = float(classifier.validation_step(batch, 0)["loss"])
            if loss < best:
                best, since = loss, 0
                kept = {name: value.clone() for name, value in classifier.state_dict().items()}
            else:
                since += 1
            if since > self.patience:
                break
        if kept is not None:
            classifier.load_state_dict(kept)
        classifier.eval()


def _survey_of(task: Task) -> Survey:
    if task.survey is None:
        raise DataError(
            "contestants that see images need the survey of the store", value="a store without a survey",
            fix="Embed the survey with rarezoo, or leave these contestants out.",
        )  # fmt: skip
    return task.survey


def encoder_of(model: Mapping[str, Any]) -> Encoder:
    """Return the encoder of settings by name; ``architecture`` is that of rarezoo, by default EfficientNetB0.

    >>> encoder_of({"input_size": 64}).input_size
    64
    """
    settings = {name: value for name, value in model.items() if name != "architecture"}
    encoder: Encoder = choice("model", model.get("architecture", "efficientnet_b0"))(**settings)
    return encoder


def _started(encoder: Encoder) -> BottleneckNetwork:
    """Return a network with the initial weights of an encoder."""
    from rarezoo.data.label_answers import label_tree

    tree = label_tree(OwnLabels.read({"a": 1, "b": 0}))
    return blank_network(encoder, answers=2) if encoder.start == "none" else build_network(encoder, tree)


def _images(survey: Survey, rows: Int64[np.ndarray, " n"], encoder: Encoder) -> torch.Tensor:
    """Return the images of rows as the network sees them, in the order of the rows."""
    galaxies = replace(survey.open(), votes=None, tree=None)
    view = inference_view(encoder.input_size, zoom=encoder.zoom)
    loader = CutoutLoader(galaxies, rows, view=view, batch_size=_BATCH, workers=0, on_bad_image="stop")
    return torch.cat([batch.images for batch in loader])


def _predicted(network: BottleneckNetwork, encoder: Encoder, task: Task, *, cache: str) -> Float64[np.ndarray, " m"]:
    """Return the probabilities of the galaxies that are wanted; the features of a frozen trunk are kept in a cache."""
    galaxies = replace(_survey_of(task).open(), votes=None, tree=None)
    place = {galaxy: row for row, galaxy in enumerate(galaxies.ids)}
    rows = np.array([place[galaxy] for galaxy in task.wanted])
    if cache:
        found = frozen_features(network, galaxies, rows, encoder=encoder, turns=1, cache=Path(cache), workers=0)
        with torch.inference_mode():
            features = torch.from_numpy(found.of(rows)[:, 0]).float()
            alpha = network.without_trunk().eval()(features).concentrations.numpy().astype(np.float64)
    else:
        view = inference_view(encoder.input_size, zoom=encoder.zoom)
        loader = CutoutLoader(galaxies, rows, view=view, batch_size=_BATCH, workers=0, on_bad_image="stop")
        alpha = predictions(network, loader).concentrations.astype(np.float64)
    return np.asarray(alpha[:, 0] / alpha.sum(axis=1))
