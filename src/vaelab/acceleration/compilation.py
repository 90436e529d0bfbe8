"""`compile_loss`: torch.compile for the training loss, as one graph."""

import linecache
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # of x [B, C, H, W] and y [B, Y]


def compile_loss(loss: Loss) -> Loss:
    """Wraps a loss to compile it at its first call, which also empties Python's `linecache`.

    Random numbers are drawn uncompiled. The first call first runs the loss once uncompiled, with
    the random state restored after: what torch builds at a first call, such as its table of
    closed-form KL divergences, breaks a graph. `linecache` would keep 8 MB of sources that torch
    read.
    """
    fast: Loss | None = None

    def compiled_loss(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The loss of a batch, compiled at the first call."""
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
