"""The probe as a program: a few steps of the real training on noise, and what they took."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.config import DataSpec
from models.presets import resolve
from tests.worker.runs import events
from worker.probe.__main__ import Clock, noise, shortened

DIGITS = DataSpec(examples=1797, height=8, width=8, channels=1, classes=tuple("0123456789"))
SMALL = {"batch_size": 8, "network": {"family": "dcgan", "width": 4}, "threads": 1}


def run(folder: Path, config: dict[str, Any], data: DataSpec = DIGITS, limit: int | None = None) -> dict[str, Any]:
    """The last line of the program's log. `limit` is RLIMIT_DATA, in bytes."""
    asked = {"config": config, "data": data.model_dump(mode="json")}
    (folder / "probe.json").write_text(json.dumps(asked), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "worker.probe", str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    return events(folder)[-1]


@pytest.mark.parametrize("family", ["dcgan", "r3gan", "vae"])
def test_it_measures(tmp_path: Path, family: str) -> None:
    """The program ends with parameters, memory, speed and engine, and leaves nothing but its log."""
    config = resolve("fast", SMALL | {"network": {"family": family, "width": 16}}, DIGITS)
    last = run(tmp_path, config.model_dump(mode="json"))
    assert last["kind"] == "finished", last
    found = last["data"]
    assert set(found) == {"parameters", "memory_bytes", "examples_per_second", "fingerprint", "note"}
    assert found["note"] is None
    assert min(found["parameters"].values()) > 100
    assert 50 * 2**20 < found["memory_bytes"] < 8 * 2**30
    assert found["examples_per_second"] > 1
    assert found["fingerprint"]["threads"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "probe.json"]


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    """A config that is none, or that cannot make such data, ends it with the reason."""
    document = resolve("fast", SMALL, DIGITS).model_dump(mode="json")
    wrong = run(tmp_path, document | {"batch_size": 0})
    unfit = run(tmp_path, document, DIGITS.model_copy(update={"height": 11}))
    many = run(tmp_path, document | {"processes": 64, "batch_size": 64})
    assert [(line["kind"], line["data"]["code"]) for line in (wrong, unfit, many)] == [("failed", "config")] * 3
    assert "batch_size" in wrong["data"]["message"]
    assert "64 processes need" in many["data"]["message"]


def test_weights_that_are_still_to_come_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe downloads nothing, and a job may not get them either."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    document = resolve("fast", SMALL | {"evaluation": {"features": "inception"}}, DIGITS).model_dump(mode="json")
    assert "downloads them when it starts" in run(tmp_path, document)["data"]["note"]


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    """A config that needs more than the process may have ends with that code, and not with a traceback."""
    wide = {"family": "dcgan", "width": 512, "max_width": 2048}
    config = resolve("fast", SMALL | {"network": wide}, DIGITS.model_copy(update={"height": 64, "width": 64}))
    data = DIGITS.model_copy(update={"height": 64, "width": 64})
    last = run(tmp_path, config.model_dump(mode="json"), data, limit=2**30)
    assert (last["kind"], last["data"].get("code")) == ("failed", "out_of_memory")


def test_every_other_step_is_penalised_and_weighed_as_rarely_as_it_is() -> None:
    """The time of a step in the long run counts the dear ones as often as training has them."""
    clock = Clock(lambda: False)
    clock.times = [0.0, 9.0, 12.0, 15.0, 16.0, 19.0, 20.0]  # two that warm up, then 3 and 1 seconds
    assert clock.step_seconds(every=1) == pytest.approx(3.0)
    assert clock.step_seconds(every=2) == pytest.approx(2.0)
    assert clock.step_seconds(every=16) == pytest.approx((3 + 15) / 16)
    config = resolve("fast", {}, DIGITS)
    assert (config.penalties.every, shortened(config).penalties.every) == (16, 2)


def test_noise_has_the_shape_of_the_data() -> None:
    """As many examples as a batch takes, and no more than there are; labels are of its classes, -1 where it has none."""
    for data in (DIGITS, DIGITS.model_copy(update={"examples": 3}), DIGITS.model_copy(update={"classes": ()})):
        made = noise(resolve("fast", {}, data), data)
        n = min(256, data.examples)
        assert (made.examples.shape, made.examples.dtype, made.labels.dtype) == ((n, 8, 8, 1), np.uint8, np.int64)
        assert made.spec.examples == n
        assert (made.labels >= 0).all() == bool(data.classes)
