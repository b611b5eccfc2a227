"""What can be set from outside, and what holds when nothing is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from app.settings import Settings, get_settings


def test_everything_lives_in_the_data_folder(tmp_path: Path) -> None:
    """Whatever has no URL of its own lies under data_dir, however the folder is called."""
    folder = tmp_path / "my data #1 100%?"
    settings = Settings(data_dir=folder)
    assert make_url(settings.database_url).database == f"{folder}/ganvil.db"
    assert settings.storage_url == (folder / "objects").as_uri()
    assert settings.cache_dir == folder / "cache"
    assert settings.redis_url is None


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """GANVIL_* variables are the settings; keys are separated by commas, and an empty Redis URL is none."""
    monkeypatch.setenv("GANVIL_DATA_DIR", "/srv/ganvil")
    monkeypatch.setenv("GANVIL_API_KEYS", "one, two,,")
    monkeypatch.setenv("GANVIL_REDIS_URL", "")
    monkeypatch.setenv("GANVIL_DATABASE_URL", "postgresql://db/ganvil")
    get_settings.cache_clear()
    settings = get_settings()
    get_settings.cache_clear()
    assert (settings.api_keys, settings.redis_url) == (("one", "two"), None)
    assert (settings.database_url, settings.storage_url) == ("postgresql://db/ganvil", "file:///srv/ganvil/objects")


@pytest.mark.parametrize(("name", "value"), [("PORT", "70000"), ("LEASE_SECONDS", "0"), ("TRAIN_SLOTS", "many")])
def test_a_senseless_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value out of its range or of another type stops the start and is named."""
    monkeypatch.setenv(f"GANVIL_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize("program", ["app", "worker"])
def test_a_program_says_what_it_cannot_use(program: str) -> None:
    """It ends with the variable's name and the fault, and without the value, which may be a secret."""
    environment = os.environ | {"GANVIL_LEASE_SECONDS": "s3cret"}
    refused = subprocess.run(
        [sys.executable, "-m", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1
    assert "GANVIL_LEASE_SECONDS: Input should be a valid number" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "s3cret" not in refused.stderr


@pytest.mark.parametrize("given", [{"lease_seconds": 15}, {"renew_seconds": 16}])
def test_a_lease_outlasts_a_missed_renewal(given: dict[str, float]) -> None:
    """A lease that is renewed less than twice while it lasts is refused, also where one of the two is the default."""
    with pytest.raises(ValidationError, match=r"renew_seconds(.|\n)*has to be renewed every"):
        Settings(**given)
    assert Settings(lease_seconds=20).renew_seconds == 10


@pytest.mark.parametrize(
    ("cores", "slots", "asked", "threads"),
    [
        (1, 1, None, 1),
        (2, 1, None, 1),
        (4, 1, None, 3),
        (4, 2, None, 1),
        (16, 1, None, None),
        (16, 4, None, 4),
        (2, 1, 8, 8),
    ],
)
def test_threads_leave_the_api_a_core(
    monkeypatch: pytest.MonkeyPatch, cores: int, slots: int, asked: int | None, threads: int | None
) -> None:
    """On few cores one is left free and the slots share the rest; a setting overrules."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert Settings(train_slots=slots, trainer_threads=asked).default_trainer_threads() == threads


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is(name: str) -> None:
    """Each setting has a description."""
    assert Settings.model_fields[name].description
