from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from vaelab.data.columns import Column
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

    The test part is empty, and there is no validation part, where a data set has none of its own.
    Where the factors are known, row i of the training part is image i of their grid.

    Attributes:
        columns: What else is known of each image, by name.
        class_names: Those of the labels; by default their numbers.
        unused: What else was in the file.
    """

    train_images: Tensor | OnDemand
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int
    factors: Factors | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    val_images: Tensor | None = None
    val_labels: Tensor | None = None
    unused: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Tensor | OnDemand]:
        """The images of the parts that there are, by name."""
        found = {"train": self.train_images, "val": self.val_images, "test": self.test_images}
        return {
            part: images for part, images in found.items() if images is not None and len(images)
        }

    @property
    def pixel_range(self) -> tuple[int, int]:
        """The least and the largest pixel of the training images; of some that are drawn."""
        images = self.train_images
        if isinstance(images, OnDemand):
            images = images[torch.arange(0, len(images), max(1, len(images) // 64))]
        low, high = images.aminmax()
        return int(low), int(high)

    @property
    def names(self) -> list[str]:
        """Of all columns: `label` where there are labels, those of the data set, the factors."""
        label = ["label"] if self.num_classes else []
        return [*label, *self.columns, *(self.factors.names if self.factors else ())]

    def column(self, name: str) -> Column:
        """The column of one of these names."""
        if name == "label":
            labels = self.train_labels, self.test_labels, self.num_classes
            return Column(*labels, val=self.val_labels, names=self.class_names)
        if name in self.columns:
            return self.columns[name]
        assert self.factors is not None
        return self.factors.column(name)
