"""What a part of a model may offer beyond its call.

Shapes: N images, C x H x W pixels, Y width of the labels.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


class TrainingImages(Protocol):
    """The training images, as parts see them before a training that starts afresh.

    Attributes:
        seed: Of the random choices among them.
        rows: The numbers of the images of a part, by its name, such as `train`.
    """

    seed: int
    rows: dict[str, Tensor]

    def stored(self, part: str) -> tuple[Any, Tensor, Tensor]:
        """All stored images, uint8 [N, C, H, W], their classes, and the rows of a part."""
        ...

    def labels(self, part: str) -> Tensor:
        """Y of all stored images of a part, [N, Y]."""
        ...

    def batches(self, part: str) -> Any:
        """The batches (x, y) of a part, in the order of the first epoch."""
        ...


@runtime_checkable
class Initialised(Protocol):
    """A part that takes its first weights from the training images."""

    def initialise(self, data: TrainingImages) -> None:
        """Sets the weights; called once, before a training that starts afresh."""
        ...


@runtime_checkable
class Connected(Protocol):
    """A part, such as a prior made of posteriors, that uses others of its model."""

    def connect(self, model: torch.nn.Module) -> None:
        """Takes what it needs of the model; called when the other parts are made, but the decoder.

        Raises:
            UserError: If it does not go with the model.
        """
        ...
