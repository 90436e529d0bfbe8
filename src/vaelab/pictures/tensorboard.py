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
    """What TensorBoard shows beside the scalars: pictures, the rate of each latent, the projector.

    Args:
        every_n_epochs: Epochs between two sets of pictures.
        projector_images: Validation images whose latent means the projector shows at the end.
    """

    def __init__(self, every_n_epochs: PositiveInt, projector_images: PositiveInt) -> None:
        self.every_n_epochs = every_n_epochs
        self.projector_images = projector_images

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        board = self.writer(trainer)
        if board is None or trainer.sanity_checking:
            return
        due = trainer.current_epoch % self.every_n_epochs == 0
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if due or last:
            rates: Any = module.rate_per_latent
            if rates.isfinite().all():  # those of a deterministic code are not
                board.add_histogram("val/rate_per_latent", rates, trainer.global_step)
            self.show_pictures(trainer, module, board)

    def show_pictures(self, trainer: Trainer, module: Any, board: Any) -> None:
        x, y = first_images(trainer, 64)
        for name, picture in pictures.overview(module, x, y).items():
            add_image(board, name, picture.image(card=True), trainer.global_step)

    @rank_zero_only
    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        board = self.writer(trainer)
        if board is None:
            return
        x, y = first_images(trainer, self.projector_images)
        means = module.eval().encode(x, y).mean  # type: ignore[operator]
        names: Any = module.label_names
        labels = [names[i] for i in y[:, : len(names)].argmax(1).tolist()] if names else None
        shown = x if x.shape[1] in (1, 3) else None
        write_points(Path(board.log_dir), "latent_means", means, labels, shown)

    @staticmethod
    def writer(trainer: Trainer) -> Any:
        """TensorBoard's writer, if there is one and this is no dry run."""
        loggers = [] if trainer.fast_dev_run else trainer.loggers  # type: ignore[attr-defined]
        boards = [x.experiment for x in loggers if isinstance(x, TensorBoardLogger)]
        return boards[0] if boards else None


def add_image(board: Any, name: str, image: "Image", step: int) -> None:
    """As the method of TensorBoard's writer, without its copies of all pixels as floats."""
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


def first_images(trainer: Trainer, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first validation images and their labels, at least as many as there are."""
    found: list[Any] = []
    for batch in trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
        found.append(batch)
        if sum(len(x) for x, _ in found) >= count:
            break
    x, y = (torch.cat(part)[:count] for part in zip(*found, strict=True))
    return x, y
