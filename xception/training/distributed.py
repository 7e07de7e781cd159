"""Several processes as one: what torchrun starts, torch.distributed joins.

One process is the case of a world of one, in which none of these functions communicates.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor, nn

from xception.errors import UserError

T = TypeVar("T")

#: How long processes wait for the leader, who looks at all photos while they do.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """The world that torchrun describes in the environment, or this process alone.

    Raises:
        UserError: the device is unknown or not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(device=chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(rank=dist.get_rank(), size=size, device=chosen)
    finally:
        dist.destroy_process_group()


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name; `auto` prefers CUDA, then Apple's MPS, then the CPU."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device is called {name!r}; one of auto, cpu, cuda, mps") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("no CUDA device is to be had here; --device cpu works anywhere")
        return device if device.index is not None else torch.device("cuda", local_rank)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("no MPS device is to be had here; --device cpu works anywhere")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "mps":
        raise UserError(f"the device {name!r} is not supported; one of auto, cpu, cuda, mps")
    return device


M = TypeVar("M", bound=nn.Module)


def place(module: M, device: torch.device) -> M:
    """The module on a device, its weights channels last (on a CPU nearly twice as fast)."""
    return module.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def gather(world: World, value: T) -> list[T]:
    """Every process' value, in the order of their ranks, on every process."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return [v for v in values if v is not None]


def share(world: World, value: T) -> T:
    """The leader's value on every process."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def lead(world: World, work: Callable[[], T]) -> T:
    """What the leader's `work` gives, on every process.

    Raises:
        UserError: the work failed; the leader says why, the others end with status 2 in silence.
    """
    outcome: tuple[T | None, UserError | None] = (None, None)
    if world.leads:
        try:
            outcome = work(), None
        except UserError as error:
            if world.size == 1:
                raise
            outcome = None, error
    outcome = share(world, outcome)
    if outcome[1] is not None:
        raise outcome[1] if world.leads else SystemExit(2)
    return cast(T, outcome[0])


def largest(world: World, value: int) -> int:
    """The largest of the processes' numbers; how a signal to one becomes a signal to all."""
    if world.size == 1:
        return value
    box = torch.tensor([value], device=world.device)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box)


def mean_over(world: World, counts: Int64[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The mean of the processes' counts, on every process."""
    if world.size > 1:
        counts = counts.clone()
        dist.all_reduce(counts)
    return counts / world.size


def synchronize_batch_norms(module: nn.Module, world: World) -> nn.Module:
    """Batch statistics over the global batch instead of each process' part."""
    if world.size == 1:
        return module
    if world.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = GlobalBatchNorm2d  # same fields, another forward
    return module


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, for each process uses the sum."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all processes for devices that torch's SyncBatchNorm does not know (the CPU).

    Every process must hold equally many photos.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise with the mean and variance of the global batch; running ones in evaluation."""
        if not self.training:
            return super().forward(input)
        count = input.numel() // input.shape[1] * dist.get_world_size()
        mean = _Sum.apply(input.sum((0, 2, 3))) / count
        centred = input - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _remember(self, mean: Float[Tensor, "c"], variance: Float[Tensor, "c"]) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
