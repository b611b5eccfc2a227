"""The server that a competent developer writes by hand: a `def` endpoint on FastAPI's threads, one forward at a time.

A lock keeps forwards from fighting over the cores, and encoding runs outside of it, beside the next forward.
"""

import threading

from fastapi import FastAPI, Response

from bench.serving.peers import pictures

app = FastAPI()
generator = pictures.from_environment()
one_forward = threading.Lock()


@app.get("/samples/{seed}.png")
def sample(seed: int) -> Response:
    with one_forward:
        (picture,) = generator.make([seed])
    return Response(pictures.png(picture), media_type="image/png")


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ready": True}
