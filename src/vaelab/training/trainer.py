import gc
from typing import Any, Literal

import lightning
from lightning import LightningModule
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from vaelab.training.callbacks.checkpoint import AtomicFiles


class Trainer(lightning.Trainer):
    """Lightning's Trainer, with checkpoints that are written whole or not at all.

    Args:
        max_epochs: Passes over the training images, or -1 for no end but `max_steps`.
        check_val_every_n_epoch: Epochs from one validation to the next; None counts batches alone.
        val_check_interval: Batches, or a fraction of an epoch.
        precision: That of Lightning; `bf16` is its `bf16-mixed`.
        options: Whatever `lightning.Trainer` takes.
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
        plugins: list[Any] | None = None,
        **options: Any,
    ) -> None:
        plugins = [*(plugins or []), AtomicFiles()]
        super().__init__(
            max_epochs=max_epochs,
            max_steps=max_steps,
            accumulate_grad_batches=accumulate_grad_batches,
            log_every_n_steps=log_every_n_steps,
            check_val_every_n_epoch=check_val_every_n_epoch,
            val_check_interval=val_check_interval,
            gradient_clip_val=gradient_clip_val,
            precision="bf16-mixed" if precision == "bf16" else precision,
            plugins=plugins,
            **options,
        )

    def fit(self, model: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Trains, as Lightning's Trainer does.

        What exists by now is kept from the garbage collector, which would look through all of it,
        again and again, in a tenth of the time of a small step.
        """
        gc.freeze()
        try:
            super().fit(model, *args, **kwargs)
        finally:
            gc.unfreeze()
