"""Reading jobs and what they left behind: lists, the queue, events, metrics, grids, checkpoints. Nothing here writes."""

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.batches import LIVE
from app.errors import NotFound
from app.paging import MAX_LIMIT, decode_cursor, encode_cursor, fetch_page
from app.tables import Batch, Checkpoint, Dataset, Document, Event, Job

MAX_POINTS = 10_000
CHARTED = (
    "evaluation",
    "metrics",
)  # the kinds of event that have columns; where both have one, the later kind's counts

Item = TypeVar("Item")


def get(session: Session, job_id: str) -> Job:
    """Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id[:100]!r}: GET /v1/jobs lists those that there are.")
    return job


def list_jobs(
    session: Session,
    *,
    status: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> tuple[Sequence[Job], str | None]:
    """A page of jobs, newest first, and the cursor of the next; `dataset` is an id or a name. Raises Invalid for a bad cursor."""
    query = select(Job)
    if status is not None:
        query = query.where(Job.status == status)
    if model is not None:
        query = query.where(Job.model_name == model)
    if dataset is not None:
        named = select(Dataset.id).where(Dataset.name == dataset)
        query = query.where(or_(Job.dataset_id == dataset, Job.dataset_id.in_(named)))
    return fetch_page(session, query, Job.created_at, Job.id, limit=limit, cursor=cursor)


def queue_position(session: Session, job: Job) -> int | None:
    """1 for the next to be claimed; None for a job that is not queued."""
    return queue_positions(session, [job]).get(job.id)


def queue_positions(session: Session, jobs: Collection[Job]) -> dict[str, int]:
    """The queue positions of those of the jobs that are queued, by id, in one query."""
    queued = [job.id for job in jobs if job.status == "queued"]
    if not queued:
        return {}
    place = func.row_number().over(order_by=(Job.priority.desc(), Job.queued_at, Job.id))
    queue = select(Job.id, place.label("place")).where(Job.status == "queued").subquery()
    return {row.id: row.place for row in session.execute(select(queue).where(queue.c.id.in_(queued)))}


def events(
    session: Session, job_id: str, after: int = 0, kinds: Collection[str] | None = None, limit: int = 1000
) -> Sequence[Event]:
    """At most `limit` events with a seq above `after`, in order; only those of `kinds` when given."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after)
    if kinds is not None:
        query = query.where(Event.kind.in_(kinds))
    return session.scalars(query.order_by(Event.seq).limit(limit)).all()


def positions(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    """The newest seq of each of the jobs that exist."""
    return {row.id: row.last_seq for row in session.execute(select(Job.id, Job.last_seq).where(Job.id.in_(job_ids)))}


def metrics(
    session: Session, job_id: str, keys: Collection[str] | None = None, max_points: int = 1000
) -> dict[str, list[Any]]:
    """Columns over `examples_seen` in ascending order, all of one length, with None where nothing of that name was reported.

    They are of the metrics and, as far as these are plain numbers, of the evaluations. More places than `max_points` (2 to 10,000)
    are thinned out evenly, evaluations at most to half of them; the first and the last tick of metrics always stay.
    """
    most = max(2, min(max_points, MAX_POINTS))
    evaluated = thinned(_places(session, job_id, "evaluation"), most // 2) if most >= 4 else []
    chosen = {*thinned(_places(session, job_id, "metrics"), most - len(evaluated)), *evaluated}
    ticks = select(Event).where(Event.job_id == job_id, Event.kind.in_(CHARTED), Event.examples_seen.in_(chosen))
    rows: dict[int, dict[str, Any]] = {}
    for event in session.scalars(ticks.order_by(Event.examples_seen, Event.kind)):
        rows[event.examples_seen or 0] = rows.get(event.examples_seen or 0, {}) | _plain(event.data)
    names = dict.fromkeys(key for row in rows.values() for key in row) if keys is None else dict.fromkeys(keys)
    columns = {name: [row.get(name) for row in rows.values()] for name in names if name != "examples_seen"}
    return {"examples_seen": list(rows), **columns}


def _places(session: Session, job_id: str, kind: str) -> Sequence[int]:
    seen = select(Event.examples_seen).where(Event.job_id == job_id, Event.kind == kind)
    return [place or 0 for place in session.scalars(seen.order_by(Event.examples_seen))]


def _plain(data: Document) -> dict[str, Any]:
    """What a column can hold: numbers, and null for what was none."""
    return {
        name: value
        for name, value in data.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def grids(session: Session, job_id: str) -> Sequence[Event]:
    """The grid events, by examples_seen; `data["key"]` is where the picture is stored."""
    return session.scalars(
        select(Event).where(Event.job_id == job_id, Event.kind == "grid").order_by(Event.examples_seen)
    ).all()


def grid_page(
    session: Session, job_id: str, *, limit: int = 20, cursor: str | None = None
) -> tuple[Sequence[Event], str | None]:
    """A page of the grid events, by examples_seen, and the cursor of the next. Raises Invalid for a bad cursor."""
    query = select(Event).where(Event.job_id == job_id, Event.kind == "grid")
    if cursor is not None:
        (seen,) = decode_cursor(cursor, int)
        query = query.where(Event.examples_seen > max(0, min(seen, 2**63 - 1)))  # no more than a column holds
    limit = max(1, min(limit, MAX_LIMIT))
    rows = session.scalars(query.order_by(Event.examples_seen).limit(limit + 1)).all()
    return rows[:limit], encode_cursor(rows[limit - 1].examples_seen or 0) if len(rows) > limit else None


def grid(session: Session, job_id: str, examples_seen: int | None = None) -> Event | None:
    """The grid event after exactly so many examples, or else the newest one; None when there is none."""
    query = select(Event).where(Event.job_id == job_id, Event.kind == "grid")
    if examples_seen is not None:
        query = query.where(Event.examples_seen == examples_seen)
    return session.scalars(query.order_by(Event.examples_seen.desc(), Event.seq.desc()).limit(1)).first()


def checkpoints(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """Newest first."""
    return session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.examples_seen.desc())
    ).all()


def checkpoint_page(
    session: Session, job_id: str, *, limit: int = 20, cursor: str | None = None
) -> tuple[Sequence[Checkpoint], str | None]:
    """A page of checkpoints, newest first, and the cursor of the next. Raises Invalid for a bad cursor."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return fetch_page(session, query, Checkpoint.created_at, Checkpoint.id, limit=limit, cursor=cursor)


def thinned(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most `most` (2 or more) of the items, evenly, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def queue_summary(session: Session) -> Document:
    """How many jobs and batches there are in each status, and since when the longest waiting job waits (seconds since the epoch)."""
    counts = session.execute(select(Job.status, func.count()).group_by(Job.status)).all()
    oldest = session.scalar(select(func.min(Job.queued_at)).where(Job.status == "queued"))
    batches = session.execute(select(Batch.status, func.count()).where(LIVE).group_by(Batch.status)).all()
    return {"counts": dict(counts), "waiting_since": oldest, "batches": dict(batches)}
