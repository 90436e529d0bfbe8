"""Estimates: means over images, with their standard errors."""

from typing import Any

import torch
from torch import Tensor

Estimate = dict[str, Any]
"""{"value": ..., "se": its standard error, None if there is none}."""


def mean_estimate(values: Tensor) -> Estimate:
    """Returns the mean of values [N], `value`, and its standard error, `se`, None if unknown.

    The values are independent. `se` is None if N = 1, and for booleans that are all equal: a share
    of 0 or 1 shows no deviation. Computed in float64 on the CPU.
    """
    value, se = column_mean_estimates(values[:, None]).values()
    certain = values.dtype == torch.bool and value[0] in (0, 1)
    return {"value": value[0], "se": None if certain else se[0]}


def column_mean_estimates(values: Tensor) -> Estimate:
    """Returns lists `value`, means of columns [N, D], and `se`, standard errors, None if N = 1."""
    values = values.cpu().double()  # Apple's GPUs have no double precision
    return {"value": values.mean(0).tolist(), "se": standard_errors(values)}


def standard_errors(values: Tensor) -> list[float] | list[None]:
    """Returns the standard error of the mean of each column of [N, D]; None for each if N = 1."""
    if len(values) < 2:
        return [None] * values.shape[1]
    return (values.std(0) / len(values) ** 0.5).tolist()


def not_applicable_estimate(reason: str) -> Estimate:
    """Returns an estimate with value and se None, and the reason why the metric is undefined."""
    return {"value": None, "se": None, "reason": reason}
