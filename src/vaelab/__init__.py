"""Variational auto-encoders as small differences from one ELBO."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaelab.elbo import ELBO

__version__ = "0.1.0"


def load(run: str | Path, checkpoint: str = "best") -> "ELBO":
    """The model of a finished run, in evaluation mode, on the CPU.

    Args:
        run: The run folder.
        checkpoint: `best` or `last`.

    Raises:
        UserError: If this is no run folder, or its checkpoint is damaged.
    """
    from vaelab import runs  # brings torch

    return runs.load(run, checkpoint)[0]
