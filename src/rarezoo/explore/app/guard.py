"""Who may ask the server for what: every request passes here before anything else reads it.

A request is refused, in this order::

    403   its Host is none of the names of the server (a page of another site that calls itself by our address)
    403   it comes from a page of another origin
    401   it has no token;  403  it has a wrong one          (the page and /api/)
    403   it would change something, and the server is read-only
    415   it would change something, and its content is not JSON
    413   its content is too large

The token is in the link (``?token=…``), in ``Authorization: Bearer …``, or in the cookie that the page sets when it is
opened by the link. The cookie is HttpOnly and SameSite=Strict, so that other sites can neither read nor use it.
"""

import ipaddress
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rarezoo.report.pages import security_policy

TOKEN = "token"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Largest content of a request, bytes: a thousand ratings are a quarter of it.
MOST_BYTES = 1 << 20
_READS = frozenset({"GET", "HEAD"})
# What the browser says of the page that made a request. "same-site" is another port of the same computer.
_OWN_PAGES = frozenset({"same-origin", "none"})
_HEADERS = {
    "content-security-policy": security_policy(served=True),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # A link to another site must not tell it the token.
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def problem(status: int, error: str, fix: str) -> JSONResponse:
    """Return the answer to a request that failed.

    >>> problem(404, "no such galaxy: J1", "Check the id.").body
    b'{"error":"no such galaxy: J1","fix":"Check the id."}'
    """
    return JSONResponse({"error": error, "fix": fix}, status)


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes
    ----------
    token
        The secret in the link.
    hosts
        Names and addresses by which browsers may call the server, without port, in lower case.
    any_address
        Whether any IP address is accepted too, because the server listens at all addresses of the computer.
    read_only
        Whether every change is refused.
    cookie
        Name of the cookie. Cookies are shared by all ports of a computer, so it has the port in it.

    Examples
    --------
    >>> access = Access("a secret", frozenset({"localhost"}))
    >>> access.knows_host("localhost:8765"), access.knows_host("example.org"), access.knows_host("")
    (True, False, False)
    """

    token: str
    hosts: frozenset[str]
    any_address: bool = False
    read_only: bool = False
    cookie: str = "rarezoo"

    def knows_host(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address

    def refusal(self, request: Request) -> JSONResponse | None:
        """Return the answer to a request that is refused; None for one that may pass."""
        headers, path = request.headers, request.url.path
        if not self.knows_host(headers.get("host", "")):
            return problem(403, "the server is not known by this name", "Open the link that rarezoo serve printed.")
        changes = request.method not in _READS
        if _is_foreign(headers, changes=changes, is_api=path.startswith("/api/")):
            return problem(403, "the request comes from another page", "Open the link that rarezoo serve printed.")
        if path.startswith("/assets/"):
            return None
        given = _token(request, self.cookie)
        if given is None:
            return problem(401, "the token is missing", "Open the link that rarezoo serve printed.")
        if not secrets.compare_digest(given.encode(errors="replace"), self.token.encode()):
            return problem(
                403, "the token is not the one of this server",
                "Open the link that rarezoo serve printed when it was started last.",
            )  # fmt: skip
        return self._refused_change(headers) if changes else None

    def _refused_change(self, headers: Headers) -> JSONResponse | None:
        if self.read_only:
            return problem(403, "the server is read-only", "Start it without read_only=true to rate galaxies.")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return problem(415, "the content is not JSON", "Send it as Content-Type: application/json.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return _too_large()
        return None


def _is_foreign(headers: Headers, *, changes: bool, is_api: bool) -> bool:
    """Return whether a page of another origin makes the request.

    Browsers send the origin with every change. Programs that are no browsers may leave it out if they send the token
    themselves: what another site can make a browser do is sent with the cookie only.
    """
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        except ValueError:
            return True
    if changes and "cookie" in headers and "authorization" not in headers:
        return True
    return is_api and headers.get("sec-fetch-site", "none") not in _OWN_PAGES


def _token(request: Request, cookie: str) -> str | None:
    kind, _, bearer = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return bearer.strip()
    return request.query_params.get(TOKEN, request.cookies.get(cookie))


def _too_large() -> JSONResponse:
    return problem(413, f"the content is larger than {MOST_BYTES >> 20} MiB", "Send fewer ratings at a time.")


class Guard:
    """The application behind the rules of :class:`Access`; every answer gets the headers that protect the page.

    Parameters
    ----------
    app
        The application.
    access
        The rules.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope)

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_raw(_HEADERS, but=Headers(raw=message["headers"]))]
            await send(message)

        refused = self.access.refusal(request)
        answer: ASGIApp = self.app if refused is None else self._readable(refused, request)
        await answer(scope, _limited(receive), protected)

    @staticmethod
    def _readable(refused: JSONResponse, request: Request) -> Response:
        """Return a refusal as a page for a person who opened the page without its link."""
        refused.headers["cache-control"] = "no-store"
        if request.url.path.startswith("/api/"):
            return refused
        from rarezoo.explore.app.page import refused_page

        return refused_page(refused)


def _raw(headers: Mapping[str, str], *, but: Collection[str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items() if name not in but]


def _limited(receive: Receive) -> Receive:
    """Stop reading content that is larger than it says it is, or does not say how large it is."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MOST_BYTES:
            raise HTTPException(413)
        return message

    return limited
