"""`ganvil up`: Redis, the API and a Celery worker as one process tree on this machine.

    ganvil up ─┬─ redis-server         unless GANVIL_REDIS_URL names one
               ├─ app                  the API, in one or several processes
               ├─ worker               which starts a trainer for each job
               └─ app.up.guard         ends the others should `up` be killed

A child that dies is started again. A stop goes to the worker first, whose jobs checkpoint and return to the queue, then to the
API, then to Redis; nothing outlives it, and the next `up` on the same data goes on.
"""

import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import httpx
import redis

from app.settings import Settings
from app.up.datalock import hold
from app.up.processes import HOUSE, Child, Guard
from app.up.redis_server import embedded_redis, free_port

REDIS_START_SECONDS = 10.0
API_STOP_SECONDS = 10.0
REDIS_STOP_SECONDS = 5.0
GRACE_MARGIN_SECONDS = 10.0  # what the worker needs beyond its trainers' grace
PAUSE_SECONDS = 0.1
SAY = partial(print, flush=True)  # each line when it is said, also into a pipe


class UpError(Exception):
    """The service cannot be started as asked; the message says what to change."""


class Stop:
    """Counts the stop signals: one asks for an orderly end, a second for an end at once."""

    def __init__(self) -> None:
        self.asked = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(signum, self._count) for signum in signums]
        try:
            yield
        finally:
            for signum, handler in zip(signums, before, strict=True):
                signal.signal(signum, handler)

    def _count(self, _signum: int, _frame: FrameType | None) -> None:
        self.asked += 1


def up(settings: Settings, *, api_processes: int = 1, say: Callable[[str], None] = SAY) -> None:
    """Runs the tree until a stop signal. Called in the main thread.

    Raises UpError, DataDirectoryHeld, RedisMissing, or ChildFailed when a child cannot be kept alive.
    """
    say("Starting ...")
    stop = Stop()
    grace = settings.stop_grace_seconds + GRACE_MARGIN_SECONDS
    # Until the directory is ours there is nothing to stop in order: a signal ends the wait by ending us.
    with hold(settings.data_dir, patience_seconds=grace, say=say) as lock, stop.listening():
        if settings.port == 0:
            settings = settings.model_copy(update={"port": free_port(settings.host)})
        check_address(settings.host, settings.port)
        guard = Guard(grace, keep_open=[lock])
        try:
            Tree(settings, api_processes, guard, stop, say).run()
        finally:
            guard.close()


class Tree:
    """The children of one `up`."""

    def __init__(
        self, settings: Settings, api_processes: int, guard: Guard, stop: Stop, say: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self.say = say
        self._stop = stop
        self._ready = False
        env = child_environment(settings)
        self.redis: Child | None = None
        if settings.redis_url is None:
            embedded = embedded_redis()
            env["GANVIL_REDIS_URL"] = embedded.url
            self.redis = Child(
                "Redis",
                embedded.command,
                os.environ,
                guard,
                cwd=settings.data_dir,
                stdin=embedded.configuration,
                log=settings.data_dir / "redis.log",
            )
        self._redis_url = env["GANVIL_REDIS_URL"]
        self.api = Child(
            "The API", [sys.executable, "-m", "app", "--processes", str(api_processes)], env, guard, cwd=HOUSE
        )
        self.worker = Child("The worker", [sys.executable, "-m", "worker"], env, guard, cwd=HOUSE)

    @property
    def children(self) -> list[Child]:
        return [child for child in (self.redis, self.api, self.worker) if child is not None]

    def run(self) -> None:
        try:
            self._start()
            while not self._stop.asked:
                for child in self.children:
                    if news := child.tend():
                        self.say(news)
                if not self._ready:
                    self._announce()
                time.sleep(PAUSE_SECONDS)
        finally:
            self._end()

    def _start(self) -> None:
        if self.redis is not None:
            self.redis.start()
        self._wait_for_redis()
        self.api.start()
        self.worker.start()

    def _wait_for_redis(self) -> None:
        deadline = time.monotonic() + REDIS_START_SECONDS
        while not self._stop.asked:
            try:
                with redis.Redis.from_url(self._redis_url, socket_timeout=1, socket_connect_timeout=1) as client:
                    client.ping()
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    raise UpError(f"Redis does not answer: {error}") from error
                time.sleep(PAUSE_SECONDS)
            else:
                return

    def _announce(self) -> None:
        url = base_url(self.settings.host, self.settings.port)
        with contextlib.suppress(httpx.TransportError):
            self._ready = httpx.get(f"{url}/health/ready", timeout=1.0, trust_env=False).status_code == httpx.codes.OK
        if self._ready:
            self.say(
                f"Ganvil is ready\n  API      {url}/v1\n  Swagger  {url}/docs\n  Data     {self.settings.data_dir}"
            )
            self.say("Ctrl-C stops it; running jobs are saved first.")

    def _end(self) -> None:
        self.say("Stopping: running jobs write a checkpoint. Ctrl-C again ends everything at once.")
        asked = self._stop.asked
        grace = self.settings.stop_grace_seconds + GRACE_MARGIN_SECONDS
        for child, seconds in ((self.worker, grace), (self.api, API_STOP_SECONDS), (self.redis, REDIS_STOP_SECONDS)):
            if child is None:
                continue
            child.send(signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while child.running() and time.monotonic() < deadline and self._stop.asked <= asked:
                time.sleep(PAUSE_SECONDS)
            child.end()
        self.say("Stopped.")


def child_environment(settings: Settings) -> dict[str, str]:
    """What children read as their settings: our own environment, and over it what the command line said."""
    return dict(os.environ) | {
        "GANVIL_DATA_DIR": str(settings.data_dir.resolve()),
        "GANVIL_HOST": settings.host,
        "GANVIL_PORT": str(settings.port),
        "GANVIL_REDIS_URL": settings.redis_url or "",
        "GANVIL_TRAIN_SLOTS": str(settings.train_slots),
    }


def check_address(host: str, port: int) -> None:
    """Raises UpError when nothing can listen there, before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UpError(f"Port {port} is in use. Give --port another one, or --port 0 for any free port.") from error
        raise UpError(f"Cannot listen on {host} port {port}: {error.strerror or error}.") from error


def base_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a service that is bound to `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
