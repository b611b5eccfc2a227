"""What is measured makes the right pictures."""

from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from app.main import create_app
from app.settings import Settings
from bench.serving import model
from bench.serving.contenders import CONTENDERS, OURS_ALONE, Contender, Site
from bench.serving.gate import Gate, GateFailed
from bench.serving.peers.pictures import Pictures, png
from models.manifest import WEIGHTS
from models.prepared import faster_precision
from tests.serving import serving

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    return Site(folder / "data", model.write_snapshot(folder / "snapshot"), "fp32", 1, None, folder)


def peer(pictures: Pictures, levels: int = 0) -> Contender:
    """A server by hand whose pictures are so many levels off."""
    (hand,) = (each for each in CONTENDERS if each.name == "by hand")

    def picture(_: httpx.Client, seed: int) -> bytes:
        (right,) = pictures.make([seed])
        return png((right.astype(int) + np.where(right < 128, levels, -levels)).astype(np.uint8))

    return replace(hand, picture=picture)


def test_the_generator_is_always_the_same(site: Site, tmp_path: Path) -> None:
    """Its weights are the same bytes each time, a tint makes others, and its pictures use the whole range."""
    again, tinted = model.write_snapshot(tmp_path / "again"), model.write_snapshot(tmp_path / "tinted", tint=0.01)
    weights = [(folder / WEIGHTS).read_bytes() for folder in (site.snapshot, again, tinted)]
    assert weights[0] == weights[1] != weights[2]
    images = Pictures(site.snapshot, "fp32").make(range(64))
    assert images.shape == (64, 32, 32, 3)
    assert (images.min(), images.max()) == (0, 255)
    assert 50 < images.std() < 110


def test_the_right_pictures_pass(site: Site) -> None:
    """Also when they are made with channels last in memory."""
    Gate(site).check(peer(Pictures(site.snapshot, "fp32 channels_last")), NOWHERE)


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 1), ("bf16 channels_last", 3)])
def test_other_pictures_do_not(site: Site, precision: str, levels: int) -> None:
    """In float32 one level everywhere is too much, in bfloat16 three on average; the server is named."""
    gate = Gate(replace(site, precision=precision))
    with pytest.raises(GateFailed, match="by hand gives seed 0 another picture"):
        gate.check(peer(Pictures(site.snapshot, "fp32"), levels), NOWHERE)


def test_the_service_passes(site: Site) -> None:
    """This service gives the bare generator's pictures, alone and among others, and answers 304 to what a client knows."""
    settings = Settings(data_dir=site.data)
    model.publish(settings, [site.snapshot], ["bench"])
    (known,) = (each for each in CONTENDERS if each.name == "ours, known")
    with serving(create_app(settings)) as http:
        address = str(http.base_url)
        OURS_ALONE.warm(address)
        Gate(replace(site, precision=faster_precision(torch.device("cpu")))).check(OURS_ALONE, address)
        line, *headers = known.requests(address)[5].decode().strip().split("\r\n")
        answer = http.get(line.split()[1], headers=dict(header.split(": ", 1) for header in headers))
        assert answer.status_code == 304
