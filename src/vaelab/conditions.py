"""Conditions: modules from labels y [..., Y] to the context [..., C] of all networks.

y is the one-hot classes of all columns, concatenated, and then numbers. A condition that has
`initialise` sets its buffers from the training images before the first training.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.parts import TrainingImages

ColumnWidths = dict[str, int]  # the number of classes, or of numbers, by the name of a column


class Unconditional(nn.Module):
    """The condition that ignores y: C = 0, so networks have no inputs or weights for a context.

    Args:
        classes: The number of classes of each categorical column of y, by name.
        numbers: The width of each numeric column of y, by name.
    """

    features = 0

    def __init__(self, classes: ColumnWidths, numbers: ColumnWidths) -> None:
        super().__init__()

    def forward(self, y: Tensor) -> Tensor:
        """The empty context [..., 0] of y [..., Y]."""
        return y[..., :0]


class OneHot(nn.Module):
    """The condition that passes y on unchanged, for one-hot classes only (C = Y).

    Args:
        classes: See `Unconditional`.
        numbers: See `Unconditional`.

    Raises:
        UserError: If there are no classes, or there are numbers.
    """

    def __init__(self, classes: ColumnWidths, numbers: ColumnWidths) -> None:
        super().__init__()
        check_classes("one_hot", classes, numbers)
        self.features = sum(classes.values())

    def forward(self, y: Tensor) -> Tensor:
        """The context, which is y [..., Y] itself."""
        return y


class Embedding(nn.Module):
    """The condition of learned vectors per class, concatenated over columns; classes only.

    The vectors start as N(0, I). A y between two classes, as in an interpolation, gets the same
    combination of their vectors.

    Args:
        classes: See `Unconditional`.
        numbers: See `Unconditional`.
        features: Width of a vector.

    Raises:
        UserError: If there are no classes, or there are numbers.
    """

    def __init__(
        self, classes: ColumnWidths, numbers: ColumnWidths, *, features: PositiveInt
    ) -> None:
        super().__init__()
        check_classes("embedding", classes, numbers)
        self.vectors = nn.ParameterList(torch.randn(count, features) for count in classes.values())
        self.features = len(classes) * features

    def forward(self, y: Tensor) -> Tensor:
        """The context [..., C]: the vectors of each column's class, concatenated."""
        parts = y.split([len(vectors) for vectors in self.vectors], -1)
        return torch.cat([p @ v for p, v in zip(parts, self.vectors, strict=True)], -1)


class Continuous(nn.Module):
    """The condition of numbers, standardised over the training images, and one-hot classes.

    C = Y; the classes are passed on unchanged. Loaded weights have the mean and scale.

    Args:
        classes: See `Unconditional`.
        numbers: See `Unconditional`.
        standardize: False to pass numbers on as they are, such as pixels, of which some hardly
            vary (default True, as before there was this setting).

    Raises:
        UserError: If there are no numbers.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, classes: ColumnWidths, numbers: ColumnWidths, *, standardize: bool = True
    ) -> None:
        super().__init__()
        self.standardize = standardize
        if not numbers:
            raise UserError(
                "condition=continuous needs columns of numbers, as data.columns=[age] names, and "
                + (f"{', '.join(classes)} holds classes" if classes else "there are none")
            )
        self.first = sum(classes.values())
        self.features = self.first + sum(numbers.values())
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("scale", torch.ones(self.features))

    @torch.no_grad()
    def initialise(self, data: TrainingImages) -> None:
        """Sets mean and scale of numbers in place, from all training images; scale 1 if constant.

        Called by `ELBO.setup` once. The scale is the standard deviation. Does nothing without
        `standardize`.
        """
        if not self.standardize:
            return
        numbers = data.labels("train")[data.rows["train"]][:, self.first :].double()
        scale = numbers.std(0, correction=0)
        self.mean[self.first :] = numbers.mean(0)
        self.scale[self.first :] = torch.where(scale > 0, scale, 1)

    def forward(self, y: Tensor) -> Tensor:
        """The context [..., Y]: y with its numbers standardised, and classes unchanged."""
        return (y - self.mean) / self.scale


def is_one_hot_label(condition: nn.Module, classes: ColumnWidths) -> bool:
    """True if the condition is `OneHot` and y has exactly one categorical column."""
    return isinstance(condition, OneHot) and len(classes) == 1


def check_classes(name: str, classes: ColumnWidths, numbers: ColumnWidths) -> None:
    """Raises UserError if y has numbers, or no classes; `name` is the condition in the message."""
    if numbers:
        raise UserError(
            f"condition={name} takes classes, and {', '.join(numbers)} holds numbers; "
            "use condition=continuous, or name other data.columns"
        )
    if not classes:
        raise UserError(f"condition={name} needs labels, and the images have none")
