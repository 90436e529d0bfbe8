"""What a user of Lightning would write, in a race: python with_lightning.py."""

from typing import Any

import torch
from callback import TakesTurns
from lightning import LightningModule, Trainer
from networks import bound, network, stored_images
from pictures import loader
from torch import Tensor
from turns import SETTINGS


class PlainVAE(LightningModule):
    def __init__(self, settings: dict[str, Any], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.decoder = network(settings, shape)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        grey, _ = batch
        distortion, rate = bound(self.encoder, self.decoder, torch.bernoulli(grey))
        loss = distortion + rate
        self.log("loss", loss, prog_bar=True)
        self.log("distortion", distortion)
        self.log("rate", rate)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    images = stored_images(SETTINGS)
    trainer = Trainer(
        accelerator=SETTINGS["device"],
        devices=1,
        max_epochs=-1,
        callbacks=TakesTurns(),
        default_root_dir=SETTINGS["folder"],
    )
    model = PlainVAE(SETTINGS, images.shape[1:])
    trainer.fit(model, loader(images, SETTINGS["batch_size"]))


if __name__ == "__main__":
    main()
