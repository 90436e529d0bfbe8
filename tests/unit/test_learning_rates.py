"""Schedules of the learning rate: their values, in training, and of runs that are resumed."""

from functools import partial
from math import cos, pi

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.testing import assert_close

from vaelab.errors import UserError
from vaelab.models import VAE
from vaelab.training.callbacks import Checkpoint, Seeding
from vaelab.training.learning_rates import (
    Cosine,
    Plateau,
    Schedule,
    Step,
    Warmup,
    scheduler_config,
)

RATE = 1e-3


class KeepRates(Callback):
    """Keeps the rate of the first group in each training step, by the number of the step."""

    def __init__(self):
        self.rates = {}

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates[trainer.global_step] = optimizer.param_groups[0]["lr"]


@pytest.fixture
def train(fit, build):
    """Returns a function that trains a new small model with a scheduler; it returns its rates."""

    def train_model(scheduler, *callbacks, rate=RATE, **options):
        sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
        torch.manual_seed(0)
        sizes.append(f"model.optimizer.lr={rate}")
        model = build("model=vae", *sizes, x_shape=(1, 8, 8), num_classes=3)
        model.make_scheduler = scheduler
        kept = KeepRates()
        trainer, model = fit(Seeding(0), kept, *callbacks, model=model, **options)
        return list(kept.rates.values()), model, trainer

    return train_model


def shares(schedule, steps, count):
    """The shares of a schedule of a training of so many steps, after 0 to count - 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = schedule(optimizer)
    made.start(steps, 0, 0)
    return [made.share(done) for done in range(count)]


def test_cosine_falls_from_one_to_the_final_share():
    found = shares(partial(Cosine, warmup=0, final=0.1), 10, 13)
    expected = [0.1 + 0.9 * (0.5 + 0.5 * cos(pi * n / 10)) for n in range(10)] + [0.1] * 3
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [4, 0.4])
def test_warmup_rises_in_steps_or_in_a_share_of_all(warmup):
    rising = [0.25, 0.5, 0.75, 1.0]
    assert shares(partial(Warmup, warmup=warmup), 10, 6) == pytest.approx([*rising, 1, 1])
    found = shares(partial(Cosine, warmup=warmup, final=0.0), 10, 11)
    falling = [0.5 + 0.5 * cos(pi * n / 6) for n in range(7)]
    assert found == pytest.approx([*rising, *falling])


def test_warmup_of_no_steps_is_constant():
    assert shares(partial(Warmup, warmup=0), 10, 3) == [1, 1, 1]


def test_step_multiplies_the_rate_every_few_epochs():
    found = shares(partial(Step, every=3, factor=0.1), 10, 8)
    assert found == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_plateau_counts_validations_without_a_new_least_loss():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    plateau = Plateau(optimizer, factor=0.5, patience=2, min_delta=1.0, final=0.2)
    found = []
    for loss in (10, 8, 7.5, 7.1, 6, 6, 6, 6, 6, 6, 6):  # 7.5 and 7.1 are no new least by 1
        plateau.observe(loss)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_cosine_steps_at_every_optimizer_step_to_the_planned_end(train):
    rates, _, _ = train(partial(Cosine, warmup=0, final=0.0))
    assert rates == pytest.approx([RATE * (0.5 + 0.5 * cos(pi * n / 10)) for n in range(10)])


def test_cosine_counts_steps_of_accumulated_batches_and_max_steps(train):
    schedule = partial(Cosine, warmup=0, final=0.0)
    rates, _, _ = train(schedule, accumulate_grad_batches=2)  # 3 steps an epoch of 5 batches
    assert rates == pytest.approx([RATE * (0.5 + 0.5 * cos(pi * n / 6)) for n in range(6)])
    rates, _, _ = train(schedule, max_epochs=-1, max_steps=4)
    assert rates == pytest.approx([RATE * (0.5 + 0.5 * cos(pi * n / 4)) for n in range(4)])


def test_cosine_counts_steps_of_scheduled_accumulation(train):
    schedule = partial(Cosine, warmup=0, final=0.0)
    rates, _, _ = train(schedule, GradientAccumulationScheduler({0: 1, 1: 2}))  # 5 steps and 3
    assert rates == pytest.approx([RATE * (0.5 + 0.5 * cos(pi * n / 8)) for n in range(8)])


def test_step_changes_the_rate_between_epochs(train):
    rates, _, _ = train(partial(Step, every=1, factor=0.5))
    assert rates == [RATE] * 5 + [RATE / 2] * 5


def test_every_group_of_an_optimizer_is_scheduled(fit, build):
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    model = build("model=factor_vae", *sizes, x_shape=(1, 8, 8), num_classes=3)
    model.make_scheduler = partial(Step, every=1, factor=0.5)
    trainer, _ = fit(model=model)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([1e-3 / 4, 1e-4 / 4])


def test_scheduler_of_torch_steps_after_every_epoch(train):
    rates, _, _ = train(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5))
    assert rates == pytest.approx([RATE] * 5 + [RATE / 2] * 5)


def test_one_cycle_of_torch_steps_after_every_step(train):
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=RATE, total_steps=11)
    assert len(set(train(cycle)[0])) == 10


SCHEDULES = {
    "cosine": partial(Cosine, warmup=0.2, final=0.1),
    "warmup": partial(Warmup, warmup=7),
    "step": partial(Step, every=1, factor=0.5),
    "plateau": partial(Plateau, factor=0.5, patience=1, min_delta=1000.0, final=0.0),
    "torch": partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
}


class SaveAfterBatch(Checkpoint):
    """Saves a checkpoint after a batch, or after a validation, counted over the training, too."""

    def __init__(self, path, batch=None, validation=None):
        super().__init__(str(path.parent))
        self.path, self.batch, self.validation = path, batch, validation
        self.validations = 0

    def on_train_batch_end(self, trainer, *_):
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer, module):
        super().on_validation_end(trainer, module)
        self.validations += 1
        if self.validations == self.validation:
            trainer.save_checkpoint(self.path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("saved", "options"),
    [
        ({"batch": 7}, {}),
        ({"batch": 6}, {}),
        ({"batch": 7}, {"accumulate_grad_batches": 2}),
        ({"validation": 3}, {"val_check_interval": 2}),
    ],
)
def test_resumed_rates_and_weights_are_bit_exact(train, tmp_path, name, saved, options):
    schedule, path = SCHEDULES[name], tmp_path / "mid.ckpt"
    options = {"max_epochs": 3} | options
    whole, expected, _ = train(schedule, SaveAfterBatch(path, **saved), **options)
    rates, found, _ = train(schedule, ckpt_path=path, **options)
    assert 0 < len(rates) < len(whole)
    assert rates == whole[-len(rates) :]
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["step", "plateau"])
def test_run_resumed_from_its_last_checkpoint_has_the_rates_of_one_training(train, tmp_path, name):
    def keep(folder):
        return Checkpoint(str(tmp_path / folder))

    whole, expected, _ = train(SCHEDULES[name], keep("whole"), max_epochs=4)
    train(SCHEDULES[name], keep("run"), max_epochs=2)
    last = tmp_path / "run" / "last.ckpt"
    rates, found, _ = train(SCHEDULES[name], keep("run"), max_epochs=4, ckpt_path=last)
    assert len(set(whole)) > 2
    assert rates == whole[10:]
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_plateau_waits_for_validations_where_not_every_epoch_has_one(train):
    rates, _, _ = train(SCHEDULES["plateau"], max_epochs=6, check_val_every_n_epoch=2)
    assert rates == [RATE] * 20 + [RATE / 2] * 10


def test_longer_training_says_how_the_rate_changes(train, tmp_path):
    keep = Checkpoint(str(tmp_path))
    schedule = partial(Cosine, warmup=0, final=0.0)
    train(schedule, keep, max_epochs=2)
    said = r"scheduled over 10 steps .* is over 20 now, so at step 11 it goes from 0 to 0.5 of"
    with pytest.warns(UserWarning, match=said):
        rates, _, _ = train(schedule, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert rates == pytest.approx([RATE * (0.5 + 0.5 * cos(pi * n / 20)) for n in range(10, 20)])


def test_resumed_run_has_the_configured_rate_and_schedule(train, tmp_path, recwarn):
    path = tmp_path / "mid.ckpt"
    train(None, SaveAfterBatch(path, batch=7))
    rates, _, _ = train(SCHEDULES["cosine"], ckpt_path=path)  # of a run that had no schedule
    assert rates == pytest.approx(train(SCHEDULES["cosine"])[0][7:])
    train(SCHEDULES["cosine"], SaveAfterBatch(path, batch=7))
    rates, _, _ = train(partial(Cosine, warmup=0, final=0.5), ckpt_path=path, rate=2 * RATE)
    assert rates == pytest.approx(
        [2 * RATE * (0.75 + 0.25 * cos(pi * n / 10)) for n in range(7, 10)]
    )
    rates, _, _ = train(None, ckpt_path=path)
    assert rates == [RATE] * 3
    assert not [w for w in recwarn if "learning rate" in str(w.message)]


def test_schedule_without_an_end_is_refused(train):
    cosine = partial(Cosine, warmup=0, final=0.0)
    with pytest.raises(UserError, match="scheduler=cosine needs a"):
        train(cosine, max_epochs=-1, max_time="00:00:01:00")


def test_warmup_longer_than_the_training_is_said(train):
    with pytest.warns(UserWarning, match="rises over 50 steps, and training takes 10"):
        train(partial(Warmup, warmup=50))


def test_scheduler_of_manual_optimization_is_refused(train, build):
    class ManualStep(VAE):
        automatic_optimization = False

    model = build(x_shape=(1, 8, 8), num_classes=3)
    model.__class__, model.automatic_optimization = ManualStep, False
    model.make_scheduler = SCHEDULES["step"]
    with pytest.raises(UserError, match="ManualStep steps its optimizers itself"):
        model.configure_optimizers()


def test_schedule_of_a_variants_own_optimizer_starts(fit, build):
    class Own(VAE):
        """A variant that configures its optimizer itself, with a schedule of vaelab's."""

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=RATE)
            return {"optimizer": optimizer, "lr_scheduler": scheduler_config(warmup, optimizer)}

    warmup = partial(Warmup, warmup=0.4)
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    model = build("model=vae", *sizes, x_shape=(1, 8, 8), num_classes=3)
    model.__class__ = Own
    kept = KeepRates()
    fit(kept, model=model)
    assert list(kept.rates.values()) == pytest.approx(
        [RATE * share for share in (0.25, 0.5, 0.75, *[1] * 7)]
    )


def test_variant_without_the_callbacks_of_its_base_is_refused(fit, build):
    class Own(VAE):
        """A variant that forgets the callbacks of `ELBO`."""

        def configure_callbacks(self):
            return []

    model = build("model=vae", x_shape=(1, 8, 8), num_classes=3)
    model.__class__ = Own
    with pytest.raises(UserError, match=r"Own\.configure_callbacks leaves out StepScalars"):
        fit(model=model)


def test_schedule_of_no_share_is_abstract():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(NotImplementedError):
        Schedule(optimizer)
