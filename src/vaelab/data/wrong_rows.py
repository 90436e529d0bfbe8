"""Search for the first row of an array that is wrong, for error messages."""

import numpy as np


def first_wrong_row(wrong: np.ndarray) -> int | None:
    """Returns the index of the first row of booleans [N, ...] with a True; None without one."""
    rows = wrong.reshape(len(wrong), -1).any(1)
    return int(rows.argmax()) if rows.any() else None
