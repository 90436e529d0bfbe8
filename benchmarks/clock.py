"""The callback that notes what a training has cost, for `growth.py`."""

import json
import os
import resource
from pathlib import Path
from time import process_time
from typing import Any

from lightning import Callback


class Clock(Callback):
    """Callback that writes processor seconds of start and epochs, and peak memory, to a file.

    Args:
        file: The file: JSON with `start`, `epochs` and `megabytes`.
        ends: Whether the process ends after the last epoch, without test and pictures.
    """

    def __init__(self, file: str, ends: bool) -> None:
        self.file, self.ends = Path(file), ends
        self.noted: dict[str, Any] = {"epochs": []}

    def on_train_start(self, *_: Any) -> None:
        """Called by Lightning before the first epoch: notes the processor seconds until now."""
        self.noted["start"] = process_time()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Called by Lightning before each epoch: starts the clock."""
        self.began = process_time()

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Called by Lightning after each epoch, its validation included: writes the file."""
        self.noted["epochs"].append(process_time() - self.began)
        self.noted["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.file.write_text(json.dumps(self.noted))
        if self.ends and trainer.current_epoch + 1 == trainer.max_epochs:
            os._exit(0)
