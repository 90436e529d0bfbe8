"""The training scalars of the last batches, kept on the device until someone reads them."""

import torch
from torch import Tensor

from vaelab.errors import NotFiniteError

SCALARS = ("distortion", "rate", "loss", "elbo")  # in the order in which a fault would appear


class Window:
    """A row of SCALARS for each training batch since the last reading.

    Appending costs the device nothing and never waits for it.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.rows)

    def append(self, row: Tensor) -> None:
        """Takes SCALARS of one batch, shape [4]."""
        self.rows.append(row)

    def read(self, last_batch: int) -> dict[str, float]:
        """Empties the window into the mean of each scalar, after a look at every row.

        Args:
            last_batch: The number of the newest row's training batch.

        Raises:
            NotFiniteError: If a row is not finite; names the first batch and the term.
        """
        rows = torch.stack(self.rows).cpu()
        self.rows.clear()
        broken = ~rows.isfinite()
        if broken.any():
            first = int(broken.any(1).nonzero()[0])
            column = int(broken[first].nonzero()[0])
            raise NotFiniteError(
                f"the {SCALARS[column]} became {rows[first, column].item()} at training step "
                f"{last_batch - len(rows) + 1 + first}; the last good checkpoint is kept. "
                "Try a smaller model.optimizer.lr, or trainer.gradient_clip_val=1"
            )
        return dict(zip(SCALARS, rows.mean(0).tolist(), strict=True))
