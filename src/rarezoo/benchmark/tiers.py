"""What contestants are tried on: planted vectors, mock galaxies, and real galaxies with answers held out.

Shape letters: n galaxies, D features, p populations.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Bool, Float32

from mocksky.edition import picture_edition
from mocksky.populations import BLENDS, PLANTED
from rarezoo import tables
from rarezoo.benchmark.contestants import FEATURES
from rarezoo.benchmark.planted import GENERATION, planted_vectors
from rarezoo.benchmark.scores import Truth
from rarezoo.data.survey import Galaxies
from rarezoo.data.surveys.mock import Mock
from rarezoo.embeddings.judge import DEFAULT_CRITERIA, Criterion
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.searches.recovery import ORDINARY
from rarezoo.searches.result import galaxies_of

_EMBEDDING, _NATIVE, _UNTRAINED, _SHUFFLED, _PHOTOMETRY = FEATURES
# Left out of a tier's settings where they are not used, so that results of before they came go on.
_LATER = ("blends", "shuffled", "generation")
_EDITION_SHOWN = 12
# Beside the four that `rarezoo judge` asks for, the other rare features of Galaxy Zoo 2's Class8.
_ALSO = (Criterion("disturbed", "Class8.3", 0.3), Criterion("dust lane", "Class8.7", 0.3))
_MOST_COMMON = 1 / 20
_SHUFFLED_STORE = "embeddings_shuffled"


@dataclass(frozen=True)
class Sky:
    """Galaxies of one seed: what is known of them, and what contestants may work on.

    Attributes:
        truth: see :class:`rarezoo.benchmark.scores.Truth`.
        embeddings: (n, D).
        measured: where other features are kept or made; None: there are no others.
        shuffled: those by a network with shuffled votes; None: there are none.
    """

    truth: Truth
    embeddings: Float32[np.ndarray, "n D"]
    measured: "Measured | None" = None
    shuffled: "Shuffled | None" = None

    def features(self, kind: str) -> Float32[np.ndarray, "n D"]:
        """Features by kind, one of :data:`FEATURES`.

        Raises:
            ConfigError: there are none of that kind here.
        """
        if kind == _EMBEDDING:
            return self.embeddings
        if kind == _SHUFFLED:
            if self.shuffled is None:
                fix = "Give --shuffled FOLDER with answers, or try this contestant on galaxies."
                raise ConfigError("no network with shuffled votes here", value=kind, fix=fix)
            return self.shuffled.embeddings()
        if self.measured is None:
            raise ConfigError("no such features here", value=kind, fix="Try this contestant on galaxies.")
        return self.measured.features(kind)

    def at_hand(self, kind: str) -> bool:
        """Whether features can be had without training a network for them."""
        return kind != _SHUFFLED or (self.shuffled is not None and self.shuffled.made)


@dataclass(frozen=True)
class Shuffled:
    """Embeddings by a network that learnt the galaxies' votes dealt out blindly.

    Attributes:
        folder: of their store.
        learnt: trains that network and embeds, where the store is not there yet.
    """

    folder: Path
    learnt: Callable[[], EmbeddingStore]

    @property
    def made(self) -> bool:
        """Whether the store is there and whole."""
        try:
            EmbeddingStore.open(self.folder)
        except StoreError:
            return False
        return True

    def embeddings(self) -> Float32[np.ndarray, "n D"]:
        """From the store, which is made if it is not there."""
        store = EmbeddingStore.open(self.folder) if self.made else self.learnt()
        return store.embeddings().astype(np.float32)


@dataclass(frozen=True)
class Measured:
    """Features of galaxies beside their embedding, each measured once.

    Attributes:
        galaxies: with images.
        ids: (n,) of the galaxies that have an embedding.
        checkpoint: folder of the checkpoint whose trunk is used; empty: only photometry is to be had.
        folder: where the features are kept.
    """

    galaxies: Galaxies
    ids: np.ndarray
    checkpoint: str
    folder: Path

    def features(self, kind: str) -> Float32[np.ndarray, "n D"]:
        """By kind."""
        path = self.folder / f"{kind}.npy"
        if not path.exists():
            values = self._photometry() if kind == _PHOTOMETRY else self._seen(untrained=kind == _UNTRAINED)
            with tables.atomic(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, values.astype(np.float32))
        return np.load(path)

    @cached_property
    def _rows(self) -> np.ndarray:
        place = {one: row for row, one in enumerate(self.galaxies.ids)}
        return np.array([place[one] for one in self.ids])

    def _photometry(self) -> Float32[np.ndarray, "n 4"]:
        """Two colours, size and concentration, each of unit variance."""
        from rarezoo.data.photometry import photometry
        from rarezoo.embeddings.judge import BASELINE

        values = photometry(self.galaxies.images, self._rows)[:, : len(BASELINE)]
        spread = values.std(axis=0)
        return values / np.where(spread > 0, spread, 1)

    def _seen(self, *, untrained: bool) -> Float32[np.ndarray, "n D"]:
        if not self.checkpoint:
            raise ConfigError("no network to look with", value="", fix="Give --checkpoint FOLDER.")
        from rarezoo.benchmark.networks import trunk_features, untrained_features

        measure = untrained_features if untrained else trunk_features
        return measure(self.galaxies, self._rows, checkpoint=self.checkpoint)


@dataclass(frozen=True, kw_only=True)
class Tier(ABC):
    """A kind of sky."""

    @abstractmethod
    def sky(self, seed: int, folder: Path) -> Sky:
        """The sky of one seed, made or read again from what is kept in a folder."""

    def prepare(self, seed: int, folder: Path) -> None:  # noqa: B027 (most skies need nothing)
        """Make what several processes make sooner than the one that a sky is tried in, which may start no others."""

    @property
    @abstractmethod
    def features(self) -> Sequence[str]:
        """Kinds of features that contestants may work on."""

    @property
    @abstractmethod
    def generation(self) -> int | str:
        """Of what draws its skies: results on skies of another are not taken for its own. Empty: nothing is drawn."""

    def settings(self) -> dict[str, Any]:
        """What makes it this tier."""
        given = {**asdict(self), "generation": self.generation}
        used = {name: value for name, value in given.items() if value or name not in _LATER}
        return {"tier": TIERS_BY_KIND[type(self)], **used}


@dataclass(frozen=True, kw_only=True)
class Vectors(Tier):
    """Planted vectors: see :mod:`rarezoo.benchmark.planted`."""

    galaxies: int = 30_000
    groups: int = 30
    smallest: int = 20
    largest: int = 2000

    def sky(self, seed: int, folder: Path) -> Sky:
        """Drawn anew, in less than a second."""
        planted = planted_vectors(
            seed, galaxies=self.galaxies, groups=self.groups, smallest=self.smallest, largest=self.largest
        )
        names = [f"group {one}" for one in range(self.groups)]
        about = {"contrast": planted.contrasts.tolist(), "place": planted.places}
        return Sky(Truth.of_groups(planted.groups, names=names, **about), planted.embeddings)

    @property
    def features(self) -> Sequence[str]:
        """The embedding alone."""
        return (_EMBEDDING,)

    @property
    def generation(self) -> int:
        """Of planted vectors."""
        return GENERATION


@dataclass(frozen=True, kw_only=True)
class MockGalaxies(Tier):
    """A mock survey with planted populations that the votes do not name, seen by a network trained on the votes.

    Attributes:
        galaxies: n.
        rarest: galaxies expected of the rarest population; the commonest is 1 in 20.
        checkpoint: of a network that was trained already; empty: one is trained on each sky.
        epochs: of that training, and of one on shuffled votes, where a contestant asks for it.
        blends: plant blends of two features, too.
    """

    galaxies: int = 5000
    rarest: int = 20
    checkpoint: str = ""
    epochs: int = 2
    blends: bool = False

    def sky(self, seed: int, folder: Path) -> Sky:
        """Rendered, trained on, embedded; what is done is kept."""
        from rarezoo.demo import demo_training
        from rarezoo.embeddings.embed import EmbedRun

        survey, checkpoint = self._survey(seed, folder), self.checkpoint
        if not checkpoint:
            training = demo_training(survey, folder / "efficientnet_b0.trained", epochs=self.epochs, seed=seed)
            checkpoint = str(training.run().folder)
        store = EmbedRun(data=survey, checkpoint=checkpoint, out=str(folder / "embeddings")).run()
        galaxies, ids = survey.open(), store.ids
        assert galaxies.truth is not None  # for the type checker: a mock survey knows
        return Sky(
            _planted_populations(galaxies.truth, ids),
            store.embeddings().astype(np.float32),
            Measured(galaxies, ids, checkpoint, folder),
            Shuffled(folder / _SHUFFLED_STORE, partial(self._shuffled, survey, folder, seed=seed)),
        )

    def prepare(self, seed: int, folder: Path) -> None:
        """Rendered on every core, if it is not embedded yet."""
        if not (folder / "embeddings").exists():
            self._survey(seed, folder).render()

    def _survey(self, seed: int, folder: Path) -> Mock:
        return Mock(n=self.galaxies, seed=seed, rates=self.rates(), cache=str(folder / "survey"))

    def _shuffled(self, survey: Mock, folder: Path, *, seed: int) -> EmbeddingStore:
        """The sky as a network sees it that was trained on its votes dealt out blindly."""
        from rarezoo.demo import demo_training
        from rarezoo.embeddings.embed import EmbedRun

        place = folder / "efficientnet_b0.shuffled"
        training = demo_training(survey, place, epochs=self.epochs, seed=seed, shuffle_votes=True)
        return EmbedRun(data=survey, checkpoint=str(training.run().folder), out=str(folder / _SHUFFLED_STORE)).run()

    def rates(self) -> dict[str, float]:
        """Share of galaxies in each population, spaced evenly in the logarithm."""
        planted = [*PLANTED, *(BLENDS if self.blends else ())]
        return dict(zip(planted, np.geomspace(_MOST_COMMON, self.rarest / self.galaxies, len(planted)), strict=True))

    @property
    def features(self) -> Sequence[str]:
        """All."""
        return FEATURES

    @property
    def generation(self) -> str:
        """Of the code that draws cutouts."""
        return picture_edition()[:_EDITION_SHOWN]


@dataclass(frozen=True, kw_only=True)
class KnownAnswers(Tier):
    """A store of real galaxies, and answers of which its network was not told. Seeds are the search's.

    Attributes:
        store: folder.
        answers: a CSV file with the columns id_str and label, a row per known galaxy and label; all other galaxies of
            the store are taken not to have it. Empty: the rare answers of Galaxy Zoo 2, known of some galaxies only.
        checkpoint: folder of the store's checkpoint, for contestants that look with its trunk.
        shuffled: folder of a store of the same galaxies by a network with shuffled votes (train.shuffle_votes=true).
    """

    store: str
    answers: str = ""
    checkpoint: str = ""
    shuffled: str = ""

    def sky(self, seed: int, folder: Path) -> Sky:
        """The same galaxies whatever the seed."""
        store = EmbeddingStore.open(self.store)
        ids = store.ids
        truth = labelled(Path(self.answers), ids) if self.answers else self._asked(store, ids)
        shared = folder.parent / "features"
        images = None if self.answers and not self.checkpoint else self._galaxies(store)
        measured = None if images is None else Measured(images, ids, self.checkpoint, shared)
        return Sky(truth, store.embeddings().astype(np.float32), measured, self._blind(ids))

    def _blind(self, ids: np.ndarray) -> Shuffled | None:
        if not self.shuffled:
            return None
        store = EmbeddingStore.open(self.shuffled)
        found = store.ids
        if not np.array_equal(found, ids):
            raise StoreError(
                "the store by a network with shuffled votes does not hold the galaxies of --store",
                value=f"{self.shuffled}: {len(found)} galaxies, {len(np.intersect1d(found, ids))} of {len(ids)} there",
                fix="Embed the survey of --store with that network.",
            )  # fmt: skip
        return Shuffled(store.folder, lambda: store)

    def _galaxies(self, store: EmbeddingStore) -> Galaxies:
        return galaxies_of(store, way_out="Bring the survey back to where it was when it was embedded.")

    def _asked(self, store: EmbeddingStore, ids: np.ndarray) -> Truth:
        survey = store.manifest.survey
        if survey not in DEFAULT_CRITERIA:
            raise ConfigError("no answers of this survey are known", value=survey, fix="Give --answers FILE.csv.")
        asked = (*DEFAULT_CRITERIA[survey], *_ALSO)
        galaxies = self._galaxies(store)
        place = {one: row for row, one in enumerate(galaxies.ids)}
        rows = np.array([place[one] for one in ids])
        values = np.stack([galaxies.catalogue[one.column].to_numpy()[rows] for one in asked], axis=1).astype(float)
        known = np.isfinite(values)
        members = known & (np.nan_to_num(values) > np.array([one.above for one in asked]))
        return Truth(tuple(one.name for one in asked), members, known, {})

    @property
    def features(self) -> Sequence[str]:
        """All but those by a network with shuffled votes, unless a store of them is given."""
        return [kind for kind in FEATURES if self.shuffled or kind != _SHUFFLED]

    @property
    def generation(self) -> str:
        """None: real galaxies."""
        return ""


TIERS: Mapping[str, type[Tier]] = {"vectors": Vectors, "galaxies": MockGalaxies, "answers": KnownAnswers}
TIERS_BY_KIND = {kind: name for name, kind in TIERS.items()}


def tier_from(settings: Mapping[str, Any]) -> Tier:
    """The tier from :meth:`Tier.settings`."""
    given = {name: value for name, value in settings.items() if name != "generation"}
    return TIERS[given.pop("tier")](**given)


def labelled(path: Path, ids: np.ndarray) -> Truth:
    """Truth from a table of known rare objects: who is not in it has no label.

    Raises:
        DataError: no such table, without the columns id_str and label, or without a galaxy of the store.
    """
    try:
        strings = {name: pa.string() for name in (tables.ID, "label")}
        table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=strings))
        pairs = list(zip(table[tables.ID].to_pylist(), table["label"].to_pylist(), strict=True))
    except (OSError, KeyError, pa.ArrowInvalid) as problem:
        raise DataError(
            "no table of known objects", value=path, fix=f"Give a CSV file with columns {tables.ID} and label."
        ) from problem
    place = {one: row for row, one in enumerate(ids)}
    here = [(place[one], label) for one, label in pairs if one in place]
    if not here:
        raise DataError("no galaxy of the store is in the table", value=path, fix=f"Its {tables.ID} must be theirs.")
    labels = sorted({label for _, label in here})
    members: Bool[np.ndarray, "n p"] = np.zeros((len(ids), len(labels)), dtype=bool)
    for row, label in here:
        members[row, labels.index(label)] = True
    return Truth(tuple(labels), members, np.ones_like(members), {})


def _planted_populations(truth: pa.Table, ids: np.ndarray) -> Truth:
    population_of = dict(zip(truth[tables.ID].to_pylist(), truth[tables.POPULATION].to_pylist(), strict=True))
    populations = np.array([population_of[one] for one in ids], dtype=object)
    names = sorted(set(populations) - {ORDINARY})
    members = populations[:, None] == np.array(names, dtype=object)[None, :]
    return Truth(tuple(names), members, np.ones_like(members), {})
