"""Columns: classes and numbers of each image; and y, which is composed of them."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

Names = list[str | int] | str | int
"""Names of columns in a setting: several, or a plain one; a name may be a number."""


def name_list(names: Names | None) -> list[str]:
    """Returns the names of columns in a setting as texts; empty for None."""
    if names is None:
        return []
    return [str(name) for name in (names if isinstance(names, list) else [names])]


@dataclass(frozen=True)
class Column:
    """Class or numbers of each image; a class may be ordinal and have numbers, such as an angle.

    Attributes:
        train: Class of each training image, int64 [N]; or numbers, float [N, W].
        test: The same for the test images.
        classes: Number of classes; 0 for numbers.
        numbers: Numbers of each class, float [classes, W], if it is ordinal.
        val: The same as `train` for the validation images, if the data set has that part.
        names: Names of the classes; default 0, 1, ...
    """

    train: Tensor
    test: Tensor
    classes: int = 0
    numbers: Tensor | None = None
    val: Tensor | None = None
    names: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, default 0, 1, ...; empty for numbers."""
        return self.names or tuple(map(str, range(self.classes)))

    @property
    def width(self) -> int:
        """W, the count of numbers per image or class; 0 without numbers."""
        if self.classes:
            return 0 if self.numbers is None else self.numbers.shape[1]
        return self.train.shape[1]


@dataclass(frozen=True)
class Labels:
    """y [N, Y] of a part's images, composed on indexing: columns one-hot or as numbers.

    Attributes:
        columns: For each column numbers [N, W] and None; or classes [N] and the rows of y that they
            stand for, [classes, W].
        empty: [N, 0], the y if there are no columns.
    """

    columns: tuple[tuple[Tensor, Tensor | None], ...]
    empty: Tensor

    @classmethod
    def from_columns(cls, columns: list[Column], part: str, count: int, numbers: bool) -> Self:
        """Returns the y of a part's `count` images; `numbers`: ordinal classes are not one-hot."""
        rows: list[tuple[Tensor, Tensor | None]] = []
        for column in columns:
            table = None
            if column.classes:
                table = column.numbers if numbers and column.width else torch.eye(column.classes)
            rows.append((getattr(column, part), table))
        return cls(tuple(rows), torch.empty(count, 0))

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy on a device."""
        columns = tuple(
            (values.to(device), None if table is None else table.to(device))
            for values, table in self.columns
        )
        return replace(self, columns=columns, empty=self.empty.to(device))

    def __len__(self) -> int:
        return len(self.empty)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns y [n, Y] of the images with indices [n], which are on the same device."""
        found = [self.empty[:1].expand(len(rows), 0)] if not self.columns else []
        for values, table in self.columns:
            chosen = values.index_select(0, rows)
            found.append(chosen if table is None else table.index_select(0, chosen))
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        """Returns `self[rows]`, ignoring the dimension; named as a tensor's faster indexing."""
        return self[rows]
