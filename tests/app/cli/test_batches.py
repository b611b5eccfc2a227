"""The commands for batches, as processes of their own, against a real service with a worker."""

import hashlib
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from app.client import APIError, Client, transport
from tests.app.cli.commands import ganvil
from tests.app.client.broken import Way, broken_server

MODEL = "batched"


@pytest.fixture(scope="module")
def service(live_service: str) -> str:
    """The URL of a service with a conditional model."""
    trained = ganvil("train", "digits", "--model", MODEL, "--examples", "64", url=live_service)
    assert trained.returncode == 0, trained.stderr
    return live_service


def created(url: str, *options: str) -> str:
    """The id of a batch that was made."""
    done = ganvil("batch", "create", MODEL, *options, url=url)
    assert done.returncode == 0, done.stderr
    (batch_id,) = re.findall(r"^Batch (\S+)$", done.stdout, re.MULTILINE)
    assert "succeeded  " in done.stdout
    assert done.stdout.endswith(f": ganvil batch download {batch_id}\n")
    return batch_id


def test_from_create_to_file(service: str, tmp_path: Path) -> None:
    """`create` follows to the end; `download` writes what was asked for; `show`, `follow` and `batches` tell of it."""
    asked = ("--seeds", "3,5-8", "--class", "7", "--truncation", "0.5", "--format", "webp", "--shard-size", "3")
    batch_id = created(service, *asked, "--container", "zip")
    written = ganvil("batch", "download", batch_id, cwd=tmp_path, url=service)
    assert written.returncode == 0, written.stderr
    (path,) = tmp_path.iterdir()
    assert path.name == f"{batch_id}.zip"
    shown = dict(line.split(None, 1) for line in ganvil("batch", "show", batch_id, url=service).stdout.splitlines())
    assert shown["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert shown["done"] == "5 of 5, 100%"
    with zipfile.ZipFile(path) as archive, Client(service) as client:
        pictures = {name: archive.read(name) for name in archive.namelist() if name.endswith(".webp")}
        assert sorted(pictures) == [f"{seed}.webp" for seed in (3, 5, 6, 7, 8)]
        assert pictures["6.webp"] == client.sample(MODEL, 6, form="webp", label="7", truncation=0.5)
    followed = ganvil("batch", "follow", url=service)
    assert followed.stdout.startswith(f"Batch {batch_id}\nsucceeded  5 of 5"), followed.stderr
    assert re.search(
        rf"^{batch_id}  succeeded  {MODEL}:1 +5 +100% +zip ", ganvil("batches", url=service).stdout, re.MULTILINE
    )


def test_a_number_of_samples_and_one_shard_of_them(service: str, tmp_path: Path) -> None:
    """`--count` begins with seed 0; `--shard` and `--output` say what is written and where."""
    batch_id = created(service, "--count", "5", "--shard-size", "3")
    for number, output in ((1, "."), (0, "first.tar")):
        options = ("--shard", str(number), "--output", output)
        written = ganvil("batch", "download", *options, cwd=tmp_path, url=service)
        assert written.returncode == 0, written.stderr
    members = {}
    for path in tmp_path.iterdir():
        with tarfile.open(path) as archive:
            members[path.name] = [name for name in archive.getnames() if name.endswith(".png")]
    assert members == {"first.tar": ["0.png", "1.png", "2.png"], f"{batch_id}-00001.tar": ["3.png", "4.png"]}


def test_a_download_that_breaks_off_goes_on(service: str, tmp_path: Path) -> None:
    """The message has the command that goes on: it asks for the rest alone."""
    batch_id = created(service, "--count", "5")
    way = Way(service, iter([None, 1000, *[0] * transport.ATTEMPTS]))
    with broken_server(way) as url:
        broken = ganvil("batch", "download", cwd=tmp_path, url=url)
        assert broken.returncode == 1
        again = broken.stderr.rpartition("To go on: ganvil ")[2].split()
        written = ganvil(*again, cwd=tmp_path, url=url)
    assert written.returncode == 0, written.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{batch_id}.tar"]
    assert way.asked[-1][0] == "bytes=999-"


def test_a_batch_is_ended_and_deleted(service: str) -> None:
    """`cancel` ends one, whose follower is told; `delete` takes it away."""
    with Client(service) as client:
        batch_id = client.create_batch(MODEL, "0-999999").id
        cancelled = ganvil("batch", "cancel", batch_id, url=service)
        assert re.search(r"is (cancelled|to end)", cancelled.stdout), cancelled.stderr
        followed = ganvil("batch", "follow", batch_id, url=service)
        assert (followed.returncode, followed.stderr) == (1, "The batch is cancelled.\n")
        assert ganvil("batch", "delete", batch_id, url=service).returncode == 0
        with pytest.raises(APIError, match="was deleted"):
            client.batch(batch_id)
    assert batch_id not in ganvil("batches", url=service).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "no-such-model", "--count", "1"), "no-such-model"),
        (("create", MODEL, "--seeds", "5-1"), "reversed"),
        (("create", MODEL, "--count", "1", "--class", "ten"), "ten"),
        (("create", MODEL, "--count", "1", "--container", "rar"), "container: "),
        (("show", "batch_nosuch"), "ganvil batches lists those that there are"),
        (("download", "batch_nosuch"), "batch_nosuch"),
    ],
)
def test_what_is_refused_is_said(service: str, arguments: tuple[str, ...], message: str) -> None:
    """What the service refuses ends the command with its reason, in the words of the command, and without a traceback."""
    refused = ganvil("batch", *arguments, url=service)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_place_that_cannot_be_written_to_is_said(service: str) -> None:
    """A folder that is not there ends the download in one line."""
    created(service, "--count", "1")
    refused = ganvil("batch", "download", "--output", "no-such-folder/batch.tar", url=service)
    assert refused.returncode == 1
    assert refused.stderr == "no-such-folder/batch.tar cannot be written: No such file or directory.\n"


@pytest.mark.parametrize("which", [(), ("--seeds", "0-9", "--count", "10")])
def test_seeds_are_asked_for_once(which: tuple[str, ...]) -> None:
    """A range or a number, and not both or neither: a usage error before anything is asked of a service."""
    refused = ganvil("batch", "create", MODEL, *which)
    assert refused.returncode == 2
    assert "--count" in refused.stderr
