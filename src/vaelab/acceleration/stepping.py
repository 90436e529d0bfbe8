"""Who updates the weights at a training step, and how many batches it takes.

The trainer takes one batch a step and updates the weights after it. Where nobody asks for anything
in between the module does both by itself, to the same result and at less cost.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from inspect import signature
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

BETWEEN = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)  # of callbacks and modules
WITHIN = (
    "backward",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "optimizer_step",
    "optimizer_zero_grad",
)  # of modules
AROUND = ("on_train_batch_start", "on_train_batch_end")  # a batch
STRIDE = 16  # batches, at most
NOTHING = nullcontext()


def plain(trainer: Trainer, module: LightningModule) -> bool:
    """Whether nothing is asked for between a loss and its update.

    Then the module can make the update in its `training_step`, with the same result. This is
    Lightning's manual optimisation, which costs a small step a tenth of its time less.
    """
    hooks: list[Callback | LightningModule] = [*trainer.callbacks, module]  # type: ignore[attr-defined]
    return (
        trainer.world_size == 1
        and trainer.precision in ("32-true", "bf16-mixed")
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and len(trainer.optimizers) == 1
        and signature(trainer.optimizers[0].step).parameters["closure"].default is None
        and not trainer.lr_scheduler_configs
        and not any(isinstance(each, GradientAccumulationScheduler) for each in hooks)
        and not any(is_overridden(name, each) for name in BETWEEN for each in hooks)
        and not any(is_overridden(name, module) for name in WITHIN)
    )


def update(trainer: Trainer, loss: Tensor) -> None:
    """Changes the weights along the loss's gradient.

    What its wrapper of an optimizer does beside, and the hooks in `zero_grad`, take as long as a
    twentieth of a small step.
    """
    (optimizer,) = trainer.optimizers
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    device = loss.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else NOTHING:
        loss.backward()  # autocast is for the loss alone
        optimizer.step()
    torch.clear_autocast_cache()  # of weights as they were


def count(trainer: Trainer) -> None:
    """Counts an update for Lightning."""
    steps = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    steps.increment_ready()
    steps.increment_completed()


def unwatched(trainer: Trainer, module: LightningModule) -> bool:
    """Whether nobody looks on at a batch who has to be told of it by the trainer.

    Only vaelab's own classes, Lightning's callbacks without a hook around a batch, and callbacks
    that have an attribute `strides`, which means that they log with `vaelab.metrics.write`.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    whole = (trainer.limit_train_batches, getattr(trainer, "val_check_interval", None))
    return (
        own(module)
        and (data is None or own(data))
        and all(isinstance(share, float) and share == 1 for share in whole)  # no count of batches
        and trainer.check_val_every_n_epoch is not None
        and not trainer.overfit_batches  # type: ignore[attr-defined]
        and not trainer.fast_dev_run  # type: ignore[attr-defined]
        and isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]
        and all(own(c) or getattr(c, "strides", False) or absent(c) for c in trainer.callbacks)  # type: ignore[attr-defined]
    )


def own(one: object) -> bool:
    return type(one).__module__.startswith("vaelab.")


def absent(callback: Callback) -> bool:
    """Whether it is Lightning's, and elsewhere while there are batches."""
    if not type(callback).__module__.startswith("lightning."):
        return False
    return not any(is_overridden(name, callback) for name in AROUND)


class Stride:
    """Several batches at one step of Lightning's, whose loop takes half a millisecond.

    In between is done what that loop does: callbacks and module are called, batches are counted.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self.trainer = trainer

        def hooks(name: str) -> list[Callable[..., Any]]:
            told = [c for c in trainer.callbacks if is_overridden(name, c)]  # type: ignore[attr-defined]
            itself = [getattr(module, name)] if is_overridden(name, module) else []
            return [*(partial(getattr(each, name), trainer, module) for each in told), *itself]

        self.starts, self.ends = map(hooks, AROUND)

    def batches(self, source: Any) -> Iterator[tuple[Any, int]]:
        """The next STRIDE batches, or fewer at the end of an epoch or of training.

        Args:
            source: Lightning's iterator over all of them.
        """
        loop = self.trainer.fit_loop.epoch_loop
        progress = loop.batch_progress
        first = loop.batch_idx
        for batch_idx in range(first, first + STRIDE):
            batch, *_ = next(source)
            if batch_idx > first:
                progress.increment_ready()
                for start in self.starts:
                    start(batch, batch_idx)
                progress.increment_started()
            yield batch, batch_idx
            if batch_idx + 1 == first + STRIDE or source.done or self.stopping:
                # The abscissa of what Lightning logs, before it counts the last one.
                loop.on_load_checkpoint({"_batches_that_stepped": self.trainer.global_step - 1})
                return
            progress.increment_processed()
            for end in self.ends:
                end({}, batch, batch_idx)
            progress.increment_completed()

    @property
    def stopping(self) -> bool:
        trainer = self.trainer
        at_end = trainer.global_step == trainer.max_steps
        return at_end or trainer.should_stop or trainer.received_sigterm


def before_fit(module: LightningModule) -> None:
    """Takes back what an earlier fit chose, of which Lightning asks at once."""
    if getattr(module, "updates_itself", False):
        module.automatic_optimization = True


def after_fit(module: LightningModule) -> None:
    """Leaves the module without what it has for one fit."""
    vars(module).pop("captured", None)
    if vars(module).pop("stride", None):
        del module.training_step


def counted(checkpoint: dict[str, Any]) -> None:
    """Lets a training go on from a checkpoint that the other one of trainer and module came to.

    Lightning counts the steps of both apart, and takes its global step from the one at work.
    """
    if "loops" not in checkpoint:  # it is of weights alone
        return
    steps = {"ready": checkpoint["global_step"], "completed": checkpoint["global_step"]}
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.manual_optimization.optim_step_progress"]["total"] |= steps
    loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"] |= steps
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
