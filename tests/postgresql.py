"""A PostgreSQL server for tests, from the package of Debian or Ubuntu, on a port of this machine only.

Without the package the tests that need it are skipped, or fail where ``RAREZOO_REQUIRE_POSTGRESQL`` is set.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import pytest

PASSWORD = "s3cret/word"
_USER = "postgres"
_numbers = count()


class Server:
    """A running server whose only user, ``postgres``, has a password."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="rarezoo-postgresql-"))
        self.folder.chmod(0o755)
        # The server refuses to run as root.
        self._as = {"user": _USER, "group": pwd.getpwnam(_USER).pw_gid, "extra_groups": []} if not os.getuid() else {}
        if self._as:
            shutil.chown(self.folder, _USER)
        (self.folder / "password").write_text(PASSWORD)
        self._run(
            "initdb", "--no-sync", "--username", _USER, "--pwfile", self.folder / "password", "--encoding", "UTF8",
            "--locale", "C", "--auth", "scram-sha-256", "--pgdata", self.folder / "data",
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        options = ["-p", self.port, "-k", self.folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self.folder / "data", *map(str, options)], cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as,
        )  # fmt: skip
        self._run("pg_isready", "--host", "127.0.0.1", "--port", self.port, "--timeout", 0, until=time.monotonic() + 60)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the server, by default as abruptly as it can be stopped."""
        self._process.send_signal(how)
        self._process.wait(60)

    def remove(self) -> None:
        self.stop(signal.SIGINT)
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Make a database and return its URL."""
        name = f"ratings{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def new_schema(self) -> str:
        """Make a schema, which takes less time than a database, and return a URL whose tables are in it."""
        name = f"ratings{next(_numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.url(_USER)}?options=-csearch_path%3D{name}"

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url(_USER), autocommit=True) as connection:
            connection.execute(statement)

    def url(self, database: str, *, user: str = _USER, password: str = PASSWORD) -> str:
        """Return the URL of a database as a user of rarezoo writes it."""
        return f"postgresql://{user}:{password.replace('/', '%2F')}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *words: object, until: float = 0) -> None:
        """Run a program of PostgreSQL, again and again until some time if it fails."""
        while True:
            done = subprocess.run(
                [self._programs / program, *map(str, words)], cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False, **self._as,
            )  # fmt: skip
            if not done.returncode:
                return
            assert time.monotonic() < until, f"{program} ended with {done.returncode}\n{done.stderr}"
            time.sleep(0.05)


def _cannot_run(reason: str) -> None:
    if os.environ.get("RAREZOO_REQUIRE_POSTGRESQL"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgresql_server():
    """A PostgreSQL server for the whole run."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        _cannot_run('NO TEST ON POSTGRESQL: psycopg is not installed: pip install "rarezoo[postgresql]"')
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        _cannot_run("NO TEST ON POSTGRESQL: there is no server: apt-get install postgresql")
    server = Server(programs[-1].parent)
    yield server
    server.remove()


@pytest.fixture
def postgresql(postgresql_server) -> str:
    """URL of a new database on the server."""
    return postgresql_server.new_database()


@pytest.fixture
def postgresql_schema(postgresql_server) -> str:
    """URL of a new schema on the server."""
    return postgresql_server.new_schema()
