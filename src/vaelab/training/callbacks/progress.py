import os
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vaelab.training.callbacks.length import training_batches
from vaelab.training.callbacks.speed import Speed
from vaelab.training.json_files import write_json
from vaelab.training.progress_bar import EVERY, share


class Progress(ProgressBar):
    """A bar over the whole training with the bound in it; plain lines when there is no terminal.

    Args:
        file: Where to say how far training is, for launchers and reports; at most once a second.
        refresh_steps: Training batches between two looks at the bar, if they take no second.
        line_seconds: Least time between two lines after validations where there is no terminal.
        silent_seconds: Most time without a line there.
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
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
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
            self.task = self.bar.add_task("", total=self.batches if self.ends else None)
            self.bar.start()

    @property
    def ends(self) -> bool:
        """Whether it is known how many batches there will be."""
        return isfinite(self.batches)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % self.refresh_steps == 0 or monotonic() - self.looked >= 1:
            self.looked = monotonic()
            self.note(trainer)
            if self.bar:
                self.bar.update(
                    self.task,
                    completed=trainer.fit_loop.total_batch_idx + 1,
                    description=self.line(trainer, "val/elbo"),
                )
            elif monotonic() - self.last_line >= self.silent_seconds:
                done = share(self.done(trainer), self.total, monotonic() - self.began)
                self.say(trainer, f"{self.line(trainer, 'val/elbo')}  {done}")

    def done(self, trainer: Trainer) -> int:
        """The batches since this start of the training."""
        return trainer.fit_loop.total_batch_idx + 1 - self.done_before

    @property
    def total(self) -> int | None:
        """The batches that this start of the training has, where that is known."""
        return int(self.batches) - self.done_before if self.ends else None

    def say(self, trainer: Trainer, text: str) -> None:
        """Prints a line in the first process."""
        self.last_line = monotonic()
        if self.enabled and trainer.is_global_zero:
            self.console.print(text)

    def note(self, trainer: Trainer) -> None:
        """Writes how far training is into the file, if one was asked for."""
        now = monotonic()
        if self.file is None or not trainer.is_global_zero or now - self.last_note < 1:
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.last_note = now
        done, here = trainer.fit_loop.total_batch_idx + 1, self.done(trainer)
        known = here and self.ends
        left = (self.batches - done) * (now - self.began) / here if known else None
        bound = trainer.callback_metrics.get("val/elbo")
        content = {
            "epoch": trainer.current_epoch + 1,
            "epochs": trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None,
            "share": done / self.batches if self.ends else None,
            "seconds_left": left,
            "val/elbo": None if bound is None else float(bound),
            "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        write_json(self.file, content)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.fit_loop.epoch_loop.batch_progress.total.ready:
            return
        if self.bar:
            self.bar.update(self.task, description=self.line(trainer, "val/elbo"))
        else:
            first = self.first_line
            last = trainer.max_epochs and trainer.current_epoch + 1 >= trainer.max_epochs
            if first or last or monotonic() - self.last_line >= self.line_seconds:
                self.first_line = False
                self.say(trainer, self.line(trainer, "val/elbo", "val/distortion", "val/rate"))

    def line(self, trainer: Trainer, *shown: str) -> str:
        """Where training is, in words, with the metrics of these names."""
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        parts = [f"epoch {trainer.current_epoch + 1}{epochs}"]
        metrics = trainer.callback_metrics
        parts += [f"{name} {metrics[name]:.2f}" for name in shown if name in metrics]
        clocks = [c for c in trainer.callbacks if isinstance(c, Speed)]  # type: ignore[attr-defined]
        parts += [f"{c.images_per_second:,.0f} images/s" for c in clocks if c.images_per_second]
        return "  ".join(parts)

    def stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: Any) -> None:
        self.stop()
        if hasattr(self, "batches"):  # training had begun
            self.last_note = float("-inf")
            self.note(trainer)
