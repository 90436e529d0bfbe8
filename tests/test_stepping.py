"""A module that updates itself is trained as a trainer would train it."""

from typing import Any

import pytest
import torch
from lightning import Callback
from torch.testing import assert_close

from vaelab import stepping
from vaelab.callbacks import Annealing, Checkpoint, Seeding, Speed
from vaelab.models import VAE
from vaelab.schedules import linear


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


def test_so_many_steps_are_made_and_no_more(fit):
    assert fit(*ours(), max_steps=7)[0].global_step == 7


def small(build):
    """A model whose weights start alike."""
    torch.manual_seed(0)
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    return build("model=vae", *sizes, x_shape=(1, 8, 8), num_classes=3)
