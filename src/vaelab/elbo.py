"""The evidence lower bound, and the module that every variant derives from.

Shapes: K samples, B images, D latents, Y width of the labels, C x H x W pixels.
Units: nats per image, unless a name says `bits`.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer

from vaelab import stamps, stepping
from vaelab.errors import UserError
from vaelab.flows import Pushforward
from vaelab.metrics import Totals, Window, averaged, bits_per_dim, due, write
from vaelab.precision import full_precision
from vaelab.terms import Terms

Batch = tuple[Tensor, Tensor]  # x [B, C, H, W] in [0, 1] and y [B, Y]


class ELBO(LightningModule):
    """p(x | z, y) p(z | y), an approximate posterior q(z | x, y), and their bound.

    A variant overrides `objective`, and little else. The parts are factories: the YAML
    chooses them, this constructor tells them the shapes.

    Args:
        x_shape: (C, H, W) of one image; the data module knows it.
        classes: How many there are, for each column of y that is a class, by name.
        numbers: How wide it is, for each column of y that is numbers; these come after the classes.
        pixels: What the data module makes of a pixel, see `vaelab.data.pixels`.
        latent_dim: D.
        condition: (classes, numbers) -> module from y to the context, of which all else that is
            called y or Y below is told; see `vaelab.conditions`.
        encoder: (x_shape, Y) -> module from (x, y) to features [B, F].
        posterior: (F, D) -> module from features to q(z | x, y).
        prior: (D, Y) -> module from y to p(z | y), see `vaelab.priors`.
        decoder: (D, Y, shape) -> module from (z, y) to likelihood parameters.
        likelihood: Module from parameters to p(x | z, y).
        optimizer: (parameters) -> optimizer.
        num_samples: K, the samples of z for each image.

    Raises:
        UserError: If the parts contradict each other or the data.
    """

    continuous = True  # whether its latents are; codes are not

    def __init__(
        self,
        *,
        x_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        classes: dict[str, PositiveInt],
        numbers: dict[str, PositiveInt],
        pixels: str,
        latent_dim: PositiveInt,
        condition: Callable[..., Any],
        encoder: Callable[..., nn.Module],
        posterior: Callable[..., nn.Module],
        prior: Callable[..., Any],
        decoder: Callable[..., nn.Module],
        likelihood: Any,
        optimizer: Callable[..., Optimizer],
        num_samples: PositiveInt = 1,
    ) -> None:
        super().__init__()
        if pixels not in likelihood.pixels:
            accepted = " or ".join(f"data.pixels={kind}" for kind in likelihood.pixels)
            raise UserError(
                f"data.pixels={pixels} cannot be modelled by the "
                f"{type(likelihood).__name__} likelihood, which takes {accepted}"
            )
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
        self.classes, self.numbers = dict(classes), dict(numbers)
        self.num_samples = num_samples
        self.pixels = pixels
        self.bits_offset: float | None = likelihood.pixels[pixels]

        channels, height, width = x_shape
        self.condition = condition(self.classes, self.numbers)
        self.context_dim: int = self.condition.features
        self.encoder = encoder(x_shape, self.context_dim)
        self.posterior = posterior(self.encoder.features, latent_dim)
        self.prior = prior(latent_dim, self.context_dim)
        if hasattr(self.prior, "connect"):  # it is made of posteriors
            self.prior.connect(self)
        out_shape = (likelihood.channels(channels), height, width)
        self.decoder = decoder(latent_dim, self.context_dim, out_shape)
        self.likelihood = likelihood
        self.make_optimizer = optimizer

        self.window = Window()
        self.rank, self.world_size = 0, 1
        self.totals = Totals()
        self.rate_per_latent = torch.zeros(latent_dim)  # of the last evaluation
        self.step = 0  # optimizer steps of the checkpoint that it was loaded from
        self.fresh = True  # neither trained nor loaded
        self.updates_itself = False  # in place of the trainer
        self.register_load_state_dict_post_hook(no_longer_fresh)

    def add_weight(self, name: str, value: float) -> None:
        """Makes `self.<name>` a number that a callback may change without a recompilation.

        It belongs to the configuration, so it is in no checkpoint.
        """
        self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    @property
    def num_classes(self) -> int:
        """Classes of the first column of y, zero where it is none."""
        return next(iter(self.classes.values()), 0)

    @property
    def y_dim(self) -> int:
        """Y, the width of y."""
        return sum(self.classes.values()) + sum(self.numbers.values())

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # by Lightning, forty times a step; Module's way is slow
            vars(self)[name] = value
        else:
            super().__setattr__(name, value)

    # The model.

    def context(self, y: Tensor) -> Tensor:
        """What the model sees of labels [B, Y]: [B, C], or [B, 0] if it is unconditional."""
        return self.condition(y)

    def latent_prior(self, y: Tensor) -> Distribution:
        """p(z | y), batch [B] or, the same for every label, []."""
        return self.prior(self.context(y))

    def encode(self, x: Tensor, y: Tensor) -> Distribution:
        """q(z | x, y), batch [B]."""
        return self.posterior(self.encoder(x, self.context(y)))

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        """p(x | z, y) for z [..., B, D] and y [B, Y], batch [..., B]."""
        context = self.context(y)
        if z.dim() > 2:
            context = context.expand(*z.shape[:-1], -1).flatten(0, -2)
        params = full_precision(self.decoder(z.flatten(0, -2), context))
        return self.likelihood(params.unflatten(0, z.shape[:-1]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The reconstruction of x through the posterior mean, [B, C, H, W]."""
        return self.decode(self.encode(x, y).mean, y).mean

    @torch.no_grad()
    def sample(self, y: Tensor) -> Tensor:
        """The mean image of one z from the prior for each label, [B, C, H, W]."""
        return self.decode(self.latent_prior(y).expand(y.shape[:1]).sample(), y).mean

    # The bound.

    def terms(self, x: Tensor, y: Tensor, num_samples: int | None = None) -> Terms:
        """The bound's estimate from K samples of z for each image."""
        q = self.encode(x, y)
        z = self.draw(q, num_samples or self.num_samples)
        return Terms(x, q, self.latent_prior(y), z, self.decode(z, y))

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        """Samples [K, B, D] of q, with gradients.

        Where several processes share a batch, each draws the noise of all of it and keeps its
        part, so that they train to what one would.
        """
        if self.world_size == 1:
            return q.rsample((num_samples,))
        source = q.base if isinstance(q, Pushforward) else q
        shares = source.expand((self.world_size, *q.batch_shape))
        drawn = shares.rsample((num_samples,))[:, self.rank]
        return q.image(drawn) if isinstance(q, Pushforward) else drawn

    def objective(self, terms: Terms) -> Tensor:
        """The scalar to minimise. The difference between variants is written here."""
        raise NotImplementedError

    def details(self, terms: Terms) -> dict[str, Tensor]:
        """What else an evaluation reports, by name: numbers of each image, [B], or of the batch."""
        return {}

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The objective [], and what it was made from, detached: distortion [B] and rate [B]."""
        terms = self.terms(x, y)
        return self.objective(terms), terms.distortion.detach(), terms.rate.detach()

    @torch.compiler.disable
    def uncompiled_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of an objective that takes a gradient itself; compiled, it would be wrong."""
        return ELBO.loss(self, x, y)

    # Training. Nothing here waits for the device but once in `log_every_n_steps`.

    def setup(self, stage: str) -> None:
        self.rank, self.world_size = self.trainer.global_rank, self.trainer.world_size
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None and self.fresh:
            parts: list[Any] = [self.condition, self.prior, self]
            for part in parts:
                if hasattr(part, "initialise"):
                    part.initialise(data)
            self.fresh = False

    def on_fit_start(self) -> None:
        stepping.after_fit(self)  # one that failed
        if not (self.automatic_optimization or self.updates_itself):
            return  # a variant that has a training step of its own, and updates in it
        usual = getattr(self.training_step, "__func__", None) is ELBO.training_step
        self.updates_itself = usual and stepping.plain(self.trainer, self)
        self.automatic_optimization = not self.updates_itself
        if self.updates_itself and stepping.unwatched(self.trainer, self):
            self.stride = stepping.Stride(self.trainer, self)
            self.training_step = self.training_steps  # type: ignore[assignment,method-assign]

    def on_fit_end(self) -> None:
        stepping.after_fit(self)

    def on_train_start(self) -> None:
        """A resumed optimizer goes on with the configured options, not with the saved ones."""
        if not self.trainer.lr_scheduler_configs:
            for optimizer in self.trainer.optimizers:
                for group, options in zip(optimizer.param_groups, self.options, strict=True):
                    group.update(options)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, distortion, rate = self.loss(*batch)
        self.window.append(distortion, rate, loss.detach())
        if self.updates_itself:
            stepping.update(self.trainer, loss)
        return loss

    def training_steps(self, dataloader_iter: Any) -> None:
        """Takes the place of `training_step` where one may take several batches."""
        for batch, batch_idx in self.stride.batches(dataloader_iter):
            if batch[0].device != self.device:
                batch = self.transfer_batch_to_device(batch, self.device, 0)
            ELBO.training_step(self, batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.window and due(self.trainer):
            self.log_scalars("train", self.window.read(self.trainer.fit_loop.total_batch_idx))

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
        terms = self.terms(*batch)
        self.totals.add(terms, self.objective(terms), **self.details(terms))

    def on_validation_epoch_end(self) -> None:
        values, self.rate_per_latent = self.totals.read(self.trainer.strategy)
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
            self.log_dict(named, sync_dist=True)

    # Checkpoints hold tensors and plain values.

    @property
    def shapes(self) -> dict[str, Any]:
        """What it was told of the data, as plain values."""
        return {
            "x_shape": self.x_shape,
            "classes": self.classes,
            "numbers": self.numbers,
            "pixels": self.pixels,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_window()
        checkpoint[stamps.KEY] = stamps.stamp(self.shapes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_architecture(checkpoint["state_dict"])
        stepping.counted(checkpoint)

    def check_architecture(self, other: dict[str, Tensor]) -> None:
        """Raises UserError if a state is of another architecture."""
        own = self.state_dict()
        for name in sorted(own.keys() | other.keys()):
            ours, theirs = (tuple(d[name].shape) if name in d else "absent" for d in (own, other))
            if ours != theirs:
                raise UserError(
                    f"the checkpoint is of another architecture: {name} is {theirs} in it "
                    f"and {ours} in this model"
                )


def no_longer_fresh(model: ELBO, _: Any) -> None:
    model.fresh = False
