"""From indexed images to examples: a pass over the headers, a pass over the pixels, and the account of both."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.data.chunks import Chunk, DecodeTask, Examples, Headers, HeaderTask, Source, decode_chunk, read_headers
from worker.data.images import DENSEST, Channels, Target
from worker.data.index import Index
from worker.data.members import DataError, Member, quote
from worker.data.pool import Pool
from worker.data.progress import Progress
from worker.data.rows import allocate, header, row_bytes

CHUNK_IMAGES = 256
CHUNK_MEMBER_BYTES = 8 * 2**20
CHUNK_ROW_BYTES = 4 * 2**20
FLOOR_PIXELS = 10**9  # of all images together; below this a high ratio is harmless
MOST_CORRUPT = 10  # one in so many
REASONS_IN_MESSAGE = 3
SKIPPED_LISTED = 100
SIZES_LISTED = 50


@dataclass
class Decoding:
    """The result of decoding all images; arrays have an entry for each row. See worker.data.chunks.Examples."""

    classes: list[str]
    labels: NDArray[np.int64]
    digests: NDArray[np.uint64]
    sound: NDArray[np.bool_]
    sizes: Counter[tuple[int, int]]
    conversions: Counter[str]
    coloured: bool = False
    transparent: int = 0

    def add(self, first: int, found: Examples) -> None:
        """The chunk whose first row is `first`."""
        rows = slice(first, first + len(found.sound))
        self.digests[rows], self.sound[rows] = found.digests, found.sound
        self.sizes += found.sizes
        self.conversions += found.conversions
        self.coloured |= found.coloured
        self.transparent += found.transparent


class _CorruptImages:
    """Notes the images that cannot be read, and gives up when they are more than one in MOST_CORRUPT."""

    def __init__(self, index: Index, total: int) -> None:
        self._index, self._total = index, total
        self._count = int(index.one("SELECT count(*) FROM members WHERE corrupt"))

    def add(self, bad: list[tuple[int, str]]) -> None:
        """Raises DataError `corrupt_images`."""
        self._index.mark_corrupt(bad)
        self._count += len(bad)
        if self._count * MOST_CORRUPT > self._total:
            first = "; ".join(
                f"{quote(entry['file'])}: {entry['reason']}" for entry in self._index.skipped(REASONS_IN_MESSAGE)
            )
            raise DataError(
                "corrupt_images",
                f"more than a tenth of the {self._total} images cannot be used. {first}. Repair or remove them and upload again.",
            )


def survey(index: Index, source: Source, pool: Pool, progress: Progress) -> Headers:
    """Read the header of every image; those without a sound one are marked in the index.

    Raises DataError `corrupt_images`, `compression_ratio`.
    """
    total = index.count_images()
    if source.frame is not None:  # all alike
        progress.advance(total)
        height, width, channels, _ = source.frame
        return Headers(Counter({(width, height): total}), total * (channels in {2, 4}), total * (channels > 2))
    found, corrupt = Headers(), _CorruptImages(index, total)
    tasks = (HeaderTask(source, chunk) for chunk in _chunks(index.images_as_stored(), CHUNK_IMAGES))
    pixels = 0
    for headers in pool.map(read_headers, tasks, progress.tick):
        found.add(headers)
        pixels += sum(width * height * count for (width, height), count in headers.sizes.items())
        _check_pixels(pixels, source)
        corrupt.add(headers.bad)
        progress.advance(headers.sizes.total() + len(headers.bad))
    return found


def _check_pixels(pixels: int, source: Source) -> None:
    """The bound on each image, DENSEST, over the upload: no file is heavier for padding that its archive makes light again."""
    if pixels > max(FLOOR_PIXELS, DENSEST * source.uploaded):
        raise DataError(
            "compression_ratio",
            f"the images have more than {DENSEST} pixels for each byte of the upload, as only blank images do."
            " Leave the blank ones out, or make them smaller.",
        )


def decode_all(index: Index, source: Source, target: Target, out: Path, pool: Pool, progress: Progress) -> Decoding:
    """Decode the sound images into `out`, an npy file, in the order of examples. Raises DataError `corrupt_images`."""
    classes, total = index.class_names(), index.count_images()
    corrupt = _CorruptImages(index, total)
    rows = total - int(index.one("SELECT count(*) FROM members WHERE corrupt"))
    label_of = {name: label for label, name in enumerate(classes)}
    done = Decoding(
        classes, np.full(rows, -1, np.int64), np.zeros(rows, np.uint64), np.zeros(rows, np.bool_), Counter(), Counter()
    )
    allocate(out, rows, target)

    def labelled() -> Iterator[tuple[int, Member]]:
        for row, (member_id, name, member) in enumerate(index.images()):
            if name is not None:
                done.labels[row] = label_of[name]
            yield member_id, member

    def tasks() -> Iterator[DecodeTask]:
        offset = len(header(rows, target))
        for chunk in _chunks(labelled(), min(CHUNK_IMAGES, max(1, CHUNK_ROW_BYTES // row_bytes(target)))):
            yield DecodeTask(source, chunk, target, out, offset)
            offset += len(chunk) * row_bytes(target)

    first = 0
    for found in pool.map(decode_chunk, tasks(), progress.tick):
        done.add(first, found)
        corrupt.add(found.bad)
        first += len(found.sound)
        progress.advance(len(found.sound))
    return done


def drop_corrupt(done: Decoding) -> None:
    """Forget the rows that are not sound, and the classes of which nothing is left."""
    done.labels, done.digests = done.labels[done.sound], done.digests[done.sound]
    if done.classes:
        left = np.unique(done.labels[done.labels >= 0])
        done.labels = np.where(done.labels < 0, done.labels, np.searchsorted(left, done.labels))
        done.classes = [done.classes[label] for label in left]


def describe(index: Index, done: Decoding, target: Target, kept: Target, sha256: str) -> dict[str, Any]:
    """The contents of dataset.json (see worker.data), after `drop_corrupt`; `target` was decoded, `kept` of it remains."""
    labelled = done.labels[done.labels >= 0]
    counts: list[int] = np.bincount(labelled).tolist()
    sizes = sorted(done.sizes.items(), key=lambda entry: (-entry[1], entry[0]))[:SIZES_LISTED]
    return {
        "examples": len(done.labels),
        "height": kept.height,
        "width": kept.width,
        "channels": kept.channels,
        "classes": [{"name": name, "count": count} for name, count in zip(done.classes, counts, strict=True)],
        "unlabelled": len(done.labels) - len(labelled) if done.classes else 0,
        "sha256": sha256,
        "report": {
            "skipped": index.skipped(SKIPPED_LISTED),
            "skipped_total": index.count_skipped(),
            "ignored": int(index.one("SELECT count(*) FROM members WHERE kind = 'clutter'")),
            "duplicates": len(done.digests) - len(np.unique(done.digests)),
            "sizes": [{"width": width, "height": height, "count": count} for (width, height), count in sizes],
            "conversions": dict(sorted(_conversions(done, target.channels, kept.channels).items())),
        },
    }


def _conversions(done: Decoding, decoded: Channels, kept: Channels) -> Counter[str]:
    """Those of the images, corrected by what narrowing did to all of them."""
    found = Counter(done.conversions)
    if decoded == 4 != kept:
        found["alpha_over_white"] += done.transparent
    if decoded == 3 and kept == 1:
        found["rgb_as_gray"] = len(done.labels) - found.pop("gray_as_rgb", 0)
    return +found


def _chunks(images: Iterable[tuple[int, Member]], most: int) -> Iterator[Chunk]:
    """At most so many images and, unless it is one large image, CHUNK_MEMBER_BYTES."""
    chunk: Chunk = []
    size = 0
    for member_id, member in images:
        if chunk and (len(chunk) == most or size + member.size > CHUNK_MEMBER_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((member_id, member))
        size += member.size
    if chunk:
        yield chunk
