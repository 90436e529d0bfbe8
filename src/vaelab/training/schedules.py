"""Schedules: pure functions from the training batches seen to a factor in [0, 1].

All of them start at 0, and are 1 after `steps` batches.
"""

import math
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

Part = Annotated[float, Field(gt=0, le=1)]


def linear(step: int, *, steps: int) -> float:
    """From 0 to 1 at a constant pace (Bowman et al., 2016, arXiv:1511.06349; Sonderby, 2016)."""
    return min(1.0, step / steps)


def cosine(step: int, *, steps: int) -> float:
    """From 0 to 1 along half a cosine, slowly at both ends."""
    return 0.5 - 0.5 * math.cos(math.pi * linear(step, steps=steps))


def sigmoid(step: int, *, steps: int, sharpness: PositiveFloat = 10.0) -> float:
    """From 0 to 1 along a logistic curve (Bowman et al., 2016, figure 2), stretched to both ends.

    Args:
        sharpness: Length of the piece of the logistic's axis that is passed through.
    """
    centred = linear(step, steps=steps) - 0.5
    return 0.5 + 0.5 * math.tanh(sharpness * centred / 2) / math.tanh(sharpness / 4)


def cyclical(step: int, *, steps: int, cycles: PositiveInt = 4, ramp: Part = 0.5) -> float:
    """A linear rise over the first `ramp` of each cycle, then flat (Fu et al., 2019).

    arXiv:1903.10145, eq. 6-7.

    Args:
        cycles: M, the number of cycles within `steps`.
        ramp: R, the part of a cycle that rises.
    """
    if step >= steps:
        return 1.0
    position = step * cycles / steps % 1.0
    return min(1.0, position / ramp)
