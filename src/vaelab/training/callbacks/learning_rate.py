"""Callback that sets the optimizer's options and learning rates when a training starts."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vaelab.training.callbacks.length import training_steps
from vaelab.training.learning_rates import Plateau, Schedule


class LearningRate(Callback):
    """Callback that sets options and rates as configured, and shows validations to a `Plateau`.

    A resumed training would otherwise use the options in its checkpoint. `ELBO` attaches it to its
    trainer.
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training starts: sets the optimizer's options and its rates.

        Where a scheduler is none of vaelab's they stay those of the checkpoint: it computes the
        next rate from the last one.

        Raises:
            UserError: If a schedule needs the end of a training that has none.
        """
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        schedules = [scheduler for scheduler in schedulers if isinstance(scheduler, Schedule)]
        groups = [group for each in trainer.optimizers for group in each.param_groups]
        options: list[dict[str, Any]] = getattr(module, "options", [])
        is_own = len(options) != len(groups)  # of a variant's own `configure_optimizers`
        if len(schedules) == len(schedulers) and not is_own:
            for group, own in zip(groups, options, strict=True):
                group.update(own)
        for schedule in schedules:
            for group in schedule.optimizer.param_groups if is_own else ():
                group["lr"] = group["initial_lr"]  # torch's name of the rate before any share
            schedule.start(training_steps(trainer), trainer.global_step, trainer.current_epoch)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each validation, in fit: shows `val/loss` to a `Plateau`.

        Before a checkpoint is saved, which Lightning's own schedulers of a metric miss.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, Plateau) and "val/loss" in trainer.callback_metrics:
                config.scheduler.observe(float(trainer.callback_metrics["val/loss"]))
