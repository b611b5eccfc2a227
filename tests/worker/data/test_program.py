"""The program: what it leaves behind when it finishes, fails, is stopped or killed, and what it costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.source import HOUSE
from tests.strategies import distinct, encode, gray, write_tar, write_zip
from tests.worker.preparing import events, leftovers, load, prepare_files, refusal, request, run, start
from worker.data.members import DataError
from worker.data.pool import Pool
from worker.data.prepare import prepare
from worker.data.progress import Progress

RNG = np.random.default_rng(5)


def few(count=6, side=8):
    return {f"{number % 2}/{number}.png": data for number, data in enumerate(distinct(count, side))}


def nothing_to_do():
    pass


def test_digits(tmp_path):
    """The builtin digits come in 32 x 32 by default and in their own 8 x 8 when asked; ten classes, 1,797 examples."""
    for resolution, side in ((None, 32), (8, 8)):
        options = {"resolution": resolution, "fit": "crop"}
        document = {"source": {"kind": "builtin", "name": "digits"}, "options": options}
        (tmp_path / "prepare.json").write_text(json.dumps(document), encoding="utf-8")
        prepare(tmp_path, 1, Progress(lambda _done, _total: None, lambda: False))
        found = load(tmp_path)
        assert found.examples.shape == (1797, side, side, 1)
        assert found.classes == list("0123456789")
    images, labels = load_digits(return_X_y=True)
    order = np.argsort(labels, kind="stable")
    assert np.array_equal(found.labels, labels[order])
    assert np.array_equal(found.examples.reshape(1797, 64), np.rint(images[order] * 255 / 16))


def test_unknown_source_is_refused(tmp_path, capfd):
    """A source that is neither an archive nor a builtin data set is refused, in the log and for whoever runs it by hand."""
    (tmp_path / "prepare.json").write_text('{"source": {"kind": "builtin", "name": "letters"}}', encoding="utf-8")
    assert run(tmp_path) == 1
    told = events(tmp_path)[-1]["data"]
    assert told["code"] == "unknown_source"
    assert capfd.readouterr().err == f"{told['message']}\n"


def test_processes_and_order_change_nothing(tmp_path):
    """One process or three, a zip or a shuffled tar: the same bytes, and so the same digest."""
    files = few(900)
    shuffled = {name: files[name] for name in RNG.permutation(list(files))}
    archives = [write_zip(tmp_path / "upload.zip", files), write_tar(tmp_path / "upload.tgz", shuffled, "w:gz")]
    found = []
    for number, (archive, processes) in enumerate([(archives[0], 1), (archives[0], 3), (archives[1], 2)]):
        directory = tmp_path / str(number)
        request(directory, archive)
        assert run(directory, "--processes", str(processes)) == 0
        found.append(load(directory))
        assert leftovers(directory) == {
            "examples.npy",
            "labels.npy",
            "dataset.json",
        }  # nothing tells these classes apart
    assert len({prepared.document["sha256"] for prepared in found}) == 1
    assert all(np.array_equal(prepared.examples, found[0].examples) for prepared in found)
    assert found[0].document["examples"] == 900


def test_digest_is_of_pixels_and_labels(tmp_path):
    """The digest changes with a pixel, a label and a class's name, and not with a file's name or format."""
    base = {"a/1.png": gray(1), "b/2.png": gray(2)}
    variants = {
        "same": {"a/x.bmp": encode(np.full((8, 8), 1, np.uint8), "BMP"), "b/2.png": gray(2)},
        "pixel": {"a/1.png": gray(3), "b/2.png": gray(2)},
        "class": {"a/1.png": gray(1), "c/2.png": gray(2)},
        "label": {"1.png": gray(1), "2.png": gray(2)},
    }
    digest = prepare_files(tmp_path, base).document["sha256"]
    digests = {name: prepare_files(tmp_path, files).document["sha256"] for name, files in variants.items()}
    assert digests.pop("same") == digest
    assert len({digest, *digests.values()}) == 4


def test_duplicates_are_counted_by_pixels(tmp_path):
    """Images with the same pixels are duplicates, whatever their names, formats and classes; they stay."""
    same = np.full((8, 8), 7, np.uint8)
    found = prepare_files(tmp_path, {"a/1.png": encode(same), "a/2.bmp": encode(same, "BMP"), "b/3.png": encode(same)})
    assert (found.report["duplicates"], len(found.examples)) == (2, 3)


def test_corrupt_images_are_left_out_up_to_a_tenth(tmp_path):
    """Ten of a hundred may be corrupt, by their header or their pixels: they are listed, and the others stay in order."""
    images = distinct(100)
    broken = {
        number: data[:40] if number % 20 else data[:-30] for number, data in enumerate(images) if number % 10 == 0
    }
    files = {f"{number % 3}/{number}.png": broken.get(number, data) for number, data in enumerate(images)}
    found = prepare_files(tmp_path, files)
    whole = prepare_files(tmp_path, {name: data for name, data in files.items() if int(Path(name).stem) not in broken})
    assert found.document["sha256"] == whole.document["sha256"]
    assert {int(Path(entry["file"]).stem) for entry in found.report["skipped"]} == set(broken)
    assert found.report["skipped_total"] == 10


def test_more_corrupt_images_fail(tmp_path):
    """Eleven of a hundred are too many; the message says how the first of them are broken."""
    files = {f"{number}.png": data[:40] if number % 9 == 0 else data for number, data in enumerate(distinct(97))}
    error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", files))
    assert error.code == "corrupt_images"
    assert "'0.png': it is damaged" in error.message


def test_class_without_a_sound_image_is_gone(tmp_path):
    """A class of which nothing is left does not keep a label."""
    files = {**few(20), "1x/broken.png": gray(1)[:-30], "zebra/1.png": gray(77)}
    found = prepare_files(tmp_path, files)
    assert found.classes == ["0", "1", "zebra"]
    assert found.labels.tolist() == [0] * 10 + [1] * 10 + [2]


@pytest.mark.parametrize(
    ("arrays", "channels", "conversions"),
    [
        ([np.zeros((8, 8)), np.ones((8, 8))], 1, {}),
        ([np.zeros((8, 8, 3)), np.ones((8, 8, 3))], 1, {"rgb_as_gray": 2}),
        ([np.zeros((8, 8)), np.arange(192).reshape(8, 8, 3)], 3, {"gray_as_rgb": 1}),
        ([np.full((8, 8, 4), 255), np.arange(256).reshape(8, 8, 4)], 4, {}),
        ([np.full((8, 8, 4), 255), np.full((8, 8, 4), 255)], 1, {}),
        (
            [np.full((8, 8, 4), 255), np.full((8, 8, 4), 255), np.arange(256).reshape(8, 8, 4)],
            3,
            {"alpha_over_white": 1},
        ),
        ([np.arange(256).reshape(8, 8, 4), np.arange(192).reshape(8, 8, 3)], 3, {"alpha_over_white": 1}),
    ],
)
def test_channels_are_those_that_the_pixels_need(tmp_path, arrays, channels, conversions):
    """Four if all have alpha and half use it, else one if all pixels are gray, else three; the report says what that changed."""
    found = prepare_files(tmp_path, {f"{n}.png": encode(array.astype(np.uint8)) for n, array in enumerate(arrays)})
    assert found.examples.shape[3] == found.document["channels"] == channels
    assert found.report["conversions"] == conversions


def test_narrowed_alpha_is_over_white(tmp_path):
    """Alpha that too few images use is laid over white after the fact, with the same result as before it."""
    array = RNG.integers(0, 256, (8, 8, 4)).astype(np.uint8)
    opaque = np.full((8, 8, 4), 255, np.uint8)
    found = prepare_files(tmp_path, {"0.png": encode(array), "1.png": encode(opaque), "2.png": encode(opaque)})
    share = array[..., 3:] / 255
    assert np.abs(found.examples[0] - (array[..., :3] * share + 255 * (1 - share))).max() <= 0.5


LIMITED = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); from worker.data.__main__ import main"


@pytest.mark.parametrize("kilobytes", [4, 300])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_full_disk_is_a_clear_failure(tmp_path, kilobytes, kind):
    """When the disk takes no more, be it the index, the unpacked tar or the examples, nothing is left but the reason."""
    archive = tmp_path / "upload"
    files = few(40, 128)
    write_zip(archive, files) if kind == "zip" else write_tar(archive, files, "w:gz")
    request(tmp_path / "p", archive)
    program = f"{LIMITED}; sys.exit(main([sys.argv[2], '--processes', '1']))"
    command = [sys.executable, "-c", program, str(1024 * kilobytes), str(tmp_path / "p")]
    assert subprocess.run(command, cwd=HOUSE, timeout=60, check=False).returncode == 1
    assert events(tmp_path / "p")[-1]["data"]["code"] == "disk_full"
    assert leftovers(tmp_path / "p") == set()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A zip that takes several seconds."""
    images = [encode(RNG.integers(0, 256, (512, 512, 3)).astype(np.uint8), compress_level=1)] * 300
    return write_zip(
        tmp_path_factory.mktemp("large") / "upload.zip", {f"{n}.png": data for n, data in enumerate(images)}, 0
    )


def wait_for_images(directory):
    deadline = time.monotonic() + 30
    while not any(event["data"].get("done", 0) > 0 for event in events(directory)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def session_members(session):
    """Process ids of a session, zombies not counted."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                members.append(int(entry.name))
    return members


@pytest.mark.parametrize("how", ["pipe", signal.SIGTERM, signal.SIGINT])
def test_stopping(tmp_path, large, how):
    """It stops within a second or two when its pipe closes or a signal comes, with exit status 0 and nothing left behind."""
    request(tmp_path, large)
    read_end, write_end = os.pipe()
    with start(tmp_path, "--stop-fd", str(read_end), "--processes", "2", pass_fds=[read_end]) as process:
        os.close(read_end)
        wait_for_images(tmp_path)
        asked_at = time.monotonic()
        os.close(write_end) if how == "pipe" else process.send_signal(how)
        assert process.wait(20) == 0
        assert time.monotonic() - asked_at < 5
        if how != "pipe":
            os.close(write_end)
    assert events(tmp_path)[-1]["kind"] == "stopped"
    assert leftovers(tmp_path) == set()


def test_killing_leaves_no_process(tmp_path, large):
    """When it is killed outright, the processes that decode for it end with it."""
    request(tmp_path, large)
    with start(tmp_path, "--processes", "2", stderr=subprocess.DEVNULL) as process:
        wait_for_images(tmp_path)
        process.kill()
    deadline = time.monotonic() + 20
    while session_members(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run_again(tmp_path) == {"examples.npy", "labels.npy", "dataset.json"}


def run_again(directory):
    request(directory, write_zip(directory.parent / "small.zip", few()))
    assert run(directory) == 0
    return leftovers(directory)


def test_progress_comes_every_second(tmp_path, large):
    """While it works it says how far it is, at least once a second and never backwards."""
    request(tmp_path, large)
    assert run(tmp_path) == 0
    told = events(tmp_path)
    gaps = np.diff([0.0, *(event["elapsed_seconds"] for event in told)])
    done = [event["data"]["done"] for event in told if event["kind"] == "progress"]
    assert told[-1]["kind"] == "finished"
    assert done == sorted(done)
    assert len(done) >= 2  # at the start, and on the way
    assert gaps.max() < 2  # twice the promise: other tests run beside this one


def test_a_decoder_that_dies_is_a_failure():
    """A process that is killed while it decodes fails the preparation with a code of its own."""
    with pytest.raises(DataError) as caught, Pool(2) as pool:
        list(pool.map(os._exit, [3, 3], nothing_to_do))
    assert caught.value.code == "decoder_died"


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Nine times as many images take at most a few megabytes more."""
    peaks = []
    for count in (1_000, 9_000):
        directory = tmp_path / str(count)
        image = gray(1, 16, 16)
        request(
            directory, write_zip(tmp_path / f"{count}.zip", {f"a folder/image {n}.png": image for n in range(count)})
        )
        process = start(directory, "--processes", "1")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 16
