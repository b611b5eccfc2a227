"""Which images of an archive are used, and of which class each is.

1.  The root is the deepest folder that holds every image; so wrapping folders do not count, nor does a single class folder.
2.  If the folders in the root are a split (train or training, beside val, valid, validation, dev, test or testing), only the
    training part is used, and the root is sought again in it.
3.  If the root or a folder above it holds `metadata.csv` (a header with `file_name` and, if there are labels, `label`) or
    `metadata.jsonl` (objects with the same keys), then it says which images are used and how they are labelled; names are
    relative to its folder.
4.  Otherwise each folder in the root is a class, with all that lies below it. Images directly in the root have no label.

Images without a label may stand beside labelled ones: in the metadata those whose label is empty, null or absent, and in the root
those beside two or more folders. Beside a single folder they are refused: whether it is a class, nobody can tell.
"""

import codecs
import csv
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from worker.data.index import Index
from worker.data.members import TICK_ENTRIES, CorruptMember, DataError, Member, quote, stream_member

TRAINING_PARTS = {"train", "training"}
OTHER_PARTS = {"val", "valid", "validation", "dev", "test", "testing"}
MAX_CLASSES = 10_000
LONGEST_LABEL = 100  # characters
MOST_LABEL_BYTES = 256 * 2**10  # of all together: they stand in every answer about a data set or a model of it
LONGEST_LINE = 2**20  # characters of a line, or of a row of several lines
TOO_LONG = f"it is longer than {LONGEST_LINE} characters; it needs no more than a file_name and a label"


def assign_classes(index: Index, fd: int, tick: Callable[[], None]) -> None:
    """Label the images in the index, or set them aside. `fd` is the file that the members lie in; `tick` is called meanwhile.

    Raises DataError: `bad_metadata`, `mixed_layout`.
    """
    root = _find_root(index)
    if (metadata := _metadata_above(index, root)) is not None:
        _apply_metadata(index, metadata, fd, tick)
    else:
        depth = len(root)
        index.classify(
            lambda path: path[depth:].split("/")[0] if path.startswith(root) and "/" in path[depth:] else None,
            lambda path: None if path.startswith(root) else f"not in {root}",
        )
        _check_folders(index)


def _check_folders(index: Index) -> None:
    beside = index.one("SELECT path FROM members WHERE kind = 'image' AND skipped IS NULL AND class IS NULL")
    folders = index.class_counts()
    if beside is not None and len(folders) == 1:
        folder = next(index.classes())
        raise DataError(
            "mixed_layout",
            f"the images lie in one folder, {quote(folder)}, and beside it, such as {quote(beside)}: it is not clear whether the folder"
            " is a class. Put all images into one folder if they have no classes, else those of each class into a folder of its own.",
        )


def _find_root(index: Index) -> str:
    """The folder that the layout counts from, as a prefix of paths: "" or "folder/"."""
    root = _common_folder(index.image_paths())
    parts = set()
    for path in index.image_paths():
        part = path[len(root) :].split("/")[0]
        if part.lower() not in TRAINING_PARTS | OTHER_PARTS:
            return root
        parts.add(part)
    training = {part for part in parts if part.lower() in TRAINING_PARTS}
    if len(training) == 1:
        part = f"{root}{training.pop()}/"
        return _common_folder(path for path in index.image_paths() if path.startswith(part))
    return root


def _common_folder(paths: Iterable[str]) -> str:
    """The deepest folder that holds all paths, as a prefix."""
    common: list[str] | None = None
    for path in paths:
        folders = path.split("/")[:-1]
        if common is None:
            common = folders
        elif folders[: len(common)] != common:
            same = [left == right for left, right in zip(common, folders, strict=False)]
            common = common[: [*same, False].index(False)]
    return "".join(f"{folder}/" for folder in common or [])


def _metadata_above(index: Index, root: str) -> Member | None:
    """The metadata file in the root or the nearest folder above it."""
    above = [(_folder(member), member) for member in index.members_of("metadata") if root.startswith(_folder(member))]
    if not above:
        return None
    nearest = max(len(folder) for folder, _ in above)
    found = [member for folder, member in above if len(folder) == nearest]
    if len(found) > 1:
        raise DataError(
            "bad_metadata", f"there are both {' and '.join(quote(member.path) for member in found)}; keep one."
        )
    return found[0]


def _folder(member: Member) -> str:
    return member.path[: member.path.rfind("/") + 1]


def _apply_metadata(index: Index, metadata: Member, fd: int, tick: Callable[[], None]) -> None:
    folder = _folder(metadata)
    read = _csv_rows if metadata.path.lower().endswith(".csv") else _jsonl_rows
    try:
        for line, name, label in read(_lines(fd, metadata, tick)):
            if line % TICK_ENTRIES == 0:
                tick()
            path = f"{folder}{name.removeprefix('./')}"
            if index.one("INSERT OR IGNORE INTO labels VALUES (?, ?, ?) RETURNING 1", path, label, line) is None:
                raise _bad(metadata, line, f"{quote(name)} is named twice")
    except (CorruptMember, UnicodeError, csv.Error) as error:
        raise DataError(
            "bad_metadata", f"{quote(metadata.path)} cannot be read: {error}. Save it as UTF-8 text."
        ) from error
    line = index.one(
        "SELECT line FROM labels LEFT JOIN members ON members.path = labels.path AND kind = 'image' WHERE id IS NULL ORDER BY line"
    )
    if line is not None:
        raise _bad(metadata, line, "it names a file that is not among the images; names are relative to its folder")
    index.db.execute(
        "UPDATE members SET class = labels.class FROM labels WHERE labels.path = members.path AND members.kind = 'image'"
    )
    index.db.execute(
        "UPDATE members SET skipped = ? WHERE kind = 'image' AND path NOT IN (SELECT path FROM labels)",
        (f"not named in {metadata.path}",),
    )


def _bad(metadata: Member, line: int, what: str) -> DataError:
    return DataError("bad_metadata", f"{quote(metadata.path)}, line {line}: {what}.")


def _lines(fd: int, member: Member, tick: Callable[[], None]) -> Iterator[str]:
    done, rest = 0, ""
    for text in codecs.iterdecode(stream_member(fd, member), "utf-8-sig"):
        tick()
        lines = (rest + text).splitlines(keepends=True) or [""]
        for number, line in enumerate(lines, done + 1):
            if len(line) > LONGEST_LINE:
                raise _bad(member, number, TOO_LONG)
        *lines, rest = lines
        yield from lines
        done += len(lines)
    if rest:
        yield rest


Row = tuple[int, str, str | None]  # line, file_name, label


def _csv_rows(lines: Iterator[str]) -> Iterator[Row]:
    characters = 0  # of the row, which goes on over the lines of a quoted field

    def row_lines() -> Iterator[str]:
        nonlocal characters
        for number, line in enumerate(lines, 1):
            characters += len(line)
            if characters > LONGEST_LINE:
                raise DataError("bad_metadata", f"metadata.csv, line {number}: {TOO_LONG}.")
            yield line

    # No DictReader: it fills each row up to the columns of the first line, be they a million.
    rows = csv.reader(row_lines(), strict=True)
    columns = {name: number for number, name in enumerate(next(rows, []))}
    if "file_name" not in columns:
        raise DataError(
            "bad_metadata", 'the first line of metadata.csv must name the columns, "file_name" and perhaps "label".'
        )
    characters = 0
    for row in rows:
        characters = 0
        if not row:
            continue
        if not (name := _cell(row, columns["file_name"])):
            raise DataError("bad_metadata", f"metadata.csv, line {rows.line_num}: it has no file_name.")
        yield rows.line_num, name, _cell(row, columns.get("label"))


def _cell(row: list[str], column: int | None) -> str | None:
    return row[column] or None if column is not None and column < len(row) else None


def _jsonl_rows(lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError("bad_metadata", f"metadata.jsonl, line {number}: it is not JSON.") from error
        name, label = (row.get("file_name"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not name or not _is_label(label):
            raise DataError(
                "bad_metadata",
                f'metadata.jsonl, line {number}: each line is an object with "file_name", a text, and perhaps "label", a text or'
                " a whole number.",
            )
        yield number, name, None if label in {None, ""} else str(label)


def _is_label(value: Any) -> bool:
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def check_labels(index: Index) -> None:
    """Raises DataError: `bad_label`, `too_many_classes`."""
    classes = index.one("SELECT count(DISTINCT class) FROM members WHERE kind = 'image'")
    if classes > MAX_CLASSES:
        raise DataError(
            "too_many_classes",
            f"there are {classes} classes, and at most {MAX_CLASSES} are allowed. Each folder is a class: if yours are not, put all"
            " images into one folder.",
        )
    total = 0
    for name in index.classes():
        if len(name) > LONGEST_LABEL or any(unicodedata.category(character) == "Cc" for character in name):
            raise DataError(
                "bad_label",
                f"the label {quote(name)} is longer than {LONGEST_LABEL} characters or has control characters in it."
                " Give the folder of the class, or the label in the metadata, a shorter and plain name.",
            )
        total += len(name.encode())
    if total > MOST_LABEL_BYTES:
        raise DataError(
            "bad_label",
            f"the names of the {classes} classes take {total} bytes together, in UTF-8; at most {MOST_LABEL_BYTES} are allowed."
            " Give the folders of the classes, or the labels in the metadata, shorter names.",
        )
