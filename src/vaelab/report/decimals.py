"""The number of decimals to show for values and their deviations."""

import math
from collections.abc import Sequence

import numpy as np


def decimal_places(
    values: Sequence[float] | np.ndarray, deviations: Sequence[float] | np.ndarray
) -> int:
    """Returns 0 to 5 decimals: two digits of the median deviation, else about four of the maximum.

    Whole numbers get none, or one if they have deviations.
    """
    spread = np.asarray(deviations, float)
    spread = spread[np.isfinite(spread) & (spread > 0)]
    numbers = np.abs(np.asarray(values, float))
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers) or (numbers == numbers.round()).all():
        return 0 if not len(spread) else 1
    if len(spread):
        typical = float(np.median(spread)) * (1 + 1e-9)  # else rounding gives 0.1 three decimals
        return int(np.clip(1 - math.floor(math.log10(typical)), 0, 5))
    digits = 3 - math.floor(math.log10(max(numbers.max(), 1e-9)))
    return int(np.clip(digits, 2 if digits > -1 else 0, 5))
