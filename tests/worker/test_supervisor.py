import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import jobs
from app.db import Database
from app.errors import LeaseLost, StorageFull, Unavailable
from app.tables import Job
from tests.factories import make_dataset, make_job
from tests.worker.helpers import lines_of, said, start
from worker.lease import Lease, clock
from worker.supervisor import OVERDUE, Ending, Line, Supervision, recorded


class Run:
    """A claimed job, its lease, and what its child said so far."""

    def __init__(self, database: Database, folder: Path) -> None:
        with database.writing() as session:
            make_job(session, make_dataset(session))
        with database.writing() as session:
            job = jobs.claim(session, "host:1")
        assert job is not None
        self.database = database
        self.folder = folder
        self.stopping = threading.Event()
        self.lease = Lease(database, job.id, job.fence, jobs.renew, asked_at=clock(), stopping=self.stopping)
        self.shipped: list[str] = []

    def supervise(self, script: str, **changes: float) -> Ending:
        settings = self.database.settings.model_copy(update=changes)
        with start(self.folder, script) as child:
            return Supervision(child, lines_of(self.folder), self.lease, self._ship, settings).run()

    def _ship(self, lines: list[Line]) -> None:
        self.shipped += [line["kind"] for line in lines]

    @property
    def job(self) -> Job:
        with self.database.reading() as session:
            return jobs.get(session, self.lease.row_id)

    def recording(self, error: Exception) -> None:
        with recorded(self.lease, release=jobs.release, fail=jobs.fail, crashed=jobs.crashed):
            raise error


@pytest.fixture
def run(database: Database, tmp_path: Path) -> Iterator[Run]:
    run = Run(database, tmp_path / "run")
    with run.lease:
        yield run


def soon(act: object, after: float = 0.5) -> None:
    """Do something from another thread while the child is supervised."""
    threading.Timer(after, act).start()  # type: ignore[arg-type]


def test_everything_said_is_shipped(run: Run) -> None:
    """All lines go out in order, also those that were written just before the end."""
    ending = run.supervise("for kind in ('started', 'metrics', 'finished'): say(kind)")
    assert (ending, run.shipped) == (Ending("finished"), ["started", "metrics", "finished"])


def test_child_that_fails_says_why(run: Run) -> None:
    """A child's own account of its failure is taken word for word."""
    ending = run.supervise("import sys; say('failed', code='diverged', message='the loss is NaN'); sys.exit(1)")
    assert ending == Ending("failed", "diverged", "the loss is NaN")


def test_killed_child_is_a_crash(run: Run) -> None:
    """A child that was killed from outside most likely ran out of memory."""
    ending = run.supervise("import os; say('started'); os.kill(os.getpid(), 9)")
    assert (ending.kind, ending.code) == ("crashed", "oom_suspected")


def test_child_that_breaks_is_a_crash(run: Run) -> None:
    """A child that ends without a last line is reported with the last thing that it printed."""
    ending = run.supervise("say('started'); raise RuntimeError('no such device')")
    assert (ending.kind, ending.code) == ("crashed", "crashed")
    assert ending.message == "The process ended with status 1: RuntimeError: no such device"
    assert "Traceback" in ending.printed


def test_signal_is_named(run: Run) -> None:
    """A child that dies of a signal of its own is reported with the signal's name."""
    ending = run.supervise("import os, signal; os.kill(os.getpid(), signal.SIGABRT)")
    assert ending.message == "The process was ended by SIGABRT: without a word"


def test_fault_may_be_for_lack_of_memory(run: Run) -> None:
    """Some libraries use memory that they were refused: the ending says that this may be the reason."""
    ending = run.supervise("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert ending.message.startswith("The process was ended by SIGSEGV: without a word. ")
    assert "when memory runs out" in ending.message


def test_stop_is_passed_on(run: Run) -> None:
    """When this worker is to end, the child is asked to stop and does so in its own way."""
    soon(run.stopping.set)
    ending = run.supervise("say('started'); asked_to_stop(60) and say('stopped')")
    assert (ending, run.shipped) == (Ending("stopped"), ["started", "stopped"])


def test_stubborn_child_is_killed_after_the_grace(run: Run) -> None:
    """A child that has begun and takes too long to stop is killed, and its ending says so."""
    run.stopping.set()
    began = time.monotonic()
    ending = run.supervise("import time; say('started'); time.sleep(60)", stop_grace_seconds=0.5)
    assert ending == Ending("stopped", OVERDUE, "The process did not stop within 0.5 seconds.")
    assert time.monotonic() - began < 10


def test_child_that_had_not_begun_is_nobodys_fault(run: Run) -> None:
    """One that was still starting when the grace was over has stopped, like one that breaks while it stops."""
    run.stopping.set()
    assert run.supervise("import time; time.sleep(60)", stop_grace_seconds=0.5) == Ending("stopped")
    assert run.supervise("import sys; asked_to_stop(60); sys.exit(1)") == Ending("stopped")


def test_child_that_somebody_else_kills_while_it_stops_is_a_crash(run: Run) -> None:
    """Memory may run out then, too."""
    run.stopping.set()
    ending = run.supervise("import os; say('started'); asked_to_stop(60) and os.kill(os.getpid(), 9)")
    assert (ending.kind, ending.code) == ("crashed", "oom_suspected")
    assert "out of memory" in ending.message


def test_child_that_does_not_go_is_killed(run: Run) -> None:
    """A child that has said its last word but hangs is killed after the grace, and has finished all the same."""
    ending = run.supervise("import time; say('finished'); time.sleep(60)", stop_grace_seconds=0.5)
    assert ending == Ending("finished")


def test_turn_brings_something(run: Run) -> None:
    """A job gives way only after it has trained a little, else two could give way to one another for ever."""
    run.lease.order = jobs.Order.YIELD
    run.lease._renew = lambda *_: jobs.Order.YIELD
    script = "import time; began = time.time(); say('started'); asked_to_stop(60) and say('stopped', after=time.time() - began)"
    assert run.supervise(script) == Ending("stopped")
    assert 0.8 < lines_of(run.folder).read()[-1]["data"]["after"] < 10


def test_lost_lease_ends_the_child(run: Run, database: Database) -> None:
    """When a newer run has the job, the child dies and nothing more is written."""

    def take_away() -> None:
        with database.writing() as session:
            session.get_one(Job, run.lease.row_id).fence += 1

    soon(take_away)
    with pytest.raises(LeaseLost):
        run.supervise("import time; say('started'); time.sleep(60)")
    assert said(run.folder) == ["started"]


def test_unexpected_error_is_recorded_and_raised(run: Run) -> None:
    """A bug of ours counts as an attempt, is named in the row's history, and is not swallowed."""
    with pytest.raises(KeyError):
        run.recording(KeyError("path"))
    assert (run.job.status, run.job.attempt) == ("queued", 1)


def test_full_storage_fails_the_job(run: Run) -> None:
    """A full disk is a reason for a person to act on."""
    run.recording(StorageFull("No space is left."))
    assert (run.job.status, run.job.error) == ("failed", {"code": "storage_full", "message": "No space is left."})


def test_storage_that_is_away_at_a_stop_costs_no_attempt(run: Run) -> None:
    """A run that should stop while the storage is away goes back to the queue."""
    run.recording(Unavailable("The storage does not answer."))
    assert (run.job.status, run.job.attempt) == ("queued", 0)


def test_lost_lease_is_nothing_to_record(run: Run) -> None:
    """The row of a lost lease is somebody else's."""
    before = run.job
    run.recording(LeaseLost("taken"))
    assert (run.job.status, run.job.last_seq) == (before.status, before.last_seq)
