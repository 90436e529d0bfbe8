"""What lets the training loss be one graph for torch.compile."""

import linecache
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Loss = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # of x [B, C, H, W] and y [B, Y]


def compiled(loss: Loss) -> Loss:
    """The loss, compiled at its first call, with the noise that it draws uncompiled.

    It is called as it is once before, without a trace in the random state, for what is made at
    the first call only, such as the table of the KL divergences in closed form, breaks a graph.
    The sources that importing and compiling torch's parts read, 8 MB of lines, are not kept.
    """
    fast: Loss | None = None

    def compiled_loss(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        nonlocal fast
        if fast is not None:
            return fast(x, y)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            loss(x, y)
        linecache.clearcache()
        try:
            fast = torch.compile(loss, options={"fallback_random": True})
            return fast(x, y)
        finally:
            linecache.clearcache()

    return compiled_loss
