"""Tests of the callback `Annealing` and of `training_batches` against expected weights and lengths.

The fixture `fit` trains a beta-VAE with beta 4 for two epochs of 5 batches by default.
"""

import math
import warnings

import lightning
import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from vaelab.errors import UserError
from vaelab.models import VAE
from vaelab.training.callbacks import Annealing, Checkpoint
from vaelab.training.callbacks.length import training_batches
from vaelab.training.schedules import linear


class WeightSpy(Callback):
    """Callback that records the weight in every training and validation step."""

    def __init__(self, name: str = "beta") -> None:
        self.name = name
        self.training: list[float] = []
        self.validating: list[float] = []

    def on_train_batch_end(self, trainer, module, *_):
        self.batches = trainer.fit_loop.total_batch_idx + 1

    def on_before_backward(self, trainer, module, loss):
        self.training.append(float(getattr(module, self.name)))

    def on_validation_batch_start(self, trainer, module, *_):
        self.validating.append(float(getattr(module, self.name)))


def test_annealing_scales_weight_in_training_steps_only(fit):
    spy = WeightSpy()
    fit(Annealing("beta", linear, 8, "steps"), spy)
    assert spy.training == [4 * i / 8 for i in range(8)] + [4.0, 4.0]
    assert set(spy.validating) == {4.0}


def test_annealing_restores_weight_after_failed_training(fit, build):
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    model = build("model=beta_vae", "model.beta=4", *small, x_shape=(1, 8, 8), num_classes=3)

    class FailingSpy(WeightSpy):
        def on_before_backward(self, trainer, module, loss):
            super().on_before_backward(trainer, module, loss)
            if len(self.training) == 3:
                raise ZeroDivisionError

    fails = FailingSpy()
    with pytest.raises(ZeroDivisionError):
        fit(Annealing("beta", linear, 8, "steps"), fails, model=model)
    assert fails.training[-1] == 1.0
    assert float(model.beta) == 4.0


# Options and the batches that are trained. The last optimizer step of an epoch may take fewer.
TRAINER_OPTIONS = [
    ({"max_epochs": 3}, 15),
    ({"max_epochs": 3, "accumulate_grad_batches": 2}, 15),
    ({"max_epochs": 3, "accumulate_grad_batches": 4}, 15),
    ({"max_epochs": 3, "accumulate_grad_batches": 100}, 15),
    ({"max_epochs": 3, "limit_train_batches": 3, "accumulate_grad_batches": 2}, 9),
    ({"max_epochs": 3, "limit_train_batches": 0.5}, 6),
    ({"max_epochs": -1, "max_steps": 7}, 7),
    ({"max_epochs": -1, "max_steps": 7, "accumulate_grad_batches": 2}, 12),
    ({"max_epochs": -1, "max_steps": 6, "accumulate_grad_batches": 2}, 10),
    ({"max_epochs": -1, "max_steps": 3, "accumulate_grad_batches": 100}, 15),
    ({"max_epochs": 2, "max_steps": 7}, 7),
    ({"max_epochs": 1, "max_steps": 7}, 5),
    ({"max_epochs": 2, "max_steps": 100, "accumulate_grad_batches": 3}, 10),
    ({"max_epochs": -1, "max_steps": 5, "limit_train_batches": 3, "accumulate_grad_batches": 2}, 8),
    ({"max_epochs": 2, "val_check_interval": 2}, 10),
    ({"max_epochs": 2, "min_epochs": 1, "min_steps": 3}, 10),
    ({"max_epochs": 9, "fast_dev_run": 2}, 2),
]
DURATIONS = [("fraction", 0.6), ("fraction", 1.0), ("epochs", 1.4), ("steps", 4)]


@pytest.mark.parametrize(("options", "batches"), TRAINER_OPTIONS)
@pytest.mark.parametrize(("unit", "duration"), DURATIONS)
def test_annealing_follows_schedule_in_every_batch(fit, unit, duration, options, batches):
    annealing, spy = Annealing("beta", linear, duration, unit), WeightSpy()
    trainer, _ = fit(annealing, spy, **options)
    assert spy.batches == training_batches(trainer) == batches
    epoch = 3 if options.get("limit_train_batches") == 3 else trainer.num_training_batches
    steps = max(1, round({"fraction": batches, "epochs": epoch, "steps": 1}[unit] * duration))
    expected = [4 * min(1, i / steps) for i in range(batches)]
    assert spy.training == pytest.approx(expected)


@pytest.mark.parametrize("ends", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 7}])
def test_training_batches_with_changing_gradient_accumulation(fit, ends):
    spy = WeightSpy()
    changing = GradientAccumulationScheduler({0: 1, 1: 2})
    trainer, _ = fit(Annealing("beta", linear, 1, "fraction"), changing, spy, **ends)
    batches = 15 if "max_steps" not in ends else 9  # 5 steps of one batch, and 2 of two
    assert spy.batches == training_batches(trainer) == batches
    assert spy.training == pytest.approx([4 * i / batches for i in range(batches)])


def test_training_batches_of_endless_training_is_infinite(fit):
    class StoppingSpy(WeightSpy):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.fit_loop.total_batch_idx == 3

    trainer, _ = fit(StoppingSpy(), max_epochs=-1)
    assert training_batches(trainer) == math.inf


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("unit", "duration"), DURATIONS)
def test_annealing_continues_in_resumed_run(fit, tmp_path, unit, duration, accumulate):
    annealing = ("beta", linear, duration, unit)
    options = {"accumulate_grad_batches": accumulate}
    whole, first, rest = WeightSpy(), WeightSpy(), WeightSpy()
    fit(Annealing(*annealing), whole, max_epochs=4, **options)

    class StopAfterEpoch(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    checkpoint = Checkpoint(str(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*and training ended after.*")
        fit(Annealing(*annealing), first, StopAfterEpoch(), checkpoint, max_epochs=4, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*annealing.*")
        path = tmp_path / "last.ckpt"
        fit(Annealing(*annealing), rest, max_epochs=4, ckpt_path=path, **options)
    assert first.training + rest.training == whole.training


LENGTH_CHANGED = (
    r"took 10 batches .* takes 20 now, so at batch 10 it goes from 4 to 2; annealing.unit=epochs"
)


def test_annealing_warns_if_resumed_run_changes_schedule_length(fit, tmp_path):
    checkpoint = Checkpoint(str(tmp_path))
    fit(Annealing("beta", linear, 1, "fraction"), checkpoint, max_epochs=2)
    path = tmp_path / "last.ckpt"
    with pytest.warns(
        UserWarning, match=LENGTH_CHANGED + r" annealing\.duration=2 goes on as before"
    ):
        fit(Annealing("beta", linear, 1, "fraction"), max_epochs=4, ckpt_path=path)
    spy = WeightSpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*annealing.*")
        fit(Annealing("beta", linear, 2, "epochs"), spy, max_epochs=4, ckpt_path=path)
    assert spy.training == [4.0] * 10


def test_annealing_does_not_warn_if_schedule_ended_before_resume(fit, tmp_path):
    checkpoint = Checkpoint(str(tmp_path))
    fit(Annealing("beta", linear, 0.2, "fraction"), checkpoint, max_epochs=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*annealing.*")
        path = tmp_path / "last.ckpt"
        fit(Annealing("beta", linear, 0.2, "fraction"), max_epochs=4, ckpt_path=path)


def test_annealing_warns_if_training_stops_before_schedule_ends(fit):
    class StopAfterEpoch(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    with pytest.warns(UserWarning, match=r"takes 10 batches and training ended after 5, at 1\.6"):
        fit(Annealing("beta", linear, 10, "steps"), StopAfterEpoch(), max_epochs=3)


def test_annealing_counts_batches_and_not_optimizer_steps(fit):
    annealing, spy = Annealing("beta", linear, 10, "steps"), WeightSpy()
    trainer, _ = fit(annealing, spy, accumulate_grad_batches=5)
    assert trainer.global_step == 2
    assert annealing.steps == 10
    assert trainer.fit_loop.total_batch_idx == 9


def test_annealing_takes_float_attribute_of_custom_model(fit, build):
    class CustomVAE(VAE):
        strength = 2.0

        def objective(self, terms):
            return super().objective(terms) + self.strength * terms.rate.mean()

    cfg = {"x_shape": (1, 8, 8), "num_classes": 3}
    model = build("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", **cfg)
    model.__class__ = CustomVAE
    spy = WeightSpy("strength")
    fit(Annealing("strength", linear, 4, "steps"), spy, model=model)
    assert spy.training[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert set(spy.validating) == {2.0}


def test_annealing_refuses_target_that_is_no_weight(fit):
    with pytest.raises(UserError, match=r"annealing.target=gamma: BetaVAE .* it has beta"):
        fit(Annealing("gamma", linear, 8, "steps"))
    with pytest.raises(UserError, match=r"annealing\.target=encoder"):
        fit(Annealing("encoder", linear, 8, "steps"))


def test_annealing_warns_if_schedule_exceeds_training(fit):
    with pytest.warns(UserWarning, match=r"20 batches and training 10: it ends at 1.8, not at 4"):
        fit(Annealing("beta", linear, 20, "steps"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*annealing.*")
        fit(Annealing("beta", linear, 10, "steps"))


def test_annealing_refuses_fraction_of_endless_training(fit):
    with pytest.raises(UserError, match=r"needs a trainer\.max_epochs"):
        fit(Annealing("beta", linear, 0.5, "fraction"), max_epochs=-1)


@pytest.mark.parametrize("unit", ["epochs", "fraction"])
def test_annealing_refuses_a_length_that_a_loader_does_not_have(build, unit):
    class Stream(torch.utils.data.IterableDataset):
        """Images without a length."""

        def __iter__(self):
            return iter(torch.rand(20, 1, 8, 8).round())

    model = build("model=beta_vae", x_shape=(1, 8, 8), num_classes=3)
    quiet = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False}
    annealing = Annealing("beta", linear, 0.5, unit)
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", callbacks=[annealing], **quiet)
    with pytest.raises(UserError, match=r"the training loader has no length; give trainer\.max_st"):
        trainer.fit(model, torch.utils.data.DataLoader(Stream(), 5))
