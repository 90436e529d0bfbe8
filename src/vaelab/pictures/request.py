"""`Request`: the images, labels and settings that a picture is drawn from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Request:
    """The images, labels and settings that a picture is drawn from.

    Attributes:
        x: Images [N, C, H, W].
        y: Their labels [N, Y]; may be of another length if there are no images.
        num_classes: Number of classes of the first column of y (default: the whole width of y).
        count: Images, rows or columns of a picture (default: depends on the picture).
        labels: Classes of the first column of y to draw, in turn (default: those of the images).
        given: Slices of y and the values to put there, for samples.
        temperature: Factor of the prior's standard deviation, for samples.
        ends: Two images [2, C, H, W] to interpolate between, instead of those in x.
        training: Function that yields the training images as k / 255, in chunks [n, C, H, W].
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
        """The first column of y, one-hot classes of the images [N, num_classes]."""
        return self.y[:, : self.num_classes]

    @property
    def present(self) -> list[int]:
        """The classes with at least one image, in order."""
        return self.one_hot.any(0).nonzero().flatten().tolist()

    def rows(self, label: int) -> list[int]:
        """Returns the indices of the images of a class."""
        return self.one_hot[:, label].nonzero().flatten().tolist()

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns x [count, C, H, W] and y [count, Y], of `labels` in turn; repeats if too few."""
        sets = [self.rows(label) for label in self.labels] or [[*range(len(self.x))]]
        rows = torch.empty(count, dtype=torch.long)
        for i, own in enumerate(sets):
            turns = torch.arange(len(rows[i :: len(sets)]))
            rows[i :: len(sets)] = torch.tensor(own)[turns % len(own)]
        return self.x[rows], self.y[rows]

    def conditions(self, count: int, labels: Sequence[int] = ()) -> Tensor:
        """Returns y [count, Y] to sample for: y of the images, with `labels` and `given` put in.

        There need be no images of these classes.

        Args:
            count: The number of rows.
            labels: Classes to take in turn, instead of those of the request.
        """
        y = self.y[torch.arange(count) % len(self.y)]
        if labels := labels or self.labels:
            y = self.relabelled(y, [labels[turn % len(labels)] for turn in range(count)])
        y = y.clone()
        for place, values in self.given:
            y[:, place] = values.to(y)
        return y

    def relabelled(self, y: Tensor, labels: list[int]) -> Tensor:
        """Returns a copy of y [n, Y] whose first column has these classes [n] instead."""
        classes = torch.eye(self.one_hot.shape[1], device=y.device)[labels]
        return torch.cat([classes, y[:, classes.shape[1] :]], 1)
