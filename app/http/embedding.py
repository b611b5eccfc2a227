"""Answers to signed addresses, which pages of other origins embed: any may read them, and no cache outlives the signature."""

import re

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

# The address is all the permission there is, so that no page can do with it what its reader could not. Pages with
# Cross-Origin-Embedder-Policy need the second.
ANY_ORIGIN = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
MAX_AGE = re.compile(r"max-age=([0-9]+)")


def embedded(send: Send, seconds: int) -> Send:
    """Sends the answer to a signed address that is good for so many seconds more."""

    async def send_embedded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(ANY_ORIGIN)
            headers["Cache-Control"] = cache_control(headers.get("cache-control", ""), seconds)
        await send(message)

    return send_embedded


def cache_control(unsigned: str, seconds: int) -> str:
    """Of a signed answer that would have this Cache-Control otherwise."""
    lasting = MAX_AGE.search(unsigned)
    if lasting is None or "no-store" in unsigned or "no-cache" in unsigned:
        return "private, no-store" if "no-store" in unsigned else "private, no-cache"
    return f"private, max-age={min(int(lasting[1]), seconds)}"
