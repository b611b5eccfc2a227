"""A job and its checkpoint, on each kind of database."""

import pytest

from app.db import Database
from app.tables import Checkpoint, Job
from tests.factories import make_checkpoint, make_dataset, make_job


@pytest.fixture
def database(any_database: Database) -> Database:
    """Each test runs on SQLite and on PostgreSQL."""
    return any_database


@pytest.fixture
def job(database: Database) -> Job:
    with database.writing() as session:
        return make_job(session, make_dataset(session, name="digits"), request={"model": "numbers"})


@pytest.fixture
def checkpoint(database: Database, job: Job) -> Checkpoint:
    with database.writing() as session:
        return make_checkpoint(session, job, 320, kid=0.25)
