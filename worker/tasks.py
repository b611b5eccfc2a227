"""The Celery side of a worker, which `python -m worker` runs.

A message is a doorbell: it says that there is work and not which. The task claims from the database until nothing is left or
every place is taken.

On SIGTERM Celery takes no more messages and waits for its tasks; `worker_shutting_down` is what tells them. It fires in the
main process only, which with the threads pool is theirs too (tasks of the prefork pool never learn of a shutdown).
"""

from typing import Any

from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from app import logs
from app.queue import TASKS, celery
from app.settings import get_settings
from worker.batching import batch_next
from worker.preparation import prepare_next
from worker.probing import probe_next
from worker.service import Service
from worker.training import train_next

__all__ = ["batch", "celery", "io", "probe", "train"]

_services: list[Service] = []  # this process's one, from worker_init on


@celery.task(name=TASKS["train"])
def train() -> None:
    """Train queued jobs, as many at once as there are slots, until none is left."""
    service = _services[0]
    service.training.work(lambda environment: train_next(service, environment))


@celery.task(name=TASKS["io"])
def io() -> None:
    """Prepare queued data sets, one at a time, until none is left."""
    service = _services[0]
    service.io.work(lambda environment: prepare_next(service, environment))


@celery.task(name=TASKS["probe"])
def probe() -> None:
    """Measure plans, one at a time and also while jobs train, until none waits."""
    service = _services[0]
    service.probing.work(lambda environment: probe_next(service, environment))


@celery.task(name=TASKS["batch"])
def batch() -> None:
    """Make queued batches, one at a time and also while data sets are prepared, until none is left."""
    service = _services[0]
    service.batching.work(lambda environment: batch_next(service, environment))


@celeryd_after_setup.connect
def _listen(instance: Any, **_: Any) -> None:
    """Whoever trains also measures what training would take, for it is the same machine that is asked about; whoever prepares data
    sets also makes batches.
    """
    queues = instance.app.amqp.queues
    if "train" in queues.consume_from:
        queues.select_add("probe")
    if "io" in queues.consume_from:
        queues.select_add("batch")


@setup_logging.connect
def _log(**_: Any) -> None:
    logs.configure(get_settings().log_level)


@worker_init.connect
def _open(**_: Any) -> None:
    try:
        _services.append(Service(get_settings()))
    except ValueError as error:  # Celery logs what a signal handler raises and goes on, but not this
        raise SystemExit(f"The worker cannot start: {error}") from error


@worker_ready.connect
def _start(**_: Any) -> None:
    _services[0].start()


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    _services[0].stop()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    _services.pop().close()
