"""Labels of the user's own for a trained model: as classes, and as its y.

Shapes: N images, K classes, Y width of y.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vaelab.data.array_columns import convert_classes, convert_numbers, is_one_hot
from vaelab.elbo import ELBO
from vaelab.errors import UserError


def labels_to_y(model: ELBO, columns: Mapping[str, np.ndarray], count: int) -> Tensor:
    """Returns y [N, Y] of the columns that a model is conditional on; zeros if on none.

    Args:
        model: Says the columns: classes, by name, index or one-hot, and numbers.
        columns: The values by name, [N] or [N, ...]; others than the model's are ignored.
        count: N.

    Raises:
        UserError: If a column is missing, of another length, or has a class that is none.
    """
    if not model.context_dim:
        return torch.zeros(count, model.y_dim)
    names = [*model.classes, *model.numbers]
    if missing := [name for name in names if name not in columns]:
        raise UserError(
            f"this model is told the {' and '.join(missing)} of each image; give labels: an array "
            "beside that of the images, a subfolder for each class, or label=... for all"
        )
    parts = [
        torch.eye(width)[class_indices(columns[name], name, model.class_names[name], count)]
        for name, width in model.classes.items()
    ]
    for name, width in model.numbers.items():
        numbers = convert_numbers(name, columns[name], count)
        if numbers.shape[1] != width:
            raise UserError(f"{name} are {numbers.shape[1]} wide, and this model takes {width}")
        parts.append(numbers)
    return torch.cat(parts, 1)


def class_indices(values: np.ndarray, column: str, names: Sequence[str], count: int) -> Tensor:
    """Returns the index int64 [N] of each class among `names`; UserError if it is none of them.

    One-hot rows and, where names are words, whole numbers are indices already; else a class is
    found by its name.
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
    by_index = values.dtype.kind == "i" and not are_numbers(names)
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
    """Returns labels [N] that no model knows, as they are; raises UserError unless they are N."""
    if values.shape not in ((count,), (count, 1)):
        raise UserError(f"label has shape {values.shape}, but should be ({count},)")
    return values.reshape(-1)


def are_numbers(names: Sequence[str]) -> bool:
    """Returns whether all names of classes are whole numbers, as they are written."""
    return all(str(name).isdecimal() and str(int(name)) == str(name) for name in names)
