"""Which images are used, how they are labelled and in what order they come, and the shape that they all get."""

import json
import re
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.catalog import FAMILIES
from models.config import DataSpec
from tests.strategies import NAMES, gray, write_tar, write_zip
from tests.worker.preparing import prepare_archive, prepare_files, refusal
from worker.data.index import natural_key
from worker.data.plan import SIDES, is_makeable

ONE_EACH = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shades(found):
    """The gray of each example, and its class."""
    names = found.classes or ["-"]
    return [(int(row.flat[0]), names[label]) for row, label in zip(found.examples, found.labels, strict=True)]


@pytest.mark.parametrize("wrapper", ["", "data/", "a/b/", "train/", "data/Training/"])
def test_folders_are_classes(tmp_path, wrapper):
    """A folder is a class with all below it; folders that wrap everything do not count."""
    names = {"cat/1.png": 1, "cat/more/2.png": 2, "dog/1.png": 3}
    found = prepare_files(tmp_path, {wrapper + name: gray(value) for name, value in names.items()})
    assert shades(found) == [(1, "cat"), (2, "cat"), (3, "dog")]
    assert found.document["classes"] == [{"name": "cat", "count": 2}, {"name": "dog", "count": 1}]


@pytest.mark.parametrize("wrapper", ["", "data/", "a/b/"])
def test_images_without_folders_have_no_label(tmp_path, wrapper):
    """Images side by side are unlabelled, also when one folder holds them all."""
    found = prepare_files(tmp_path, {f"{wrapper}{value}.png": gray(value) for value in (1, 2, 10)})
    assert shades(found) == [(1, "-"), (2, "-"), (10, "-")]
    assert (found.labels == -1).all()
    assert found.labels.dtype == np.int64
    assert found.document["unlabelled"] == 0  # beside labelled ones, that is


def test_only_the_training_part_of_a_split_is_used(tmp_path):
    """Beside train/, the images in test/ and val/ are set aside and listed."""
    parts = {"train/a/1.png": 1, "train/b/1.png": 2, "test/a/1.png": 3, "val/b/1.png": 4}
    found = prepare_files(tmp_path, {f"set/{name}": gray(value) for name, value in parts.items()})
    assert shades(found) == [(1, "a"), (2, "b")]
    assert found.report["skipped"][0] == {"file": "set/test/a/1.png", "reason": "not in set/train/"}


def test_train_beside_other_folders_is_a_class(tmp_path):
    """A folder called train is no split when its neighbours are not."""
    found = prepare_files(tmp_path, {"train/1.png": gray(1), "bus/1.png": gray(2)})
    assert found.classes == ["bus", "train"]


@pytest.mark.parametrize("wrapper", ["", "data/"])
def test_images_beside_class_folders_have_no_label(tmp_path, wrapper):
    """Images beside the folders of classes are unlabelled: they come first, and are counted."""
    names = {"a/1.png": 1, "b/1.png": 2, "zz.png": 3, "0.png": 4}
    found = prepare_files(tmp_path, {wrapper + name: gray(value) for name, value in names.items()})
    assert found.examples[:, 0, 0, 0].tolist() == [4, 3, 1, 2]
    assert found.labels.tolist() == [-1, -1, 0, 1]
    assert found.document["classes"] == [{"name": "a", "count": 1}, {"name": "b", "count": 1}]
    assert found.document["unlabelled"] == 2


def test_images_beside_one_folder_are_refused(tmp_path):
    """A single folder beside images may be a class or not, which is not guessed at."""
    archive = write_zip(tmp_path / "upload.zip", {"a/1.png": gray(1), "a/b/1.png": gray(2), "cover.png": gray(3)})
    error = refusal(tmp_path, archive)
    assert error.code == "mixed_layout"
    assert "'a'" in error.message
    assert "'cover.png'" in error.message


def csv(rows):
    return "".join(f"{','.join(row)}\r\n" for row in rows).encode()


def jsonl(rows):
    keys, *values = rows
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in values).encode()


@pytest.mark.parametrize("write", [csv, jsonl])
@pytest.mark.parametrize("folder", ["", "set/"])
def test_metadata_gives_labels(tmp_path, write, folder):
    """metadata.csv and metadata.jsonl label the files that they name, relative to their folder; others are set aside."""
    rows = [("file_name", "label"), ("img/1.png", "sea"), ("./img/2.png", "äöü"), ("img/3.png", "sea")]
    files = {f"{folder}img/{value}.png": gray(value) for value in (1, 2, 3, 4)}
    name = f"{folder}metadata.{write.__name__}"
    found = prepare_files(tmp_path, {**files, name: write(rows)})
    assert shades(found) == [(1, "sea"), (3, "sea"), (2, "äöü")]
    assert found.report["skipped"] == [{"file": f"{folder}img/4.png", "reason": f"not named in {name}"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,label\n1.png,sea\n2.png,\n3.png\n"),
        (
            "metadata.jsonl",
            '{"file_name": "1.png", "label": "sea"}\n{"file_name": "2.png", "label": null}\n{"file_name": "3.png"}\n',
        ),
        (
            "metadata.jsonl",
            '{"file_name": "1.png", "label": "sea"}\n{"file_name": "2.png", "label": ""}\n{"file_name": "3.png"}\n',
        ),
    ],
)
def test_metadata_may_leave_labels_out(tmp_path, name, text):
    """An empty, null or absent label beside others is an image without a label, also where there is one class only."""
    found = prepare_files(tmp_path, {**{f"{n}.png": gray(n) for n in (1, 2, 3)}, name: text.encode()})
    assert found.examples[:, 0, 0, 0].tolist() == [2, 3, 1]
    assert (found.labels.tolist(), found.classes) == ([-1, -1, 0], ["sea"])
    assert found.document["unlabelled"] == 2


def test_class_whose_images_are_corrupt_leaves_unlabelled_ones_alone(tmp_path):
    """Where a class goes with its last sound image, the labels of the others move up, and no label stays no label."""
    sound = {f"b/{n}.png": gray(n) for n in range(20)} | {"c/1.png": gray(30), "x.png": gray(40)}
    found = prepare_files(tmp_path, {"a/1.png": gray(1)[:-30], **sound})
    assert found.classes == ["b", "c"]
    assert found.labels.tolist() == [-1, *[0] * 20, 1]


@pytest.mark.parametrize("write", [csv, jsonl])
def test_metadata_without_labels(tmp_path, write):
    """Metadata without a label column chooses images and leaves them unlabelled, whatever their folders."""
    found = prepare_files(
        tmp_path,
        {"a/1.png": gray(1), "b/2.png": gray(2), f"metadata.{write.__name__}": write([("file_name",), ("b/2.png",)])},
    )
    assert shades(found) == [(2, "-")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "name,label\n1.png,a\n", '"file_name"'),
        ("metadata.csv", "file_name,label\n1.png,a\n9.png,b\n", "line 3: it names a file that is not among the images"),
        ("metadata.csv", "file_name,label\n1.png,a\n1.png,b\n", "line 3: '1.png' is named twice"),
        ("metadata.csv", "file_name,label\n../1.png,a\n", "line 2"),
        ("metadata.csv", "file_name,label\n,a\n", "line 2: it has no file_name"),
        ("metadata.csv", 'file_name,label\n"1.png,a\n', "cannot be read"),
        ("metadata.csv", "file_name,label\n1.png,\udcff\n", "Save it as UTF-8"),
        ("metadata.jsonl", '{"file_name": "1.png"}\nnonsense\n', "line 2: it is not JSON"),
        ("metadata.jsonl", "[" * 200_000, "line 1: it is not JSON"),
        ("metadata.jsonl", '{"file_name": 3}\n', "line 1"),
        ("metadata.jsonl", '{"file_name": "1.png", "label": [1]}\n', "line 1"),
        ("metadata.jsonl", '"1.png"\n', "line 1"),
        ("metadata.jsonl", '{"file_name": "1.png", "label": "\\ud800"}\n', "cannot be read"),
    ],
)
def test_bad_metadata_is_refused_by_its_line(tmp_path, name, text, message):
    """A fault in the metadata is refused with the file's name and the line."""
    files = {"1.png": gray(1), "2.png": gray(2), name: text.encode(errors="surrogateescape")}
    error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", files))
    assert error.code == "bad_metadata"
    assert message in error.message
    assert name in error.message


@pytest.mark.parametrize("label", ["a\0b", "a\nb", "x" * 300])
def test_label_that_cannot_be_shown_is_refused(tmp_path, label):
    """Labels are short and have no control characters."""
    rows = "".join(json.dumps({"file_name": f"{number}.png", "label": label}) + "\n" for number in range(2))
    files = {"0.png": gray(0), "1.png": gray(1), "metadata.jsonl": rows.encode()}
    assert refusal(tmp_path, write_zip(tmp_path / "upload.zip", files)).code == "bad_label"


def test_too_many_classes_are_refused(tmp_path):
    """Ten thousand classes and one are most likely a folder for each image."""
    archive = write_zip(tmp_path / "upload.zip", {f"{number}/1.png": b"" for number in range(10_001)})
    assert refusal(tmp_path, archive).code == "too_many_classes"


def test_both_kinds_of_metadata_are_refused(tmp_path):
    """Two metadata files in one folder may contradict each other."""
    files = {"1.png": gray(1), "metadata.csv": b"file_name\n1.png\n", "metadata.jsonl": b'{"file_name": "1.png"}\n'}
    assert refusal(tmp_path, write_zip(tmp_path / "upload.zip", files)).code == "bad_metadata"


def test_clutter_is_passed_over_and_other_files_are_listed(tmp_path):
    """What operating systems leave behind is counted; files that are no images are named."""
    clutter = ["__MACOSX/a/._1.png", "a/.DS_Store", "a/Thumbs.db", ".git/1.png", "desktop.ini"]
    files = {"a/1.png": gray(1), "b/1.PNG": gray(2), "a/notes.txt": b"text", **dict.fromkeys(clutter, gray(9))}
    found = prepare_files(tmp_path, files)
    assert shades(found) == [(1, "a"), (2, "b")]
    assert found.report["ignored"] == len(clutter)
    assert found.report["skipped"] == [{"file": "a/notes.txt", "reason": "not an image, by its name"}]
    assert found.report["skipped_total"] == 1


@pytest.mark.parametrize("files", [{"readme.txt": b"text"}, {".hidden/1.png": gray(1)}])
def test_archive_without_images_is_refused(tmp_path, files):
    """An archive with nothing to learn from is refused."""
    assert refusal(tmp_path, write_zip(tmp_path / "upload.zip", files)).code == "no_images"


@given(names=st.lists(NAMES, min_size=2, max_size=6, unique=True), kind=st.sampled_from(["zip", "tar", "tar.xz"]))
@ONE_EACH
def test_any_names_are_classes(tmp_path, names, kind):
    """Whatever folders are called, each is a class of its images, in natural order, in every kind of archive."""
    path = tmp_path / "upload"
    files = {f"{name}/{value}.png": gray(10 * number + value) for number, name in enumerate(names) for value in (0, 1)}
    write_zip(path, files) if kind == "zip" else write_tar(path, files, {"tar": "w", "tar.xz": "w:xz"}[kind])
    found = prepare_archive(tmp_path, path)
    ordered = sorted(range(len(names)), key=lambda number: natural_key(names[number]))
    assert found.classes == [names[number] for number in ordered]
    assert shades(found) == [(10 * number + value, names[number]) for number in ordered for value in (0, 1)]


@given(st.lists(st.text("ab01 9", max_size=6), max_size=8))
def test_numbers_in_names_sort_as_numbers(names):
    """img2 comes before img10: texts by character, runs of digits by value."""

    def parts(name):
        pieces = re.split(r"([0-9]+)", name)
        return [int(piece or 0) if number % 2 else piece for number, piece in enumerate(pieces)], name

    assert sorted(names, key=natural_key) == sorted(names, key=parts)


def test_zip_of_another_writer_is_read(tmp_path):
    """Names in an old code page, zip64 fields and sizes that follow the data are understood."""
    path = tmp_path / "upload.zip"
    with path.open("wb") as raw, zipfile.ZipFile(Unseekable(raw), "w") as archive:
        for number in range(3):
            with archive.open(f"ä/{number}.png", "w", force_zip64=True) as member:
                member.write(gray(number))
    data = path.read_bytes().replace("ä/".encode(), "ä".encode("cp437") + b"//")
    path.write_bytes(data)
    assert shades(prepare_archive(tmp_path, path)) == [(0, "-"), (1, "-"), (2, "-")]


class Unseekable:
    """A pipe, to a zip writer."""

    def __init__(self, raw):
        self.write, self.flush = raw.write, raw.flush


SIZES_AND_SHAPES = [
    ([(28, 28)] * 3, (28, 28)),
    ([(32, 64)] * 3, (64, 32)),
    ([(178, 218)] * 3, (160, 160)),
    ([(300, 300)] * 2, (256, 256)),
    ([(7, 7)] * 2, (8, 8)),
    ([(20, 30), (50, 40), (200, 100)], (40, 40)),
    ([(16, 16), (16, 17)], (16, 16)),
    ([(8, 40)] * 2, (8, 8)),
]


@pytest.mark.parametrize(("sizes", "shape"), SIZES_AND_SHAPES)
def test_shape_is_chosen_from_the_sizes(tmp_path, sizes, shape):
    """One size that networks can make is kept; else the side is the next below the median of the shorter sides."""
    files = {f"{n}.png": gray(n, height, width) for n, (width, height) in enumerate(sizes)}
    assert prepare_files(tmp_path, files).examples.shape[1:3] == shape


def test_shape_that_was_asked_for(tmp_path):
    """`resolution` is the side of a square."""
    found = prepare_files(tmp_path, {"1.png": gray(1, 20, 30)}, resolution=12, fit="pad")
    assert found.examples.shape == (1, 12, 12, 1)
    assert found.report["sizes"] == [{"width": 30, "height": 20, "count": 1}]
    assert found.report["conversions"] == {"resized": 1}


@pytest.mark.parametrize("options", [{"resolution": 3}, {"resolution": 5000}, {"resolution": 8.5}, {"fit": "squash"}])
def test_bad_option_is_refused(tmp_path, options):
    """An option out of range is refused by its name."""
    error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", {"1.png": gray(1)}), **options)
    assert error.code == "bad_option"
    assert next(iter(options)) in error.message


@pytest.mark.parametrize("size", [(side, side) for side in SIDES] + [(16, 64), (96, 32), (28, 56)])
def test_chosen_shapes_can_be_made(size):
    """Every shape that is chosen without being asked for suits every family."""
    assert is_makeable(*size)
    for family in FAMILIES.values():
        family.check(family.options(), DataSpec(examples=1, width=size[0], height=size[1], channels=1))
