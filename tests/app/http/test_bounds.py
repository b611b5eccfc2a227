"""What the service takes on at once is bounded in bytes, over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.app.http.test_leaving import held
from tests.app.routes.gallery import gallery
from tests.servers import wait_until

SAMPLE = "/v1/models/cats:1/samples/1"


def test_large_pictures_are_refused_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After while others that are large are made; small ones are let in, and all when there is room."""
    large = f"{SAMPLE}.raw?scale=32"  # 196,608 bytes
    with gallery(tmp_path, sampler_queue_bytes=500_000) as (app, client), ThreadPoolExecutor(3) as beside:
        assert client.get(f"{SAMPLE}.png").status_code == 200  # it is loaded
        admission = app.state.sampler.admission
        with held(monkeypatch) as may_go:

            def ask(path: str) -> httpx.Response:
                return httpx.get(f"{client.base_url}{path}", timeout=30, trust_env=False)

            first = [beside.submit(ask, large) for _ in range(2)]
            wait_until(lambda: admission.waiting == 2, seconds=10)
            zipped = {"json": {"model": "cats", "n": 1, "scale": 32}, "headers": {"Accept": "application/zip"}}
            for busy in (client.get(large), client.post("/v1/generations", **zipped)):
                assert (busy.status_code, busy.json()["code"]) == (429, "busy")
                assert int(busy.headers["retry-after"]) >= 1
            small = beside.submit(ask, f"{SAMPLE}.png")
            wait_until(lambda: admission.waiting == 3, seconds=10)
            may_go.set()
            assert {answer.result().status_code for answer in [*first, small]} == {200}
        wait_until(lambda: admission.held_bytes == 0, seconds=10)
        assert client.get(large).status_code == 200
