"""What can be set from outside, and what holds when nothing is."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, get_settings


def test_everything_lives_in_the_data_folder(tmp_path: Path) -> None:
    """Whatever has no URL of its own lies under data_dir, however the folder is called."""
    folder = tmp_path / "my data #1"
    settings = Settings(data_dir=folder)
    assert settings.database_url == f"sqlite:///{folder}/ganvil.db"
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


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is(name: str) -> None:
    """Each setting has a description."""
    assert Settings.model_fields[name].description
