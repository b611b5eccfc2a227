"""What generators give without a service."""

import json
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]


def test_the_bench_of_generators_runs() -> None:
    """It measures the one that is asked for, with and without encoding, and prints its JSON last."""
    command = [sys.executable, "-m", "bench.sampling", "--seconds", "0.05", "--only", "dcgan 32"]
    done = subprocess.run(command, cwd=HOUSE, check=True, capture_output=True, text=True)
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert row["name"] == "dcgan 32"
    assert min(row["generated"], row["encoded"]) > 0
    assert 0 < row["encoding_share"] < 1
