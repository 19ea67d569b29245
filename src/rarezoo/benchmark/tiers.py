"""The data that methods are tried on: planted vectors, mock galaxies, and real galaxies with held-out answers.

Shape letters: n galaxies, D features, p populations.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from mocksky.edition import picture_edition
from mocksky.populations import BLENDS, PLANTED
from rarezoo import tables
from rarezoo.benchmark.methods import FEATURES
from rarezoo.benchmark.planted import GENERATION, NORMAL, planted_vectors
from rarezoo.benchmark.scores import Truth
from rarezoo.cache import kept_array
from rarezoo.data.photometry import COLUMNS, photometry
from rarezoo.data.reading import ids_of, matched_rows, read_any_table
from rarezoo.data.survey import Galaxies
from rarezoo.data.surveys.gz2 import C5
from rarezoo.data.surveys.mock import Mock
from rarezoo.embeddings.answers import DEFAULT_CRITERIA, Criterion
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, DataNotFound, StoreError
from rarezoo.runs import file_sha256
from rarezoo.searches.recovery import ORDINARY
from rarezoo.searches.result import galaxies_of
from rarezoo.zoo.cards import find_checkpoint, identity, read_card

log = logging.getLogger(__name__)
_EMBEDDING, _NATIVE, _UNTRAINED, _SHUFFLED, _PHOTOMETRY = FEATURES
# Left out of the settings of a tier where they have these values, so that older results stay valid.
_LATER = {"blends": False, "shuffled": "", "generation": "", "bulk": NORMAL}
_EDITION_SHOWN = 12
# Columns of the photometry that make the baseline: two colours, half-light radius, concentration.
_BASELINE = COLUMNS[:4]
_LABEL = "label"
# Beside the four that `rarezoo judge` asks for, the other rare features of Galaxy Zoo 2's Class8, and the odd galaxies
# of the full votes, which are known of seven times as many galaxies.
ODD = Criterion("odd (c5)", C5, equals="odd")
_ALSO = (Criterion("disturbed", "Class8.3", 0.3), Criterion("dust lane", "Class8.7", 0.3), ODD)
# Must grow when the rare answers of Galaxy Zoo 2 change, so that older results are not compared with new ones.
_ANSWERS_GENERATION = 2
_MOST_COMMON = 1 / 20
_SHUFFLED_STORE = "embeddings_shuffled"


@dataclass(frozen=True)
class Sky:
    """The galaxies of one seed: their known populations, and the features that methods may work on.

    Attributes
    ----------
    truth
        See :class:`rarezoo.benchmark.scores.Truth`.
    embeddings
        (n, D) embeddings.
    measured
        Other features, measured when they are needed; None if there are no others.
    shuffled
        Features of a network that was trained on shuffled votes; None if there are none.
    """

    truth: Truth
    embeddings: Float32[np.ndarray, "n D"]
    measured: "Measured | None" = None
    shuffled: "Shuffled | None" = None

    def features(self, kind: str) -> Float32[np.ndarray, "n D"]:
        """Return the features of one kind of :data:`FEATURES`.

        Raises
        ------
        ConfigError
            There are no features of this kind here.
        """
        if kind == _EMBEDDING:
            return self.embeddings
        if kind == _SHUFFLED:
            if self.shuffled is None:
                fix = "Give shuffled=FOLDER with answers, or use this method on the tier galaxies."
                raise ConfigError("no network with shuffled votes here", value=kind, fix=fix)
            return self.shuffled.embeddings()
        if self.measured is None:
            raise ConfigError("no such features here", value=kind, fix="Use this method on the tier galaxies.")
        return self.measured.features(kind)

    def is_available(self, kind: str) -> bool:
        """Return whether features exist, or can be made without training a network."""
        return kind != _SHUFFLED or (self.shuffled is not None and self.shuffled.made)


@dataclass(frozen=True)
class Shuffled:
    """Embeddings by a network that was trained on the votes of the galaxies in random order.

    Attributes
    ----------
    folder
        Folder of their store.
    learnt
        Function that trains the network and embeds, called if the store does not exist.
    """

    folder: Path
    learnt: Callable[[], EmbeddingStore]

    @property
    def made(self) -> bool:
        """Return whether the store exists and is complete."""
        try:
            EmbeddingStore.open(self.folder)
        except StoreError:
            return False
        return True

    def embeddings(self) -> Float32[np.ndarray, "n D"]:
        """Return the embeddings of the store, which is made if it does not exist."""
        store = EmbeddingStore.open(self.folder) if self.made else self.learnt()
        return store.embeddings().astype(np.float32)


@dataclass(frozen=True)
class Measured:
    """Features of galaxies other than their embedding; each is measured once.

    Attributes
    ----------
    galaxies
        Survey with images.
    ids
        (n,) ids of the galaxies that have an embedding.
    checkpoint
        Folder of the checkpoint whose trunk is used; empty: only photometry is available.
    folder
        Folder in which the features are kept.
    """

    galaxies: Galaxies
    ids: np.ndarray
    checkpoint: str
    folder: Path

    def features(self, kind: str) -> Float32[np.ndarray, "n D"]:
        """Return the features of one kind."""

        def measure() -> Float32[np.ndarray, "n D"]:
            values = self._photometry() if kind == _PHOTOMETRY else self._seen(untrained=kind == _UNTRAINED)
            return values.astype(np.float32)

        return kept_array(self.folder / f"{kind}.npy", measure)

    @cached_property
    def _rows(self) -> np.ndarray:
        return tables.rows_of(self.ids, self.galaxies.catalogue, source="the survey")

    def _photometry(self) -> Float32[np.ndarray, "n 4"]:
        """Return two colours, size and concentration, each scaled to unit variance."""
        values = photometry(self.galaxies.images, self._rows, skip_unreadable=True)[:, : len(_BASELINE)]
        values = with_medians(values, self.ids)
        spread = values.std(axis=0)
        return values / np.where(spread > 0, spread, 1)

    def _seen(self, *, untrained: bool) -> Float32[np.ndarray, "n D"]:
        if not self.checkpoint:
            raise ConfigError("no network for these features", value="checkpoint=", fix="Give checkpoint=FOLDER.")
        from rarezoo.benchmark.networks import trunk_features, untrained_features

        measure = untrained_features if untrained else trunk_features
        return with_medians(measure(self.galaxies, self._rows, checkpoint=self.checkpoint), self.ids)


def with_medians(values: Float32[np.ndarray, "n D"], ids: np.ndarray) -> Float32[np.ndarray, "n D"]:
    """Return features in which galaxies whose image cannot be read, rows of NaN, have the median of all others.

    They were embedded when their images could still be read, so all methods must be given features of them. A warning
    says how many there are.

    Raises
    ------
    DataError
        No image can be read.

    Examples
    --------
    >>> with_medians(np.array([[1.0], [3.0]], dtype=np.float32), np.array(["J1", "J2"])).ravel().tolist()
    [1.0, 3.0]
    """
    unreadable = np.isnan(values).any(axis=1)
    if unreadable.all():
        raise DataError(
            "no image can be read", value=f"{len(values)} galaxies", fix="Bring the images back to where they were."
        )
    if unreadable.any():
        examples = ", ".join(map(str, ids[unreadable][:3]))
        log.warning(
            "%d of %d images cannot be read; these galaxies get the median features: %s", unreadable.sum(), len(values),
            examples,
        )  # fmt: skip
    return np.where(unreadable[:, None], np.nanmedian(values, axis=0), values).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Tier(ABC):
    """A kind of data with known answers."""

    @abstractmethod
    def sky(self, seed: int, folder: Path) -> Sky:
        """Return the sky of one seed; it is made, or read from the folder in which it was kept."""

    def prepare(self, seed: int, folder: Path) -> None:  # noqa: B027 (most skies need nothing)
        """Make the parts of a sky that need several processes; the process of a trial may not start others."""

    @property
    @abstractmethod
    def features(self) -> Sequence[str]:
        """Return the kinds of features that methods may work on."""

    @property
    @abstractmethod
    def generation(self) -> int | str:
        """Return the generation of the code that draws the skies; results of another generation are not used."""

    def inputs(self) -> dict[str, Any]:
        """Return what the tier is made from besides its settings: hashes, by the names of the settings that say where.

        Raises
        ------
        CheckpointError, StoreError, DataError
            An input is missing.
        """
        return {}

    def settings(self) -> dict[str, Any]:
        """Return the settings that define the tier."""
        values = {**asdict(self), "generation": self.generation}
        used = {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}
        return {"tier": TIERS_BY_KIND[type(self)], **used}


@dataclass(frozen=True, kw_only=True)
class Vectors(Tier):
    """Planted vectors; see :mod:`rarezoo.benchmark.planted`."""

    galaxies: int = 30_000
    groups: int = 30
    smallest: int = 20
    largest: int = 2000
    bulk: str = NORMAL

    def sky(self, seed: int, folder: Path) -> Sky:
        """Draw the vectors, which takes less than a second."""
        planted = planted_vectors(
            seed, galaxies=self.galaxies, groups=self.groups, smallest=self.smallest, largest=self.largest,
            bulk=self.bulk,
        )  # fmt: skip
        names = [f"group {number}" for number in range(self.groups)]
        about = {"contrast": planted.contrasts.tolist(), "place": planted.places}
        return Sky(Truth.of_groups(planted.groups, names=names, **about), planted.embeddings)

    @property
    def features(self) -> Sequence[str]:
        """Return the embedding alone."""
        return (_EMBEDDING,)

    @property
    def generation(self) -> int:
        """Return the generation of the planted vectors."""
        return GENERATION


@dataclass(frozen=True, kw_only=True)
class MockGalaxies(Tier):
    """A mock survey with planted populations that the votes do not name, seen by a network trained on the votes.

    Attributes
    ----------
    galaxies
        Size of the survey, n.
    rarest
        Expected size of the rarest population; the most common one is 1 in 20.
    checkpoint
        Checkpoint of a trained network; empty: a network is trained on each sky.
    epochs
        Number of epochs of that training, and of the training on shuffled votes if a method needs it.
    blends
        Also plant blends of two features.
    turns
        Number of orientations over which an embedding is averaged: 1, 2, 4 or 8.
    """

    galaxies: int = 5000
    rarest: int = 20
    checkpoint: str = ""
    epochs: int = 2
    blends: bool = False
    turns: int = 1

    def sky(self, seed: int, folder: Path) -> Sky:
        """Render the sky, train on it and embed it; every finished part is kept."""
        from rarezoo.training.short import short_training

        survey, checkpoint = self._survey(seed, folder), self.checkpoint
        if not checkpoint:
            training = short_training(survey, folder / "efficientnet_b0.trained", epochs=self.epochs, seed=seed)
            checkpoint = str(training.run().folder)
        store = self._embedded(survey, checkpoint, folder / "embeddings")
        galaxies, ids = survey.open(), store.ids
        assert galaxies.truth is not None  # for the type checker: a mock survey knows
        return Sky(
            _planted_populations(galaxies.truth, ids),
            store.embeddings().astype(np.float32),
            Measured(galaxies, ids, checkpoint, folder),
            Shuffled(folder / _SHUFFLED_STORE, partial(self._shuffled, survey, folder, seed=seed)),
        )

    def inputs(self) -> dict[str, Any]:
        """Return the identity of the checkpoint."""
        return {"checkpoint": _checkpoint_sha256(self.checkpoint)}

    def prepare(self, seed: int, folder: Path) -> None:
        """Render the sky on every core, if it is not embedded yet."""
        if not (folder / "embeddings").exists():
            self._survey(seed, folder).render()

    def _survey(self, seed: int, folder: Path) -> Mock:
        return Mock(n=self.galaxies, seed=seed, rates=self.rates(), cache=str(folder / "survey"))

    def _shuffled(self, survey: Mock, folder: Path, *, seed: int) -> EmbeddingStore:
        """Embed the sky with a network that was trained on its votes in random order."""
        from rarezoo.training.short import short_training

        place = folder / "efficientnet_b0.shuffled"
        training = short_training(survey, place, epochs=self.epochs, seed=seed, shuffle_votes=True)
        return self._embedded(survey, str(training.run().folder), folder / _SHUFFLED_STORE)

    def _embedded(self, survey: Mock, checkpoint: str, folder: Path) -> EmbeddingStore:
        from rarezoo.embeddings.embed import EmbedRun

        return EmbedRun(data=survey, checkpoint=checkpoint, turns=self.turns, out=str(folder)).run()

    def rates(self) -> dict[str, float]:
        """Return the share of galaxies in each population, evenly spaced in the logarithm."""
        planted = [*PLANTED, *(BLENDS if self.blends else ())]
        return dict(zip(planted, np.geomspace(_MOST_COMMON, self.rarest / self.galaxies, len(planted)), strict=True))

    @property
    def features(self) -> Sequence[str]:
        """Return all kinds."""
        return FEATURES

    @property
    def generation(self) -> str:
        """Return the edition of the code that draws cutouts."""
        return picture_edition()[:_EDITION_SHOWN]


@dataclass(frozen=True, kw_only=True)
class KnownAnswers(Tier):
    """A store of real galaxies, and answers that its network was not trained on. Seeds are those of the search.

    Attributes
    ----------
    store
        Folder of the store.
    answers
        A CSV file with the columns id_str and label, one row per known galaxy and label; all other galaxies of the
        store are taken not to have the label. Empty: the rare answers of Galaxy Zoo 2, which some galaxies have.
    checkpoint
        Folder of the checkpoint of the store, for methods that use its trunk.
    shuffled
        Folder of a store of the same galaxies by a network with shuffled votes (train.shuffle_votes=true).
    """

    store: str
    answers: str = ""
    checkpoint: str = ""
    shuffled: str = ""

    def sky(self, seed: int, folder: Path) -> Sky:
        """Return the same galaxies for every seed."""
        store = EmbeddingStore.open(self.store)
        ids = store.ids
        truth = labelled(Path(self.answers), ids) if self.answers else self._rare_answers(store, ids)
        shared = folder.parent / "features"
        images = None if self.answers and not self.checkpoint else self._galaxies(store)
        measured = None if images is None else Measured(images, ids, self.checkpoint, shared)
        return Sky(truth, store.embeddings().astype(np.float32), measured, self._shuffled(ids))

    def inputs(self) -> dict[str, Any]:
        """Return the identity of the stores, the answers and the checkpoint."""
        if self.answers and not Path(self.answers).is_file():
            raise DataNotFound("no table of known objects", value=self.answers, fix="Give answers=FILE.csv.")
        store = EmbeddingStore.open(self.store)
        if not self.answers:
            _refuse_unknown_survey(store)
        return {
            "store": store.identity,
            "answers": file_sha256(self.answers) if self.answers else None,
            "checkpoint": _checkpoint_sha256(self.checkpoint),
            "shuffled": EmbeddingStore.open(self.shuffled).identity if self.shuffled else None,
        }

    def _shuffled(self, ids: np.ndarray) -> Shuffled | None:
        if not self.shuffled:
            return None
        store = EmbeddingStore.open(self.shuffled)
        ids_there = store.ids
        if not np.array_equal(ids_there, ids):
            shared = len(np.intersect1d(ids_there, ids))
            raise StoreError(
                "the store by a network with shuffled votes does not hold the galaxies of store= in the same order",
                value=f"{self.shuffled}: {len(ids_there)} galaxies, {shared} of {len(ids)} shared",
                fix="Embed the survey of store= with that network.",
            )  # fmt: skip
        return Shuffled(store.folder, lambda: store)

    def _galaxies(self, store: EmbeddingStore) -> Galaxies:
        return galaxies_of(store, way_out="Bring the survey back to where it was when it was embedded.")

    def _rare_answers(self, store: EmbeddingStore, ids: np.ndarray) -> Truth:
        survey = store.manifest.survey
        _refuse_unknown_survey(store)
        catalogue = self._galaxies(store).catalogue
        # The full votes are in a file of their own, which may be missing.
        asked = [kind for kind in (*DEFAULT_CRITERIA[survey], *_ALSO) if kind != ODD or C5 in catalogue.column_names]
        rows = tables.rows_of(ids, catalogue, source="the survey")
        values = np.stack([answer.values(catalogue)[rows] for answer in asked], axis=1)
        known = np.isfinite(values)
        members = known & (np.nan_to_num(values) > np.array([answer.threshold for answer in asked]))
        return Truth(tuple(answer.name for answer in asked), members, known, {})

    @property
    def features(self) -> Sequence[str]:
        """Return all kinds; those by a network with shuffled votes only if a store of them is given."""
        return [kind for kind in FEATURES if self.shuffled or kind != _SHUFFLED]

    @property
    def generation(self) -> int | str:
        """Return the generation of the rare answers; nothing for a table of answers, because nothing is drawn."""
        return "" if self.answers else _ANSWERS_GENERATION


def _refuse_unknown_survey(store: EmbeddingStore) -> None:
    """Raise ConfigError if no rare answers of the survey of a store are known."""
    if store.manifest.survey not in DEFAULT_CRITERIA:
        fix = "Give answers=FILE.csv."
        raise ConfigError("no answers of this survey are known", value=store.manifest.survey, fix=fix)


def _checkpoint_sha256(checkpoint: str) -> str | None:
    return identity(read_card(find_checkpoint(checkpoint))) if checkpoint else None


TIERS: Mapping[str, type[Tier]] = {"vectors": Vectors, "galaxies": MockGalaxies, "answers": KnownAnswers}
TIERS_BY_KIND = {kind: name for name, kind in TIERS.items()}


def tier_from(settings: Mapping[str, Any]) -> Tier:
    """Make the tier from the dictionary that :meth:`Tier.settings` returns."""
    values = {name: value for name, value in settings.items() if name != "generation"}
    return TIERS[values.pop("tier")](**values)


def labelled(path: Path, ids: np.ndarray) -> Truth:
    """Read a table of known rare objects; galaxies that are not in it have no label.

    Raises
    ------
    DataError
        There is no such table, it lacks the columns id_str and label, or it has no galaxy of the store.
    """
    table = read_any_table(path, text=(tables.ID, _LABEL))
    absent = {tables.ID, _LABEL} - set(table.column_names)
    if absent or table.column(_LABEL).null_count:
        raise DataError(
            "no table of known objects", value=f"{path}: {', '.join(sorted(absent)) or 'rows without a label'}",
            fix=f"It needs the columns {tables.ID} and {_LABEL}, filled in every row.",
        )  # fmt: skip
    listed, labels_of = ids_of(table, tables.ID, source=str(path)), map(str, table.column(_LABEL).to_pylist())
    known = list(dict.fromkeys(listed))
    rows = matched_rows(
        known, list(ids), source=str(path), other_source="the store",
        fix=f"Its column {tables.ID} must hold the ids of the store.",
    )  # fmt: skip
    row_of = dict(zip(known, rows.tolist(), strict=True))
    here = [(row_of[galaxy], label) for galaxy, label in zip(listed, labels_of, strict=True) if row_of[galaxy] >= 0]
    labels = sorted({label for _, label in here})
    members: Bool[np.ndarray, "n p"] = np.zeros((len(ids), len(labels)), dtype=bool)
    for row, label in here:
        members[row, labels.index(label)] = True
    return Truth(tuple(labels), members, np.ones_like(members), {})


def _planted_populations(truth: pa.Table, ids: np.ndarray) -> Truth:
    populations = tables.strings(tables.aligned(truth, ids, source="the truth of the mock survey"), tables.POPULATION)
    names = sorted(set(populations) - {ORDINARY})
    members = populations[:, None] == np.array(names, dtype=object)[None, :]
    return Truth(tuple(names), members, np.ones_like(members), {})
