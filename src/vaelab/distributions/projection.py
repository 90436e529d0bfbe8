"""Clamping of parameters to an interval that they can leave and come back to."""

from typing import Any

import torch
from torch import Tensor


def project(values: Tensor, least: float, most: float) -> Tensor:
    """Returns values clamped to an interval, with a gradient also outside it, if that leads back.

    By `Tensor.clamp` a parameter that has once left the interval has no gradient and stays outside.
    Here the gradient is zero only where a descent step would lead farther out.
    """
    clamped: Tensor = Projection.apply(values, least, most)
    return clamped


class Projection(torch.autograd.Function):
    """The function behind `project`, also for transforms of `torch.func`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, least: float, most: float) -> Tensor:
        """Returns the values clamped to the interval; called by autograd in `apply`."""
        return values.clamp(least, most)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        """Keeps what `backward` needs; called by autograd after `forward`."""
        values, *interval = inputs
        ctx.save_for_backward(values)
        ctx.interval = interval

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        """Returns the gradient, zero where a descent step leads outside; called by autograd."""
        (values,), (gradient,), (least, most) = ctx.saved_tensors, gradients, ctx.interval
        outward = ((values <= least) & (gradient > 0)) | ((values >= most) & (gradient < 0))
        return gradient.masked_fill(outward, 0), None, None
