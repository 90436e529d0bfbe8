"""What callbacks do to a training, on a model small enough to watch."""

import warnings

import pytest
import torch
from lightning import Callback
from rich.console import Console

from vaelab.callbacks import Annealing, AtomicFiles, Checkpoint, Progress, Seeding, Speed
from vaelab.callbacks.checkpoint import load
from vaelab.callbacks.seeding import reseed
from vaelab.errors import UserError
from vaelab.models import VAE
from vaelab.schedules import linear
from vaelab.stamps import stamp


class Spy(Callback):
    """Notes the weight in every training and validation step."""

    def __init__(self, name: str = "beta") -> None:
        self.name = name
        self.training: list[float] = []
        self.validating: list[float] = []

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.training.append(float(getattr(module, self.name)))

    def on_validation_batch_start(self, trainer, module, *_):
        self.validating.append(float(getattr(module, self.name)))


def test_a_weight_rises_in_training_and_is_whole_elsewhere(fit):
    spy = Spy()
    fit(Annealing("beta", linear, 8, "steps"), spy)
    assert spy.training == [4 * i / 8 for i in range(8)] + [4.0, 4.0]
    assert set(spy.validating) == {4.0}


def test_a_weight_is_whole_after_a_training_that_failed(fit, build):
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    model = build("model=beta_vae", "model.beta=4", *small, x_shape=(1, 8, 8), num_classes=3)

    class Fails(Spy):
        def on_before_zero_grad(self, trainer, module, optimizer):
            super().on_before_zero_grad(trainer, module, optimizer)
            if len(self.training) == 3:
                raise ZeroDivisionError

    fails = Fails()
    with pytest.raises(ZeroDivisionError):
        fit(Annealing("beta", linear, 8, "steps"), fails, model=model)
    assert fails.training[-1] == 1.0
    assert float(model.beta) == 4.0


@pytest.mark.parametrize(
    ("duration", "unit", "steps"), [(1, "epochs", 5), (0.5, "fraction", 5), (3, "steps", 3)]
)
def test_units_of_the_duration(fit, duration, unit, steps):
    spy = Spy()
    fit(Annealing("beta", linear, duration, unit), spy)
    assert spy.training == pytest.approx([4 * min(1, i / steps) for i in range(10)])


def test_it_counts_batches_and_not_optimizer_steps(fit):
    annealing, spy = Annealing("beta", linear, 10, "steps"), Spy()
    trainer, _ = fit(annealing, spy, accumulate_grad_batches=5)
    assert trainer.global_step == 2
    assert annealing.steps == 10
    assert trainer.fit_loop.total_batch_idx == 9


def test_a_resumed_run_goes_on_where_it_stopped(fit, tmp_path):
    annealing = ("beta", linear, 20, "steps")
    fit(Annealing(*annealing), Checkpoint(str(tmp_path)), max_epochs=2)
    spy = Spy()
    fit(Annealing(*annealing), spy, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert spy.training == pytest.approx([4 * i / 20 for i in range(10, 20)])


def test_any_number_of_a_users_model_can_be_annealed(fit, build):
    class Mine(VAE):
        strength = 2.0

        def objective(self, terms):
            return super().objective(terms) + self.strength * terms.rate.mean()

    cfg = {"x_shape": (1, 8, 8), "num_classes": 3}
    model = build("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", **cfg)
    model.__class__ = Mine
    spy = Spy("strength")
    fit(Annealing("strength", linear, 4, "steps"), spy, model=model)
    assert spy.training[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert set(spy.validating) == {2.0}


def test_a_weight_that_is_not_there_is_refused(fit):
    with pytest.raises(UserError, match=r"annealing.target=gamma: BetaVAE .* it has beta"):
        fit(Annealing("gamma", linear, 8, "steps"))
    with pytest.raises(UserError, match=r"annealing\.target=encoder"):
        fit(Annealing("encoder", linear, 8, "steps"))


def test_a_warm_up_longer_than_training_is_a_warning(fit):
    with pytest.warns(UserWarning, match=r"20 batches and training 10: it ends at 1.8, not at 4"):
        fit(Annealing("beta", linear, 20, "steps"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*annealing.*")
        fit(Annealing("beta", linear, 10, "steps"))


def test_a_fraction_of_an_endless_training_is_refused(fit):
    with pytest.raises(UserError, match=r"needs a trainer\.max_epochs"):
        fit(Annealing("beta", linear, 0.5, "fraction"), max_epochs=-1)


def test_the_best_checkpoint_is_of_the_least_loss(fit, tmp_path):
    class Costlier(Callback):
        """Each epoch decodes better, at a higher rate, which costs nothing at beta = 0."""

        def __init__(self):
            self.elbo = []

        def on_train_epoch_start(self, trainer, module):
            module.decoder.out.weight.data.zero_()
            module.decoder.out.bias.data.fill_(3.0 - trainer.current_epoch)
            module.posterior.params.bias.data[:2] = 10.0 * trainer.current_epoch

        def on_validation_end(self, trainer, module):
            self.elbo.append(float(trainer.callback_metrics["val/elbo"]))

    kept, epochs = Checkpoint(str(tmp_path)), Costlier()
    still = ["model.beta=0", "model.optimizer.lr=0"]
    trainer, _ = fit(kept, epochs, overrides=still, max_epochs=3)
    assert sorted(epochs.elbo, reverse=True) == epochs.elbo
    best = load(tmp_path / "best.ckpt")
    assert best["global_step"] == trainer.global_step
    assert best["callbacks"]["Checkpoint"]["best_elbo"] == kept.best_elbo == epochs.elbo[-1]


def test_the_last_checkpoint_is_the_last_step_whatever_its_elbo(fit, tmp_path):
    class Worse(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch:
                module.decoder.out.bias.data.add_(3.0)

    fit(Checkpoint(str(tmp_path)), Worse(), max_epochs=4)
    assert load(tmp_path / "best.ckpt")["global_step"] == 5
    assert load(tmp_path / "last.ckpt")["global_step"] == 20


def test_validation_draws_the_same_noise_every_time(fit):
    trainer, model = fit(Seeding(0), overrides=["model.optimizer.lr=0"], max_epochs=1)
    first = float(trainer.callback_metrics["val/elbo"])
    trainer, _ = fit(Seeding(1), model=model, max_epochs=1)
    assert float(trainer.callback_metrics["val/elbo"]) == first


def test_a_gpu_is_seeded_with_the_cpu(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    reseed(torch.device("cuda", 0), 7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    assert seeded == [7]


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    files, path = AtomicFiles(), tmp_path / "a" / "x.ckpt"
    files.save_checkpoint({"vaelab": stamp({}), "state_dict": {"w": torch.ones(3)}}, path)
    assert load(path)["state_dict"]["w"].tolist() == [1, 1, 1]

    def half(checkpoint, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint({"state_dict": {"w": torch.zeros(3)}}, path)
    assert load(path)["state_dict"]["w"].tolist() == [1, 1, 1]


def test_a_checkpoint_may_hold_no_code(tmp_path):
    torch.save({"state_dict": {}, "evil": Spy()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="no checkpoint"):
        load(tmp_path / "x.ckpt")


def test_speed_counts_every_image(fit):
    speed = Speed()
    trainer, _ = fit(speed, max_epochs=3)
    assert speed.total_images == 150
    assert speed.average > 0
    assert trainer.callback_metrics["train/images_per_second"] > 0


def test_logged_scalars_are_means_over_the_window(fit):
    class Rows(Callback):
        def __init__(self):
            self.rows = []

        def on_before_backward(self, trainer, module, loss):
            self.rows.append(loss.item())

    rows = Rows()
    trainer, _ = fit(rows, max_epochs=2, log_every_n_steps=4)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        sum(rows.rows[4:8]) / 4, rel=1e-5
    )


def test_progress_is_plain_lines_without_a_terminal(fit, capsys):
    fit(Progress(line_seconds=0), Speed(), max_epochs=2, enable_progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("val/elbo -" in line and "images/s" in line for line in lines)


def test_progress_is_a_bar_on_a_terminal(fit, capsys):
    progress = Progress(refresh_steps=1)
    progress.console = Console(force_terminal=True, width=200)
    fit(progress, max_epochs=2, enable_progress_bar=True)
    shown = capsys.readouterr().out
    assert "100%" in shown
    assert "val/elbo -" in shown
