"""What goes from a run directory into the storage, when the storage is slower than the trainer."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import jobs
from app.jobs import history
from app.registry import SNAPSHOT_FILES
from app.storage import Storage
from app.tables import Checkpoint
from models.manifest import MANIFEST, STATE, WEIGHTS
from tests.factories import make_job
from worker.lease import Lease, clock
from worker.service import Service
from worker.shipping import Shipper, fetch_checkpoint
from worker.supervisor import Line
from worker.trainer.checkpoint import KEEP_STATES


class Trainer:
    """Leaves checkpoints as a trainer does, of which only the newest keep their state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen = 0
        self._lines: list[Line] = []

    def checkpoint(self) -> None:
        self.seen += 1
        path = f"checkpoints/{self.seen:012d}"
        (self.directory / path).mkdir(parents=True)
        for name in (WEIGHTS, STATE):
            (self.directory / path / name).write_bytes(b"x")
        manifest = {"state_sha256": hashlib.sha256(b"x").hexdigest()}
        (self.directory / path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        (self.directory / f"checkpoints/{self.seen - KEEP_STATES:012d}" / STATE).unlink(missing_ok=True)
        data = {"path": path, "sha256": "c" * 64, "size": 1, "kid": None}
        line = {"kind": "checkpoint", "examples_seen": self.seen, "elapsed_seconds": 0.0, "data": data}
        self._lines.append(line)

    def lines(self) -> list[Line]:
        """Those since the last call."""
        lines, self._lines = self._lines, []
        return lines


class SlowStorage(Storage):
    """While it stores one object, the trainer makes a checkpoint."""

    trainer: Trainer

    def put_file(self, key: str, path: Path) -> None:
        super().put_file(key, path)
        self.trainer.checkpoint()


class NotingStorage(Storage):
    """It remembers the keys of what it was given."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.given: list[str] = []

    def put_file(self, key: str, path: Path) -> None:
        super().put_file(key, path)
        self.given.append(key)


@pytest.fixture
def lease(service: Service) -> Iterator[Lease]:
    with service.database.writing() as session:
        make_job(session)
    with service.database.writing() as session:
        job = jobs.claim(session, "host:1")
    assert job is not None
    with Lease(service.database, job.id, job.fence, jobs.renew, asked_at=clock(), stopping=threading.Event()) as lease:
        yield lease


def checkpoints(service: Service, lease: Lease) -> list[Checkpoint]:
    with service.database.reading() as session:
        return list(history.checkpoints(session, lease.row_id))


def test_the_newest_of_several_brings_its_state(service: Service, lease: Lease, tmp_path: Path) -> None:
    """Of checkpoints that wait together all bring their snapshots, and only the newest its training state."""
    trainer = Trainer(tmp_path)
    for _ in range(KEEP_STATES):
        trainer.checkpoint()
    service.storage = storage = NotingStorage(service.settings.storage_url)
    Shipper(service, lease, tmp_path).ship(trainer.lines())
    assert [(row.examples_seen, row.state_key is not None) for row in checkpoints(service, lease)] == [
        (3, True),
        (2, False),
        (1, False),
    ]
    assert len([key for key in storage.given if key.endswith(STATE)]) == 1
    assert len(storage.given) == KEEP_STATES * len(SNAPSHOT_FILES) + 1


def test_evaluations_go_out_before_their_checkpoint(service: Service, lease: Lease, tmp_path: Path) -> None:
    """A report becomes the job's and that of the checkpoint after as many examples."""
    trainer = Trainer(tmp_path)
    trainer.checkpoint()
    (line,) = trainer.lines()
    report = {"kid": 0.5, "features": {"name": "random"}}
    evaluation = {"kind": "evaluation", "examples_seen": 1, "elapsed_seconds": 2.0, "data": report}
    Shipper(service, lease, tmp_path).ship([evaluation, line | {"data": line["data"] | {"kid": 0.5}}])
    (checkpoint,) = checkpoints(service, lease)
    assert (checkpoint.kid, checkpoint.evaluation) == (0.5, report | {"elapsed_seconds": 2.0})
    with service.database.reading() as session:
        assert jobs.get(session, lease.row_id).evaluation == checkpoint.evaluation


@pytest.mark.parametrize(("kids", "fetched"), [([0.1, 0.3, 0.2], [1, 3]), ([0.3, 0.2, 0.1], [3]), ([None] * 3, [3])])
def test_a_run_gets_the_newest_and_the_best(
    service: Service, lease: Lease, tmp_path: Path, kids: list[float | None], fetched: list[int]
) -> None:
    """What it goes on from, and what it goes back to when training diverges; often they are one."""
    trainer = Trainer(tmp_path / "before")
    shipper = Shipper(service, lease, trainer.directory)
    for kid in kids:
        trainer.checkpoint()
        shipper.ship([line | {"data": line["data"] | {"kid": kid}} for line in trainer.lines()])
    assert fetch_checkpoint(service, lease, tmp_path / "now")
    found = sorted(path.parent.name for path in (tmp_path / "now").rglob(STATE))
    assert found == [f"{seen:012d}" for seen in fetched]


def test_a_first_run_gets_none(service: Service, lease: Lease, tmp_path: Path) -> None:
    """A job that has made no checkpoint begins from nothing."""
    assert not fetch_checkpoint(service, lease, tmp_path)


def test_states_keep_up_with_a_trainer_that_is_faster(service: Service, lease: Lease, tmp_path: Path) -> None:
    """However far the storage falls behind, each batch brings a state to go on from, and never one that is gone."""
    trainer = Trainer(tmp_path)
    service.storage = storage = SlowStorage(service.settings.storage_url)
    storage.trainer = trainer
    shipper = Shipper(service, lease, tmp_path)
    trainer.checkpoint()
    for _ in range(5):
        lines = trainer.lines()
        shipper.ship(lines)
        resumable = [row.examples_seen for row in checkpoints(service, lease) if row.state_key is not None]
        assert resumable == [lines[-1]["examples_seen"]]
