"""`ganvil demo`, as a person runs it, with a short budget."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.live import processes_with
from tests.servers import wait_until
from tests.source import HOUSE


def start_demo(output: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app.cli", "demo", "--output", str(output), "--budget-seconds", "4", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "DEMO_OF": str(output)}
    return subprocess.Popen(command, cwd=HOUSE, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.timeout(300)
def test_demo_makes_pictures_and_a_report_and_can_be_repeated(tmp_path: Path) -> None:
    """It exits 0 and leaves the three files and no process; a second demo on the same output makes version 2."""
    for version in (1, 2):
        with start_demo(tmp_path) as demo:
            wait_until(lambda: len(processes_with(f"DEMO_OF={tmp_path}")) > 1, seconds=60)
            said, complaint = demo.communicate(timeout=150)
        assert demo.returncode == 0, f"{said}\n{complaint}"
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["model"] == f"digits:{version}"
        assert report["job"]["status"] == "succeeded"
        assert report["job"]["progress"]["examples_per_second"] > 0
        assert all(url in said for url in (report["swagger"], report["images"][0]))
    with Image.open(tmp_path / "samples.png") as samples, Image.open(tmp_path / "timelapse.webp") as timelapse:
        assert samples.size == (676, 676)
        assert np.asarray(samples).std() > 0
        assert timelapse.n_frames > 1
    assert processes_with(f"DEMO_OF={tmp_path}") == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kept_demo_stays_up_until_interrupted(tmp_path: Path) -> None:
    """With --keep the image URLs give, after the demo, the first column of samples.png, until Ctrl-C ends it with status 0."""
    with start_demo(tmp_path, "--keep") as demo:
        wait_until(lambda: (tmp_path / "report.json").exists() or demo.poll() is not None, seconds=150)
        report = json.loads((tmp_path / "report.json").read_text())
        assert all(f"truncation={report['truncation']}" in url for url in report["images"])
        with Image.open(tmp_path / "samples.png") as samples:
            column = np.asarray(samples)[:, :64:2]
        for row, url in enumerate(report["images"]):
            with Image.open(io.BytesIO(httpx.get(url).raise_for_status().content)) as image:
                assert np.array_equal(np.asarray(image), column[row * 68 : row * 68 + 64 : 2])
        assert demo.stdout is not None
        while "Staying up" not in demo.stdout.readline():
            pass
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
    assert demo.returncode == 0
