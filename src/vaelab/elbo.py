"""`ELBO`, the LightningModule that every variant derives from: training, validation and test.

Shapes: B images, Y width of the labels, C x H x W pixels. Units: nats per image, unless a name
says `bits`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_warn
from torch import Tensor
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaelab.acceleration import step_counts
from vaelab.data.description import change_warning, data_record
from vaelab.data.images import Images
from vaelab.distributed import draw_share
from vaelab.errors import UserError, first_line
from vaelab.inference import Inference, posterior_arrays
from vaelab.metrics.bits import bits_per_dim
from vaelab.terms import Terms
from vaelab.training.callbacks.accumulated_gradients import AccumulatedGradients
from vaelab.training.callbacks.learning_rate import LearningRate
from vaelab.training.callbacks.step_scalars import StepScalars
from vaelab.training.checkpoint_format import KEY, check_architecture, format_record
from vaelab.training.initialisation import initialise_parts
from vaelab.training.learning_rates import scheduler_config
from vaelab.training.totals import Totals

Batch = tuple[Tensor, Tensor]  # x [B, C, H, W] in [0, 1] and y [B, Y]


class ELBO(Inference, LightningModule):
    """A LightningModule that trains and evaluates an auto-encoder by a bound on its evidence.

    A variant overrides `objective`, which is abstract here, and little else.

    Args:
        optimizer: (parameter groups) -> optimizer.
        scheduler: (optimizer) -> scheduler of its learning rates (default None: they are constant),
            see `vaelab.training.learning_rates`.
        parts: The arguments of `AutoEncoder`.
    """

    min_images = 1
    """Fewest images in a batch for which `objective` is defined: 1 if it compares no images."""

    def __init__(
        self,
        *,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.options: list[dict[str, Any]] = []  # of the optimizer's groups, as configured
        self.totals = Totals()
        self.rate_per_latent = torch.zeros(self.latent_dim)  # of the last evaluation
        self.step = 0  # optimizer steps of the loaded checkpoint, set by `runs.loading`
        self.data_then: Mapping[str, Any] = {}  # `data_record` when that was saved, if it is known
        self.fresh = True  # neither trained nor loaded, so parts are initialised from data
        self.register_load_state_dict_post_hook(mark_not_fresh)

    def add_weight(self, name: str, value: float) -> None:
        """Registers `self.<name>`, a weight of a loss term, as a buffer left out of checkpoints.

        A tensor, so a callback can anneal it without a recompilation. Left out because the
        configuration has it.
        """
        self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def objective(self, terms: Terms) -> Tensor:
        """The scalar to minimise, in nats; abstract, each variant implements its own."""
        raise NotImplementedError

    def min_batch_size(self, processes: int) -> int:
        """The fewest images that a training batch, shared by all processes, must have."""
        return max(self.min_images, processes)

    def extra_metrics(self, terms: Terms) -> dict[str, Tensor]:
        """More metrics of validation and test, none by default: [B] per image, or [] per batch.

        Not called in training.
        """
        return {}

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        """Samples [K, B, D] of q with gradients; in training by this process's share of noise."""
        return draw_share(q, num_samples) if self.training else super().draw(q, num_samples)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The objective [] of a batch, with its distortion [B] and rate [B], both detached.

        x and y are as `inputs` makes them of images and labels, with pixels in [0, 1].
        """
        terms = self.terms(x, y)
        return self.objective(terms), terms.distortion.detach(), terms.rate.detach()

    @property
    def can_compile(self) -> bool:
        """True here; False if a variant calls autograd itself, which torch.compile gets wrong."""
        return True

    # Training.

    def configure_callbacks(self) -> list[Callback]:
        """Called by Lightning before fit and test: callbacks of scalars, gradients and rates.

        They log the training scalars, keep accumulated gradients in checkpoints, and set the
        options and learning rates of the optimizer.
        """
        return [StepScalars(), AccumulatedGradients(), LearningRate()]

    def check_callbacks(self) -> None:
        """Raises UserError if the trainer lacks a callback of `ELBO.configure_callbacks`."""
        attached: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        for callback in ELBO.configure_callbacks(self):
            if not any(isinstance(each, type(callback)) for each in attached):
                raise UserError(
                    f"{type(self).__name__}.configure_callbacks leaves out "
                    f"{type(callback).__name__}; return [*super().configure_callbacks(), ...]"
                )

    def check_trainable(self) -> None:
        """Raises UserError if a model of these settings can be loaded, but not be trained."""

    def setup(self, stage: str) -> None:
        """Called by Lightning before fit and test: in fit, initialises a fresh model from data.

        Skipped if the model was trained or loaded before. Lightning restores a checkpoint to
        resume after this.

        Raises:
            UserError: In fit, as `check_trainable` does, or if a variant leaves out the callbacks
                of `configure_callbacks`, without which its schedules would not start.
        """
        if stage == "fit":
            self.check_trainable()
            self.check_callbacks()
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None and self.fresh:
            initialise_parts(self, data)
            self.fresh = False

    @property
    def images(self) -> Images | None:
        """The trainer's data module, if it is of vaelab; None with other loaders or no trainer."""
        try:
            data = getattr(self.trainer, "datamodule", None)
        except RuntimeError:  # Lightning's, without a trainer
            return None
        return data if isinstance(data, Images) else None

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Called by Lightning for each batch, on the CPU: makes x and y of images and labels.

        Only of a user's own loader, whose batches are images or (images, labels) in any form that
        `Inference` takes; training draws new bits or noise for their pixels each time. Batches of
        `vaelab.data.Images` are returned as they are.

        Raises:
            UserError: If images or labels do not fit the model.
        """
        if self.images is not None:
            return batch
        images, labels, *more = (
            (*batch, None) if isinstance(batch, (tuple, list)) else (batch, None)
        )
        if len(more) > 1 or isinstance(batch, Mapping):
            raise UserError("a batch should be images, or a pair of images and labels")
        return self.inputs(images, labels)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Called by Lightning for each training batch: returns its loss, and terms for the log."""
        check_pair(batch)
        loss, distortion, rate = self.loss(*batch)
        terms = {"distortion": distortion, "rate": rate, "objective": loss.detach()}
        return {"loss": loss, **terms}  # Lightning divides `loss` if it accumulates gradients

    def configure_optimizers(self) -> Any:
        """Called by Lightning before training: builds optimizer and scheduler; keeps `options`.

        Raises:
            UserError: If the optimizer or scheduler refuses its settings, or if the model is of
                manual optimization, for which Lightning steps no scheduler.
        """
        try:
            optimizer = self.make_optimizer(self.parameter_groups())
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"model.optimizer: {first_line(error)}") from error
        if not isinstance(optimizer, Optimizer):
            raise UserError(f"model.optimizer: a {type(optimizer).__name__} is no optimizer")
        self.options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        if self.make_scheduler is None:
            return optimizer
        if not self.automatic_optimization:
            raise UserError(
                f"scheduler: {type(self).__name__} steps its optimizers itself "
                "(automatic_optimization=False), and no scheduler is stepped; give scheduler=none"
            )
        scheduler = scheduler_config(self.make_scheduler, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameter groups for the optimizer: one of all parameters, unless overridden."""
        return [{"params": list(self.parameters())}]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: Any = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """Called by Lightning before each optimizer step: clips its gradients, if the trainer does.

        Lightning's own refuses a fused optimizer in mixed precision, which unscales gradients
        itself. In bf16 none are scaled.
        """
        algorithm = gradient_clip_algorithm or GradClipAlgorithmType.NORM
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, algorithm)

    # Validation and test.

    def on_validation_epoch_start(self) -> None:
        """Called by Lightning before each validation and test: resets the sums over images."""
        self.totals = Totals()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Called by Lightning for each validation and test batch: adds its terms, unless empty.

        They are added to `self.totals`; nothing is logged.
        """
        check_pair(batch)
        x, y = batch
        if not len(x):  # the last batches may all go to other processes
            return
        terms = self.terms(x, y)
        self.totals.add(terms, self.objective(terms), **self.extra_metrics(terms))

    def on_validation_epoch_end(self) -> None:
        """Called by Lightning after val and test: logs means, or raises; sets `rate_per_latent`.

        The means are over the images of all processes, and logged as `val/<name>` or
        `test/<name>`. Callbacks read `self.rate_per_latent`.

        Raises:
            NotFiniteError: If a mean is not finite.
        """
        stage = "test" if self.trainer.testing else "val"
        means, self.rate_per_latent = self.totals.compute_means()
        values = self.evaluation_scalars(means).items()
        named = {f"{stage}/{name}": value for name, value in values}
        self.log_dict(named, sync_dist=True, reduce_fx="max")  # equal in all processes

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Called by `Trainer.predict` for each batch: returns its `mean` and `scale` [B, D].

        They are those of q(z | x, y); of points and codes see `posterior_arrays`.
        """
        check_pair(batch)
        self.check_batch(*batch)
        return posterior_arrays(self.latent_posterior(*batch))

    def evaluation_scalars(self, means: dict[str, float]) -> dict[str, float]:
        """The scalars to log of means over images, in nats: these, and bits per dimension if any.

        A variant may add what follows from the means and `self.rate_per_latent`.
        """
        return self.with_bits_per_dim(means)

    def with_bits_per_dim(self, means: dict[str, float]) -> dict[str, float]:
        """Returns means with `bits_per_dim` of their `elbo`, if the likelihood has bits."""
        if self.bits_offset is None:
            return means
        bits = bits_per_dim(means["elbo"], self.x_shape, self.bits_offset)
        return means | {"bits_per_dim": bits}

    # Checkpoints hold tensors and plain values.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning before it saves a checkpoint: adds format version and data shapes.

        Adds, too, what tells the data from others, see `data_record`.
        """
        checkpoint[KEY] = format_record(self.shapes)
        if self.images is not None:
            checkpoint[KEY] |= data_record(self.images)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning before it loads a checkpoint: checks weights, corrects its counts.

        The counts in the checkpoint, of steps, epochs and batches: see `acceleration.step_counts`.
        Warns if it was saved with other images.

        Raises:
            UserError: If names or shapes of the weights differ.
        """
        check_architecture(self.state_dict(), checkpoint["state_dict"])
        then = checkpoint.get(KEY, {})
        if self.images is not None and (said := self.data_warning(self.images, then)):
            rank_zero_warn(said)
        step_counts.restore_step_count(checkpoint)
        step_counts.close_limited_epoch(checkpoint)  # before it forgets the last batch
        step_counts.close_finished_epoch(checkpoint)

    def data_warning(self, data: Images, then: Mapping[str, Any]) -> str | None:
        """Returns a warning that training would go on with other data; None if it seems not to.

        Labels count if the model is told them. Arguments are those of `change_warning`.
        """
        return change_warning(data, then, with_labels=self.context_dim > 0)


def check_pair(batch: Any) -> None:
    """Raises UserError unless a batch is a pair."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise UserError("a batch should be a pair (x, y), as model.inputs(images, labels) makes it")


def mark_not_fresh(model: ELBO, _: Any) -> None:
    """Called by torch after `load_state_dict`: sets `fresh` to False, which skips initialising."""
    model.fresh = False
