"""Warnings as one line each, and Lightning without its talk."""

import logging
import warnings
from typing import Any

from rich.console import Console
from rich.text import Text


def quieten() -> None:
    """Leaves warnings, one line each, and takes Lightning's talk from the screen."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).handlers.clear()
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*is not empty.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # see process.py

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = Text.assemble(("warning: ", "yellow"), str(message).strip())
        Console(stderr=True, soft_wrap=True).print(text)

    warnings.showwarning = show
