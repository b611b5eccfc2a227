"""Transactions, the clock, the translation of errors and the migrations, on SQLite and PostgreSQL."""

import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, null, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from app import db
from app.db import Database, clock
from app.errors import Conflict, StorageFull, Unavailable
from app.settings import Settings
from app.tables import Base, Dataset, Event, Job, Worker
from tests.factories import make_checkpoint, make_dataset, make_job


def test_migrations_make_the_tables(any_database: Database) -> None:
    """The schema that the migrations make is the one that app.tables describes."""
    with any_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_run_once_when_many_start_at_once(settings: Settings) -> None:
    """Processes that start together on an empty SQLite file all find the schema made."""
    migrate_at_once(settings)


@pytest.mark.needs("postgres")
def test_migrations_run_once_on_postgresql_too(settings: Settings, postgres_url: str) -> None:
    """Processes that start together on an empty PostgreSQL database all find the schema made."""
    migrate_at_once(settings.model_copy(update={"database_url": postgres_url}))


def migrate_at_once(settings: Settings) -> None:
    databases = [Database(settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.migrate, databases))
    for database in databases:
        with database.reading() as session:
            assert session.scalars(select(Dataset)).all() == []
        database.close()


@pytest.mark.parametrize("release", ["0001", "0002"])
def test_a_database_of_an_earlier_release_is_brought_up_to_date(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    """A revision that has been released never changes: what is new comes in one of its own, and the rows stay."""
    rows = rows_of_today(Settings(data_dir=tmp_path / "today"))
    with closing(Database(settings)) as database:
        with monkeypatch.context() as earlier:
            copy_migrations(earlier, tmp_path / "migrations")
            for path in (tmp_path / "migrations/versions").glob("[0-9]*.py"):
                if path.name[:4] > release:
                    path.unlink()
            database.migrate()
        with database.writing() as session:
            kept = {table: [insert_known(session, table, row) for row in found] for table, found in rows.items()}
        database.migrate()
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
            for table, before in kept.items():
                after = connection.execute(select(Base.metadata.tables[table])).mappings().all()
                assert [{name: row[name] for name in old} for row, old in zip(after, before, strict=True)] == before


def rows_of_today(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """By table, the rows of a job with a checkpoint on a data set."""
    with closing(Database(settings)) as database:
        database.migrate()
        with database.writing() as session:
            make_checkpoint(session, make_job(session))
            session.add(Worker(id="here:7", slots=1, busy=0, device="CPU", started_at=1.0, seen_at=1.0))
        with database.engine.connect() as connection:
            tables = {table.name: connection.execute(select(table)).mappings() for table in Base.metadata.sorted_tables}
            return {name: [dict(row) for row in found] for name, found in tables.items()}


def insert_known(session: Session, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Insert what the table, as it is now, has columns for, and return that."""
    there = {column["name"] for column in inspect(session.connection()).get_columns(table)}
    known = {name: value for name, value in row.items() if name in there}
    session.execute(insert(Base.metadata.tables[table]).values(known))
    return known


def test_clock_is_utc_epoch_seconds(any_database: Database) -> None:
    """The database's clock agrees with this machine's, and goes on within a transaction."""
    with any_database.reading() as session:
        first = clock(session)
        assert abs(first - time.time()) < 1
        time.sleep(0.01)
        assert clock(session) > first


def test_writing_commits_or_rolls_back(any_database: Database) -> None:
    """A block that ends commits; one that raises leaves nothing."""
    with any_database.writing() as session:
        kept = make_dataset(session)
    with pytest.raises(ZeroDivisionError), any_database.writing() as session:
        _ = make_dataset(session).priority // 0
    with any_database.reading() as session:
        assert session.scalars(select(Dataset.id)).all() == [kept.id]


def test_a_reading_transaction_sees_one_moment(any_database: Database) -> None:
    """What others commit while it reads does not come to light between its queries."""
    with any_database.writing() as session:
        dataset_id = make_dataset(session).id
    with any_database.reading() as reading:
        priority = select(Dataset.priority).where(Dataset.id == dataset_id)
        before = reading.scalar(priority)
        with any_database.writing() as session:
            session.get_one(Dataset, dataset_id).priority = 7
        assert reading.scalar(priority) == before
    with any_database.reading() as reading:
        assert reading.scalar(priority) == 7


def test_reading_refuses_writes(any_database: Database) -> None:
    """The database itself refuses a write in a reading transaction; the next writing one on the connection works."""
    with any_database.writing() as session:
        make_dataset(session)
    with pytest.raises((DBAPIError, Unavailable)), any_database.reading() as session:
        session.execute(text("UPDATE datasets SET priority = 1"))
    with any_database.writing() as session:
        session.execute(text("UPDATE datasets SET priority = 2"))


def test_a_name_taken_twice_is_a_conflict(any_database: Database) -> None:
    """A violated uniqueness comes out as Conflict, a missing column as the error of ours that it is."""
    with pytest.raises(IntegrityError), any_database.writing() as session:
        make_dataset(session, source=null())
    with any_database.writing() as session:
        make_dataset(session, name="digits")
    with pytest.raises(Conflict), any_database.writing() as session:
        make_dataset(session, name="digits")


def test_full_disk_is_storage_full(database: Database) -> None:
    """SQLite's full disk comes out as StorageFull, and nothing of the transaction remains."""
    with database.reading() as session:
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
    with pytest.raises(StorageFull), database.writing() as session:
        fill(session, pages)
    with database.reading() as session:
        assert session.scalars(select(Worker)).all() == []


def fill(session: Session, pages: int) -> None:
    session.execute(text(f"PRAGMA max_page_count = {pages}"))
    for number in range(1000):
        session.add(Worker(id=f"w{number}" * 50, slots=1, busy=0, device="cpu", started_at=0, seen_at=0))
    session.flush()


def test_errors_in_our_sql_are_not_disguised(database: Database) -> None:
    """A query for a table that does not exist stays an error of ours."""
    with pytest.raises(OperationalError), database.reading() as session:
        session.execute(text("SELECT * FROM nothing"))


@pytest.mark.parametrize("any_database", [pytest.param("postgres", marks=pytest.mark.needs("postgres"))], indirect=True)
def test_going_on_in_a_failed_transaction_is_not_disguised(any_database: Database) -> None:
    """A statement after one that PostgreSQL refused is an error of ours, and no outage."""

    def go_on(session: Session) -> None:
        with pytest.raises(ProgrammingError):
            session.execute(text("SELECT * FROM nothing"))
        session.connection().execute(select(1))

    with pytest.raises(InternalError), any_database.writing() as session:
        go_on(session)


@pytest.mark.needs("postgres")
def test_absent_postgresql_is_unavailable(settings: Settings) -> None:
    """A PostgreSQL that nobody runs is Unavailable, not a traceback."""
    absent = Database(settings.model_copy(update={"database_url": "postgresql://ganvil@127.0.0.1:1/none"}))
    with pytest.raises(Unavailable):
        absent.ping()


def test_unopenable_sqlite_is_unavailable(settings: Settings, tmp_path: Path) -> None:
    """A SQLite file that cannot be opened is Unavailable."""
    (tmp_path / "folder.db").mkdir()
    broken = Database(settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/folder.db"}))
    with pytest.raises(Unavailable):
        broken.ping()


def test_no_connection_outlives_the_database(any_database: Database) -> None:
    """What a thread still used when it was closed, or used afterwards, is closed once it is done: threads are not always waited for."""
    opened = []
    with any_database.reading() as session:
        session.execute(select(1))
        opened.append(session.connection().connection.driver_connection)
        any_database.close()
        session.execute(select(1))
    with any_database.reading() as session:
        opened.append(session.connection().connection.driver_connection)
    for connection in opened:
        with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
            connection.execute("SELECT 1")


ALTERATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9999", "{head}"


def upgrade() -> None:
    with op.batch_alter_table("jobs", recreate="always") as batch:
        batch.add_column(sa.Column("note", sa.String(10)))
    {then}
"""


def migrations_that_alter_jobs(monkeypatch: pytest.MonkeyPatch, folder: Path, then: str) -> None:
    copy_migrations(monkeypatch, folder)
    head = max(path.name for path in (folder / "versions").glob("[0-9]*.py")).split("_")[0]
    (folder / "versions" / "9999_alter.py").write_text(ALTERATION.format(head=head, then=then), encoding="utf-8")


def copy_migrations(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have the database take its migrations from a copy, to be changed."""
    shutil.copytree(db.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("app.db.MIGRATIONS", folder)


def test_altering_a_table_keeps_what_refers_to_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that makes the table of jobs anew leaves their events, and their keys are checked as before."""
    with database.writing() as session:
        job_id = make_job(session).id
    migrations_that_alter_jobs(monkeypatch, tmp_path / "migrations", "pass")
    database.migrate()
    with database.reading() as session:
        assert session.scalars(select(Event.job_id)).all() == [job_id]
        assert session.execute(text("SELECT note FROM jobs")).all() == [(None,)]
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


def test_a_migration_that_breaks_references_is_undone(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration after which events would belong to no job is refused, and the schema is as before."""
    with database.writing() as session:
        job_id = make_job(session).id
    migrations_that_alter_jobs(monkeypatch, tmp_path / "migrations", 'op.execute("DELETE FROM jobs")')
    with pytest.raises(RuntimeError, match="refer to nothing"):
        database.migrate()
    with database.reading() as session:
        assert session.scalars(select(Job.id)).all() == [job_id]


def test_sqlite_is_durable_and_checks_keys(database: Database) -> None:
    """WAL with full sync, and foreign keys enforced, on every connection."""
    with database.reading() as session:
        pragmas = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")
        }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2}
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
