"""The columns of a user's own file as y of a trained model."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

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
    names = [*model.classes, *model.numbers] if model.context_dim else []
    if missing := [name for name in names if name not in columns]:
        raise UserError(
            f"this model is told the {' and '.join(missing)} of each image; give labels: an array "
            "beside that of the images, a subfolder for each class, or label=... for all"
        )
    for name in names:
        if len(columns[name]) != count:
            raise UserError(f"{name}: there are {len(columns[name])} for {count} images")
    for name, width in model.numbers.items():
        if name in names and (found := np.reshape(columns[name], (count, -1)).shape[1]) != width:
            raise UserError(f"{name} are {found} wide, and this model takes {width}")
    return model.label_rows({name: columns[name] for name in names}, count)
