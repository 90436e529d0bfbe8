from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vaelab.data.factors import Factors


class OnDemand(ABC):
    """Images uint8 [N, C, H, W] that are made when asked for, with what is used of a tensor."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def to(self, device: torch.device | str) -> Self: ...

    @abstractmethod
    def __getitem__(self, rows: Tensor) -> Tensor:
        """Images [n, C, H, W] by their rows [n], which are on the same device."""

    def __len__(self) -> int:
        return self.shape[0]

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        """The same in the words that are fast for a tensor."""
        return self[rows]


@dataclass(frozen=True)
class Splits:
    """Images uint8 [N, C, H, W] and labels int64 [N]; without labels those are zeros.

    The test part is empty where a data set has none of its own. Where the factors are known, row
    i of the training part is image i of their grid.
    """

    train_images: Tensor | OnDemand
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int
    factors: Factors | None = None
