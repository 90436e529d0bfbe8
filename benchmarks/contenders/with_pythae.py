"""Pythae's own trainer, in a race: python with_pythae.py, in an environment with pythae and torch.

Its data are k / 255 and never binarised, and its images a multiple of the batch size, since it
keeps a ragged last batch.
"""

from typing import Any

import torch
from networks import network, stored_images
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn
from turns import SETTINGS, Turns


class Encoder(BaseEncoder):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_variance = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).sigmoid())


class TakesTurns(TrainingCallback):
    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.turns = Turns()

    def on_train_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.turns.step_taken()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.turns.interrupted()


def main() -> None:
    images, batch_size = stored_images(SETTINGS), SETTINGS["batch_size"]
    encoder, decoder = network(SETTINGS, images.shape[1:])
    x = torch.from_numpy(images[: len(images) - len(images) % batch_size]).float().div_(255)
    shape = tuple(images.shape[1:])
    config = VAEConfig(input_dim=shape, latent_dim=SETTINGS["latents"], reconstruction_loss="bce")
    trainer = BaseTrainer(
        VAE(config, Encoder(encoder), Decoder(decoder)),
        BaseDataset(x, torch.zeros(len(x))),
        training_config=BaseTrainerConfig(
            output_dir=SETTINGS["folder"],
            per_device_train_batch_size=batch_size,
            learning_rate=1e-3,
            num_epochs=10**6,
            no_cuda=SETTINGS["device"] == "cpu",
        ),
        callbacks=[TakesTurns()],
    )
    trainer.train()


if __name__ == "__main__":
    main()
