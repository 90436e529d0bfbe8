from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Request:
    """What to draw from, and how much of it.

    Attributes:
        x: Images [N, C, H, W].
        y: What is known of them, [N, Y].
        num_classes: Of the first column of y, by which images are chosen; all of y by itself.
        count: Images, rows or columns of a picture; by itself what suits it.
        labels: Classes of that column to draw, in turn; by itself those of the images.
        given: Places in y and what is there instead, where samples are drawn.
        temperature: Factor of the prior's standard deviation where samples are drawn.
        ends: Two images [2, C, H, W] to interpolate between, instead of those in x.
        training: Gives the training images as k / 255, portions [n, C, H, W], at each call.
    """

    x: Tensor
    y: Tensor
    num_classes: int | None = None
    count: int | None = None
    labels: tuple[int, ...] = ()
    given: tuple[tuple[slice, Tensor], ...] = ()
    temperature: float = 1.0
    ends: Tensor | None = None
    training: Callable[[], Iterable[Tensor]] | None = None

    @property
    def one_hot(self) -> Tensor:
        """The classes of the images, [N, num_classes]."""
        return self.y[:, : self.num_classes]

    @property
    def present(self) -> list[int]:
        """The classes that there are images of."""
        return self.one_hot.any(0).nonzero().flatten().tolist()

    def rows(self, label: int) -> list[int]:
        """Which of the images are of a class."""
        return self.one_hot[:, label].nonzero().flatten().tolist()

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """Images [count, C, H, W] and their y [count, Y]; where too few, they come again."""
        sets = [self.rows(label) for label in self.labels] or [[*range(len(self.x))]]
        turns = [(sets[turn % len(sets)], turn // len(sets)) for turn in range(count)]
        rows = [rows[turn % len(rows)] for rows, turn in turns]
        return self.x[rows], self.y[rows]

    def conditions(self, count: int, labels: Sequence[int] = ()) -> Tensor:
        """The y [count, Y] to draw for: that of images, but for the classes asked for, of which
        there need be no images, and what is given.

        Args:
            count: How many.
            labels: The classes, in turn, instead of those of the request.
        """
        y = self.y[torch.arange(count) % len(self.y)]
        if labels := labels or self.labels:
            y = self.relabelled(y, [labels[turn % len(labels)] for turn in range(count)])
        y = y.clone()
        for place, values in self.given:
            y[:, place] = values.to(y)
        return y

    def relabelled(self, y: Tensor, labels: list[int]) -> Tensor:
        """The same y [n, Y], but of other classes."""
        classes = torch.eye(self.one_hot.shape[1], device=y.device)[labels]
        return torch.cat([classes, y[:, classes.shape[1] :]], 1)
