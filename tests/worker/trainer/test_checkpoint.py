"""Checkpoints on disk: whole or not there, and never able to run code."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from worker.trainer import checkpoint

WEIGHTS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(2, 2).t()}


def save(folder: Path, seen: int, value: float = 0.0) -> checkpoint.Saved:
    return checkpoint.save(folder, seen, {"seen": seen, "value": torch.tensor(value)}, WEIGHTS, {"format": 1})


def no_warning(message: str) -> None:
    raise AssertionError(message)


def test_nothing_is_nothing(tmp_path: Path) -> None:
    """Without a checkpoint, or even a folder, there is nothing to resume."""
    assert checkpoint.load_newest(tmp_path / "none", no_warning) is None


def test_the_newest_is_loaded(tmp_path: Path) -> None:
    """What was saved last comes back."""
    save(tmp_path, 64)
    saved = save(tmp_path, 1_000_000, 2.5)
    assert saved.folder.name == "000001000000"
    state = checkpoint.load_newest(tmp_path, no_warning)
    assert state is not None
    assert (state["seen"], state["value"].item()) == (1_000_000, 2.5)


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    """generator.safetensors holds nothing of time or place, and its digest is in the manifest."""
    one, two = save(tmp_path / "one", 64), save(tmp_path / "two", 128, 1.0)
    content = (one.folder / "generator.safetensors").read_bytes()
    assert content == (two.folder / "generator.safetensors").read_bytes()
    assert one.sha256 == two.sha256 == hashlib.sha256(content).hexdigest()
    assert json.loads((one.folder / "model.json").read_bytes())["sha256"] == one.sha256
    assert one.size == len(content)


def test_nothing_temporary_remains(tmp_path: Path) -> None:
    """A checkpoint leaves its own folder and no other; what a kill left is swept away by the next run."""
    save(tmp_path, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000064"]
    (tmp_path / ".writing-000000000128").mkdir()
    (tmp_path / ".writing-000000000128" / "state.pt").write_bytes(b"half")
    checkpoint.load_newest(tmp_path, no_warning)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000064"]


def test_only_the_newest_states_are_kept(tmp_path: Path) -> None:
    """Snapshots stay, and the state of old ones goes; a snapshot without state is no damage."""
    for seen in range(1, 7):
        save(tmp_path, seen)
    kept = [path.parent.name for path in sorted(tmp_path.glob("*/state.pt"))]
    assert kept == [f"{seen:012d}" for seen in (4, 5, 6)]
    assert len(list(tmp_path.glob("*/generator.safetensors"))) == 6
    for state in tmp_path.glob("*/state.pt"):
        state.unlink()
    assert checkpoint.load_newest(tmp_path, no_warning) is None


def test_a_name_can_be_written_again(tmp_path: Path) -> None:
    """A run that had to go on from an earlier state comes by the later snapshots again, and what it writes now counts."""
    (save(tmp_path, 64, 1.0).folder / "state.pt").unlink()
    save(tmp_path, 64, 2.0)
    assert checkpoint.load_newest(tmp_path, no_warning)["value"].item() == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["000000000064"]


def cut(folder: Path) -> None:
    (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:100])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pt").write_bytes(content)


def lose_the_manifest(folder: Path) -> None:
    (folder / "model.json").unlink()


def garble_the_manifest(folder: Path) -> None:
    (folder / "model.json").write_text("[]", encoding="utf-8")


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lose_the_manifest, garble_the_manifest, empty])
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path: Path, damage: object) -> None:
    """The one before is taken, a warning names the damaged one, and its name is free for a new checkpoint."""
    save(tmp_path, 64, 1.0)
    damage(save(tmp_path, 128, 2.0).folder)  # type: ignore[operator]
    warnings: list[str] = []
    state = checkpoint.load_newest(tmp_path, warnings.append)
    assert state is not None
    assert state["value"].item() == 1.0
    assert ["000000000128" in warning for warning in warnings] == [True]
    save(tmp_path, 128, 3.0)
    assert checkpoint.load_newest(tmp_path, no_warning)["value"].item() == 3.0


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (print, ("this code ran",))


def test_a_state_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pickle that would call a function is refused even where its digest is right."""
    folder = save(tmp_path, 64).folder
    torch.save({"seen": Payload()}, folder / "state.pt")
    manifest = json.loads((folder / "model.json").read_bytes())
    manifest["state_sha256"] = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    warnings: list[str] = []
    assert checkpoint.load_newest(tmp_path, warnings.append) is None
    assert len(warnings) == 1
    assert "this code ran" not in capsys.readouterr().out


def test_a_kill_while_a_checkpoint_is_written_again_loses_neither(tmp_path: Path) -> None:
    """The one that was set aside comes back where its successor is not there yet, and goes where it is."""
    old = save(tmp_path, 64, 1.0).folder
    old.rename(tmp_path / ".replaced-000000000064")
    (tmp_path / ".writing-000000000064").mkdir()
    state = checkpoint.load_newest(tmp_path, no_warning)
    assert state is not None
    assert state["value"].item() == 1.0
    shutil.copytree(old, tmp_path / ".replaced-000000000064")
    assert checkpoint.load_newest(tmp_path, no_warning) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["000000000064"]


def test_the_best_is_chosen_by_kids_of_the_same_features(tmp_path: Path) -> None:
    """Those of the last evaluation: a run that came to another machine has other features there, whose KID says something else."""
    measured = [
        ("inception", 0.02),
        ("inception", 0.01),
        ("classifier", 0.9),
        ("classifier", 0.2),
        ("classifier", None),
    ]
    for seen, (features, kid) in enumerate(measured, 1):
        info = {"features": None if kid is None else features, "metrics": {"kid": kid}}
        checkpoint.save(tmp_path, seen, {"seen": seen}, WEIGHTS, info)
    best = checkpoint.load_best(tmp_path)
    assert best is not None
    assert best["seen"] == 4
