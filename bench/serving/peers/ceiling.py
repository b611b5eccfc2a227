"""The most that the framework could do: FastAPI reads the seed and answers the fixed bytes of one such PNG."""

from fastapi import FastAPI, Response

from bench.serving.peers import pictures

app = FastAPI()
PNG = pictures.png(pictures.from_environment().make([0])[0])


@app.get("/samples/{seed}.png")
async def sample(seed: int) -> Response:  # noqa: ARG001 - reading it is part of the work
    return Response(PNG, media_type="image/png")


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ready": True}
