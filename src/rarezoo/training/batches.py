"""Batches of the three splits of a survey for one training, as Lightning's data module."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
from jaxtyping import Int64

from rarezoo.data.loaders import CutoutLoader, EpochOrder
from rarezoo.data.splits import TRAIN, VALIDATION
from rarezoo.data.survey import Galaxies
from rarezoo.training.frozen import FeatureDataset, FrozenFeatures
from rarezoo.training.module import TrainSettings
from rarezoo.training.objective import targets_of
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.views import inference_view, training_cutout


class Batches(pl.LightningDataModule):
    """The loader of each split, made when it is first needed; it can resume within an epoch.

    Parameters
    ----------
    galaxies
        The survey with the targets.
    rows
        Rows of each split.
    encoder, settings
        The architecture, which decides the size of the images, and how it is trained.
    seed
        Seed of the order of the training split.
    on_bad_image
        What an unreadable image does: ``stop`` or ``skip``.
    features
        Features of a frozen trunk, which are in the batches instead of images; None: the images.
    weights_of
        Function of rows that returns the share of an epoch in which each is shown; see
        :meth:`rarezoo.training.objective.Objective.sampling_weights`.
    """

    def __init__(
        self,
        galaxies: Galaxies,
        rows: Mapping[str, Int64[np.ndarray, " rows"]],
        *,
        encoder: Encoder,
        settings: TrainSettings,
        seed: int,
        on_bad_image: str,
        features: FrozenFeatures | None = None,
        weights_of: Callable[[np.ndarray], np.ndarray | None] = lambda rows: None,
    ) -> None:
        super().__init__()
        self.weights_of = weights_of
        self.features = features
        self.galaxies, self.rows, self.encoder, self.settings = galaxies, rows, encoder, settings
        self.seed, self.on_bad_image = seed, on_bad_image
        self._loaders: dict[str, CutoutLoader] = {}
        self._resumed: dict[str, Any] | None = None

    def loader(self, split: str) -> CutoutLoader:
        """Return the loader of a split; that of the training split has a random order and its own view."""
        if split not in self._loaders:
            side, zoom = self.encoder.input_size, self.encoder.zoom
            rows, features = self.rows[split], None
            if self.features is not None:
                features = FeatureDataset(self.features, rows, targets_of(self.galaxies))
                rows = features.rows
            order = None
            if split == TRAIN:
                # Only the trainer knows how many processes there are, for example with all visible GPUs.
                rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
                order = EpochOrder(len(rows), seed=self.seed, rank=rank, world=world, weights=self.weights_of(rows))
            # The view that only turns is complete after decoding, but for the turn.
            random_part = split == TRAIN and self.settings.view == "zoobot"
            self._loaders[split] = CutoutLoader(
                self.galaxies,
                rows,
                view=(training_cutout if random_part else inference_view)(side, zoom=zoom),
                batch_size=min(self.settings.batch_size, len(self.rows[TRAIN])),
                workers=self.settings.workers,
                on_bad_image=self.on_bad_image,
                order=order,
                cutouts=features,
                split=split if split in (TRAIN, VALIDATION) else "",
            )
        return self._loaders[split]

    def train_dataloader(self) -> CutoutLoader:
        """Return the loader of the training split, which continues where a resumed training stopped."""
        loader = self.loader(TRAIN)
        if self._resumed is not None:
            loader.load_state_dict(self._resumed)
            self._resumed = None
        return loader

    def val_dataloader(self) -> CutoutLoader:
        """Return the loader of the validation split."""
        return self.loader(VALIDATION)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many batches of it were used."""
        return dict(self.loader(TRAIN).state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._resumed = state

    @property
    def skipped(self) -> list[str]:
        """Ids of galaxies whose images could not be read, in all splits, sorted."""
        without_features = self.features.skipped if self.features is not None else ()
        return sorted({*without_features, *(galaxy for loader in self._loaders.values() for galaxy in loader.skipped)})

    def image_loader(self, split: str) -> CutoutLoader:
        """Return a loader of images in the order of the survey, also where training goes over features."""
        return CutoutLoader(
            self.galaxies, self.rows[split], view=inference_view(self.encoder.input_size, zoom=self.encoder.zoom),
            batch_size=min(self.settings.batch_size, len(self.rows[TRAIN])), workers=self.settings.workers,
            on_bad_image=self.on_bad_image,
        )  # fmt: skip
