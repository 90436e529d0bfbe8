"""`Trainer.fit` with custom steps, callbacks and options, and resuming, against equal runs."""

import lightning
import pytest
import torch
from lightning import Callback
from safetensors.numpy import save_file
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from vaelab.commands.config_folders import CONF
from vaelab.data import Arrays
from vaelab.models import VAE
from vaelab.training.callbacks import Annealing, Seeding, Speed
from vaelab.training.schedules import linear


def build_callbacks() -> list[Callback]:
    """Builds new callbacks of vaelab that affect or measure training."""
    return [Seeding(0), Annealing("beta", linear, 1, "epochs"), Speed()]


def build_small_vae(build):
    """Builds a small VAE, with the same initial weights at every call."""
    torch.manual_seed(0)
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    return build("model=vae", *sizes, x_shape=(1, 8, 8), num_classes=3)


def test_custom_training_steps_are_bit_exact_with_default(fit, build):
    class AutomaticStep(VAE):
        def training_step(self, batch, batch_idx):
            return self.loss(*batch)[0]

    class ManualStep(VAE):
        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            self.manual_backward(self.loss(*batch)[0])
            self.optimizers().step()

    _, expected = fit(*build_callbacks(), model=build_small_vae(build))
    for kind, automatic in ((AutomaticStep, True), (ManualStep, False)):
        model = build_small_vae(build)
        model.__class__ = kind
        model.automatic_optimization = automatic
        trainer, model = fit(*build_callbacks(), model=model)
        assert trainer.global_step == 10
        assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_fit_is_bit_exact_with_plain_training_loop(fit, build):
    """Ten steps of fused Adam, with the batches and the random states that `fit` had."""

    class RecordBatches(Callback):
        """Keeps every training batch and the random state before it."""

        def __init__(self):
            self.kept = []

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.kept.append((*(part.clone() for part in batch), torch.get_rng_state()))

    batches = RecordBatches()
    _, trained = fit(Seeding(0), batches, model=build_small_vae(build))
    model = build_small_vae(build)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for x, y, state in batches.kept:
        torch.set_rng_state(state)
        optimizer.zero_grad()
        model.loss(x, y)[0].backward()
        optimizer.step()
    assert len(batches.kept) == 10
    assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_resume_mid_epoch_is_bit_exact(fit, build, tmp_path):
    class SaveAtStep7(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    whole, expected = fit(*build_callbacks(), SaveAtStep7(), model=build_small_vae(build))
    resumed, found = fit(
        *build_callbacks(), model=build_small_vae(build), ckpt_path=tmp_path / "mid.ckpt"
    )
    assert resumed.global_step == whole.global_step == 10
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_resume_mid_epoch_is_bit_exact_with_autoregressive_pixels(fit, tmp_path):
    class SaveAtStep7(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    parts = ["likelihood=autoregressive", "model.likelihood.hidden=[8,4]"]
    _, expected = fit(*build_callbacks(), SaveAtStep7(), overrides=parts)
    torch.manual_seed(1)  # other first weights, which the checkpoint replaces
    _, found = fit(*build_callbacks(), overrides=parts, ckpt_path=tmp_path / "mid.ckpt")
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [{"balance": True}, {"flip": True, "shift": 2}, {"in_memory": "window", "balance": True}],
    ids=["balance", "flip and shift", "window"],
)
def test_resume_mid_epoch_is_bit_exact_with_data_settings(
    fit, build, tmp_path, monkeypatch, settings
):
    if "in_memory" in settings:
        monkeypatch.setattr("vaelab.data.on_disk.LARGE", 1000)
        monkeypatch.setattr("vaelab.data.batches.DRAWN", 1000)
        images = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8).numpy()
        labels = (torch.arange(60) % 7).clamp(max=2).numpy()
        save_file({"train_images": images, "train_labels": labels}, tmp_path / "x.safetensors")
        settings = settings | {"source": Arrays(str(tmp_path / "x.safetensors"))}

    class SaveAtStep7(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    runs = [
        fit(*build_callbacks(), *more, model=build_small_vae(build), data=settings, **options)
        for more, options in (
            ([SaveAtStep7()], {}),
            ([], {"ckpt_path": tmp_path / "mid.ckpt"}),
        )
    ]
    (whole, expected), (resumed, found) = runs
    assert whole.global_step == resumed.global_step == 10
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    _, plain = fit(*build_callbacks(), model=build_small_vae(build))
    weights, others = (next(model.parameters()) for model in (plain, found))
    assert not torch.equal(weights, others)  # the setting has changed the batches


@pytest.mark.parametrize(
    "options",
    [
        {"limit_train_batches": 3, "check_val_every_n_epoch": 2},
        {"limit_train_batches": 4, "val_check_interval": 2},
        {"val_check_interval": 2},
    ],
    ids=["epochs", "within epochs", "whole epochs"],
)
def test_resume_from_a_checkpoint_of_a_validation_is_bit_exact(fit, build, tmp_path, options):
    class SaveAfterValidation(Callback):
        def on_validation_end(self, trainer, module):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    options |= {"max_epochs": 4}
    model = build_small_vae(build)
    whole, expected = fit(*build_callbacks(), SaveAfterValidation(), model=model, **options)
    kept = sorted(tmp_path.glob("*.ckpt"))
    assert len(kept) >= 2
    for path in kept:
        model = build_small_vae(build)
        resumed, found = fit(*build_callbacks(), model=model, ckpt_path=path, **options)
        assert resumed.global_step == whole.global_step, path
        assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_second_fit_of_a_model_accepts_other_options(fit, build):
    model = build_small_vae(build)
    for wanted in ({}, {"gradient_clip_val": 1.0}, {}, {"accumulate_grad_batches": 5}):
        before = [p.detach().clone() for p in model.parameters()]
        trainer, _ = fit(model=model, max_epochs=1, **wanted)
        assert trainer.global_step == (1 if "accumulate_grad_batches" in wanted else 5)
        assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_custom_learning_rate_schedule_steps_every_epoch(fit, build):
    model = build_small_vae(build)
    optimizer = model.configure_optimizers()
    halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    model.configure_optimizers = lambda: {"optimizer": optimizer, "lr_scheduler": halving}
    fit(model=model, max_epochs=2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 4)


def test_max_steps_limits_training_steps(fit):
    assert fit(*build_callbacks(), max_steps=7)[0].global_step == 7


@pytest.mark.parametrize("precision", [32, "bf16"])
def test_gradients_of_fused_adam_are_clipped_in_every_precision(fit, build, precision):
    class NormsOfLastStep(Callback):
        """Keeps the norm of all gradients as an optimizer step left them."""

        def __init__(self):
            self.kept = []

        def on_before_zero_grad(self, trainer, module, optimizer):
            every = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
            self.kept += [torch.cat(every).norm()] if every else []

    model, norms = build_small_vae(build), NormsOfLastStep()
    fit(norms, model=model, precision=precision, gradient_clip_val=0.5)
    assert model.configure_optimizers().defaults["fused"]
    assert torch.stack(norms.kept).numpy() == pytest.approx(0.5, rel=1e-3)


def test_model_can_be_fitted_again_after_an_exception(fit, build):
    class RaiseError(Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("broken")

    model = build_small_vae(build)
    with pytest.raises(RuntimeError, match="broken"):
        fit(RaiseError(), model=model)
    assert fit(model=model)[0].global_step == 10


VARIANTS = sorted(path.stem for path in (CONF / "model").glob("[!_]*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_clipped_variant_resumes_mid_epoch_to_the_same_bits(fit, build, tmp_path, name):
    """The norm of all gradients is clipped at every step, before and after the stop."""
    path, norms = tmp_path / "mid.ckpt", []

    class SaveAtStep3(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                trainer.save_checkpoint(path)

    def train(*callbacks, **options):
        torch.manual_seed(0)
        sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=4"]
        model = build(f"model={name}", *sizes, x_shape=(1, 8, 8), num_classes=3)
        clip = model.configure_gradient_clipping

        def clip_and_measure(*args, **settings):
            clip(*args, **settings)
            every = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            norms.append(float(torch.cat(every).norm()))

        model.configure_gradient_clipping = clip_and_measure
        options = {"max_epochs": 1, "gradient_clip_val": 0.01} | options
        return fit(Seeding(0), *callbacks, model=model, **options)[1]

    expected = train(SaveAtStep3())
    found = train(ckpt_path=path)
    assert len(norms) == 5 + 2
    assert max(norms) <= 0.01 * (1 + 1e-4)
    assert norms[5:] == norms[3:5]
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_trains_with_plain_trainer_and_data_loader(build, tmp_path, name):
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=4"]
    model = build(f"model={name}", *sizes, x_shape=(1, 8, 8), num_classes=3)
    if name == "beta_tcvae":
        model.num_images = 20
    images, labels = torch.rand(20, 1, 8, 8).round(), torch.eye(3)[torch.arange(20) % 3]
    loader = DataLoader(TensorDataset(images, labels), batch_size=10)
    before = [p.detach().clone() for p in model.parameters()]
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=2, default_root_dir=tmp_path, accelerator="cpu", log_every_n_steps=1, **options
    )
    trainer.fit(model, loader, loader)
    assert trainer.global_step == 4
    assert {"train/elbo", "val/elbo", "val/loss"} <= trainer.callback_metrics.keys()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
