"""Orphans: objects that no row names. They are left by a process that died, or lost its storage, between storing an object and
committing the row that names it, or between a commit and the deletion of what it made needless.

Workers take turns at it: one in each period, by a row in the database, for it reads the list of the whole storage. Still any number
of runs at once do what one would, and none holds a transaction while it talks to the storage.
Nothing that is needed, or that may yet be named, is deleted:

- a page of objects is listed first and the rows are read afterwards, so that what is committed in between is seen;
- what the present claim of a running row has stored stays, however long it takes to commit it, and no later claim or restart
  names what an earlier one stored and did not commit;
- what else is stored before its row is written, an upload, is younger than `orphan_seconds`;
- what was stored long before the database's first row belongs to another: a wrong database URL must not empty a storage.
"""

import re
import threading

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import batches, datasets, jobs, registry
from app.db import Database, clock, now, settings_of
from app.settings import Settings
from app.storage import Storage
from app.tables import ENDED, Batch, BatchShard, Checkpoint, Chore, Dataset, Event, Job, ModelVersion

ROOTS = ("jobs", "datasets", "batches")
OURS = re.compile(r"(?:jobs/job|datasets/ds|batches/batch)_[0-9a-f]{24}/.+")  # a bucket may hold what is not

CHORE = "orphans"

log = structlog.get_logger()


def period(settings: Settings) -> float:
    """Seconds from one clearing to the next."""
    return settings.orphan_seconds / 4


def clear_when_due(database: Database, storage: Storage, stopping: threading.Event) -> None:
    """Clear unless somebody began to within the last period. Raises Unavailable, and then the next turn is a period later."""
    with database.writing() as session:
        mine = take_turn(session)
    if mine:
        clear(database, storage, stopping)


def take_turn(session: Session) -> bool:
    """Whether this caller is to clear now; for a period nobody else is then. Safe beside any number of others."""
    due = (Chore.name == CHORE, Chore.begun_at <= now() - period(settings_of(session)))
    if session.scalar(update(Chore).where(*due).values(begun_at=now()).returning(Chore.name)):
        return True
    if session.get(Chore, CHORE) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(Chore(name=CHORE, begun_at=clock(session)))
    except IntegrityError:  # another took the first turn of all
        return False
    return True


def clear(database: Database, storage: Storage, stopping: threading.Event) -> int:
    """Delete what no row names and is older than `orphan_seconds`; how many objects there were. Ends early when `stopping` is set.

    Raises Unavailable when the database or the storage does not answer.
    """
    with database.reading() as session:
        age = settings_of(session).orphan_seconds
        oldest = session.scalar(select(func.min(Dataset.created_at)))  # of all, for a data set's row is never deleted
        before = clock(session) - age
    if oldest is None:
        return 0
    deleted = 0
    for root in ROOTS:
        storage.clear_unfinished(root, before)
        for page in storage.pages(root):
            if stopping.is_set():
                return deleted
            old = [item.key for item in page if oldest - age <= item.modified < before and OURS.fullmatch(item.key)]
            orphans = _unnamed(database, old)
            storage.delete(orphans)
            deleted += len(orphans)
    log.info("orphans.cleared", deleted=deleted)
    return deleted


def _unnamed(database: Database, keys: list[str]) -> list[str]:
    if not keys:
        return []
    with database.reading() as session:
        named = _named_by_jobs(session, keys) | _named_by_datasets(session, keys) | _named_by_batches(session, keys)
    return [key for key in keys if named.isdisjoint({key, _claim_of(key)})]


def _claim_of(key: str) -> str:
    """The prefix of everything that one claim of a job, a data set or a batch stores: `jobs/{id}/{fence}` and the like."""
    return "/".join(key.split("/", 3)[:3])


def _owners(keys: list[str]) -> set[str]:
    return {key.split("/", 2)[1] for key in keys}


def _named_by_jobs(session: Session, keys: list[str]) -> set[str]:
    """The objects, and the claims with all of theirs, that jobs and models need."""
    owners = _owners(keys)
    snapshots = set(session.scalars(select(Checkpoint.snapshot_key).where(Checkpoint.job_id.in_(owners))))
    folders = {key.rpartition("/")[0] for key in keys}
    published = select(ModelVersion.snapshot_key).where(ModelVersion.snapshot_key.in_(folders), registry.LIVE)
    snapshots.update(session.scalars(published))
    begins_with = select(Job.initial["snapshot_key"].as_string()).where(
        Job.initial["snapshot_key"].as_string().in_(folders), Job.status.not_in(ENDED)
    )
    snapshots.update(session.scalars(begins_with))
    states = select(Checkpoint.state_key).where(Checkpoint.job_id.in_(owners), Checkpoint.state_key.is_not(None))
    grids = select(Event.data["key"].as_string()).where(Event.job_id.in_(owners), Event.kind == "grid")
    running = session.execute(select(Job.id, Job.fence).where(Job.id.in_(owners), Job.status == "running"))
    return {
        *(key for snapshot in snapshots for key in registry.snapshot_objects(snapshot)),
        *session.scalars(states),
        *session.scalars(grids),
        *(jobs.run_key(job_id, fence) for job_id, fence in running),
    }


def _named_by_datasets(session: Session, keys: list[str]) -> set[str]:
    """The objects, and the claims with all of theirs, that data sets need. An upload is kept unless it failed."""
    named: set[str] = set()
    for row in session.scalars(select(Dataset).where(Dataset.id.in_(_owners(keys)), datasets.LIVE)):
        if row.status != "failed" and row.source["kind"] == "upload":
            named.add(row.source["key"])
        if row.status == "running":
            named.add(datasets.prepared_key(row.id, row.fence))
        if row.key is not None:
            named.add(row.key)
    return named


def _named_by_batches(session: Session, keys: list[str]) -> set[str]:
    """The shards of batches, which have rows for as long as they are kept, the directories of zips, and the claims that run."""
    named = set(session.scalars(select(BatchShard.key).where(BatchShard.key.in_(keys))))
    for row in session.scalars(select(Batch).where(Batch.id.in_(_owners(keys)), Batch.deleted_at.is_(None))):
        if row.status == "running":
            named.add(batches.run_key(row.id, row.fence))
        if row.archive is not None and row.archive["directory"] is not None:
            named.add(row.archive["directory"]["key"])
    return named
