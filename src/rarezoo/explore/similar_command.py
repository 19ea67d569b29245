"""The command ``rarezoo similar``: similar galaxies, starting from examples, an image, a tag, or words."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.data.expressions import evaluate
from rarezoo.engines import Engine
from rarezoo.errors import ConfigError, OutputError
from rarezoo.explore.filters import Filters
from rarezoo.explore.labels import Labels, source_of
from rarezoo.explore.own_image import embed_file, own_pixels, unlike_every_galaxy
from rarezoo.explore.pool import Pool
from rarezoo.explore.scores import AUTO, COSINE, WAYS, Scores
from rarezoo.explore.similar import APART, RADIUS, SHOWN, Query, SimilarGalaxies, ranked
from rarezoo.explore.similar_page import (
    CSV,
    FITS,
    FORMATS,
    PAGE,
    VOTABLE,
    folder_name,
    summary_of,
    write_file,
    write_page,
)
from rarezoo.explore.space import AUTO as SPACE_AUTO
from rarezoo.explore.space import MOST_MEASURED
from rarezoo.explore.text import vector_of
from rarezoo.explore.words import tree_of, understand
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)
_ENDINGS = {".csv": CSV, ".fits": FITS, ".fit": FITS, ".vot": VOTABLE, ".xml": VOTABLE, ".votable": VOTABLE}
# Interest of a tagged galaxy above which it is an example, and below which it is a counter-example.
_UNDECIDED = 0.5
# Examples that a title names.
_NAMED = 4


@dataclass(kw_only=True)
class _Asked:
    """What a command line asks for: examples, or scores of its own, and what a reader should know."""

    title: str
    query: Query
    scores: Scores | None = None
    by: str = AUTO
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    own_images: list[np.ndarray] = field(default_factory=list)


@dataclass(kw_only=True)
class SimilarRun(Settings):
    """Find similar galaxies, starting from some examples, from an image, from a tag, or from words.

    Examples
    --------
    >>> SimilarRun(search_or_store="runs/mine/search", id="J0001", k=8).k
    8
    >>> SimilarRun(search_or_store="runs/mine/search")
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: nothing to look for: id=. Give one of id=, image=, words=, tag= and text=.
    """

    search_or_store: str = setting(help="folder of a finished search, or of an embedding store", positional=True)
    id: str = setting("", "examples: ids, positions such as '185.7 15.8', links to a map, or image files")
    image: str = setting("", "an image file of your own as an example")
    against: str = setting("", "counter-examples: ids, positions or links")
    words: str = setting("", "words of the question tree, such as 'edge-on with dust lane'")
    tag: str = setting("", "a tag of the ratings: galaxies like those that have it")
    text: str = setting("", "a text for a text encoder, which another package must add")
    encoder: str = setting("", "name of the text encoder; empty: the only one that is installed")
    k: int | None = setting(
        None, f"number of galaxies; null = {SHOWN}, or all if there are fewer", unit="galaxies", ge=1
    )
    where: str = setting("", "condition on catalogue columns and predicted fractions, such as 'redshift < 0.1'")
    classes: list[int] = setting([], "only these classes of the search, −1 = in no class; empty: all galaxies")
    cone: str = setting("", "only this part of the sky: 'RA DEC RADIUS', the radius in arcsec")
    by: str = setting(
        AUTO, "what ranks: probe (auto), the cosine after whitening by the scatter of the survey; or the plain cosine",
        choices=WAYS,
    )  # fmt: skip
    beside: list[str] = setting(
        [SPACE_AUTO],
        "what is compared beside the embedding: photometry, structure, answers (predicted ones), or catalogue columns; "
        f"empty: nothing; auto: the first three, if there are images of at most {MOST_MEASURED:,} galaxies",
    )
    apart: float = setting(
        APART, "entries this near to an example are left out as pieces of it; 0 = none", unit="arcsec", ge=0
    )
    identical: bool = setting(True, "leave out near-identical galaxies")
    radius: float = setting(
        RADIUS, "largest distance between a position and the galaxy that is meant", unit="arcsec", gt=0
    )
    labels: str = setting("", "database of ratings for tag=; empty: labels.sqlite beside the search or store")
    checkpoint: str = setting("", "network for image=, if it is not where the store was made")
    seed: int = setting(0, "seed of the galaxies drawn at random that stand for the survey", ge=0)
    engine: Engine | None = setting(
        None, "where the shards of a store are scanned that is too large for the memory: all galaxies, by the "
        "embedding alone; null = in the memory"
    )  # fmt: skip
    out: str = setting("", "file, or folder of the page; empty: a table here, and a page if there are images")
    format: str = setting("", "page, csv, fits or votable; empty: as out= ends", choices=("", *FORMATS))

    def check(self) -> None:
        """Raise ConfigError if it is not clear what to look for, or where to write it."""
        given = {"words": self.words, "tag": self.tag, "text": self.text, "id": self.id.strip(" ,") or self.image}
        asked = [name for name, value in given.items() if value.strip()]
        if not asked:
            raise ConfigError(
                "nothing to look for", value="id=", fix="Give one of id=, image=, words=, tag= and text=."
            )
        if len(asked) > 1:
            raise ConfigError(
                "only one of these can be asked for at a time", value=", ".join(f"{name}=" for name in asked),
                fix="Leave the others out; where= and classes= can narrow down any of them.",
            )  # fmt: skip
        if self.against.strip() and asked[0] in ("words", "text"):
            raise ConfigError(
                f"counter-examples cannot be combined with {asked[0]}=", value=f"against={self.against}",
                fix="Leave against= out, or give examples: id=.",
            )  # fmt: skip
        if self.engine is not None:
            self._check_scan()
        if self.format not in ("", PAGE) and not self.out:
            raise ConfigError(f"format={self.format} needs a file", value="out=", fix="Name one: out=FILE.")

    def _check_scan(self) -> None:
        """Raise ConfigError for settings that need the whole survey in memory."""
        in_memory = {
            "words=": self.words, "text=": self.text, "image=": self.image, "where=": self.where, "cone=": self.cone,
            "classes=": self.classes, "beside=": [name for name in self.beside if name not in ("", SPACE_AUTO)],
        }  # fmt: skip
        given = [name for name, value in in_memory.items() if value]
        if given:
            raise ConfigError(
                "settings that a scan of all shards does not have", value=", ".join(given),
                fix="Leave them out, or leave engine= out. With engine= give ids (id=, against=) or a tag (tag=).",
            )  # fmt: skip

    def run(self) -> str:
        """Look for the galaxies; return what a terminal shows.

        Raises
        ------
        ConfigError
            What is asked for is unknown or cannot be used; see the message.
        StoreError, DataError, CheckpointError
            The search, the store, the image or the checkpoint cannot be used.
        OutputError
            The file or the page cannot be written.
        """
        if self.out and self._format() != PAGE:
            tables.refuse_other_file(self.out, [tables.ID, tables.SCORE])
        if self.engine is not None:
            with TemporaryDirectory() as place:
                return self._shown(*self._in_shards(self.engine, Path(place)))
        pool = Pool.of(self.search_or_store)
        asked = self._asked(pool)
        result = ranked(
            pool, asked.query, self.k, scores=asked.scores, filters=Filters(self.where, self.classes, self.cone),
            by=asked.by, beside=self.beside, apart=self.apart, identical=self.identical, seed=self.seed,
        )  # fmt: skip
        asked.notes[:0] = asked.query.notes
        return self._shown(result, asked)

    def _in_shards(self, engine: Engine, place: Path) -> tuple[SimilarGalaxies, _Asked]:
        """Scan the whole store, or that of a search out of core."""
        from rarezoo.explore.in_shards import similar_in_shards, store_of

        source = source_of(self.search_or_store)
        if self.tag.strip():
            with Labels.of(source, self.labels, read_only=True) as labels:
                interest, current = labels.interest(self.tag), labels.current()
            examples = [galaxy for galaxy, value in interest.items() if value > _UNDECIDED]
            against = [galaxy for galaxy, value in interest.items() if value < _UNDECIDED]
            if not examples:
                raise self._no_tag(current)
            title = f"tag {self.tag}"
        else:
            examples, against = (
                list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
                for text in (self.id, self.against)
            )
            title = _listed(examples) + (f" against {_listed(against)}" if against else "")
        result = similar_in_shards(
            store_of(source), examples, self.k, engine=engine, folder=place, against=against, by=self.by,
            apart=self.apart, identical=self.identical, seed=self.seed,
        )  # fmt: skip
        return result, _Asked(title=title, query=result.query, by=self.by)

    def _shown(self, result: SimilarGalaxies, asked: _Asked) -> str:
        """Write what was found; return what a terminal shows."""
        if len(result.rows) < (self.k or 0):
            asked.warnings.append(f"only {len(result.rows)} galaxies can be shown instead of {self.k}.")
        told = [*asked.notes, *(f"Warning: {warning}" for warning in asked.warnings)]
        told += [f"Score: {result.way}.", *(f"Filter: {each}." for each in result.filters), summary_of(result)]
        written = self._written(result, asked)
        if self.out:
            return "\n".join([*told, str(written)])
        return "\n".join([_table_text(result), "", *told, *([str(written)] if written else [])])

    def _format(self) -> str:
        """Return the format of what is written: as asked for, or as the name of the file ends."""
        return self.format or (_ENDINGS.get(Path(self.out).suffix.lower(), PAGE) if self.out else PAGE)

    def _written(self, result: SimilarGalaxies, asked: _Asked) -> Path | None:
        """Write what is asked for; return its path."""
        format = self._format()
        if format != PAGE:
            return write_file(result, Path(self.out), format=format, title=asked.title)
        if not self.out and self.format != PAGE and result.pool.galaxies is None:
            return None
        # Other settings, another page: those that only say where to write are left out.
        about = {key: value for key, value in asdict(self).items() if key not in ("out", "format")}
        default = Path(self.search_or_store) / "similar" / folder_name(asked.title, digest(about)[:8])
        try:
            return write_page(
                result, Path(self.out) if self.out else default, title=asked.title, notes=asked.notes,
                warnings=asked.warnings, own_images=asked.own_images,
            )  # fmt: skip
        except OutputError as problem:
            if self.out or self.format == PAGE:
                raise
            log.warning("the page is not written: %s", problem)
            return None

    def _asked(self, pool: Pool) -> _Asked:
        if self.words.strip():
            return self._words(pool)
        if self.tag.strip():
            return self._tagged(pool)
        if self.text.strip():
            vector = vector_of(self.text, encoder=self.encoder, width=pool.store.manifest.width)
            query = Query.of(pool, vector)
            # The embeddings of texts do not scatter as those of galaxies do, by which a probe would whiten them.
            by = COSINE if self.by == AUTO else self.by
            return _Asked(title=self.text.strip(), query=Query(rows=query.rows, vectors=query.vectors), by=by)
        return self._examples(pool)

    def _examples(self, pool: Pool) -> _Asked:
        own_images: list[np.ndarray] = []
        warnings: list[str] = []

        def embed(path: Path) -> np.ndarray:
            vector = embed_file(pool, path, checkpoint=self.checkpoint)
            own_images.append(own_pixels(pool, path))
            far = unlike_every_galaxy(pool, vector)
            warnings.extend([f"{path.name}: {far}"] if far else [])
            return vector

        given = [text for text in (self.id, self.image and _image_path(self.image)) if text.strip()]
        query = Query.of(pool, given, self.against, radius=self.radius, embed=embed)
        title = _listed([*pool.names(query.rows), *query.names])
        if len(query.against):
            title += f" against {_listed(pool.names(query.against))}"
        return _Asked(title=title, query=query, by=self.by, warnings=warnings, own_images=own_images)

    def _words(self, pool: Pool) -> _Asked:
        if not pool.answers:
            raise ConfigError(
                "this store has no predicted fractions, which words stand for", value=pool.store.folder,
                fix="Give examples: id=, or a store that rarezoo embedded.",
            )  # fmt: skip
        understood = understand(self.words, pool.answers, tree=tree_of(pool.store, pool.answers))
        table = pool.table_for(understood.expression, called="score")
        scores = Scores(evaluate(understood.expression, table, called="score"), f"{understood.expression}")
        query = Query(rows=np.empty(0, dtype=np.int64))
        return _Asked(title=self.words.strip(), query=query, scores=scores, notes=understood.lines())

    def _tagged(self, pool: Pool) -> _Asked:
        source = pool.store if pool.search is None else pool.search
        with Labels.of(source, self.labels, read_only=True) as labels:
            interest, current = labels.interest(self.tag), labels.current()
        examples = pool.embedded([galaxy for galaxy, value in interest.items() if value > _UNDECIDED])
        counter = pool.embedded([galaxy for galaxy, value in interest.items() if value < _UNDECIDED])
        if not examples:
            raise self._no_tag(current)
        rows, further = pool.rows_of(examples), Query.of(pool, [], self.against, radius=self.radius)
        against = np.setdiff1d(np.union1d(pool.rows_of(counter), further.against), rows)
        query = Query(rows=rows, against=against, notes=further.notes)
        # The cosine knows no counter-examples: galaxies that are known not to have the tag are only left out.
        by_cosine = self.by == COSINE
        alone = Query(rows=rows).scores(pool, by=COSINE, seed=self.seed, beside=self.beside) if by_cosine else None
        return _Asked(title=f"tag {self.tag}", query=query, scores=alone, by=self.by)

    def _no_tag(self, current: pa.Table) -> ConfigError:
        tags = ", ".join(sorted(set(current.column(tables.LABEL).to_pylist()))) or "none"
        return ConfigError("no galaxy has this tag", value=self.tag, fix=f"Tags and other labels are: {tags}.")


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _image_path(image: str) -> str:
    """Return a path that is taken for an image file and for nothing else."""
    if not Path(image).is_file():
        raise ConfigError("there is no such image file", value=image, fix="Correct the path.")
    return str(Path(image).absolute())


def _table_text(result: SimilarGalaxies) -> str:
    """Return the galaxies as a table for a terminal."""
    frame = result.frame()
    shown: dict[str, list[Any]] = {
        tables.RANK: [str(rank) for rank in frame[tables.RANK]],
        tables.ID: list(frame[tables.ID]),
        tables.SCORE: [f"{score:.4f}" for score in frame[tables.SCORE]],
    }
    for name in (tables.RA, tables.DEC):
        if name in frame:
            shown[name] = [f"{value:.5f}" if np.isfinite(value) else "–" for value in frame[name]]
    if tables.CLASS_ID in frame:
        shown[tables.CLASS_ID] = ["–" if value == tables.NO_CLASS else str(value) for value in frame[tables.CLASS_ID]]
    return tables.markdown(list(shown), list(zip(*shown.values(), strict=True)))
