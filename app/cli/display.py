"""The progress of a job or a batch for a person to watch: one live line on a terminal, a line now and then where there is none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from app.cli.terminal import fail
from app.client import ENDED, Client, ConnectionFailed
from app.schemas.batches import Batch
from app.schemas.jobs import Event, Job

QUIET_SECONDS = 10.0


class State(Protocol):
    """How far something is. `details` is what is said beside the bar."""

    @property
    def status(self) -> str: ...

    @property
    def seen(self) -> int: ...

    @property
    def total(self) -> int | None: ...

    @property
    def details(self) -> str: ...


class Display(Protocol):
    """Where a state is shown."""

    def show(self, line: State) -> None: ...

    def note(self, text: str) -> None: ...


class Line:
    """What is known of a job's progress, gathered from its events."""

    def __init__(self, job: Job) -> None:
        self.status: str = job.status
        self.seen = job.progress.examples_seen
        self.total = job.progress.examples_total
        self.metrics: dict[str, Any] = {}

    def take(self, event: Event) -> None:
        if event.kind == "status":
            self.status = event.data["status"]
        elif event.kind == "metrics":
            self.metrics = event.data
            self.seen = event.examples_seen or self.seen
            self.total = event.data.get("examples_total", self.total)

    @property
    def details(self) -> str:
        """Such as `12,800 of 80,000  1,310/s  loss G 0.81 D 1.02  0:51 left`."""
        if not self.metrics:
            return ""
        rate, eta = self.metrics.get("examples_per_second"), self.metrics.get("eta_seconds")
        parts = [f"{self.seen:,} of {self.total:,}" if self.total else f"{self.seen:,}"]
        if rate is not None:
            parts.append(f"{rate:,.0f}/s")
        if "loss_g" in self.metrics:
            parts.append(f"loss G {self.metrics['loss_g']:.2f} D {self.metrics['loss_d']:.2f}")
        if eta is not None and self.status not in ENDED:
            parts.append(f"{clock(eta)} left")
        return "  ".join(parts)


class BatchLine:
    """How far a batch is."""

    def __init__(self, batch: Batch) -> None:
        self.status: str = batch.status
        self.seen, self.total = batch.progress.done, batch.progress.total
        self._pace = (batch.progress.samples_per_second, batch.progress.eta_seconds)

    @property
    def details(self) -> str:
        """Such as `12,800 of 80,000  1,310/s  0:51 left`."""
        rate, eta = self._pace
        parts = [f"{self.seen:,} of {self.total:,}"]
        if rate is not None:
            parts.append(f"{rate:,.0f}/s")
        if eta is not None and self.status not in ENDED:
            parts.append(f"{clock(eta)} left")
        return "  ".join(parts)


class LiveDisplay:
    """One bar that moves."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, details="")

    def show(self, line: State) -> None:
        self._progress.update(
            self._task, description=line.status, completed=line.seen, total=line.total, details=line.details
        )

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


class PlainDisplay:
    """A line when the status changes, and every so many seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = ""
        self._spoken_at = 0.0

    def show(self, line: State) -> None:
        now = time.monotonic()
        if line.status == self._status and now - self._spoken_at < QUIET_SECONDS:
            return
        self._status, self._spoken_at = line.status, now
        self.note(f"{line.status}  {line.details}".rstrip())

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def display(console: Console) -> Iterator[Display]:
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[details]}"),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        yield LiveDisplay(progress)


def follow_job(client: Client, job: Job, console: Console) -> Job:
    """Shows a job from its first event until it has ended; returns it as it is then."""
    line = Line(job)
    with display(console) as shown:
        shown.show(line)
        for event in client.follow(job.id):
            line.take(event)
            if event.kind == "warning":
                shown.note(f"warning: {event.data.get('message', '')}")
            elif event.kind == "verdict":
                shown.note(f"verdict: {event.data.get('verdict', '')}. {event.data.get('message', '')}")
            shown.show(line)
    return client.job(job.id)


def follow_batch(client: Client, batch_id: str, console: Console) -> Batch:
    """Shows a batch until it has ended; returns it as it is then."""
    with display(console) as shown:
        for batch in client.follow_batch(batch_id):
            shown.show(BatchLine(batch))
    return batch


def clock(seconds: float) -> str:
    """Such as `0:51` or `2:03:20`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def following(what: str, again: str) -> Iterator[None]:
    """Follows a job or a batch within the block; ends the command when that is broken off, and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        fail(f"No longer following. The {what} goes on; to see it again: {again}")
    except ConnectionFailed as error:
        fail(str(error), f"A service that was stopped has saved the {what} and goes on with it: {again}")


def check_success(what: str, ended: Job | Batch) -> None:
    """Ends the command unless it succeeded."""
    if ended.status != "succeeded":
        told = f"The {what} {ended.status}: {ended.error.message}" if ended.error else f"The {what} is {ended.status}."
        fail(told)
