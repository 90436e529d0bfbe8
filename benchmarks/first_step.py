"""A callback that writes down when a job makes its first training step, for `job_start.py`."""

import time
from pathlib import Path
from typing import Any

from lightning import Callback


class FirstStep(Callback):
    """Writes the time of the end of the first training step, and processor seconds, into a file."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_end(self, *_: Any) -> None:
        """Called by Lightning after each training step."""
        if not self.file.exists():
            self.file.write_text(f"{time.time()} {time.process_time()}")
