"""Annealing schedules: pure functions from the training batches seen to a factor in [0, 1].

Every schedule is 0 at step 0, and 1 from `steps` batches on.
"""

import math
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

Part = Annotated[float, Field(gt=0, le=1)]


def linear(step: int, *, steps: int) -> float:
    """Returns a factor that rises linearly from 0 to 1 over `steps` batches, then stays 1.

    Bowman et al., 2016, arXiv:1511.06349; Sonderby, 2016.
    """
    return min(1.0, step / steps)


def cosine(step: int, *, steps: int) -> float:
    """Returns a factor that rises from 0 to 1 over `steps` along half a cosine, then stays 1."""
    return 0.5 - 0.5 * math.cos(math.pi * linear(step, steps=steps))


def sigmoid(step: int, *, steps: int, sharpness: PositiveFloat = 10.0) -> float:
    """Returns a factor that rises from 0 to 1 over `steps` along a logistic curve, then stays 1.

    The curve is scaled to reach 0 and 1.

    Bowman et al., 2016, figure 2.

    Args:
        sharpness: Length of the interval of the logistic function's argument, centred at 0.
    """
    centred = linear(step, steps=steps) - 0.5
    return 0.5 + 0.5 * math.tanh(sharpness * centred / 2) / math.tanh(sharpness / 4)


def cyclical(step: int, *, steps: int, cycles: PositiveInt = 4, ramp: Part = 0.5) -> float:
    """Returns a factor that rises from 0 to 1 in each cycle, then stays 1 to the cycle's end.

    It restarts at 0 in the next cycle, and is 1 after the last one. Fu et al., 2019,
    arXiv:1903.10145, eq. 6-7.

    Args:
        cycles: M, the number of cycles within `steps`.
        ramp: R, the fraction of a cycle in which the factor rises.
    """
    if step >= steps:
        return 1.0
    position = step * cycles / steps % 1.0
    return min(1.0, position / ramp)
