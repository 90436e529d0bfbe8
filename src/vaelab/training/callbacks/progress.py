"""Callback that shows the progress of training, and writes it to a file."""

import os
from contextlib import suppress
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vaelab.errors import WriteError
from vaelab.training.callbacks.length import training_batches
from vaelab.training.callbacks.speed import Speed
from vaelab.training.json_files import write_json
from vaelab.training.progress_bar import EVERY, progress_text


class Progress(ProgressBar):
    """Callback that shows a bar, or prints lines without a terminal, and writes a progress file.

    The bar is of the whole training.

    Args:
        file: JSON file to write the progress to, for launchers and reports, at most once a
            second; None: no file.
        refresh_steps: Training batches between two updates, if they take less than a second.
        line_seconds: Least seconds between two lines after validations, without a terminal.
        silent_seconds: Most seconds without a line, without a terminal.
    """

    def __init__(
        self,
        file: str | None = None,
        refresh_steps: int = 20,
        line_seconds: float = 5.0,
        silent_seconds: float = EVERY,
    ) -> None:
        super().__init__()
        self.file = Path(file) if file else None
        self.refresh_steps = refresh_steps
        self.line_seconds, self.silent_seconds = line_seconds, silent_seconds
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar: Bar | None = None
        self.enabled = True
        self.first_line, self.last_note = True, float("-inf")

    def disable(self) -> None:
        """Called by Lightning in all processes but rank 0: shows no bar and prints no lines."""
        self.enabled = False

    def enable(self) -> None:
        """Lets the bar or lines be shown again, after `disable`; starts no bar itself."""
        self.enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training starts: starts the clock, and the bar in a terminal.

        Makes the folder of the progress file.
        """
        if self.enabled and self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        self.batches = training_batches(trainer)
        self.began = self.last_line = self.looked = monotonic()
        self.done_before = trainer.fit_loop.total_batch_idx + 1
        if self.enabled and self.console.is_terminal:
            columns = (
                BarColumn(bar_width=16),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Bar(*columns, console=self.console, refresh_per_second=4, transient=True)
            self.task = self.bar.add_task("", total=self.batches if self.has_end else None)
            self.bar.start()

    @property
    def has_end(self) -> bool:
        """Whether the number of batches of the whole training is known."""
        return isfinite(self.batches)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called by Lightning after each training batch: if due, writes the file, updates the bar.

        Without a bar it prints a line, after `silent_seconds` without one. An update is due
        every `refresh_steps` batches, or after a second.
        """
        if batch_idx % self.refresh_steps == 0 or monotonic() - self.looked >= 1:
            self.looked = monotonic()
            self.write_file(trainer)
            if self.bar:
                self.bar.update(
                    self.task,
                    completed=trainer.fit_loop.total_batch_idx + 1,
                    description=self.status_text(trainer, "val/elbo"),
                )
            elif monotonic() - self.last_line >= self.silent_seconds:
                seconds = monotonic() - self.began
                done = progress_text(self.batches_since_start(trainer), self.batches_to_do, seconds)
                self.print_line(trainer, f"{self.status_text(trainer, 'val/elbo')}  {done}")

    def batches_since_start(self, trainer: Trainer) -> int:
        """Returns the batches trained since `on_train_start`, without those before a resumption."""
        return trainer.fit_loop.total_batch_idx + 1 - self.done_before

    @property
    def batches_to_do(self) -> int | None:
        """The batches from `on_train_start` to the end of training; None if not known."""
        return int(self.batches) - self.done_before if self.has_end else None

    def print_line(self, trainer: Trainer, text: str) -> None:
        """Prints a line in the process of rank 0, unless disabled; restarts the clock of lines."""
        self.last_line = monotonic()
        if self.enabled and trainer.is_global_zero:
            self.console.print(text)

    def write_file(self, trainer: Trainer) -> None:
        """Writes the progress to the JSON file, at most once a second, in the process of rank 0.

        Skips it without a `file`, and in `fast_dev_run`.
        """
        now = monotonic()
        if self.file is None or not trainer.is_global_zero or now - self.last_note < 1:
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.last_note = now
        done, recent = trainer.fit_loop.total_batch_idx + 1, self.batches_since_start(trainer)
        known = recent and self.has_end
        left = (self.batches - done) * (now - self.began) / recent if known else None
        bound = trainer.callback_metrics.get("val/elbo")
        content = {
            "epoch": trainer.current_epoch + 1,
            "epochs": trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None,
            "share": done / self.batches if self.has_end else None,
            "seconds_left": left,
            "val/elbo": None if bound is None else float(bound),
            "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        write_json(self.file, content)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after a validation: in training updates the bar, or prints if due.

        Skips the sanity check and validation outside training. Prints after the first one and in
        the last epoch, and else at most every `line_seconds`.
        """
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.bar:
            self.bar.update(self.task, description=self.status_text(trainer, "val/elbo"))
        else:
            first = self.first_line
            last = trainer.max_epochs and trainer.current_epoch + 1 >= trainer.max_epochs
            if first or last or monotonic() - self.last_line >= self.line_seconds:
                self.first_line = False
                shown = "val/elbo", "val/distortion", "val/rate"
                self.print_line(trainer, self.status_text(trainer, *shown))

    def status_text(self, trainer: Trainer, *shown: str) -> str:
        """Returns the epoch, those metrics `shown` that are logged, and, if known, the speed."""
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        parts = [f"epoch {trainer.current_epoch + 1}{epochs}"]
        metrics = trainer.callback_metrics
        parts += [f"{name} {metrics[name]:.2f}" for name in shown if name in metrics]
        clocks = [c for c in trainer.callbacks if isinstance(c, Speed)]  # type: ignore[attr-defined]
        noun = getattr(getattr(trainer, "datamodule", None), "noun", "images")
        parts += [f"{c.images_per_second:,.0f} {noun}/s" for c in clocks if c.images_per_second]
        return "  ".join(parts)

    def stop_bar(self) -> None:
        """Removes the bar from the terminal, if it is shown."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training ends: removes the bar."""
        self.stop_bar()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: Any) -> None:
        """Called by Lightning on an exception: removes the bar, and writes the progress file.

        It does not write the file if training had not started.
        """
        self.stop_bar()
        if hasattr(self, "batches"):  # set by on_train_start
            self.last_note = float("-inf")
            with suppress(WriteError):  # the exception may be of a full disk itself
                self.write_file(trainer)
