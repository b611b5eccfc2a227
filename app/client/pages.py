"""The client's calls for what pages show: films, and addresses that need no key."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin

from app.client.transport import Transport, without_none
from app.schemas.signed_urls import SignedUrl


class PageCalls:
    """A part of `app.client.Client`."""

    url: str
    _transport: Transport

    def interpolate(self, model: str, seeds: Sequence[int] | str, **options: Any) -> bytes:
        """The film that `POST /v1/interpolations` makes of the way from seed to seed.

        `options` are `class`, `classes`, `truncation`, `frames`, `fps`, `loop`, `format` (webp or gif) and `scale`.
        """
        body = {"model": model, "seeds": seeds if isinstance(seeds, str) else list(seeds), **options}
        return self._transport.request("POST", "/v1/interpolations", json=body).content

    def sign(self, paths: Sequence[str], *, seconds: int | None = None) -> list[SignedUrl]:
        """URLs that need no key, for pages and for sharing; a path is such as `/v1/models/digits:3/samples/7.png?class=3`."""
        body = without_none(urls=list(paths), expires_seconds=seconds)
        found = self._transport.request("POST", "/v1/signed-urls", json=body).json()["data"]
        return [SignedUrl.model_validate(each | {"url": urljoin(self.url, each["url"])}) for each in found]
