"""The application, served by uvicorn on a free port of this machine, over a real database and storage."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.http.connections import PatientProtocol
from app.main import create_app
from app.settings import Settings
from tests.servers import wait_until


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    """Calls the running application from this machine; `app.state` has its database, storage and the rest."""
    with serving(app) as client:
        yield client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """One application for the tests of a module that change nothing in it."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("shared") / "data", trainer_threads=1, sweep_seconds=60)
    return create_app(settings)


@pytest.fixture(scope="module")
def caller(shared: FastAPI) -> Iterator[httpx.Client]:
    """Calls the shared application."""
    with serving(shared) as client:
        yield client


@contextmanager
def serving(app: FastAPI, **options) -> Iterator[httpx.Client]:
    """Runs the application in a thread for as long as the block lasts; `options` go to the client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, http=PatientProtocol, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), seconds=20)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=30, trust_env=False, **options) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(timeout=20)
