"""Take stock of a source: every member goes into the index, checked, with the class that it belongs to."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.data.archives import open_archive
from worker.data.arrays import Arrays, load_digits, load_npz
from worker.data.chunks import Source
from worker.data.index import Index, kind_of
from worker.data.layout import assign_classes, check_labels
from worker.data.members import TICK_ENTRIES, DataError, Limits, Member, quote

READ_WHOLE = {"image", "metadata"}


def collect(source: Mapping[str, Any], index: Index, scratch: Path, limits: Limits, tick: Callable[[], None]) -> Source:
    """Fill the index from `source` (see worker.data) and label its images; `scratch` is a folder for spool files.

    Raises DataError: `unknown_source`, `no_images`, `member_too_large` and all that worker.data.archives, worker.data.arrays,
    worker.data.index and worker.data.layout name.
    """
    spool = scratch / "spool"
    match source:
        case {"kind": "builtin", "name": "digits"}:
            found = _collect_arrays(load_digits(spool), index, Limits(), tick)  # the operator's are for uploads
        case {"kind": "archive", "path": str(path)}:
            found = _collect_archive(Path(path), index, spool, limits, tick)
        case _:
            raise DataError("unknown_source", 'the source is neither an archive nor the builtin "digits".')
    if index.count_images() == 0:
        raise DataError(
            "no_images",
            "the archive holds no images. Put PNG, JPEG, WEBP, GIF, BMP, TIFF or PPM files into it, or an npz.",
        )
    check_labels(index)
    return found


def _collect_archive(path: Path, index: Index, spool: Path, limits: Limits, tick: Callable[[], None]) -> Source:
    archive = open_archive(path, spool, limits, tick)
    for member in archive.members:
        kind = kind_of(member.path)
        if kind in READ_WHOLE:
            _check_size(member, limits)
        index.add(member, kind)
    index.check_overlaps()
    if index.count_images() == 0 and index.one("SELECT 1 FROM members WHERE kind = 'array'"):
        arrays = load_npz(archive.path, index.members_of("array"), spool.with_suffix(".npy"), tick)
        return _collect_arrays(arrays, index, limits, tick)
    with archive.path.open("rb") as file:
        assign_classes(index, file.fileno(), tick)
    return Source(archive.path, None, limits.pixels, path.stat().st_size)


def _collect_arrays(arrays: Arrays, index: Index, limits: Limits, tick: Callable[[], None]) -> Source:
    if arrays.images > limits.members:
        raise DataError(
            "too_many_members",
            f"there are {arrays.images} images; at most {limits.members} are allowed. Split them up.",
        )
    if arrays.frame.width * arrays.frame.height > limits.pixels:
        raise DataError(
            "image_too_large",
            f"each image has more than {limits.pixels} pixels, which is the limit. Make them smaller.",
        )
    for number, (member, label) in enumerate(arrays.members()):
        index.add(member, "image", label)
        if number % TICK_ENTRIES == 0:
            tick()
    return Source(arrays.path, arrays.frame, limits.pixels, arrays.path.stat().st_size)


def _check_size(member: Member, limits: Limits) -> None:
    if member.size > limits.member_bytes:
        raise DataError(
            "member_too_large",
            f"{quote(member.path)} unpacks to {member.size} bytes; at most {limits.member_bytes} are allowed for one file."
            " Make the image smaller or leave it out.",
        )
