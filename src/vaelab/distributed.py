"""Functions for processes that share a batch: gathering, own shares and equal noise."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, distributed
from torch.distributions import Distribution

T = TypeVar("T")


@runtime_checkable
class TransformsNoise(Protocol):
    """A distribution of f(e) with noise e ~ `base`, as a normalizing flow is."""

    base: Distribution

    def transform_noise(self, noise: Tensor) -> Tensor:
        """Returns f(noise), [..., D], with gradients."""
        ...


def gather_batch(share: Tensor, dim: int = 0) -> Tensor:
    """Concatenates all processes' shares along `dim`, collective; returns `share` under no_grad.

    With gradients, every process must call it. With gradients disabled, as in evaluation, or
    without a process group it returns the share itself. All shares need the same shape. For
    statistics that are no mean over images, such as a covariance: averaged over processes, as
    Lightning does, the gradient is that of one process with the whole batch.
    """
    if not (
        torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized()
    ):
        return share
    gathered: Any = AllGather.apply(share)  # [processes, ...]
    return torch.cat(gathered.unbind(), dim)


def rank_and_world_size() -> tuple[int, int]:
    """The rank of this process and the number of processes; (0, 1) without a process group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def own_share(whole: Tensor) -> Tensor:
    """This process's share of the tensor of a whole batch, split along dimension 0."""
    rank, world_size = rank_and_world_size()
    return whole.chunk(world_size)[rank]


def draw_share(q: Distribution, num_samples: int) -> Tensor:
    """Draws [K, B, D] from q by this rank's part of noise for all; needs equal random states.

    Each process draws noise for the whole batch and uses the part of its rank, so training in
    several processes uses the noise that one process would. Not a collective call.
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return q.rsample((num_samples,))
    source = q.base if isinstance(q, TransformsNoise) else q
    shares = source.expand((world_size, *q.batch_shape))
    drawn = shares.rsample((num_samples,))[:, rank]
    return q.transform_noise(drawn) if isinstance(q, TransformsNoise) else drawn


def gather_values(value: T) -> list[T]:
    """Collective call: returns the picklable values of all processes by rank, without gradients.

    Without a process group the list has this value alone.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def max_over_processes(value: int, device: torch.device) -> int:
    """Returns the greatest value of all processes; every process must call it.

    Without a process group it is this process's own value.

    Args:
        value: The value of this process.
        device: A device of the process group's backend.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    found = torch.tensor(value, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


class AllGather(torch.autograd.Function):
    """All-gather with gradients: tensors of one shape from all processes, stacked by rank.

    PyTorch's own such function is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        """Returns the shares of all processes, [processes, ...]; every process must call it."""
        parts = [
            torch.empty_like(share, memory_format=torch.contiguous_format)
            for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, share.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Returns the gradient of the own share, summed over all processes' losses; collective."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
