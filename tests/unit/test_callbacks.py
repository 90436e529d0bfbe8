"""`Checkpoint`, `Seeding`, `Speed`, `Progress` and `track`, on a small model and a fake clock."""

import json
import os
import re
from math import isnan

import pytest
import torch
from lightning import Callback
from rich.console import Console

from vaelab.errors import UserError
from vaelab.models import VAE
from vaelab.training.callbacks import AtomicFiles, Checkpoint, Progress, Seeding, Speed
from vaelab.training.callbacks import speed as speeds
from vaelab.training.callbacks.checkpoint import load_checkpoint
from vaelab.training.callbacks.seeding import reseed
from vaelab.training.checkpoint_format import format_record
from vaelab.training.progress_bar import track


def test_best_checkpoint_has_least_loss_even_if_elbo_falls(fit, tmp_path):
    class RaiseRate(Callback):
        """Each epoch has less distortion and a higher rate, which costs nothing with beta = 0."""

        def __init__(self):
            self.elbo = []

        def on_train_epoch_start(self, trainer, module):
            module.decoder.out.weight.data.zero_()
            module.decoder.out.bias.data.fill_(3.0 - trainer.current_epoch)
            module.posterior.params.bias.data[:2] = 10.0 * trainer.current_epoch

        def on_validation_end(self, trainer, module):
            self.elbo.append(float(trainer.callback_metrics["val/elbo"]))

    kept, epochs = Checkpoint(str(tmp_path)), RaiseRate()
    still = ["model.beta=0", "model.optimizer.lr=0"]
    trainer, _ = fit(kept, epochs, overrides=still, max_epochs=3)
    assert sorted(epochs.elbo, reverse=True) == epochs.elbo
    best = load_checkpoint(tmp_path / "best.ckpt")
    assert best["global_step"] == trainer.global_step
    assert best["callbacks"]["Checkpoint"]["best_elbo"] == kept.best_elbo == epochs.elbo[-1]


def test_best_checkpoint_needs_only_the_value_that_it_monitors(fit, build, tmp_path):
    class Own(VAE):
        """A variant whose validation logs `val/loss` alone."""

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", self.loss(*batch)[0])

        def on_validation_epoch_end(self):
            pass

    model = build("model=vae", x_shape=(1, 8, 8), num_classes=3)
    model.__class__ = Own
    checkpoint = Checkpoint(str(tmp_path))
    fit(checkpoint, model=model)
    assert (tmp_path / "best.ckpt").exists()
    assert isnan(checkpoint.best_elbo)


@pytest.mark.parametrize("best_exists", [True, False])
def test_paths_in_a_checkpoint_delete_no_file(fit, tmp_path, best_exists):
    folder, own = tmp_path / "checkpoints", tmp_path / "own.txt"
    own.write_text("mine")
    fit(Checkpoint(str(folder)), max_epochs=1)
    content = load_checkpoint(folder / "last.ckpt")
    far = f"{folder}/../own.txt"  # Lightning deletes what is below `dirpath` by its name
    worst = torch.tensor(1e9)
    content["callbacks"]["Checkpoint"] |= {
        "kth_best_model_path": far,
        "best_k_models": {far: worst},
        "kth_value": worst,
        "best_model_path": far,
        "last_model_path": far,
    }
    AtomicFiles().save_checkpoint(content, folder / "last.ckpt")
    if not best_exists:
        (folder / "best.ckpt").unlink()
    fit(Checkpoint(str(folder)), ckpt_path=folder / "last.ckpt", max_epochs=2)
    assert own.read_text() == "mine"
    assert (folder / "best.ckpt").exists()


def test_best_checkpoint_of_another_value_is_not_taken_for_the_best(fit, tmp_path):
    """As one that was saved after the last checkpoint, before the process was killed."""
    fit(Checkpoint(str(tmp_path)), max_epochs=1)
    other = load_checkpoint(tmp_path / "best.ckpt")
    other["callbacks"]["Checkpoint"]["best_model_score"] += 1
    AtomicFiles().save_checkpoint(other, tmp_path / "best.ckpt")
    resumed = Checkpoint(str(tmp_path))
    still = ["model.optimizer.lr=0"]
    fit(resumed, overrides=still, ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert load_checkpoint(tmp_path / "best.ckpt")["global_step"] == 10


def test_last_checkpoint_is_of_last_step_even_if_elbo_falls(fit, tmp_path):
    class WorsenDecoder(Callback):
        """Increases the distortion at the start of every epoch but the first."""

        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch:
                module.decoder.out.bias.data.add_(3.0)

    fit(Checkpoint(str(tmp_path)), WorsenDecoder(), max_epochs=4)
    assert load_checkpoint(tmp_path / "best.ckpt")["global_step"] == 5
    assert load_checkpoint(tmp_path / "last.ckpt")["global_step"] == 20


def test_seeding_validation_noise_does_not_depend_on_seed(fit):
    trainer, model = fit(Seeding(0), overrides=["model.optimizer.lr=0"], max_epochs=1)
    first = float(trainer.callback_metrics["val/elbo"])
    trainer, _ = fit(Seeding(1), model=model, max_epochs=1)
    assert float(trainer.callback_metrics["val/elbo"]) == first


def test_reseed_seeds_cpu_and_gpu(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    reseed(torch.device("cuda", 0), 7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    assert seeded == [7]


def test_atomic_files_keep_old_checkpoint_if_writing_fails(tmp_path, monkeypatch):
    files, path = AtomicFiles(), tmp_path / "a" / "x.ckpt"
    files.save_checkpoint({"vaelab": format_record({}), "state_dict": {"w": torch.ones(3)}}, path)
    assert load_checkpoint(path)["state_dict"]["w"].tolist() == [1, 1, 1]

    def write_half(checkpoint, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint({"state_dict": {"w": torch.zeros(3)}}, path)
    assert load_checkpoint(path)["state_dict"]["w"].tolist() == [1, 1, 1]


def test_load_checkpoint_rejects_pickled_objects(tmp_path):
    torch.save({"state_dict": {}, "evil": Speed()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "cannot be read .a pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read .a device, not a file"),
        (lambda path: path.symlink_to("/proc/self/environ"), "truncated, or no checkpoint"),
        (lambda path: None, "there is no such checkpoint"),
    ],
)
def test_load_checkpoint_refuses_what_is_no_file_without_opening_it(tmp_path, make, said):
    make(tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=f"x.ckpt: {said}"):
        load_checkpoint(tmp_path / "x.ckpt")


class Clock(Callback):
    """A fake clock: a training batch takes 1 second, everything else around it 1,000."""

    now = 0.0

    def __call__(self):
        return self.now

    def on_before_backward(self, *_):
        self.now += 1

    def add_1000_seconds(self, *_):
        self.now += 1000

    on_validation_start = on_validation_batch_start = on_validation_end = add_1000_seconds
    on_train_epoch_start = on_train_epoch_end = on_save_checkpoint = add_1000_seconds


@pytest.mark.parametrize(
    ("options", "windows"),
    [
        ({}, 3),  # the default of the fixture: each logging step ends an epoch
        ({"log_every_n_steps": 2}, 7),
        ({"log_every_n_steps": 4, "val_check_interval": 2}, 3),
        ({"log_every_n_steps": 15}, 1),
        ({"log_every_n_steps": 50}, 0),
        ({"log_every_n_steps": 2, "accumulate_grad_batches": 2}, 4),
        ({"check_val_every_n_epoch": 2, "limit_train_batches": 3, "log_every_n_steps": 1}, 9),
    ],
)
def test_speed_excludes_validation_checkpoints_and_epoch_ends(
    fit, monkeypatch, tmp_path, options, windows
):
    clock, logged = Clock(), []
    monkeypatch.setattr(speeds, "perf_counter", clock)
    monkeypatch.setattr(speeds, "log_step_scalars", lambda _, values: logged.append(values))
    speed = Speed()
    trainer, _ = fit(speed, Checkpoint(str(tmp_path)), clock, max_epochs=3, **options)
    assert [values["train/images_per_second"] for values in logged] == [10.0] * windows
    assert speed.images_per_second == speed.mean_images_per_second == 10.0
    assert speed.images + speed.total_images == 10 * (trainer.fit_loop.total_batch_idx + 1)
    assert clock.now > 3000


def test_seconds_of_a_training_are_those_of_all_its_starts(fit, monkeypatch, tmp_path):
    class Batches(Callback):
        """A fake clock: a training batch takes 1 second."""

        now = 100

        def on_before_backward(self, *_):
            self.now += 1

    clock, last = Batches(), tmp_path / "last.ckpt"
    monkeypatch.setattr(speeds, "monotonic", lambda: clock.now)
    fit(Speed(), clock, Checkpoint(str(tmp_path)), max_epochs=1)
    assert load_checkpoint(last)["callbacks"]["Speed"] == {"seconds": 5}
    resumed = Speed()
    clock.now += 1000  # until somebody starts it again
    trainer, model = fit(resumed, clock, Checkpoint(str(tmp_path)), ckpt_path=last, max_epochs=3)
    data = trainer.datamodule
    trainer.test(model, data, ckpt_path=last, weights_only=True, verbose=False)  # loads its state
    assert resumed.earlier_seconds == 5
    assert load_checkpoint(last)["callbacks"]["Speed"] == {"seconds": 15}


def test_train_loss_is_logged_as_mean_since_last_logging_step(fit):
    class RecordLosses(Callback):
        """Keeps the loss of every training batch."""

        def __init__(self):
            self.rows = []

        def on_before_backward(self, trainer, module, loss):
            self.rows.append(loss.item())

    rows = RecordLosses()
    trainer, _ = fit(rows, max_epochs=2, log_every_n_steps=4)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        sum(rows.rows[4:8]) / 4, rel=1e-5
    )


def test_progress_prints_lines_without_terminal(fit, capsys):
    fit(Progress(line_seconds=0), Speed(), max_epochs=2, enable_progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("val/elbo -" in line and "images/s" in line for line in lines)


def test_progress_prints_lines_within_long_epochs_without_terminal(fit, capsys):
    progress = Progress(line_seconds=1e9, silent_seconds=0, refresh_steps=1)
    fit(progress, max_epochs=2, enable_progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 + 2  # after each batch, and the first and the last validation
    assert re.fullmatch(r"epoch 1/2  10%, about 0:00:\d\d left", lines[0])
    assert re.fullmatch(r"epoch 2/2  val/elbo -[\d.]+  100%, about 0:00:00 left", lines[-2])


def test_progress_file_is_current_after_an_exception(fit, tmp_path):
    class FailAtBatch8(Callback):
        def on_before_backward(self, trainer, module, loss):
            if trainer.fit_loop.total_batch_idx == 7:
                raise ZeroDivisionError

    file = tmp_path / "progress.json"
    with pytest.raises(ZeroDivisionError):
        fit(Progress(str(file)), FailAtBatch8(), max_epochs=3, enable_progress_bar=True)
    found = json.loads(file.read_text())
    assert (found["epoch"], found["epochs"]) == (2, 3)
    assert found["share"] == pytest.approx(8 / 15)


@pytest.mark.parametrize(("size", "shown"), [(4, ["25%", "50%", "75%"]), (None, ["1 done"])])
def test_track_prints_lines_of_progress_for_long_work(monkeypatch, capsys, size, shown):
    times = iter(range(0, 1000, 40))
    monkeypatch.setattr("vaelab.training.progress_bar.monotonic", lambda: next(times))
    work = range(4) if size else iter(range(4))
    assert list(track(work, "measuring")) == [0, 1, 2, 3]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0] == ("measuring  0%" if size else "measuring  0 done")
    for line, share in zip(lines[1:], shown, strict=False):
        assert line.startswith(f"measuring  {share}")


def test_track_prints_nothing_for_short_work_without_terminal(capsys):
    assert list(track(range(3), "measuring")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_progress_shows_bar_in_terminal(fit, capsys):
    progress = Progress(refresh_steps=1)
    progress.console = Console(force_terminal=True, width=200)
    fit(progress, max_epochs=2, enable_progress_bar=True)
    shown = capsys.readouterr().out
    assert "100%" in shown
    assert "val/elbo -" in shown
