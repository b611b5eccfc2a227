"""What may be asked of a batch, checked before anything is made."""

from dataclasses import dataclass
from typing import NamedTuple

from app.batches.containers import CONTAINERS
from app.errors import FieldError, Invalid
from app.formats import BY_SPELLING, FORMATS
from app.sampling import ranges
from app.sampling.labels import index_of
from app.sampling.seeds import MOST_CHARACTERS, check_count, parse_ranges
from app.tables import Document

SHARD_SAMPLES = 2048  # of small pictures: some ten thousand are made in a second
SHARD_PIXELS = 2**21  # of larger ones, all together
LEAST_SAMPLES = 64
MOST_SHARDS = 10_000  # each is an object and a row
MOST_SHARD_BYTES = 2**30  # of pixels
TOO_MANY = "{count} samples were asked for, and one batch has {limit} at most: make several batches."


@dataclass(frozen=True)
class Request:
    """`class_` is a name or an index; None leaves it to each seed. `format` and `shard_size` None take the defaults."""

    model: str
    seeds: str | list[int]
    class_: str | int | None = None
    truncation: float = 1.0
    format: str | None = None
    container: str = "tar"
    shard_size: int | None = None


class Checked(NamedTuple):
    """The columns of a batch that say what is asked for."""

    seeds: str
    total: int
    options: Document


def check(request: Request, info: Document, *, limit: int) -> Checked:
    """What is asked for, of a model that makes what `info` says. Raises Invalid."""
    seeds = _ranges(request.seeds, limit)
    total = ranges.count(seeds)
    options = {
        "class": None if request.class_ is None else index_of(info["classes"], request.class_),
        "truncation": _truncation(request.truncation),
        "format": _format(request),
        "container": request.container,
        "shard_size": _shard_size(request.shard_size, total, info),
    }
    return Checked(_text(seeds), total, options)


def _ranges(seeds: str | list[int], limit: int) -> list[range]:
    if isinstance(seeds, str):
        return parse_ranges(seeds, limit=limit, too_many=TOO_MANY)
    check_count(len(seeds), limit=limit, pointer="#/seeds", too_many=TOO_MANY)
    return ranges.runs(seeds)


def _text(seeds: list[range]) -> str:
    """What every view of a batch has of its seeds."""
    text = ranges.text(seeds)
    if len(text) > MOST_CHARACTERS:  # only a list may be so long
        detail = f"The list has {len(text)} characters as text, where what follows on one another counts as a range; it may have "
        raise _invalid("#/seeds", f"{detail}{MOST_CHARACTERS}: make several batches, or sort the seeds.")
    return text


def _truncation(value: float) -> float:
    if not 0 < value <= 1:
        raise _invalid("#/truncation", f"The truncation is more than 0 and at most 1, which {value:g} is not.")
    return value


def _format(request: Request) -> str | None:
    container = CONTAINERS.get(request.container)
    if container is None:
        raise _invalid("#/container", f"There is no container {request.container!r}; there is {', '.join(CONTAINERS)}.")
    if not container.is_installed():
        detail = f"{container.name} needs a package that this service lacks: pip install {container.package}."
        raise _invalid("#/container", f"{detail} tar, zip and npz need none.")
    if not container.encodes:
        if request.format is not None:
            raise _invalid("#/format", f"An {container.name} holds the pixels themselves: leave the format out.")
        return None
    name = request.format or "png"
    if name not in BY_SPELLING:
        raise _invalid("#/format", f"There is no format {name!r}; there is {', '.join(FORMATS)}.")
    return BY_SPELLING[name].name


def _shard_size(asked: int | None, total: int, info: Document) -> int:
    height, width, channels = (int(info[name]) for name in ("height", "width", "channels"))
    least = -(-total // MOST_SHARDS)
    most = max(1, MOST_SHARD_BYTES // (height * width * channels))
    if asked is None:
        chosen = max(LEAST_SAMPLES, min(SHARD_SAMPLES, SHARD_PIXELS // (height * width)))
        return min(max(chosen, least), most)
    if asked < least:
        detail = f"Shards of {asked} would be more than {MOST_SHARDS}: ask for shards of at least {least} samples."
        raise _invalid("#/shard_size", detail)
    if asked > most:
        size = f"{width} x {height} x {channels}"
        raise _invalid("#/shard_size", f"A shard of {asked} samples of {size} is too large: ask for at most {most}.")
    return asked


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, detail)])
