"""LitServe with its batching turned on: up to 64 requests that come within 5 ms are one forward.

A second worker, or its ZeroMQ queue, made no difference on two cores.
"""

import sys

import litserve
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from bench.serving.peers import pictures


class Samples(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - there is only the CPU
        self.generator = pictures.from_environment()

    def decode_request(self, request: Request) -> int:
        return request["seed"]

    def batch(self, inputs: list[int]) -> list[int]:
        return inputs  # one list of seeds; by default it would become an array

    def predict(self, x: list[int]) -> NDArray[np.uint8]:
        return self.generator.make(x)

    def unbatch(self, output: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return list(output)

    def encode_response(self, output: NDArray[np.uint8]) -> Response:
        return Response(pictures.png(output), media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(
        Samples(max_batch_size=64, batch_timeout=0.005), accelerator="cpu", workers_per_device=1
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, access_log=False, log_level="warning"
    )
