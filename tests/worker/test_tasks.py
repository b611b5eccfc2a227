import subprocess
import sys
from types import SimpleNamespace

import pytest
from celery.signals import celeryd_after_setup

from app.queue import TASKS, make_celery
from app.settings import Settings
from worker.tasks import celery


def test_worker_leaves_torch_out() -> None:
    """The worker process never loads torch: a crash or a leak there belongs to one child."""
    program = "import sys, worker.tasks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_tasks_have_the_names_that_are_rung_for() -> None:
    """Who rings knows the tasks by name only."""
    assert set(TASKS.values()) <= set(celery.tasks)


@pytest.mark.parametrize(("chosen", "listens"), [(["train", "io"], True), (["train"], True), (["io"], False)])
def test_who_trains_also_measures(chosen: list[str], listens: bool) -> None:
    """A worker that takes jobs also listens where plans are to be measured, and one that only prepares data sets does not."""
    app = make_celery(Settings)
    app.amqp.queues.select(chosen)
    celeryd_after_setup.send(sender="worker", instance=SimpleNamespace(app=app), conf=app.conf)
    assert ("probe" in app.amqp.queues.consume_from) is listens
    assert set(chosen) <= set(app.amqp.queues.consume_from)


@pytest.mark.parametrize(("chosen", "listens"), [(["train", "io"], True), (["train"], False), (["io"], True)])
def test_who_prepares_also_makes_batches(chosen: list[str], listens: bool) -> None:
    """A worker that prepares data sets also listens where batches are rung for, and one that only trains does not."""
    app = make_celery(Settings)
    app.amqp.queues.select(chosen)
    celeryd_after_setup.send(sender="worker", instance=SimpleNamespace(app=app), conf=app.conf)
    assert ("batch" in app.amqp.queues.consume_from) is listens


def test_worker_that_cannot_start_says_so() -> None:
    """A wrong setting ends the worker with a message, rather than leave it deaf."""
    command = [sys.executable, "-m", "celery", "-A", "worker.tasks", "worker", "--pool", "threads"]
    environment = {"GANVIL_STORAGE_URL": "ftp://nowhere", "GANVIL_REDIS_URL": "redis://127.0.0.1:1/0"}
    ended = subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "a storage URL begins with" in ended.stderr
