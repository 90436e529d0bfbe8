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

from vaelab import cli
from vaelab.elbo import ELBO

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
    ]

    def compose_train(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(cli.CONF), version_base="1.3"):
            return hydra.compose("train", [*folder, *overrides])

    return compose_train


@pytest.fixture
def build(compose: Callable[..., DictConfig]) -> Callable[..., ELBO]:
    """(*overrides, x_shape, num_classes) -> the model of that configuration."""

    def build_model(
        *overrides: str, x_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
    ) -> ELBO:
        cfg = compose(*overrides)
        columns = {"classes": {"label": num_classes} if num_classes else {}, "numbers": {}}
        shapes = {"x_shape": x_shape, "pixels": cfg.data.pixels, **columns}
        return instantiate(cfg.model, _convert_="all", **shapes)

    return build_model
