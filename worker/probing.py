"""One probe on this worker: claim it, have a child train for a few seconds on noise, write down what it measured."""

import json
import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog

from app.jobs import probes
from app.settings import FEW_CORES
from app.tables import Document, Probe
from models.machine import available_cores, spare_memory
from worker.child import Child, Lines, thread_environment
from worker.lease import Lease, clock
from worker.service import Service
from worker.supervisor import Ending, Line, Supervision, recorded
from worker.workspace import run_directory

log = structlog.get_logger()

PROBE = "worker.probe"
LONGEST_SECONDS = 60.0  # a probe takes less than ten
GRACE_SECONDS = 2.0  # nothing is lost with it
CPU_SECONDS = 120  # for each thread: more than that, for when this worker is no longer there to end it
MEMORY_SHARE = 0.5  # of what the machine has to spare: jobs train beside it


def probe_next(service: Service, environment: Mapping[str, str]) -> bool:
    """Claim the next probe and see it to its end; False when none waits or this worker is to end."""
    if service.stopping.is_set():
        return False
    asked_at = clock()
    with service.database.writing() as session:
        probe = probes.claim(session, service.name)
    if probe is None:
        return False
    lease = Lease(service.database, probe.id, probe.fence, probes.renew, asked_at=asked_at, stopping=service.stopping)
    with lease, recorded(lease, release=probes.release, fail=probes.fail, crashed=probes.fail):
        _measure(service, probe, lease, environment)
    return True


def _measure(service: Service, probe: Probe, lease: Lease, environment: Mapping[str, str]) -> None:
    threads, note = _threads(service, probe.request["config"])
    lines: list[Line] = []
    grace = min(GRACE_SECONDS, service.settings.stop_grace_seconds)
    settings = service.settings.model_copy(update={"stop_grace_seconds": grace})
    with run_directory(service.runs, f"{probe.id}.{probe.fence}") as directory:
        request = probe.request | {"config": probe.request["config"] | {"threads": threads}}
        if service.settings.inception_weights is not None:
            request["inception_weights"] = str(service.settings.inception_weights.resolve())
        (directory.path / "probe.json").write_text(json.dumps(request), encoding="utf-8")
        environment = {**environment, **(thread_environment(threads) if threads else {})}
        with Child(PROBE, directory.path, environment=environment, keep_open=[directory.lock]) as child:
            child.limit(_limits(service, threads))
            log_file = Lines(directory.path / "events.jsonl")
            with _ended_after(LONGEST_SECONDS, child) as late:
                ending = Supervision(child, log_file, lease, lines.extend, settings).run()
    log.info("probe.ended", probe=lease.row_id, ending=ending.kind, code=ending.code, message=ending.message)
    match ending.kind:
        case "finished":
            lease.write(probes.finish, _result(service, lines[-1]["data"], note))
        case "stopped":
            lease.write(probes.release, "stopped")
        case _:
            lease.write(probes.fail, *_reason(ending, late=late.is_set()))


def _reason(ending: Ending, *, late: bool) -> tuple[str, str]:
    """Why nothing was measured: a code and a sentence."""
    if late and ending.kind == "crashed":
        took = f"to start and take a few took more than {LONGEST_SECONDS:.0f} seconds on the worker that measured"
        return probes.TOO_SLOW, f"Its steps are too long for a probe: {took}."
    match ending.code:
        case "config":
            return ending.code, ending.message
        case "out_of_memory":
            return ending.code, "It needs more memory than the worker that measured could spare for it."
        case _:
            return ending.code, f"The probe of it ended early. {ending.message}"


@contextmanager
def _ended_after(seconds: float, child: Child) -> Iterator[threading.Event]:
    """Kills the child when the block takes longer; the event says whether it came to that."""
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _result(service: Service, measured: Document, note: str | None) -> Document:
    return measured | {"worker": service.name, "note": " ".join(filter(None, (measured.get("note"), note))) or None}


def _threads(service: Service, config: Document) -> tuple[int | None, str | None]:
    """How many threads the probe may have, and what is to be said about that."""
    busy, few = service.training.busy, available_cores() <= FEW_CORES
    asked: int | None = config["threads"] or service.settings.default_trainer_threads()
    if busy and few and (asked or 1) <= available_cores():  # more are refused, as they would be alone
        return 1, "Measured with one thread, beside a job that trains on the same few cores: alone it goes faster."
    if busy:
        return asked, "Measured beside a job that trains on the same machine: alone it may go faster."
    return asked, None


def _limits(service: Service, threads: int | None) -> dict[int, int]:
    """By RLIMIT number. A GPU's driver maps more memory than the machine has; there the probe itself keeps to a share of the GPU's."""
    limits = {resource.RLIMIT_CPU: CPU_SECONDS * (threads or available_cores()), resource.RLIMIT_CORE: 0}
    spare = None if service.gpus else spare_memory()
    return limits if spare is None else limits | {resource.RLIMIT_DATA: int(MEMORY_SHARE * spare)}
