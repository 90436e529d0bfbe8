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

from vaelab.callbacks.length import training_batches
from vaelab.callbacks.speed import Speed
from vaelab.records import write_json


class Progress(ProgressBar):
    """A bar over the whole training with the bound in it; plain lines when there is no terminal.

    Args:
        file: Where to say how far training is, for whoever started it; at most once a second.
        refresh_steps: Training batches between two looks at the bar.
        line_seconds: Least time between two lines where there is no terminal.
    """

    def __init__(
        self, file: str | None = None, refresh_steps: int = 20, line_seconds: float = 5.0
    ) -> None:
        super().__init__()
        self.file = Path(file) if file else None
        self.refresh_steps = refresh_steps
        self.line_seconds = line_seconds
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar: Bar | None = None
        self.enabled = True
        self.last_line = self.last_note = float("-inf")

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.batches, self.began = training_batches(trainer), monotonic()
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
        if batch_idx % self.refresh_steps == 0:
            self.note(trainer)
            if self.bar:
                self.bar.update(
                    self.task,
                    completed=trainer.fit_loop.total_batch_idx + 1,
                    description=self.line(trainer, "val/elbo"),
                )

    def note(self, trainer: Trainer) -> None:
        """Writes how far training is into the file, if one was asked for."""
        now = monotonic()
        if self.file is None or not trainer.is_global_zero or now - self.last_note < 1:
            return
        self.last_note = now
        done = trainer.fit_loop.total_batch_idx + 1
        here = done - self.done_before
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
        elif self.enabled and trainer.is_global_zero:
            last = trainer.max_epochs and trainer.current_epoch + 1 >= trainer.max_epochs
            if last or monotonic() - self.last_line >= self.line_seconds:
                self.last_line = monotonic()
                self.console.print(self.line(trainer, "val/elbo", "val/distortion", "val/rate"))

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

    def on_exception(self, *_: Any) -> None:
        self.stop()
