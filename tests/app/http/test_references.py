"""What references mean, remembered for less than a second."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import Client
from sqlalchemy import event

from app import registry
from app.db import Database
from app.errors import NotFound
from app.http.references import LASTING_SECONDS, References
from app.main import create_app
from app.queue import Bell
from app.storage import Storage
from app.sweep import Sweeper
from app.tables import Job
from tests.app.routes.gallery import gallery
from tests.factories import claimed, make_job
from tests.generators import publish_generator
from tests.serving import serving


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery")) as running:
        yield running


def version(client: Client, ref: str) -> str:
    return client.head(f"/v1/models/{ref}/samples/1.png").headers["x-model-version"]


def test_what_this_process_changes_counts_at_once(running: tuple[FastAPI, Client]) -> None:
    """Every answer after a PUT names what the alias was moved to, though it was asked for a moment ago."""
    _, client = running
    client.put("/v1/models/cats/aliases/now", json={"version": 1})
    assert version(client, "cats@now") == "cats:1"
    client.delete("/v1/models/cats/aliases/now")
    assert client.head("/v1/models/cats@now/samples/1.png").status_code == 404


def test_what_another_process_changes_counts_within_a_second(running: tuple[FastAPI, Client], tmp_path: Path) -> None:
    """A new version, a moved alias and a deletion are seen there soon, under requests without a pause too."""
    app, client = running
    with serving(create_app(app.state.settings)) as other:
        publish_generator(app.state.database, app.state.storage, tmp_path, "moved", seed=5)
        client.put("/v1/models/cats/aliases/prod", json={"version": 1})
        assert version(other, "cats@prod") == "cats:1"
        client.delete("/v1/models/cats/aliases/prod")
        client.delete("/v1/models/moved:1")
        changed = time.monotonic()
        while other.head("/v1/models/cats@prod/samples/1.png").status_code != 404:
            assert time.monotonic() - changed < LASTING_SECONDS + 5  # of a machine that is busy with other tests
        assert other.head("/v1/models/moved:1/samples/1.png").status_code == 410


def test_it_is_read_again_beside_the_requests(running: tuple[FastAPI, Client]) -> None:
    """A reference that is in use is never forgotten: after its time it was read anew, and requests did not wait for it."""
    app, client = running
    version(client, "ink")
    first = app.state.references._known["ink"]
    until = time.monotonic() + 3 * LASTING_SECONDS
    while time.monotonic() < until:
        version(client, "ink")
        time.sleep(0.05)
    known = app.state.references._known["ink"]
    assert known.read_at > first.read_at
    assert known.resolved == first.resolved


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The queries for versions of models that this process makes meanwhile."""
    queries: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM model_versions" in statement:
            queries.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield queries
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def test_those_who_ask_together_share_one_look_up(running: tuple[FastAPI, Client]) -> None:
    """However many want what is not known yet, the database is asked once, and all are told, also that there is none."""
    database = running[0].state.database

    async def ask(ref: str) -> list[Any]:
        references = References(database)
        return await asyncio.gather(*(references.resolve(ref) for _ in range(64)), return_exceptions=True)

    with counted(database) as queries:
        assert {found.label for found in asyncio.run(ask("cats"))} == {"cats:1"}
    assert len(queries) == 1
    assert {type(found) for found in asyncio.run(ask("nothing"))} == {NotFound}


def test_one_who_leaves_does_not_end_it_for_the_others(running: tuple[FastAPI, Client]) -> None:
    """The first who asked gives up, and the second gets the answer of the same look-up."""
    database = running[0].state.database

    async def ask() -> registry.Resolved:
        references = References(database)
        first, second = (asyncio.create_task(references.resolve("cats")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    with counted(database) as queries:
        assert asyncio.run(ask()).label == "cats:1"
    assert len(queries) == 1


@pytest.mark.parametrize("by", ["this process", "another"])
def test_nobody_is_served_by_a_look_up_from_before(running: tuple[FastAPI, Client], by: str) -> None:
    """Who asks after a write is not told what a look-up found that was under way before it: at once, or within a second."""
    database = running[0].state.database
    with database.writing() as session:
        registry.put_alias(session, "cats", "then", 1)
    read, may_go = threading.Event(), threading.Event()

    def hold(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM model_versions" in statement and not read.is_set():
            read.set()
            may_go.wait(20)

    async def ask(writer: Database) -> list[Any]:
        references = References(database)
        before = asyncio.create_task(references.resolve("cats@then"))
        await asyncio.to_thread(read.wait, 20)
        with writer.writing() as session:
            registry.delete_alias(session, "cats", "then")
        if writer is not database:
            await asyncio.sleep(LASTING_SECONDS + 0.05)
        after = asyncio.create_task(references.resolve("cats@then"))
        await asyncio.sleep(0)
        may_go.set()
        found = await asyncio.gather(before, after, return_exceptions=True)
        return [*found, references.peek("cats@then")]

    event.listen(database.engine, "after_cursor_execute", hold)
    try:
        with closing(Database(database.settings)) as other:
            before, after, known = asyncio.run(ask(database if by == "this process" else other))
    finally:
        event.remove(database.engine, "after_cursor_execute", hold)
    assert (before.label, type(after), known) == ("cats:1", NotFound, None)


def test_an_empty_sweep_forgets_nothing(database: Database, storage: Storage, tmp_path: Path) -> None:
    """References are known after a sweep that found nothing to do, and forgotten after one that moved a job."""
    publish_generator(database, storage, tmp_path, "cats")
    with database.writing() as session:
        job_id = claimed(session, make_job(session)).id

    async def ask(sweeper: Sweeper, other: Database) -> list[registry.Resolved | None]:
        references = References(database)
        known = [await references.resolve("cats")]
        assert sweeper.sweep_once().moved == []
        known.append(references.peek("cats"))
        with other.writing() as session:
            session.get_one(Job, job_id).lease_until = 0.0
        assert sweeper.sweep_once().moved == [job_id]
        return [*known, references.peek("cats")]

    with closing(Bell(database.settings)) as bell, closing(Database(database.settings)) as other:
        found, *known = asyncio.run(ask(Sweeper(database, bell, database.settings), other))
    assert found is not None
    assert known == [found, None]
