"""Protocols: optional methods of a model's parts, and the data that those methods get.

Also `OptionsOf`, a mark for the annotation of a setting.

Shapes: N images, C x H x W pixels, Y width of the labels.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution


@dataclass(frozen=True)
class OptionsOf:
    """Marks a dictionary as options of the target of another setting beside it, named `setting`.

    As in `Annotated[dict[str, Any], OptionsOf("optimizer")]`; they are checked by its signature.
    """

    setting: str


class TrainingImages(Protocol):
    """The interface of the data module for parts that initialise themselves from images.

    `vaelab.data.Images` implements it. A `part` is `train`, `val` or `test`.

    Attributes:
        seed: The seed for random choices of images.
        rows: The indices of a part's images in the array of `stored`, by the part's name.
    """

    seed: int
    rows: dict[str, Tensor]

    def stored(self, part: str) -> tuple[Any, Tensor, Tensor]:
        """Returns images uint8 [N, C, H, W], classes [N] (0 if none), and the rows [n] of a part.

        N may exceed n: the rows select the part's images among those returned.
        """
        ...

    def labels(self, part: str) -> Tensor:
        """Returns y [N, Y] of all N images that `stored` returns for a part."""
        ...

    def batches(self, part: str) -> Any:
        """Returns a loader of this process's batches (x, y) of a part, from epoch 0; may raise.

        Raises:
            UserError: If batches cannot be divided over the processes.
        """
        ...


@runtime_checkable
class Initialised(Protocol):
    """A condition, prior or model with `initialise`: first weights from the training images."""

    def initialise(self, data: TrainingImages) -> None:
        """Sets weights in place; called by `ELBO.setup` of a model neither trained nor loaded.

        Where a training is resumed, its checkpoint overwrites them afterwards.
        """
        ...


@runtime_checkable
class Connected(Protocol):
    """A prior or likelihood with `connect`: it uses its model, as VampPrior does the encoder."""

    def connect(self, model: torch.nn.Module) -> None:
        """Keeps parts of the model; `AutoEncoder` calls it before it builds the decoder; may raise.

        Raises:
            UserError: If the part does not fit the model.
        """
        ...


@runtime_checkable
class HasLogMass(Protocol):
    """A distribution over codes with `log_mass`, as the prior of a VQ-VAE."""

    def log_mass(self, codes: Tensor) -> Tensor:
        """Returns log p(codes) [...] of codes [..., N], in nats."""
        ...


@runtime_checkable
class HasTemperature(Protocol):
    """A distribution that can draw at a temperature, as `CodeSequence`, the prior of a VQ-VAE."""

    def with_temperature(self, temperature: float) -> Distribution:
        """Returns a copy that draws at a temperature: 1 unchanged, 0 each code greedily."""
        ...
