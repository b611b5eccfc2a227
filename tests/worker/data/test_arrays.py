"""Images that come as arrays: npz files of every shape, and what is refused in them."""

import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tests.worker.preparing import prepare_archive, refusal

RNG = np.random.default_rng(3)


def images(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def npz(folder, **arrays):
    path = folder / "upload.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("name", ["images", "x", "x_train", "X", "arr_0"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_under_any_of_their_names(tmp_path, name, save):
    """The array of images is found under its usual names, compressed or not."""
    array = images(5, 8, 12)
    save(tmp_path / "upload.npz", **{name: array})
    found = prepare_archive(tmp_path, tmp_path / "upload.npz")
    assert np.array_equal(found.examples[..., 0], array)
    assert (found.labels == -1).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("planar", [False, True])
def test_channels_last_and_first(tmp_path, channels, planar):
    """[N, H, W, C] and [N, C, H, W] give the same examples."""
    array = images(6, 8, 16, channels)
    found = prepare_archive(tmp_path, npz(tmp_path, images=np.moveaxis(array, 3, 1) if planar else array))
    assert np.array_equal(found.examples, array)


def test_gray_with_alpha(tmp_path):
    """Two channels are gray and alpha; where alpha is used the examples have four channels."""
    array = images(4, 8, 8, 2)
    found = prepare_archive(tmp_path, npz(tmp_path, images=array))
    assert np.array_equal(found.examples, array[..., [0, 0, 0, 1]])


@given(
    labels=nps.arrays(st.sampled_from([np.int64, np.uint8, np.int32]), 6, elements=st.integers(0, 20)),
    column=st.booleans(),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_are_classes_in_numeric_order(tmp_path, labels, column):
    """Whole numbers are classes by their value; examples are ordered by class and keep their order within."""
    array = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    found = prepare_archive(tmp_path, npz(tmp_path, x=array, y=labels[:, None] if column else labels))
    order = np.argsort(labels, kind="stable")
    assert found.classes == [str(value) for value in np.unique(labels)]
    assert np.array_equal(found.examples[:, 0, 0, 0], order)
    assert [found.classes[label] for label in found.labels] == [str(value) for value in labels[order]]


def test_text_labels(tmp_path):
    """Texts are classes by their name."""
    found = prepare_archive(tmp_path, npz(tmp_path, images=images(3, 8, 8), labels=np.array(["b", "a", "b"])))
    assert found.document["classes"] == [{"name": "a", "count": 1}, {"name": "b", "count": 2}]


class Bomb:
    """Unpickling it would fail the test."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.array([Bomb(), Bomb()], dtype=object)}, "could run code"),
        ({"images": images(3, 8, 8), "labels": np.array([Bomb()] * 3, dtype=object)}, "could run code"),
        ({"images": images(3, 8, 8).astype(np.float32)}, "make them uint8"),
        ({"images": images(3, 8)}, "shape [3, 8]"),
        ({"images": images(3, 8, 8, 7)}, "shape [3, 8, 8, 7]"),
        ({"images": images(0, 8, 8)}, "shape [0, 8, 8]"),
        ({"images": np.asfortranarray(images(3, 8, 8))}, "ascontiguousarray"),
        ({"images": images(3, 8, 8), "labels": np.arange(4)}, "3 images but 4 labels"),
        ({"images": images(3, 8, 8), "labels": np.eye(3, dtype=int)}, "one for each image"),
        ({"images": images(3, 8, 8), "labels": np.float32(1)}, "one for each image"),
        ({"images": images(3, 8, 8), "labels": np.zeros(3)}, "whole numbers"),
        ({"images": images(3, 8, 8), "labels": np.array(["a", "", "b"])}, "empty label"),
        ({"images": images(2, 8, 8), "labels": np.array([0xD800, 65], np.uint32).view("U1")}, "not a text"),
        ({"pictures": images(3, 8, 8)}, "no array named images"),
    ],
)
def test_what_is_refused_in_an_npz(tmp_path, arrays, message):
    """Objects are never unpickled; other types and shapes are refused with what to do."""
    error = refusal(tmp_path, npz(tmp_path, **arrays))
    assert error.code == "bad_npz"
    assert message in error.message


def test_header_of_an_array_is_not_evaluated(tmp_path):
    """A header that is not a plain literal is refused."""
    path = tmp_path / "upload.npz"
    np.savez(path, images=images(3, 8, 8))
    path.write_bytes(path.read_bytes().replace(b"'|u1'", b"str()"))
    assert refusal(tmp_path, path).code == "bad_npz"


def test_damaged_array_is_refused(tmp_path):
    """An array whose checksum does not match is refused whole: which image is wrong cannot be known."""
    path = tmp_path / "upload.npz"
    np.savez(path, images=images(3, 64, 64))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    error = refusal(tmp_path, path)
    assert (error.code, "checksum" in error.message) == ("bad_npz", True)


def test_compressed_zeros_are_refused_by_their_ratio(tmp_path):
    """An npz that unpacks to far too much is a bomb like any zip."""
    assert refusal(tmp_path, npz(tmp_path, images=np.zeros((100, 1000, 1000), np.uint8))).code == "compression_ratio"


def test_too_many_or_too_large_arrays_are_refused(tmp_path):
    """The limits on images and pixels hold for arrays too."""
    path = npz(tmp_path, images=images(3, 16, 16))
    assert refusal(tmp_path, path, {"members": 2}).code == "too_many_members"
    assert refusal(tmp_path, path, {"pixels": 255}).code == "image_too_large"


@pytest.mark.parametrize("descr", ["<U0", "|S0", "|V0"])
def test_items_without_a_size_are_refused(tmp_path, descr):
    """Labels of no bytes each would be read for ever, or not at all."""
    labels = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (4,), }}"
    assert "no size" in refusal(tmp_path, crafted(tmp_path, "(4, 8, 8)", labels)).message


@pytest.mark.parametrize("shape", ["(4, -8, -8)", "(-4, 8, 8)", "(-1,)", "(-4, -8, 8)"])
def test_negative_dimensions_are_refused(tmp_path, shape):
    """Dimensions below zero are refused, though their product may be what the file holds."""
    assert "no size" in refusal(tmp_path, crafted(tmp_path, shape)).message


@pytest.mark.parametrize(
    "header",
    ["-" * 9000 + "1", "(" * 9000, "{[]: 1}", "{1: 2, 'a': 3}", "{'descr': ('a',), 'fortran_order': 1, 'shape': ()}"],
)
def test_header_that_confuses_the_parser_is_refused(tmp_path, header):
    """A header that numpy or Python choke on is an unreadable one."""
    assert "readable header" in refusal(tmp_path, crafted(tmp_path, "(4, 8, 8)", header)).message


def crafted(folder, shape, labels=None):
    """An npz of 256 bytes of images that claim a shape, and of labels whose header is given."""
    arrays = {"images": (f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}", bytes(256))}
    arrays |= {} if labels is None else {"labels": (labels, b"")}
    path = folder / "upload.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name, (header, data) in arrays.items():
            text = header.encode() + b"\n"
            file.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return path
