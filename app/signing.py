"""Signed addresses: a GET or HEAD that carries its own permission, for pages, which cannot send a key with a picture or a stream.

A signature is an HMAC-SHA256 over the path, the query and the time at which it expires. Path and query count as they are routed,
that is decoded and with the parameters in order of their names, so that an address stays good however a browser or a proxy writes
it, and good for nothing else. Why it is so: docs/adr/0024.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.routing import compile_path

from app.errors import AddressExpired, WrongSignature

EXPIRES, SIGNATURE = "expires", "signature"
MOST_SECONDS = 7 * 86_400  # that an address may be good for
# What a page shows or hands on. Lists and descriptions are for programs, which have a key.
SIGNABLE = (
    "/v1/models/{ref}/samples/{seed}.{extension}",
    "/v1/models/{ref}/grid.{extension}",
    "/v1/models/{ref}/interpolation.{extension}",
    "/v1/models/{ref}/download",
    "/v1/datasets/{dataset}/preview.png",
    "/v1/jobs/{job}/events",
    "/v1/jobs/{job}/grids/{examples_seen}.png",
    "/v1/jobs/{job}/timelapse.webp",
    "/v1/batches/{batch}/archive",
    "/v1/batches/{batch}/shards/{index}",
)

_PATTERNS = [compile_path(template)[0] for template in SIGNABLE]
_ABSOLUTE = re.compile(r"https?://([^/?]+)(/.*)", re.IGNORECASE)
_PLAIN = re.compile(r"[!-~]+")
_BACKSLASH_OR_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_SECONDS = re.compile(r"[0-9]{1,12}")

Query = list[tuple[str, str]]


class Target(NamedTuple):
    """What a signature is good for: the decoded path, and the decoded parameters in order of their names."""

    path: str
    query: Query


class Admitted(NamedTuple):
    """A signed request that was found good: who signed it, what is left of the query, and for how long it stays so."""

    key_id: str
    query: bytes
    seconds: int


@dataclass(frozen=True)
class SigningKey:
    """What the owner of one API key signs with. `id` stands in every address and tells nothing of the key."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, api_key: str, signing_secret: str | None) -> Self:
        """The same in every process that is set up alike; none once the API key is taken away."""
        label = b"ganvil signed address 1: " + hashlib.sha256(api_key.encode()).digest()
        secret = hmac.digest((signing_secret or api_key).encode(), label, "sha256")
        return cls(hmac.digest(secret, b"id", "sha256").hex()[:12], secret)

    def sign(self, target: Target, expires: str) -> str:
        """The signature of a GET or HEAD of the target until `expires`, in seconds since the epoch."""
        code = hmac.digest(self.secret, json.dumps([target.path, target.query, expires]).encode(), "sha256")
        return f"{self.id}.{base64.urlsafe_b64encode(code).decode().rstrip('=')}"


def target_of(url: str, host: str) -> Target:
    """What a URL of ours addresses: a path, or absolute with `host` (name and port). Raises ValueError, saying what is wrong."""
    if not _PLAIN.fullmatch(url) or "#" in url or "\\" in url:
        raise ValueError("an address is percent-encoded ASCII, without spaces, backslashes or a fragment (#)")
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute and absolute[1].lower() != host.lower():
        raise ValueError(f"this is not the service of {absolute[1]}: give the path alone, beginning with /v1/")
    path, _, query = (absolute[2] if absolute else url).partition("?")
    target = Target(_decoded_path(path), canonical(parse_qsl(query, keep_blank_values=True)))
    if {EXPIRES, SIGNATURE} & {name for name, _ in target.query}:
        raise ValueError("it is signed already: give it without expires and signature")
    if any(_BACKSLASH_OR_CONTROL.search(text) for text in (target.path, *sum(target.query, ()))):
        raise ValueError("it holds a control character or a backslash")
    if not any(pattern.fullmatch(target.path) for pattern in _PATTERNS):
        raise ValueError(f"this cannot be signed: what can is {', '.join(SIGNABLE)}")
    return target


def _decoded_path(path: str) -> str:
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError("its path is not UTF-8") from error
    if not path.startswith("/") or {"", ".", ".."} & set(decoded.split("/")[1:]):
        raise ValueError("give a path of this service, beginning with /v1/ and without //, /. and /..")
    return decoded


def canonical(pairs: Iterable[tuple[str, str]]) -> Query:
    """By name; of one that is given several times the order counts."""
    return sorted(pairs, key=itemgetter(0))


def signed(url: str, key: SigningKey, target: Target, expires: int) -> str:
    """The URL with what proves it."""
    proof = urlencode({EXPIRES: expires, SIGNATURE: key.sign(target, str(expires))})
    return f"{url}{'&' if '?' in url else '?'}{proof}"


def is_signed(query: bytes) -> bool:
    """Whether a query claims to be signed. Costs next to nothing, for all others pay it too."""
    return query.startswith(b"signature=") or b"&signature=" in query


def admit(keys: Mapping[str, SigningKey], path: str, query: bytes, now: float) -> Admitted:
    """Judge a GET or HEAD of the decoded path with this query, at `now` in seconds since the epoch.

    Raises WrongSignature and, only where the signature is right, AddressExpired.
    """
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)  # as Starlette reads it
    rest = canonical(pair for pair in pairs if pair[0] not in {EXPIRES, SIGNATURE})
    expires, signature = (_only(pairs, name) for name in (EXPIRES, SIGNATURE))
    key = keys.get(signature.partition(".")[0])
    right = key is not None and hmac.compare_digest(
        key.sign(Target(path, rest), expires).encode(), signature.encode("utf-8")
    )
    if key is None or not right or not _SECONDS.fullmatch(expires):
        raise WrongSignature(
            "This address is not as it was signed: path and query must be those that POST /v1/signed-urls was given."
        )
    seconds = int(expires) - now
    if seconds <= 0:
        raise AddressExpired("This address has expired: POST /v1/signed-urls gives a new one.")
    return Admitted(key.id, urlencode(rest).encode(), int(seconds))


def _only(pairs: Query, name: str) -> str:
    """The value of what is given once; nothing that could be right otherwise."""
    values = [value for known, value in pairs if known == name]
    return values[0] if len(values) == 1 else ""
