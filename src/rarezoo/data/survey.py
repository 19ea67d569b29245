"""A survey and its galaxies: ids, catalogue, cutouts and, where there are any, votes."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from rarezoo import tables
from rarezoo.data.duplicates import fingerprints, near_identical
from rarezoo.data.identity import images_identity
from rarezoo.data.images import ImageSource, StoredImages, TakenImages
from rarezoo.data.splits import joined_splits, split_of
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.runs import Stamped, digest, fingerprint, relocated
from rarezoo.settings import Settings, choice, described, name_of, setting


class Outline(NamedTuple):
    """Number of galaxies of a survey, and the hash :attr:`Galaxies.sha256`."""

    rows: int
    sha256: str


@dataclass(frozen=True, repr=False)
class Galaxies:
    """The galaxies of an opened survey, in a fixed order.

    Attributes
    ----------
    catalogue
        CATALOGUE table of n rows, its ``split`` column filled.
    images
        Cutouts by row.
    tree
        Question tree of the votes; None if there are no votes.
    votes
        (n, answers) float32, 0 where an answer got no vote or was not asked; None if there are no votes.
    truth
        TRUTH table, only of mock surveys: the planted population of each galaxy.
    known_sha256
        Hash of the galaxies, if the survey has computed it without them; empty: it is computed when it is needed.
    """

    catalogue: pa.Table
    images: ImageSource
    tree: QuestionTree | None = None
    votes: Float32[np.ndarray, "galaxies answers"] | None = None
    truth: pa.Table | None = None
    known_sha256: str = ""

    def __len__(self) -> int:
        return int(self.catalogue.num_rows)

    def __repr__(self) -> str:
        votes = f", votes of tree {self.tree.name}" if self.tree is not None else ""
        return f"Galaxies({len(self):,} galaxies{votes}{', truth' if self.truth is not None else ''})"

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the galaxies, an object array (n,) of texts."""
        return tables.strings(self.catalogue, tables.ID)

    def rows(self, split: str) -> Int64[np.ndarray, " rows"]:
        """Return the rows of a split: ``train``, ``validation`` or ``test``."""
        return np.flatnonzero(tables.strings(self.catalogue, tables.SPLIT) == split)

    @cached_property
    def sha256(self) -> str:
        """Hash of ids, image names, votes and truth, in order: equal hashes mean equal galaxies."""
        if self.known_sha256:
            return self.known_sha256
        state = hashlib.sha256()
        for column in (tables.ID, tables.IMAGE):
            texts = map(str, self.catalogue.column(column).to_pylist())
            # A text that holds the separator itself is written otherwise, so that one id is never taken for two.
            state.update("\n".join(f"\0{text!r}" if "\n" in text else text for text in texts).encode())
        if self.votes is not None:
            state.update(np.ascontiguousarray(self.votes).tobytes())
        if self.truth is not None:
            state.update("\n".join(self.truth.column(tables.POPULATION).to_pylist()).encode())
        return state.hexdigest()

    @cached_property
    def measured_from(self) -> str:
        """Short hash for the names of files with what was measured of the images; it changes when an image does."""
        images = self.images_identity()
        return digest({"survey": self.sha256, "images": images.stamp or images.read()})[:16]

    def images_identity(self, rows: Sequence[int] | np.ndarray | None = None) -> Stamped:
        """Return what the images of some rows are, or of all: see :func:`rarezoo.data.identity.images_identity`."""
        return images_identity(self.images, self.ids, np.arange(len(self)) if rows is None else rows)

    def identity(self) -> dict[str, Any]:
        """Return what a run that reads galaxies and images depends on, as inputs of :func:`rarezoo.runs.claim`."""
        votes = None if self.votes is None else fingerprint(self.votes, ids=self.ids)
        tree = None if self.tree is None else digest(self.tree.to_dict())
        ids = digest({"ids": self.ids.tolist()})
        return {"ids": ids, "votes": votes, "question tree": tree, "images": self.images_identity()}

    def first(self, galaxies: int) -> "Galaxies":
        """Return the first galaxies of the survey."""
        if galaxies >= len(self):
            return self
        return replace(
            self,
            known_sha256="",
            catalogue=self.catalogue.slice(0, galaxies),
            votes=None if self.votes is None else self.votes[:galaxies],
            truth=None if self.truth is None else self.truth.slice(0, galaxies),
        )

    def take(self, rows: Int64[np.ndarray, " m"]) -> "Galaxies":
        """Return some of the galaxies, in the order that is given."""
        at = pa.array(rows)
        return replace(
            self,
            known_sha256="",
            catalogue=self.catalogue.take(at),
            images=TakenImages(self.images, rows),
            votes=None if self.votes is None else self.votes[rows],
            truth=None if self.truth is None else self.truth.take(at),
        )

    def with_splits(self, splits: np.ndarray) -> "Galaxies":
        """Return the same galaxies with another split column, an object array (n,)."""
        column = self.catalogue.column_names.index(tables.SPLIT)
        return replace(self, catalogue=self.catalogue.set_column(column, tables.SPLIT, pa.array(splits, pa.string())))


def catalogue_table(
    ids: Sequence[str],
    images: Sequence[str],
    *,
    survey: str | pa.ChunkedArray,
    source: str,
    ra: Sequence[float] | pa.Array | pa.ChunkedArray | None = None,
    dec: Sequence[float] | pa.Array | pa.ChunkedArray | None = None,
    columns: pa.Table | None = None,
) -> pa.Table:
    """Build the CATALOGUE table of a survey, its ``split`` column still empty.

    Parameters
    ----------
    ids
        Ids of n galaxies, each once.
    images
        Name of each galaxy's image.
    survey
        Name of the survey, or a column of names.
    source
        Where the galaxies come from, for messages.
    ra, dec
        Position in degrees; None if it is unknown.
    columns
        Other columns of the survey, all of which are kept. A column whose name the CATALOGUE table uses for something
        else becomes ``NAME_given``.

    Returns
    -------
    pyarrow.Table
        Table of n rows.

    Examples
    --------
    >>> table = catalogue_table(["a"], ["a.jpg"], survey="mine", source="mine.csv", columns=pa.table({"mag": [17.5]}))
    >>> table.column_names
    ['id_str', 'ra', 'dec', 'image', 'survey', 'split', 'mag']
    """
    unknown, count = pa.nulls(len(ids), pa.float64()), len(ids)
    required = {
        tables.ID: pa.array(ids, pa.string()),
        tables.RA: unknown if ra is None else ra,
        tables.DEC: unknown if dec is None else dec,
        tables.IMAGE: pa.array(images, pa.string()),
        tables.SURVEY: pa.array([survey] * count, pa.string()) if isinstance(survey, str) else survey,
        tables.SPLIT: pa.nulls(count, pa.string()),
    }
    other = {} if columns is None else {name: columns[name] for name in columns.column_names}
    kept = {f"{name}_given" if name in required else name: column for name, column in other.items()}
    return tables.check(pa.table({**required, **kept}), tables.CATALOGUE, source=source)


@dataclass(kw_only=True)
class Survey(Settings, ABC):
    """A source of galaxies; each subclass is one choice of ``data=``.

    The split of a galaxy is decided by a hash of its id alone, so new rows never move old ones. Opening a survey
    changes none of its settings: it can be opened again, from the same object.

    A new kind of survey is a dataclass with :meth:`_read`, registered with ``@option("data", "name")`` in a module of
    ``rarezoo.data.surveys``, or in another package with an entry point of the group ``rarezoo.surveys``.

    Attributes
    ----------
    path_settings
        Names of the settings that are paths, so that :meth:`settings` records them as absolute paths.
    """

    path_settings: ClassVar[tuple[str, ...]] = ()

    validation_share: float = setting(0.15, "share of galaxies that are held out for early stopping", ge=0, lt=1)
    test_share: float = setting(0.15, "share of galaxies that are held out for the numbers on the card", ge=0, lt=1)
    group_duplicates: bool = setting(True, "whether training keeps near-identical images in one split")
    on_bad_image: str = setting(
        "stop", "what an unreadable image causes: stop, or skip and list the galaxy", choices=("stop", "skip")
    )
    limit: int = setting(0, "number of galaxies to use, from the first; 0 = all", unit="galaxies", ge=0)

    def check(self) -> None:
        """Raise ConfigError if the splits leave no galaxy to train on."""
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                "the shares of validation and test must leave some galaxies to train on",
                value=(self.validation_share, self.test_share),
                fix="Set data.validation_share and data.test_share to less, for example 0.15 each.",
            )

    @abstractmethod
    def _read(self) -> Galaxies:
        """Read the whole survey; its ``split`` column stays empty."""

    def open(self) -> Galaxies:
        """Open the survey and decide the split of each galaxy.

        Returns
        -------
        Galaxies
            The galaxies, their ``split`` column filled.

        Raises
        ------
        DataError
            The survey cannot be used as it is.
        """
        galaxies = self._read()
        if not len(galaxies):
            raise DataError("the survey has no galaxy", value=name_of(type(self)), fix="Give it at least one row.")
        if isinstance(galaxies.images, StoredImages):
            galaxies.images.check_scale()
        galaxies = galaxies.first(self.limit) if self.limit else galaxies
        return galaxies.with_splits(self._splits(galaxies.ids))

    def _splits(self, ids: np.ndarray) -> np.ndarray:
        return split_of(ids, validation_share=self.validation_share, test_share=self.test_share)

    def outline(self) -> "Outline":
        """Return number and hash of the galaxies; a survey in partitions finds them without holding all in memory."""
        galaxies = self.open()
        return Outline(len(galaxies), galaxies.sha256)

    def open_at(self, rows: Int64[np.ndarray, " m"]) -> Galaxies:
        """Open some of the galaxies, in the order that is given.

        Parameters
        ----------
        rows
            (m,) rows of the survey. A survey that is not in partitions is opened as a whole first.
        """
        return self.open().take(rows)

    @property
    def in_partitions(self) -> bool:
        """Whether :meth:`open_at` reads only what it is asked for."""
        return False

    def training_galaxies(self, *, cache: Path | None = None) -> Galaxies:
        """Open the survey for training: near-identical images are in the same split.

        Parameters
        ----------
        cache
            Folder that keeps the fingerprints of the images for the next time.
        """
        return self.grouped(self.open(), cache=cache)

    def grouped(self, galaxies: Galaxies, *, cache: Path | None = None) -> Galaxies:
        """Return the opened survey for training; see :meth:`training_galaxies`."""
        if not self.group_duplicates:
            return galaxies
        kept = cache / f"fingerprints-{galaxies.measured_from}.npy" if cache else None
        groups = near_identical(fingerprints(galaxies.images, len(galaxies), cache=kept))
        splits = tables.strings(galaxies.catalogue, tables.SPLIT)
        return galaxies.with_splits(joined_splits(splits, galaxies.ids, groups))

    def settings(self) -> dict[str, Any]:
        """Return the settings from which :func:`open_survey` makes the same survey, from any working folder."""
        return {**described(self), **self._absolute_paths()}

    def places(self) -> list[str]:
        """Return the names of the settings that only say where something lies; its content is what counts."""
        return [name for name, value in self.settings().items() if isinstance(value, str) and Path(value).is_absolute()]

    def _absolute_paths(self) -> dict[str, str]:
        """Return the settings that are paths, as absolute paths; empty ones are left out."""
        values = {name: getattr(self, name) for name in self.path_settings}
        return {name: str(Path(value).resolve()) for name, value in values.items() if value}


@dataclass(kw_only=True)
class FileSurvey(Survey):
    """A survey whose images are files of any kind, with the settings that say how they are read."""

    pixel_range: list[float] = setting(
        [], "the two values that become black and white, for images that are not of 8 bits; empty: their type decides"
    )
    allow_outside: bool = setting(
        False, "whether image names and links may lead to files outside of the place of the images"
    )

    def check(self) -> None:
        """Raise ConfigError if the values of black and white are not two numbers that differ."""
        super().check()
        values = self.pixel_range
        numbers = all(isinstance(value, (int, float, np.number)) for value in values)
        if len(values) and not (numbers and len(values) == 2 and np.isfinite(values).all() and values[0] < values[1]):
            raise ConfigError(
                "data.pixel_range needs two numbers, black and white", value=list(values),
                fix="Give the smaller number first, such as data.pixel_range=[0,1].",
            )  # fmt: skip


def open_survey(settings: Mapping[str, Any], *, recorded_in: str = "", folder: Path | str = "") -> Survey:
    """Make a survey from the settings that :meth:`Survey.settings` returned.

    Parameters
    ----------
    settings
        Settings of the survey.
    recorded_in, folder
        Folder that recorded the settings, as it was then and as it is now: a survey that was moved together with it is
        found again.

    Examples
    --------
    >>> open_survey({"option": "mock", "n": 100}).n
    100
    """
    kept = {key: value for key, value in settings.items() if key != "option"}
    kind = choice("data", str(settings.get("option", "")))
    unknown = sorted(set(kept) - {known.name for known in fields(kind)})
    if unknown:
        raise DataError(
            f"the recorded survey {settings['option']} has settings that do not exist", value=", ".join(unknown),
            fix="Name the survey (data=…), or bring back the file that recorded it as it was.",
        )  # fmt: skip
    for key, value in kept.items():
        if isinstance(value, str) and Path(value).is_absolute() and not Path(value).exists():
            kept[key] = relocated(value, recorded_in=recorded_in, folder=folder)
    return kind(**kept)
