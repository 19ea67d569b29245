"""``rarezoo serve``: the live page on which people rate galaxies, and its HTTP API.

The server listens on this computer only, unless ``host=`` says otherwise. Its link holds a random token, without which
nothing is answered. From another computer it is reached through ``ssh -L``.
"""

import errno
import logging
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import uvicorn

from rarezoo.errors import ConfigError
from rarezoo.explore.app.api import Api
from rarezoo.explore.app.classes import ShownClasses
from rarezoo.explore.app.galaxies import ShownGalaxies
from rarezoo.explore.app.guard import LOOPBACK, TOKEN, Access
from rarezoo.explore.app.page import application
from rarezoo.explore.labels import Labels, source_of
from rarezoo.explore.ranking import RatingSettings
from rarezoo.explore.session import Session
from rarezoo.searches.result import Search
from rarezoo.settings import setting

log = logging.getLogger(__name__)
PORT = 8765
_SHORTEST_TOKEN = 16
_TOKEN_BYTES = 24
_EVERYWHERE = ("0.0.0.0", "::", "")
# Largest head of a request, bytes: the page names the galaxies that it has already in the address.
_LONGEST_HEAD = 1 << 18
# Seconds that a request may still take after Ctrl-C.
_LAST_SECONDS = 3


@dataclass(kw_only=True)
class ServeRun(RatingSettings):
    """Serve a page on which people rate the galaxies of a search, until Ctrl-C ends it.

    The page shows the galaxies that are worth most to rate, learns from the ratings, and also shows the classes.
    Several people may rate at once; nobody is shown a galaxy that somebody else is looking at.
    """

    prefix: ClassVar[str] = ""

    search: str = setting(help="folder of a finished search, or of an embedding store", positional=True)
    port: int = setting(PORT, "port at which the page is served; 0 = any that is free", ge=0, le=65535)
    host: str = setting(LOOPBACK[0], "address at which the server listens; by default only this computer reaches it")
    labels: str = setting("", "database of ratings, FILE or postgresql://…; empty: labels.sqlite beside the search")
    decisions: str = setting("", "file of decisions about classes; empty: decisions.json beside the search")
    by: str = setting("", "name that the page proposes to the person who rates; empty: it asks")
    read_only: bool = setting(False, "refuse every change")
    images: bool = setting(True, "show images and catalogue; false if the survey cannot be opened")
    overlap: bool = setting(False, "show the same galaxies to several people")
    open: bool = setting(False, "open the page in a browser")
    token: str = setting("", "token of the link; empty: a new random one")

    def check(self) -> None:
        """Raise ConfigError for a token that could be guessed or that does not fit into a link."""
        super().check()
        if self.token and (len(self.token) < _SHORTEST_TOKEN or not set(self.token) <= _TOKEN_CHARACTERS):
            raise ConfigError(
                "the token is too short, or has characters that do not fit into a link", value="token=…",
                fix=f"Use at least {_SHORTEST_TOKEN} letters, digits, - and _, or leave it out.",
            )  # fmt: skip

    def run(self) -> str:
        """Serve the page; return what was served when it ends.

        Raises
        ------
        StoreNotFound, StoreError
            There is no search, its store has moved, or the database is of another survey or of a newer version.
        DataError
            The survey has moved.
        OutputError
            The database cannot be written.
        ConfigError
            The port is in use, or the address is none of this computer.
        """
        source = source_of(self.search)
        galaxies = ShownGalaxies(source, images=self.images)
        labelled = Labels.of(source, self.labels, read_only=self.read_only)
        with labelled as labels, listening(self.host, self.port) as bound:
            classes = None
            if isinstance(source, Search):
                file = Path(self.decisions) if self.decisions else None
                classes = ShownClasses(source, survey=galaxies.survey, file=file)
            with Session(source, labels, settings=self, overlap=self.overlap) as session:
                api = Api(session, labels, galaxies, by=self.by, read_only=self.read_only, classes=classes)
                self._serve(api, bound)
            return f"{len(labels.ratings()):,} ratings are kept in {labels.where}"

    def _serve(self, api: Api, bound: socket.socket) -> None:
        token, port = self.token or secrets.token_urlsafe(_TOKEN_BYTES), bound.getsockname()[1]
        shown = LOOPBACK[0] if self.host in _EVERYWHERE else self.host
        link = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/?{TOKEN}={token}"
        access = Access(
            token, frozenset({*LOOPBACK, self.host.lower(), *_own_names(self.host)}),
            any_address=self.host in _EVERYWHERE, read_only=self.read_only, cookie=f"rarezoo-{port}",
        )  # fmt: skip
        if self.host not in LOOPBACK:
            log.warning(
                "everybody who can reach %s port %d and has the link can rate; what they send is not encrypted. "
                "ssh -L is safer: leave host= out.", self.host, port,
            )  # fmt: skip
        config = uvicorn.Config(
            application(api, access), log_config=None, access_log=False, server_header=False, proxy_headers=False,
            lifespan="off", ws="none", http="h11", timeout_graceful_shutdown=_LAST_SECONDS,
            h11_max_incomplete_event_size=_LONGEST_HEAD,
        )  # fmt: skip
        with _ended_by_signals():
            print(
                f"{api.galaxies.title}: {len(api.galaxies.rows):,} galaxies. Ratings are kept in {api.labels.where}.\n"
                f"Open {link}\n"
                f"From another computer, first run there: ssh -L {port}:127.0.0.1:{port} USER@THIS_COMPUTER\n"
                "Ctrl-C ends the server.",
                flush=True,
            )  # fmt: skip
            if self.open:
                webbrowser.open(link)
            threading.Thread(target=api.finder.prepare, daemon=True).start()
            uvicorn.Server(config).run(sockets=[bound])


_TOKEN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises
    ------
    ConfigError
        The port is in use or not allowed, or the address is none of this computer.

    Examples
    --------
    >>> with listening("127.0.0.1", 0) as bound:
    ...     bound.getsockname()[0]
    '127.0.0.1'
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as problem:
        raise ConfigError("no such address", value=f"host={host}", fix="Leave host= out to use 127.0.0.1.") from problem
    bound = socket.socket(family, kind, protocol)
    try:
        # A port that a killed server used a moment ago can be used again.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as problem:
        bound.close()
        known = {
            errno.EADDRINUSE: ("the port is in use", "Choose another one: port=…, or port=0 for any that is free."),
            errno.EACCES: ("the port is not allowed", "Choose a port above 1023."),
            errno.EADDRNOTAVAIL: ("this computer does not have the address", "Leave host= out to use 127.0.0.1."),
        }  # fmt: skip
        other = (f"the server cannot listen ({problem.strerror})", "Choose another port=… or host=….")
        what, fix = known.get(problem.errno or 0, other)
        raise ConfigError(what, value=f"host={host} port={port}", fix=fix) from problem
    return bound


def _own_names(host: str) -> set[str]:
    """Return the names of this computer, if the server listens at all of its addresses."""
    return {socket.gethostname().lower(), socket.getfqdn().lower()} if host in _EVERYWHERE else set()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the server without a traceback, after the requests in progress are answered."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
