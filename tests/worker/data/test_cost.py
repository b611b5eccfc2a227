"""What a small archive must not cost: time or memory beyond what its bytes are worth. Bounds on time are many times what it takes."""

import bz2
import gc
import gzip
import json
import lzma
import struct
import tarfile
import time
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from tests.strategies import gray, write_tar, write_zip
from tests.worker.preparing import prepare_archive, prepare_files, refusal
from worker.data.archives import open_archive
from worker.data.index import Index
from worker.data.layout import LONGEST_LINE, MOST_LABEL_BYTES, assign_classes
from worker.data.members import Limits, Member, Method
from worker.data.zips import IN_ZIP64, widen


@contextmanager
def at_most(*, cpu_seconds=None, mebibytes=None):
    """Fails when what is within takes more processor time or, at its peak, more memory of Python's."""
    gc.collect()
    if mebibytes:
        tracemalloc.start()
    start = time.process_time()
    try:
        yield
        if cpu_seconds:
            assert time.process_time() - start < cpu_seconds
        if mebibytes:
            assert tracemalloc.get_traced_memory()[1] < mebibytes * 2**20
    finally:
        tracemalloc.stop()


def nothing():
    pass


def pax(payload, kind=tarfile.XHDTYPE):
    """A pax header with these records."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(payload)
    return info.tobuf(tarfile.USTAR_FORMAT) + payload + bytes(-len(payload) % tarfile.BLOCKSIZE)


def with_headers(folder, headers):
    """A tar of two images, these headers before it."""
    path = write_tar(folder / "upload.tar", {"1.png": gray(1), "2.png": gray(2)})
    path.write_bytes(headers + path.read_bytes())
    return path


@pytest.mark.parametrize(
    "keys",
    [{f"k{number}": "v" for number in range(33)}, {"comment": "x" * 5000}],
    ids=["many", "long"],
)
def test_large_global_headers_are_refused(tmp_path, keys):
    """Global pax headers count for each member, so that a few keys are taken and not more."""
    archive = with_headers(tmp_path, tarfile.TarInfo.create_pax_global_header(keys))
    error = refusal(tmp_path, archive)
    assert (error.code, "--format=gnu" in error.message) == ("large_headers", True)


def test_global_headers_of_honest_tools_are_read(tmp_path):
    """The comment that git writes, and a handful of keys."""
    keys = {"comment": "0123456789" * 4} | {f"k{number}": "v" for number in range(20)}
    archive = with_headers(tmp_path, tarfile.TarInfo.create_pax_global_header(keys))
    assert len(prepare_archive(tmp_path, archive).examples) == 2


@pytest.mark.parametrize(
    "payload",
    [b"2 " * 40 + b"=\n", b"5 ab\n5 c=\n", b"12 a=b\n", b"2011 a=" + b"1" * 2003 + b"\n"],
    ids=["overlapping", "no value", "no end", "long number"],
)
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_pax_records_are_checked(tmp_path, payload, kind):
    """Records that overlap multiply, and long runs of digits take quadratic time; neither reaches tarfile."""
    assert refusal(tmp_path, with_headers(tmp_path, pax(payload, kind))).code == "corrupt_archive"


def test_headers_of_one_member_are_limited_together(tmp_path):
    """A chain of headers before one member, each of which copies those before it, is cut off."""
    assert refusal(tmp_path, with_headers(tmp_path, pax(b"9 k=vvvv\n" * 100) * 60)).code == "corrupt_archive"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_empty_streams_are_passed_with_ticks(tmp_path, pack):
    """A tar before thousands of compressed streams without content is read, and can be stopped in between."""
    ticks = []
    plain = write_tar(tmp_path / "plain.tar", {"1.png": gray(1), "2.png": gray(2)}).read_bytes()
    (tmp_path / "upload").write_bytes(pack(plain) + pack(b"") * 20_000)
    archive = open_archive(tmp_path / "upload", tmp_path / "spool", Limits(), lambda: ticks.append(1))
    assert [member.path for member in archive.members] == ["1.png", "2.png"]
    assert len(ticks) > 15  # one for 16 KiB of 280


class CountedBytes(bytes):
    """Bytes that count how many of them are copied."""

    copied = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if isinstance(key, slice):
            CountedBytes.copied += len(found)
            return CountedBytes(found)
        return found


def test_extra_fields_of_a_zip_take_linear_time():
    """Sixteen thousand empty fields before the one with a member's size are passed over without a copy of the rest for each."""
    extra = struct.pack("<2H", 0xCAFE, 0) * 16_000 + struct.pack("<2HQ", 1, 8, 80)
    assert widen(CountedBytes(extra), IN_ZIP64, 7) == [80, 7]
    assert CountedBytes.copied <= len(extra)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_folders_are_passed_with_ticks(tmp_path, kind):
    """An archive of nothing but folders can be stopped in between."""
    write, ticks = {"zip": write_zip, "tar": write_tar}[kind], []
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    files = {f"{number}/": b"" if kind == "zip" else folder for number in range(500)}
    archive = open_archive(write(tmp_path / "upload", files), tmp_path / "spool", Limits(), lambda: ticks.append(1))
    assert list(archive.members) == []
    assert len(ticks) > 500 // 100


def test_header_of_an_array_is_not_read_in_the_size_that_it_claims(tmp_path):
    """An array of nothing but header, of 60 megabytes, is refused in a few."""
    claimed = 60_000_000
    with zipfile.ZipFile(tmp_path / "upload.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", b"\x93NUMPY\2\0" + struct.pack("<I", claimed) + b" " * claimed)
    gc.collect()
    with at_most(mebibytes=20):
        assert refusal(tmp_path, tmp_path / "upload.npz").code == "bad_npz"


def test_names_are_not_held_in_memory(tmp_path):
    """Neither images without folders nor metadata files elsewhere are gathered, whatever their number."""
    with Index(tmp_path / "index.sqlite") as index, (tmp_path / "none").open("w+b") as file:
        for number in range(40_000):
            kind, path = ("image", f"{number}.png") if number % 2 else ("metadata", f"{number}/metadata.csv")
            index.add(Member(path + "x" * 500, number, 0, 0, Method.RAW, 0), kind)
        with at_most(mebibytes=4):
            assign_classes(index, file.fileno(), nothing)
        assert index.count_images() == 20_000


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_long_line_of_metadata_is_refused_by_its_number(tmp_path, name):
    """A line is never gathered beyond a limit, and the preparation can be stopped meanwhile."""
    text = b'file_name,label\n"' if name.endswith("csv") else b'{"file_name": "1.png"}\n{"file_name": "'
    files = {"1.png": gray(1), "2.png": gray(2), name: text + b"x" * 40 * LONGEST_LINE}
    archive = write_zip(tmp_path / "upload.zip", files)
    with at_most(mebibytes=30):
        error = refusal(tmp_path, archive)
    assert error.code == "bad_metadata"
    assert f"'{name}', line 2: it is longer than {LONGEST_LINE} characters" in error.message


def test_reading_metadata_ticks(tmp_path):
    """Reading many lines can be stopped in between."""
    ticks = []
    rows = b"file_name\n" + b"".join(b"%d.png\n" % number for number in range(500))
    (tmp_path / "rows").write_bytes(rows)
    with Index(tmp_path / "index.sqlite") as index, (tmp_path / "rows").open("rb") as file:
        for number in range(500):
            index.add(Member(f"{number}.png", 0, 0, 0, Method.RAW, 0), "image")
        index.add(Member("metadata.csv", 0, len(rows), len(rows), Method.RAW, 0), "metadata")
        assign_classes(index, file.fileno(), lambda: ticks.append(1))
    assert len(ticks) > 500 // 100


def test_row_of_many_lines_is_refused(tmp_path):
    """A quoted field may have lines in it, and a row of them is limited as a line is."""
    rows = b"file_name,label,text\n1.png,a," + b'"\n",' * (LONGEST_LINE // 2)
    error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", {"1.png": gray(1), "metadata.csv": rows}))
    assert (error.code, "it is longer than" in error.message) == ("bad_metadata", True)
    sound = b'file_name,text,label\n\n1.png,"two\nlines",a\n2.png,"",b\n'
    files = {"1.png": gray(1), "2.png": gray(2), "metadata.csv": sound}
    assert prepare_files(tmp_path, files).classes == ["a", "b"]


def test_columns_are_not_filled_up(tmp_path):
    """Short rows under a line of a hundred thousand columns cost no more than what they hold."""
    header = b"file_name,label," + b",".join(b"%d" % number for number in range(100_000))
    rows = b"".join(b"%d.png,a\n" % number for number in range(2_000))
    images = {f"{number}.png": gray(number % 250) for number in range(2_000)}
    with at_most(cpu_seconds=10):
        found = prepare_files(tmp_path, {**images, "metadata.csv": header + b"\n" + rows})
    assert found.document["classes"] == [{"name": "a", "count": 2_000}]


def metadata(labels):
    """Images and a metadata.jsonl that gives them these labels."""
    rows = [json.dumps({"file_name": f"{number}.png", "label": label}) for number, label in enumerate(labels)]
    images = {f"{number}.png": gray(number % 250) for number in range(len(labels))}
    return {**images, "metadata.jsonl": "\n".join(rows).encode()}


def test_class_names_are_short(tmp_path):
    """A hundred characters are taken, one more is not, be it a folder or a label."""
    for name, taken in (("雪" * 100, True), ("雪" * 101, False)):
        for files in ({f"{name}/1.png": gray(1), "b/1.png": gray(2)}, metadata(["a", name])):
            if taken:
                assert name in prepare_files(tmp_path, files).classes
            else:
                error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", files))
                assert error.code == "bad_label"
                assert "100 characters" in error.message
                assert "shorter" in error.message


def test_class_names_are_limited_together(tmp_path):
    """All class names together have 256 KiB; they stand in every row of a model."""
    labels = [f"{number:04}" + "\N{GRINNING FACE}" * 96 for number in range(1 + MOST_LABEL_BYTES // 388)]
    error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", metadata(labels)))
    assert error.code == "bad_label"
    assert str(MOST_LABEL_BYTES) in error.message
    assert len(prepare_files(tmp_path, metadata(labels[:-1])).classes) == len(labels) - 1


def test_label_of_a_hundred_thousand_digits_is_refused(tmp_path):
    """In an npz as well, where no line limits it."""
    labels = np.array(["1", "9" * 100_000])
    np.savez_compressed(tmp_path / "upload.npz", images=np.zeros((2, 8, 8), np.uint8), labels=labels)
    assert refusal(tmp_path, tmp_path / "upload.npz").code == "bad_label"
