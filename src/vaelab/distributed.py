"""Batches that several processes share."""

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

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
