"""The real configuration, composed as the command line does, and models built from it."""

import os
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
import torch
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.distributions import Distribution

from vaelab.commands import cli
from vaelab.data import Images
from vaelab.data.store import Splits
from vaelab.elbo import ELBO
from vaelab.training.callbacks import Checkpoint
from vaelab.training.trainer import Trainer

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # these share the processor
    threads = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # of the processes that tests start


@pytest.fixture(autouse=True)
def repeatable() -> None:
    """Distributions check their arguments, and each test starts from the same random state."""
    Distribution.set_default_validate_args(True)
    torch.manual_seed(0)


@pytest.fixture
def compose(tmp_path: Path) -> Callable[..., DictConfig]:
    """(*overrides) -> the training configuration, with `tmp_path` as the folder of the run."""
    folder = [
        "logger=none",
        f"trainer.default_root_dir={tmp_path}",
        f"callbacks.checkpoint.dirpath={tmp_path}/checkpoints",
        f"callbacks.progress.file={tmp_path}/progress.json",
    ]

    def compose_train(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(cli.CONF), version_base="1.3"):
            return hydra.compose("train", [*folder, *overrides])

    return compose_train


@pytest.fixture
def build(compose: Callable[..., DictConfig]) -> Callable[..., ELBO]:
    """(*overrides, x_shape, num_classes, numbers) -> the model of that configuration."""

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
    """(*callbacks, model, **trainer options) -> (trainer, model) after 5 batches an epoch."""

    def run(*callbacks, model=None, overrides=(), ckpt_path=None, **options):
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
        data = Images(source=splits, batch_size=10, val_size=5, test_size=5, pixels="binary")
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        return trainer, model

    return run


def splits() -> Splits:
    images = torch.randint(256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    images = images.to(torch.uint8)
    return Splits(images, labels, images[:0], labels[:0], num_classes=3)
