from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Request:
    """What to draw from, and how much of it.

    Attributes:
        x: Images [N, C, H, W].
        y: Their one-hot labels [N, Y].
        count: Images, rows or columns of a picture; by itself what suits it.
        labels: Classes to draw, in turn; by itself those of the images.
        temperature: Factor of the prior's standard deviation where samples are drawn.
        ends: Two images [2, C, H, W] to interpolate between, instead of those in x.
        training: Gives the training images as k / 255, portions [n, C, H, W], at each call.
    """

    x: Tensor
    y: Tensor
    count: int | None = None
    labels: tuple[int, ...] = ()
    temperature: float = 1.0
    ends: Tensor | None = None
    training: Callable[[], Iterable[Tensor]] | None = None

    @property
    def present(self) -> list[int]:
        """The classes that there are images of."""
        return self.y.any(0).nonzero().flatten().tolist()

    def rows(self, label: int) -> list[int]:
        """Which of the images are of a class."""
        return self.y[:, label].nonzero().flatten().tolist()

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """Images [count, C, H, W] and their labels [count, Y]; where too few, they come again."""
        sets = [self.rows(label) for label in self.labels] or [[*range(len(self.x))]]
        turns = [(sets[turn % len(sets)], turn // len(sets)) for turn in range(count)]
        rows = [rows[turn % len(rows)] for rows, turn in turns]
        return self.x[rows], self.y[rows]

    def conditions(self, count: int) -> Tensor:
        """Labels [count, Y] to draw for, whether or not there are images of them."""
        if not self.labels:
            return self.images(count)[1]
        return one_hot([self.labels[turn % len(self.labels)] for turn in range(count)], self.y)


def one_hot(labels: list[int], like: Tensor) -> Tensor:
    """Labels as rows [N, Y], of the width and on the device of others."""
    return torch.eye(like.shape[1], device=like.device)[labels]
