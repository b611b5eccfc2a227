"""Films of the way from sample to sample: asked for by a body, or by an address that a page can show."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from app.errors import DeadlineExceeded, FieldError, Invalid
from app.formats import FORMATS, MAX_FRAMES
from app.formats.animations import ANIMATIONS, Animation, check_animation
from app.http.answers import Headers, Whole, cache_headers, unless_client_leaves, without_making
from app.http.deps import FilmsDep, ReferencesDep, SamplerDep, SettingsDep
from app.http.films import Films
from app.http.negotiation import choose_media_type
from app.http.parameters import MAX_CLASS_NAME, SEEDS, UNCHANGED, Deadline, ModelRef, Truncation
from app.http.routing import StrictRoute
from app.registry import Resolved
from app.sampling import Latents, Sampler
from app.sampling.labels import index_of, of_seeds
from app.sampling.paths import length, walk
from app.sampling.seeds import check_count, parse
from app.schemas import interpolations as schema
from app.schemas.base import Responses, problems
from app.schemas.interpolations import InterpolationRequest
from models.randomness import sample_latents

router = APIRouter(prefix="/v1", tags=["samples"], route_class=StrictRoute)

MAX_ADDRESS = 8000  # characters: clients refuse to read longer headers
TOO_MANY_STOPS = "{count} seeds are given, and a film leads over {limit} at most: make several films."
TOO_MANY_FRAMES = (
    "This would be a film of {count} frames, and one request may ask for {limit} samples at most: ask for fewer frames, or give "
    "fewer seeds."
)
RAW = FORMATS["raw"]
Extension = Literal["webp", "gif"]  # the keys of ANIMATIONS, for the document
BY_MEDIA_TYPE = {entry.media_type: entry for entry in ANIMATIONS.values()}
BINARY = {"schema": {"type": "string", "format": "binary"}}
FILM: Responses = {200: {"description": "The film.", "content": dict.fromkeys(BY_MEDIA_TYPE, BINARY)}}
PROBLEMS = problems(404, 409, 410, 422, 429, 504)
Classes = Annotated[
    list[Annotated[str, Query(max_length=MAX_CLASS_NAME)]] | None,
    Query(
        alias="class",
        max_length=MAX_FRAMES,
        description="A class for the whole way by its name or, when none is called so, by its index; given several times, one for "
        "each seed. Without it a conditional model takes at each stop the class that its seed stands for.",
    ),
]


@dataclass(frozen=True)
class Interpolation:
    """A request that was checked. `labels` are the classes of the stops, None without classes."""

    resolved: Resolved
    seeds: list[int]
    labels: list[int] | None
    truncation: float
    frames: int
    fps: float
    loop: bool
    scale: int
    animation: Animation

    async def etag(self, sampler: Sampler) -> str:
        """Of the film, without making it: it follows from the pixels and the encoder."""
        way = [self.seeds, self.labels, self.truncation, self.frames, self.loop]
        return await sampler.etag(self.resolved, RAW, "way", *way, self.fps, self.scale, self.animation.encoder)

    def latents(self) -> Latents:
        """The rows of the frames."""
        info = self.resolved.info
        z = sample_latents(self.seeds, info["z_dim"]) * np.float32(self.truncation)
        labels = None if self.labels is None else np.array(self.labels)
        return walk(z, labels, len(info["classes"]), self.frames, loop=self.loop)

    async def answer(
        self, sampler: Sampler, films: Films, headers: Headers, deadline_seconds: float | None
    ) -> Response:
        """The film, with its ETag among the headers. Raises what `Sampler.stream` raises, and Busy while too many films are made."""

        async def make() -> bytes:
            made = await sampler.gather(self.resolved, self.latents(), None, deadline_seconds)
            encode = partial(self.animation.encode, made.images, self.fps, scale=self.scale, round_trip=self.loop)
            return await films.encode(encode)

        try:
            async with asyncio.timeout(deadline_seconds) as limit:  # also for a film that is made for another request
                data = await films.get(headers["ETag"], make)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                f"It was not done within the {deadline_seconds:g} s that the request allowed."
            ) from error
        return Whole(data, headers=headers, media_type=self.animation.media_type)

    def address(self) -> str:
        """Where the same film can be had by GET."""
        classes = [] if self.labels is None else [self.resolved.info["classes"][label] for label in self.labels]
        query = {
            "seeds": ",".join(map(str, self.seeds)),
            "class": classes[:1] if len(set(classes)) == 1 else classes,
            "truncation": self.truncation,
            "frames": self.frames,
            "fps": self.fps,
            "loop": str(self.loop).lower(),
            "scale": self.scale,
        }
        path = f"/v1/models/{quote(self.resolved.label, safe=':@')}/interpolation.{self.animation.name}"
        return f"{path}?{urlencode(query, doseq=True)}"

    def check(self, limit: int) -> None:
        """Raise Invalid when the film would be too long or too large."""
        frames = length(len(self.seeds), self.frames, loop=self.loop)
        info = self.resolved.info
        check_animation(frames, height=info["height"], width=info["width"], scale=self.scale)
        check_count(frames, limit=limit, pointer="#/frames", too_many=TOO_MANY_FRAMES)


@router.post(
    "/interpolations",
    response_class=Response,
    responses=FILM | PROBLEMS | problems(406),
    summary="Interpolate between samples",
)
async def interpolate(
    request: Request,
    body: InterpolationRequest,
    references: ReferencesDep,
    sampler: SamplerDep,
    films: FilmsDep,
    settings: SettingsDep,
    deadline: Deadline = None,
) -> Response:
    """A film that goes from seed to seed, and from class to class, along the sphere that latent vectors lie on. At each seed stands
    the very sample that it is an address of; in `frames` steps comes the next. `Content-Location` is the address of the same film,
    for pages, where that has no more than 8000 characters.
    """
    animation = animation_of(body.format, request.headers.get("Accept"))
    seeds = stops(body.seeds)
    resolved = await references.resolve(body.model)
    film = Interpolation(
        resolved,
        seeds,
        labels_of_body(body, resolved.info["classes"], seeds),
        body.truncation,
        body.frames,
        round(body.fps, 1),
        body.loop,
        body.scale,
        animation,
    )
    film.check(settings.sync_generation_limit)
    etag = await film.etag(sampler)
    headers = cache_headers(resolved, settings, etag)
    if len(address := film.address()) <= MAX_ADDRESS:
        headers["Content-Location"] = address
    return await unless_client_leaves(request, film.answer(sampler, films, headers, deadline))


@router.get(
    "/models/{ref}/interpolation.{extension}",
    response_class=Response,
    responses=FILM | {304: UNCHANGED} | PROBLEMS,
    summary="An interpolation, by its seeds",
)
@router.head("/models/{ref}/interpolation.{extension}", include_in_schema=False)
async def get_interpolation(
    request: Request,
    references: ReferencesDep,
    sampler: SamplerDep,
    films: FilmsDep,
    settings: SettingsDep,
    ref: ModelRef,
    extension: Annotated[Extension, Path(description="webp keeps every pixel; gif has 256 colours a frame.")],
    seeds: Annotated[str, Query(max_length=8192, description=f"{schema.SEEDS}.", json_schema_extra=SEEDS)] = "0-3",
    classes: Classes = None,
    frames: Annotated[int, Query(ge=1, le=schema.MAX_STEPS, description=schema.FRAMES)] = schema.DEFAULT_FRAMES,
    fps: Annotated[float, Query(ge=0.1, le=60, description=schema.FPS)] = schema.DEFAULT_FPS,
    loop: Annotated[bool, Query(description=schema.LOOP)] = False,
    scale: Annotated[int, Query(ge=1, le=schema.MAX_SCALE, description=schema.SCALE)] = 1,
    truncation: Truncation = 1.0,
    deadline: Deadline = None,
) -> Response:
    """The same film as `POST /v1/interpolations` makes, for pages: the same address gives the same bytes."""
    numbers = stops(seeds)
    resolved = await references.resolve(ref)
    labels = labels_of(resolved.info["classes"], numbers, classes or [])
    how = truncation, frames, round(fps, 1), loop, scale, ANIMATIONS[extension]
    film = Interpolation(resolved, numbers, labels, *how)
    film.check(settings.sync_generation_limit)
    etag = await film.etag(sampler)
    headers = cache_headers(resolved, settings, etag)
    if (known := without_making(request, headers, film.animation.media_type)) is not None:
        return known
    return await unless_client_leaves(request, film.answer(sampler, films, headers, deadline))


def animation_of(name: str | None, accept: str | None) -> Animation:
    """The one that a body names, or else the Accept header. Raises NotAcceptable."""
    if name is not None:
        return ANIMATIONS[name]
    return BY_MEDIA_TYPE[choose_media_type(accept, list(BY_MEDIA_TYPE))]


def stops(given: str | list[int]) -> list[int]:
    """The seeds that a film leads over. Raises Invalid."""
    seeds = parse(given, limit=MAX_FRAMES, too_many=TOO_MANY_STOPS) if isinstance(given, str) else given
    if len(seeds) < 2:
        raise _invalid("seeds", "A way needs two seeds or more: where it begins and where it leads.")
    return seeds


def labels_of_body(body: InterpolationRequest, known: Sequence[str], seeds: Sequence[int]) -> list[int] | None:
    """The class of each stop. Raises Invalid."""
    if body.classes is None:
        return labels_of(known, seeds, [] if body.class_ is None else [body.class_])
    if body.class_ is not None:
        raise _invalid("classes", "Give either class or classes.")
    if len(body.classes) != len(seeds):
        raise _invalid("classes", f"There are {len(body.classes)} classes for {len(seeds)} seeds: give one for each.")
    return [index_of(known, wanted, pointer=f"#/classes/{index}") for index, wanted in enumerate(body.classes)]


def labels_of(known: Sequence[str], seeds: Sequence[int], classes: Sequence[str | int]) -> list[int] | None:
    """The same where one class may stand for all, and none for those that the seeds stand for."""
    if not classes:
        return of_seeds(known, seeds, None)
    if len(classes) not in {1, len(seeds)}:
        detail = f"There are {len(classes)} classes for {len(seeds)} seeds: give one for all, or one for each."
        raise _invalid("class", detail)
    labels = [index_of(known, wanted) for wanted in classes]
    return labels * len(seeds) if len(labels) == 1 else labels


def _invalid(field: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(f"#/{field}", detail)])
