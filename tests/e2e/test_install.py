"""The Dockerfile's install script, run without Docker on what an image would get."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source import HOUSE


def copy_context(target: Path) -> None:
    """What .dockerignore lets into an image."""
    lines = (HOUSE / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (HOUSE / name).is_dir():
            shutil.copytree(HOUSE / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(HOUSE / name, target / name)


INSTALLED = """
import sys
from pathlib import Path
from app.db import Database
from app.main import create_app
from app.settings import Settings
from models.catalog import FAMILIES
import app, worker.tasks

settings = Settings(data_dir=Path(sys.argv[1]))
Database(settings).migrate()
create_app(settings)
assert FAMILIES
assert Path(app.__file__).is_relative_to(sys.prefix)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_install_script(tmp_path: Path) -> None:
    """The Dockerfile's own script makes a clean environment in which the service starts, from nothing but the image's context."""
    assert "docker/install.sh /opt/ganvil" in (HOUSE / "Dockerfile").read_text(encoding="utf-8")
    context, venv = tmp_path / "context", tmp_path / "venv"
    copy_context(context)
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run([context / "docker" / "install.sh", venv], env=environment, check=True, timeout=1100)
    shutil.rmtree(context)
    for command in (
        [venv / "bin" / "ganvil", "--help"],
        [venv / "bin" / "python", "-m", "worker", "--help"],
        [venv / "bin" / "python", "-c", INSTALLED, tmp_path / "data"],
        [venv / "bin" / "python", "-m", "worker.trainer", "--help"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "data" / "ganvil.db").exists()
