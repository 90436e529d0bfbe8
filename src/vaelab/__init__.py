"""Variational auto-encoders as small differences from one ELBO."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaelab.elbo import ELBO

from vaelab.version import __version__

__all__ = ["__version__", "load"]


def load(where: str | Path, checkpoint: str = "best", trust: bool = False) -> "ELBO":
    """A trained model, in evaluation mode, on the CPU. Its data are not needed.

    Args:
        where: A run folder, an exported folder, or `user/name` on the Hugging Face hub.
        checkpoint: `best` or `last`, of a run folder.
        trust: Whether its configuration may name code that is not vaelab's, which is then run.

    Raises:
        UserError: If there is no model, or it is damaged, of a newer vaelab or not to be trusted.
    """
    from vaelab.runs import loading  # brings torch

    return loading.load(where, checkpoint, trust)
