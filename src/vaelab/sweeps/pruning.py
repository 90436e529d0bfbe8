"""The callback that reports each epoch of a trial to the search and stops hopeless trials."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vaelab.errors import UserError, spelling_hint


class Pruning(Callback):
    """Callback that reports a trial's objective to Optuna's study and stops training if pruned.

    A resumed run does not report an epoch twice. Only the first process opens the study.

    Args:
        journal: The file of the study.
        number: The number of the trial.

    Attributes:
        pruned: True if training was stopped early.
    """

    def __init__(self, journal: Path, number: int) -> None:
        self.journal = journal
        self.number = number
        self.pruned = False

    @classmethod
    def of(cls, trial: str | None) -> "Pruning | None":
        """Returns the callback of a trial, given as `NUMBER:FILE`; None if none is given."""
        if not trial:
            return None
        number, _, journal = trial.partition(":")
        return cls(Path(journal), int(number))

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before training: opens the study; stops if it was pruned before."""
        hopeless = False
        if trainer.is_global_zero:
            from vaelab.sweeps import journal  # imports Optuna

            self.trial = journal.load_trial(self.journal, self.number)
            (self.objective,) = self.trial.study.user_attrs["objectives"]
            self.told = set(self.trial.study.trials[self.number].intermediate_values)
            hopeless = "pruned" in self.trial.user_attrs
        self.broadcast_stop(trainer, hopeless)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each validation: reports it in a fit; may stop training.

        Skips Lightning's sanity check.
        """
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.broadcast_stop(trainer, trainer.is_global_zero and self.report_epoch(trainer))

    def report_epoch(self, trainer: Trainer) -> bool:
        """Reports the epoch's objective to the study; if pruned, marks the trial, returns True.

        Skips an epoch that was reported before; never prunes in the last epoch.

        Raises:
            UserError: If the validation did not measure the objective.
        """
        epoch, metrics = trainer.current_epoch, trainer.callback_metrics
        if epoch in self.told:
            return False
        if self.objective not in metrics:
            raise UserError(
                f"hydra.sweeper.pruner: a validation does not measure {self.objective}; "
                f"{spelling_hint(self.objective, metrics)}"
            )
        self.told.add(epoch)
        self.trial.report(float(metrics[self.objective]), epoch)
        last = epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if last or not self.trial.should_prune():
            return False
        self.trial.set_user_attr("pruned", epoch)
        return True

    def broadcast_stop(self, trainer: Trainer, hopeless: bool) -> None:
        """Collective call: stops training, and prints that, if `hopeless` is True on any rank."""
        if trainer.strategy.reduce_boolean_decision(hopeless, all=False):
            self.pruned = trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"pruned in epoch {trainer.current_epoch + 1}")
