"""The child's part: the very bytes of single requests, in each container."""

import asyncio
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pyarrow import parquet

from app.formats import FORMATS
from app.http.addresses import Address
from app.registry import Resolved
from app.sampling import Sampler, Sent
from app.sampling.labels import of_seed
from app.sampling.seeds import parse_ranges
from app.settings import Settings
from app.storage import Storage
from tests.generators import store_generator
from worker.batch import making
from worker.batch.making import Plan, Stopped, make_shards
from worker.batch.samples import Maker, load

CLASSES = ("cat", "Käfer", "owl")
SEEDS = "5-80,9223372036854775807,0-2"  # more than one run, in shards that no run fits


class Single(NamedTuple):
    """What a request for one sample gives."""

    file: bytes
    pixels: np.ndarray
    label: int


class Models:
    """Two stored generators, and what single requests make of them."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder / "data")
        self.storage = Storage(self.settings.storage_url)
        self.cats = store_generator(self.storage, folder, "cats", channels=3, classes=CLASSES)
        self.ink = store_generator(self.storage, folder, "ink", family="mlp", seed=1)

    def single(self, resolved: Resolved, seed: int, label: int | None, truncation: float, name: str) -> Single:
        async def ask() -> Single:
            with closing(Sampler(self.settings, self.storage)) as sampler:
                labels = None if label is None else [label]
                made = await sampler.generate(resolved, [seed], labels, truncation)
                own = of_seed(resolved.info["classes"], seed, None) if label is None else label
                data = await Address(resolved, seed, own, truncation, FORMATS[name]).make(sampler, None, Sent())
                return Single(data, made.images[0], -1 if made.labels is None else made.labels[0])

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def make(models: Models, tmp_path: Path) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Makes shards in this process; what it tells of each, with its bytes."""
    with ThreadPoolExecutor(1) as forwards:

        def make_here(
            container: str,
            *,
            resolved: Resolved | None = None,
            seeds: str = SEEDS,
            name: str | None = "png",
            label: int | None = None,
            truncation: float = 1.0,
            first_shard: int = 0,
            stop: Callable[[], bool] = lambda: False,
        ) -> list[dict[str, Any]]:
            resolved = resolved or models.cats
            maker = maker_of(models, resolved, forwards, label=label, truncation=truncation, name=name)
            extension = maker.format.extension if maker.format else ""
            plan = Plan(
                parse_ranges(seeds, limit=1000), 33, first_shard, container, extension, resolved.info["classes"], 192
            )
            told: list[dict[str, Any]] = []

            def tell(**about: Any) -> None:
                path = tmp_path / about["path"]
                told.append(about | {"data": path.read_bytes()})
                path.unlink()

            make_shards(plan, maker, tmp_path / "shards", stop, tell)
            return told

        yield make_here


def maker_of(
    models: Models,
    resolved: Resolved,
    forwards: ThreadPoolExecutor,
    *,
    label: int | None,
    truncation: float,
    name: str | None,
) -> Maker:
    folder = models.storage.local_path(resolved.snapshot_key)
    assert folder is not None
    encoding = None if name is None else FORMATS[name]
    return load(folder, resolved, forwards, threads=1, label=label, truncation=truncation, format=encoding)


def tar_files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", list(FORMATS))
def test_tar_as_webdataset_reads_it(models: Models, make: Callable[..., Any], name: str) -> None:
    """Each sample is the file of its own address, with its seed and class beside it; shards follow the order of the seeds."""
    shards = make("tar", name=name, truncation=0.8)
    assert [(shard["index"], shard["samples"]) for shard in shards] == [(0, 33), (1, 33), (2, 14)]
    files = [tar_files(shard["data"]) for shard in shards]
    extension = FORMATS[name].extension
    stems = [path.partition(".")[0] for shard in files for path in shard]
    listed = [str(seed) for each in parse_ranges(SEEDS, limit=1000) for seed in each]
    assert stems == [stem for stem in listed for _ in range(2)]
    for seed in (5, 69, 80, 2**63 - 1, 2):
        (shard,) = (shard for shard in files if f"{seed}.json" in shard)
        alone = models.single(models.cats, seed, None, 0.8, name)
        assert shard[f"{seed}.{extension}"] == alone.file
        about = json.loads(shard[f"{seed}.json"])
        assert about == {"seed": seed, "class": CLASSES[alone.label], "label": alone.label}


def test_the_same_bytes_again(make: Callable[..., Any]) -> None:
    """A shard does not depend on when it is made, nor on what is made before it."""
    whole = make("tar")
    (last,) = make("tar", first_shard=2)
    same = ("index", "data", "sha256", "size", "body", "engine", "encoder")
    assert [last[part] for part in same] == [whole[2][part] for part in same]


def test_zip(models: Models, make: Callable[..., Any]) -> None:
    """The files, and a line of JSON for each."""
    _, shard, _ = make("zip", label=1)
    with zipfile.ZipFile(io.BytesIO(shard["data"])) as archive:
        lines = [json.loads(line) for line in archive.read("samples-00001.jsonl").splitlines()]
        assert len(lines) == 33
        assert lines[0] == {"file": "38.png", "seed": 38, "class": "Käfer", "label": 1}
        assert archive.read("38.png") == models.single(models.cats, 38, 1, 1.0, "png").file


def test_npz(models: Models, make: Callable[..., Any]) -> None:
    """Pixels, seeds and classes, readable without pickle."""
    *_, shard = make("npz", name=None)
    arrays = np.load(io.BytesIO(shard["data"]), allow_pickle=False)
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "images": ((14, 8, 8, 3), np.uint8),
        "seeds": ((14,), np.int64),
        "classes": ((14,), np.int64),
    }
    assert arrays["seeds"].tolist() == [*range(71, 81), 2**63 - 1, 0, 1, 2]
    alone = models.single(models.cats, 2**63 - 1, None, 1.0, "png")
    assert np.array_equal(arrays["images"][10], alone.pixels)
    assert arrays["classes"][10] == alone.label
    *_, gray = make("npz", name=None, resolved=models.ink)
    arrays = np.load(io.BytesIO(gray["data"]))
    assert (arrays["images"].shape, set(arrays["classes"].tolist())) == ((14, 8, 8, 1), {-1})


def test_parquet(models: Models, make: Callable[..., Any]) -> None:
    """Rows with the file, and nulls for what a model without classes does not know; the same bytes again."""
    shards = make("parquet", name="webp", resolved=models.ink)
    rows = [row for shard in shards for row in parquet.read_table(io.BytesIO(shard["data"])).to_pylist()]
    assert len(rows) == 80
    alone = models.single(models.ink, 7, None, 1.0, "webp")
    assert rows[2] == {"image": {"bytes": alone.file, "path": "7.webp"}, "seed": 7, "label": None, "class": None}
    again = make("parquet", name="webp", resolved=models.ink)
    assert [shard["sha256"] for shard in again] == [shard["sha256"] for shard in shards]
    (first, *_) = make("parquet")
    row = parquet.read_table(io.BytesIO(first["data"])).to_pylist()[0]
    assert row["class"] == CLASSES[row["label"]]


@pytest.mark.parametrize("container", ["tar", "zip"])
def test_seeds_that_come_twice(make: Callable[..., Any], container: str) -> None:
    """Each time they have a name of their own, which begins with the place."""
    (shard,) = make(container, seeds="7,7,6-8")
    names = [*tar_files(shard["data"])] if container == "tar" else zipfile.ZipFile(io.BytesIO(shard["data"])).namelist()
    pictures = [name for name in names if name.endswith(".png")]
    assert pictures == ["0000000-7.png", "0000001-7.png", "0000002-6.png", "0000003-7.png", "0000004-8.png"]


def test_it_stops_between_runs(make: Callable[..., Any]) -> None:
    """When it is asked to, it makes no further shard."""
    with pytest.raises(Stopped):
        make("tar", stop=lambda: True)


def test_it_waits_for_its_worker(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While so many shards are not taken away, no other is written."""
    monkeypatch.setattr(making, "UNSHIPPED", 2)
    told: list[int] = []
    with ThreadPoolExecutor(1) as forwards:
        maker = maker_of(models, models.ink, forwards, label=None, truncation=1.0, name="png")
        plan = Plan(parse_ranges("0-99", limit=100), 10, 0, "tar", "png", (), 64)

        def stop() -> bool:
            return len(told) == 2 and len(list((tmp_path / "shards").iterdir())) == 2

        with pytest.raises(Stopped):
            make_shards(plan, maker, tmp_path / "shards", stop, lambda **about: told.append(about["index"]))
    assert told == [0, 1]
