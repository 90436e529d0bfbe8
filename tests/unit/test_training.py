"""What a user's own callbacks, hooks and training steps may do, and where a training continues."""

import pytest
import torch
from lightning import Callback
from torch.testing import assert_close

from vaelab.models import VAE
from vaelab.training.callbacks import Annealing, Seeding, Speed
from vaelab.training.schedules import linear


def ours() -> list[Callback]:
    return [Seeding(0), Annealing("beta", linear, 1, "epochs"), Speed()]


def small(build):
    """A model whose weights start alike."""
    torch.manual_seed(0)
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    return build("model=vae", *sizes, x_shape=(1, 8, 8), num_classes=3)


def test_a_training_step_of_ones_own(fit, build):
    class Own(VAE):
        def training_step(self, batch, batch_idx):
            return self.loss(*batch)[0]

    class Manual(VAE):
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
        assert trainer.global_step == 10
        assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_model_is_trained_as_by_a_plain_loop(fit, build):
    """Ten steps of fused Adam on the batches and with the noise of a run, to the same bits."""

    class Batches(Callback):
        def __init__(self):
            self.kept = []

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.kept.append((*(part.clone() for part in batch), torch.get_rng_state()))

    batches = Batches()
    _, trained = fit(Seeding(0), batches, model=small(build))
    model = small(build)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for x, y, state in batches.kept:
        torch.set_rng_state(state)
        optimizer.zero_grad()
        model.loss(x, y)[0].backward()
        optimizer.step()
    assert len(batches.kept) == 10
    assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_resume_mid_epoch_is_bit_exact(fit, build, tmp_path):
    class Saves(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    whole, expected = fit(*ours(), Saves(), model=small(build))
    resumed, found = fit(*ours(), model=small(build), ckpt_path=tmp_path / "mid.ckpt")
    assert resumed.global_step == whole.global_step == 10
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_second_fit_may_ask_for_something_else(fit, build):
    model = small(build)
    for wanted in ({}, {"gradient_clip_val": 1.0}, {}, {"accumulate_grad_batches": 5}):
        before = [p.detach().clone() for p in model.parameters()]
        trainer, _ = fit(model=model, max_epochs=1, **wanted)
        assert trainer.global_step == (1 if "accumulate_grad_batches" in wanted else 5)
        assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_learning_rate_schedule_of_ones_own(fit, build):
    model = small(build)
    optimizer = model.configure_optimizers()
    halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    model.configure_optimizers = lambda: {"optimizer": optimizer, "lr_scheduler": halving}
    fit(model=model, max_epochs=2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 4)


def test_max_steps(fit):
    assert fit(*ours(), max_steps=7)[0].global_step == 7


def test_a_broken_fit_leaves_a_model_that_can_be_trained(fit, build):
    class Broken(Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("broken")

    model = small(build)
    with pytest.raises(RuntimeError, match="broken"):
        fit(Broken(), model=model)
    assert fit(model=model)[0].global_step == 10
