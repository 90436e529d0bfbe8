"""A data set: its parts as images and labels, its columns, and images made on demand."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from vaelab.data.columns import Column
from vaelab.data.factors import Factors
from vaelab.observations import PixelScale


class OnDemand(ABC):
    """Abstract images uint8 [N, C, H, W] computed on indexing; part of a tensor's interface."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Returns a copy that computes images on a device."""

    @abstractmethod
    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns images uint8 [n, C, H, W] by indices [n], which are on the same device."""

    def __len__(self) -> int:
        return self.shape[0]

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        """Returns `self[rows]`, ignoring the dimension; named as a tensor's faster indexing."""
        return self[rows]


@dataclass(frozen=True)
class Splits:
    """A data set: images uint8 [N, C, H, W] and labels int64 [N] by part, columns and factors.

    Without labels, these are zeros and `num_classes` is 0. If the data set has no test part, its
    arrays are empty; if it has no validation part, they are None. If the factors are known,
    training image i is image i of their grid.

    Attributes:
        columns: Further columns by name, without label and factors.
        class_names: Names of the label's classes; default 0, 1, ...
        unused: Names of the arrays in the file that were not used.
        remarks: Phrases on what was done to make images and labels of what was read.
        x_names: Names of the columns of vectors, or of the channels of signals; none of images.
        pixel_scale: Black and white of the images, as they were read.
    """

    train_images: Tensor | OnDemand
    train_labels: Tensor
    test_images: Tensor | OnDemand
    test_labels: Tensor
    num_classes: int
    factors: Factors | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    val_images: Tensor | OnDemand | None = None
    val_labels: Tensor | None = None
    unused: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    x_names: tuple[str, ...] = ()
    pixel_scale: PixelScale = field(default_factory=PixelScale)

    @property
    def parts(self) -> dict[str, Tensor | OnDemand]:
        """The images of each part by name; omits parts that are None or empty."""
        found = {"train": self.train_images, "val": self.val_images, "test": self.test_images}
        return {
            part: images for part, images in found.items() if images is not None and len(images)
        }

    @property
    def pixel_range(self) -> tuple[int, int]:
        """The least and largest pixel of the training images; of about 64 if made on demand."""
        images = self.train_images
        if isinstance(images, OnDemand):
            images = images[torch.arange(0, len(images), max(1, len(images) // 64))]
        low, high = images.aminmax()
        return int(low), int(high)

    @property
    def column_names(self) -> list[str]:
        """Names of all columns: `label` if there are labels, further columns, factors."""
        label = ["label"] if self.num_classes else []
        return [*label, *self.columns, *(self.factors.names if self.factors else ())]

    def column(self, name: str) -> Column:
        """Returns the label, a further column or a factor, by a name of `column_names`."""
        if name == "label":
            labels = self.train_labels, self.test_labels, self.num_classes
            return Column(*labels, val=self.val_labels, names=self.class_names)
        if name in self.columns:
            return self.columns[name]
        assert self.factors is not None
        return self.factors.column(name)
