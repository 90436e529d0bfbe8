"""The command line: what it refuses, in one line, and what it answers at once."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import splits
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf

from vaelab.commands import arguments, cli, preflight, train
from vaelab.commands.run_folder import RunFolder
from vaelab.data import Images
from vaelab.errors import UserError
from vaelab.report import read_sweep
from vaelab.runs.folder import read_evaluation
from vaelab.runs.naming import run_name, sweep_name
from vaelab.training.json_files import read_json, write_json

ROOT = Path(__file__).parents[2]

Refused = Callable[..., str]
SMALL_LAYERS = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
TINY = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "trainer.max_epochs=1"]


def failed(monkeypatch, capsys, *arguments: str) -> str:
    """What `python train.py` with these arguments says before it exits with 2."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    for name in ("HYDRA_FULL_ERROR", "VAELAB_SHORT_ERROR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as exit_:
        train.main()
    assert exit_.value.code == 2
    return capsys.readouterr().err.strip()


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path) -> Refused:
    """(*overrides) -> what `python train.py` says to them, after exit code 2 and one line."""

    def run(*overrides: str) -> str:
        given = [f"hydra.run.dir={tmp_path}/run", f"paths.data={tmp_path}/data", *overrides]
        said = failed(monkeypatch, capsys, *given)
        *warnings, error = said.splitlines()
        assert all(line.startswith("warning: ") for line in warnings)
        assert error.startswith("error: ")
        return error

    return run


SETTINGS = {
    "model=foo": "possible are ae, beta_tcvae, beta_vae",
    "data=nist": "there is no such data",
    "modle=vae": "did you mean model?",
    "model.betta=4 model=beta_vae": "did you mean model.beta?",
    "+model.betta=4 model=beta_vae": "did you mean beta?",
    "graph=true": "graph: there is no such setting",
    "model=beta_tcvae data.batch_size=1": "BetaTCVAE compares the images of a batch with",
    "model=dip_vae data.batch_size=1": "DIPVAE compares the images of a batch",
    "model=info_vae data.batch_size=1": "InfoVAE compares the images of a batch",
    "model=wae data.batch_size=1": "WAE compares the images of a batch",
    "model=factor_vae data.batch_size=3": "and needs 4 or more",
    "model=factor_vae trainer=ddp_cpu trainer.devices=3 data.batch_size=3": "or more, on 3 devices",
    "+foo=1": "foo=1: there is no such setting",
    "model.betta=4 modle=vae foo.bar=1 model=beta_vae": "did you mean model.beta?",
    "+model.beta=4 model=beta_vae": "+model.beta: is in the configuration; without the + it is",
    "latent_dim=3": "latent_dim: there is no such setting; did you mean model.latent_dim?",
    "optimizer.lr=3": "did you mean model.optimizer.lr?",
    "+data=mnist": "+data: is in the configuration; without the + it is set",
    "~model.fob": "model.fob: there is no such setting; possible are model.condition",
    "trainer.max_epoch=3": "did you mean trainer.max_epochs?",
    "trainer.enable_model_sumary=1": "did you mean trainer.enable_model_summary?",
    "trainer.overfit_batches=1": "add it with +trainer.overfit_batches=...",
    "model.foo.bar=1": "and no model.foo",
    "data.batchsize=3": "did you mean data.batch_size?",
    "model=beta_vae model.beta=-1": "model.beta=-1: should be greater than or equal to 0",
    "model=beta_vae model.beta=abc": "model.beta=abc: should be a valid number",
    "model=beta_vae model.beta=nan": "should be a finite number",
    "model.latent_dim=0": "model.latent_dim=0: should be greater than 0",
    "model.latent_dim=2.5": "model.latent_dim=2.5: should be a valid integer",
    "model.num_samples=0": "model.num_samples=0",
    "model.encoder.hidden=[]": "model.encoder.hidden",
    "model.optimizer.lr=-1": "Invalid learning rate: -1",
    "seed=-1": "seed=-1",
    "precision=17": "precision=17",
    "trainer.max_epochs=0": "trainer.max_epochs=0",
    "trainer.accelerator=abacus": "trainer",
    "data.test_size=0": "no test part of their own",
    "data.val_size=4800": "leave nothing of the 5,000 images",
    "prior=conditional_normal": "use model=cvae",
    "likelihood=bernoulli data.pixels=grey": "data.pixels=binary",
    "network=conv model.encoder.channels=[8,8,8,8,8]": "28 x 28 pixels are too small",
    "annealing=linear annealing.target=gamma": "it has beta",
    "annealing=linear annealing.target=latent_dim": "it has beta",
    "trainer.log_every_n_steps=0": "trainer.log_every_n_steps=0",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches=0",
    "trainer.val_check_interval=1000": "trainer: ",
    "annealing=linear annealing.unit=hours": "annealing.unit=hours",
    "data=arrays": "data.source.path has no value",
    "data=arrays data.source.path=": "data.source.path=: the value is empty",
    "hydra.run.dir=": "hydra.run.dir=: the value is empty",
    "evaluate=[likelihood,'']": "the value is empty",
    "~ckpt": "~ckpt: there is nothing to take away",
    "ckpt=last": "there is no last.ckpt",
    "ckpt=nowhere.ckpt": "nowhere.ckpt: there is no such checkpoint",
    "hydra.run.dir=/proc/nowhere/run": "/proc/nowhere",
    "model._target_=vaelab.models.Nothing": "cannot be imported",
    "foo": "foo",
    "evaluate=[latent]": "latent: there is no such metric; did you mean latents?",
}


@pytest.mark.parametrize("overrides", SETTINGS)
def test_refuses_settings(refused, overrides):
    assert SETTINGS[overrides] in refused(*overrides.split())


CONTRADICTIONS = {
    # The likelihood and the pixels.
    "likelihood=bernoulli data.pixels=grey": "Bernoulli likelihood, which takes data.pixels=binary",
    "likelihood=bernoulli data.pixels=dequantized": "data.pixels=dequantized cannot be modelled",
    "likelihood=gaussian data.pixels=binary": "takes data.pixels=dequantized or data.pixels=grey",
    "likelihood=laplace data.pixels=binary": "takes data.pixels=dequantized or data.pixels=grey",
    "likelihood=continuous_bernoulli data.pixels=binary": "data.pixels=binary cannot be modelled",
    "likelihood=discretized_logistic data.pixels=dequantized": "which takes data.pixels=grey",
    "likelihood=discretized_logistic_mixture data.pixels=dequantized": "takes data.pixels=grey",
    "likelihood=categorical data.pixels=binary": "Categorical likelihood, which takes",
    "data.pixels=float": "should be 'binary', 'dequantized' or 'grey'",
    # The likelihood and its scale.
    "likelihood=bernoulli model.likelihood.scale=1": "no such setting; there are none",
    "likelihood=bernoulli +model.likelihood.scale=1": "Bernoulli has no such setting",
    "likelihood=categorical +model.likelihood.components=3": "Categorical has no such setting",
    "likelihood=laplace model.likelihood.scale=optimal": "should be 'learned' or 'per_pixel'",
    "likelihood=discretized_logistic model.likelihood.scale=optimal": "'learned' or 'per_pixel'",
    "likelihood=discretized_logistic_mixture +model.likelihood.scale=1": "has no such setting",
    "likelihood=discretized_logistic_mixture model.likelihood.components=0": "greater than 0",
    "likelihood=gaussian model.likelihood.scale=best": "'learned', 'per_pixel' or 'optimal'",
    "likelihood=gaussian model.likelihood.scale=0": "model.likelihood.scale=0: should be",
    "likelihood=gaussian model.likelihood.scale=1e-60": "greater than or equal to 0.000001",
    "likelihood=gaussian model.likelihood.scale=1e60": "less than or equal to 1000000",
    "likelihood=gaussian model.likelihood.scale=inf": "scale=inf: should be a finite number",
    # The prior.
    "prior=conditional_normal": "prior=conditional_normal is p(z|y), and this model sees no labels",
    "model=cvae condition=none prior=conditional_normal": "this model sees no labels",
    "condition=continuous": "needs columns of numbers, and the images have none",
    "condition=one_hot data.columns=[]": "condition=one_hot needs labels",
    "condition=one_hot data.columns=[angle]": "angle is no column of these images",
    "condition=one_hot data.columns=[label,label]": "data.columns",
    "condition=embedding prior=vamp model.prior.components=9": "takes one label",
    "model.free_bits=1 model.free_bits_group=5": "does not divide the 16 latents",
    "model.free_bits=-1": "greater than or equal to 0",
    "model=cvae prior=vamp model.prior.components=2": "at least one for each of the 3 labels",
    "prior=vamp model.prior.components=0": "model.prior.components=0: should be greater than 0",
    "prior=vamp model.prior.start=noise": "should be 'images' or 'random'",
    "prior=mixture model.prior.hidden=[8]": "possible are model.prior.components",
    "prior=standard_normal model.prior.components=3": "no such setting; there are none",
    "prior=flow model.prior.transforms=0": "model.prior.transforms=0: should be greater than 0",
    "prior=flow model.prior.hidden=[0]": "model.prior.hidden=[0]: should be greater than 0",
    "prior=spline": "prior=spline: there is no such prior",
    # The posterior.
    "posterior=spline model.posterior.bins=1": "bins=1: should be greater than or equal to 2",
    "posterior=spline model.posterior.context=0": "context=0: should be greater than 0",
    "posterior=iaf model.posterior.transforms=0": "transforms=0: should be greater than 0",
    "posterior=iaf +model.posterior.bins=8": "possible are context, hidden, transforms",
    "posterior=gaussian model.posterior.hidden=[8]": "no such setting; there are none",
    "posterior=vamp": "posterior=vamp: there is no such posterior",
    # The network.
    "network=conv model.encoder.channels=[4,4,4,4]": "8 x 9 pixels are too small for 4 halvings",
    "network=conv model.decoder.channels=[4,4,4,4]": "8 x 9 pixels are too small for 4 halvings",
    "network=conv model.encoder.hidden=[8]": "possible are model.encoder.channels",
    "network=mlp model.encoder.channels=[8]": "possible are model.encoder.hidden",
    "network=mlp model.encoder.hidden=8": "model.encoder.hidden=8: should be a valid list",
    "network=rnn model.decoder.hidden=[]": "model.decoder.hidden=[]: should have at least 1 item",
    "network=resnet model.encoder.blocks=0": "model.encoder.blocks=0: should be greater than 0",
    "network=burgess model.encoder.kernels=[4,4]": "encoder.kernels has 2 sides and",
    "network=burgess model.decoder.channels=[8,8]": "decoder.kernels has 4 sides and",
    "network=burgess model.encoder.kernels=[3,3,3,3]": "should be a multiple of 2",
    # What the data tell.
    "model.encoder.x_shape=[1,2,2]": "model.encoder.x_shape: there is no such setting",
    "+model.pixels=binary": "model.pixels is told by the data",
    "+model.x_shape=[1,2,2]": "model.x_shape is told by the data",
    "data.source.num_classes=2": "train_labels[2] is 2, which is none of the classes 0, 1",
    "data.source.range=[1,0]": "data.source.range=[1,0] should rise",
    "data.source.range=[0,100]": "train_images[0] reaches from",
    "data.source.range=[0]": "data.source.range=[0]: ",
    "data.val_size=1.5": "data.val_size=1.5: should be",
    "data.test_size=-0.5": "data.test_size=-0.5: should be",
    "data.val_size=50": "leave nothing of the 60 images for training",
    "data.test_size=0": "data.test_size=0, but these images have no test part",
    "trainer=ddp_cpu data.batch_size=3": "data.batch_size=3 cannot be divided over 2 devices",
    # Annealing, optimizer and trainer.
    "annealing=linear annealing.target=gamma": "VAE has no such weight; it has beta",
    "annealing=linear trainer.max_epochs=-1": "annealing.unit=fraction needs a trainer.max_epochs",
    "annealing=cyclical annealing.schedule.ramp=2": "ramp=2: should be less than or equal to 1",
    "annealing=none annealing.duration=1": "annealing.duration: there is no such setting",
    "model.optimizer.lr=-1": "model.optimizer: Invalid learning rate: -1",
    "model.optimizer.lr=high": "model.optimizer.lr=high: should be a valid number",
    "+model.optimizer.betas=[2,3]": "model.optimizer: Invalid beta parameter",
    "trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch=0: should be greater",
    "trainer.val_check_interval=0": "trainer.val_check_interval=0: should be greater than 0",
    "trainer.val_check_interval=2.5": "trainer: You have passed invalid value 2.5",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val=-1: should be greater than or equal",
    # What is to be measured at the end.
    "evaluate=[conditional]": "conditional: the model sees no labels",
    "evaluate=[disentanglement]": "the factors of these images are not known",
    "evaluate=[conditional,disentanglement]": "; disentanglement: the factors",
}
UNLABELLED = {
    "model=cvae": "needs labels, and the images have none",
    "model=cvae prior=conditional_normal": "needs labels, and the images have none",
    "evaluate=[samples]": "it takes a classifier, and these images have no labels",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[bool, list[str]]:
    """Settings for 60 images of 8 x 9 pixels, with or without three labels."""
    folder = tmp_path_factory.mktemp("small")
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 9), dtype=np.uint8)
    np.savez(folder / "False.npz", train_images=images)
    np.savez(folder / "True.npz", train_images=images, train_labels=np.arange(60) % 3)
    sizes = ["data=arrays", "data.val_size=10", "data.test_size=10", "data.batch_size=20"]
    return {has: [*sizes, f"data.source.path={folder}/{has}.npz"] for has in (True, False)}


@pytest.mark.parametrize(
    ("overrides", "labels"),
    [*((words, True) for words in CONTRADICTIONS), *((words, False) for words in UNLABELLED)],
)
def test_refuses_contradictions_before_anything_starts(refused, small, tmp_path, overrides, labels):
    said = refused(*small[labels], *overrides.split())
    assert (CONTRADICTIONS if labels else UNLABELLED)[overrides] in said
    assert {path.name for path in (tmp_path / "run").rglob("*")} <= {"train.log"}


def test_a_partly_fitting_evaluation_is_no_contradiction(monkeypatch, small, tmp_path, capsys):
    given = [*small[False], "evaluate=[conditional,latents]", f"hydra.run.dir={tmp_path}/run"]
    given += ["network=mlp", *TINY, "logger=none", "callbacks.board=null"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    assert "conditional left out: the model sees no labels" in capsys.readouterr().out


def test_a_download_that_fails_says_what_to_do(refused, monkeypatch):
    from torchvision import datasets

    def fail(*args, **kwargs):
        raise RuntimeError("Error downloading x:\ntried a\ntried b")

    monkeypatch.setattr(datasets, "MNIST", fail)
    said = refused("data=mnist")
    assert "by hand" in said
    assert "data=mnist_5k needs no download" in said


WHITE = np.tile(np.uint8([0, 255]), (50, 12, 6))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": np.eye(12)[None].repeat(50, 0)}, "float64 from 0 to 1; say which"),
        ({"train_images": np.zeros((50, 7, 12), np.uint8)}, "too small"),
        ({"train_images": np.zeros((50, 12), np.uint8)}, "(N, C, H, W)"),
        (
            {
                "train_images": WHITE,
                "train_labels": np.arange(50) - 1,
            },
            "train_labels[0] is -1; labels are 0, 1, ... or texts",
        ),
    ],
)
def test_refuses_arrays(refused, tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    assert message in refused("data=arrays", f"data.source.path={tmp_path}/mine.npz")


def test_labels_are_needed_where_they_are_used(refused, tmp_path):
    np.savez(tmp_path / "mine.npz", train_images=WHITE)
    sizes = ["data.val_size=5", "data.test_size=5", "data.batch_size=10"]
    said = refused("data=arrays", f"data.source.path={tmp_path}/mine.npz", "model=cvae", *sizes)
    assert "needs labels" in said


def test_a_truncated_file_is_refused(refused, tmp_path):
    np.savez(tmp_path / "mine.npz", train_images=WHITE)
    whole = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "mine.npz").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused("data=arrays", f"data.source.path={tmp_path}/mine.npz")


@pytest.fixture
def finished(monkeypatch, tmp_path) -> Path:
    """The last checkpoint of a tiny run."""
    folder = tmp_path / "finished"
    given = [f"hydra.run.dir={folder}", f"paths.data={tmp_path}/data", "logger=none", *TINY]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    return folder / "checkpoints" / "last.ckpt"


def test_refuses_checkpoints(refused, finished, tmp_path):
    assert "another architecture" in refused(f"ckpt={finished}")
    half = tmp_path / "half.ckpt"
    half.write_bytes(finished.read_bytes()[: finished.stat().st_size // 2])
    assert "truncated" in refused(f"ckpt={half}")


def test_a_folder_with_a_run_in_it_is_left_as_it_is(refused, finished):
    folder = finished.parents[1]
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log"}
    here, small = f"hydra.run.dir={folder}", ["logger=none", *TINY]
    longer = refused(here, *small, "trainer.max_epochs=3")
    assert "holds a run with trainer.max_epochs=1, not 3" in longer
    assert "another architecture" in refused(here, "ckpt=last", "logger=none")
    assert "of 1 epochs already" in refused(here, "ckpt=last", *small)
    assert "beta=-1" in refused(here, "ckpt=last", "model=beta_vae", "model.beta=-1", *small)
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log"}
    assert after == before


@pytest.mark.parametrize("which", ["last", "best", "folder"])
def test_going_on_and_starting_over_contradict_each_other(refused, finished, which):
    """Starting over takes away the checkpoint to go on from."""
    folder = finished.parents[1]
    ckpt = str(folder) if which == "folder" else which
    given = [f"hydra.run.dir={folder}", f"ckpt={ckpt}", "rerun=true", *TINY[:2]]
    said = refused(*given, "trainer.max_epochs=2", "logger=none")
    assert f"ckpt={ckpt} goes on with the run in" in said
    assert "rerun=true starts it over; give one of them" in said
    assert finished.exists()
    assert (folder / "results.json").exists()


def test_a_resumed_run_takes_the_configured_optimizer(finished, monkeypatch, tmp_path):
    folder = finished.parents[1]
    given = [f"hydra.run.dir={folder}", "ckpt=last", "model.optimizer.lr=0.0"]
    given += [f"paths.data={tmp_path}/data", "logger=none", "model.encoder.hidden=[8]"]
    given += ["model.decoder.hidden=[8]", "trainer.max_epochs=2"]
    before = torch.load(finished, weights_only=True)["state_dict"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    after = torch.load(finished, weights_only=True)
    assert after["global_step"] == 62
    assert all(torch.equal(after["state_dict"][name], value) for name, value in before.items())


def test_a_moved_run_knows_its_best_checkpoint(finished, monkeypatch, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(finished.parents[1], moved)
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    given = [f"hydra.run.dir={moved}", f"paths.data={tmp_path}/data", "ckpt=last", "logger=none"]
    given += [*TINY[:2], "trainer.max_epochs=2", "model.optimizer.lr=0.0"]  # so it gets no better
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best


def test_images_divided_in_another_way_are_warned_of(finished, monkeypatch, capsys):
    """What is tested may have been trained on."""
    folder = finished.parents[1]
    longer = ["trainer.max_epochs=2", "ckpt=last", "data.split_seed=7", "logger=none"]
    given = [f"hydra.run.dir={folder}", f"paths.data={folder.parent}/data", *SMALL_LAYERS, *longer]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    said = capsys.readouterr().err
    assert "data.split_seed=7 divides the images in another way than the checkpoint's run" in said


def test_a_checkpoint_without_a_run_around_it_warns_of_nothing(recwarn):
    RunFolder.warn_of_other_images(RunFolder.__new__(RunFolder), Path("/last.ckpt"))
    assert not recwarn


def test_an_evaluation_of_an_earlier_checkpoint_is_forgotten(finished):
    folder = finished.parents[1]
    steps = read_json(folder / "results.json")["best_step"]
    for step, names in ((steps, ["nll"]), (steps - 1, [])):
        write_json(folder / "evaluation.json", {"step": step, "nll": {"value": 1.0, "se": 0.5}})
        assert [name for name in read_evaluation(folder) if name == "nll"] == names
        assert ("nll" in read_sweep(folder).jobs) == bool(names)


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(refused, finished):
    before = finished.read_bytes()
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "logger=none"]
    folder = finished.parents[1]
    said = refused(
        f"hydra.run.dir={folder}", "ckpt=last", "trainer.max_epochs=3", *small,
        "+callbacks.fault._target_=support.faults.Fault", "+callbacks.fault.step=40",
    )  # fmt: skip
    assert "distortion became nan at training step 40; the checkpoint of step 31 is kept" in said
    assert "Try a smaller model.optimizer.lr, or trainer.gradient_clip_val=1" in said
    assert read_sweep(folder).jobs["state"].tolist() == ["failed"]
    assert finished.read_bytes() == before
    assert all(p.isfinite().all() for p in torch.load(finished)["state_dict"].values())


def test_without_a_checkpoint_none_is_promised(refused):
    said = refused(
        *TINY, "logger=none", "trainer.log_every_n_steps=1",
        "+callbacks.fault._target_=support.faults.Fault", "+callbacks.fault.step=3",
    )  # fmt: skip
    assert "distortion became nan at training step 3; there is no checkpoint yet. Try" in said


STOP = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/elbow}"
NEVER_STARTED = {
    "+callbacks.checkpoint.monitor=val/los": "Checkpoint: .*=val/los; did you mean val/loss",
    STOP: "EarlyStopping: no validation measures monitor=val/elbow; did you mean val/elbo?",
    "+trainer.limit_val_batches=0": "trainer.limit_val_batches=0: the best checkpoint",
    "+trainer.limit_test_batches=0.0": "trainer.limit_test_batches=0: a run ends with its test",
    "+trainer.limit_train_batches=0": "trainer.limit_train_batches=0: nothing is trained",
    "data._target_=collections.Counter": "_target_=collections.Counter: a Counter is no vaelab",
    "callbacks.speed._target_=collections.Counter": "a Counter is no lightning.pytorch",
    "trainer._target_=collections.Counter": "trainer._target_=collections.Counter: a Counter is no",
    "model.likelihood._target_=torch.nn.ReLU": "'ReLU' object has no attribute 'pixels'",
    "model.encoder.hidden=[3000000000000]": "out of memory: there was no room for .* GiB;",
}


@pytest.mark.slow
@pytest.mark.parametrize("override", NEVER_STARTED)
def test_what_can_be_known_is_said_before_the_work(refused, tmp_path, override):
    said = refused("logger=none", override)
    assert re.search(NEVER_STARTED[override], said)
    assert {path.name for path in (tmp_path / "run").rglob("*")} <= {"train.log"}


@pytest.mark.parametrize("model", ["vae", "beta_tcvae", "vq_vae", "iwae"])
def test_a_callback_may_watch_whatever_a_validation_measures(build, model):
    watched = {
        "vae": "val/active_units",
        "beta_tcvae": "val/minibatch_total_correlation",
        "vq_vae": "val/perplexity",
        "iwae": "val/importance_weighted_elbo",
    }[model]
    made = build(f"model={model}", *SMALL_LAYERS, x_shape=(1, 8, 8), num_classes=3)
    data = Images(source=splits, batch_size=10, val_size=5, test_size=5, pixels="binary")
    before = torch.get_rng_state()
    trainer = Trainer(callbacks=[EarlyStopping(watched)], max_epochs=1, logger=False)
    preflight.check_monitors(trainer, made, data)
    assert made.training
    assert made.totals.rows == []
    assert torch.equal(torch.get_rng_state(), before)
    if model != "beta_tcvae":  # which knows the number of images in training alone
        trainer = Trainer(callbacks=[EarlyStopping(watched[:-1])], max_epochs=1, logger=False)
        with pytest.raises(UserError, match=f"did you mean {watched}"):
            preflight.check_monitors(trainer, made, data)


def test_a_users_callback_may_log_what_another_one_watches(build):
    class Logs(Callback):
        pass

    made = build(*SMALL_LAYERS, x_shape=(1, 8, 8), num_classes=3)
    data = Images(source=splits, batch_size=10, val_size=5, test_size=5, pixels="binary")
    options = {"max_epochs": 1, "logger": False}
    trainer = Trainer(callbacks=[Logs(), EarlyStopping("val/mine")], **options)
    preflight.check_monitors(trainer, made, data)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 14.6 TiB for an array"), "no room for 14.6 TiB;"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate "
                      "3221225472 bytes. Error code 12"), "no room for 3 GiB;"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
         "no room for 2.00 GiB;"),
        (MemoryError(), "out of memory: there was no room; a smaller data.batch_size"),
        (RuntimeError("shapes do not match"), None),
    ],
)  # fmt: skip
def test_an_allocation_that_fails_is_one_line(error, said):
    found = cli.user_message(error, "train")
    assert found is None if said is None else said in found


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("question", [["--help"], ["--cfg", "job"]])
@pytest.mark.parametrize("script", ["train", "evaluate", "generate", "report", "export"])
def test_answers_without_importing_torch(script, question):
    answer = command("-X", "importtime", f"{script}.py", *question)
    assert answer.returncode == 0
    imported = {line.rsplit("|")[-1].strip() for line in answer.stderr.splitlines()}
    assert "vaelab.commands.cli" in imported
    slow = {"torch", "lightning", "torchvision", "tensorboard", "matplotlib", "pydantic"}
    assert not imported & slow


MISREAD = {
    ("model.beta=1,2", "model=beta_vae"): "model.beta=1,2: several values are several runs, of a "
    r"sweep: add -m; a list is 'model.beta=\[1,2\]'",
    ("model=vae,beta_vae",): "several values are several runs, of a sweep: add -m$",
    ("model.beta=range(1,3)",): "several values are several runs, of a sweep: add -m$",
    ("model", "=", "vae"): "model = vae: write model=vae",
    ("model=", "vae"): "model= vae: write model=vae",
    ("model", "=vae"): "model =vae: write model=vae",
    ("model.latent_dim =3",): "write model.latent_dim=3, without blanks",
    ("model.latent_dim",): "model.latent_dim: settings are given as name=value",
    ("model.encoder.hidden=[8",): r"model.encoder.hidden=\[8: \[ is not closed",
    ("callbacks={a: 1",): "{ is not closed",
    ("logger='csv",): "logger='csv: ' is not closed",
    ('seed="1',): 'seed="1: " is not closed',
    ("=3",): "=3: settings have names of plain letters",
    ("données",): "données: settings are given as name=value",
    ("données=3",): "données=3: settings have names of plain letters, and données is none",
    ("~annealing",): "~annealing: give annealing=none",
    ("~logger",): "~logger: give logger=none",
    ("~model",): "~model: there is one in any case; possible are ae, beta_tcvae",
    ("~hydra/launcher",): "~hydra/launcher: there is one in any case; possible are local, ray",
    ("--nope",): "--nope: there is no such flag",
    ("ckpt=/x/epoch=3.ckpt",): "/x/epoch=3.ckpt: there is no such checkpoint",
    ("data=arrays", "data.source.path=/x/a=b (1).npz"): r"/x/a=b \(1\).npz: there is no such file",
    ("model.latent_dim==3",): "model.latent_dim==3: should be a valid integer",
    ("trainer.max_epochs=3)",): r"trainer.max_epochs=3\): should be a valid integer",
}


@pytest.mark.parametrize("words", MISREAD, ids=" ".join)
def test_what_hydra_cannot_read_is_named_with_its_cure(refused, words):
    assert re.search(MISREAD[words], refused(*words))


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("model=vae -m model.beta=1,2", ["-m"]),
        ("model=vae --cfg job model.beta=1 --resolve", ["--cfg", "job", "--resolve"]),
        ("a=1 --config-dir conf b=2 -m", ["--config-dir", "conf", "-m"]),
        ("a=1 --info b=2", ["--info=all"]),
        ("a=1 --info defaults b=2", ["--info=defaults"]),
        ("--help a=1", ["--help"]),
    ],
)
def test_flags_may_stand_anywhere(words, flags):
    found, others = arguments.split_flags(words.split())
    assert found == flags
    assert others == [word for word in words.split() if re.match(r"(a|b|model)[.\w]*=", word)]


def test_a_sweep_may_be_asked_for_in_the_middle(refused):
    said = refused("model=beta_vae", "-m", "model.beta=1,x", "trainer.max_epochs=1")
    assert "model.beta=x: should be a valid number" in said


def test_run_names_are_readable_and_fit_a_command_line():
    assert run_name(["model=beta_vae", "model.beta=4", "data=mnist"]) == "_beta-4_data-mnist"
    assert run_name(["model=beta_vae"]) == run_name([]) == ""
    assert "=" not in run_name(["data.source.path=/a/b=c,d.npz"])
    assert "/" not in run_name(["data.source.path=/a/b=c,d.npz"])


def test_commands_of_one_second_that_differ_have_folders_of_their_own():
    beta = ["model=beta_vae", "model.beta=4"]
    long = [f"model.encoder.hidden=[{','.join(['100'] * 40)}]"]
    commands = [
        beta, [*beta, "trainer.max_epochs=3"], [*beta, "trainer.max_epochs=4"],
        [*beta, "logger=csv"], [*beta, "evaluate=[latents]"], [*beta, "compile=true"],
        long, [long[0].replace("100]", "101]")],
        ["data.source.path=a b"], ["data.source.path=a=b"], ["data.source.path=a-b"],
    ]  # fmt: skip
    names = [run_name(command) for command in commands]
    assert len(set(names)) == len(commands)
    assert all(re.fullmatch(r"_[A-Za-z0-9_.-]{1,90}", name) for name in names)
    assert names[0] == "_beta-4"
    assert re.fullmatch(r"_beta-4_[0-9a-f]{6}", names[1])
    assert re.fullmatch(r"_[0-9a-f]{6}", run_name(["model=beta_vae", "trainer.max_epochs=3"]))


ODD = [
    "a b",
    "it's",
    "\\",
    "\\'",
    "${x}",
    "\\${x}",
    "a\\\\${y}'",
    "ö",
    "{a: 1}",
    "[1,2]",
    "#x",
    "a=b",
]
ODD += [
    "null",
    "True",
    "1e3",
    "2026",
    "-1.5",
    "Infinity",
    "nan",
    "1_0",
    "~x",
    "$(ls)",
    "a&b;c|d",
    "()",
    '"',
    "*?",
    "!x",
    "\\\\''",
]


@pytest.mark.parametrize("text", [*ODD, "".join(ODD)])
def test_any_text_can_be_pasted(text):
    """Through the shell, Hydra's grammar and OmegaConf's."""
    (word,) = shlex.split(cli.shell_override("key", text))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert OmegaConf.create({"key": override.value()}).key == text


@pytest.mark.parametrize("text", ["outputs/vae/2026-11-21_10-00-00_beta-4", "a.b", "/x/y@z+1%"])
def test_a_plain_path_is_pasted_as_it_is(text):
    assert cli.shell_override("key", text) == f"key={text}"


def test_a_sweep_has_one_name_whatever_runs_its_jobs():
    overrides = ["model=beta_vae", "model.beta=1,4", "seed=1,2"]
    name = sweep_name(overrides, ["hydra.mode=MULTIRUN"])
    assert name.startswith("beta_vae_beta-1-4_seed-1-2_")
    assert name.count(name[-7:]) == 1
    assert sweep_name([*overrides, "rerun=true"], ["hydra.launcher.n_jobs=3"]) == name
    assert sweep_name([*overrides, "compile=true"], []) == name
    assert sweep_name([*overrides, "trainer.max_epochs=3"], []) != name
    assert sweep_name(overrides, ["hydra.sweeper.params={a: 1}"]) != name


def test_a_disk_without_room_for_the_run_is_one_line(refused, tmp_path):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    (tmp_path / "run").write_text("a file")
    assert str(tmp_path / "run") in refused()


def test_a_reader_that_has_seen_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "evaluate.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
def test_help_is_that_of_what_would_run():
    said = command("train.py", "model.beta=7", "--help", "model=beta_vae", "seed=1,2", "-m").stdout
    assert "  model.beta=7 " in said
    assert re.search(r"hydra/launcher=local +or ray, slurm", said)
    refused = command("train.py", "model.bta=1", "-h")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: model.bta: there is no such setting")
