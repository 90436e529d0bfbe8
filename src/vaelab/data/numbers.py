"""`Numbers`, the data module of vectors and signals: real numbers, standardised, or 0 and 1."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaelab.data.images import Images
from vaelab.data.splits import Splits
from vaelab.data.wrong_rows import first_wrong_row
from vaelab.errors import UserError
from vaelab.observations import Units

CHUNK = 2**22  # numbers converted at a time, to bound memory
LISTED = 4  # columns in the description, at most
NOT_BITS = "is not 0 or 1, as data.pixels=binary takes; data.pixels=real takes all numbers"


class Numbers(Images):
    """Lightning data module of vectors [N, C] or signals [N, C, L], held out and batched as images.

    Real numbers are stored as float32 and given to the model as they are stored. Numbers 0 and 1
    are stored as the black and white pixels 0 and 255.

    Args:
        pixels: What the numbers are: `real`, or `binary` for 0 and 1.
        standardize: Whether of real numbers the mean of their column (of a signal, their channel)
            is subtracted, and they are divided by its standard deviation; both are of the training
            rows.
        settings: The settings of `Images`.

    Raises:
        UserError: On first use, as `Images`, or if the numbers are not 0 and 1, or too large.
    """

    def __init__(
        self, *, pixels: Literal["real", "binary"], standardize: bool, **settings: Any
    ) -> None:
        super().__init__(pixels="binary", **settings)
        self.pixels = pixels
        self.standardize = standardize

    @cached_property
    def stored_splits(self) -> Splits:
        """The data set of the source in the units of its file, loaded on first use."""
        return self.source()

    @cached_property
    def units(self) -> Units:
        """Names of the columns or channels, and what their numbers were reduced by.

        Raises:
            UserError: If numbers are too large for their standard deviation to be a number.
        """
        splits = self.stored_splits
        names, count = splits.x_names, splits.train_images.shape[1]
        if self.pixels == "binary" or not self.standardize:
            return replace(Units.default(count), names=names)
        found = []
        x, rows = splits.train_images, self.split_rows(splits)["train"]
        assert isinstance(x, Tensor)
        for name, column in zip(names, x.unbind(1), strict=True):
            values = column[rows].double()
            mean, scale = float(values.mean()), float(values.std(correction=0))
            if not np.isfinite([mean, scale]).all():
                largest = float(values.abs().max())
                raise UserError(f"{name} has numbers up to {largest:g}, too large to standardise")
            # A constant column stays 0; rounding may leave it a deviation of the last digits
            constant = scale <= 1e-12 * abs(mean)
            found.append((mean, 1.0 if constant else scale))
        means, scales = zip(*found, strict=True)
        return Units(names, means, scales)

    @cached_property
    def splits(self) -> Splits:
        """The data set as the model is given it: float32 in the model's units, or uint8 0 and 255.

        Raises:
            UserError: If the numbers are not 0 and 1, or too large, or of other columns than those
                of `units`, which a finished run sets.
        """
        splits = self.stored_splits
        if splits.x_names != self.units.names:
            raise UserError(
                f"the columns of the file are {listed(splits.x_names)}, and the model was trained "
                f"with {listed(self.units.names)}"
            )
        parts = {part: self.convert(part, x) for part, x in splits.parts.items()}
        return replace(
            splits,
            train_images=parts["train"],
            val_images=parts.get("val"),
            test_images=parts.get("test", parts["train"][:0]),
        )

    def convert(self, part: str, x: Any) -> Tensor:
        """Returns a part's stored numbers as float32 in the model's units, or as uint8 0 and 255.

        Raises:
            UserError: If one is not 0 or 1 for pixels=binary, or too large for single precision.
        """
        binary, units, each = self.pixels == "binary", self.units, max(1, x[0].numel())
        shape = (-1, *[1] * (x.dim() - 2))
        mean, scale = (
            torch.tensor(v, dtype=torch.float64).view(shape) for v in (units.mean, units.scale)
        )
        found = torch.empty(x.shape, dtype=torch.uint8 if binary else torch.float32)
        for rows in torch.arange(len(x)).split(max(1, CHUNK // each)):
            some = x[rows]
            if binary:
                check_numbers(part, rows, (some == 0) | (some == 1), some, units, NOT_BITS)
                found[rows] = some.to(torch.uint8) * 255
            else:
                found[rows] = ((some.double() - mean) / scale).float()
                whole = found[rows].isfinite()
                check_numbers(part, rows, whole, some, units, "is too large for single precision")
        return found

    @property
    def shapes(self) -> dict[str, Any]:
        """What a model is built with, as of `Images`, and the units of the numbers."""
        return super().shapes | {"units": self.units.plain}

    def values_text(self) -> str:
        """Returns phrases on columns or channels, how they are standardised, and constant ones."""
        names, train = self.units.names, self.splits.train_images
        assert isinstance(train, Tensor)
        word = "column" if train.dim() == 2 else "channel"
        phrases = [f"{len(names)} {word}{'s' * (len(names) > 1)}"]
        if self.pixels == "binary":
            return f"{phrases[0]} of 0 and 1: {listed(names)}"
        low, high = (float(end) for end in train.aminmax())
        reach = f"from {low:.3g} to {high:.3g}"
        if self.standardize:
            reduced = zip(names, self.units.mean, self.units.scale, strict=True)
            shown = listed(f"{name} {mean:.3g} ± {scale:.3g}" for name, mean, scale in reduced)
            nats = float(np.log(self.units.scale).sum()) * train[0, 0].numel()
            phrases[0] += f", standardised by mean and deviation in training: {shown}; now {reach}"
            more = f"{abs(nats):.4g} {'less' if nats < 0 else 'more'}"
            phrases.append(f"nats are of these numbers, those of the file have {more}")
        else:
            phrases[0] += f" {reach}, as in the file: {listed(names)}"
        rows = self.rows["train"]
        constant = [n for n, x in zip(names, train.unbind(1), strict=True) if x[rows].var() == 0]
        if constant:
            phrases.append(f"the same in all training rows: {listed(constant)}")
        return "; ".join(phrases)


def listed(texts: Iterable[str]) -> str:
    """Returns the first four texts with commas between them, and `...` if there are more."""
    found = [*texts]
    return ", ".join(found[:LISTED]) + (", ..." if len(found) > LISTED else "")


def check_numbers(
    part: str, rows: Tensor, right: Tensor, stored: Tensor, units: Units, fault: str
) -> None:
    """Raises UserError with the first number that is wrong, its row and its column or channel.

    Args:
        part: `train`, `val` or `test`.
        rows: Indices [n] of the rows that are checked.
        right: Whether each number is right, [n, C, ...].
        stored: The numbers as stored, for the message.
        units: Has the names of columns or channels.
        fault: What is wrong, for the message.
    """
    row = first_wrong_row(~right.numpy())
    if row is not None:
        place = tuple((~right[row]).nonzero()[0].tolist())
        raise UserError(
            f"{units.names[place[0]]} of {part} row {int(rows[row])}: "
            f"{float(stored[row][place]):g} {fault}"
        )
