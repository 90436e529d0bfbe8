"""The evidence lower bound, and the module that every variant derives from.

Shapes: B images, Y width of the labels, C x H x W pixels. Units: nats per image, unless a name
says `bits`.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.distributions import Distribution
from torch.optim import Optimizer

from vaelab.acceleration import step_counts
from vaelab.autoencoder import AutoEncoder
from vaelab.distributed import draw_share
from vaelab.errors import UserError
from vaelab.metrics.bits import bits_per_dim
from vaelab.parts import Initialised
from vaelab.terms import Terms
from vaelab.training.checkpoint_format import KEY, check_architecture, stamp
from vaelab.training.scalars import averaged, write
from vaelab.training.totals import Totals
from vaelab.training.window import Window, due

Batch = tuple[Tensor, Tensor]  # x [B, C, H, W] in [0, 1] and y [B, Y]


class ELBO(AutoEncoder, LightningModule):
    """An auto-encoder that is trained and evaluated by a bound on its evidence.

    A variant overrides `objective`, and little else.

    Args:
        optimizer: (parameters) -> optimizer.
        parts: Those of `AutoEncoder`.
    """

    compared = 1
    """Images of a batch that the objective compares with each other: with fewer it is another."""

    def __init__(self, *, optimizer: Callable[..., Optimizer], **parts: Any) -> None:
        super().__init__(**parts)
        self.make_optimizer = optimizer
        self.window = Window()
        self.totals = Totals()
        self.rate_per_latent = torch.zeros(self.latent_dim)  # of the last evaluation
        self.step = 0  # optimizer steps of the checkpoint that it was loaded from
        self.fresh = True  # neither trained nor loaded
        self.register_load_state_dict_post_hook(no_longer_fresh)

    def add_weight(self, name: str, value: float) -> None:
        """Makes `self.<name>` a number that a callback may change without a recompilation.

        It belongs to the configuration, so it is in no checkpoint.
        """
        self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def objective(self, terms: Terms) -> Tensor:
        """The scalar to minimise. The difference between variants is written here."""
        raise NotImplementedError

    def least_batch(self, processes: int) -> int:
        """The images that a training batch, divided over so many processes, has at least."""
        return max(self.compared, processes)

    def details(self, terms: Terms) -> dict[str, Tensor]:
        """What else an evaluation reports, by name: numbers of each image, [B], or of the batch."""
        return {}

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        """Samples [K, B, D] of q, with gradients; in training this process's share of them."""
        return draw_share(q, num_samples) if self.training else super().draw(q, num_samples)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The objective [], and what it was made from, detached: distortion [B] and rate [B]."""
        terms = self.terms(x, y)
        return self.objective(terms), terms.distortion.detach(), terms.rate.detach()

    @property
    def can_compile(self) -> bool:
        """False of an objective that takes a gradient itself, which torch.compile gets wrong."""
        return True

    # Training. Nothing here waits for the device but once in `log_every_n_steps`.

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None and self.fresh:
            parts: list[Any] = [self.condition, self.prior, self]
            for part in parts:
                if isinstance(part, Initialised):
                    part.initialise(data)
            self.fresh = False

    def on_train_start(self) -> None:
        """A resumed optimizer goes on with the configured options, not with the saved ones."""
        if not self.trainer.lr_scheduler_configs:
            for optimizer in self.trainer.optimizers:
                for group, options in zip(optimizer.param_groups, self.options, strict=True):
                    group.update(options)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, distortion, rate = self.loss(*batch)
        self.window.append(distortion, rate, loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.window and due(self.trainer):
            self.log_scalars("train", self.window.read(self.trainer.fit_loop.total_batch_idx))
            for logger in self.trainer.loggers:
                logger.save()

    def on_validation_start(self) -> None:
        self.check_window()  # nothing that is not finite shall reach a checkpoint

    def check_window(self) -> None:
        if self.window:
            self.window.check(self.trainer.fit_loop.total_batch_idx)

    def configure_optimizers(self) -> Any:
        try:
            optimizer = self.make_optimizer(self.parameter_groups())
        except ValueError as error:
            raise UserError(f"model.optimizer: {error}") from error
        self.options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        return optimizer

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer is given: parameters, and where they are not its own, settings."""
        return [{"params": list(self.parameters())}]

    # Validation and test.

    def on_validation_epoch_start(self) -> None:
        self.totals = Totals()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        if not len(x):  # others have the last ones
            return
        terms = self.terms(x, y)
        self.totals.add(terms, self.objective(terms), **self.details(terms))

    def on_validation_epoch_end(self) -> None:
        values, self.rate_per_latent = self.totals.read()
        self.log_scalars("test" if self.trainer.testing else "val", values)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def log_scalars(self, stage: str, values: dict[str, float]) -> None:
        """Logs means over images, in nats per image, and the bits per dimension they amount to."""
        if self.bits_offset is not None:
            bits = bits_per_dim(values["elbo"], self.x_shape, self.bits_offset)
            values = values | {"bits_per_dim": bits}
        named = {f"{stage}/{name}": value for name, value in values.items()}
        if stage == "train":
            write(self.trainer, averaged(self.trainer, named))
        else:
            self.log_dict(named, sync_dist=True, reduce_fx="max")  # all processes have the same

    # Checkpoints hold tensors and plain values.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_window()
        checkpoint[KEY] = stamp(self.shapes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_architecture(self.state_dict(), checkpoint["state_dict"])
        step_counts.restore(checkpoint)


def no_longer_fresh(model: ELBO, _: Any) -> None:
    model.fresh = False
