"""Hostile and damaged archives: each kind is refused with its own code, and nothing is written by a member's name."""

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.strategies import distinct, gray, write_tar, write_zip
from tests.worker.preparing import prepare_archive, prepare_files, refusal
from worker.data.members import DataError, safe_path

OUTSIDE = [
    "../evil.png",
    "a/../../evil.png",
    "a/..",
    "/etc/evil.png",
    "//host/evil.png",
    "C:/evil.png",
    "c:evil.png",
    "a\\..\\evil.png",
    "\\\\host\\evil.png",
    "x" * 2000 + ".png",
]
SPECIAL = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "sparse file": tarfile.GNUTYPE_SPARSE,
}


@pytest.fixture
def images():
    return {f"{label}/{number}.png": gray(40 * label + number) for label in range(3) for number in range(4)}


@pytest.mark.parametrize("name", [*OUTSIDE, "evil\0.png"])
def test_zip_member_that_leaves_the_folder_is_refused(tmp_path, images, name):
    """A zip with a name that could lead out of a folder is refused, whatever else is in it."""
    archive = write_zip(tmp_path / "upload.zip", {**images, name: gray(1)})
    before = set(tmp_path.parent.iterdir())
    assert refusal(tmp_path, archive).code == "unsafe_path"
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("name", OUTSIDE)
def test_tar_member_that_leaves_the_folder_is_refused(tmp_path, images, name):
    """A tar likewise."""
    archive = write_tar(tmp_path / "upload.tar", {**images, name: gray(1)})
    assert refusal(tmp_path, archive).code == "unsafe_path"


@given(name=st.text(max_size=40) | st.text("./\\:aC\0", max_size=12))
def test_a_safe_path_stays_in_its_folder(name):
    """Whatever the name, what comes through is a plain relative path that names the same member."""
    try:
        path = safe_path(name)
    except DataError:
        return
    meant = os.path.normpath(f"/folder/{name}")
    assert meant == os.path.normpath(f"/folder/{path}")
    assert meant == "/folder" or meant.startswith("/folder/")


@pytest.mark.parametrize("kind", SPECIAL)
def test_tar_member_that_is_no_plain_file_is_refused(tmp_path, images, kind):
    """Links, devices, pipes and sparse files in a tar are refused."""
    info = tarfile.TarInfo("0/link.png")
    info.type, info.linkname = SPECIAL[kind], "/etc/passwd"
    error = refusal(tmp_path, write_tar(tmp_path / "upload.tar", {**images, "0/link.png": info}))
    assert error.code == "unsafe_member"
    assert "'0/link.png'" in error.message


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o140755])
def test_zip_member_that_is_no_plain_file_is_refused(tmp_path, images, mode):
    """Symbolic links, pipes, devices and sockets in a zip are refused."""
    archive = write_zip(tmp_path / "upload.zip", images)
    with zipfile.ZipFile(archive, "a") as file:
        info = zipfile.ZipInfo("0/link.png")
        info.create_system, info.external_attr = 3, mode << 16
        file.writestr(info, "/etc/passwd")
    assert refusal(tmp_path, archive).code == "unsafe_member"


def test_encrypted_zip_is_refused(tmp_path, images):
    """A password is asked of nobody."""
    archive = patch_directory(write_zip(tmp_path / "upload.zip", images), 8, b"\x01\x00")
    assert refusal(tmp_path, archive).code == "encrypted_archive"


def test_unknown_compression_is_refused(tmp_path, images):
    """A zip that is compressed by another method than deflate is refused by its method's number."""
    error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", images, zipfile.ZIP_LZMA))
    assert (error.code, "number 14" in error.message) == ("unsupported_compression", True)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["0/0.png", "./0/0.png", "0//0.png"])
def test_two_members_of_one_name_are_refused(tmp_path, images, second):
    """Which of them is meant is nothing to guess; spelling a name differently does not help."""
    archive = write_zip(tmp_path / "upload.zip", images)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(second, gray(9))
    assert refusal(tmp_path, archive).code == "duplicate_member"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"members": 11}, "too_many_members"),
        ({"total_bytes": 12 * 64}, "archive_too_large"),
        ({"member_bytes": 60}, "member_too_large"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_limits_are_kept(tmp_path, images, kind, limits, code):
    """More members, more bytes together or more bytes in one than allowed are refused."""
    write = {"zip": write_zip, "tar": write_tar}[kind]
    assert refusal(tmp_path, write(tmp_path / "upload", images), limits).code == code


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tar_that_unpacks_to_too_much_is_refused(tmp_path, mode):
    """A compressed tar stops being unpacked at the limit."""
    archive = write_tar(tmp_path / "upload", {"a/zeros.png": bytes(3_000_000)}, mode)
    assert refusal(tmp_path, archive, {"total_bytes": 2_000_000}).code == "archive_too_large"


def test_tar_bomb_is_refused_by_its_ratio(tmp_path):
    """A compressed tar of zeros stops being unpacked at the limit of the ratio."""
    archive = write_tar(tmp_path / "upload", {"a/zeros.png": bytes(70_000_000)}, "w:gz")
    assert refusal(tmp_path, archive).code == "compression_ratio"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_streams_may_follow_one_another(tmp_path, images, pack):
    """What parallel compressors write, a tar in several compressed streams, is read to its end."""
    data = write_tar(tmp_path / "plain.tar", images).read_bytes()
    archive = tmp_path / "upload"
    archive.write_bytes(b"".join(pack(data[start : start + 5000]) for start in range(0, len(data), 5000)))
    assert len(prepare_archive(tmp_path, archive).examples) == len(images)


def test_zip_bomb_is_refused_by_its_ratio(tmp_path):
    """A zip of zeros is refused before any of them is unpacked."""
    archive = write_zip(tmp_path / "upload.zip", {f"{n}.png": bytes(10_000_000) for n in range(10)})
    assert refusal(tmp_path, archive).code == "compression_ratio"


def test_overlapping_members_are_refused(tmp_path, images):
    """Directory entries that share their bytes, as in a zip of 42 kB that unpacks to petabytes, are refused."""
    archive = write_zip(tmp_path / "upload.zip", {"a.png": gray(1), "b.png": gray(1)})
    data = bytearray(archive.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    archive.write_bytes(data)
    assert refusal(tmp_path, archive).code == "overlapping_members"


def test_archive_in_an_archive_is_not_opened(tmp_path, images):
    """A nested archive is a file that is not an image, be it the archive itself."""
    inner = write_zip(tmp_path / "inner.zip", images).read_bytes()
    found = prepare_files(tmp_path, {**images, "inner.zip": inner})
    assert len(found.examples) == len(images)
    assert found.report["skipped"] == [{"file": "inner.zip", "reason": "not an image, by its name"}]


@pytest.mark.parametrize(("field", "value"), [(24, 10), (24, 10_000), (16, 0xDEAD)])
def test_header_that_lies_makes_its_member_corrupt(tmp_path, field, value):
    """What is counted are bytes that were read: a wrong size or checksum makes that image corrupt and no other."""
    images = {f"{number:02}.png": data for number, data in enumerate(distinct(20))}
    archive = patch_directory(write_zip(tmp_path / "upload.zip", images), field, struct.pack("<L", value))
    found = prepare_archive(tmp_path, archive)
    assert len(found.examples) == 19
    assert [entry["file"] for entry in found.report["skipped"]] == ["00.png"]


def patch_directory(archive, offset, value):
    """Overwrite a field of the first entry in a zip's directory."""
    data = bytearray(archive.read_bytes())
    first = data.index(b"PK\x01\x02") + offset
    data[first : first + len(value)] = value
    archive.write_bytes(data)
    return archive


@pytest.mark.parametrize(
    "content", [b"", b"hello, world\n" * 100, bytes(4096), b"\x89PNG\r\n\x1a\n", gzip.compress(b"text", mtime=0)]
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    """The first bytes decide, not the name; a compressed file that is no tar is no archive either."""
    path = tmp_path / "upload.zip"
    path.write_bytes(content)
    error = refusal(tmp_path, path)
    assert (error.code, "Upload a zip" in error.message) == ("not_an_archive", True)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated_archive_is_refused(tmp_path, images, mode, share):
    """An upload that was cut short is never taken for a small one."""
    path = tmp_path / "upload"
    images = {name: data + os.urandom(500) for name, data in images.items()}
    write_zip(path, images) if mode == "zip" else write_tar(path, images, mode)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share * (0.5 if mode == "w" else 1))])  # a plain tar ends with padding
    assert refusal(tmp_path, path).code in {"corrupt_archive", "not_an_archive"}


def test_pax_header_that_claims_gigabytes_is_refused(tmp_path):
    """A header is never read into memory in the size that it claims."""
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"comment": "x" * 200_000}
    write_tar(tmp_path / "upload.tar", {"a.png": info})
    assert refusal(tmp_path, tmp_path / "upload.tar").code == "corrupt_archive"


def test_negative_size_in_a_tar_is_refused(tmp_path):
    """A size that would lead backwards, and a reader in circles, is refused."""
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(-1024, 12, tarfile.GNU_FORMAT)
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    path = tmp_path / "upload.tar"
    path.write_bytes(bytes(header) + bytes(10_240))
    assert refusal(tmp_path, path).code == "corrupt_archive"


@given(data=st.data(), mode=st.sampled_from(["zip", "tar", "tar.gz"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_noticed_or_harmless(tmp_path, data, mode):
    """An archive with any few bytes overwritten is either prepared or refused with a reason; nothing else happens."""
    path = tmp_path / "upload"
    files = {f"{n % 3}/{n}.png": image for n, image in enumerate(distinct(12))} | {"metadata.txt": b"text"}
    write_zip(path, files) if mode == "zip" else write_tar(path, files, {"tar": "w", "tar.gz": "w:gz"}[mode])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = prepare_archive(tmp_path, path)
    except DataError:
        return
    assert len(found.examples) == len(found.labels) > 0


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.size": "x"},
        {"GNU.sparse.map": "a,b"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"GNU.sparse.realsize": "-"},
        {"size": "-100000"},
        {"size": "9" * 40},
    ],
)
def test_pax_header_that_makes_no_sense_is_refused(tmp_path, headers):
    """A value that tarfile cannot use is damage, not a crash."""
    info = tarfile.TarInfo("a.png")
    info.pax_headers = headers
    write_tar(tmp_path / "upload.tar", {"a.png": info})
    assert refusal(tmp_path, tmp_path / "upload.tar").code == "corrupt_archive"


def test_endless_chain_of_headers_is_refused(tmp_path):
    """Thousands of headers in a row, which tarfile reads recursively, are damage."""
    header = tarfile.TarInfo.create_pax_global_header({"comment": "x"})
    path = tmp_path / "upload.tar"
    path.write_bytes(header * 2000 + bytes(10_240))
    assert refusal(tmp_path, path).code == "corrupt_archive"
