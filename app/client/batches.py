"""The client's calls for batches."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.client.errors import ClientError, TimedOut
from app.client.transport import Transport, idempotency, segment, without_none
from app.schemas.batches import Batch, BatchManifest

ENDED = frozenset({"succeeded", "failed", "cancelled"})
POLL_SECONDS = 0.3


class BatchFailed(ClientError):
    """A batch that was waited for ended without an archive; `batch` says how."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(f"Batch {batch.id}: {batch.error.message if batch.error else f'it was {batch.status}'}")
        self.batch = batch


class BatchCalls:
    """A part of `app.client.Client`."""

    _transport: Transport

    def create_batch(
        self,
        model: str,
        seeds: Sequence[int] | str,
        *,
        label: str | None = None,
        truncation: float | None = None,
        form: str | None = None,
        container: str | None = None,
        shard_size: int | None = None,
    ) -> Batch:
        """Has the samples of seeds, a list or text such as "0-49999", made in the background; `container` is tar, zip, npz or parquet."""
        body = without_none(
            **{"class": label},
            model=model,
            seeds=seeds if isinstance(seeds, str) else list(seeds),
            truncation=truncation,
            format=form,
            container=container,
            shard_size=shard_size,
        )
        response = self._transport.request("POST", "/v1/batches", json=body, headers=idempotency())
        return Batch.model_validate(response.json())

    def batches(self, *, status: str | None = None) -> Iterator[Batch]:
        """Batches, newest first."""
        cursor: str | None = ""
        while cursor is not None:
            params = without_none(status=status, cursor=cursor or None)
            page = self._transport.request("GET", "/v1/batches", params=params).json()
            yield from map(Batch.model_validate, page["data"])
            cursor = page["next_cursor"]

    def batch(self, batch_id: str) -> Batch:
        return Batch.model_validate(self._batch("GET", batch_id))

    def cancel_batch(self, batch_id: str) -> Batch:
        return Batch.model_validate(self._batch("POST", batch_id, "/cancel"))

    def delete_batch(self, batch_id: str) -> None:
        self._transport.request("DELETE", f"/v1/batches/{segment(batch_id)}")

    def follow_batch(self, batch_id: str) -> Iterator[Batch]:
        """The batch as it is now, and again every moment until it has ended. Raises ConnectionFailed when the service is gone."""
        yield (batch := self.batch(batch_id))
        while batch.status not in ENDED:
            time.sleep(POLL_SECONDS)
            yield (batch := self.batch(batch.id))

    def wait_for_batch(self, batch_id: str, *, timeout_seconds: float = 86_400.0) -> Batch:
        """The batch once it has succeeded. Raises BatchFailed or TimedOut."""
        deadline = time.monotonic() + timeout_seconds
        for batch in self.follow_batch(batch_id):
            if batch.status not in ENDED and time.monotonic() > deadline:
                raise TimedOut(f"Batch {batch_id} is still being made after {timeout_seconds:g} s.")
        if batch.status != "succeeded":
            raise BatchFailed(batch)
        return batch

    def batch_manifest(self, batch_id: str) -> BatchManifest:
        """What is in it, to check its files by."""
        return BatchManifest.model_validate(self._batch("GET", batch_id, "/manifest"))

    def download_batch(self, batch_id: str, path: str | os.PathLike[str], *, shard: int | None = None) -> Path:
        """Writes the archive, or one shard of it, to `path`, which appears when it is whole and has its sha256.

        It goes on where the connection broke, also one that an earlier call made. Raises Damaged.
        """
        what = "archive" if shard is None else f"shards/{shard}"
        return self._transport.save(f"/v1/batches/{segment(batch_id)}/{what}", Path(path))

    def _batch(self, method: str, batch_id: str, verb: str = "") -> Any:
        return self._transport.request(method, f"/v1/batches/{segment(batch_id)}{verb}").json()
