"""What is known of images beside their pixels, and y, which is made of it."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Column:
    """A class of each image, or numbers; or a class that stands for numbers.

    Attributes:
        train: int64 [N], the class of each image of the training part; or numbers, float [N, W].
        test: The same of the test part.
        classes: How many; zero for numbers.
        numbers: Float [classes, W], those of each class where it stands for some.
        val: The same as `train` of the validation part, where there is one.
        names: Of the classes; by default their numbers.
    """

    train: Tensor
    test: Tensor
    classes: int = 0
    numbers: Tensor | None = None
    val: Tensor | None = None
    names: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classes are called."""
        return self.names or tuple(map(str, range(self.classes)))

    @property
    def width(self) -> int:
        """W, or zero where there are no numbers."""
        if self.classes:
            return 0 if self.numbers is None else self.numbers.shape[1]
        return self.train.shape[1]


@dataclass(frozen=True)
class Labels:
    """y [N, Y] of all images of a part, made when asked for: one-hot classes, and then numbers.

    Attributes:
        columns: Rows of numbers [N, W], or classes [N] and their rows in y, [classes, W].
        empty: [N, 0], for images of which nothing is asked.
    """

    columns: tuple[tuple[Tensor, Tensor | None], ...]
    empty: Tensor

    @classmethod
    def of(cls, columns: list[Column], part: str, count: int, numbers: bool) -> Self:
        """Those of a part; with `numbers`, those that classes stand for."""
        rows: list[tuple[Tensor, Tensor | None]] = []
        for column in columns:
            table = None
            if column.classes:
                table = column.numbers if numbers and column.width else torch.eye(column.classes)
            rows.append((getattr(column, part), table))
        return cls(tuple(rows), torch.empty(count, 0))

    def to(self, device: torch.device | str) -> Self:
        columns = tuple(
            (values.to(device), None if table is None else table.to(device))
            for values, table in self.columns
        )
        return replace(self, columns=columns, empty=self.empty.to(device))

    def __len__(self) -> int:
        return len(self.empty)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The y [n, Y] of images by their rows [n], which are on the same device."""
        found = [self.empty[:1].expand(len(rows), 0)] if not self.columns else []
        for values, table in self.columns:
            chosen = values.index_select(0, rows)
            found.append(chosen if table is None else table.index_select(0, chosen))
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        """The same in the words that are fast for a tensor."""
        return self[rows]
