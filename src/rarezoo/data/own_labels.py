"""Labels of one's own: what a user knows about some galaxies, as 0/1, classes, tags, a number or counts of votes.

Labels come from a column of a table, a mapping, or a folder with one sub-folder of images per class. A galaxy without a
label is unknown, which is not the same as 0.

Shape letters: n galaxies, c columns (one for a yes/no label and a number; otherwise one per class, tag or answer).
"""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from rarezoo import tables
from rarezoo.data.matching import EXTENSIONS, Folder
from rarezoo.data.reading import ids_of, matched_rows, no_column, parquet_files, plain_columns, read_any_table
from rarezoo.data.splits import TEST, TRAIN, VALIDATION, split_of
from rarezoo.errors import ConfigError, DataError

log = logging.getLogger(__name__)
BINARY, CLASSES, TAGS, NUMBER, COUNTS = KINDS = ("binary", "classes", "tags", "number", "counts")
AUTO = "auto"
# The ratings of the rating page: the file of their database, and the columns by which an export of them is known.
RATINGS_FILE = "labels.sqlite"
_OF_RATINGS = {tables.ID, tables.LABEL, tables.VALUE, tables.BY}
# What reads them, found by its name when there are ratings: their database is in a package above this one.
_RATINGS_READER = "rarezoo.prediction.ratings:rated"
# Files by which a search and an embedding store are known, whose own tables are no labels.
_OWN_FOLDERS = ("run.json", "manifest.json")
# How people write yes and no.
_YES, _NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")
_UNKNOWN = ("", "nan", "none", "null", "na", "n/a", "?", "unknown", "unsure")
_ID_COLUMNS, _SEPARATORS = (tables.ID, "id"), ";|"
# Strata of at most this many galaxies are split by rank, so that each split gets its share.
_FEW = 200
_BINS, _SHOWN = 5, 5


@dataclass(frozen=True)
class OwnLabels:
    """Labels of n galaxies.

    Attributes
    ----------
    ids : (n,) object array of str
        Ids, each one once.
    kind : str
        ``binary`` (yes or no), ``classes`` (one of several), ``tags`` (any of several), ``number``, or ``counts``
        (votes per answer).
    names : tuple of str
        Names of the columns: classes, tags or answers; the name of the label for ``binary`` and ``number``.
    values : (n, c) array of float32
        NaN is unknown. ``binary`` (n, 1) of 0 and 1; ``classes`` one 1 in each row; ``tags`` of 0 and 1; ``number``
        (n, 1); ``counts`` votes.
    source : str
        Where they come from, for messages.
    unmatched : tuple of str
        Ids of labels that :meth:`for_ids` found no galaxy for.

    Examples
    --------
    >>> labels = OwnLabels.read({"J1": 1, "J2": 0, "J3": None}, label="ring")
    >>> labels.kind, labels.names, labels.values.ravel().tolist()
    ('binary', ('ring',), [1.0, 0.0, nan])
    >>> OwnLabels.read({"J1": "spiral", "J2": "ring"}).names
    ('ring', 'spiral')
    """

    ids: np.ndarray
    kind: str
    names: tuple[str, ...]
    values: Float32[np.ndarray, "n c"]
    source: str = "labels"
    unmatched: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Raise DataError for values that the kind cannot have."""
        if self.kind not in KINDS:
            raise ConfigError("unknown kind of labels", value=self.kind, fix=f"Choose one of: {', '.join(KINDS)}.")
        known = self.values[np.isfinite(self.values)]
        if self.kind in (BINARY, CLASSES, TAGS) and not np.isin(known, (0, 1)).all():
            raise DataError(
                f"{self.source}: labels that are neither 0 nor 1",
                value=known[~np.isin(known, (0, 1))][0],
                fix="Write 0 and 1, and leave unknown ones empty; for a measured value say kind=number.",
            )
        if self.kind == COUNTS and (known < 0).any():
            raise DataError(f"{self.source}: counts of votes below 0", value=known.min(), fix="Correct the counts.")
        if np.isinf(self.values).any():
            raise DataError(f"{self.source}: infinite labels", value="inf", fix="Leave unknown labels empty.")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def read(
        cls,
        source: "OwnLabels | Mapping[str, Any] | pa.Table | Any | Path | str",
        *,
        label: str | Sequence[str] = "",
        kind: str = AUTO,
        id_column: str = "",
    ) -> "OwnLabels":
        """Read labels.

        Parameters
        ----------
        source : mapping, table, Path or str
            A mapping from ids to labels; a table (of Arrow or pandas, or a file: CSV, Parquet, FITS, VOTable, ECSV)
            with a column of ids; a folder with one sub-folder of images per class, whose ids are the names of the
            images without extension; or ratings: a database of the rating page, the folder of a search or store that
            holds one (``labels.sqlite``), or a file that ``rarezoo labels export`` wrote.
        label : str or sequence of str
            Column of the label, or several (also with commas between them): tags or counts. By default ``label``, or
            the only column beside the ids. For a mapping the name of the label; for ratings what was judged, by
            default ``interesting``: a galaxy is one of the label if the mean over people is above one half.
        kind : str
            What the labels are; ``auto`` decides by their values: 0/1, true/false, yes/no are ``binary``; other texts
            are ``classes``; lists of texts are ``tags``; other numbers are a ``number``; several columns are ``tags``
            if they hold 0 and 1, and ``counts`` if they hold larger whole numbers.
        id_column : str
            Column of ids; by default ``id_str`` or ``id``.

        Raises
        ------
        DataError
            There is no such file or column, labels do not fit their kind, or two rows of one galaxy contradict.
        ConfigError
            There is no such kind.
        """
        if isinstance(source, OwnLabels):
            return source
        if kind not in (AUTO, *KINDS):
            raise ConfigError("unknown kind of labels", value=kind, fix=f"Choose one of: {', '.join((AUTO, *KINDS))}.")
        names = tuple(label.split(",") if isinstance(label, str) else label)
        names = tuple(name.strip() for name in names if name.strip())
        if isinstance(source, Mapping):
            ids, columns = [str(galaxy) for galaxy in source], {", ".join(names) or "label": list(source.values())}
            return _labels(ids, columns, kind=kind, source="the labels")
        if isinstance(source, (str, Path)):
            path = Path(source)
            if is_ratings(path):
                rated: OwnLabels = resolve_name(_RATINGS_READER)(path, names)
                return rated
            if any((path / name).is_file() for name in _OWN_FOLDERS):
                raise DataError(
                    "nothing was rated in this folder of rarezoo",
                    value=path,
                    fix=f"Rate galaxies (rarezoo serve {path}), or give a table with ids and labels.",
                )
            if path.is_dir() and not parquet_files(path):
                ids, classes = _sorted_images(path)
                return _labels(ids, {", ".join(names) or "label": classes}, kind=CLASSES, source=str(path))
            texts = {id_column} if id_column else set(_ID_COLUMNS)
            table, shown = read_any_table(path, text=lambda name: name in texts), str(path)
        else:
            table = source if isinstance(source, pa.Table) else pa.Table.from_pandas(source, preserve_index=False)
            table, shown = plain_columns(table), "the table of labels"
        id_column = id_column or next((name for name in _ID_COLUMNS if name in table.column_names), tables.ID)
        ids = ids_of(table, id_column, source=shown, setting_name="id_column")
        chosen = _label_columns(table, names, id_column=id_column, source=shown)
        return _labels(ids, {name: table[name].to_pylist() for name in chosen}, kind=kind, source=shown)

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        """(n,) whether anything is known about a galaxy; a galaxy without any vote is unknown."""
        finite = np.isfinite(self.values)
        if self.kind == COUNTS:
            return np.asarray(np.nansum(np.where(finite, self.values, 0), axis=1) > 0)
        return np.asarray(finite.any(axis=1))

    @property
    def strata(self) -> Int64[np.ndarray, " n"]:
        """(n,) number of the group that a galaxy is in when groups should be alike; −1 if it is unknown.

        It is the class, the rarest tag, the answer with most votes, or the fifth of the range of a number.
        """
        filled = np.where(np.isfinite(self.values), self.values, 0)
        if self.kind == NUMBER:
            edges = np.quantile(filled[self.known, 0], np.arange(1, _BINS) / _BINS) if self.known.any() else []
            groups = np.searchsorted(edges, filled[:, 0])
        elif self.kind == TAGS:
            rarity = np.where(filled > 0, filled.sum(axis=0)[None, :], np.inf)
            groups = np.where(filled.any(axis=1), rarity.argmin(axis=1) + 1, 0)
        else:
            groups = filled[:, 0] if self.kind == BINARY else filled.argmax(axis=1)
        return np.where(self.known, groups, -1).astype(np.int64)

    def for_ids(self, ids: Sequence[str] | np.ndarray, *, of: str = "the store") -> "OwnLabels":
        """Return the labels of a survey's or a store's galaxies, in their order; NaN for those without a label.

        Labels of galaxies that are not there are reported in the log, with their number and the first of them, and are
        listed in ``unmatched``.

        Parameters
        ----------
        ids : sequence of m ids
            Galaxies, each one once.
        of : str
            What they are the galaxies of, for messages.

        Raises
        ------
        DataError
            No label belongs to any of the galaxies.

        Examples
        --------
        >>> OwnLabels.read({"J1": 1, "J2": 0}).for_ids(["J2", "J3", "J1"]).values.ravel().tolist()
        [0.0, nan, 1.0]
        """
        if not len(self):
            raise DataError(f"{self.source} has no label", value="0 rows", fix="Label some galaxies.")
        galaxies = [str(galaxy) for galaxy in ids]
        rows = matched_rows(
            galaxies,
            self.ids.tolist(),
            source=of,
            other_source=self.source,
            fix=f"Give labels of the galaxies of {of}, or name the column of ids.",
        )
        there = set(galaxies)
        unmatched = tuple(galaxy for galaxy in self.ids[self.known].tolist() if galaxy not in there)
        if unmatched:
            log.warning(
                "%d of %d labelled galaxies of %s are not in %s and are left out: %s",
                len(unmatched),
                int(self.known.sum()),
                self.source,
                of,
                _listed(unmatched),
            )
        values = np.full((len(galaxies), self.values.shape[1]), np.nan, dtype=np.float32)
        values[rows >= 0] = self.values[rows[rows >= 0]]
        return replace(self, ids=np.array(galaxies, dtype=object), values=values, unmatched=unmatched)

    def splits(self, validation: float = 0.15, test: float = 0.2, seed: int = 0) -> np.ndarray:
        """Return the split of each galaxy by a hash of its id: ``train``, ``validation`` or ``test``.

        Each class (see :attr:`strata`) with at most 200 galaxies is divided by the rank of the hash, so that every
        split gets its share of it, as far as there are enough; larger ones by the hash itself, which leaves a galaxy in
        its split when others are added.

        Parameters
        ----------
        validation, test : float
            Shares of the labelled galaxies.
        seed : int
            Another seed gives other splits.

        Returns
        -------
        numpy.ndarray
            (n,) object array; empty text for a galaxy without a label.

        Examples
        --------
        >>> labels = OwnLabels.read({f"J{number}": number % 2 for number in range(20)})
        >>> Counter(labels.splits().tolist()) == Counter(train=14, test=4, validation=2)
        True
        """
        if validation < 0 or test < 0 or validation + test >= 1:
            raise ConfigError(
                "shares of the splits must be at least 0 and together less than 1",
                value=f"{validation}, {test}",
                fix="Choose for example validation=0.15 test=0.2.",
            )
        names = [f"{seed}/{galaxy}" if seed else str(galaxy) for galaxy in self.ids]
        splits, strata = np.full(len(self), "", dtype=object), self.strata
        for stratum in np.unique(strata[strata >= 0]):
            rows = np.flatnonzero(strata == stratum)
            if len(rows) > _FEW:
                chosen = [names[row] for row in rows]
                splits[rows] = split_of(chosen, validation_share=validation, test_share=test)
                continue
            order = sorted(rows, key=lambda row: hashlib.sha256(names[row].encode()).digest())
            # Training comes first, then the test, then validation, when there are fewer galaxies than splits.
            tested = min(max(round(test * len(rows)), int(test > 0)), max(len(rows) - 1, 0))
            validated = min(max(int(validation * len(rows)), int(validation > 0)), max(len(rows) - tested - 1, 0))
            splits[rows] = TRAIN
            splits[order[:tested]] = TEST
            splits[order[tested : tested + validated]] = VALIDATION
        return splits

    def splits_for(
        self, ids: Sequence[str] | np.ndarray, *, validation: float = 0.15, test: float = 0.2, seed: int = 0
    ) -> np.ndarray:
        """Return the splits of a survey's or a store's galaxies; empty text for those without a label.

        They are those of :meth:`splits` among *all* labels, also those of galaxies that are not there. A galaxy is
        therefore in the same split in every survey and store, and what a network was trained on is not in the test
        split of its predictions.

        Parameters
        ----------
        ids : sequence of m ids
        validation, test, seed
            See :meth:`splits`.

        Examples
        --------
        >>> labels = OwnLabels.read({f"J{number}": number % 2 for number in range(20)})
        >>> labels.splits_for(["J7", "other"]).tolist() == [labels.splits()[7], ""]
        True
        """
        split = dict(zip(self.ids.tolist(), self.splits(validation, test, seed), strict=True))
        return np.array([split.get(str(galaxy), "") for galaxy in ids], dtype=object)

    def usable(self) -> "OwnLabels":
        """Return the labels that something can be learnt from, or say why nothing can.

        Classes and tags with fewer than two members are left out with a warning: their galaxies, or their column,
        become unknown.

        Raises
        ------
        DataError
            Nothing is known, all galaxies have the same label, a label has fewer than two galaxies on either side, or a
            number has a single value.
        """
        known = self.values[self.known]
        if not len(known):
            raise DataError(f"{self.source} has no label", value=f"0 of {len(self)}", fix="Label some galaxies.")
        if self.kind == NUMBER:
            if len(known) < 3 or np.ptp(known) == 0:
                raise DataError(
                    f"{self.source}: too few different values of {self.names[0]} to learn from",
                    value=f"{len(np.unique(known))} in {len(known)} galaxies",
                    fix="Give at least three galaxies that differ.",
                )
            return self
        if self.kind == BINARY:
            yes, no = int((known == 1).sum()), int((known == 0).sum())
            if min(yes, no) < 2:
                raise DataError(
                    f"{self.source}: {_one_sided(yes, no)} ({self.names[0]})",
                    value=f"{yes} galaxies with it and {no} without it",
                    fix="Label at least two galaxies of each; those that are not of the kind are needed too, marked 0.",
                )
            return self
        filled = np.where(np.isfinite(known), known, 0)
        members = filled.sum(axis=0) if self.kind == COUNTS else (filled == 1).sum(axis=0)
        others = (known == 0).sum(axis=0) if self.kind == TAGS else members.sum() - members
        few = (members < 2) | ((others < 2) & (self.kind == TAGS))
        if (~few).sum() < (1 if self.kind == TAGS else 2):
            raise self._nothing_to_learn(members, several=bool((~few).any()))
        if not few.any():
            return self
        left = [name for name, gone in zip(self.names, few, strict=True) if gone]
        log.warning(
            "%s: fewer than two galaxies have, or have not, %s: it is left out. Label more of them, or join classes.",
            self.source,
            _listed(left),
        )
        values = self.values.copy()
        if self.kind == CLASSES:
            values[np.nan_to_num(values[:, few]).any(axis=1)] = np.nan
        kept = tuple(name for name, gone in zip(self.names, few, strict=True) if not gone)
        return replace(self, names=kept, values=values[:, ~few])

    def _nothing_to_learn(self, members: np.ndarray, *, several: bool) -> DataError:
        """Return the error for tags, or classes of which at most one has several galaxies."""
        order = np.argsort(-members, kind="stable")
        numbers = _listed([f"{self.names[place]}: {int(members[place])}" for place in order])
        if self.kind == TAGS:
            what, fix = "no tag can be learnt", "Label at least two galaxies with a tag, and two without it."
        elif several:
            what, fix = "one class only", "Label at least two galaxies of each of two classes."
        else:
            what, fix = (
                "no class has two galaxies",
                "Label more galaxies of each class, or name another column with label=.",
            )
        return DataError(f"{self.source}: {what}", value=numbers, fix=fix)

    def summary(self) -> str:
        """Return one line that says what the labels are.

        >>> OwnLabels.read({"J1": 1, "J2": 0, "J3": 0}, label="ring").summary()
        '3 galaxies have labels (binary): 1 ring, 2 not'
        """
        known = self.values[self.known]
        if self.kind == NUMBER:
            about = f"{self.names[0]} from {known.min():g} to {known.max():g}" if len(known) else self.names[0]
        elif self.kind == BINARY:
            about = f"{int((known == 1).sum()):,} {self.names[0]}, {int((known == 0).sum()):,} not"
        else:
            counts = np.nansum(known, axis=0)
            about = ", ".join(f"{int(count):,} {name}" for name, count in zip(self.names, counts, strict=True))
        return f"{len(known):,} galaxies have labels ({self.kind}): {about}"


def is_ratings(path: Path) -> bool:
    """Return whether a file or folder holds ratings of the rating page."""
    if (path / RATINGS_FILE).is_file() or (path.suffix in (".sqlite", ".db") and path.is_file()):
        return True
    if not path.is_file() or path.suffix.lower() not in (".csv", ".parquet", ".pq"):
        return False
    return set(read_any_table(path, text=(tables.ID,), choose=lambda names: names).column_names) >= _OF_RATINGS


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _sorted_images(folder: Path) -> tuple[list[str], list[str]]:
    """Return the ids and classes of the images of a folder with one sub-folder per class."""
    ids, classes = [], []
    for file in Folder(folder, outside=True).files:
        path = Path(file)
        extension = next((end for end in EXTENSIONS[::-1] if path.name.lower().endswith(end)), "")
        if extension and len(path.parts) > 1:
            ids.append(path.name[: -len(extension)])
            classes.append(path.parts[0])
    if not ids:
        raise DataError(
            "no labels in a folder",
            value=folder,
            fix="Give a table, or a folder with one sub-folder of images per class (ring/J0001.jpg).",
        )
    return ids, classes


def _label_columns(table: pa.Table, names: Sequence[str], *, id_column: str, source: str) -> list[str]:
    """Return the columns of the label."""
    for name in names:
        if name not in table.column_names:
            raise no_column(table, name, source=source, setting_name="label")
    if names:
        return list(names)
    others = [name for name in table.column_names if name != id_column]
    if "label" in others:
        return ["label"]
    if len(others) != 1:
        raise DataError(
            f"{source} has several columns that could be the label",
            value=", ".join(others[:8]) or "none",
            fix="Name it with label=COLUMN, or several with commas between them.",
        )
    return others


def _labels(ids: Sequence[str], columns: Mapping[str, Sequence[Any]], *, kind: str, source: str) -> OwnLabels:
    """Make labels of columns of cells; rows of one galaxy are joined if they agree."""
    cells = {name: [_cell(value) for value in values] for name, values in columns.items()}
    kind = _kind_of(cells, source=source) if kind == AUTO else kind
    if len(cells) > 1:
        if kind not in (TAGS, COUNTS):
            raise DataError(
                f"{source}: several columns cannot be {kind}",
                value=", ".join(cells),
                fix="Name one column, or say kind=tags or kind=counts.",
            )
        names = tuple(cells)
        values = np.column_stack([_numbers(name, cells[name], source=source) for name in names])
    else:
        ((name, column),) = cells.items()
        names, values = _one_column(name, column, kind=kind, source=source)
    return _joined(ids, OwnLabels(np.array(ids, dtype=object), kind, names, values.astype(np.float32), source))


def _cell(value: Any) -> Any:
    """Return a cell as None, a number, a text, or a tuple of texts."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return None if value.strip().lower() in _UNKNOWN else value.strip()
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return tuple(str(tag).strip() for tag in value)
    return float(value) if isinstance(value, (bool, int)) else value


def _kind_of(cells: Mapping[str, Sequence[Any]], *, source: str) -> str:
    values = [value for column in cells.values() for value in column if value is not None]
    if any(isinstance(value, tuple) for value in values):
        return TAGS
    if all(_yes_or_no(value) is not None for value in values):
        return BINARY if len(cells) == 1 else TAGS
    if any(isinstance(value, str) for value in values):
        return CLASSES if len(cells) == 1 else TAGS
    if len(cells) > 1:
        return COUNTS
    different = sorted(set(map(float, values)))
    if different == [-1, 0, 1] or different == [-1, 1]:
        raise DataError(
            f"{source}: labels of −1, of which it is not clear whether they mean no or unknown",
            value=different,
            fix="Write 0 for no and leave unknown ones empty, or say kind=number or kind=classes.",
        )
    if len(different) <= 20 and all(value.is_integer() for value in different):
        log.warning(
            "%s: %d different whole numbers are taken for a number; if they stand for classes, say kind=classes",
            source,
            len(different),
        )
    return NUMBER


def _yes_or_no(value: Any) -> float | None:
    if isinstance(value, str):
        text = value.lower()
        return 1.0 if text in _YES else 0.0 if text in _NO else None
    return float(value) if value in (0, 1) else None


def _numbers(name: str, column: Sequence[Any], *, source: str) -> np.ndarray:
    """Return cells as numbers; yes and no are 1 and 0."""
    numbers = []
    for value in column:
        number = np.nan if value is None else _yes_or_no(value)
        if number is None:
            try:
                number = float(value)
            except (TypeError, ValueError) as problem:
                raise DataError(
                    f"{source}: a cell of {name} that is no number",
                    value=value,
                    fix="Correct it, or say kind=classes if the cells are names.",
                ) from problem
        numbers.append(number)
    return np.array(numbers, dtype=np.float64)


def _one_column(name: str, column: Sequence[Any], *, kind: str, source: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the values of labels in one column."""
    if kind in (BINARY, NUMBER):
        return (name,), _numbers(name, column, source=source)[:, None]
    if kind == COUNTS:
        raise DataError(
            f"{source}: counts of votes need several columns, one per answer",
            value=name,
            fix="Name them with commas between them: label=ring_yes,ring_no.",
        )
    if kind == CLASSES:
        rows: list[tuple[str, ...] | None] = [None if value is None else (_text(value),) for value in column]
    else:
        rows = [None if value is None else _tags(value) for value in column]
    names = tuple(sorted({tag for row in rows if row for tag in row}))
    place = {tag: index for index, tag in enumerate(names)}
    values = np.zeros((len(rows), max(len(names), 1)))
    for row, chosen in enumerate(rows):
        if chosen is None:
            values[row] = np.nan
        else:
            values[row, [place[tag] for tag in chosen]] = 1
    return names or (name,), values


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _tags(value: Any) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    text = _text(value)
    separator = next((character for character in _SEPARATORS if character in text), ",")
    return tuple(tag.strip() for tag in text.split(separator) if tag.strip())


def _one_sided(yes: int, no: int) -> str:
    """Say which side of a yes/no label has too few galaxies."""
    if not yes:
        return "no galaxy is marked as having the label"
    if not no:
        return "one class only: every labelled galaxy is marked as having the label"
    return "only one galaxy is marked on one of the two sides"


def _joined(ids: Sequence[str], labels: OwnLabels) -> OwnLabels:
    """Return labels with one row per galaxy; rows that contradict each other are refused."""
    counts = Counter(ids)
    if len(counts) == len(ids):
        return labels
    first: dict[str, int] = {}
    values, contradicting = labels.values.copy(), {}
    for row, galaxy in enumerate(ids):
        if galaxy not in first:
            first[galaxy] = row
            continue
        kept, new = values[first[galaxy]], labels.values[row]
        both = np.isfinite(kept) & np.isfinite(new)
        if (kept[both] != new[both]).any():
            contradicting[galaxy] = row
        values[first[galaxy]] = np.where(np.isfinite(kept), kept, new)
    if contradicting:
        raise DataError(
            f"{labels.source}: rows of the same galaxy with different labels",
            value=f"{len(contradicting)} galaxies",
            fix="Keep one row of each, or leave its label empty.",
            ids=list(contradicting),
        )
    log.info("%s: %d rows repeat a galaxy with the same label", labels.source, len(ids) - len(first))
    rows = list(first.values())
    return replace(labels, ids=labels.ids[rows], values=values[rows])
