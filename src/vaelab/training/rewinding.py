"""Removal of logged points that a resumed training logs again."""

from typing import Protocol, runtime_checkable

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


@runtime_checkable
class CanRewind(Protocol):
    """A logger that can delete what it has of the steps from a given one on."""

    def rewind(self, step: int) -> None:
        """Deletes what was logged at `step` or later, by this process or an earlier one."""
        ...


@rank_zero_only
def rewind_loggers(trainer: Trainer, step: int | None) -> None:
    """Deletes what loggers have from a step on; skips those that can not; only in rank 0.

    A process that was killed has logged points after its last checkpoint. In TensorBoard's files
    they are marked as void, which its readers, and ours, respect.

    Args:
        trainer: The trainer with the loggers.
        step: Steps done in the checkpoint to go on from; None for a new training, before which
            TensorBoard's files stay as they are: the hyperparameters are there already.
    """
    for logger in trainer.loggers:
        if isinstance(logger, CanRewind):
            logger.rewind(step or 0)
        elif isinstance(logger, TensorBoardLogger) and step is not None:
            mark_events_void(logger, step)


def mark_events_void(logger: TensorBoardLogger, step: int) -> None:
    """Writes to the event file that all events so far from `step` on are void.

    That is what `purge_step` of torch's `SummaryWriter` does, which is set before the checkpoint is
    known. The mark is written twice, for TensorBoard takes the first of a run for its beginning.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # slow to import

    for _ in range(2):
        start = Event(session_log=SessionLog(status=SessionLog.START))
        logger.experiment.file_writer.add_event(start, step)
