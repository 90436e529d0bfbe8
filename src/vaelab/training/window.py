"""Training scalars of the batches since the last logging step, kept on the device."""

import math

import torch
from lightning import Trainer
from torch import Tensor

from vaelab.errors import NotFiniteError

SCALARS = ("distortion", "rate", "loss", "elbo")  # the first one not finite is named as the fault
HELD = 8  # batches whose tensors a window holds before it reduces them to means
UNBOUNDED = ("rate", "elbo")  # infinite for a deterministic code, whose loss does not use them


def is_logging_step(trainer: Trainer) -> bool:
    """Returns whether the last batch completed an optimizer step to log after.

    These are the steps whose number `log_every_n_steps` divides.
    """
    if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
        return False
    return has_completed_step(trainer)


def has_completed_step(trainer: Trainer) -> bool:
    """Returns whether the last batch completed an optimizer step; True before the first batch.

    False if its gradients only were accumulated.
    """
    together = trainer.accumulate_grad_batches
    return (trainer.fit_loop.batch_idx + 1) % together == 0 or trainer.is_last_batch


def batch_means(distortion: Tensor, rate: Tensor, loss: Tensor) -> Tensor:
    """Returns the means of distortion [B] and rate [B], and the loss [], as one row [1, 3]."""
    return torch.stack((distortion.mean(), rate.mean(), loss))[None]


class Window:
    """Mean distortion, mean rate and loss of each training batch since the last `pop_means`.

    Appending never waits for the device. The tensors of at most `HELD` batches are kept: small
    tensors allocated among large ones fragment memory, 35 MB for 50 batches of 512 images.
    """

    def __init__(self) -> None:
        self.held: list[tuple[Tensor, Tensor, Tensor]] = []
        self.rows: list[Tensor] = []  # means of earlier batches, [n, 3]: distortion, rate, loss

    def all_rows(self) -> Tensor:
        """Returns the means of all batches, [n, 3] on the CPU; waits for the device."""
        if self.held:
            self.reduce_held()
        if not self.rows:
            return torch.zeros(0, 3)
        device = self.rows[-1].device  # rows of a checkpoint are on the CPU
        return torch.cat([rows.to(device) for rows in self.rows]).cpu()

    def replace_rows(self, rows: Tensor) -> None:
        """Replaces the batches of the window by these means, [n, 3]."""
        self.held, self.rows = [], [rows] if len(rows) else []

    def __len__(self) -> int:
        return len(self.held) + sum(map(len, self.rows))

    def __bool__(self) -> bool:  # called after each batch; cheaper than __len__
        return bool(self.held or self.rows)

    def append(self, distortion: Tensor, rate: Tensor, loss: Tensor) -> None:
        """Adds distortion [B], rate [B] and loss [] of one batch; waits for no device."""
        self.held.append((distortion, rate, loss))
        if len(self.held) == HELD:
            self.reduce_held()

    def reduce_held(self) -> None:
        """Replaces the held tensors of batches by their means; waits for no device."""
        rows = [batch_means(*terms) for terms in self.held]
        self.held.clear()
        self.rows.append(torch.cat(rows))

    def pop_means(self, last_batch: int) -> dict[str, float]:
        """Returns means of SCALARS, rate maybe inf; empties the window; raises if not finite."""
        rows = self.finite_rows(last_batch)
        self.rows.clear()
        return dict(zip(SCALARS, rows.mean(0).tolist(), strict=True))

    def finite_rows(self, last_batch: int) -> Tensor:
        """Returns SCALARS of the N batches, [N, 4] on the CPU; raises if one is not finite.

        Waits for the device, and keeps the window as it is. Accepts an infinite rate and elbo if
        the loss is finite, as for a deterministic code.

        Args:
            last_batch: The number of the newest training batch.

        Raises:
            NotFiniteError: If a scalar is not finite; names the first such batch and scalar.
        """
        kept = self.all_rows()
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
