"""The database: engines, the two kinds of transaction, its clock, its migrations. SQLite and PostgreSQL.

A transaction either reads or writes, and says so when it begins. A writing one takes SQLite's write lock at once (BEGIN
IMMEDIATE): one that began as a reader and upgrades fails immediately whatever the busy timeout when another has written since.
"""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Float, create_engine, event, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.functions import FunctionElement

from app.errors import Conflict, GanvilError, StorageFull, Unavailable
from app.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_SECONDS = 10
MIGRATION_LOCK = 0x67616E76696C  # "ganvil": a PostgreSQL advisory lock of our own

# https://www.sqlite.org/rescode.html and https://www.postgresql.org/docs/current/errcodes-appendix.html
_CLASHES = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
    "23505",  # unique_violation
    "23503",  # foreign_key_violation
}
_FULL = {sqlite3.SQLITE_FULL, "53100"}  # disk_full
_IDLE_IN_TRANSACTION = "25P03"  # idle_in_transaction_session_timeout
# SQLite's codes that tell of the moment or the machine, and not of our SQL. With PostgreSQL the class of the error tells.
_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}

# What a reading transaction asks of each database. SQLite's read a snapshot as they are, and _begin_sqlite makes them read only.
_READING: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"},
}


class now(FunctionElement[float]):  # noqa: N801 (reads as the SQL function that it is)
    """SQL: the database's clock, seconds since the epoch. It goes on within a transaction."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def clock(session: Session) -> float:
    """The database's time, in seconds since the epoch."""
    # On the connection: nothing is flushed for it.
    time: float = session.connection().execute(select(now())).scalar_one()
    return time


def settings_of(session: Session) -> Settings:
    """The settings of the `Database` that made this session."""
    settings: Settings = session.info["settings"]
    return settings


class Database:
    """Connections to one database, opened when first needed (so never carried over a fork) and pooled for threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Another one after each write through here that may have changed what references mean.
        self.state = object()

    @cached_property
    def engine(self) -> Engine:
        url = make_url(self.settings.database_url)
        if url.get_backend_name() == "sqlite":
            return _sqlite_engine(self.settings.database_url)
        return _postgresql_engine(url, self.settings.lease_seconds)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session over one read transaction: all its queries see one moment, and the database refuses writes in it.

        Raises Unavailable when the database cannot be reached.
        """
        engine = self.engine.execution_options(**_READING[self.engine.dialect.name])
        with translated_errors(), Session(engine, info=self._info, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self, *, aside: bool = False) -> Iterator[Session]:
        """A session over one write transaction: committed at the end of the block, rolled back when it raises.

        What is written `aside` changes nothing that a reference means, or is followed by `changed()`.
        Raises Unavailable when the database cannot be reached or stays locked, StorageFull when its disk is full, and Conflict
        when another transaction got in between.
        """
        engine = self.engine.execution_options(ganvil_writes=True)
        with translated_errors(), Session(engine, info=self._info, expire_on_commit=False) as session, session.begin():
            yield session
        if not aside:
            self.changed()

    def changed(self) -> None:
        """What references mean may be something else now."""
        self.state = object()

    def migrate(self) -> None:
        """Bring the schema up to the newest revision. Many processes may call it at once: one works and the others wait."""
        from alembic import command  # imported here: it takes a fifth of a second, which most processes can do without
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        engine = self.engine.execution_options(ganvil_writes=True, ganvil_migrates=True)
        with translated_errors(), engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # The others wait however long the one that works takes; it may think between its statements, but not freeze.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '1min'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if connection.dialect.name == "sqlite":
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise RuntimeError(f"the migration leaves {len(broken)} rows that refer to nothing: {broken[:3]}")

    def ping(self) -> None:
        """Raise Unavailable unless the database answers."""
        with self.reading() as session:
            session.execute(select(1))

    def close(self) -> None:
        """Close every pooled connection, and pool none any more: what threads still use, or use later, is closed after use."""
        event.listen(self.engine.pool, "checkin", _close_after_use)  # the pool that takes its place inherits it
        self.engine.dispose()

    @cached_property
    def _info(self) -> dict[str, Any]:
        return {"settings": self.settings}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's errors about the moment or the machine into ours; errors in our own SQL pass through."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, PoolTimeout, IntegrityError) as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Exception) -> GanvilError | None:
    cause = error.orig if isinstance(error, DBAPIError) else None
    code = getattr(cause, "sqlite_errorcode", None) or getattr(cause, "sqlstate", None)
    if isinstance(error, IntegrityError):
        taken = "Another request changed the same thing at the same time; look at it again and retry."
        return Conflict(taken) if code in _CLASHES else None
    if isinstance(error, InternalError) and code != _IDLE_IN_TRANSACTION:
        return None
    if code in _FULL:
        return StorageFull("The disk of the database is full.")
    if isinstance(cause, sqlite3.Error) and (not isinstance(code, int) or code & 0xFF not in _TRANSIENT):
        return None
    return Unavailable(
        "The database cannot be reached or is busy; try again in a moment.", headers={"Retry-After": "2"}
    )


def _postgresql_engine(url: URL, lease_seconds: float) -> Engine:
    # A client that freezes or loses its network within a transaction keeps its rows locked, and the sweep passes over locked
    # rows: without a limit no lease could ever take them away. Whoever waits for such a row waits longer than the server does
    # and so gets it; and a renewal sent after half a lease still comes in time.
    wait_seconds = min(BUSY_TIMEOUT_SECONDS, lease_seconds / 3)
    limits = {"lock_timeout": wait_seconds, "idle_in_transaction_session_timeout": wait_seconds * 0.75}
    options = [f"-c {name}={math.ceil(seconds * 1000)}" for name, seconds in limits.items()]
    options += url.normalized_query.get("options", ())  # the last word is the operator's
    # One connection for each thread of the web server's pool; more wait for one at most as long as SQLite's would.
    return create_engine(
        url.set(drivername="postgresql+psycopg").update_query_dict({"options": " ".join(options)}),
        pool_size=10,
        max_overflow=30,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
        pool_pre_ping=True,
    )


def _close_after_use(_: Any, connection: ConnectionPoolEntry) -> None:
    connection.invalidate()


def _sqlite_engine(url: str) -> Engine:
    database = make_url(url).database
    if database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    # Threads of the web server, of the sweep and of the supervisors hold connections; SQLite itself serialises the writers.
    engine = create_engine(
        url,
        pool_size=10,
        max_overflow=30,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _begin_sqlite does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # what was answered with 201 survives a power cut


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    writes = options.get("ganvil_writes", False)
    # A migration changes a table by copying and dropping it, which must not take along the rows that refer to it. Inside a
    # transaction this pragma does nothing.
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {'OFF' if options.get('ganvil_migrates') else 'ON'}")
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
