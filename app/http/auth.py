"""Who may come in. ASGI middleware, so that a stranger is turned away before any body is read.

With keys (GANVIL_API_KEYS) every request but those for health and the docs pages must carry one as a bearer token. Without keys
the service is for this machine alone, and then a browser is the danger: any web page may make it send requests to loopback. So
the peer must be local, the Host header must name this machine (else a DNS name was rebound to it), and requests that another
origin's page makes are refused.

What a page embeds cannot send a key: a GET or HEAD, and no other method, may instead be signed with one (`app.signing`).
"""

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Forbidden, GanvilError, Unauthorized, WrongSignature
from app.http.embedding import ANY_ORIGIN, embedded
from app.http.problems import refuse
from app.signing import SigningKey, admit, is_signed

OPEN_PATHS = ("/", "/docs", "/redoc", "/openapi.json")
OPEN_FOLDERS = ("/health/", "/static/")
SHORT_KEY = 16  # characters; `ganvil key` makes 43
LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class OpenToNetwork(Exception):
    """The service was told to listen to a network without keys; the message says how to make one."""


@dataclass(frozen=True)
class Caller:
    """Who makes a request: `name` tells keys apart without giving them away. A key that cannot be guessed may sign."""

    name: str
    signing_key: SigningKey | None = field(default=None, repr=False)


ANYONE = Caller("anyone")  # on this machine, where no keys are asked for


def check_bind(host: str, api_keys: Sequence[str]) -> None:
    """Raises OpenToNetwork for an address that others can reach when there are no keys."""
    if not api_keys and not is_loopback(host):
        raise OpenToNetwork(
            f"Refusing to listen on {host!r} without API keys: whoever reaches it could use this machine. Make a key with\n"
            '    export GANVIL_API_KEYS="$(ganvil key)"\n'
            "and send it as 'Authorization: Bearer <key>', or listen on 127.0.0.1."
        )


def can_be_guessed(api_keys: Sequence[str]) -> bool:
    """Whether one of the keys is so short that somebody may guess it."""
    return any(len(key) < SHORT_KEY for key in api_keys)


@lru_cache(1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than localhost may mean anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Authentication:
    """Puts the `Caller` into the request's state, or refuses with 401 or 403."""

    def __init__(self, app: ASGIApp, api_keys: Sequence[str], signing_secret: str | None = None) -> None:
        self.app = app
        self.callers = [(_digest(key), caller_of(key, signing_secret)) for key in api_keys]
        signing = [(key, caller) for _, caller in self.callers if (key := caller.signing_key) is not None]
        self.signing_keys = {key.id: key for key, _ in signing}
        self.signers = {key.id: caller for key, caller in signing}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            if self.callers and is_signed(scope["query_string"]):
                caller, send = self.admit_signed(scope, send)
            else:
                caller = self.identify(scope)
        except GanvilError as error:
            await refuse(error, scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def identify(self, scope: Scope) -> Caller:
        """Raises Unauthorized or Forbidden."""
        if not self.callers:
            check_local(scope, Headers(scope=scope))
            return ANYONE
        if is_open(scope["path"]):
            return ANYONE
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return self.owner_of_key(given.decode("latin-1"))

    def owner_of_key(self, authorization: str) -> Caller:
        """The caller whose key this is. Every key is compared in constant time, by digests of equal length."""
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip())
        known = [caller for each, caller in self.callers if hmac.compare_digest(digest, each)]
        if scheme.lower() != "bearer" or not known:
            reason = "This key is not known" if key.strip() else "An API key is needed"
            detail = f"{reason}: send one of the service's keys as 'Authorization: Bearer <key>'."
            raise Unauthorized(detail, headers={"WWW-Authenticate": 'Bearer realm="ganvil"'})
        return known[0]

    def admit_signed(self, scope: Scope, send: Send) -> tuple[Caller, Send]:
        """Who signed the request, which goes on without its signature, and how its answer is sent.

        Raises WrongSignature and AddressExpired. A key beside the signature makes no difference.
        """
        try:
            if scope["method"] not in {"GET", "HEAD"}:
                raise WrongSignature("A signed address is for GET and HEAD.")
            found = admit(self.signing_keys, scope["path"], scope["query_string"], time.time())
        except Forbidden as error:
            error.headers |= ANY_ORIGIN
            raise
        scope["query_string"] = found.query
        return self.signers[found.key_id], embedded(send, found.seconds)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def caller_of(api_key: str, signing_secret: str | None) -> Caller:
    """The owner of a key. A signature lets whoever sees it try keys, unless there is a secret besides, so that short ones do not sign."""
    signs = signing_secret is not None or not can_be_guessed([api_key])
    return Caller(f"key-{_digest(api_key).hex()[:12]}", SigningKey.of(api_key, signing_secret) if signs else None)


def is_open(path: str) -> bool:
    """Whether a path is served without a key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def check_local(scope: Scope, headers: Headers) -> None:
    """Raises Forbidden unless the request comes from this machine and from no foreign web page."""
    peer = scope.get("client")
    if peer is not None and not is_loopback(peer[0]):
        raise Forbidden("Without API keys this service answers its own machine alone: set GANVIL_API_KEYS.")
    host = headers.get("host", "")
    if not LOCAL_HOST.fullmatch(host):
        raise Forbidden("Without API keys the host to use is localhost, 127.0.0.1 or [::1].")
    origin = headers.get("origin")
    if origin is not None and origin != f"{scope['scheme']}://{host}":
        raise Forbidden("Pages of another origin may not use this service.")
    # Pictures and scripts in a foreign page come without Origin. A link to us that a person clicked is harmless.
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        raise Forbidden("Pages of another site may not use this service.")
