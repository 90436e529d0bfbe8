"""Lightning's Trainer with checked settings and atomic checkpoint files."""

import gc
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import lightning
from lightning import Callback, LightningModule
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from vaelab.training.callbacks.checkpoint import AtomicFiles
from vaelab.training.callbacks.stopping import Stopping
from vaelab.training.window import has_completed_step


def every_logger(given: Any) -> Iterator[Any]:
    """Yields the loggers in nested dictionaries and lists, without null."""
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, list):
        for part in given:
            yield from every_logger(part)
    elif given is not None:
        yield given


class Trainer(lightning.Trainer):
    """Lightning's Trainer with atomic checkpoint files, and the garbage collector frozen in `fit`.

    A signal stops it only after a whole training step or validation, and all processes at the same.

    Args:
        max_epochs: Passes over the training images; -1: unlimited, only `max_steps` counts.
        check_val_every_n_epoch: Epochs from one validation to the next; None: count batches across
            epochs.
        val_check_interval: Batches, or fraction of an epoch, from one validation to the next.
        precision: Lightning's `precision`; `bf16` is short for `bf16-mixed`.
        logger: Lightning's `logger`; also loggers by any names, or a list of such.
        options: Further arguments of `lightning.Trainer`.
    """

    def __init__(
        self,
        *,
        max_epochs: PositiveInt | Literal[-1],
        max_steps: PositiveInt | Literal[-1] = -1,
        accumulate_grad_batches: PositiveInt = 1,
        log_every_n_steps: PositiveInt = 50,
        check_val_every_n_epoch: PositiveInt | None = 1,
        val_check_interval: PositiveInt | PositiveFloat | None = None,
        gradient_clip_val: NonNegativeFloat | None = None,
        precision: Any = 32,
        logger: Any = None,
        plugins: list[Any] | None = None,
        **options: Any,
    ) -> None:
        plugins = [*(plugins or []), AtomicFiles()]
        given = options.pop("callbacks", None) or []
        given = [given] if isinstance(given, Callback) else given
        self.stopping = Stopping()
        super().__init__(
            max_epochs=max_epochs,
            max_steps=max_steps,
            accumulate_grad_batches=accumulate_grad_batches,
            log_every_n_steps=log_every_n_steps,
            check_val_every_n_epoch=check_val_every_n_epoch,
            val_check_interval=val_check_interval,
            gradient_clip_val=gradient_clip_val,
            precision="bf16-mixed" if precision == "bf16" else precision,
            logger=list(every_logger(logger)) if isinstance(logger, (Mapping, list)) else logger,
            plugins=plugins,
            callbacks=[*given, self.stopping],
            **options,
        )

    @property
    def received_sigterm(self) -> bool:
        """True if training stops now for a signal; called by Lightning after steps and epochs.

        False in a validation and between the batches of an accumulated step, which could not be
        resumed.
        """
        asked = self.stopping.number or super().received_sigterm
        return bool(asked) and bool(self.training) and has_completed_step(self)

    def fit(self, model: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Trains as Lightning does, with all existing objects frozen for the garbage collector.

        Scanning these objects again and again takes a tenth of the time of a small training step.
        """
        gc.freeze()
        try:
            super().fit(model, *args, **kwargs)
        finally:
            gc.unfreeze()
