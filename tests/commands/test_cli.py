"""Tests of the command line, mostly `python train.py`: its error messages against expected texts.

Also tests resuming, names of run and sweep folders, quoting for the shell, and --help.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import splits
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf
from support.commands import run_command

from vaelab.commands import (
    arguments,
    command_lines,
    encode,
    error_messages,
    evaluate,
    preflight,
    train,
)
from vaelab.commands.resumption import warn_of_other_settings
from vaelab.data import Images
from vaelab.errors import UserError
from vaelab.report import read_sweep
from vaelab.runs.folder import read_evaluation
from vaelab.runs.naming import run_name, sweep_name
from vaelab.training.json_files import read_json, write_json

ROOT = Path(__file__).parents[2]

GetError = Callable[..., str]
SMALL_LAYERS = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
TINY_RUN = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "trainer.max_epochs=1"]


def run_failing_train(monkeypatch, capsys, *arguments: str) -> str:
    """Runs `python train.py` in this process, checks for exit code 2, and returns stderr."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    for name in ("HYDRA_FULL_ERROR", "VAELAB_SHORT_ERROR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as exit_:
        train.main()
    assert exit_.value.code == 2
    return capsys.readouterr().err.strip()


@pytest.fixture
def get_error(monkeypatch, capsys, tmp_path) -> GetError:
    """(*overrides) -> the error message of `python train.py`; fails if it has several lines."""

    def run(*overrides: str) -> str:
        given = [f"hydra.run.dir={tmp_path}/new/run", f"paths.data={tmp_path}/data", *overrides]
        said = run_failing_train(monkeypatch, capsys, *given)
        *warnings, error = said.splitlines()
        assert all(line.startswith("warning: ") for line in warnings)
        assert error.startswith("error: ")
        return error

    return run


INVALID_SETTINGS = {  # overrides: part of the error message
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
    "model=cvea": "model=cvea: there is no such model; did you mean cvae?",
    # Groups that are given no name.
    "metrics=-0": "there is no such metrics; possible are default",
    "model=[1,2]": "there is no such model; possible are ae",
    "annealing=null": "there is no such annealing; possible are cosine",
    "logger={a:1}": "there is no such logger; possible are csv",
    "hydra/launcher=null": "there is no such hydra/launcher",
    "~logger=2": "~logger=2: give logger=none",
    "~model": "~model: there is one in any case",
    # Keys of Hydra's own, and nodes.
    "model.encoder._partial_=3": "model.encoder._partial_=3: should be a valid boolean",
    "++model.encoder._recursive_=[a]": "should be a valid boolean",
    "++model._convert_=foo": "should be 'none', 'partial', 'object' or 'all'",
    "++model.encoder._args_=[1]": "vaelab gives these",
    "++model._recursive_=false": "should be callable",
    "model._target_=abc": "model._target_=abc: a module is no class and no function",
    "model._target_=os.sep": "a str is no class and no function",
    "data.test_size={_target_:os.getcwd}": "should be a valid integer",
    "callbacks.annealing=a/b": "callbacks.annealing=a/b: should be a dictionary",
    "+metrics.foo=1": "metrics.foo=1: should be a dictionary",
    "+callbacks.annealing._recursive_=a": "there is no callbacks.annealing._target_ for it",
    "~rerun": "rerun: is missing",
    "annealing=linear annealing.schedule={_target_:os.getcwd}": "annealing.schedule: ",
    # Options by the signature of the optimizer.
    "model=factor_vae model.discriminator_optimizer.lr=abc": "should be a valid number",
    "model=factor_vae model.discriminator_optimizer.lr=true": "should be a valid number",
    "model=factor_vae model.discriminator_optimizer.lr=-1": "Invalid learning rate: -1",
    "model=factor_vae +model.discriminator_optimizer.rate=1": "Adam has no such option",
    "model=factor_vae +model.discriminator_optimizer.params=[1]": "Adam has no such option",
    "model.optimizer._target_=builtins.dict": "model.optimizer: ",
    # What only the evaluation at the end would see.
    "metrics.latents._partial_=false evaluate=[latents]": "metrics.latents: latents() missing",
    "~metrics.latents.images evaluate=[latents]": "metrics.latents: ",
    # Sizes beyond all memory.
    "model.num_samples=100000000": "smaller data.batch_size, model.num_samples or network",
    "model.num_samples=99999999999999999999": "should be an integer of 64 bits",
    "model.latent_dim=4000000000000000000": "out of memory",
    # What is wrong at the start of the fit, when the folder is taken already.
    "trainer.val_check_interval=1001": "must be less than or equal to the number of the training",
    "+logger.tensorboard.foo=1": "logger: SummaryWriter.__init__() got an unexpected keyword",
    "callbacks.checkpoint.dirpath=/proc/nowhere": "/proc/nowhere",
    "callbacks.progress.file=/proc/nowhere/a": "/proc/nowhere",
    "hydra.job.name=a/b": "hydra: ",
    # What other settings refer to, and what refers to others.
    "~paths.data": "~paths.data: other settings refer to it",
    "~paths": "~paths: other settings refer to it",
    "callbacks.progress.file._target_=abc": "and no callbacks.progress.file",
    "model.foo=1 model._target_=abc": "model.foo: there is no such setting",
    "model.decoder.hidden.foo.bar=null": "hydra: Index 'foo' (str) is not an int",
    "model.decoder.foo=null model.decoder.hidden.foo.bar=null": "model.decoder.foo: there is no",
    "metrics.samples.sampler=abc": "metrics.samples.sampler=abc: should be callable",
    "model@foo=vae": "model@foo: there is no such setting; did you mean model=...?",
    # A folder of Hydra's own, and loggers that are none.
    "hydra.output_subdir=x model.latent_dim=abc": "a run writes its configuration to .hydra",
    "++trainer.logger._foo_=-1": "trainer.logger: a int is no logger of Lightning",
    "trainer.logger=auto": "trainer.logger: a str is no logger of Lightning",
}


@pytest.mark.parametrize("overrides", INVALID_SETTINGS)
def test_train_refuses_invalid_settings_and_leaves_no_folder(get_error, overrides, tmp_path):
    assert INVALID_SETTINGS[overrides] in get_error(*overrides.split())
    assert not (tmp_path / "new").exists()


def test_refused_train_keeps_what_was_in_its_folder(get_error, tmp_path):
    (tmp_path / "new" / "run").mkdir(parents=True)
    (tmp_path / "new" / "run" / "mine").touch()
    get_error("model.latent_dim=x")
    get_error("trainer.val_check_interval=1001")
    assert (tmp_path / "new" / "run" / "mine").exists()


def test_refused_train_keeps_an_empty_folder(get_error, tmp_path):
    (tmp_path / "new").mkdir()
    get_error("model.latent_dim=x")
    assert [*tmp_path.iterdir()] == [tmp_path / "new"]


def test_refused_sweep_leaves_no_folder(monkeypatch, capsys, tmp_path):
    given = ["-m", f"hydra.sweep.dir={tmp_path}/new/sweep", "model.latent_dim=2,x"]
    said = run_failing_train(monkeypatch, capsys, *given)
    assert said == "error: model.latent_dim=x: should be a valid integer"
    assert not (tmp_path / "new").exists()


INCOMPATIBLE = {  # overrides: part of the error message, with labelled images
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
    "likelihood=gaussian model.likelihood.scale=best": "'per_pixel', 'optimal' or 'per_column'",
    "likelihood=gaussian model.likelihood.scale=0": "model.likelihood.scale=0: should be",
    "likelihood=gaussian model.likelihood.scale=1e-60": "greater than or equal to 0.000001",
    "likelihood=gaussian model.likelihood.scale=1e60": "less than or equal to 1000000",
    "likelihood=gaussian model.likelihood.scale=inf": "scale=inf: should be a finite number",
    # The prior.
    "prior=conditional_normal": "prior=conditional_normal is p(z|y), and this model sees no labels",
    "model=cvae condition=none prior=conditional_normal": "this model sees no labels",
    "condition=continuous": "needs columns of numbers, as data.columns=[age] names, and ther",
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
    # The weights of a variant.
    "model=info_vae model.alpha=1.5": "model.alpha=1.5: should be 1 at most",
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
    "network=mlp model.encoder.channels=[8]": "possible are model.encoder.activation",
    "network=mlp model.encoder.hidden=8": "model.encoder.hidden=8: should be a valid list",
    "network=rnn model.decoder.hidden=[]": "model.decoder.hidden=[]: should have at least 1 item",
    "network=resnet model.encoder.blocks=0": "model.encoder.blocks=0: should be greater than 0",
    "network=burgess model.encoder.kernels=[4,4]": "encoder.kernels has 2 sides and",
    "network=burgess model.decoder.channels=[8,8]": "decoder.kernels has 4 sides and",
    "network=burgess model.encoder.kernels=[3,3,3,3]": "should be a multiple of 2",
    # Settings that the data determine.
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
    # Metrics to measure at the end.
    "evaluate=[conditional]": "conditional: the model sees no labels",
    "evaluate=[disentanglement]": "the factors of these images are not known",
    "evaluate=[conditional,disentanglement]": "; disentanglement: the factors",
}
NEED_LABELS = {
    "model=cvae": "needs labels, and the images have none",
    "model=cvae prior=conditional_normal": "needs labels, and the images have none",
    "evaluate=[samples]": "it takes a classifier, and these images have no labels",
}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory) -> dict[bool, list[str]]:
    """Overrides for 60 images of 8 x 9 pixels: key True with three labels, False without."""
    folder = tmp_path_factory.mktemp("small")
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 9), dtype=np.uint8)
    np.savez(folder / "False.npz", train_images=images)
    np.savez(folder / "True.npz", train_images=images, train_labels=np.arange(60) % 3)
    sizes = ["data=arrays", "data.val_size=10", "data.test_size=10", "data.batch_size=20"]
    return {has: [*sizes, f"data.source.path={folder}/{has}.npz"] for has in (True, False)}


@pytest.mark.parametrize(
    ("overrides", "labels"),
    [*((words, True) for words in INCOMPATIBLE), *((words, False) for words in NEED_LABELS)],
)
def test_train_refuses_incompatible_settings_before_writing_files(
    get_error, small_data, tmp_path, overrides, labels
):
    said = get_error(*small_data[labels], *overrides.split())
    assert (INCOMPATIBLE if labels else NEED_LABELS)[overrides] in said
    assert {path.name for path in (tmp_path / "new").rglob("*")} == set()


def test_train_skips_metric_that_does_not_apply_to_model(monkeypatch, small_data, tmp_path, capsys):
    given = [*small_data[False], "evaluate=[conditional,latents]", f"hydra.run.dir={tmp_path}/run"]
    given += ["network=mlp", *TINY_RUN, "logger=none", "callbacks.board=null"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    assert "conditional left out: the model sees no labels" in capsys.readouterr().out


def test_failed_download_error_says_what_to_do(get_error, monkeypatch):
    from torchvision import datasets

    def fail(*args, **kwargs):
        raise RuntimeError("Error downloading x:\ntried a\ntried b")

    monkeypatch.setattr(datasets, "MNIST", fail)
    said = get_error("data=mnist")
    assert "by hand" in said
    assert "data=mnist_5k needs no download" in said


STRIPES = np.tile(np.uint8([0, 255]), (50, 12, 6))  # 50 images of 12 x 12 pixels


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": np.eye(12)[None].repeat(50, 0) / 2}, "float64 from 0 to 0.5; say which"),
        ({"train_images": np.zeros((50, 7, 12), np.uint8)}, "too small"),
        ({"train_images": np.zeros((50, 12), np.uint8)}, "(N, C, H, W)"),
        (
            {
                "train_images": STRIPES,
                "train_labels": np.arange(50) - 1,
            },
            "train_labels[0] is -1; labels are 0, 1, ... or texts",
        ),
    ],
)
def test_array_data_refuses_invalid_images_and_labels(get_error, tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    assert message in get_error("data=arrays", f"data.source.path={tmp_path}/mine.npz")


def test_cvae_refuses_data_without_labels(get_error, tmp_path):
    np.savez(tmp_path / "mine.npz", train_images=STRIPES)
    sizes = ["data.val_size=5", "data.test_size=5", "data.batch_size=10"]
    said = get_error("data=arrays", f"data.source.path={tmp_path}/mine.npz", "model=cvae", *sizes)
    assert "needs labels" in said


def test_truncated_npz_file_is_refused(get_error, tmp_path):
    np.savez(tmp_path / "mine.npz", train_images=STRIPES)
    whole = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "mine.npz").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in get_error("data=arrays", f"data.source.path={tmp_path}/mine.npz")


@pytest.fixture
def last_checkpoint(monkeypatch, tmp_path) -> Path:
    """Trains for an epoch and returns the path of last.ckpt."""
    folder = tmp_path / "finished"
    given = [f"hydra.run.dir={folder}", f"paths.data={tmp_path}/data", "logger=none", *TINY_RUN]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    return folder / "checkpoints" / "last.ckpt"


def test_ckpt_refuses_other_architecture_and_truncated_file(get_error, last_checkpoint, tmp_path):
    assert "another architecture" in get_error(f"ckpt={last_checkpoint}")
    half = tmp_path / "half.ckpt"
    half.write_bytes(last_checkpoint.read_bytes()[: last_checkpoint.stat().st_size // 2])
    assert "truncated" in get_error(f"ckpt={half}")


def test_refused_settings_leave_earlier_run_unchanged(get_error, last_checkpoint):
    folder = last_checkpoint.parents[1]
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log"}
    here, small = f"hydra.run.dir={folder}", ["logger=none", *TINY_RUN]
    longer = get_error(here, *small, "trainer.max_epochs=3")
    assert "holds a run with trainer.max_epochs=1, not 3" in longer
    assert "another architecture" in get_error(here, "ckpt=last", "logger=none")
    assert "of 1 epochs already" in get_error(here, "ckpt=last", *small)
    assert "beta=-1" in get_error(here, "ckpt=last", "model=beta_vae", "model.beta=-1", *small)
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log"}
    assert after == before


@pytest.mark.parametrize("which", ["last", "best", "folder"])
def test_ckpt_with_rerun_in_same_folder_is_refused(get_error, last_checkpoint, which):
    """With rerun=true the run would delete the checkpoint that ckpt names."""
    folder = last_checkpoint.parents[1]
    ckpt = str(folder) if which == "folder" else which
    given = [f"hydra.run.dir={folder}", f"ckpt={ckpt}", "rerun=true", *TINY_RUN[:2]]
    said = get_error(*given, "trainer.max_epochs=2", "logger=none")
    assert f"ckpt={ckpt} goes on with the run in" in said
    assert "rerun=true starts it over; give one of them" in said
    assert last_checkpoint.exists()
    assert (folder / "results.json").exists()


def test_resume_uses_configured_learning_rate(last_checkpoint, monkeypatch, tmp_path):
    folder = last_checkpoint.parents[1]
    given = [f"hydra.run.dir={folder}", "ckpt=last", "model.optimizer.lr=0.0"]
    given += [f"paths.data={tmp_path}/data", "logger=none", "model.encoder.hidden=[8]"]
    given += ["model.decoder.hidden=[8]", "trainer.max_epochs=2"]
    before = torch.load(last_checkpoint, weights_only=True)["state_dict"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    after = torch.load(last_checkpoint, weights_only=True)
    assert after["global_step"] == 62
    assert all(torch.equal(after["state_dict"][name], value) for name, value in before.items())


def test_resume_in_moved_folder_keeps_best_checkpoint(last_checkpoint, monkeypatch, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(last_checkpoint.parents[1], moved)
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    given = [f"hydra.run.dir={moved}", f"paths.data={tmp_path}/data", "ckpt=last", "logger=none"]
    given += [*TINY_RUN[:2], "trainer.max_epochs=2", "model.optimizer.lr=0.0"]  # best stays
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best


@pytest.mark.parametrize("how", ["relative", "linked"])
def test_resume_from_a_path_to_the_own_best_checkpoint_keeps_it(
    last_checkpoint, monkeypatch, tmp_path, how
):
    folder = last_checkpoint.parents[1]
    monkeypatch.chdir(folder.parent)
    Path("linked").symlink_to(folder)
    path = f"{folder.name if how == 'relative' else 'linked'}/checkpoints/best.ckpt"
    given = [f"hydra.run.dir={folder}", f"paths.data={tmp_path}/data", f"ckpt={path}"]
    given += [*TINY_RUN[:2], "logger=none", "trainer.max_epochs=2", "model.free_bits=0.5"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()  # with another loss, for which the best is chosen anew
    assert torch.load(last_checkpoint, weights_only=True)["global_step"] == 62


@pytest.mark.parametrize(
    ("given", "advised"),
    [
        (["+trainer.max_time=00:00:00:00", "trainer.max_epochs=9"], "+trainer.max_time=00:00:00:"),
        (["trainer.max_epochs=1"], "trainer.max_epochs=2"),
    ],
)
def test_end_of_a_run_tells_what_makes_it_longer(monkeypatch, tmp_path, capfd, given, advised):
    given = [*given, f"hydra.run.dir={tmp_path}/run", *SMALL_LAYERS, "logger=none"]
    given += ["data=mnist_5k", "data.batch_size=500"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    (line,) = (s for s in capfd.readouterr().out.splitlines() if s.startswith("go on"))
    assert advised in line
    assert ("max_epochs=9" in line) == ("max_time" in advised)


def test_resume_with_other_split_seed_warns(last_checkpoint, monkeypatch, capsys):
    """Images of its test part may then have been trained on."""
    folder = last_checkpoint.parents[1]
    longer = ["trainer.max_epochs=2", "ckpt=last", "data.split_seed=7", "logger=none"]
    given = [f"hydra.run.dir={folder}", f"paths.data={folder.parent}/data", *SMALL_LAYERS, *longer]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    said = capsys.readouterr().err
    assert "data.split_seed=7 divides the images in another way than the checkpoint's run" in said


def test_images_in_another_order_than_in_training_are_warned_of(tmp_path, monkeypatch, capsys):
    numbers = np.random.default_rng(0).normal(size=(60, 3))
    pd.DataFrame(numbers, columns=["a", "b", "c"]).to_csv(tmp_path / "mine.csv", index=False)
    given = ["data=vectors", f"data.source.path={tmp_path}/mine.csv", "data.batch_size=8"]
    given += [f"hydra.run.dir={tmp_path}/run", *SMALL_LAYERS, "logger=none"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given, "trainer.max_epochs=1"])
    train.main()
    said = "the vectors are others than in training, or in another order; what is tested"
    commands = {
        train: [*given, "ckpt=last", "trainer.max_epochs=2"],
        evaluate: [f"run={tmp_path}/run", "what=likelihood", "num_samples=1", "rerun=true"],
        encode: [f"run={tmp_path}/run", "images=test", "num_samples=0"],
    }
    for is_sorted in (False, True):
        if is_sorted:
            numbers = numbers[numbers[:, 0].argsort()]
            table = pd.DataFrame(numbers, columns=["a", "b", "c"])
            table.to_csv(tmp_path / "mine.csv", index=False)
        for command in (evaluate, encode, *[train] * is_sorted):
            name = command.__name__.rpartition(".")[2]
            monkeypatch.setattr(sys, "argv", [f"{name}.py", *commands[command]])
            capsys.readouterr()
            command.main()
            told = capsys.readouterr()
            assert (said in told.out + told.err) == is_sorted


@pytest.mark.parametrize("condition", ["none", "continuous"])
@pytest.mark.parametrize("changed", ["label", "size", "shares", "nothing"])
def test_other_labels_than_in_training_are_warned_of(tmp_path, capsys, condition, changed):
    draws = np.random.default_rng(0)
    arrays = {
        "train_images": draws.integers(256, size=(60, 8, 8), dtype=np.uint8),
        "train_labels": np.arange(60) % 3,
        "train_size": draws.normal(size=60),
        "train_shares": draws.dirichlet([1, 1, 1], size=60),
        "train_fixed": np.full(60, 3.14159),
    }
    path, run = tmp_path / "mine.npz", tmp_path / "run"
    np.savez(path, **arrays)
    given = ["data=arrays", f"data.source.path={path}", f"hydra.run.dir={run}", "logger=none"]
    given += ["data.columns=[label,size,shares,fixed]", f"condition={condition}", "network=mlp"]
    given += [*SMALL_LAYERS, "data.batch_size=8", "model.optimizer.lr=0"]
    run_command(train, *given, "trainer.max_epochs=1")
    best = read_json(run / "results.json")["best_step"]
    changes = {name: array[::-1] for name, array in arrays.items() if changed in name}
    rounded = {"train_fixed": np.full(60, 3.141590001), "train_size": arrays["train_size"] + 1e-7}
    np.savez(path, **arrays | rounded | changes)
    said = f"the images have another {changed} than in training"
    capsys.readouterr()
    run_command(evaluate, f"run={run}", "what=likelihood", "num_samples=1", "rerun=true")
    told = "".join(capsys.readouterr())
    assert (said in told) == (changed != "nothing") == ("than in training" in told)
    run_command(train, *given, "trainer.max_epochs=2", "ckpt=last")
    matters = changed != "nothing" and condition != "none"  # to an unconditional training no label
    assert (said in "".join(capsys.readouterr())) == matters
    assert (read_json(run / "results.json")["best_step"] > best) == matters


def test_resume_with_more_images_than_before_warns(tmp_path, monkeypatch, capsys):
    given = ["data=arrays", f"data.source.path={tmp_path}/mine.npz", "data.batch_size=8"]
    given += [f"hydra.run.dir={tmp_path}/run", "network=mlp", *SMALL_LAYERS, "logger=none"]
    for count, more in (
        (40, ["trainer.max_epochs=1"]),
        (44, ["ckpt=last", "trainer.max_epochs=2"]),
    ):
        images = np.random.default_rng(0).integers(256, size=(count, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / "mine.npz", train_images=images)
        monkeypatch.setattr(sys, "argv", ["train.py", *given, "data.val_size=8", *more])
        capsys.readouterr()
        train.main()
    warned = "there were 40 images when this model was trained, and are 44 now"
    assert warned in capsys.readouterr().err


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_best_checkpoint_of_another_loss_or_folder_is_not_kept(
    last_checkpoint, monkeypatch, capsys, tmp_path, where
):
    """Its value is not that of this training, and would never be surpassed."""
    folder, changed = last_checkpoint.parents[1], ["ckpt=last", "model.free_bits=100"]
    if where == "elsewhere":  # the files of an earlier attempt are of another training
        folder = Path(shutil.copytree(folder, tmp_path / "attempt"))
        changed = [f"ckpt={last_checkpoint}"]
    write_json(folder / "evaluation.json", {"step": 31, "nll": {"value": 1.0, "se": 0.5}})
    longer = ["trainer.max_epochs=2", "model.optimizer.lr=0.0", "logger=none"]
    given = [f"hydra.run.dir={folder}", f"paths.data={folder.parent}/data", *SMALL_LAYERS, *longer]
    monkeypatch.setattr(sys, "argv", ["train.py", *given, *changed])
    train.main()
    said = capsys.readouterr().err
    chosen = "model.free_bits=100 makes the loss another than in the checkpoint's run; the best"
    assert (chosen in said) == (where == "here")
    assert read_json(folder / "results.json")["best_step"] == 62
    assert not (folder / "evaluation.json").exists()


def test_attempt_that_failed_leaves_no_best_checkpoint_of_another_loss(
    get_error, last_checkpoint, monkeypatch
):
    folder = last_checkpoint.parents[1]
    given = [f"hydra.run.dir={folder}", f"paths.data={folder.parent}/data", *SMALL_LAYERS]
    given += ["trainer.max_epochs=2", "model.optimizer.lr=0.0", "logger=none", "ckpt=last"]
    fault = ["+callbacks.fault._target_=support.faults.Fault", "+callbacks.fault.step=40"]
    assert "became nan" in get_error(*given, "model.free_bits=100", *fault)
    monkeypatch.setattr(sys, "argv", ["train.py", *given, "model.free_bits=100"])
    train.main()
    assert read_json(folder / "results.json")["best_step"] == 62


def test_settings_that_cannot_be_trained_delete_nothing(get_error, last_checkpoint):
    folder = last_checkpoint.parents[1]
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    given = [f"hydra.run.dir={folder}", *SMALL_LAYERS, "logger=none", "rerun=true"]
    assert "should be 1 at most" in get_error(*given, "model=info_vae", "model.alpha=1.5")
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == before


def test_monitor_that_is_not_given_any_more_chooses_the_best_anew(
    last_checkpoint, monkeypatch, capsys
):
    folder = last_checkpoint.parents[1]
    given = [f"hydra.run.dir={folder}", f"paths.data={folder.parent}/data", *SMALL_LAYERS]
    given += ["model.optimizer.lr=0.0", "logger=none"]
    monitor = ["+callbacks.checkpoint.monitor=val/elbo", "+callbacks.checkpoint.mode=max"]
    for words in (["rerun=true", "trainer.max_epochs=1", *monitor], ["ckpt=last"]):
        monkeypatch.setattr(sys, "argv", ["train.py", "trainer.max_epochs=2", *given, *words])
        if "rerun=true" in words:
            sys.argv.remove("trainer.max_epochs=2")
        train.main()
    said = capsys.readouterr().err
    assert "callbacks.checkpoint.monitor=null callbacks.checkpoint.mode=null makes" in said
    assert read_json(folder / "results.json")["best_step"] == 62


def test_resume_from_checkpoint_outside_run_folder_does_not_warn(recwarn):
    warn_of_other_settings(OmegaConf.create(), Path("/last.ckpt"))
    assert not recwarn


def test_read_evaluation_ignores_metrics_of_another_checkpoint(last_checkpoint):
    folder = last_checkpoint.parents[1]
    steps = read_json(folder / "results.json")["best_step"]
    for step, names in ((steps, ["nll"]), (steps - 1, [])):
        write_json(folder / "evaluation.json", {"step": step, "nll": {"value": 1.0, "se": 0.5}})
        assert [name for name in read_evaluation(folder) if name == "nll"] == names
        assert ("nll" in read_sweep(folder).jobs) == bool(names)


def test_nonfinite_loss_stops_training_and_keeps_checkpoint(get_error, last_checkpoint):
    before = last_checkpoint.read_bytes()
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "logger=none"]
    folder = last_checkpoint.parents[1]
    said = get_error(
        f"hydra.run.dir={folder}", "ckpt=last", "trainer.max_epochs=3", *small,
        "+callbacks.fault._target_=support.faults.Fault", "+callbacks.fault.step=40",
    )  # fmt: skip
    assert "distortion became nan at training step 40; the checkpoint of step 31 is kept" in said
    assert "Try a smaller model.optimizer.lr, or trainer.gradient_clip_val=1" in said
    assert read_sweep(folder).jobs["state"].tolist() == ["failed"]
    assert last_checkpoint.read_bytes() == before
    assert all(p.isfinite().all() for p in torch.load(last_checkpoint)["state_dict"].values())


def test_nonfinite_loss_error_says_if_no_checkpoint_exists(get_error):
    said = get_error(
        *TINY_RUN, "logger=none", "trainer.log_every_n_steps=1",
        "+callbacks.fault._target_=support.faults.Fault", "+callbacks.fault.step=3",
    )  # fmt: skip
    assert "distortion became nan at training step 3; there is no checkpoint yet. Try" in said


STOP = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/elbow}"
REFUSED_BEFORE_TRAINING = {
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
@pytest.mark.parametrize("override", REFUSED_BEFORE_TRAINING)
def test_train_refuses_invalid_callbacks_limits_and_targets(get_error, tmp_path, override):
    said = get_error("logger=none", override)
    assert re.search(REFUSED_BEFORE_TRAINING[override], said)
    assert {path.name for path in (tmp_path / "new").rglob("*")} == set()


@pytest.mark.parametrize("model", ["vae", "beta_tcvae", "vq_vae", "iwae", "ladder_vae"])
def test_check_monitors_accepts_only_validation_metrics(build, model):
    watched = {
        "vae": "val/active_units",
        "beta_tcvae": "val/minibatch_total_correlation",
        "vq_vae": "val/perplexity",
        "iwae": "val/importance_weighted_elbo",
        "ladder_vae": "val/rate_2",
    }[model]
    made = build(f"model={model}", *SMALL_LAYERS, x_shape=(1, 8, 8), num_classes=3)
    data = Images(source=splits, batch_size=10, val_size=5, test_size=5, pixels="binary")
    before = torch.get_rng_state()
    trainer = Trainer(callbacks=[EarlyStopping(watched)], max_epochs=1, logger=False)
    preflight.check_monitors(trainer, made, data)
    assert made.training
    assert made.totals.rows == []
    assert torch.equal(torch.get_rng_state(), before)
    if model != "beta_tcvae":  # it cannot take a step before training, so nothing is checked
        trainer = Trainer(callbacks=[EarlyStopping(watched[:-1])], max_epochs=1, logger=False)
        with pytest.raises(UserError, match=f"did you mean {watched[:-1]}"):
            preflight.check_monitors(trainer, made, data)


def test_check_monitors_skips_runs_with_callback_that_may_log(build):
    class CustomCallback(Callback):
        def on_validation_epoch_end(self, trainer, module):
            module.log("val/mine", 0.0)

    made = build(*SMALL_LAYERS, x_shape=(1, 8, 8), num_classes=3)
    data = Images(source=splits, batch_size=10, val_size=5, test_size=5, pixels="binary")
    options = {"max_epochs": 1, "logger": False}
    trainer = Trainer(callbacks=[CustomCallback(), EarlyStopping("val/mine")], **options)
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
def test_user_message_describes_out_of_memory_in_one_line(error, said):
    found = error_messages.user_message(error, "train")
    assert found is None if said is None else said in found


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments as a process, in the root of the repository."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("question", [["--help"], ["--cfg", "job"]])
@pytest.mark.parametrize("script", ["train", "evaluate", "generate", "encode", "report", "export"])
def test_help_and_cfg_do_not_import_torch(script, question):
    answer = run_script("-X", "importtime", f"{script}.py", *question)
    assert answer.returncode == 0
    imported = {line.rsplit("|")[-1].strip() for line in answer.stderr.splitlines()}
    assert "vaelab.commands.cli" in imported
    slow = {"torch", "lightning", "torchvision", "tensorboard", "matplotlib", "pydantic"}
    assert not imported & slow


MALFORMED_ARGUMENTS = {
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


@pytest.mark.parametrize("words", MALFORMED_ARGUMENTS, ids=" ".join)
def test_malformed_arguments_error_says_what_to_type(get_error, words):
    assert re.search(MALFORMED_ARGUMENTS[words], get_error(*words))


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
def test_split_flags_separates_flags_from_overrides(words, flags):
    found, others = arguments.split_flags(words.split())
    assert found == flags
    assert others == [word for word in words.split() if re.match(r"(a|b|model)[.\w]*=", word)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "num_samples=10,100"], "error: -m: only train makes sweeps\n"),
        (["num_samples=10,100"], "num_samples=10,100: several values are several commands, one "),
        (["hydra.run.dir=new"], "hydra.run.dir=new: only train makes such a folder; --help has "),
        (["++hydra.sweep.subdir=new"], "++hydra.sweep.subdir=new: only train makes such a folder"),
    ],
)
def test_words_of_training_are_refused_by_other_commands(
    monkeypatch, capsys, tmp_path, words, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run_command(evaluate, f"run={tmp_path}", *words)
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_multirun_flag_is_accepted_between_overrides(get_error):
    said = get_error("model=beta_vae", "-m", "model.beta=1,x", "trainer.max_epochs=1")
    assert "model.beta=x: should be a valid number" in said


def test_run_name_shows_settings_without_equals_or_slash():
    assert run_name(["model=beta_vae", "model.beta=4", "data=mnist"]) == "_beta-4_data-mnist"
    assert run_name(["model=beta_vae"]) == run_name([]) == ""
    assert "=" not in run_name(["data.source.path=/a/b=c,d.npz"])
    assert "/" not in run_name(["data.source.path=/a/b=c,d.npz"])


def test_run_name_differs_for_different_overrides():
    """Runs that start in the same second have only this to tell their folders apart."""
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


SPECIAL_TEXTS = [
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
SPECIAL_TEXTS += [
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


@pytest.mark.parametrize("text", [*SPECIAL_TEXTS, "".join(SPECIAL_TEXTS)])
def test_shell_override_round_trips_any_text(text):
    """Parsed again by `shlex`, Hydra and OmegaConf."""
    (word,) = shlex.split(command_lines.shell_override("key", text))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert OmegaConf.create({"key": override.value()}).key == text


@pytest.mark.parametrize("text", ["outputs/vae/2026-11-21_10-00-00_beta-4", "a.b", "/x/y@z+1%"])
def test_shell_override_does_not_quote_plain_paths(text):
    assert command_lines.shell_override("key", text) == f"key={text}"


def test_sweep_name_ignores_rerun_compile_and_launcher():
    overrides = ["model=beta_vae", "model.beta=1,4", "seed=1,2"]
    name = sweep_name(overrides, ["hydra.mode=MULTIRUN"])
    assert name.startswith("beta_vae_beta-1-4_seed-1-2_")
    assert name.count(name[-7:]) == 1
    assert sweep_name([*overrides, "rerun=true"], ["hydra.launcher.n_jobs=3"]) == name
    assert sweep_name([*overrides, "compile=true"], []) == name
    assert sweep_name([*overrides, "trainer.max_epochs=3"], []) != name
    assert sweep_name(overrides, ["hydra.sweeper.params={a: 1}"]) != name


def test_error_names_run_folder_that_cannot_be_created(get_error, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run").write_text("a file")
    assert str(tmp_path / "new" / "run") in get_error()


def test_broken_pipe_exits_141():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "evaluate.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
def test_help_shows_settings_of_given_overrides():
    said = run_script(
        "train.py", "model.beta=7", "--help", "model=beta_vae", "seed=1,2", "-m"
    ).stdout
    assert "  model.beta=7 " in said
    assert re.search(r"hydra/launcher=local +or ray, slurm", said)
    failed = run_script("train.py", "model.bta=1", "-h")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: model.bta: there is no such setting")


def test_check_optimizer_tries_weights_of_the_shape_of_the_models(build):
    class OnlyMatrices(torch.optim.SGD):
        """An optimizer that takes matrices only, as Muon."""

        def step(self, closure=None):
            assert all(p.ndim == 2 for group in self.param_groups for p in group["params"])

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    made = build(*SMALL_LAYERS, x_shape=(1, 8, 8), num_classes=3)
    made.make_optimizer = partial(OnlyMatrices, lr=0.1)
    with pytest.raises(UserError, match=r"model\.optimizer: assert"):
        preflight.check_optimizer(made, trainer)  # some weights are vectors
    made.parameter_groups = lambda: [{"params": [p for p in made.parameters() if p.ndim == 2]}]
    preflight.check_optimizer(made, trainer)


def test_check_optimizer_skips_one_that_a_variant_configures_itself(build):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    made = build(*SMALL_LAYERS, x_shape=(1, 8, 8), num_classes=3)
    own = torch.optim.RMSprop(made.parameters())
    halving = torch.optim.lr_scheduler.StepLR(own, 10)  # which adds initial_lr to its groups
    made.configure_optimizers = lambda: {"optimizer": own, "lr_scheduler": halving}
    preflight.check_optimizer(made, trainer)
