"""What the model sees of y: modules from y [..., Y] to the context [..., C] of its networks.

y is one-hot classes, side by side, and then numbers. A condition that has `initialise` sees the
data before a training that starts afresh.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.parts import TrainingImages

Widths = dict[str, int]  # by the name of a column


class Unconditional(nn.Module):
    """Nothing: C = 0, and the networks have no inputs or weights for it.

    Args:
        classes: How many there are, of each column of y that is a class.
        numbers: How wide it is, of each column that is numbers.
    """

    features = 0

    def __init__(self, classes: Widths, numbers: Widths) -> None:
        super().__init__()

    def forward(self, y: Tensor) -> Tensor:
        return y[..., :0]


class OneHot(nn.Module):
    """y as it is, classes only.

    Args:
        classes: See `Unconditional`.
        numbers: See `Unconditional`.

    Raises:
        UserError: If there are no classes, or there are numbers.
    """

    def __init__(self, classes: Widths, numbers: Widths) -> None:
        super().__init__()
        check_classes("one_hot", classes, numbers)
        self.features = sum(classes.values())

    def forward(self, y: Tensor) -> Tensor:
        return y


class Embedding(nn.Module):
    """A learned vector for each class of each column, those of all columns side by side.

    They start as N(0, I). Between two classes, as a picture may be drawn of, it is between theirs.

    Args:
        classes: See `Unconditional`.
        numbers: See `Unconditional`.
        features: Width of a vector.

    Raises:
        UserError: If there are no classes, or there are numbers.
    """

    def __init__(self, classes: Widths, numbers: Widths, *, features: PositiveInt) -> None:
        super().__init__()
        check_classes("embedding", classes, numbers)
        self.vectors = nn.ParameterList(torch.randn(count, features) for count in classes.values())
        self.features = len(classes) * features

    def forward(self, y: Tensor) -> Tensor:
        parts = y.split([len(vectors) for vectors in self.vectors], -1)
        return torch.cat([p @ v for p, v in zip(parts, self.vectors, strict=True)], -1)


class Continuous(nn.Module):
    """Numbers, each with mean 0 and variance 1 over the training images, and one-hot classes.

    Args:
        classes: See `Unconditional`.
        numbers: See `Unconditional`.

    Raises:
        UserError: If there are no numbers.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, classes: Widths, numbers: Widths) -> None:
        super().__init__()
        if not numbers:
            raise UserError(
                "condition=continuous needs columns of numbers, and "
                + (f"{', '.join(classes)} holds classes" if classes else "the images have none")
            )
        self.first = sum(classes.values())
        self.features = self.first + sum(numbers.values())
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("scale", torch.ones(self.features))

    @torch.no_grad()
    def initialise(self, data: TrainingImages) -> None:
        """Takes the mean and the standard deviation of the training images' numbers."""
        numbers = data.labels("train")[data.rows["train"]][:, self.first :].double()
        scale = numbers.std(0, correction=0)
        self.mean[self.first :] = numbers.mean(0)
        self.scale[self.first :] = torch.where(scale > 0, scale, 1)

    def forward(self, y: Tensor) -> Tensor:
        return (y - self.mean) / self.scale


def one_label(condition: nn.Module, classes: Widths) -> bool:
    """Whether what the model sees is one label, one-hot."""
    return isinstance(condition, OneHot) and len(classes) == 1


def check_classes(name: str, classes: Widths, numbers: Widths) -> None:
    """Raises UserError unless y is classes only."""
    if numbers:
        raise UserError(
            f"condition={name} takes classes, and {', '.join(numbers)} holds numbers; "
            "use condition=continuous, or name other data.columns"
        )
    if not classes:
        raise UserError(f"condition={name} needs labels, and the images have none")
