"""Who updates the weights at a training step: the trainer, or the module itself."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

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
        and not trainer.lr_scheduler_configs
        and not any(is_overridden(name, each) for name in BETWEEN for each in hooks)
        and not any(is_overridden(name, module) for name in WITHIN)
    )


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
