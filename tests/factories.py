"""Rows in the state that a test wants, made by the functions that make them in the service wherever these can."""

import itertools
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app import datasets, jobs
from app.db import Database, clock
from app.storage import Storage
from app.tables import Checkpoint, Dataset, Job, new_id

_numbers = itertools.count(1)


def make_dataset(session: Session, **columns: Any) -> Dataset:
    """A data set that is ready: 200 digits of 8 x 8 x 1 in ten classes, unless told otherwise."""
    dataset_id, time = new_id("ds"), clock(session)
    described: dict[str, Any] = {
        "name": f"digits-{next(_numbers)}",
        "source": {"kind": "builtin", "name": "digits"},
        "options": {"resolution": None, "fit": "crop"},
        "status": "succeeded",
        "key": f"datasets/{dataset_id}/1",
        "sha256": "d" * 64,
        "examples": 200,
        "height": 8,
        "width": 8,
        "channels": 1,
        "classes": [{"name": str(digit), "count": 20} for digit in range(10)],
        "report": {"skipped": [], "skipped_total": 0, "duplicates": 0, "sizes": []},
    }
    dataset = Dataset(id=dataset_id, queued_at=time, created_at=time, **(described | columns))
    session.add(dataset)
    session.flush()
    return dataset


def make_job(
    session: Session, dataset: Dataset | None = None, *, request: dict[str, Any] | None = None, **columns: Any
) -> Job:
    """A submitted job of 640 examples in batches of 32; `request` goes to `jobs.submit`, `columns` are then set as they are."""
    dataset = dataset or make_dataset(session)
    asked: dict[str, Any] = {"config": {"batch_size": 32}, "budget": {"examples": 640}, "seed": 1}
    job = jobs.submit(session, dataset=dataset.id, **(asked | (request or {})))
    for column, value in columns.items():
        setattr(job, column, value)
    session.flush()
    return job


def claimed(session: Session, job: Job, worker: str = "worker") -> Job:
    """The job, claimed before all others."""
    priority, job.priority = job.priority, 1001
    session.flush()
    claim = jobs.claim(session, worker)
    assert claim is job
    job.priority = priority
    session.flush()
    return job


def make_job_in(session: Session, status: str) -> Job:
    """A job that came into this state in the usual way; a succeeded one has a checkpoint of 320 examples and a version."""
    job = make_job(session)
    if status in {"paused", "cancelled"}:
        {"paused": jobs.pause, "cancelled": jobs.cancel}[status](session, job.id)
    if status in {"running", "succeeded", "failed"}:
        claimed(session, job)
    if status == "succeeded":
        jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, 320))
        jobs.succeed(session, job.id, job.fence)
    if status == "failed":
        jobs.fail(session, job.id, job.fence, "diverged", "The discriminator won.")
    session.flush()
    return job


def new_checkpoint(job: Job, examples_seen: int, **fields: Any) -> jobs.NewCheckpoint:
    """What the job's present claim reports once a checkpoint's objects are stored."""
    key = f"jobs/{job.id}/{job.fence}/checkpoints/{examples_seen:012d}"
    described: dict[str, Any] = {"state_key": f"{key}/state.pt", "snapshot_key": key, "sha256": "c" * 64, "size": 1000}
    return jobs.NewCheckpoint(examples_seen=examples_seen, **(described | fields))


def make_checkpoint(session: Session, job: Job, examples_seen: int = 320, **columns: Any) -> Checkpoint:
    """A checkpoint row of a job in any state."""
    fields = vars(new_checkpoint(job, examples_seen))
    checkpoint = Checkpoint(
        **({"id": new_id("ckpt"), "job_id": job.id, "fence": job.fence, "best": True} | fields | columns),
        created_at=clock(session),
    )
    session.add(checkpoint)
    session.flush()
    return checkpoint


def upload(database: Database, storage: Storage, path: Path, filename: str, name: str | None = None) -> Dataset:
    """The data set that an archive which was just received becomes."""
    with datasets.stored_upload(storage, path=path, filename=filename) as stored, database.writing() as session:
        return datasets.register_upload(session, stored, name=name, resolution=32, fit="pad")
