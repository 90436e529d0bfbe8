"""Fixtures of all tests: fixed seeds, the composed configuration, and models and runs from it."""

import os
import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.distributions import Distribution

from vaelab.commands import config_folders
from vaelab.data import Images
from vaelab.data.splits import Splits
from vaelab.elbo import ELBO
from vaelab.training.callbacks import Checkpoint
from vaelab.training.trainer import Trainer

for number in (signal.SIGHUP, signal.SIGINT):  # ignored where tests run in the background, and
    if signal.getsignal(number) == signal.SIG_IGN:  # so in the processes that they start
        signal.signal(number, signal.default_int_handler)

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # workers share the CPU
    threads = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # for processes that tests start


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """Seeds torch with 0 before each test, and makes distributions check their arguments.

    After it environment variables are as they were: commands that run in the process set some, and
    a program with others than its server starts slowly, see `support.programs`.
    """
    Distribution.set_default_validate_args(True)
    torch.manual_seed(0)
    before = dict(os.environ)
    yield
    for name in {*before, *os.environ}:
        if name.startswith("PYTEST_") or before.get(name) == os.environ.get(name):
            continue
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


FOLDER = "/folder-of-the-test"
FOLDER_SETTINGS = {
    "trainer.default_root_dir": FOLDER,
    "callbacks.checkpoint.dirpath": f"{FOLDER}/checkpoints",
    "callbacks.progress.file": f"{FOLDER}/progress.json",
}


@cache
def composed(*overrides: str) -> DictConfig:
    """Returns the training configuration with `FOLDER` as run folder, the same at each call."""
    first = ["logger=none", *(f"{name}={value}" for name, value in FOLDER_SETTINGS.items())]
    with initialize_config_dir(str(config_folders.CONF), version_base="1.3"):
        return hydra.compose("train", [*first, *overrides])


@pytest.fixture
def compose(tmp_path: Path) -> Callable[..., DictConfig]:
    """Returns a function (*overrides) -> training configuration, with `tmp_path` as run folder."""

    def compose_train(*overrides: str) -> DictConfig:
        cfg = deepcopy(composed(*overrides))
        for name, value in FOLDER_SETTINGS.items():
            if OmegaConf.select(cfg, name) == value:
                OmegaConf.update(cfg, name, value.replace(FOLDER, str(tmp_path)))
        return cfg

    return compose_train


@pytest.fixture
def build(compose: Callable[..., DictConfig]) -> Callable[..., ELBO]:
    """Returns a function that builds the model of a configuration, by overrides and data shapes."""

    def build_model(
        *overrides: str,
        x_shape: tuple[int, int, int] = (1, 28, 28),
        num_classes: int = 10,
        numbers: dict[str, int] | None = None,
    ) -> ELBO:
        cfg = compose(*overrides)
        classes = {"label": num_classes} if num_classes else {}
        columns = {"classes": classes, "numbers": numbers or {}}
        shapes = {"x_shape": x_shape, "pixels": cfg.data.pixels, **columns}
        return instantiate(cfg.model, _convert_="all", **shapes)

    return build_model


@pytest.fixture
def fit(build, tmp_path):
    """Returns a function that trains a model on random images; it returns (trainer, model).

    Default: a small beta-VAE, 2 epochs of 5 batches on the CPU, output to `tmp_path`. Arguments:
    callbacks, `model` or `overrides` of it, other settings of the `data`, `ckpt_path` to resume
    from, options of the trainer.
    """

    def fit_model(*callbacks, model=None, overrides=(), data=None, ckpt_path=None, **options):
        small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
        shapes = {"x_shape": (1, 8, 8), "num_classes": 3}
        model = model or build("model=beta_vae", "model.beta=4", *small, *overrides, **shapes)
        quiet = {"enable_progress_bar": False, "logger": False}
        options = {"max_epochs": 2, "log_every_n_steps": 5, "accelerator": "cpu"} | quiet | options
        trainer = Trainer(
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            **options,
        )
        settings = {"source": splits, "batch_size": 10, "val_size": 5, "test_size": 5}
        images = Images(**settings | {"pixels": "binary"} | (data or {}))
        trainer.fit(model, images, ckpt_path=ckpt_path, weights_only=True)
        return trainer, model

    return fit_model


def splits() -> Splits:
    """Returns 60 random images [1, 8, 8], always the same, with labels 0 to 2; all for training."""
    images = torch.randint(256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    images = images.to(torch.uint8)
    return Splits(images, labels, images[:0], labels[:0], num_classes=3)
