"""Who may come in. ASGI middleware, so that a stranger is turned away before any body is read.

With keys (GANVIL_API_KEYS) every request but those for health and the docs pages must carry one as a bearer token. Without keys
the service is for this machine alone, and then a browser is the danger: any web page may make it send requests to loopback. So
the peer must be local, the Host header must name this machine (else a DNS name was rebound to it), and requests that another
origin's page makes are refused.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Forbidden, GanvilError, Unauthorized
from app.http.problems import refuse

OPEN_PATHS = ("/", "/docs", "/redoc", "/openapi.json")
OPEN_FOLDERS = ("/health/", "/static/")
SHORT_KEY = 16  # characters; `ganvil key` makes 43
LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class OpenToNetwork(Exception):
    """The service was told to listen to a network without keys; the message says how to make one."""


@dataclass(frozen=True)
class Caller:
    """Who makes a request: `name` tells keys apart without giving them away."""

    name: str


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

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self.app = app
        self.digests = [hashlib.sha256(key.encode()).digest() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            caller = self.identify(scope)
        except GanvilError as error:
            await refuse(error, scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def identify(self, scope: Scope) -> Caller:
        """Raises Unauthorized or Forbidden."""
        headers = Headers(scope=scope)
        if not self.digests:
            check_local(scope, headers)
            return ANYONE
        if is_open(scope["path"]):
            return ANYONE
        return self.owner_of_key(headers.get("authorization", ""))

    def owner_of_key(self, authorization: str) -> Caller:
        """The caller whose key this is. Every key is compared in constant time, by digests of equal length."""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        known = [hmac.compare_digest(digest, each) for each in self.digests]
        if scheme.lower() != "bearer" or not any(known):
            reason = "This key is not known" if authorization else "An API key is needed"
            detail = f"{reason}: send one of the service's keys as 'Authorization: Bearer <key>'."
            raise Unauthorized(detail, headers={"WWW-Authenticate": 'Bearer realm="ganvil"'})
        return Caller(f"key-{digest.hex()[:12]}")


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
