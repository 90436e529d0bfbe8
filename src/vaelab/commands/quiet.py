"""Process-wide settings for logs and warnings on the screen."""

import logging
import threading
import warnings
from typing import Any

from rich.console import Console
from rich.text import Text

from vaelab.files.atomic import NO_ROOM
from vaelab.runs.screen import printable


def quieten() -> None:
    """Silences Lightning's info logs and some warnings in this process; shortens other warnings.

    Also silences errors of other threads on a full disk, which the main thread meets itself.
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).handlers.clear()
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # The hook is for users' own loaders, and returns batches of our data module as they are.
    warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # see process.py

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        """Prints a warning's message, without its place in the code, on stderr; for `warnings`."""
        text = Text.assemble(("warning: ", "yellow"), printable(str(message).strip()))
        Console(stderr=True, soft_wrap=True).print(text)

    def report_unless_raised(args: Any) -> None:
        """Prints a thread's error, but not that a disk is full or read-only; for `threading`.

        TensorBoard's writing thread raises that again in the main thread, which tells it on one
        line, and so does the next file that the main thread writes.
        """
        if getattr(args.exc_value, "errno", None) not in NO_ROOM:
            threading.__excepthook__(args)

    warnings.showwarning = show
    threading.excepthook = report_unless_raised
