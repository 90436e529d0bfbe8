"""The callback that shows pictures, rates of latents and the projector in TensorBoard."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from pydantic import PositiveInt

from vaelab import pictures
from vaelab.pictures.projector import write_points

if TYPE_CHECKING:
    from PIL.Image import Image


class Board(Callback):
    """Callback that logs pictures, a histogram of rates and projector points to TensorBoard.

    Without a TensorBoard logger, and in a dry run, it does nothing.

    Args:
        every_n_epochs: Epochs between two sets of pictures.
        projector_images: Validation images whose latent means the projector shows at the end.
    """

    def __init__(self, every_n_epochs: PositiveInt, projector_images: PositiveInt) -> None:
        self.every_n_epochs = every_n_epochs
        self.projector_images = projector_images

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each validation: logs pictures and rates if they are due.

        They are due every `every_n_epochs` epochs and after the last. Only in the first process;
        skips Lightning's sanity check, and the histogram if a rate is infinite.
        """
        board = self.writer(trainer)
        if board is None or trainer.sanity_checking:
            return
        due = trainer.current_epoch % self.every_n_epochs == 0
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if due or last:
            rates: Any = module.rate_per_latent
            if rates.isfinite().all():  # infinite for a deterministic code
                board.add_histogram("val/rate_per_latent", rates, trainer.global_step)
            self.log_overview(trainer, module, board)

    def log_overview(self, trainer: Trainer, module: Any, board: Any) -> None:
        """Logs each possible overview picture of the first 64 validation images to TensorBoard."""
        x, y = first_validation_images(trainer, 64)
        for name, picture in pictures.draw_overview(module, x, y).items():
            add_image(board, name, picture.image(card=True), trainer.global_step)

    @rank_zero_only
    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after the training: writes the projector's files; sets eval mode.

        Only in the first process. The thumbnails are omitted unless images have 1 or 3 channels.
        """
        board = self.writer(trainer)
        if board is None:
            return
        x, y = first_validation_images(trainer, self.projector_images)
        means = module.eval().encode(x, y).mean  # type: ignore[operator]
        names: Any = module.label_names
        labels = [names[i] for i in y[:, : len(names)].argmax(1).tolist()] if names else None
        shown = x if x.shape[1] in (1, 3) else None
        write_points(Path(board.log_dir), "latent_means", means, labels, shown)

    @staticmethod
    def writer(trainer: Trainer) -> Any:
        """Returns the first TensorBoard logger's writer; None without one or in a dry run."""
        loggers = [] if trainer.fast_dev_run else trainer.loggers  # type: ignore[attr-defined]
        boards = [x.experiment for x in loggers if isinstance(x, TensorBoardLogger)]
        return boards[0] if boards else None


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
