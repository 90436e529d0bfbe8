"""The training scalars of the last batches, kept on the device until someone reads them."""

import math

import torch
from lightning import Trainer
from torch import Tensor

from vaelab.errors import NotFiniteError

SCALARS = ("distortion", "rate", "loss", "elbo")  # in the order in which a fault would appear
HELD = 8  # batches whose tensors a window has, at most
UNBOUNDED = ("rate", "elbo")  # infinite for a deterministic code, whose loss does without them


def due(trainer: Trainer) -> bool:
    """Whether the training batch that just ended is one to log after.

    It is where it completed an optimizer step whose number `log_every_n_steps` divides.
    """
    if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
        return False
    together = trainer.accumulate_grad_batches
    return (trainer.fit_loop.batch_idx + 1) % together == 0 or trainer.is_last_batch


def means(distortion: Tensor, rate: Tensor, loss: Tensor) -> Tensor:
    """The mean distortion and rate of a batch, [B] each, and its loss [], as one row [1, 3]."""
    return torch.stack((distortion.mean(), rate.mean(), loss))[None]


class Window:
    """The mean distortion and rate of every training batch, and its loss, since the last reading.

    Appending never waits for the device, and mostly costs nothing. The tensors of a few batches are
    held at once: small ones among large ones cost a process memory that it cannot use, 35 MB if it
    is those of 50 batches of 512 images.
    """

    def __init__(self) -> None:
        self.held: list[tuple[Tensor, Tensor, Tensor]] = []
        self.rows: list[Tensor] = []  # distortion, rate and loss of each batch before, [n, 3]

    def __len__(self) -> int:
        return len(self.held) + sum(map(len, self.rows))

    def __bool__(self) -> bool:  # asked after each batch, which shall cost nothing
        return bool(self.held or self.rows)

    def append(self, distortion: Tensor, rate: Tensor, loss: Tensor) -> None:
        """Takes distortion [B] and rate [B] of one batch, and its loss []."""
        self.held.append((distortion, rate, loss))
        if len(self.held) == HELD:
            self.settle()

    def settle(self) -> None:
        """Has the means of the batches in place of their tensors."""
        rows = [means(*terms) for terms in self.held]
        self.held.clear()
        self.rows.append(torch.cat(rows))

    def read(self, last_batch: int) -> dict[str, float]:
        """Empties the window into the mean of each scalar, after `check`."""
        rows = self.check(last_batch)
        self.rows.clear()
        return dict(zip(SCALARS, rows.mean(0).tolist(), strict=True))

    def check(self, last_batch: int) -> Tensor:
        """SCALARS of every batch, [N, 4] on the CPU, if they are finite.

        A rate may be infinite where the loss is finite: that of a deterministic code is.

        Args:
            last_batch: The number of the newest training batch.

        Raises:
            NotFiniteError: If one is not finite; names the first batch and the term.
        """
        if self.held:
            self.settle()
        kept = torch.cat(self.rows).cpu()
        rows = torch.cat([kept, -kept[:, :2].sum(1, keepdim=True)], 1)
        if rows.isfinite().all():
            return rows
        needed = [name not in UNBOUNDED for name in SCALARS]
        deterministic = (rows[:, 1] == math.inf) & rows[:, needed].isfinite().all(1)
        broken = ~(rows.isfinite().all(1) | deterministic)
        if broken.any():
            first = int(broken.nonzero()[0])
            column = int((~rows[first].isfinite()).nonzero()[0])
            name, value = SCALARS[column], rows[first, column].item()
            step = last_batch - len(rows) + 1 + first
            raise NotFiniteError(f"the {name} became {value} at training step {step}")
        return rows
