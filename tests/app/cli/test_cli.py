"""The command line, as its own process, against a real service."""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.cli.remote import parse_seeds
from tests.app.cli.commands import ganvil
from tests.source import HOUSE


def test_train_follows_to_the_end_and_samples_come_down(live_service: str, tmp_path: Path) -> None:
    """`train` prints progress line by line where there is no terminal; `sample` then writes one file for each seed."""
    trained = ganvil("train", "digits", "--model", "by-cli", "--examples", "1000", "--seed", "1", url=live_service)
    assert trained.returncode == 0, trained.stderr
    assert "succeeded" in trained.stdout
    assert "loss G" in trained.stdout
    assert "Preset fast: 1,797 images of 32 x 32 with 10 classes, and no GPU" in trained.stdout
    assert "\x1b" not in trained.stdout
    sampled = ganvil(
        "sample", "by-cli", "--seeds", "3-5", "--class", "7", "--output", "out", cwd=tmp_path, url=live_service
    )
    assert sampled.returncode == 0, sampled.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["3.png", "4.png", "5.png"]
    with Image.open(tmp_path / "out" / "3.png") as image:
        assert image.format == "PNG"
    asked = ("--seeds", "3", "--format", "jpeg", "--truncation", "0.5", "--scale", "2", "--output", "out")
    sampled = ganvil("sample", "by-cli", *asked, cwd=tmp_path, url=live_service)
    assert sampled.returncode == 0, sampled.stderr
    address = f"{live_service}/v1/models/by-cli/samples/3.jpg"
    own = httpx.get(address, params={"truncation": 0.5, "scale": 2}).content
    assert (tmp_path / "out" / "3.jpg").read_bytes() == own
    assert "by-cli:1" in ganvil("models", url=live_service).stdout
    assert re.search(r"^job_\w{10,}  .*by-cli", ganvil("jobs", url=live_service).stdout, re.MULTILINE)
    assert re.search(r"^digits  .*  1,797  ", ganvil("datasets", url=live_service).stdout, re.MULTILINE)


def test_train_begins_with_a_model(live_service: str) -> None:
    """`--initial` names one; one that is not there is refused by name."""
    for more in ((), ("--initial", "begun")):
        trained = ganvil("train", "digits", "--model", "begun", "--examples", "64", *more, url=live_service)
        assert trained.returncode == 0, trained.stderr
    newest = next(job for job in httpx.get(f"{live_service}/v1/jobs").json()["data"] if job["model"] == "begun")
    assert newest["initial"] == "begun:1"
    assert "letters" in ganvil("train", "digits", "--initial", "letters", url=live_service).stderr


def test_refused_request_is_one_clear_message(live_service: str) -> None:
    """An error of the service ends the command with its detail and status 1, without a traceback."""
    refused = ganvil("train", "no-such-data", url=live_service)
    assert refused.returncode == 1
    assert refused.stderr.count("no-such-data") == 1
    assert "ganvil datasets" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        (("sample", "digits", "--truncation", "2"), "truncation: "),
        (("batch", "create", "digits", "--count", "1", "--shard-size", "100000"), "shard-size: "),
        (("follow", "job_nosuch"), "There is no job 'job_nosuch': ganvil jobs lists "),
    ],
)
def test_a_refusal_speaks_of_options(live_service: str, arguments: tuple[str, ...], begin: str) -> None:
    """What the service calls by a pointer, or finds by a request, has the name that it has here."""
    assert ganvil(*arguments, url=live_service).stderr.startswith(begin)


def test_url_needs_no_scheme(live_service: str) -> None:
    """An address alone is taken for http."""
    listed = ganvil("datasets", url=live_service.removeprefix("http://"))
    assert "digits" in listed.stdout, listed.stderr


def test_folder_is_to_be_zipped_first(live_service: str, tmp_path: Path) -> None:
    """A folder is not an archive: the message says what to do with it."""
    (tmp_path / "flowers").mkdir()
    refused = ganvil("train", "flowers", cwd=tmp_path, url=live_service)
    assert refused.returncode == 1
    assert "Zip the folder first" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "no-such.zip"), "There is no such file: no-such.zip"),
        (("sample", "digits", "--output", "README.md"), "README.md is a file"),
        (("demo", "--output", "README.md"), "README.md is a file"),
        (("up", "--data", "README.md"), "README.md is a file"),
        (("up", "--data", "/proc/x"), "The directory /proc/x cannot be made"),
    ],
)
def test_unusable_path_is_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    """A path that cannot be read or written to is named, before anything is asked of a service."""
    refused = ganvil(*arguments)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_absent_service_is_one_clear_message() -> None:
    """Without a service the command says which address does not answer."""
    refused = ganvil("jobs")
    assert refused.returncode == 1
    assert "No answer from http://127.0.0.1:1" in refused.stderr
    assert "is `ganvil up` running there?" in refused.stderr


def test_key_is_fresh_and_long() -> None:
    """`key` prints a new random key each time, fit for a header."""
    first, second = ganvil("key").stdout.strip(), ganvil("key").stdout.strip()
    assert first != second
    assert len(first) >= 40
    assert first.isascii()


def test_version_is_the_package_s() -> None:
    """`version` and `--version` print what pyproject.toml says."""
    version = ganvil("version").stdout.strip()
    assert ganvil("--version").stdout.strip() == version
    assert f'version = "{version}"' in (HOUSE / "pyproject.toml").read_text()


def test_command_line_starts_without_torch() -> None:
    """Even `--help` of a command that trains must come at once: torch stays out."""
    program = "import sys, app.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=HOUSE, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(("text", "seeds"), [("7", range(7, 8)), ("0-3", range(4)), ("5-5", range(5, 6))])
def test_seeds_are_a_number_or_a_range(text: str, seeds: range) -> None:
    """A range names its first and its last seed."""
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "3-", "-3", "1,2", "5-1"])
def test_other_seeds_are_refused(text: str) -> None:
    """Anything else is a usage error that says what seeds look like, not a crash."""
    refused = ganvil("sample", "digits", "--seeds", text)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_a_job_can_be_followed_again_and_ended(live_service: str) -> None:
    """`follow` shows a job by its id from any terminal, also when it has ended, as `jobs` and `cancel` leave it."""
    dataset = httpx.get(f"{live_service}/v1/datasets/digits").json()["id"]
    request = {"dataset": dataset, "model": "endless", "budget": {"examples": 10**9}}
    job = httpx.post(f"{live_service}/v1/jobs", json=request).json()["id"]
    assert ganvil("cancel", job, url=live_service).returncode == 0
    followed = ganvil("follow", job, url=live_service)
    assert followed.returncode == 1
    assert "cancelled" in followed.stderr
    assert re.search(rf"^{job}  cancelled .* 0%  ", ganvil("jobs", url=live_service).stdout, re.MULTILINE)


def test_what_was_left_out_of_a_data_set_is_said(live_service: str, tmp_path: Path) -> None:
    """`train` says how many files of an archive were left out, and `datasets` why one failed."""
    with zipfile.ZipFile(tmp_path / "mixed.zip", "w") as archive:
        for number in range(20):
            picture = io.BytesIO()
            Image.new("L", (8, 8), number).save(picture, "PNG")
            archive.writestr(f"a/{number}.png", picture.getvalue())
        archive.writestr("a/broken.png", picture.getvalue()[:40])
    trained = ganvil("train", "mixed.zip", "--examples", "64", cwd=tmp_path, url=live_service)
    assert trained.returncode == 0, trained.stderr
    assert "Files left out: 1, such as a/broken.png" in trained.stdout
    (tmp_path / "bad.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    refused = ganvil("train", "bad.zip", cwd=tmp_path, url=live_service)
    assert refused.returncode == 1
    (row,) = [line for line in ganvil("datasets", url=live_service).stdout.splitlines() if line.startswith("bad ")]
    assert refused.stderr.strip() in row
