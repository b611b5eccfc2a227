"""A seed is an address: the same bytes through every door, in every company, before and after a restart."""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from app.formats import FORMATS
from app.registry import Resolved
from app.sampling import Encoding, Sampler, Seeds
from app.settings import Settings
from app.storage import Storage
from tests.generators import store_generator

SEEDS = [*range(30), 2**53 - 1, 2**53 + 1, 2**63 - 1]
PROGRAM = """
import asyncio, hashlib, json, sys
from app.formats import FORMATS
from app.registry import Resolved
from app.sampling import Encoding, Sampler, Seeds
from app.settings import Settings
from app.storage import Storage

def digests(files):
    return [hashlib.sha256(file).hexdigest() for file in files]

async def main(data_dir, seeds, models):
    settings = Settings(data_dir=data_dir)
    sampler = Sampler(settings, Storage(settings.storage_url))
    for model in models:
        resolved = Resolved(**model)
        for format in FORMATS.values():
            provenance = await sampler.provenance(resolved, format)
            encoding = Encoding(format, lambda row, label: provenance.of(seeds[row], str(label) if label else None, 1.0))
            made = await sampler.gather(resolved, Seeds.of(seeds), encoding)
            print(resolved.label, format.name, *digests(made.files))
        print(resolved.label, "etag", await sampler.etag(resolved, FORMATS["png"], seeds[-1], None, 1.0))
    sampler.close()

asyncio.run(main(*json.loads(sys.argv[1])))
"""


def in_a_new_process(settings: Settings, seeds: Sequence[int], models: Sequence[Resolved]) -> list[str]:
    argument = json.dumps([str(settings.data_dir), seeds, [vars(model) for model in models]])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.splitlines()


async def alone(sampler: Sampler, model: Resolved) -> list[list[str]]:
    """The words of the lines that a new process prints, from requests for one sample each."""
    lines = []
    for format_ in FORMATS.values():
        provenance = await sampler.provenance(model, format_)
        words = [model.label, format_.name]
        for seed in SEEDS:
            encoding = Encoding(
                format_, lambda _, label, s=seed, p=provenance: p.of(s, None if not label else str(label), 1.0)
            )
            made = await sampler.gather(model, Seeds.of([seed]), encoding)
            assert made.files is not None
            words.append(hashlib.sha256(made.files[0]).hexdigest())
        lines.append(words)
    return [*lines, [model.label, "etag", await sampler.etag(model, FORMATS["png"], SEEDS[0], None, 1.0)]]


def test_another_day_gives_the_same_files(settings: Settings, storage: Storage, tmp_path: Path) -> None:
    """Two families, every format: one sample at a time here, and after a restart in one batch, in another order."""
    models = [
        store_generator(storage, tmp_path, "dcgan", channels=4, classes=["cat", "dog"]),
        store_generator(storage, tmp_path, "mlp", family="mlp", channels=3),
    ]
    with closing(Sampler(settings, storage)) as sampler:
        here = [line for model in models for line in asyncio.run(alone(sampler, model))]
    there = [line.split() for line in in_a_new_process(settings, SEEDS[::-1], models[::-1])]
    by_name = {(label, kind): words[::-1] for label, kind, *words in there}
    assert {(label, kind): words for label, kind, *words in here} == by_name
