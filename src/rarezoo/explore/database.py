"""The database of the ratings: SQLite in a file, or PostgreSQL on a server. What can go wrong becomes one message.

The table of ratings is a log: rows are added and never changed, and triggers in the database itself refuse anything
else. One writer at a time holds the log, so that the numbers of its entries are in the order in which they were saved.
"""

import logging
import math
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa

from rarezoo.errors import ConfigError, MissingDependency, OutputError, RarezooError, StoreError, StoreNotFound

log = logging.getLogger(__name__)

SCHEMA = 1
# Seconds for which a writer waits for another one.
PATIENCE = 20.0
_SQLITE, _POSTGRESQL = "sqlite", "postgresql"
_FILE_URL = "sqlite:///"
_SERVER_URLS = ("postgresql://", "postgres://", "postgresql+psycopg://")
_SQLITE_BEGIN = b"SQLite format 3\0"
# Key of the lock that writers on PostgreSQL take; any number that is always the same.
_WRITERS = 7_274_206_190
_CONNECT_SECONDS = 10
_IMMEDIATE = "rarezoo_immediate"


class _UtcTime(sa.types.TypeDecorator[datetime]):
    """Time in UTC; SQLite keeps none of a time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == _POSTGRESQL else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


_metadata = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer(), _SQLITE)
ABOUT = sa.Table(
    "rarezoo_about",
    _metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
RATINGS = sa.Table(
    "rarezoo_ratings",
    _metadata,
    sa.Column("entry", _number, primary_key=True, autoincrement=False),
    sa.Column("id_str", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at", _UtcTime, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double),
    sa.Column("undoes", _number),
)
# Galaxies that are handed out to somebody and not rated yet. This table is no log: its rows come and go.
CLAIMS = sa.Table(
    "rarezoo_claims",
    _metadata,
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("id_str", sa.Text, primary_key=True),
    sa.Column("by", sa.Text, primary_key=True),
    sa.Column("until", sa.Double, nullable=False),
)
_REFUSE_CHANGES = {
    _SQLITE: [
        f"CREATE TRIGGER IF NOT EXISTS rarezoo_no_{change.lower()} BEFORE {change} ON rarezoo_ratings "
        "BEGIN SELECT RAISE(ABORT, 'ratings are never changed or deleted'); END"
        for change in ("UPDATE", "DELETE")
    ],
    _POSTGRESQL: [
        "CREATE OR REPLACE FUNCTION rarezoo_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'ratings are never changed or deleted'; END $$",
        "CREATE OR REPLACE TRIGGER rarezoo_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON rarezoo_ratings "
        "FOR EACH STATEMENT EXECUTE FUNCTION rarezoo_refuse()",
    ],
}


class Database:
    """An open database of ratings of one survey.

    Parameters
    ----------
    where
        Path of a file of SQLite, or a URL: ``postgresql://USER@HOST/DATABASE`` or ``sqlite:///FILE``.
    survey
        Key of the survey; a database of another one is refused. None: any, for a database that exists.
    read_only
        Nothing is written, and a database that does not exist is not made.
    patience
        Seconds to wait while another process writes.

    Attributes
    ----------
    survey : str
        Key of its survey.
    shown : str
        Where it is, without a password, for messages.
    """

    def __init__(
        self, where: str | Path, *, survey: str | None, read_only: bool = False, patience: float = PATIENCE
    ) -> None:
        self.read_only, self.patience = read_only, patience
        self._writer = threading.RLock()
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._file: tuple[int, int] | None = None
        place = _place(where)
        self.is_sqlite = isinstance(place, Path)
        if isinstance(place, Path):
            self._path, self.shown = place, str(place)
            _refuse_path(self._path, read_only=read_only)
        else:
            self._url, self.shown = place, place.set(query={}).render_as_string(hide_password=True)
        self._engine = self._sqlite_engine() if self.is_sqlite else self._postgresql_engine()
        try:
            self._prepare(survey)
            self._file = _file_number(self._path) if self.is_sqlite else None
        except BaseException:
            self.close()
            raise

    # --- engines

    def _sqlite_engine(self) -> sa.Engine:
        def connect() -> sqlite3.Connection:
            path = self._path if self._copy is None else Path(self._copy.name) / self._path.name
            # A file that is removed later must not be made again, empty.
            mode = "ro" if self.read_only else "rwc" if self._file is None else "rw"
            connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode={mode}",
                uri=True, timeout=self.patience, isolation_level=None, check_same_thread=False,
            )  # fmt: skip
            # What is committed is on the disk, also if the power fails.
            connection.execute("PRAGMA synchronous = FULL")
            # It goes on into the file itself at once, so that a copy of the file alone lacks little.
            connection.execute("PRAGMA wal_autocheckpoint = 1")
            return connection

        engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool)

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            # A transaction that reads first and writes later could fail when another one writes in between.
            immediate = connection.get_execution_options().get(_IMMEDIATE)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

        return engine

    def _postgresql_engine(self) -> sa.Engine:
        try:
            import psycopg  # noqa: F401
        except ImportError as problem:
            raise MissingDependency(
                "psycopg", extra="postgresql", purpose="A database of ratings on PostgreSQL"
            ) from problem
        url = self._url.set(drivername="postgresql+psycopg")
        waiting = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_SECONDS}
        # A connection is tried before it is used, so that the server may restart in between.
        engine = sa.create_engine(url, connect_args=waiting, pool_pre_ping=True)

        @sa.event.listens_for(engine, "connect")
        def set_up(connection: Any, _: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {math.ceil(self.patience * 1000)}")
                # A server may be set up to report a transaction before it is on its disk.
                cursor.execute(
                    "SELECT set_config('synchronous_commit', 'on', false) "
                    "WHERE current_setting('synchronous_commit') = 'off'"
                )
            connection.commit()

        return engine

    # --- transactions

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection on which nothing is written."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that no other writer can disturb; it is on the disk when this ends.

        Raises
        ------
        OutputError
            The database is read-only, locked by another process, or full.
        """
        if self.read_only:
            raise OutputError("the ratings are opened for reading only", value=self.shown, fix="Open them for writing.")
        with self._writer, self._translated(), self._engine.connect() as connection:
            self._refuse_lost_file()
            connection = connection.execution_options(**{_IMMEDIATE: True})
            with connection.begin():
                if not self.is_sqlite:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
                yield connection

    def seconds(self, connection: sa.Connection) -> float:
        """Return the time in seconds; processes on several machines share the clock of the server."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    # --- making and checking

    def _prepare(self, survey: str | None) -> None:
        """Make the tables if the database is new, and refuse one of another program, version or survey."""
        if self._is_new():
            if self.read_only or survey is None:
                raise StoreNotFound(
                    "no ratings yet",
                    value=self.shown,
                    fix="Rate some galaxies (rarezoo serve), or import ratings (rarezoo labels import).",
                )
            self._create(survey)
        with self.reading() as connection:
            about = {row.key: row.value for row in connection.execute(sa.select(ABOUT))}
        self.survey = about.get("survey", "")
        version = about.get("schema", "")
        if not version.isdecimal():
            raise StoreError(
                "a damaged database of ratings", value=self.shown, fix="Restore it, or choose another: labels=FILE."
            )
        if int(version) > SCHEMA:
            raise StoreError(
                f"ratings of a newer rarezoo (version {version} of their database, this one knows {SCHEMA})",
                value=self.shown, fix="Install the newest rarezoo: pip install --upgrade rarezoo",
            )  # fmt: skip
        if survey is not None and self.survey != survey:
            raise StoreError(
                "ratings of another survey, which has other galaxies", value=self.shown,
                fix="Choose another database: labels=FILE. To take over ratings of the same galaxies, export them "
                "as CSV and import that.",
            )  # fmt: skip

    def _is_new(self) -> bool:
        """Return whether the database holds nothing; raise StoreError if it holds something else."""
        try:
            with self.reading() as connection:
                names = set(sa.inspect(connection).get_table_names())
        except OutputError:
            if not (self.is_sqlite and self.read_only) or self._copy is not None:
                raise
            self._read_a_copy()
            return self._is_new()
        if ABOUT.name in names and RATINGS.name in names:
            return False
        if self.is_sqlite and names:
            raise StoreError(
                "a database of something else", value=f"{self.shown} with the tables {', '.join(sorted(names)[:5])}",
                fix="Choose another file: labels=FILE.",
            )  # fmt: skip
        return True

    def _read_a_copy(self) -> None:
        """Read a copy from now on: SQLite needs to write beside a file that it reads, and may not do so here."""
        self._engine.dispose()
        self._copy = tempfile.TemporaryDirectory(prefix="rarezoo-")
        with self._translated():
            for ending in ("", "-wal"):
                beside = self._path.with_name(self._path.name + ending)
                if beside.exists():
                    shutil.copyfile(beside, Path(self._copy.name) / beside.name)

    def _create(self, survey: str) -> None:
        if self.is_sqlite:
            self._keep_a_write_ahead_log()
        with self.writing() as connection:
            _metadata.create_all(connection)
            for statement in _REFUSE_CHANGES[connection.dialect.name]:
                connection.exec_driver_sql(statement)
            if not connection.execute(sa.select(ABOUT.c.key)).first():
                made = datetime.now(UTC).isoformat(timespec="seconds")
                rows = {"schema": str(SCHEMA), "survey": survey, "made": made}
                connection.execute(sa.insert(ABOUT), [{"key": key, "value": value} for key, value in rows.items()])

    def _keep_a_write_ahead_log(self) -> None:
        """Switch a new file to the write-ahead log, in which readers and a writer do not wait for each other."""
        end = time.monotonic() + self.patience
        while True:
            try:
                with self._translated():
                    connection = self._engine.raw_connection()
                    try:
                        connection.cursor().execute("PRAGMA journal_mode = WAL")
                    finally:
                        connection.close()
                return
            except OutputError as problem:
                # SQLite does not wait by itself when two processes do this at the same time.
                busy = isinstance(problem.__cause__, sqlite3.OperationalError) and _sqlite_name(
                    problem.__cause__
                ).startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def _refuse_lost_file(self) -> None:
        """Raise OutputError if the file was removed or replaced: what is written now would be in no file any more."""
        if self.is_sqlite and self._file is not None and _file_number(self._path) != self._file:
            raise OutputError(
                "the database of ratings was removed or replaced while it was open", value=self.shown,
                fix="Bring the file back, or start again.",
            )  # fmt: skip

    # --- errors

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the database refuses into one message."""
        try:
            yield
        except sa.exc.TimeoutError as problem:
            raise self._locked() from problem
        except sa.exc.DBAPIError as problem:
            original = problem.orig if problem.orig is not None else problem
            if problem.connection_invalidated:
                self._engine.dispose()
            raise self._error(original) or problem from original
        except sqlite3.Error as problem:
            error = self._error(problem)
            if error is None:
                raise
            raise error from problem
        except OSError as problem:
            if isinstance(problem, RarezooError):
                raise
            raise self._unwritable(problem.strerror or str(problem)) from problem

    def _error(self, problem: BaseException) -> RarezooError | None:
        """Return the error of rarezoo for one of the database; None for a bug in rarezoo."""
        return self._sqlite_error(problem) if self.is_sqlite else self._postgresql_error(problem)

    def _sqlite_error(self, problem: BaseException) -> RarezooError | None:
        name = _sqlite_name(problem)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
            return self._locked()
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            return self._full(str(problem))
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            return self._unwritable(str(problem))
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return StoreError(
                f"no database of ratings, or a damaged one ({problem})", value=self.shown,
                fix="Restore it, or choose another file: labels=FILE.",
            )  # fmt: skip
        return None

    def _postgresql_error(self, problem: BaseException) -> RarezooError | None:
        import psycopg

        code = getattr(problem, "sqlstate", None) or ""
        reason = " ".join(str(problem).split())
        if code in ("55P03", "57014", "40P01"):
            return self._locked()
        if code.startswith("53") or code == "58030":
            return self._full(reason)
        if code in ("42501", "25006"):
            return self._unwritable(reason)
        if isinstance(problem, psycopg.OperationalError) or code.startswith(("28", "3D", "08", "57P")):
            return OutputError(
                f"the database of ratings cannot be reached ({reason})", value=self.shown,
                fix="Check the server, the names in labels= and the password (PGPASSWORD or ~/.pgpass).",
            )  # fmt: skip
        if isinstance(problem, psycopg.ProgrammingError) and not code:
            return ConfigError(
                f"this URL of a database cannot be used ({reason})", value=self.shown,
                fix="Write labels=postgresql://USER@HOST/DATABASE.",
            )  # fmt: skip
        return None

    def _locked(self) -> OutputError:
        return OutputError(
            f"the ratings are locked by another process since {self.patience:g} seconds", value=self.shown,
            fix="This can be a `rarezoo serve`, an import, a backup or a database browser. Close it, or try again.",
        )  # fmt: skip

    def _full(self, reason: str) -> OutputError:
        return OutputError(
            f"the ratings cannot be saved ({reason})", value=self.shown,
            fix="Free some space there, and rate again what was not saved; everything before is kept.",
        )  # fmt: skip

    def _unwritable(self, reason: str) -> OutputError:
        return OutputError(
            f"the database of ratings cannot be written ({reason})", value=self.shown,
            fix="Choose a place where you may write: labels=FILE. Exports and the read-only page need no such right.",
        )  # fmt: skip


def _place(where: str | Path) -> Path | sa.URL:
    """Return the file of a database, or the URL of one on a server. Messages never repeat what may hold a password."""
    text = str(where)
    scheme, separator, _ = text.partition("://")
    if isinstance(where, Path) or not separator:
        return Path(where)
    if text.startswith(_FILE_URL) and len(text) > len(_FILE_URL):
        return Path(unquote(text.removeprefix(_FILE_URL)))
    if not text.startswith(_SERVER_URLS):
        raise ConfigError(
            "no kind of database that rarezoo knows", value=f"{scheme}://…",
            fix="Give a file, or postgresql://USER@HOST/DATABASE.",
        )  # fmt: skip
    try:
        return sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(
            "the URL of the database cannot be read", value=f"{scheme}://…",
            fix="Write postgresql://USER@HOST/DATABASE. In a password @ is written %40, / is %2F and : is %3A.",
        ) from None  # fmt: skip


def _refuse_path(path: Path, *, read_only: bool) -> None:
    """Raise an error for a path that cannot be a database; make its folder."""
    if path.name == ":memory:":
        raise ConfigError("ratings in memory would be lost", value=path, fix="Name a file: labels=FILE.")
    if path.is_dir():
        raise ConfigError("a folder is no database of ratings", value=path, fix="Name a file: labels=FILE.")
    try:
        if not path.exists():
            if read_only:
                raise StoreNotFound(
                    "no ratings yet",
                    value=path,
                    fix="Rate some galaxies (rarezoo serve), or import ratings (rarezoo labels import).",
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            return
        with path.open("rb") as stream:
            first = stream.read(len(_SQLITE_BEGIN))
    except OSError as problem:
        if isinstance(problem, RarezooError):
            raise
        raise OutputError(
            f"the database of ratings cannot be read ({problem.strerror})", value=path,
            fix="Choose another file: labels=FILE.",
        ) from problem  # fmt: skip
    if first and first != _SQLITE_BEGIN:
        raise StoreError("the file is no database of ratings", value=path, fix="Choose another file: labels=FILE.")
    if not read_only and not os.access(path, os.W_OK):
        raise OutputError(
            "the database of ratings cannot be written (it is read-only)", value=path,
            fix="Choose a place where you may write: labels=FILE. Exports and the read-only page need no such right.",
        )  # fmt: skip


def _sqlite_name(problem: BaseException) -> str:
    return str(getattr(problem, "sqlite_errorname", ""))


def _file_number(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from any other, wherever it is moved; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
