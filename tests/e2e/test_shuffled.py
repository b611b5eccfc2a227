"""A seed is an address, over HTTP: thousands of requests in any order, to two processes at once, before and after a restart."""

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from app.db import Database
from app.settings import Settings
from app.storage import Storage
from app.up.redis_server import free_port
from tests.generators import publish_generator
from tests.servers import wait_until

LINES, NPZ, RAW, ZIP = "application/x-ndjson", "application/x-npz", "application/octet-stream", "application/zip"
KINDS = {"png": "png", "jpg": "jpeg", "webp": "webp", "raw": "raw"}  # extensions and what bodies call them
CLASSES = ["cat", "dog", "owl"]
SIZES = (1, 1, 1, 7, 7, 64)
SEEDS = 40  # different ones, so that each is met again and again
REQUESTS = 1_000  # in each of two waves
ABREAST = 24

Key = tuple[str, int, str | None, float, str]  # model, seed, class, truncation, extension


@dataclass(frozen=True)
class Wish:
    """What is asked of a server: `form` is a media type, or None for the sample's own address."""

    model: str
    seeds: tuple[int, ...]
    class_name: str | None
    truncation: float
    extension: str
    form: str | None

    def key(self, seed: int) -> Key:
        return self.model, seed, self.class_name, self.truncation, self.extension


def draw(dice: random.Random) -> Wish:
    model = dice.choice(["cats", "ink"])
    form = dice.choice([None, None, None, None, LINES, NPZ, RAW, ZIP])
    extension = "raw" if form in {NPZ, RAW} else dice.choice(list(KINDS))
    seeds = tuple(dice.randrange(SEEDS) for _ in range(1 if form is None else dice.choice(SIZES)))
    class_name = dice.choice([None, *CLASSES]) if model == "cats" else None
    return Wish(model, seeds, class_name, dice.choice([1.0, 0.5]), extension, form)


async def fetch(client: httpx.AsyncClient, wish: Wish) -> list[bytes]:
    """The file of each seed."""
    if wish.form is None:
        query = {"truncation": wish.truncation} | ({} if wish.class_name is None else {"class": wish.class_name})
        answer = await client.get(f"/v1/models/{wish.model}:1/samples/{wish.seeds[0]}.{wish.extension}", params=query)
    else:
        body = {"model": wish.model, "seeds": wish.seeds, "truncation": wish.truncation, "class": wish.class_name}
        if wish.form not in {NPZ, RAW}:
            body["format"] = KINDS[wish.extension]
        answer = await client.post("/v1/generations", json=body, headers={"Accept": wish.form})
    assert answer.status_code == 200, answer.text
    return [answer.content] if wish.form is None else read(wish, answer)


def read(wish: Wish, answer: httpx.Response) -> list[bytes]:
    """The files of an answer with many."""
    if wish.form == LINES:
        return [base64.b64decode(json.loads(line)["data"]) for line in answer.content.splitlines()]
    if wish.form == NPZ:
        return [image.tobytes() for image in np.load(io.BytesIO(answer.content))["images"]]
    if wish.form == RAW:
        size = len(answer.content) // len(wish.seeds)
        return [answer.content[begin : begin + size] for begin in range(0, len(answer.content), size)]
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    return [archive.read(entry["file"]) for entry in json.loads(archive.read("manifest.json"))["samples"]]


class Memory:
    """The bytes that each address gave when it was first met."""

    def __init__(self) -> None:
        self.first: dict[Key, str] = {}
        self.compared = 0

    def check(self, wish: Wish, files: list[bytes]) -> None:
        assert len(files) == len(wish.seeds)
        for seed, file in zip(wish.seeds, files, strict=True):
            digest = hashlib.sha256(file).hexdigest()
            known = self.first.setdefault(wish.key(seed), digest)
            assert known == digest, wish.key(seed)
            self.compared += 1


async def ask_all(urls: list[str], wishes: list[Wish], memory: Memory) -> None:
    """Each wish of whichever server is next, many at a time."""
    waiting = iter(wishes)

    async def one(client: httpx.AsyncClient) -> None:
        for wish in waiting:
            memory.check(wish, await fetch(client, wish))

    clients = [httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) for url in urls]
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(ABREAST):
                group.create_task(one(clients[number % len(clients)]))
    finally:
        for client in clients:
            await client.aclose()


@contextmanager
def process(settings: Settings) -> Iterator[str]:
    """An API process of its own on the data of these settings; its URL."""
    port = free_port("127.0.0.1")
    environment = os.environ | {
        "GANVIL_DATA_DIR": str(settings.data_dir),
        "GANVIL_PORT": str(port),
        "GANVIL_SAMPLER_QUEUE_IMAGES": "100000",  # on a slow machine too, nobody is refused
        "GANVIL_SAMPLER_WAIT_SECONDS": "60",
    }
    url = f"http://127.0.0.1:{port}"
    with (
        httpx.Client(base_url=url, trust_env=False) as client,
        subprocess.Popen([sys.executable, "-m", "app"], env=environment, stdout=subprocess.DEVNULL) as running,
    ):
        try:
            wait_until(lambda: client.get("/health/live").is_success, unless=httpx.TransportError)
            yield url
        finally:
            running.terminate()
            running.wait(20)


def test_thousands_of_shuffled_requests_give_each_seed_its_bytes(settings: Settings, tmp_path: Path) -> None:
    """In any company, form, order and process: the file of an address is the one that it was at first, in each format.

    Two API processes on the same data answer at once; one of them is started anew in between.
    """
    storage = Storage(settings.storage_url)
    with closing(Database(settings)) as database:
        database.migrate()
        publish_generator(database, storage, tmp_path, "cats", channels=3, classes=CLASSES)
        publish_generator(database, storage, tmp_path, "ink", family="mlp", seed=1)
    dice = random.Random(4)
    wishes = [draw(dice) for _ in range(REQUESTS)]
    memory = Memory()
    with process(settings) as lasting:
        for _ in range(2):
            with process(settings) as brief:
                asyncio.run(ask_all([lasting, brief], wishes, memory))
            dice.shuffle(wishes)
    assert memory.compared > 5 * len(memory.first)
