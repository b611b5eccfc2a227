"""Signed addresses, for what cannot send a key: pictures and event streams in a page, and whoever a link is given to."""

import time

from fastapi import APIRouter, Request

from app.errors import FieldError, Forbidden, Invalid
from app.http.auth import ANYONE, SHORT_KEY
from app.http.deps import CallerDep
from app.http.routing import StrictRoute
from app.schemas.base import Listing, problems
from app.schemas.signed_urls import SignedUrl, SignedUrlsRequest
from app.signing import Target, signed, target_of

router = APIRouter(prefix="/v1", tags=["access"], route_class=StrictRoute)


@router.post("/signed-urls", responses=problems(403, 422), summary="Sign addresses")
def sign_urls(request: Request, body: SignedUrlsRequest, caller: CallerDep) -> Listing[SignedUrl]:
    """Each is good for GET and HEAD of that very path and query, from anywhere and without a key, until it expires or the key that
    asked for it is no more. It can be had for samples, grids, interpolations, previews, pictures and events of jobs, downloads and
    batches. Where the service asks for no keys, nothing needs to be signed: the addresses come back as they are.
    """
    targets = targets_of(body.urls, request.headers.get("host", ""))
    expires = int(time.time()) + body.expires_seconds
    key = caller.signing_key
    if key is None and caller is not ANYONE:
        raise Forbidden(
            f"A key of fewer than {SHORT_KEY} characters could be guessed from what it signs: use one that `ganvil key` made, "
            "or set GANVIL_SIGNING_SECRET."
        )
    urls = body.urls if key is None else [signed(url, key, targets[url], expires) for url in body.urls]
    return Listing(data=[SignedUrl(url=url, expires_at=expires) for url in urls])


def targets_of(urls: list[str], host: str) -> dict[str, Target]:
    """What each of them addresses. Raises Invalid, naming all that cannot be signed."""
    targets, errors = {}, []
    for index, url in enumerate(urls):
        try:
            targets[url] = target_of(url, host)
        except ValueError as error:
            errors.append(FieldError(f"#/urls/{index}", str(error)))
    if errors:
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        raise Invalid(f"body {errors[0].pointer}: {errors[0].detail}{more}.", errors=errors)
    return targets
