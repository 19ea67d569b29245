"""Similar galaxies: those that are most alike to some examples, without the examples themselves and copies of them.

A result leaves out, and counts:

    the examples themselves
    entries within 100 arcsec of an example     pieces of the same galaxy in a catalogue
    near-identical images                       of an example, or of a galaxy that stands higher in the result

Shape letters: n galaxies of the store, k galaxies of the result.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rarezoo import tables
from rarezoo.data.duplicates import CORRELATION, fingerprint
from rarezoo.errors import ConfigError, DataError
from rarezoo.explore.filters import FilterResult, Filters
from rarezoo.explore.places import Position, distance_text, nearest, read_targets, separations
from rarezoo.explore.pool import Pool
from rarezoo.explore.scores import AUTO, WAYS, Scores, is_probe, scores_of
from rarezoo.explore.space import AUTO as SPACE_AUTO

if TYPE_CHECKING:
    import pandas as pd

    from rarezoo.embeddings.store import EmbeddingStore
    from rarezoo.searches.result import Search

log = logging.getLogger(__name__)
# Galaxies in a result, unless another number is given: a gallery of three rows.
SHOWN = 24
# Distance on the sky below which two entries are taken for the same galaxy, and the largest distance between a position
# that is given and the galaxy that is meant, arcsec (Walmsley et al. 2022, MNRAS 513, 1581).
APART, RADIUS = 100.0, 20.0
# Cosine above which two embeddings are those of one picture, where there are no images to compare.
SAME = 1 - 1e-6
# Results whose images are compared at most, and further candidates that are looked at in a first step.
_COMPARED, _FURTHER = 1000, 32
EXAMPLE, NEAR, IDENTICAL = "example", "near an example", "near-identical"


class LeftOut(NamedTuple):
    """A galaxy that would stand in a result and was left out.

    Attributes
    ----------
    row : int
        Its row in the store.
    reason : str
        ``near an example`` or ``near-identical``.
    of : str
        Id of the galaxy that it belongs to.
    score : float
        Its score.
    """

    row: int
    reason: str
    of: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Query:
    """What other galaxies are compared with.

    Attributes
    ----------
    rows, against : (e,) and (a,) arrays of integers
        Rows in the store of examples and of counter-examples.
    vectors : (v, d) array of floats, optional
        Embeddings of examples that are not in the store, such as an image of the user's own.
    names : sequence of str
        What these examples are called.
    notes : sequence of str
        What a reader should know, such as the galaxy that a position was taken for.
    """

    rows: Int[np.ndarray, " e"]
    against: Int[np.ndarray, " a"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    vectors: Float[np.ndarray, "v d"] | None = None
    names: Sequence[str] = ()
    notes: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        pool: Pool,
        examples: "str | Sequence[str] | np.ndarray",
        against: str | Sequence[str] = (),
        *,
        radius: float = RADIUS,
        embed: Any = None,
    ) -> "Query":
        """Read what a person gives as examples and counter-examples.

        Parameters
        ----------
        pool : Pool
            The galaxies.
        examples : str, sequence of str, or array
            Ids, positions, links and paths of images as :mod:`rarezoo.explore.places` reads them; or embeddings,
            (d,) or (v, d).
        against : str or sequence of str
            Ids, positions and links of counter-examples.
        radius : float
            Largest distance between a position and the galaxy that is meant, arcsec.
        embed : callable, optional
            Returns the embedding (d,) of an image file; None: images are refused.

        Raises
        ------
        ConfigError
            An example is unknown, or is also a counter-example.
        """
        notes: list[str] = []
        if isinstance(examples, np.ndarray) and examples.dtype.kind == "f":
            vectors: np.ndarray | None = np.atleast_2d(examples)
            width = pool.store.manifest.width
            if vectors is None or vectors.ndim != 2 or vectors.shape[1] != width or not np.isfinite(vectors).all():
                raise ConfigError(
                    "an embedding that is asked for must be of finite numbers and as wide as those of the store",
                    value=examples.shape, fix=f"Give {width} numbers.",
                )  # fmt: skip
            rows, names = np.empty(0, dtype=np.int64), [f"vector {number}" for number in range(1, len(vectors) + 1)]
        else:
            rows, images = _rows(pool, examples, radius=radius, notes=notes)
            if images and embed is None:
                raise ConfigError("an image cannot be used here", value=images[0], fix="Give the id of a galaxy.")
            names = [path.name for path in images]
            vectors = np.stack([embed(path) for path in images]) if images else None
        counter_rows, counter_images = _rows(pool, against, radius=radius, notes=notes)
        if counter_images:
            raise ConfigError(
                "a counter-example must be a galaxy of the store", value=counter_images[0], fix="Give its id."
            )
        both = np.intersect1d(rows, counter_rows)
        if len(both):
            raise ConfigError(
                "a galaxy is an example and a counter-example", value=pool.names(both[:1])[0],
                fix="Leave it out of id= or of against=.",
            )  # fmt: skip
        asked = np.concatenate([rows, counter_rows])
        unusable = asked[~pool.store.index.finite[asked]]
        if len(unusable):
            raise ConfigError(
                "the embedding of this galaxy is not finite", value=pool.names(unusable[:1])[0],
                fix="Choose another galaxy, or embed the survey again.",
            )  # fmt: skip
        return cls(rows=rows, against=counter_rows, vectors=vectors, names=tuple(names), notes=tuple(notes))

    def scores(self, pool: Pool, *, by: str, seed: int, beside: Sequence[str] = (SPACE_AUTO,)) -> Scores:
        """Return how alike every galaxy of the store is to the examples, by what :func:`space_of` says."""
        if self.vectors is not None:
            if any(name not in ("", SPACE_AUTO) for name in beside):
                raise ConfigError(
                    "an image or a vector that is not in the store can be compared by the embedding only",
                    value=f"beside={','.join(beside)}", fix="Leave beside= out.",
                )  # fmt: skip
            beside = ()
        space = pool.space(beside)
        index = space.index
        lengths = index.centred.lengths[:, None]
        examples, against = (index.centred.directions[rows] * lengths[rows] for rows in (self.rows, self.against))
        if self.vectors is not None:
            examples = np.concatenate([examples, self.vectors - index.centred.mean])
        whitening, whitened = space.whitening(seed) if is_probe(by, against=len(against)) else (None, None)
        scores = scores_of(index, examples, against, by=by, whitening=whitening, whitened=whitened)
        return scores._replace(way=f"{scores.way}; by {space.words}") if space.beside else scores


def _rows(
    pool: Pool, given: "str | Sequence[str] | np.ndarray", *, radius: float, notes: list[str]
) -> tuple[Int[np.ndarray, " e"], list[Path]]:
    """Return the rows of the galaxies that are meant, each once, and the image files; notes on positions are added."""
    texts = [given] if isinstance(given, (str, Path)) else list(given)
    targets = [target for text in texts for target in read_targets(str(text), is_id=pool.has)]
    ids: list[str] = []
    for target in targets:
        if isinstance(target, Position):
            ids.append(_galaxy_at(pool, target, radius=radius, notes=notes))
        elif isinstance(target, str):
            ids.append(target)
    return pool.rows_of(list(dict.fromkeys(ids))), [target for target in targets if isinstance(target, Path)]


def _galaxy_at(pool: Pool, position: Position, *, radius: float, notes: list[str]) -> str:
    """Return the id of the galaxy at a position, with an embedding or without."""
    if pool.galaxies is None:
        raise ConfigError(
            "the positions of the galaxies are not known", value=str(position), fix="Give the id of a galaxy."
        )
    catalogue = pool.galaxies.catalogue
    ra, dec = (catalogue.column(name).to_numpy() for name in (tables.RA, tables.DEC))
    row, distance = nearest(position, ra, dec, ids=pool.galaxies.ids, radius=radius)
    galaxy = str(pool.galaxies.ids[row])
    notes.append(f"{position} is taken for {galaxy}, {distance_text(distance)} away.")
    return galaxy


@dataclass(frozen=True, kw_only=True)
class SimilarGalaxies:
    """The galaxies that are most alike to what was asked for, the most alike first.

    Attributes
    ----------
    pool : Pool
        Where they are from.
    query : Query
        The examples; without rows and vectors if galaxies were ranked by something else.
    rows : (k,) array of integers
        Their rows in the store.
    scores : (k,) array of floats
        Higher is more alike.
    way : str
        How scores were computed, in words.
    left_out : sequence of LeftOut
        Galaxies that would stand among them and were left out, the most alike first. The examples are not among them.
    examples : int
        Examples and counter-examples that were left out.
    compared : str
        What near-identical galaxies were recognised by: ``images`` or ``embeddings``; empty: they were not left out.
    filters : sequence of FilterResult
        What each filter keeps.
    searched : int
        Galaxies among which these are the most alike.
    apart : float
        Distance on the sky within which entries near an example were left out, arcsec.
    """

    pool: Pool
    query: Query
    rows: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, " k"]
    way: str
    left_out: Sequence[LeftOut]
    examples: int
    compared: str
    filters: Sequence[FilterResult]
    searched: int
    apart: float

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the galaxies."""
        return self.pool.names(self.rows)

    @cached_property
    def distances(self) -> Float[np.ndarray, " k"] | None:
        """Distance of each galaxy from the nearest example on the sky, arcsec; None if no position is known."""
        if self.pool.positions is None or not len(self.query.rows):
            return None
        return _distances(self.pool, self.rows, self.query.rows)

    def frame(self) -> "pd.DataFrame":
        """Return the galaxies as a table.

        Returns
        -------
        pandas.DataFrame
            ``id_str``, ``score`` (higher is more alike) and ``rank`` (1 is the most alike); ``ra``, ``dec`` and
            ``distance_arcsec`` (to the nearest example) if positions are known; ``class_id`` if a search was asked. Its
            ``attrs`` say how scores were computed, and what was left out and filtered.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            tables.ID: np.asarray(self.ids, dtype=object), tables.SCORE: self.scores,
            tables.RANK: np.arange(1, len(self.rows) + 1),
        }  # fmt: skip
        if self.pool.positions is not None:
            columns |= {name: values[self.rows] for name, values in
                        zip((tables.RA, tables.DEC), self.pool.positions, strict=True)}  # fmt: skip
        if self.distances is not None:
            columns[tables.SKY_DISTANCE] = self.distances
        if self.pool.search is not None:
            columns[tables.CLASS_ID] = self.pool.search_class(self.rows)
        frame = pd.DataFrame(columns)
        frame.attrs.update(self.about)
        return frame

    @property
    def about(self) -> dict[str, Any]:
        """How the galaxies were ranked, what was left out, and what the filters kept, as plain values."""
        counts = Counter(entry.reason for entry in self.left_out)
        return {
            "ranked_by": self.way,
            "examples": [*self.pool.names(self.query.rows), *self.query.names],
            "against": self.pool.names(self.query.against),
            "left_out": {
                "examples": self.examples, "within_apart": counts[NEAR], "near_identical": counts[IDENTICAL],
            },
            "near_identical_by": self.compared,
            "apart_arcsec": self.apart if self.pool.positions is not None else None,
            "filters": [result._asdict() for result in self.filters],
            "searched": self.searched,
            "notes": list(self.query.notes),
        }  # fmt: skip


def similar(
    source: "EmbeddingStore | Search | Pool | Path | str",
    examples: "str | Sequence[str] | np.ndarray",
    k: int | None = None,
    *,
    against: str | Sequence[str] = (),
    where: str = "",
    classes: int | Sequence[int] = (),
    cone: str | Sequence[float] = "",
    by: str = AUTO,
    beside: str | Sequence[str] = SPACE_AUTO,
    apart: float = APART,
    identical: bool = True,
    radius: float = RADIUS,
    checkpoint: str = "",
    seed: int = 0,
) -> SimilarGalaxies:
    """Find the galaxies that are most alike to some examples.

    Parameters
    ----------
    source : EmbeddingStore, Search, Pool, Path or str
        A store, a search, or the folder of either. Of a search only the galaxies that it has searched are found.
    examples : str, sequence of str, or array of floats
        Ids, positions, links and paths of images as :mod:`rarezoo.explore.places` reads them; or embeddings, (d,) or
        (v, d).
    k : int, optional
        Number of galaxies; by default 24, or all if there are fewer.
    against : str or sequence of str
        Ids, positions and links of counter-examples.
    where, classes, cone
        Filters: see :class:`~rarezoo.explore.filters.Filters`.
    by : {"auto", "cosine", "probe"}
        See :func:`~rarezoo.explore.scores.scores_of`.
    beside : str or sequence of str
        What is compared beside the embedding, see :func:`~rarezoo.explore.space.space_of`; empty: nothing.
    apart : float
        Distance from an example up to which galaxies are left out, arcsec; 0 leaves out none.
    identical : bool
        Leave out near-identical galaxies.
    radius : float
        Largest distance between a position that is given and the galaxy that is meant, arcsec.
    checkpoint : str
        Network that embeds images, if it is not where the store was made.
    seed : int
        Seed of the galaxies that are drawn for a probe.

    Raises
    ------
    ConfigError
        An example is unknown, a filter cannot be used or leaves no galaxy, or k is too large.
    DataError, CheckpointError
        An image or the network for it cannot be used.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from rarezoo.embeddings.store import EmbeddingStore
    >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, -1.0]], dtype=np.float32)
    >>> store = EmbeddingStore.from_array(["a", "b", "c", "d"], vectors, out=mkdtemp(), name="net")
    >>> similar(store, "a", 2).ids
    ['b', 'd']
    """
    from rarezoo.explore.own_image import embed_file, unlike_every_galaxy

    pool = Pool.of(source)

    def embed(path: Path) -> np.ndarray:
        vector = embed_file(pool, path, checkpoint=checkpoint)
        if far := unlike_every_galaxy(pool, vector):
            log.warning("%s: %s", path, far)
        return vector

    query = Query.of(pool, examples, against, radius=radius, embed=embed)
    if not len(query.rows) and query.vectors is None:
        raise ConfigError("no example", value=examples, fix="Give the id of a galaxy: id=ID.")
    result = ranked(
        pool, query, k, filters=Filters(where, classes, cone), by=by, beside=beside, apart=apart, identical=identical,
        seed=seed,
    )  # fmt: skip
    if len(result.rows) < (k or 0):
        log.warning("only %d galaxies can be shown instead of %d", len(result.rows), k)
    return result


def ranked(
    pool: Pool,
    query: Query,
    k: int | None = None,
    *,
    scores: Scores | None = None,
    filters: Filters | None = None,
    by: str = AUTO,
    beside: str | Sequence[str] = SPACE_AUTO,
    apart: float = APART,
    identical: bool = True,
    seed: int = 0,
) -> SimilarGalaxies:
    """Return the galaxies with the highest scores, without examples and copies; see :func:`similar`.

    Parameters
    ----------
    pool : Pool
        The galaxies.
    query : Query
        The examples.
    k : int, optional
        Number of galaxies; by default 24, or all if there are fewer.
    scores : Scores, optional
        Scores of the n galaxies; by default how alike they are to the examples.
    filters : Filters, optional
        Which galaxies may be shown.
    by, beside, apart, identical, seed
        See :func:`similar`.

    Raises
    ------
    ConfigError
        No galaxy is left, or k is too large.
    """
    if by not in WAYS:
        raise ConfigError("there is no such way to rank", value=by, fix=f"Choose {', '.join(WAYS)}.")
    filtered = (filters or Filters()).of(pool)
    asked = np.concatenate([query.rows, query.against])
    others = int(pool.inside.sum() - pool.inside[asked].sum())
    if not others:
        raise ConfigError(
            "the survey has no other galaxy than the examples",
            value=len(pool.ids),
            fix="Use a survey of more galaxies.",
        )
    k = min(SHOWN, others) if k is None else k
    if not 1 <= k <= others:
        raise ConfigError("k, the number of galaxies", value=k, fix=f"Choose 1 to {others}.")
    if scores is None:
        scores = query.scores(pool, by=by, seed=seed, beside=beside.split(",") if isinstance(beside, str) else beside)
    mask = filtered.mask.copy()
    mask[asked] = False
    copies = Copies(pool, query.rows, images=k <= _COMPARED) if identical else None
    found: list[int] = []
    left_out: list[LeftOut] = []
    for row in in_order(scores.values, mask, first=k + _FURTHER):
        near = _near_example(pool, row, query.rows, apart=apart)
        original = copies.original_of(row) if copies is not None and near is None else None
        if near is not None:
            left_out.append(LeftOut(row, NEAR, pool.names(query.rows[[near]])[0], float(scores.values[row])))
        elif original is not None:
            left_out.append(LeftOut(row, IDENTICAL, pool.names(np.array([original]))[0], float(scores.values[row])))
        else:
            found.append(row)
        if len(found) == k:
            break
    return SimilarGalaxies(
        pool=pool, query=query, rows=np.array(found, dtype=np.int64),
        scores=np.asarray(scores.values, dtype=np.float64)[found], way=scores.way, left_out=tuple(left_out),
        examples=int(filtered.mask[asked].sum()), compared=copies.by if copies is not None else "",
        filters=filtered.results, searched=int(filtered.mask.sum()), apart=apart,
    )  # fmt: skip


def in_order(scores: Float[np.ndarray, " n"], mask: np.ndarray, *, first: int) -> Iterator[int]:
    """Yield the rows where the mask is true by their scores, the highest first; unknown scores are left out.

    Only as many as are looked at are sorted: ``first`` of them, then twice as many, and so on.

    >>> list(in_order(np.array([0.1, 0.9, np.nan, 0.5, 0.9]), np.array([True, True, True, False, True]), first=1))
    [1, 4, 0]
    """
    values = np.where(mask & ~np.isnan(scores), scores, -np.inf)
    known, done, size = int((values > -np.inf).sum()), 0, first
    while done < known:
        size = min(size, known)
        # Of equal scores at the end all are taken, so that rows decide their order.
        lowest = np.partition(values, len(values) - size)[len(values) - size]
        rows = np.flatnonzero(values >= lowest) if lowest > -np.inf else np.flatnonzero(values > -np.inf)
        rows = rows[np.lexsort((rows, -values[rows]))]
        yield from map(int, rows[done:])
        done, size = len(rows), 2 * size


class Copies:
    """Recognises near-identical galaxies among those that it has seen, by their images or else by their embeddings.

    Of the galaxies of a result it remembers the last 1,000.

    Parameters
    ----------
    pool : Pool
        The galaxies.
    examples : (e,) array of integers
        Rows of galaxies that it has seen at the beginning.
    images : bool
        Compare images if the survey has any.

    Attributes
    ----------
    by : str
        ``images`` or ``embeddings``.
    """

    def __init__(self, pool: Pool, examples: Int[np.ndarray, " e"], *, images: bool) -> None:
        self.pool, self.by = pool, "images" if images and pool.galaxies is not None else "embeddings"
        self._threshold = CORRELATION if self.by == "images" else SAME
        self._marks: np.ndarray | None = None
        self._rows = np.full(len(examples) + _COMPARED, -1)
        self._examples, self._seen = 0, 0
        for row in examples:
            self._remember(int(row), self._mark(int(row)))
        self._examples = self._seen

    def original_of(self, row: int) -> int | None:
        """Return the row of an earlier galaxy that this one is near-identical to; None if there is none.

        A galaxy that is no copy is remembered.
        """
        mark = self._mark(row)
        if mark is not None and self._marks is not None:
            alike = self._marks @ mark
            best = int(alike.argmax())
            if alike[best] > self._threshold:
                return int(self._rows[best])
        self._remember(row, mark)
        return None

    def _remember(self, row: int, mark: np.ndarray | None) -> None:
        if mark is None:
            return
        if self._marks is None:
            self._marks = np.zeros((len(self._rows), len(mark)))
        # The examples stay; behind them the newest takes the place of the oldest.
        place = (
            self._seen if self._seen < len(self._rows) else self._examples + (self._seen - self._examples) % _COMPARED
        )
        self._marks[place], self._rows[place] = mark, row
        self._seen += 1

    def _mark(self, row: int) -> np.ndarray | None:
        """Return a unit vector whose product with that of another galaxy says how alike they are; None if unknown."""
        if self.by == "embeddings":
            vector = np.asarray(self.pool.store.index.vectors[row], dtype=np.float64)
            # Embeddings that are all equal have no direction: they are alike, too.
            return np.append(vector, float(not vector.any()))
        assert self.pool.galaxies is not None
        try:
            return fingerprint(self.pool.galaxies.images.cutout(int(self.pool.catalogue_rows[row]))).astype(np.float64)
        except DataError:
            return None


def _near_example(pool: Pool, row: int, examples: np.ndarray, *, apart: float) -> int | None:
    """Return the number of the example that a galaxy is near on the sky, or None."""
    if pool.positions is None or not len(examples) or not apart:
        return None
    ra, dec = pool.positions
    distances = separations(ra[examples], dec[examples], Position(float(ra[row]), float(dec[row])))
    known = np.where(np.isnan(distances), np.inf, distances)
    return int(known.argmin()) if known.min() <= apart else None


def _distances(pool: Pool, rows: np.ndarray, examples: np.ndarray) -> Float[np.ndarray, " k"]:
    assert pool.positions is not None
    ra, dec = pool.positions
    each = [separations(ra[rows], dec[rows], Position(float(ra[row]), float(dec[row]))) for row in examples]
    return np.fmin.reduce(each)
