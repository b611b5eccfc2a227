"""Which of the offered media types a client accepts (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from app.errors import NotAcceptable

MAX_ACCEPT = 4096  # characters, many times what any browser sends


def choose_media_type(accept: str | None, offered: Sequence[str], *, given: str = "This") -> str:
    """The acceptable type of the highest quality, the earlier one of `offered` where it is equal. Raises NotAcceptable, which says what
    it is that is answered so: `given`.
    """
    if accept is not None and len(accept) > MAX_ACCEPT:
        raise NotAcceptable(f"The Accept header has {len(accept)} characters; it may have {MAX_ACCEPT}.")
    ranges = [_parse(part) for part in (accept or "*/*").split(",") if part.strip()]
    qualities = {media_type: _quality(media_type, ranges) for media_type in offered}
    best = max(offered, key=lambda media_type: qualities[media_type])
    if not qualities[best]:
        raise NotAcceptable(f"{given} answers {', '.join(offered)}, none of which the Accept header takes.")
    return best


def _parse(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    try:
        return media_range, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return media_range, 0.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Of the most specific range that covers the type."""
    family = media_type.partition("/")[0]
    for pattern in (media_type, f"{family}/*", "*/*"):
        found = [quality for media_range, quality in ranges if media_range == pattern]
        if found:
            return max(found)
    return 0.0
