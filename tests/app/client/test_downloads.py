"""Downloads that break: what passes between the client and a running service is cut, or spoilt, on its way."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from app.client import APIError, Client, ConnectionFailed, Damaged, transport
from app.schemas.batches import Batch
from tests.app.client.broken import Way
from tests.app.routes.gallery import gallery
from tests.servers import wait_until
from worker.batching import batch_next
from worker.service import Service

pytestmark = pytest.mark.usefixtures("impatient")


@dataclass(frozen=True)
class Site:
    """A running service with two batches that are made."""

    url: str
    cats: Batch
    ink: Batch


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (
        gallery(tmp_path_factory.mktemp("gallery"), trainer_threads=1) as (app, http),
        Client(str(http.base_url)) as client,
    ):
        ids = [client.create_batch(model, "0-39").id for model in ("cats", "ink")]
        service = Service(app.state.settings)
        with closing(service.database):
            while batch_next(service, {}):
                pass
        yield Site(str(http.base_url), *map(client.wait_for_batch, ids))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256_of(batch: Batch) -> str:
    assert batch.archive is not None
    return batch.archive.sha256


def break_off(site: Site, batch: Batch, target: Path, at: int) -> Path:
    """Has a download end after so many bytes, and gives what it left."""
    with Way(site.url, iter([at, *[0] * transport.ATTEMPTS])).client() as client, pytest.raises(ConnectionFailed):
        client.download_batch(batch.id, target)
    assert not target.exists()
    (part,) = target.parent.iterdir()
    assert part.stat().st_size == at
    return part


def test_a_cut_download_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    """Each further request asks for what is missing of the same file; more cuts than attempts do no harm while bytes come."""
    way = Way(site.url, iter([1000] * (transport.ATTEMPTS + 2)))
    with way.client() as client:
        path = client.download_batch(site.cats.id, tmp_path / "cats.tar")
    assert sha256(path) == sha256_of(site.cats)
    tag = f'"{sha256_of(site.cats)}"'
    ranges = [(f"bytes={1000 * n}-", tag) for n in range(1, transport.ATTEMPTS + 3)]
    assert way.asked == [(None, None), *ranges]
    assert [*tmp_path.iterdir()] == [path]


def test_the_last_attempt_counts_as_any_other(site: Site, tmp_path: Path) -> None:
    """Bytes that come after some empty answers start the count of attempts anew."""
    empty = [0] * (transport.ATTEMPTS - 1)
    with Way(site.url, iter([*empty, 1000, *empty])).client() as client:
        path = client.download_batch(site.cats.id, tmp_path / "cats.tar")
    assert sha256(path) == sha256_of(site.cats)


def test_what_an_earlier_call_left_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    """A later call asks for the rest alone, and nothing but the file stays."""
    target = tmp_path / "cats.tar"
    break_off(site, site.cats, target, 5000)
    way = Way(site.url)
    with way.client() as client:
        client.download_batch(site.cats.id, target)
    assert way.asked == [("bytes=4999-", f'"{sha256_of(site.cats)}"')]
    assert sha256(target) == sha256_of(site.cats)
    assert [*tmp_path.iterdir()] == [target]


def test_one_that_ended_just_before_its_file_appeared_is_finished(site: Site, tmp_path: Path) -> None:
    """What is left may be all of the file."""
    assert site.cats.archive is not None
    target = tmp_path / "cats.tar"
    part = break_off(site, site.cats, target, 5000)
    whole = httpx.get(f"{site.url}/v1/batches/{site.cats.id}/archive", trust_env=False).content
    part.write_bytes(whole)
    way = Way(site.url)
    with way.client() as client:
        client.download_batch(site.cats.id, target)
    assert way.asked[0][0] == f"bytes={site.cats.archive.size - 1}-"
    assert len(way.asked) == 1
    assert target.read_bytes() == whole


def test_a_file_that_is_another_by_now_starts_again(site: Site, tmp_path: Path) -> None:
    """What is left of one archive is never continued with another: it goes, and all of the other comes."""
    target = tmp_path / "batch.tar"
    break_off(site, site.cats, target, 5000)
    with Client(site.url) as client:
        client.download_batch(site.ink.id, target)
    assert sha256(target) == sha256_of(site.ink)
    assert [*tmp_path.iterdir()] == [target]


def test_a_damaged_file_does_not_appear(site: Site, tmp_path: Path) -> None:
    """One wrong bit is an error; the file that was there stays, and nothing of the wrong one."""
    target = tmp_path / "cats.tar"
    target.write_bytes(b"before")
    way = Way(site.url, spoil=lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    with way.client() as client, pytest.raises(Damaged, match=sha256_of(site.cats)):
        client.download_batch(site.cats.id, target)
    assert target.read_bytes() == b"before"
    assert [*tmp_path.iterdir()] == [target]


def test_damage_in_what_is_left_is_found(site: Site, tmp_path: Path) -> None:
    """The sha256 is of the whole file, whichever call it came by; the call after that starts at the beginning."""
    target = tmp_path / "cats.tar"
    part = break_off(site, site.cats, target, 5000)
    part.write_bytes(bytes(5000))
    way = Way(site.url)
    with way.client() as client:
        with pytest.raises(Damaged):
            client.download_batch(site.cats.id, target)
        client.download_batch(site.cats.id, target)
    assert [asked for asked, _ in way.asked] == ["bytes=4999-", None]
    assert sha256(target) == sha256_of(site.cats)


def test_two_downloads_to_one_file_do_not_mix(site: Site, tmp_path: Path) -> None:
    """What another download is writing is not what it left: both end well."""
    target = tmp_path / "cats.tar"
    go_on = threading.Event()

    class Slow(Way):
        def __call__(self, handler: BaseHTTPRequestHandler, count: int) -> None:
            if count == 2:
                go_on.wait(20)
            super().__call__(handler, count)

    slow, quick = Slow(site.url, iter([5000])), Way(site.url)
    with slow.client() as first, quick.client() as second:
        thread = threading.Thread(target=first.download_batch, args=(site.cats.id, target))
        thread.start()
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()), seconds=20)
        second.download_batch(site.cats.id, target)
        assert sha256(target) == sha256_of(site.cats)
        assert len([*tmp_path.iterdir()]) == 2
        target.unlink()
        go_on.set()
        thread.join(20)
    assert quick.asked == [(None, None)]
    assert slow.asked[1][0] == "bytes=5000-"
    assert sha256(target) == sha256_of(site.cats)
    assert [*tmp_path.iterdir()] == [target]


def test_a_model_and_a_shard_come_the_same_way(site: Site, tmp_path: Path) -> None:
    """Whatever is downloaded goes on where it was cut, and is what the service says."""
    way = Way(site.url, iter([1000, 1000]))
    with way.client() as client, Client(site.url) as straight:
        model = client.download("cats", tmp_path / "cats.safetensors")
        found = straight.model("cats").model
        assert found is not None
        assert sha256(model) == found.versions[0].sha256
        assert [asked for asked, _ in way.asked] == [None, "bytes=1000-", "bytes=2000-"]
        way.cuts = iter([1000])
        shard = client.download_batch(site.ink.id, tmp_path / "0.tar", shard=0)
        assert sha256(shard) == straight.batch_manifest(site.ink.id).shards[0].sha256
    assert way.asked[-1][0] == "bytes=1000-"


def test_what_cannot_be_had_is_said(site: Site, tmp_path: Path) -> None:
    """An error is the service's own words, and leaves nothing; what is left of a batch that is gone goes too."""
    with Client(site.url) as client:
        waiting = client.create_batch("ink", "0-9")
        with pytest.raises(APIError, match="has no archive: it is queued"):
            client.download_batch(waiting.id, tmp_path / "ink.tar")
        assert [*tmp_path.iterdir()] == []
        break_off(site, site.ink, tmp_path / "ink.tar", 500)
        client.delete_batch(waiting.id)
        with pytest.raises(APIError, match="was deleted"):
            client.download_batch(waiting.id, tmp_path / "ink.tar")
        assert [*tmp_path.iterdir()] == []
