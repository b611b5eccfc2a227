"""Steps of training for `bench.gpu`: the trainer's own, on one batch that stays in memory, and what one of them comes to."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from models import ema
from models.config import TrainingConfig
from worker.data.prepared import Data
from worker.engine import Engine
from worker.trainer.adversarial import Adversarial
from worker.trainer.feed import Batch, Feed
from worker.trainer.parallel import Ranks
from worker.trainer.parts import MIXED, Parts
from worker.trainer.settings import settings_at
from worker.trainer.state import State
from worker.trainer.statistics import Statistics

WARM_UP = 3

Step = Callable[[int], None]  # of the number of the step


class Memory(Feed):
    """One batch, always the same."""

    def __init__(self, config: TrainingConfig, data: Data, engine: Engine) -> None:
        super().__init__(config, data, engine, Ranks(), None)
        self._batch_kept: Batch = next(super().parts(0, config.batch_size))

    def parts(self, _first: int, _at_a_time: int) -> Iterator[Batch]:
        yield self._batch_kept


class Silent(Statistics):
    """Adds up nothing: its copies of indices to the GPU cannot be captured."""

    def add(self, weight: float, **values: Tensor) -> None:
        pass


class FromMemory(Adversarial):
    """The trainer's own steps, fed from memory."""

    def __init__(self, config: TrainingConfig, data: Data, engine: Engine, state: State) -> None:
        super().__init__(config, data, engine, Ranks(), undivided(config))
        self._feed = Memory(config, data, engine)
        self._uncompiled = state.D

    def _penalise(self, state: State, *rest: Any) -> None:
        super()._penalise(replace(state, D=self._uncompiled), *rest)


def undivided(config: TrainingConfig) -> Parts:
    return Parts(config.batch_size, lambda _code, message: print(message), whole=MIXED)


def make_step(config: TrainingConfig, data: Data, engine: Engine, way: str) -> Step:
    """One step of both networks in this way; it has been made before, so that nothing is left to prepare."""
    state = State.initial(config, data.spec, engine)
    state.statistics = Silent(engine.device)
    game = FromMemory(config, data, engine, state)
    if way == "compiled":
        state.G, state.D = torch.compile(state.G), torch.compile(state.D)
    step = whole_step(game, state, config)
    if way == "captured":
        return capture(step, config.penalties.every)
    for number in range(WARM_UP):
        step(number)
    return step


def whole_step(game: Adversarial, state: State, config: TrainingConfig) -> Step:
    now = settings_at(config, 0, config.budget.examples, 0)
    keep = ema.decay(config.ema, config.batch_size, 10**9)

    def step(number: int) -> None:
        state.examples_seen = number * config.batch_size
        game.step(state, now)
        ema.update(state.G_ema, state.G, keep)

    return step


def capture(step: Step, every: int) -> Step:
    """Replays of a step with penalties, and of one without where they are lazy."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for number in range(WARM_UP):
            step(number)
    torch.cuda.current_stream().wait_stream(aside)
    graphs = [torch.cuda.CUDAGraph() for _ in range(min(every, 2))]
    for number, graph in enumerate(graphs):
        with torch.cuda.graph(graph):
            step(number)
    return lambda number: graphs[min(number % every, 1)].replay()


def images_per_second(step: Step, config: TrainingConfig, seconds: float, steps: int | None) -> float:
    """Of whole rounds of lazy penalties for so many seconds, or of so many steps."""
    done = 0
    synchronise()
    began = time.perf_counter()
    while (done < steps) if steps else (time.perf_counter() - began < seconds):
        for _ in range(1 if steps else config.penalties.every):
            step(done)
            done += 1
        synchronise()
    return done * config.batch_size / (time.perf_counter() - began)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Operations(TorchDispatchMode):
    """Counts multiplications and additions, each one operation, by torch's own formulas.

    `FlopCounterMode` does the same, but follows modules too, which second derivatives confuse.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution_backward.default:
            self.total += convolution_backward(*args)
        elif formula := flop_registry.get(function.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    """torch's formula forgets the groups in the gradient of the weights."""
    transposed, wanted = rest[4], rest[7]  # gradients of the input, the weights and the biases
    slid = x if transposed else grad  # each weight meets every place of it once
    places = slid.shape[0] * slid.shape[2:].numel()
    return 2 * places * weight.numel() * sum(wanted[:2])


def operations_per_image(config: TrainingConfig, data: Data, engine: Engine) -> float:
    """Of a whole step; lazy penalties count by their share."""
    step, every = make_step(config, data, engine, "eager"), config.penalties.every
    counted = []
    for number in range(min(every, 2)):
        with Operations() as counter:
            step(number)
        counted.append(counter.total)
    return (counted[0] + (every - 1) * counted[-1]) / every / config.batch_size


def count_waits(config: TrainingConfig, data: Data, engine: Engine) -> int | None:
    """How often one step of the trainer, as it is, waits for the GPU; None without one."""
    if engine.device.type != "cuda":
        return None
    state = State.initial(config, data.spec, engine)
    step = whole_step(Adversarial(config, data, engine, Ranks(), undivided(config)), state, config)
    step(0)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step(0)
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in found)
