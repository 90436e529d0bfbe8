"""Means over images, with their standard errors."""

from torch import Tensor

Estimate = dict[str, float]
"""{"value": ..., "se": its standard error}."""


def mean(values: Tensor) -> Estimate:
    """The mean of independent values [N] and its standard error."""
    value, se = means(values[:, None]).values()
    return {"value": value[0], "se": se[0]}


def means(values: Tensor) -> dict[str, list[float]]:
    """The same for each column of [N, D]."""
    values = values.cpu().double()  # Apple's GPUs have no double precision
    error = values.std(0) / len(values) ** 0.5
    return {"value": values.mean(0).tolist(), "se": error.tolist()}
