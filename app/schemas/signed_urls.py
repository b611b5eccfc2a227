"""Signed addresses on the wire."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.schemas.base import Body, Time, View
from app.signing import MOST_SECONDS

MOST_URLS = 1000
LONGEST_URL = 10_000  # characters


class SignedUrlsRequest(Body):
    """Which addresses to sign, and for how long."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "urls": ["/v1/models/digits/samples/7.png?class=3", "/v1/jobs/latest/events"],
                "expires_seconds": 3600,
            }
        }
    )

    urls: list[Annotated[str, Field(max_length=LONGEST_URL)]] = Field(
        min_length=1,
        max_length=MOST_URLS,
        description="Paths with their queries, as they are to be embedded; also absolute, with the name by which this request came.",
    )
    expires_seconds: int = Field(3600, ge=1, le=MOST_SECONDS, description="How long from now each of them is good.")


class SignedUrl(View):
    """An address that needs no key."""

    url: str = Field(description="The address as it was given, with `expires` and `signature` in its query.")
    expires_at: Time
