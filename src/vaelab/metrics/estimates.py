"""Means over images, with their standard errors."""

from typing import Any

from torch import Tensor

Estimate = dict[str, Any]
"""{"value": ..., "se": its standard error, None if there is none}."""


def mean(values: Tensor) -> Estimate:
    """The mean of independent values [N] and its standard error."""
    value, se = means(values[:, None]).values()
    return {"value": value[0], "se": se[0]}


def means(values: Tensor) -> Estimate:
    """The same for each column of [N, D]."""
    values = values.cpu().double()  # Apple's GPUs have no double precision
    return {"value": values.mean(0).tolist(), "se": standard_error(values)}


def standard_error(values: Tensor) -> list[float] | list[None]:
    """That of the mean of each column of [N, D], none where a single value has no deviation."""
    if len(values) < 2:
        return [None] * values.shape[1]
    return (values.std(0) / len(values) ** 0.5).tolist()


def not_applicable(reason: str) -> Estimate:
    """In place of a number that does not exist for these data."""
    return {"value": None, "se": None, "reason": reason}
