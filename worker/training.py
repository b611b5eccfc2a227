"""One training job on this worker: claim it, give a trainer what it needs, send out what it makes, write how it ended."""

import json
from collections.abc import Mapping
from contextlib import ExitStack

import structlog

from app import jobs
from app.errors import NotFound
from app.jobs import NewEvent
from app.tables import Dataset, Job
from models.machine import available_cores
from worker.child import Child, Lines, thread_environment
from worker.lease import Lease, clock
from worker.service import Service
from worker.shipping import Shipper, fetch_checkpoint, fetch_initial
from worker.supervisor import OVERDUE, Ending, Supervision, recorded
from worker.workspace import run_directory

TRAINER = "worker.trainer"
INITIAL = "initial"  # folder of the model to begin with, in the run directory

log = structlog.get_logger()


def train_next(service: Service, environment: Mapping[str, str]) -> bool:
    """Claim the next job and see it to its ending; False when none waits or this worker is to end."""
    if service.stopping.is_set():
        return False
    asked_at = clock()
    with service.database.writing() as session:
        job = jobs.claim(session, service.name)
        more = job is not None and jobs.any_waiting(session)
    if job is None:
        return False
    if more:
        service.bell.ring("train")
    service.bell.notify(job.id)
    log.info("job.claimed", job=job.id, fence=job.fence)
    lease = Lease(service.database, job.id, job.fence, jobs.renew, asked_at=asked_at, stopping=service.stopping)
    with lease, recorded(lease, release=jobs.release, fail=jobs.fail, crashed=jobs.crashed):
        _conclude(service, lease, _run(service, job, lease, environment))
    service.bell.notify(job.id)
    return True


def _run(service: Service, job: Job, lease: Lease, environment: Mapping[str, str]) -> Ending:
    dataset = lease.patiently(_dataset_of, service, job)
    threads = _threads(service, job)
    with ExitStack() as held:
        directory = held.enter_context(run_directory(service.runs, f"{job.id}.{job.fence}"))
        name = f"{dataset.id}-{dataset.sha256}"
        data = lease.patiently(lambda: held.enter_context(service.datasets.files(dataset.key or "", name)))
        run = {"config": job.config | {"threads": threads}, "data": str(data.resolve())}
        if not fetch_checkpoint(service, lease, directory.path) and job.initial is not None:
            try:
                fetch_initial(service, lease, job.initial, directory.path / INITIAL)
            except (NotFound, ValueError) as error:
                message = f"The model that the job begins with, {job.initial['ref']}, cannot be used: {error}"
                return Ending("failed", "initial", message)
            run["initial"] = INITIAL
        if service.settings.inception_weights is not None:
            run["inception_weights"] = str(service.settings.inception_weights.resolve())
        (directory.path / "run.json").write_text(json.dumps(run), encoding="utf-8")
        lease.check()
        if lease.stop_reason not in {None, "yield"}:
            return Ending("stopped")
        child = held.enter_context(
            Child(
                f"{TRAINER}.launcher" if job.config.get("processes", 1) > 1 else TRAINER,
                directory.path,
                environment={**environment, **(thread_environment(threads) if threads else {})},
                keep_open=[directory.lock],
            )
        )
        lines = Lines(directory.path / "events.jsonl")
        ship = Shipper(service, lease, directory.path).ship
        return Supervision(child, lines, lease, ship, service.settings).run()


def _dataset_of(service: Service, job: Job) -> Dataset:
    with service.database.reading() as session:
        return session.get_one(Dataset, job.dataset_id)


def _threads(service: Service, job: Job) -> int | None:
    """The number that the user asked for, else the one that the job began with, else this machine's.

    Sums of other numbers of threads differ in their last bits; but a job that came to fewer cores goes on all the same.
    """
    asked: int | None = job.config["threads"]
    began = job.fingerprint or {}  # whose threads are those of each process
    began_with: int = began.get("threads", 0) * began.get("processes", 1)
    if asked is None and 0 < began_with <= available_cores():
        return began_with
    return asked or service.settings.default_trainer_threads()


def _conclude(service: Service, lease: Lease, ending: Ending) -> None:
    log.info("job.ended", job=lease.row_id, fence=lease.fence, ending=ending.kind, code=ending.code)
    match ending.kind:
        case "finished":
            lease.write(jobs.succeed)
        case "stopped" if ending.code == OVERDUE:
            message = (
                f"One step takes longer than the {service.settings.stop_grace_seconds:g} seconds that a run has to stop in: it was"
                " ended, and what it did since its last checkpoint is lost. Use a smaller batch_size or network."
            )
            log.warning("job.overdue", job=lease.row_id, fence=lease.fence)
            lease.write(jobs.report, [NewEvent("log", {"message": message})])
            # An attempt, since a job whose steps are too long would be ended at every deploy and never get anywhere.
            behind = lease.stop_reason == "yield"
            lease.write(jobs.crashed, "step_too_long", message, behind=behind)
        case "stopped":
            lease.write(jobs.release, lease.stop_reason or "stopped")
        case "failed":
            lease.write(jobs.fail, ending.code, ending.message)
        case _:
            # For who runs the service: a traceback is nothing that the API shows.
            log.warning(
                "job.crashed", job=lease.row_id, fence=lease.fence, message=ending.message, printed=ending.printed
            )
            lease.write(jobs.report, [NewEvent("log", {"message": ending.message})])
            lease.write(jobs.crashed, ending.code, ending.message)
