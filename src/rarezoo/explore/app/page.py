"""The page itself and the files that it needs, and the application that serves both and the API."""

from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from rarezoo.explore.app.api import Api, failed
from rarezoo.explore.app.guard import TOKEN, Access, Guard
from rarezoo.report.pages import environment

# Files that the page may ask for, and the package and type of each; nothing else is ever read.
_ASSETS = {
    "style.css": ("rarezoo.report", "text/css"),
    "atlas.css": ("rarezoo.report", "text/css"),
    "rate.css": ("rarezoo.explore", "text/css"),
    "rate.js": ("rarezoo.explore", "text/javascript"),
}
KEYS = (
    ("0 … 5", "grade: 0 not interesting, 5 most interesting"), ("y n u", "yes, no, unsure"),
    ("x", "artifact"), ("t", "tag: type its name, Enter"), ("z", "undo"), ("arrows", "move, without rating"),
    ("Home End", "first, last of the page"), ("Page Down", "next page"), ("Page Up", "page before"),
    ("g", "grid or one galaxy"), ("w", "why this galaxy"), ("m", "more like this"), ("/", "search"), ("?", "this help"),
)  # fmt: skip


def application(api: Api, access: Access) -> Guard:
    """Return the application: the page, its files and the API, behind the rules of who may ask for what.

    Parameters
    ----------
    api
        The API.
    access
        The rules.
    """

    async def page(request: Request) -> Response:
        template = environment("rarezoo.explore").get_template("rate.html.jinja")
        text = template.render(title=api.galaxies.title, keys=KEYS)
        answer = HTMLResponse(text, headers={"cache-control": "no-store"})
        if request.query_params.get(TOKEN):
            # The script of the page removes the token from the address.
            answer.set_cookie(access.cookie, access.token, httponly=True, samesite="strict")
        return answer

    handlers: dict[Any, Any] = {HTTPException: failed, Exception: failed}
    return Guard(
        Starlette(
            routes=[
                Route("/", page), Route("/assets/{name}", _asset),
                Mount("/api", Starlette(routes=api.routes(), exception_handlers=handlers)),
            ],
            exception_handlers=handlers,
        ),
        access,
    )  # fmt: skip


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404)
    package, kind = _ASSETS[name]
    content = (resources.files(package) / "assets" / name).read_bytes()
    return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


def refused_page(refused: JSONResponse) -> Response:
    """Return what a person sees who opens the page without its link."""
    import json

    about = json.loads(bytes(refused.body))
    text = environment("rarezoo.explore").get_template("refused.html.jinja").render(**about)
    return HTMLResponse(text, refused.status_code, headers={"cache-control": "no-store"})
