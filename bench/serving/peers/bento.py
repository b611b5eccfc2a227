"""BentoML with adaptive batching and a worker for each core.

A batched method takes and gives lists, so a request has one seed in a list and its answer has the PNG as base64. The other form that the
guide shows, a service in front that answers with the file and asks this one over a socket, was half as fast and refused requests (503).
"""

import base64

import bentoml

from bench.serving.peers import pictures


@bentoml.service(workers="cpu_count", traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Samples:
    def __init__(self) -> None:
        self.generator = pictures.from_environment()

    @bentoml.api(batchable=True, max_batch_size=64)
    def sample(self, seeds: list[int]) -> list[str]:
        made = self.generator.make(seeds)
        return [base64.b64encode(pictures.png(picture)).decode() for picture in made]
