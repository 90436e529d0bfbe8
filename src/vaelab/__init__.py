"""Variational auto-encoders as small differences from one ELBO."""

from pathlib import Path
from typing import TYPE_CHECKING

from vaelab import later

if TYPE_CHECKING:
    from vaelab.elbo import ELBO

__version__ = "0.1.0"

# Lightning imports torchmetrics, which imports these: one only to see whether it lacks a window
# function, the other, with matplotlib, for metrics that somebody plots. 85 MB, and a third of the
# time that `import lightning` takes.
later.put_off("scipy.signal", hamming=None)
later.put_off(
    "torchmetrics.utilities.plot",
    functions=("plot_confusion_matrix", "plot_curve", "plot_single_or_multi_val"),
    **dict.fromkeys(("_AX_TYPE", "_CMAP_TYPE", "_PLOT_OUT_TYPE"), object),
    __path__=(),
)


def load(where: str | Path, checkpoint: str = "best", trust: bool = False) -> "ELBO":
    """A trained model, in evaluation mode, on the CPU. Its data are not needed.

    Args:
        where: A run folder, an exported folder, or `user/name` on the Hugging Face hub.
        checkpoint: `best` or `last`, of a run folder.
        trust: Whether its configuration may name code that is not vaelab's, which is then run.

    Raises:
        UserError: If there is no model, or it is damaged, of a newer vaelab or not to be trusted.
    """
    from vaelab import loading  # brings torch

    return loading.load(where, checkpoint, trust)
