"""The program's answers to run directories that it cannot train."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worker.runs import CONFIG, events, prepare, write_run
from worker.trainer import __main__ as trainer


@pytest.fixture(autouse=True)
def _signals_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


def failure(run_dir: Path, run: object) -> dict[str, str]:
    run_dir.mkdir(exist_ok=True)
    (run_dir / "run.json").write_text(run if isinstance(run, str) else json.dumps(run), encoding="utf-8")
    assert trainer.main([str(run_dir)]) == 1
    assert events(run_dir)[-1]["kind"] == "failed"
    return events(run_dir)[-1]["data"]


@pytest.mark.parametrize(
    ("run", "code", "says"),
    [
        ("{", "config", "not JSON"),
        ([], "config", "run.json must be"),
        ({"config": CONFIG}, "config", "run.json must be"),
        ({"config": CONFIG | {"batch_size": 0}, "data": "x"}, "config", "/batch_size"),
        ({"config": CONFIG | {"network": {"family": "vgg"}}, "data": "x"}, "config", "/network/family"),
        ({"config": CONFIG, "data": "nowhere"}, "data", "nowhere"),
    ],
)
def test_a_bad_run_fails_with_a_clear_last_line(tmp_path: Path, run: object, code: str, says: str) -> None:
    """The last line is "failed" with a code for programs and a sentence that names what is wrong; the exit status is 1."""
    answer = failure(tmp_path, run)
    assert answer["code"] == code
    assert says in answer["message"]


def test_missing_data_is_told_without_its_place(tmp_path: Path) -> None:
    """The message is shown to users of a server: it names the file and not where the server keeps it."""
    message = failure(tmp_path, {"config": CONFIG, "data": str(tmp_path / "data set")})["message"]
    assert "dataset.json" in message
    assert tmp_path.name not in message


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), lambda: np.empty(2**50)], ids=["torch", "numpy"])
def test_memory_that_runs_out_fails_with_a_clear_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocate: Callable[[], object]
) -> None:
    """Too large a network for the machine is said so, also on the CPU."""
    monkeypatch.setattr(trainer, "train", lambda *_, **__: allocate())
    answer = failure(tmp_path / "run", {"config": CONFIG, "data": str(prepare(tmp_path / "data"))})
    assert answer["code"] == "out_of_memory"


def test_a_missing_run_file_fails_with_a_clear_last_line(tmp_path: Path) -> None:
    """An empty run directory is told what it lacks."""
    assert trainer.main([str(tmp_path)]) == 1
    assert "run.json cannot be read" in events(tmp_path)[-1]["data"]["message"]


def test_a_config_that_does_not_fit_the_data_fails_with_a_clear_last_line(tmp_path: Path) -> None:
    """What only the data can show is found before the first step."""
    data = prepare(tmp_path / "data", height=11, width=11)
    answer = failure(tmp_path / "run", {"config": CONFIG, "data": str(data)})
    assert answer["code"] == "config"
    assert "10 x 10 or 12 x 12" in answer["message"]


def test_a_directory_that_is_none_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong path exits 2 with a sentence, and creates nothing."""
    with pytest.raises(SystemExit) as caught:
        trainer.main([str(tmp_path / "none")])
    assert caught.value.code == 2
    assert "is not a directory" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_disk_that_refuses_fails_with_a_clear_last_line(tmp_path: Path) -> None:
    """A place that cannot be written to is said so, without a traceback."""
    run = write_run(tmp_path / "run", prepare(tmp_path / "data"))
    (run / "checkpoints").write_text("a file where a folder belongs", encoding="utf-8")
    assert trainer.main([str(run)]) == 1
    assert events(run)[-1]["data"]["code"] == "io"
