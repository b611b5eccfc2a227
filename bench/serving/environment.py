"""A virtual environment for the peers, so that what they need touches nothing of ours. Made once, kept in the cache."""

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch

HOUSE = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("peers") / "requirements.txt"


class NoPeers(Exception):
    """The environment could not be made."""


def peers_python(cache: Path) -> Path:
    """The interpreter of the environment, which is made if it is not there or for other versions. Raises NoPeers."""
    folder = cache / "peers-venv"
    python, stamp = folder / "bin" / "python", folder / "made-for"
    made_for = hashlib.sha256(REQUIREMENTS.read_bytes() + torch.__version__.encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != made_for:
        print(f"Making {folder} for the peers; this takes a minute.", file=sys.stderr)
        _call(sys.executable, "-m", "venv", "--clear", str(folder))
        _call(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS))
        _lend_torch(folder)
        stamp.write_text(made_for)
    return python


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPeers(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")


def _lend_torch(folder: Path) -> None:
    """PyTorch is this project's own: its site-packages come after those of the environment."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / "lib" / version / "site-packages"
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")


def environment(threads: int) -> dict[str, str]:
    """Of every server alike: the same threads, our code to import, no one to report to."""
    paths = [str(HOUSE), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
    }
