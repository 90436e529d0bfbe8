"""A module that updates itself is trained as a trainer would train it."""

from functools import partial
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import Timer
from torch.testing import assert_close

from vaelab.acceleration import stepping
from vaelab.models import VAE
from vaelab.training.callbacks import Annealing, Checkpoint, Seeding, Speed
from vaelab.training.schedules import linear


class Watcher(Callback):
    """Wants to know of every update, which changes nothing."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        pass


class Chosen(Callback):
    """Notes who made the updates."""

    def on_train_batch_end(self, trainer, module, *_):
        self.by_trainer = module.automatic_optimization


def ours() -> list[Callback]:
    return [Seeding(0), Annealing("beta", linear, 1, "epochs"), Speed()]


@pytest.mark.parametrize(
    ("wanted", "callbacks"),
    [
        ({}, []),
        ({"gradient_clip_val": 1.0}, []),
        ({"accumulate_grad_batches": 2}, []),
        ({"precision": "64-true"}, []),
        ({}, [Watcher()]),
    ],
)
def test_a_module_updates_itself_where_nothing_is_asked_for_in_between(fit, wanted, callbacks):
    chosen = Chosen()
    fit(*ours(), *callbacks, chosen, **wanted)
    assert chosen.by_trainer == bool(wanted or callbacks)


@pytest.mark.parametrize("name", [*stepping.BETWEEN, *stepping.WITHIN])
def test_a_hook_of_a_module_has_the_trainer_make_the_updates(fit, build, name):
    model, calls = small(build), []
    usual = getattr(model, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return usual(*args, **kwargs)

    setattr(type(model), name, staticmethod(noted))
    chosen = Chosen()
    try:
        fit(chosen, model=model)
    finally:
        delattr(type(model), name)
    assert chosen.by_trainer
    assert bool(calls) == (name != "lr_scheduler_step")  # there is no scheduler


def test_a_training_step_of_ones_own_is_trained_by_the_trainer(fit, build):
    class Own(VAE):
        def training_step(self, batch, batch_idx):
            return self.loss(*batch)[0]

    class Manual(Own):
        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            self.manual_backward(self.loss(*batch)[0])
            self.optimizers().step()

    _, expected = fit(*ours(), model=small(build))
    for kind, automatic in ((Own, True), (Manual, False)):
        model = small(build)
        model.__class__ = kind
        model.automatic_optimization = automatic
        trainer, model = fit(*ours(), model=model)
        assert (trainer.global_step, model.automatic_optimization) == (10, automatic)
        assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_second_fit_may_ask_for_something_else(fit, build):
    model, chosen = small(build), Chosen()
    for wanted in ({}, {"gradient_clip_val": 1.0}, {}, {"accumulate_grad_batches": 5}):
        before = [p.detach().clone() for p in model.parameters()]
        trainer, _ = fit(chosen, model=model, max_epochs=1, **wanted)
        assert chosen.by_trainer == bool(wanted)
        assert trainer.global_step == (1 if "accumulate_grad_batches" in wanted else 5)
        assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_scheduler_has_the_trainer_make_the_updates(fit, build):
    model = small(build)
    optimizer = model.configure_optimizers()
    halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    model.configure_optimizers = lambda: {"optimizer": optimizer, "lr_scheduler": halving}
    chosen = Chosen()
    fit(chosen, model=model, max_epochs=2)
    assert chosen.by_trainer
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 4)


def test_an_optimizer_that_asks_for_the_loss_again_has_the_trainer_make_the_updates(fit, build):
    class Asks(torch.optim.SGD):
        def step(self, closure):
            return super().step(closure)

    chosen, found = Chosen(), {}
    for kind in (Asks, torch.optim.SGD):
        model = small(build)
        model.make_optimizer = partial(kind, lr=1e-3)
        fit(*ours(), *([chosen] if kind is Asks else []), model=model)
        found[kind] = model.state_dict()
    assert chosen.by_trainer
    assert_close(found[Asks], found[torch.optim.SGD], rtol=0, atol=0)


@pytest.mark.parametrize("precision", [32, "bf16"])
def test_both_come_to_the_same_weights(fit, build, precision):
    one, itself = fit(*ours(), model=small(build), precision=precision)
    other, by_trainer = fit(*ours(), Watcher(), model=small(build), precision=precision)
    assert one.global_step == other.global_step == 10
    assert_close(itself.state_dict(), by_trainer.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("first", "then"), [([], [Watcher()]), ([Watcher()], []), ([], [])])
def test_either_goes_on_from_a_checkpoint_of_the_other(fit, build, tmp_path, first, then):
    whole, expected = fit(*ours(), model=small(build), max_epochs=3)
    fit(*ours(), *first, Checkpoint(str(tmp_path)), model=small(build), max_epochs=1)
    options = {"max_epochs": 3, "ckpt_path": tmp_path / "last.ckpt"}
    trainer, found = fit(*ours(), *then, model=small(build), **options)
    assert trainer.global_step == whole.global_step == 15
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


class Recorder(Callback):
    """Notes what it is told around each batch, and saves a checkpoint after one."""

    def __init__(self, strides=True, save=None):
        self.strides, self.save = strides, save
        self.seen = []

    def on_train_batch_start(self, trainer, module, *_):
        self.seen.append(self.counts(trainer, module))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append((batch[0].sum().item(), batch_idx, *self.counts(trainer, module)))
        if self.save and trainer.global_step == 7:
            trainer.save_checkpoint(self.save)

    @staticmethod
    def counts(trainer, module):
        loop = trainer.fit_loop
        return loop.total_batch_idx, loop.batch_idx, trainer.global_step, module.beta.item()


@pytest.mark.parametrize("stride", [2, 3, 5, 16])
def test_several_batches_at_once_are_as_one_after_the_other(fit, build, monkeypatch, stride):
    """Of epochs of five batches, in everything that callbacks see and validation measures."""
    monkeypatch.setattr(stepping, "STRIDE", stride)
    told, asked = Recorder(), Recorder(strides=False)
    one, _ = fit(*ours(), told, model=small(build), log_every_n_steps=2)
    other, _ = fit(*ours(), asked, model=small(build), log_every_n_steps=2)
    assert told.seen == asked.seen
    assert len(told.seen) == 20
    speed = "train/images_per_second"
    for name in ("callback_metrics", "logged_metrics"):
        found, expected = dict(getattr(one, name)), dict(getattr(other, name))
        assert {"train/elbo", "val/elbo"} < found.keys()
        del found[speed], expected[speed]
        assert found == expected


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True), (True, True)])
def test_either_goes_on_in_the_middle_of_an_epoch(fit, build, tmp_path, monkeypatch, first, then):
    monkeypatch.setattr(stepping, "STRIDE", 3)
    whole = Recorder(save=tmp_path / "mid.ckpt", strides=first)
    _, expected = fit(*ours(), whole, model=small(build))
    rest = Recorder(strides=then)
    _, found = fit(*ours(), rest, model=small(build), ckpt_path=whole.save)
    assert [counts[-4:] for counts in rest.seen] == [counts[-4:] for counts in whole.seen[14:]]
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


class Strides(Callback):
    """Notes whether the module took several batches at once."""

    strides = True

    def on_train_start(self, trainer, module):
        self.found = "stride" in vars(module)


class Own(VAE):
    """A model from elsewhere, which may log as it likes."""


@pytest.mark.parametrize(
    ("wanted", "callbacks"),
    [
        ({}, []),
        ({"limit_train_batches": 3}, []),
        ({"limit_train_batches": 1}, []),
        ({"val_check_interval": 1}, []),
        ({"val_check_interval": 0.4}, []),
        ({"val_check_interval": "00:00:01:00"}, []),
        ({"check_val_every_n_epoch": None, "val_check_interval": 7}, []),
        ({"overfit_batches": 2}, []),
        ({"fast_dev_run": 2}, []),
        ({"profiler": "simple"}, []),
        ({"gradient_clip_val": 1.0}, []),
        ({}, [Chosen()]),
        ({}, [Timer()]),
    ],
)
def test_several_batches_are_taken_where_nobody_looks_on(fit, wanted, callbacks):
    strides = Strides()
    fit(*ours(), strides, *callbacks, **wanted)
    assert strides.found == (not wanted and not callbacks)


def test_a_model_from_elsewhere_takes_one_batch_after_the_other(fit, build):
    model, strides = small(build), Strides()
    model.__class__ = Own
    fit(strides, model=model)
    assert not strides.found


def test_several_batches_end_where_training_is_stopped(fit):
    class Enough(Callback):
        strides = True

        def on_train_batch_start(self, trainer, *_):
            trainer.should_stop |= trainer.global_step == 6

    assert fit(*ours(), Enough())[0].global_step == 7


def test_a_fit_leaves_the_module_as_it_was(fit, build):
    class Broken(Strides):
        def on_train_batch_end(self, *_):
            raise RuntimeError("broken")

    model = small(build)
    before = set(vars(model))
    with pytest.raises(RuntimeError, match="broken"):
        fit(Broken(), model=model)
    fit(strides := Strides(), model=model)
    assert strides.found
    assert not {"stride", "training_step"} & (set(vars(model)) - before)
    fit(chosen := Chosen(), model=model, gradient_clip_val=1.0)
    assert chosen.by_trainer


def test_so_many_steps_are_made_and_no_more(fit):
    assert fit(*ours(), max_steps=7)[0].global_step == 7


def small(build):
    """A model whose weights start alike."""
    torch.manual_seed(0)
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    return build("model=vae", *sizes, x_shape=(1, 8, 8), num_classes=3)
