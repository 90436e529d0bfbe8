from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vaelab.errors import UserError, nearest


class Pruning(Callback):
    """Tells a search how its trial does in each epoch, and ends it where the pruner says so.

    What was told once is not told again by a run that goes on.

    Args:
        journal: The file of the study.
        number: Of the trial.

    Attributes:
        pruned: Whether training was ended early.
    """

    def __init__(self, journal: Path, number: int) -> None:
        self.journal = journal
        self.number = number
        self.pruned = False

    @classmethod
    def of(cls, trial: str | None) -> "Pruning | None":
        """The callback of a trial, `NUMBER:FILE`; none of a run that is no trial."""
        if not trial:
            return None
        number, _, journal = trial.partition(":")
        return cls(Path(journal), int(number))

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        hopeless = False
        if trainer.is_global_zero:
            from vaelab.sweeps import journal  # brings Optuna

            self.trial = journal.trial(self.journal, self.number)
            (self.objective,) = self.trial.study.user_attrs["objectives"]
            self.told = set(self.trial.study.trials[self.number].intermediate_values)
            hopeless = "pruned" in self.trial.user_attrs
        self.agree(trainer, hopeless)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.agree(trainer, trainer.is_global_zero and self.hopeless(trainer))

    def hopeless(self, trainer: Trainer) -> bool:
        """Tells the study, and asks it."""
        epoch, metrics = trainer.current_epoch, trainer.callback_metrics
        if epoch in self.told:
            return False
        if self.objective not in metrics:
            raise UserError(
                f"hydra.sweeper.pruner: a validation does not measure {self.objective}; "
                f"{nearest(self.objective, metrics)}"
            )
        self.told.add(epoch)
        self.trial.report(float(metrics[self.objective]), epoch)
        last = epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if last or not self.trial.should_prune():
            return False
        self.trial.set_user_attr("pruned", epoch)
        return True

    def agree(self, trainer: Trainer, hopeless: bool) -> None:
        """Stops all processes if the first one is to."""
        if trainer.strategy.reduce_boolean_decision(hopeless, all=False):
            self.pruned = trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"pruned in epoch {trainer.current_epoch + 1}")
