"""Process-wide settings for logs and warnings on the screen."""

import logging
import threading
import warnings
from typing import Any

from rich.console import Console
from rich.text import Text

from vaelab.runs.screen import printable


def quieten() -> None:
    """Silences Lightning's info logs and some warnings in this process; shortens other warnings.

    Also silences errors of TensorBoard's writing thread, which are raised elsewhere.
    """
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

    def report_unless_raised(args: Any) -> None:
        """Prints a thread's error, but not an OSError of TensorBoard's writer; for `threading`.

        The writer raises that again in the main thread, which tells it on one line.
        """
        if not (
            issubclass(args.exc_type, OSError)
            and type(args.thread).__module__.startswith("tensorboard.")
        ):
            threading.__excepthook__(args)

    warnings.showwarning = show
    threading.excepthook = report_unless_raised
