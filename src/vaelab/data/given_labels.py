"""Labels of a user's own as classes of a model.

Shapes: N images, K classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vaelab.data.array_columns import convert_classes, decode_texts, is_one_hot
from vaelab.errors import UserError


def class_indices(values: np.ndarray, column: str, names: Sequence[str], count: int) -> Tensor:
    """Returns the index int64 [N] of each class among `names`; UserError if it is none of them.

    One-hot rows and, where no class is named by a whole number, whole numbers are indices already;
    else a class is found by its name.
    """
    if values.ndim == 2 and values.shape[1] > 1 and values.dtype.kind in "biuf":
        if not (values.shape == (count, len(names)) and is_one_hot(values)):
            raise UserError(
                f"{column} has shape {values.shape}, but should be ({count},) or one-hot "
                f"({count}, {len(names)})"
            )
        return torch.from_numpy(values.argmax(1))
    values = convert_classes(column, values, count)
    found, places = np.unique(values, return_inverse=True)
    by_index = values.dtype.kind == "i" and not any(are_numbers([name]) for name in names)
    known = range(len(names)) if by_index else names
    index = {str(name): i for i, name in enumerate(known)}
    for each in found:
        if str(each) not in index:
            shown = ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
            raise UserError(f"{each}: the classes of {column} are {shown}")
    indices = np.array([index[str(each)] for each in found], np.int64)
    return torch.from_numpy(indices[places])


def class_labels(indices: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns the name of each class [N] by its index; int64 where all names are whole numbers."""
    found = np.asarray(names)[indices]
    return found.astype(np.int64) if are_numbers(names) else found


def plain_labels(values: np.ndarray, count: int) -> np.ndarray:
    """Returns labels [N] that no model knows: indices of one-hot rows, bytes as texts, or as is.

    Raises:
        UserError: Unless they are N.
    """
    if values.ndim == 2 and values.dtype.kind in "biuf" and is_one_hot(values):
        values = values.argmax(1)
    if values.dtype.kind == "S":
        values = decode_texts("label", values)
    if values.shape not in ((count,), (count, 1)):
        raise UserError(f"label has shape {values.shape}, but should be ({count},)")
    return values.reshape(-1)


def are_numbers(names: Sequence[str]) -> bool:
    """Returns whether all names of classes are whole numbers, as they are written."""
    return all(str(name).isdecimal() and str(int(name)) == str(name) for name in names)
