"""The callback that shows pictures in loggers, and rates and the projector in TensorBoard."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from pydantic import PositiveInt

from vaelab import pictures
from vaelab.pictures.projector import write_points
from vaelab.training.tracking import LogsImages

if TYPE_CHECKING:
    from PIL.Image import Image


class Board(Callback):
    """Callback that logs pictures to all loggers that show any, and more to TensorBoard.

    That is a histogram of rates, and projector points. In a dry run it does nothing.

    Args:
        every_n_epochs: Epochs between two sets of pictures; None: a set after epochs 1, 2, 4, 8 and
            so on, which are at most log2(epochs) + 1, and one after the last.
        projector_images: Validation images whose latent means the projector shows at the end.
    """

    def __init__(self, every_n_epochs: PositiveInt | None, projector_images: PositiveInt) -> None:
        self.every_n_epochs = every_n_epochs
        self.projector_images = projector_images
        self.last_epoch = 0  # of the last set, counted from 1

    def state_dict(self) -> dict[str, Any]:
        """Called by Lightning to save a checkpoint: returns the epoch of the last set."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning on resuming: restores the epoch of the last set."""
        self.last_epoch = state_dict["last_epoch"]

    def is_due(self, epoch: int) -> bool:
        """Returns whether a set is due after an epoch, counted from 1, in which none was logged.

        It is if an epoch that is to have a set has passed since the last set; not every epoch has a
        validation.
        """
        if self.every_n_epochs is None:
            return epoch.bit_length() > self.last_epoch.bit_length()
        return (epoch - 1) // self.every_n_epochs > (self.last_epoch - 1) // self.every_n_epochs

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each validation: logs pictures and rates if they are due.

        They are due by `every_n_epochs` and after the last epoch, once in an epoch. Only in the
        first process; skips Lightning's sanity check and validations outside fit, and the histogram
        if a rate is infinite. They are in the file before a checkpoint is saved.
        """
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs and trainer.is_last_batch and epoch > self.last_epoch
        if not (last or self.is_due(epoch)):
            return
        board, others = self.writer(trainer), self.other_loggers(trainer)
        if board is None and not others:
            return
        self.last_epoch = epoch
        self.log_overview(trainer, module, board, others)
        if board is not None:
            rates: Any = module.rate_per_latent
            if rates.isfinite().all():  # infinite for a deterministic code
                board.add_histogram("val/rate_per_latent", rates, last_step(trainer))
            board.flush()

    def log_overview(
        self, trainer: Trainer, module: Any, board: Any, others: list[LogsImages]
    ) -> None:
        """Logs each possible overview picture of the first 64 validation images.

        To TensorBoard, if `board` is its writer and not None, and to other loggers.
        """
        x, y = first_validation_images(trainer, 64)
        for name, picture in pictures.draw_overview(module, x, y).items():
            image = picture.image(card=True)
            if board is not None:
                add_image(board, name, image, last_step(trainer))
            for logger in others:
                logger.log_image(name, [image], last_step(trainer))

    @rank_zero_only
    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after the training: writes the projector's files; sets eval mode.

        Only in the first process. Thumbnails are omitted unless x are images of 1 or 3 channels.
        """
        board = self.writer(trainer)
        if board is None:
            return
        x, y = first_validation_images(trainer, self.projector_images)
        means = module.eval().latent_posterior(x, y).mean  # type: ignore[operator]
        names: Any = module.label_names
        labels = [names[i] for i in y[:, : len(names)].argmax(1).tolist()] if names else None
        shown = x if x.dim() == 4 and x.shape[1] in (1, 3) else None
        write_points(Path(board.log_dir), "latent_means", means, labels, shown)

    @staticmethod
    def writer(trainer: Trainer) -> Any:
        """Returns the first TensorBoard logger's writer; None without one or in a dry run."""
        loggers = [] if trainer.fast_dev_run else trainer.loggers  # type: ignore[attr-defined]
        boards = [x.experiment for x in loggers if isinstance(x, TensorBoardLogger)]
        return boards[0] if boards else None

    @staticmethod
    def other_loggers(trainer: Trainer) -> list[LogsImages]:
        """Returns the loggers but TensorBoard that show pictures; none in a dry run."""
        loggers = [] if trainer.fast_dev_run else trainer.loggers  # type: ignore[attr-defined]
        return [logger for logger in loggers if isinstance(logger, LogsImages)]


def last_step(trainer: Trainer) -> int:
    """Returns the number of the last optimizer step, from 0, as scalars of training have it."""
    return max(trainer.global_step - 1, 0)


def add_image(board: Any, name: str, image: "Image", step: int) -> None:
    """Logs an image, as PNG, to TensorBoard's writer under a name and step.

    `SummaryWriter.add_image` is not used: it copies all pixels as floats.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    file = io.BytesIO()
    image.save(file, "png")
    shown = Summary.Image(
        height=image.height,
        width=image.width,
        colorspace=len(image.getbands()),
        encoded_image_string=file.getvalue(),
    )
    board.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=shown)]), step)


def first_validation_images(trainer: Trainer, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the first `count` validation images and their y; fewer if there are fewer."""
    found: list[Any] = []
    for batch in trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
        found.append(batch)
        if sum(len(x) for x, _ in found) >= count:
            break
    x, y = (torch.cat(part)[:count] for part in zip(*found, strict=True))
    return x, y
