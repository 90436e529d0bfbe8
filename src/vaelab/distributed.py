"""Batches that several processes share."""

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributions import Distribution

from vaelab.distributions.flows import Pushforward

T = TypeVar("T")


def whole(share: Tensor, dim: int = 0) -> Tensor:
    """The whole batch's tensor, of this process's share of it along `dim`, with gradients.

    For what is no mean over images, such as a covariance, and in training alone: there the shares
    are equal, and the mean over processes of the gradient is that of one process with it all.
    In an evaluation each process's share stands for itself.
    """
    if not (
        torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized()
    ):
        return share
    gathered: Any = Gathered.apply(share)  # [processes, ...]
    return torch.cat(gathered.unbind(), dim)


def world() -> tuple[int, int]:
    """The number of this process and how many there are: (0, 1) of a process on its own."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def own_share(whole: Tensor) -> Tensor:
    """This process's share [B, ...] of a whole batch's tensor."""
    rank, world_size = world()
    return whole.chunk(world_size)[rank]


def draw_share(q: Distribution, num_samples: int) -> Tensor:
    """Samples [K, B, D] of q, of batch [B]: this process's share of those of the whole batch.

    Each process draws the noise of all of it and keeps its part, so that several processes train
    to what one would.
    """
    rank, world_size = world()
    if world_size == 1:
        return q.rsample((num_samples,))
    source = q.base if isinstance(q, Pushforward) else q
    shares = source.expand((world_size, *q.batch_shape))
    drawn = shares.rsample((num_samples,))[:, rank]
    return q.image(drawn) if isinstance(q, Pushforward) else drawn


def gathered(value: T) -> list[T]:
    """What each process has, in the order of their ranks; any plain value or tensors."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


class Gathered(torch.autograd.Function):
    """The tensors of all processes, of one shape, stacked; PyTorch's own is deprecated."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        parts = [
            torch.empty_like(share, memory_format=torch.contiguous_format)
            for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, share.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """What the losses of all processes have to say of this one's share."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
