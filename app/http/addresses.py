"""The address of a sample, and the answers to it: 304, HEAD, or the picture.

Most requests of a busy service are for single samples. What stands here is what such a request costs, whichever way it comes in:
through its route, or past it (`app.http.express`).
"""

from dataclasses import dataclass

from starlette.datastructures import State
from starlette.types import Receive

from app.formats import Format
from app.http.answers import CLIENT_CLOSED_REQUEST, Headers, cache_headers, pixel_headers, sample_headers
from app.http.downloads import names
from app.http.leaving import UnlessClientLeaves
from app.registry import Resolved
from app.sampling import Encoding, Sampler, Seeds, Sent, sample_shape
from app.settings import Settings


@dataclass(frozen=True)
class Answer:
    """A whole response; without a body its length is not told."""

    status: int
    headers: Headers
    body: bytes | None = None


@dataclass(frozen=True)
class Address:
    """One sample: of which model, from which seed, how."""

    resolved: Resolved
    seed: int
    label: int | None
    truncation: float
    format: Format
    scale: int = 1

    @property
    def class_name(self) -> str | None:
        return None if self.label is None else self.resolved.info["classes"][self.label]

    async def headers(self, sampler: Sampler, settings: Settings) -> Headers:
        """All but the media type."""
        etag = await sampler.etag(self.resolved, self.format, self.seed, self.label, self.truncation, self.scale)
        return cache_headers(self.resolved, settings, etag) | sample_headers(self.seed, self.class_name)

    async def make(self, sampler: Sampler, deadline_seconds: float | None, sent: Sent) -> bytes:
        """The file, for an answer after which `sent` ends. Raises what `Sampler.stream` raises."""
        provenance = await sampler.provenance(self.resolved, self.format)
        text = provenance.of(self.seed, self.class_name, self.truncation, scale=self.scale)
        encoding = Encoding(self.format, lambda *_: text, self.scale)
        inputs = Seeds.of([self.seed], None if self.label is None else [self.label], self.truncation)
        made = await sampler.gather(self.resolved, inputs, encoding, deadline_seconds, sent=sent)
        assert made.files is not None
        return made.files[0]


async def answer(
    address: Address,
    state: State,
    *,
    method: str,
    held: str | None,
    deadline_seconds: float | None,
    receive: Receive,
    sent: Sent,
) -> Answer:
    """What a GET or HEAD of the address gives, `held` being its If-None-Match; `sent` ends when it was sent. Raises what
    `Sampler.stream` raises.
    """
    headers = await address.headers(state.sampler, state.settings)
    if held is not None and names(held, headers["ETag"]):
        return Answer(304, headers)
    headers["Content-Type"] = address.format.media_type
    if address.format.name == "raw":
        info, scale = address.resolved.info, address.scale
        headers |= pixel_headers(sample_shape(info, scale))
    if method == "HEAD":
        return Answer(200, headers)
    with UnlessClientLeaves(receive) as leaving:
        body = await address.make(state.sampler, deadline_seconds, sent)
    return Answer(CLIENT_CLOSED_REQUEST, {}) if leaving.left else Answer(200, headers, body)
