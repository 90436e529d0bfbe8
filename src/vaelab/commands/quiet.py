"""Process-wide settings for logs and warnings on the screen."""

import logging
import warnings
from typing import Any

from rich.console import Console
from rich.text import Text

from vaelab.runs.screen import printable


def quieten() -> None:
    """Silences Lightning's info logs and some warnings in this process; shortens other warnings."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).handlers.clear()
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # see process.py

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        """Prints a warning's message, without its place in the code, on stderr; for `warnings`."""
        text = Text.assemble(("warning: ", "yellow"), printable(str(message).strip()))
        Console(stderr=True, soft_wrap=True).print(text)

    warnings.showwarning = show
