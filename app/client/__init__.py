"""The Python client: what the HTTP API can do, as typed calls.

    with Client("http://127.0.0.1:8000") as ganvil:
        dataset = ganvil.upload("flowers.zip", name="flowers")
        dataset = ganvil.wait_until_prepared(dataset.id)
        job = ganvil.submit(dataset.id)
        for event in ganvil.follow(job.id):
            print(event.kind, event.data)
        Path("sample.png").write_bytes(ganvil.sample("flowers", seed=7))

Errors come as exceptions: `APIError` carries the service's problem document, `ConnectionFailed` says that no answer came. A lost
connection is tried again; a request that creates something carries an Idempotency-Key, so that it creates one thing all the same.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.client.batches import BatchCalls, BatchFailed
from app.client.errors import APIError, ClientError, ConnectionFailed, Damaged, TimedOut
from app.client.pages import PageCalls
from app.client.transport import Transport, idempotency, segment, without_none
from app.schemas.datasets import Dataset
from app.schemas.jobs import Event, Job
from app.schemas.models import Model, Snapshot

DEFAULT_URL = "http://127.0.0.1:8000"
ENDED = frozenset({"succeeded", "failed", "cancelled"})
POLL_SECONDS = 0.3
RECONNECT_SECONDS = 1.0
SILENCE_SECONDS = 45.0  # three of the server's keep-alive comments

__all__ = [
    "APIError",
    "BatchFailed",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Damaged",
    "JobFailed",
    "PreparationFailed",
    "TimedOut",
]


class PreparationFailed(ClientError):
    """The data set could not be prepared; the message is the service's reason."""


class JobFailed(ClientError):
    """A job that was waited for ended without a model; `job` says how."""

    def __init__(self, job: Job) -> None:
        reason = job.error.message if job.error else f"it was {job.status}"
        super().__init__(f"Job {job.id} made no model: {reason}")
        self.job = job


class Client(BatchCalls, PageCalls):
    """A connection to one Ganvil service. Safe to share between threads."""

    def __init__(self, url: str = DEFAULT_URL, api_key: str | None = None, *, timeout_seconds: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._transport = Transport(self.url, api_key, timeout_seconds=timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def ready(self) -> bool:
        """Whether the service answers and is ready to work, at this moment."""
        return self._transport.answers("/health/ready")

    # Data sets

    def upload(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        resolution: int | None = None,
        fit: str | None = None,
    ) -> Dataset:
        """Uploads an archive of images; it is `preparing` when this returns. `fit` is crop, pad or stretch."""
        fields = without_none(name=name, resolution=resolution, fit=fit)
        with ExitStack() as stack:
            file = stack.enter_context(Path(path).open("rb"))
            response = self._transport.request(
                "POST",
                "/v1/datasets",
                upload=file,
                files={"file": (Path(path).name, file)},
                data={key: str(value) for key, value in fields.items()},
                headers=idempotency(),
            )
        return Dataset.model_validate(response.json())

    def import_builtin(self, builtin: str, *, name: str | None = None) -> Dataset:
        """Makes a data set of one that ships with the service, such as `digits`."""
        body = without_none(source={"kind": "builtin", "name": builtin}, name=name)
        return Dataset.model_validate(self._create("/v1/datasets/import", body))

    def datasets(self) -> Iterator[Dataset]:
        """Every data set, newest first."""
        return map(Dataset.model_validate, self._pages("/v1/datasets"))

    def dataset(self, ref: str) -> Dataset:
        """By id or name."""
        return Dataset.model_validate(self._get(f"/v1/datasets/{segment(ref)}"))

    def delete_dataset(self, ref: str) -> None:
        self._transport.request("DELETE", f"/v1/datasets/{segment(ref)}")

    def wait_until_prepared(self, ref: str, *, timeout_seconds: float = 600.0) -> Dataset:
        """The data set once it is ready. Raises PreparationFailed or TimedOut."""
        deadline = time.monotonic() + timeout_seconds
        while (dataset := self.dataset(ref)).status == "preparing":
            if time.monotonic() > deadline:
                raise TimedOut(f"Dataset {ref} is still being prepared after {timeout_seconds:g} s.")
            time.sleep(POLL_SECONDS)
        if dataset.status == "failed":
            raise PreparationFailed(dataset.error.message if dataset.error else f"Dataset {ref} could not be prepared.")
        return dataset

    # Jobs

    def submit(
        self,
        dataset: str,
        *,
        model: str | None = None,
        preset: str | None = None,
        config: Mapping[str, Any] | None = None,
        budget: Mapping[str, float] | None = None,
        seed: int | None = None,
        initial: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job:
        """Submits a training job; everything but the data set has a default. `budget` is {"examples": n}, epochs or seconds;
        `initial` is the ref of a model to begin with.
        """
        body = without_none(
            dataset=dataset,
            model=model,
            preset=preset,
            config=config,
            budget=budget,
            seed=seed,
            initial=initial,
            priority=priority,
            metadata=metadata,
        )
        return Job.model_validate(self._create("/v1/jobs", body))

    def jobs(self, *, status: str | None = None, model: str | None = None, dataset: str | None = None) -> Iterator[Job]:
        """Jobs, newest first."""
        return map(
            Job.model_validate, self._pages("/v1/jobs", **without_none(status=status, model=model, dataset=dataset))
        )

    def job(self, job_id: str) -> Job:
        return Job.model_validate(self._get(f"/v1/jobs/{segment(job_id)}"))

    def cancel(self, job_id: str) -> Job:
        return self._order(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        return self._order(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        return self._order(job_id, "resume")

    def retry(self, job_id: str) -> Job:
        return self._order(job_id, "retry")

    def follow(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """A job's events as they happen, from the one after `after`, until the job has ended.

        A stream that breaks is taken up again after the last event that came, for as long as the service comes back.
        Raises ConnectionFailed when it does not.
        """
        path = f"/v1/jobs/{segment(job_id)}/events"
        while True:
            try:
                for message in self._transport.messages(path, after=after, silence_seconds=SILENCE_SECONDS):
                    event = Event.model_validate_json(message.data)
                    after = event.seq
                    yield event
            except ConnectionFailed:
                time.sleep(RECONNECT_SECONDS)
            # The server closes the stream of a job that has ended when all was sent. The request also tries, and in the
            # end gives up, to reach a service that has gone.
            if self.job(job_id).status in ENDED:
                yield from self._events(path, after)
                return

    def wait(self, job_id: str) -> Job:
        """The job once it succeeded. Raises JobFailed if it ended in any other way."""
        for _ in self.follow(job_id):
            pass
        job = self.job(job_id)
        if job.status != "succeeded":
            raise JobFailed(job)
        return job

    # Models and samples. A model is named by a ref: digits, digits:3, digits@prod, ckpt_..., job_... (its newest snapshot).

    def models(self) -> Iterator[Model]:
        return map(Model.model_validate, self._pages("/v1/models"))

    def model(self, ref: str) -> Snapshot:
        """What a ref means now."""
        return Snapshot.model_validate(self._get(f"/v1/models/{segment(ref)}"))

    def sample(
        self,
        model: str,
        seed: int,
        *,
        form: str = "png",
        label: str | None = None,
        truncation: float | None = None,
        scale: int | None = None,
    ) -> bytes:
        """One encoded sample: the same bytes for the same arguments. `form` is png, webp, jpg, avif or raw; `label` the name of
        a class.
        """
        path = f"/v1/models/{segment(model)}/samples/{seed}.{form}"
        return self._read(path, **{"class": label}, truncation=truncation, scale=scale)

    def grid(self, model: str, seeds: str, *, columns: int | None = None, label: str | None = None) -> bytes:
        """A PNG of many seeds, given as in "0-63"."""
        path = f"/v1/models/{segment(model)}/grid.png"
        return self._read(path, seeds=seeds, columns=columns, **{"class": label})

    def generate(self, model: str, *, accept: str = "image/png", **options: Any) -> bytes:
        """What `POST /v1/generations` makes of `n`, `seed`, `seeds`, `class`, `classes`, `truncation`, `format` and `layout`.

        `accept` decides the shape: image/png, image/webp (a picture or grid), application/zip, application/x-npz, application/json.
        """
        body = {"model": model, **options}
        return self._transport.request("POST", "/v1/generations", json=body, headers={"Accept": accept}).content

    def timelapse(self, job_id: str) -> bytes:
        """The grids of a job as an animated WebP."""
        return self._read(f"/v1/jobs/{segment(job_id)}/timelapse.webp")

    def download(self, model: str, path: str | os.PathLike[str]) -> Path:
        """Writes the model's safetensors file to `path`, which appears when it is whole and right. Goes on where it broke."""
        return self._transport.save(f"/v1/models/{segment(model)}/download", Path(path))

    # How

    def _get(self, path: str, **params: Any) -> Any:
        return self._transport.request("GET", path, params=params).json()

    def _read(self, path: str, **params: Any) -> bytes:
        return self._transport.request("GET", path, params=without_none(**params)).content

    def _create(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._transport.request("POST", path, json=body, headers=idempotency()).json()

    def _order(self, job_id: str, verb: str) -> Job:
        return Job.model_validate(self._transport.request("POST", f"/v1/jobs/{segment(job_id)}/{verb}").json())

    def _pages(self, path: str, **params: Any) -> Iterator[Any]:
        cursor: str | None = None
        while True:
            page = self._get(path, **params, **without_none(cursor=cursor))
            yield from page["data"]
            if (cursor := page["next_cursor"]) is None:
                return

    def _events(self, path: str, after: int) -> Iterator[Event]:
        position: str | None = str(after)
        while position is not None:
            page = self._get(path, after=position)
            yield from map(Event.model_validate, page["data"])
            position = page["next_cursor"]
