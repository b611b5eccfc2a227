"""Runs the services of docker-compose.yml as processes of this machine: their own commands, environments and health checks, with
other host names, ports and folders."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from app.up.redis_server import find_executable, free_port
from tests.servers import postgres_programs
from tests.source import HOUSE

FILE = HOUSE / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?(?P<message>[^}]*))?\}")


def read_services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services of the file, with these variables set. KeyError carries the message of a mandatory one that is missing."""

    def value(match: re.Match[str]) -> str:
        given = variables.get(match["name"]) or match["default"]
        if given is None:
            raise KeyError(match["message"])
        return given

    return yaml.safe_load(VARIABLE.sub(value, FILE.read_text(encoding="utf-8")))["services"]


def seconds(duration: str) -> int:
    """A duration such as 90s."""
    return int(duration.removesuffix("s"))


class Machine:
    """Where the services run here instead of in containers."""

    def __init__(self, folder: Path, postgres_url: str, variables: Mapping[str, str]) -> None:
        self.services = read_services(variables)
        self.variables = variables
        self.folder = folder
        self.api_port = free_port("127.0.0.1")
        self.redis_port = free_port("127.0.0.1")
        self._postgres = postgres_url.rpartition("@")[2]
        (folder / "data").mkdir()

    def here(self, text: str) -> str:
        """The text with the names of containers replaced by what stands for them here."""
        names = {
            "@postgres:5432": f"@{self._postgres}",
            "//redis:6379": f"//127.0.0.1:{self.redis_port}",
            "0.0.0.0": "127.0.0.1",
            "8000": str(self.api_port),
            "/data": str(self.folder / "data"),
        }
        places = "|".join(rf"(?<!\d){re.escape(name)}(?!\d)" for name in names)
        return re.sub(places, lambda match: names[match[0]], text)

    def environment(self, name: str) -> dict[str, str]:
        """What the service finds in its environment, and nothing of ours but where programs are."""
        given = self.services[name]["environment"]
        own = {key: self.here(str(value)) for key, value in given.items() if value is not None}
        passed_on = {key: self.variables[key] for key in given if key not in own and key in self.variables}
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": programs, "PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1"} | own | passed_on

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """The service, until the block ends; it has its own grace period to stop in, and must keep to it."""
        service = self.services[name]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [self.here(part) for part in service["command"]],
                env=self.environment(name),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(seconds(service["stop_grace_period"])) in {0, -signal.SIGTERM}
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def running_redis(self) -> Iterator[None]:
        """The Redis of the file, on a port of ours."""
        _, *arguments = self.services["redis"]["command"]
        folder = self.folder / "redis"
        folder.mkdir()
        place = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
        process = subprocess.Popen([find_executable(), *arguments, *place], stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)

    def is_healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        _, *command = self.services[name]["healthcheck"]["test"]
        run = subprocess.run(
            [self.here(part) for part in command],
            env=self.environment(name),
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return run.returncode == 0

    def postgres_is_healthy(self) -> bool:
        """What PostgreSQL's health check says of the one that stands for it."""
        programs = postgres_programs()
        assert programs is not None
        _, program, *arguments = self.services["postgres"]["healthcheck"]["test"]
        port = self._postgres.rpartition(":")[2]
        return subprocess.run([programs / program, *arguments, "--port", port], check=False).returncode == 0
