"""`ganvil demo`: the whole way, from real handwritten digits to generated ones, on a service of its own."""

import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from app import formats
from app.cli.display import follow_job
from app.client import APIError, Client, ConnectionFailed
from app.schemas.datasets import Dataset
from app.schemas.jobs import Job
from app.up.processes import HOUSE, Child, Guard
from app.up.redis_server import free_port
from models.pictures import tile

START_SECONDS = 60.0
STOP_SECONDS = 90.0
PAUSE_SECONDS = 0.1
DATASET = "digits"
COLUMNS = 10
SHOWN_PIXELS = 68  # about the side of one sample in samples.png
GAP = 4  # pixels between samples: digits that touch are hard to read
TRUNCATION = 0.5  # of z; at 1 some digits are as hard to read as some of the real ones are
LOG_LINES = 20


class DemoFailed(Exception):
    """The demo could not go on; the message says why."""


def demo(output: Path, console: Console, *, budget_seconds: float | None, keep: bool) -> None:
    """Writes samples.png, timelapse.webp and report.json into `output`, and what the service keeps into `output`/data.

    Trains as long as the preset says, or for `budget_seconds`. With `keep` the service stays up until Ctrl-C.
    Raises DemoFailed, ClientError.
    """
    began = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    with service(output) as client:
        console.print(f"The service is up: {client.url}/docs", highlight=False)
        dataset = handwritten_digits(client)
        console.print(
            f"Dataset {dataset.name}: {dataset.examples:,} images, {dataset.width}x{dataset.height}", highlight=False
        )
        budget = {"seconds": budget_seconds} if budget_seconds else None
        submitted = time.monotonic()
        job = follow_job(client, client.submit(dataset.id, budget=budget), console)
        if job.status != "succeeded":
            raise DemoFailed(f"The job {job.status}: {job.error.message if job.error else 'it was stopped'}")
        trained = time.monotonic()
        version = newest_version(client, job)
        write_pictures(client, dataset, version, job, output)
        seconds = {"training": trained - submitted, "everything": time.monotonic() - began}
        report = write_report(client, dataset, version, job, seconds, output)
        tell(console, client, report, output)
        if keep:
            wait_for_interrupt(console)


@contextmanager
def service(output: Path) -> Iterator[Client]:
    """A `ganvil up` on a free port with default settings, and a client of it; stopped at the end."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(port), "--data", str((output / "data").resolve())]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GANVIL_")}
    guard = Guard(STOP_SECONDS)
    log = output / "service.log"
    log.unlink(missing_ok=True)
    with Client(f"http://127.0.0.1:{port}") as client:
        child = Child("The service", command, env, guard, cwd=HOUSE, log=log)
        child.start()
        try:
            wait_until_ready(client, child, log)
            yield client
        except ConnectionFailed as error:
            raise DemoFailed(f"The service ended. {last_lines(log)}") from error
        finally:
            child.send(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while child.running() and time.monotonic() < deadline:
                time.sleep(PAUSE_SECONDS)
            child.end()
            guard.close()


def wait_until_ready(client: Client, child: Child, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not client.ready():
        if not child.running() or time.monotonic() > deadline:
            raise DemoFailed(f"The service did not start. {last_lines(log)}")
        time.sleep(PAUSE_SECONDS)


def last_lines(log: Path) -> str:
    tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join((f"Its log, {log}, ends with", *tail))


def handwritten_digits(client: Client) -> Dataset:
    """The built-in digits, imported by this demo or by one before it on the same data."""
    try:
        client.dataset(DATASET)
    except APIError as error:
        if error.code != "not_found":
            raise
        client.import_builtin(DATASET, name=DATASET)
    return client.wait_until_prepared(DATASET)


def newest_version(client: Client, job: Job) -> str:
    """The lasting name of what the job published, such as `digits:1`."""
    model = client.model(job.model).model
    return next(version.ref for version in model.versions if version.job == job.id) if model else job.id


def write_pictures(client: Client, dataset: Dataset, version: str, job: Job, output: Path) -> None:
    """A row of samples for each class, of the first seeds in order, and the progress of the job."""
    classes = [each.name for each in dataset.classes or [] for _ in range(COLUMNS)]
    seeds = list(range(len(classes)))
    bundle = client.generate(version, accept="application/x-npz", seeds=seeds, classes=classes, truncation=TRUNCATION)
    with np.load(io.BytesIO(bundle)) as arrays:
        images = arrays["images"]
    picture = tile(images, COLUMNS, scale=max(1, SHOWN_PIXELS // images.shape[2]), gap=GAP)
    (output / "samples.png").write_bytes(formats.encode(picture, "png"))
    (output / "timelapse.webp").write_bytes(client.timelapse(job.id))


def write_report(
    client: Client, dataset: Dataset, version: str, job: Job, seconds: dict[str, float], output: Path
) -> dict[str, Any]:
    """What was done, in numbers; returns what it wrote."""
    names = [each.name for each in dataset.classes or []]
    report = {
        "dataset": {"name": dataset.name, "examples": dataset.examples, "sha256": dataset.sha256},
        "model": version,
        "job": job.model_dump(
            mode="json", include={"id", "status", "preset", "progress", "metrics", "config", "fingerprint"}
        ),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "truncation": TRUNCATION,
        "swagger": f"{client.url}/docs",
        "images": [
            f"{client.url}/v1/models/{version}/samples/{row * COLUMNS}.png?class={name}&truncation={TRUNCATION}"
            for row, name in enumerate(names)  # the first column of samples.png
        ],
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def tell(console: Console, client: Client, report: dict[str, Any], output: Path) -> None:
    lines = [
        f"Trained {report['model']} in {report['seconds']['training']:.0f} s; everything took {report['seconds']['everything']:.0f} s.",
        *(f"  {output / name}" for name in ("samples.png", "timelapse.webp", "report.json")),
        f"These samples are drawn at truncation {report['truncation']}: less variety, more typical digits. Without it some are hard to read.",
        "Every seed and class has a URL; the first column is",
        *(f"  {url}" for url in report["images"]),
        f"Swagger UI: {report['swagger']}",
        f"These URLs answer while the service runs: ganvil up --port {client.url.rpartition(':')[2]} --data {output / 'data'}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def wait_for_interrupt(console: Console) -> None:
    console.print("Staying up; Ctrl-C stops.", highlight=False)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
