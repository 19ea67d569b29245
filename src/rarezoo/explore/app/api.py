"""The HTTP API under ``/api/``; docs/reference/api-http.md describes it.

Every answer is JSON, but for images and the export. A request that fails is answered with ``{"error": …, "fix": …}``.
"""

import json
import logging
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.compute as pc
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rarezoo import __version__, tables
from rarezoo.errors import ConfigError, OutputError, RarezooError, StoreError
from rarezoo.explore.app.classes import ShownClasses
from rarezoo.explore.app.finding import Finder
from rarezoo.explore.app.galaxies import ShownGalaxies
from rarezoo.explore.app.guard import problem
from rarezoo.explore.app.pictures import Pictures
from rarezoo.explore.labels import INTERESTING, Labels, Rating
from rarezoo.explore.session import Session

log = logging.getLogger(__name__)
# Largest number of galaxies of one answer, and of ratings in one request.
MOST_SHOWN, MOST_RATINGS = 500, 1000
# Longest name of a person or a label.
_LONGEST = 100
# No value, round or time of looking is near this.
_LARGEST = 1e9
_IMAGE_SECONDS = 86_400
_FIXES = {404: "See docs/reference/api-http.md.", 405: "See docs/reference/api-http.md.", 413: "Send less at a time."}


class NotThere(Exception):
    """What was asked for does not exist."""

    def __init__(self, error: str, fix: str) -> None:
        self.error, self.fix = error, fix
        super().__init__(error)


class Api:
    """The functions behind the routes.

    Parameters
    ----------
    session
        What is shown next and what the model makes of ratings.
    labels
        Where ratings are kept.
    galaxies
        What is shown of galaxies.
    by
        Name that the page proposes to a person.
    read_only
        Whether nothing may be changed.
    classes
        The classes of the search; None for a store.
    """

    def __init__(
        self,
        session: Session,
        labels: Labels,
        galaxies: ShownGalaxies,
        *,
        by: str = "",
        read_only: bool = False,
        classes: ShownClasses | None = None,
    ) -> None:
        self.session, self.labels, self.galaxies, self.classes = session, labels, galaxies, classes
        self.by, self.read_only = by, read_only
        self.pictures = Pictures(galaxies.cutout)
        self.finder = Finder(galaxies, labels)

    def routes(self) -> list[Route]:
        """Return the routes, without ``/api``."""
        reads: dict[str, Callable[[Request], Any]] = {
            "/about": self.about, "/next": self.next, "/galaxy": self.galaxy, "/galaxy/{id:path}": self.galaxy,
            "/image": self.image, "/image/{id:path}": self.image, "/ranking": self.ranking,
            "/progress": self.progress, "/similar": self.similar, "/words": self.words, "/find": self.find,
            "/tags": self.tags, "/classes": self.list_classes, "/classes/{id:int}": self.one_class,
            "/decisions": self.decisions, "/ratings": self.ratings, "/export": self.export,
        }  # fmt: skip
        changes: dict[str, Callable[[Any], Any]] = {
            "/ratings": self.rate, "/undo": self.undo, "/decisions": self.decide,
        }  # fmt: skip
        return [
            *(Route(path, _reading(answer), methods=["GET"]) for path, answer in reads.items() if path not in changes),
            *(Route(path, _both(reads.get(path), change)) for path, change in changes.items()),
        ]  # fmt: skip

    # --- what there is

    def about(self, request: Request) -> dict[str, Any]:
        """Return what the page needs to begin."""
        return {
            "title": self.galaxies.title, "version": __version__, "survey": self.labels.survey,
            "galaxies": len(self.galaxies.rows), "images": self.galaxies.has_images,
            "classes": None if self.classes is None else len(self.classes.search),
            "labels": self._labels(), "tags": self.labels.tags(), "people": list(self.labels.people()),
            "by": self.by, "read_only": self.read_only, "now": datetime.now(UTC).isoformat(),
        }  # fmt: skip

    def _labels(self) -> list[dict[str, Any]]:
        """Return every label that has ratings with the number of its rated galaxies, and the one to begin with."""
        rated: dict[str, set[str]] = {INTERESTING: set()}
        for rating in self.labels.ratings():
            rated.setdefault(rating.label, set()).add(rating.id_str)
        return [{"label": label, "rated": len(galaxies)} for label, galaxies in rated.items()]

    def next(self, request: Request) -> dict[str, Any]:
        """Return the galaxies that a person should rate next; none of those in ``skip``, which the page has already."""
        label, count = _label(request), _number(request, "count", 12, most=48)
        skip = request.query_params.getlist("skip")
        if self.read_only:
            rated = {rating.id_str for rating in self.labels.ratings(label)}.union(skip)
            ranked = self.session.ranking(label, first=count + len(rated)).to_pylist()
            shown = [{**row, tables.WHY: "model", tables.ROUND: 0} for row in ranked if row[tables.ID] not in rated]
            shown = shown[:count]
        else:
            by = _person(request.query_params.get("by", ""))
            shown = [_plain(one) for one in self.session.next(by=by, label=label, count=count, skip=skip)]
        return {"galaxies": shown}

    def galaxy(self, request: Request) -> dict[str, Any]:
        """Return what is known of a galaxy, with its ratings."""
        galaxy = self._galaxy(_asked(request))
        ratings = [_plain(rating) for rating in self.labels.ratings() if rating.id_str == galaxy]
        return {**self.galaxies.about(galaxy), "ratings": ratings}

    def image(self, request: Request) -> Response:
        """Return the image of a galaxy."""
        galaxy, query = self._galaxy(_asked(request)), request.query_params
        if not self.galaxies.has_images:
            raise NotThere("the page has no images", "Start rarezoo serve with the survey, without images=false.")
        kind = query.get("format", "webp")
        side = _number(request, "side", 0, most=1024) or None
        content = self.pictures.encoded(galaxy, stretch=query.get("stretch", "linear"), side=side, kind=kind)
        return Response(
            content, media_type=f"image/{kind}", headers={"cache-control": f"private, max-age={_IMAGE_SECONDS}"}
        )

    def ranking(self, request: Request) -> dict[str, Any]:
        """Return the galaxies that the model expects to be most interesting, the best first."""
        table = self.session.ranking(_label(request), first=_number(request, "first", 48, most=100_000))
        return {"galaxies": [_plain(row) for row in table.to_pylist()]}

    def progress(self, request: Request) -> dict[str, Any]:
        """Return how far the ratings of a label are."""
        return dict(_plain(self.session.progress(_label(request))))

    def similar(self, request: Request) -> dict[str, Any]:
        """Return the galaxies most like some, and unlike others."""
        ids = [self._galaxy(galaxy) for galaxy in request.query_params.getlist("id")]
        against = [self._galaxy(galaxy) for galaxy in request.query_params.getlist("against")]
        if not ids:
            raise ConfigError("no galaxy was named", value="id=", fix="Name one: similar?id=…")
        return self.finder.similar(ids, against=against, k=_number(request, "k", 24, least=1, most=MOST_SHOWN))

    def words(self, request: Request) -> dict[str, Any]:
        """Return the galaxies whose predicted answers fit some words best."""
        return self.finder.words(
            request.query_params.get("q", ""), k=_number(request, "k", 24, least=1, most=MOST_SHOWN)
        )

    def find(self, request: Request) -> dict[str, Any]:
        """Return what a text in the search box means: a galaxy by its id or position, or galaxies that fit words."""
        return self.finder.find(
            request.query_params.get("q", ""), k=_number(request, "k", 24, least=1, most=MOST_SHOWN)
        )

    def tags(self, request: Request) -> dict[str, Any]:
        """Return every tag with the number of galaxies that have it."""
        return {"tags": self.labels.tags()}

    # --- classes

    def list_classes(self, request: Request) -> dict[str, Any]:
        """Return the classes of the search, by rank."""
        return {"classes": [] if self.classes is None else tables.plain(self.classes.listed())}

    def one_class(self, request: Request) -> dict[str, Any]:
        """Return the card of a class."""
        class_id = request.path_params["id"]
        try:
            return self._classes().card(class_id)
        except KeyError:
            raise NotThere(f"there is no such class: {class_id}", "GET /api/classes lists them.") from None

    def decisions(self, request: Request) -> Response:
        """Return all decisions as a file for ``rarezoo classes apply``."""
        classes = self._classes()
        decisions = classes.decisions()
        content = classes.content(decisions)
        return JSONResponse(content, headers=_attachment("decisions.json"))

    def decide(self, body: Any) -> dict[str, Any]:
        """Keep a decision about a class."""
        if not isinstance(body, Mapping):
            raise ConfigError("not a decision", value=_short(body), fix='Send {"class_id": …, "decision": "keep"}.')
        return {"decision": asdict(self._classes().decide(body))}

    def _classes(self) -> ShownClasses:
        if self.classes is None:
            raise NotThere("an embedding store has no classes", "Start rarezoo serve with a search.")
        return self.classes

    # --- ratings

    def ratings(self, request: Request) -> dict[str, Any]:
        """Return the ratings that hold now, those that were made last first."""
        label, by = request.query_params.get("label") or None, request.query_params.get("by") or None
        galaxies = set(request.query_params.getlist("id"))
        rows = [row for row in self.labels.ratings(label, by=by) if not galaxies or row.id_str in galaxies]
        rows.sort(key=lambda row: -(row.entry or 0))
        return {"ratings": [_plain(row) for row in rows[: _number(request, "first", MOST_SHOWN, most=100_000)]]}

    def rate(self, body: Any) -> dict[str, Any]:
        """Keep ratings; they are on disk before the answer is sent. What was kept before is not kept again."""
        rows = body.get("ratings") if isinstance(body, Mapping) else body
        if not isinstance(rows, list) or len(rows) > MOST_RATINGS:
            raise ConfigError(
                "not a list of ratings", value=_short(body), fix=f'Send {{"ratings": […]}} with up to {MOST_RATINGS}.'
            )
        ratings = [self._rating(row) for row in rows]
        kept = self.session.rate(ratings, once=True)
        return {"saved": [{tables.ID: saved.id_str, tables.ENTRY: saved.entry} for saved in kept]}

    def undo(self, body: Any) -> dict[str, Any]:
        """Take back an entry, or the last one of a person; taking back the same entry twice does it once."""
        if not isinstance(body, Mapping):
            raise ConfigError("not an undo", value=_short(body), fix='Send {"by": …, "entry": …}.')
        by, entry = _person(body.get("by")), body.get("entry")
        if entry is not None and (isinstance(entry, bool) or not isinstance(entry, int)):
            raise ConfigError("not the number of an entry", value=_short(entry), fix="Send what /api/ratings answered.")
        undone = self.session.undo(by=by, entry=entry)
        return {"undone": None if undone is None else _plain(undone)}

    def _rating(self, row: Any) -> Rating:
        """Return the rating that a part of a request describes."""
        if not isinstance(row, Mapping):
            raise ConfigError("not a rating", value=_short(row), fix="Send an object for each rating.")
        value, seconds, round_ = row.get("value"), row.get("seconds"), row.get("round", 0)
        for name, number in (("value", value), ("seconds", seconds), ("round", round_)):
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < _LARGEST
            if number is not None and not is_number:
                raise ConfigError(f"{name} is no number", value=_short(number), fix="Send a number, or null.")
        galaxy = row.get(tables.ID)
        if not isinstance(galaxy, str) or galaxy not in self.galaxies.rows:
            raise ConfigError(
                "the search has no such galaxy", value=_short(galaxy),
                fix="The rating belongs to another search; reload the page.",
            )  # fmt: skip
        return Rating(
            id_str=galaxy, label=_name(row.get("label"), "label"), value=None if value is None else float(value),
            kind=_name(row.get("kind"), "kind"), by=_person(row.get("by")), at=_time(row.get("at")),
            why=_name(row.get("why"), "why", empty=True), round=int(round_ or 0),
            seconds=None if seconds is None else float(seconds),
        )  # fmt: skip

    def export(self, request: Request) -> Response:
        """Return all entries, or those of a label, as CSV."""
        table, label = self.labels.log(), request.query_params.get("label")
        if label:
            table = table.filter(pc.equal(table[tables.LABEL], label))
        with TemporaryDirectory() as folder:
            content = tables.write_csv(table, Path(folder) / "labels.csv").read_bytes()
        return Response(content, media_type="text/csv", headers=_attachment("labels.csv"))

    def _galaxy(self, galaxy: str) -> str:
        if galaxy not in self.galaxies.rows:
            try:
                # It says whether the galaxy was skipped at embedding, or which ids are spelled alike.
                self.finder.pool.rows_of([galaxy])
            except ConfigError as unknown:
                raise NotThere(f"{unknown.what}: {_short(unknown.value)}", unknown.fix) from unknown
        return galaxy


def _reading(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Return the endpoint of a function that changes nothing; it runs in a thread of its own."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_answered, answer, request)

    return endpoint


def _both(read: Callable[[Request], Any] | None, change: Callable[[Any], Any]) -> type:
    """Return the endpoint of a path that answers GET by one function and POST by another one."""
    from starlette.endpoints import HTTPEndpoint

    async def post(self: HTTPEndpoint, request: Request) -> Response:
        try:
            body = await request.json()
            # Texts that no database can hold.
            json.dumps(body, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return problem(400, "the content is not JSON", "Send a JSON object in UTF-8.")
        return await run_in_threadpool(_answered, change, body)

    async def get(self: HTTPEndpoint, request: Request) -> Response:
        return await run_in_threadpool(_answered, read, request)

    return type("Endpoint", (HTTPEndpoint,), {"post": post, **({} if read is None else {"get": get})})


def _answered(answer: Any, asked: Any) -> Response:
    """Return the answer of a function, or what is wrong with the request."""
    try:
        result = answer(asked)
    except NotThere as missing:
        return problem(404, missing.error, missing.fix)
    except RarezooError as refused:
        # What may go well later, such as writing to a disk that is full now, must not look like the user's mistake.
        status = 503 if isinstance(refused, (OutputError, StoreError)) else 400
        return problem(status, _without_fix(refused), refused.fix)
    if isinstance(result, Response):
        return result
    return JSONResponse(result, headers={"cache-control": "no-store"})


def _without_fix(refused: RarezooError) -> str:
    return str(refused).removesuffix(refused.fix).strip().removesuffix(".")


async def failed(request: Request, mistake: Exception) -> Response:
    """Answer a request that no route answers, or that met a bug."""
    if isinstance(mistake, HTTPException):
        return problem(mistake.status_code, mistake.detail, _FIXES.get(mistake.status_code, "Check the request."))
    log.error("a bug in rarezoo", exc_info=mistake)
    return problem(500, f"a bug in rarezoo: {type(mistake).__name__}", "The terminal of rarezoo serve says more.")


def _asked(request: Request) -> str:
    return str(request.path_params.get("id") or request.query_params.get("id", ""))


def _label(request: Request) -> str:
    return _name(request.query_params.get("label", INTERESTING), "label")


def _number(request: Request, name: str, default: int, *, least: int = 0, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise ConfigError(f"{name} is no number from {least} to {most:,}", value=_short(text), fix="Choose one.")
    return int(text)


def _person(name: Any) -> str:
    return _name(name, "by, the name of the person who rates,")


def _name(text: Any, what: str, *, empty: bool = False) -> str:
    """Return the name of a person, label or reason without spaces around it."""
    stripped = unicodedata.normalize("NFC", text.strip()) if isinstance(text, str) else text
    if empty and stripped in (None, ""):
        return ""
    if not isinstance(stripped, str) or not stripped or len(stripped) > _LONGEST or not stripped.isprintable():
        raise ConfigError(
            f"{what} is missing, or is no text of up to {_LONGEST} letters, digits and signs", value=_short(text),
            fix="Give a name, such as ada.",
        )  # fmt: skip
    return stripped


def _time(text: Any) -> datetime:
    """Return when a rating was made: as the page says, so that it is known again if it is sent twice."""
    if text is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
        at.timestamp()
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError("not a time", value=_short(text), fix="Write it as 2026-01-31T23:59:59.000Z.") from None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _plain(row: Any) -> Any:
    """Return a row, a named tuple or a dataclass as JSON can hold it."""
    if isinstance(row, tuple) and hasattr(row, "_asdict"):
        row = row._asdict()
    if is_dataclass(row) and not isinstance(row, type):
        row = asdict(row)
    if isinstance(row, Mapping):
        return {name: _plain(value) for name, value in row.items()}
    if isinstance(row, datetime):
        return row.isoformat()
    return tables.plain(row)


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
