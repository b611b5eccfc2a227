"""What a picture says of itself: written once a version, read back as data of untrusted origin."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from app.errors import Invalid
from app.formats import FORMATS, SOFTWARE, format_with
from app.provenance import LONGEST_TEXT, Provenance, Statement, parse
from app.registry import Resolved

INFO = {"height": 8, "width": 8, "channels": 1, "classes": [], "dataset": {"sha256": "d" * 64}}
RESOLVED = Resolved("cats", "cats:3", "a" * 64, "key", INFO, pinned=False, examples_seen=1, kid=None)
ENGINE = "e" * 64
WRITER = Provenance(RESOLVED, FORMATS["png"], ENGINE)


def test_a_sample_says_where_it_comes_from() -> None:
    """Version, weights, data set, engine, seed, class and truncation, as ASCII that reads back as it was meant."""
    text = WRITER.of(2**63 - 1, 'Käfer "2"\n', 0.7)
    assert text.isascii()
    assert json.loads(text) == {
        "software": SOFTWARE,
        "model": "cats:3",
        "sha256": "a" * 64,
        "dataset": "d" * 64,
        "engine": "e" * 16,
        "truncation": 0.7,
        "class": 'Käfer "2"\n',
        "seed": 2**63 - 1,
    }
    said = parse(text)
    assert (said.seed, said.class_, said.truncation, said.scale) == (2**63 - 1, 'Käfer "2"\n', 0.7, 1)


def test_enlarged_samples_and_lossy_formats_say_so() -> None:
    """By these the same file can be made again."""
    said = parse(Provenance(RESOLVED, format_with("webp", quality=70), ENGINE).of(1, None, scale=4))
    assert (said.scale, said.quality, said.class_, said.truncation) == (4, 70, None, 1.0)


def test_a_z_is_told_by_its_digest() -> None:
    """That of its float32 bytes in little-endian order, whatever array it came as."""
    z = np.linspace(-1, 1, 16)
    expected = hashlib.sha256(z.astype("<f4").tobytes()).hexdigest()
    for given in (z, z.astype(np.float32), z.astype(">f4")):
        said = parse(WRITER.of_z(given, "cat"))
        assert (said.z, said.seed, said.class_) == (expected, None, "cat")


def test_a_grid_says_its_seeds_and_columns() -> None:
    """One class for all, an index for each, or none."""
    said = parse(WRITER.of_grid("0-63", 8, "cat", 0.5, scale=2, labels=True))
    assert (said.seeds, said.columns, said.class_, said.scale, said.labels) == ("0-63", 8, "cat", 2, True)
    assert parse(WRITER.of_grid("0-2", 2, [0, 1, 0])).classes == [0, 1, 0]
    plain = parse(WRITER.of_grid("0-2", 2, None))
    assert (plain.classes, plain.class_, plain.labels) == (None, None, False)


def test_other_versions_formats_and_engines_say_other_things() -> None:
    """What they say and the tags of what they make tell them apart, and so does what is asked for."""
    others = [
        Provenance(dataclasses.replace(RESOLVED, label="dogs:1"), FORMATS["png"], ENGINE),
        Provenance(dataclasses.replace(RESOLVED, sha256="b" * 64), FORMATS["png"], ENGINE),
        Provenance(RESOLVED, FORMATS["jpeg"], ENGINE),
        Provenance(RESOLVED, FORMATS["png"], "f" * 64),
        WRITER,
    ]
    assert len({each.common for each in others}) == len(others)
    assert len({each.etag(1, None, 1.0) for each in others}) == len(others)
    assert WRITER.etag(1, None, 1.0) == WRITER.etag(1, None, 1.0) != WRITER.etag(2, None, 1.0)


def test_a_picture_of_too_many_seeds_is_refused() -> None:
    """More than the metadata of some format could hold."""
    with pytest.raises(Invalid, match="ask for seeds in a row"):
        WRITER.of_grid(",".join(str(10**18 + 2 * index) for index in range(4_000)), 64, None)


BASE = json.loads(WRITER.of(1, None))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": 2**63},
        {"seed": "1"},
        {"seed": 1.5},
        {"seed": None},
        {"seeds": "0-3"},
        {"seeds": "0-3", "seed": None},
        {"seeds": "0-3", "seed": None, "columns": 0},
        {"columns": 2},
        {"z": "short", "seed": None},
        {"truncation": 0},
        {"truncation": 2.0},
        {"sha256": "A" * 64},
        {"model": "../../etc"},
        {"model": "cats@prod"},
        {"class": 7},
        {"class": "x" * 300},
        {"classes": [-1]},
        {"scale": 0},
        {"quality": 0},
    ],
    ids=str,
)
def test_what_was_changed_into_nonsense_is_refused(change: dict[str, object]) -> None:
    """Each field within its range, one address and no more."""
    with pytest.raises(Invalid, match="it was changed"):
        parse(json.dumps(BASE | change))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "[" * 50_000,
        '{"seed": ' + "9" * 50_000 + "}",
        '{"truncation": NaN}',
        "\ud800",
        "x" * 70_000,
    ],
    ids=lambda text: text[:12],
)
def test_other_text_is_refused(text: str) -> None:
    """However deep, long or broken."""
    with pytest.raises(Invalid, match="it was changed"):
        parse(text)
    assert len(WRITER.of_grid("1," * 20_000, 8, None)) < LONGEST_TEXT


def test_what_later_versions_add_is_passed_over() -> None:
    """A picture of tomorrow can be read today."""
    assert isinstance(parse(json.dumps(BASE | {"novel": 1})), Statement)
