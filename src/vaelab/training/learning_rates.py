"""Schedules of the learning rate: a share of the optimizer's rate at each step or epoch.

They are schedulers of torch, which Lightning steps. Torch's own multiply the rate at each step, and
keep their settings and length in a checkpoint: a cosine that is resumed for a longer training
would rise again at its old end.
"""

from collections.abc import Callable
from math import cos, inf, isinf, pi
from typing import Annotated, Any, ClassVar

from lightning.pytorch.utilities import rank_zero_warn
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from vaelab.errors import UserError, first_line

Share = Annotated[float, Field(ge=0, le=1)]
Warming = NonNegativeInt | Annotated[float, Field(ge=0, lt=1)]
"""A number of optimizer steps; below 1, a share of the training."""


class Schedule(LRScheduler):
    """A scheduler that sets each group's rate to a share of its own; abstract.

    The share is a function of the steps or epochs done, so a resumed run continues where it
    stopped. Rates, settings and length are those of the configuration, also after a resumption.

    Attributes:
        interval: The unit of `done`: optimizer steps (`step`) or epochs (`epoch`).
        steps: Optimizer steps of the whole training; infinite until `start`.
    """

    interval: ClassVar[str] = "step"
    saved: ClassVar[tuple[str, ...]] = ("last_epoch", "steps")
    """Attributes in a checkpoint; torch's name of the steps or epochs done is `last_epoch`."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.steps: float = inf
        self.loaded: dict[str, Any] = {}  # from the checkpoint that training goes on from
        super().__init__(optimizer)

    def share(self, done: int) -> float:
        """Returns the share of the rates after `done` steps or epochs; abstract."""
        raise NotImplementedError

    @property
    def needs_end(self) -> bool:
        """Whether the share depends on `steps`; False here."""
        return False

    def get_lr(self) -> list[Any]:
        """Called by torch at every step: the rates of the groups."""
        return [base * self.share(self.last_epoch) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Called by Lightning to save a checkpoint: the steps or epochs done, not the settings."""
        return {"interval": self.interval} | {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning on resuming: keeps the state for `start`."""
        self.loaded = state_dict

    def check_length(self, steps: float) -> None:
        """Raises UserError if the share depends on the length of a training that has no end."""
        if self.needs_end and isinf(steps):
            name = type(self).__name__.lower()
            raise UserError(
                f"scheduler={name} needs a trainer.max_epochs or max_steps; max_steps if the "
                "loader has no length"
            )

    def start(self, steps: float, steps_done: int, epochs_done: int) -> None:
        """Sets the groups' rates, taken as those of the configuration, to their shares.

        Called when training starts. Warns if the rate changes because the training of a checkpoint
        was planned with another length, and if training ends before the rate has risen.

        Args:
            steps: Optimizer steps of the whole training.
            steps_done: Optimizer steps done.
            epochs_done: Epochs done; used, with `steps_done`, after a training without a schedule.

        Raises:
            UserError: If the schedule needs an end and there is none.
        """
        self.check_length(steps)
        self.last_epoch = steps_done if self.interval == "step" else epochs_done
        if self.loaded.get("interval") == self.interval:
            for name in self.saved:
                setattr(self, name, self.loaded.get(name, getattr(self, name)))
            before = self.share(self.last_epoch)
            planned, self.steps = self.steps, steps
            self.warn_of_change(before, planned)
        self.loaded, self.steps = {}, steps
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["initial_lr"] = base
        self.set_rates()

    def warn_of_change(self, before: float, planned: float) -> None:
        """Warns if the share was another one, of a training of `planned` steps."""
        now = self.share(self.last_epoch)
        if now != before and planned != self.steps:
            rank_zero_warn(
                f"the learning rate was scheduled over {planned:,} steps in this run so far and is "
                f"over {self.steps:,} now, so at step {self.last_epoch + 1:,} it goes from "
                f"{before:.3g} to {now:.3g} of model.optimizer.lr"
            )

    def set_rates(self) -> None:
        """Sets the rates of the optimizer's groups in place."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate


class Warmup(Schedule):
    """A rate that rises linearly in the first steps, then stays that of the optimizer.

    Args:
        warmup: The steps in which it rises; below 1, their share of all steps.
    """

    def __init__(self, optimizer: Optimizer, *, warmup: Warming) -> None:
        self.warmup = warmup
        super().__init__(optimizer)

    @property
    def needs_end(self) -> bool:
        """Whether the warm-up is a share of the training."""
        return 0 < self.warmup < 1

    @property
    def warmup_steps(self) -> float:
        """The steps in which the rate rises; infinite until `start` if they are a share."""
        if not 0 < self.warmup < 1:
            return self.warmup
        return inf if isinf(self.steps) else round(self.warmup * self.steps)

    def share(self, done: int) -> float:
        """Returns the share after `done` steps: 1 / N at first, 1 from N - 1 steps on."""
        return min(1.0, (done + 1) / self.warmup_steps) if self.warmup_steps else 1.0

    def start(self, steps: float, steps_done: int, epochs_done: int) -> None:
        """Sets the rates as `Schedule.start`; warns if training ends before the rate has risen."""
        super().start(steps, steps_done, epochs_done)
        if self.warmup_steps > steps:
            rank_zero_warn(
                f"the learning rate rises over {self.warmup_steps:,} steps, and training takes "
                f"{steps:,}; see model.scheduler.warmup"
            )


class Cosine(Warmup):
    """A rate that falls along half a cosine to the end of the training, after a warm-up if any.

    Loshchilov & Hutter, 2017, arXiv:1608.03983, eq. 5, without restarts.

    Args:
        warmup: The steps in which it first rises; below 1, their share of all steps.
        final: The share of the rate at the end.
    """

    def __init__(self, optimizer: Optimizer, *, warmup: Warming, final: Share) -> None:
        self.final = final
        super().__init__(optimizer, warmup=warmup)

    @property
    def needs_end(self) -> bool:
        """Whether the share depends on the length of the training: always."""
        return True

    def share(self, done: int) -> float:
        """Returns the share after `done` steps: 1 after the warm-up and `final` at the end.

        It stays `final` after the end.
        """
        if done < self.warmup_steps:
            return super().share(done)
        falling = self.steps - self.warmup_steps
        position = min(1.0, (done - self.warmup_steps) / falling) if falling > 0 else 1.0
        return self.final + (1 - self.final) * (0.5 + 0.5 * cos(pi * position))


class Step(Schedule):
    """A rate that is multiplied by a factor after every `every` epochs.

    Args:
        every: The epochs from one change to the next.
        factor: The number that the rate is multiplied by.
    """

    interval = "epoch"

    def __init__(self, optimizer: Optimizer, *, every: PositiveInt, factor: Share) -> None:
        self.every, self.factor = every, factor
        super().__init__(optimizer)

    def share(self, done: int) -> float:
        """Returns the share after `done` epochs."""
        return float(self.factor ** (done // self.every))


class Plateau(Schedule):
    """A rate that is multiplied by a factor when `val/loss` has stopped falling.

    `val/loss` is measured at every validation, with every weight as configured.

    Args:
        factor: The number that the rate is multiplied by.
        patience: The validations without a new least `val/loss` after which it is reduced.
        min_delta: By how much, in nats, `val/loss` must fall to count.
        final: The share below which the rate does not fall.
    """

    interval = "epoch"
    saved = ("last_epoch", "steps", "best", "waited", "reductions")

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        factor: Share,
        patience: PositiveInt,
        min_delta: NonNegativeFloat,
        final: Share,
    ) -> None:
        self.factor, self.patience = factor, patience
        self.min_delta, self.final = min_delta, final
        self.best = inf
        self.waited = self.reductions = 0  # validations since the best; changes of the rate
        super().__init__(optimizer)

    def share(self, done: int) -> float:
        """Returns the share after the reductions so far; ignores `done`."""
        return max(self.final, float(self.factor**self.reductions))

    def observe(self, loss: float) -> None:
        """Counts a validation; reduces the rates, in place, after `patience` without a new best."""
        if loss < self.best - self.min_delta:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.waited, self.reductions = 0, self.reductions + 1
            self.set_rates()


def scheduler_config(make: Callable[..., Any], optimizer: Optimizer) -> dict[str, Any]:
    """Returns Lightning's dictionary of a scheduler, built for an optimizer; UserError if refused.

    A scheduler of torch is stepped after every epoch; CyclicLR and OneCycleLR after every step, as
    torch documents.

    Raises:
        UserError: If the scheduler refuses its settings, or is no scheduler of torch.
    """
    try:
        made = make(optimizer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model.scheduler: {first_line(error)}") from error
    if not isinstance(made, LRScheduler):
        raise UserError(f"model.scheduler: a {type(made).__name__} is no scheduler of torch")
    of_steps = isinstance(made, (CyclicLR, OneCycleLR))
    interval = made.interval if isinstance(made, Schedule) else "step" if of_steps else "epoch"
    monitor = {"monitor": "val/loss"} if isinstance(made, ReduceLROnPlateau) else {}
    return {"scheduler": made, "interval": interval, **monitor}
