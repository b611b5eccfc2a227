"""What a signature covers, and how addresses that mean the same are told from others."""

from urllib.parse import quote, quote_plus, unquote, urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.errors import AddressExpired, WrongSignature
from app.main import create_app
from app.settings import Settings
from app.signing import SIGNABLE, SigningKey, admit, signed, target_of

HOST = "ganvil.example:8000"
NOW = 1_800_000_000.5
SAMPLE = "/v1/models/digits:3/samples/7.png"
KEY = SigningKey.of("a-key-of-32-characters-0123456789", None)
KEYS = {KEY.id: KEY}

SEGMENTS = st.text(st.characters(exclude_categories=["C"], exclude_characters="/\\"), min_size=1, max_size=12)
NAMES = st.sampled_from(["class", "type", "seeds", "a b", "ä", "+", "&", "="])
VALUES = st.text(st.characters(exclude_categories=["C"], exclude_characters="\\"), max_size=8)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


def proved(url: str, seconds: int = 60) -> str:
    return signed(url, KEY, target_of(url, HOST), int(NOW) + seconds)


def admitted(url: str, now: float = NOW) -> bytes:
    """What is left of the query of a request for this URL, as a server decodes it."""
    path, _, query = url.partition("?")
    return admit(KEYS, unquote(path), query.encode(), now).query


def escaped_in_full(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def test_what_was_signed_comes_in_without_its_signature() -> None:
    """The query that goes on is the one that was signed, and the rest of the time is told."""
    url = proved(f"{SAMPLE}?class=3")
    assert admitted(url) == b"class=3"
    path, _, query = url.partition("?")
    assert admit(KEYS, path, query.encode(), NOW).seconds == 59
    assert admitted(proved(SAMPLE)) == b""


@given(ref=SEGMENTS, pairs=PAIRS, data=st.data())
def test_the_way_of_writing_does_not_count(ref: str, pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    """Every percent-encoding, `+` for a space and any order of different names: what means the same is the same address."""
    assume(ref not in {".", ".."})
    path = f"/v1/models/{quote(ref)}/samples/7.png"
    url = proved(f"{path}?{urlencode(pairs)}" if pairs else path)
    found = [tuple(pair.split("=", 1)) for pair in url.partition("?")[2].split("&")]
    shuffled = data.draw(st.permutations(sorted({name for name, _ in found})))
    ordered = sorted(found, key=lambda pair: shuffled.index(pair[0]))  # those of one name stay in order
    styles = [data.draw(st.sampled_from([quote, quote_plus, escaped_in_full])) for _ in ordered]
    plain = [
        "=".join(style(unquote(part.replace("+", " "))) if part.isascii() else part for part in pair)
        for style, pair in zip(styles, ordered, strict=True)
    ]
    other_path = f"/v1/models/{escaped_in_full(ref)}/samples/7.png"
    assert admitted(f"{other_path}?{'&'.join(plain)}") == admitted(url)


@given(pairs=PAIRS, others=PAIRS)
def test_another_query_is_another_address(pairs: list[tuple[str, str]], others: list[tuple[str, str]]) -> None:
    """One more parameter, one less, another value, another order of one name: none has the signature."""
    assume(sorted(pairs, key=lambda pair: pair[0]) != sorted(others, key=lambda pair: pair[0]))
    url = f"{SAMPLE}?{urlencode(pairs)}" if pairs else SAMPLE
    proof = "&".join(proved(url).split("&")[-2:]).split("?")[-1]
    with pytest.raises(WrongSignature):
        admitted(f"{SAMPLE}?{urlencode(others)}{'&' if others else ''}{proof}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("samples/7", "samples/8"),
        ("digits:3", "digits:4"),
        ("7.png", "7%2Epng/"),
        ("class=3", "class=4"),
        ("class=3", "class=3&scale=2"),
        ("class=3", "class=3&class=3"),
        ("class=3", "CLASS=3"),
        ("class=3&", ""),
        ("expires=1", "expires=2"),
        ("expires=1", "expires=01"),
        ("expires=", "expires=1&expires="),
        ("expires=", "expire="),
        ("signature=", "signature=&signature="),
        ("signature=", "signature=x"),
        (f"signature={KEY.id}.", "signature="),
        (f"signature={KEY.id}.", "signature=000000000000."),
        (f"signature={KEY.id}.", f"signature={KEY.id}.%C3%BC"),
    ],
)
def test_what_was_tampered_with_is_refused(old: str, new: str) -> None:
    """A change anywhere makes the signature wrong."""
    url = proved(f"{SAMPLE}?class=3")
    assert old in url
    with pytest.raises(WrongSignature):
        admitted(url.replace(old, new, 1))


def test_only_what_was_right_is_told_that_it_expired() -> None:
    """After its time an address says so; a wrong one says nothing of times."""
    url = proved(SAMPLE)
    admitted(url, NOW + 59)
    with pytest.raises(AddressExpired, match="new one"):
        admitted(url, NOW + 60)
    with pytest.raises(WrongSignature):
        admitted(url.replace("/7.", "/8."), NOW + 60)


def test_a_key_that_is_gone_takes_its_addresses_along() -> None:
    """Each key signs by itself, the same in every process, and shows nothing of what it is made from."""
    other = SigningKey.of("another-key-of-32-characters-0123", None)
    with pytest.raises(WrongSignature):
        admit({other.id: other}, SAMPLE, proved(SAMPLE).partition("?")[2].encode(), NOW)
    again = SigningKey.of("a-key-of-32-characters-0123456789", None)
    assert again == KEY
    assert KEY.secret.hex() not in repr(KEY) + str(KEY)
    assert repr(KEY.secret) not in repr(KEY)


def test_a_secret_besides_ends_all_addresses_when_it_changes() -> None:
    """With GANVIL_SIGNING_SECRET the key alone does not sign."""
    made = {secret: SigningKey.of("a-key-of-32-characters-0123456789", secret) for secret in (None, "a" * 16, "b" * 16)}
    assert len({key.id for key in made.values()}) == len({key.secret for key in made.values()}) == 3


@pytest.mark.parametrize("template", SIGNABLE)
def test_what_can_be_signed_exists(template: str) -> None:
    """Each is a GET of the document."""
    assert "get" in create_app(Settings()).openapi()["paths"][template]


@pytest.mark.parametrize(
    "url",
    [
        f"{SAMPLE}?class=3",
        f"http://{HOST}{SAMPLE}",
        f"HTTPS://{HOST.upper()}{SAMPLE}?class=%C3%A4",
        "/v1/models/digits%3A3/download?format=onnx",
        "/v1/jobs/latest/events?type=metrics&type=grid",
    ],
)
def test_our_own_addresses_can_be_signed(url: str) -> None:
    """As a path, or absolute with the name by which we were called; they stay as they were written."""
    assert proved(url).startswith(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "v1/models/a/download",
        "/v1/jobs",
        "/v1/jobs/job_1",
        "/v1/models",
        "/v1/models/digits",
        "/v1/models/a/b/samples/7.png",
        "/v1/keys",
        "/health/live",
        "/v1/signed-urls",
        f"/{SAMPLE}",
        f"//{HOST}{SAMPLE}",
        "//evil.example/v1/models/a/download",
        f"http://evil.example{SAMPLE}",
        f"http://{HOST}.evil.example{SAMPLE}",
        f"http://{HOST}@evil.example{SAMPLE}",
        f"http://user@{HOST}{SAMPLE}",
        f"ftp://{HOST}{SAMPLE}",
        f"file://{SAMPLE}",
        "javascript:alert(1)",
        f"http:{SAMPLE}",
        "/v1/models/../download",
        "/v1/models/%2e%2E/download",
        "/v1/models/a/../b/download",
        "/v1/models/./download",
        "/v1/models//download",
        "/v1//models/a/download",
        f"{SAMPLE}#top",
        f"{SAMPLE}?class=a#",
        f"{SAMPLE} ",
        f" {SAMPLE}",
        f"{SAMPLE}\n",
        f"{SAMPLE}?class=a b",
        f"{SAMPLE}?class=\u00e4",
        f"{SAMPLE}?class=%00",
        f"{SAMPLE}?class=%0d%0aSet-Cookie",
        f"{SAMPLE}%0a",
        "/v1/models/%00/download",
        "/v1/models/a\\b/download",
        "/v1/models/a%5Cb/download",
        "/v1/models/%ff/download",
        f"{SAMPLE}?expires=1",
        f"{SAMPLE}?signature=x",
        f"{SAMPLE}?%73ignature=x",
        proved(SAMPLE),
    ],
)
def test_nothing_else_can(url: str) -> None:
    """Foreign hosts, other schemes, tricks with paths, control characters, what is no picture, stream or file, what is signed already."""
    with pytest.raises(ValueError, match=r"\w"):
        target_of(url, HOST)


def test_a_secret_has_to_be_long() -> None:
    """What could be guessed is refused; an empty one is none."""
    with pytest.raises(ValueError, match="at least 16"):
        Settings(signing_secret="short")
    assert Settings(signing_secret="").signing_secret is None
