"""vaelab: variational auto-encoders as small differences from one ELBO.

Public: `fit`, `load`, `build`, `compose`, `show`, `Run`, `UserError`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaelab.api import Run, build, compose, fit, show
    from vaelab.elbo import ELBO

from vaelab.errors import UserError
from vaelab.version import __version__

__all__ = ["Run", "UserError", "__version__", "build", "compose", "fit", "load", "show"]


def load(where: str | Path, checkpoint: str = "best", trust: bool = False) -> "ELBO":
    """Loads a trained model from a folder, or downloads it; runs code of its own if `trust`.

    The model is in evaluation mode and on the CPU. Its data are not needed.

    Args:
        where: A run folder, or a file of its `checkpoints`; an exported folder; or, if there is no
            such folder, `user/name` on the hub or the name of a model that comes with vaelab:
            `mnist_cvae`.
        checkpoint: `best` or `last`, for a run folder. Without `best` the `last` is loaded.
        trust: If True, runs code outside vaelab that the configuration names; if False, refuses.

    Raises:
        UserError: If there is no model, or it is damaged, of a newer vaelab or not to be trusted.
    """
    from vaelab.runs import loading  # brings torch

    return loading.load_model(where, checkpoint, trust)


def __getattr__(name: str) -> Any:
    """Imports `fit`, `build`, `compose`, `show` and `Run` on first use, since they bring torch."""
    if name in ("fit", "build", "compose", "show", "Run"):
        from vaelab import api

        return getattr(api, name)
    raise AttributeError(f"module 'vaelab' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return sorted([*globals(), "Run", "build", "compose", "fit", "show"])
