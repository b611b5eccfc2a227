"""Several processes that train as one: each takes its share of every batch, and all hold the same weights.

`worker.trainer.launcher` starts them, or torchrun. What they add up is what one process would have computed on the whole batch:
gradients are averaged as one flat vector after each backward pass, and batch normalisation takes its moments over all of them.
Rank 0 alone writes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx
from torch.distributed import FileStore  # type: ignore[attr-defined]

from models.config import ConfigError, TrainingConfig
from models.machine import available_cores
from worker.trainer.failure import Diverged, TrainingFailed
from worker.trainer.launcher import place

Result = TypeVar("Result")

# What the leader may meet, and every rank then raises.
RAISED = (Diverged, TrainingFailed, ConfigError, OSError, RuntimeError, MemoryError)
# How long a rank waits for another that is alive: rank 0 may be evaluating. One that died is noticed by the launcher.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """One process among those of its run. Alone, it does nothing of what is here."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, first: int, n: int) -> tuple[int, int]:
        """The part of the examples first .. first + n - 1 that falls to this rank: where it begins and how many they are."""
        each = n // self.world
        return first + self.rank * each, each

    def average_gradients(self, network: nn.Module) -> None:
        """Replace every gradient by its mean over the ranks."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, wish: bool) -> bool:
        """Whether it is true on any of the ranks."""
        if self.world == 1:
            return wish
        return bool(self.sum(torch.tensor(float(wish))) > 0)  # between the hosts: no GPU is waited for

    def leader(self, act: Callable[[], Result]) -> Result:
        """What `act` returns, or raises, on the leading rank, which alone calls it; everywhere else the same."""
        if self.world == 1:
            return act()
        outcome: list[Any] = [None, None]
        if self.leads:
            try:
                outcome[0] = act()
            except RAISED as error:
                outcome[1] = error
        distributed.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        result: Result = outcome[0]
        return result


@contextmanager
def joined() -> Iterator[Ranks]:
    """The place of this process, as its launcher says it: alone without one. NCCL between GPUs, gloo between CPUs.

    Raises ConfigError where there are fewer GPUs than processes.
    """
    here = place()
    if here is None or here.world == 1:
        yield Ranks()
        return
    if torch.cuda.is_available():
        _check_gpus(here.on_this_machine)
        torch.cuda.set_device(_device_of_rank())
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=FileStore(here.meeting, here.world) if here.meeting else None,  # else as torchrun says
        rank=here.rank,
        world_size=here.world,
        timeout=PATIENCE,
    )
    try:
        yield Ranks(here.rank, here.world)
    finally:
        distributed.destroy_process_group()


def _check_gpus(processes: int) -> None:
    gpus = torch.cuda.device_count()
    if processes > gpus:
        raise ConfigError(
            [("/processes", f"{processes} processes need a GPU each, and there are {gpus}; use at most {gpus}")]
        )


def of_each(config: TrainingConfig, processes: int) -> TrainingConfig:
    """The config of each of so many processes: the run's threads are shared out, at least one for each.

    Two processes of two threads each on two cores are many times slower than of one. More threads than there are cores are left
    as they are: they are refused later, whoever runs them.
    """
    threads = config.threads or torch.get_num_threads()
    if processes == 1 or threads > available_cores():
        return config
    return config.model_copy(update={"threads": max(1, threads // processes)})


def _device_of_rank() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", distributed.get_node_local_rank(0))


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is an all-reduce, as often as one differentiates."""

    @staticmethod
    def forward(_ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        total: Tensor = _SumOverRanks.apply(gradient.contiguous())  # type: ignore[no-untyped-call]
        return total


def _moments(x: Tensor, ranks: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all ranks, float32 [C].

    The few numbers that are exchanged are float64: the difference of squares then loses nothing, however far the mean from zero.
    """
    variance, mean = (moment.double() for moment in torch.var_mean(x, (0, 2, 3), correction=0))
    total: Tensor = _SumOverRanks.apply(torch.stack([mean, variance + mean.square()]))  # type: ignore[no-untyped-call]
    mean, square = total / ranks
    return mean.float(), (square - mean.square()).float()


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batch of all ranks. torch's own works on GPUs only, and cannot be differentiated twice."""

    def forward(self, input: Tensor, *_labels: Tensor | None) -> Tensor:  # noqa: A002 - as in the base class
        if not self.training:
            return super().forward(input)
        x, ranks = input.float(), distributed.get_world_size()
        mean, variance = _moments(x, ranks)
        if self.track_running_stats:
            count = x.numel() // x.shape[1] * ranks
            self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        x = (x - mean[:, None, None]) * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            x = x * self.weight[:, None, None] + self.bias[:, None, None]
        normalised: Tensor = x.to(input.dtype)
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def synchronise(ranks: Ranks, *networks: nn.Module) -> None:
    """Have every batch normalisation of the networks take its moments over all ranks. Parameters and their names stay."""
    if ranks.world == 1:
        return
    for module in chain.from_iterable(network.modules() for network in networks):
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SynchronisedBatchNorm
