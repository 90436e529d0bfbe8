"""Finished runs: which there are, and the model and the data of one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.runs import loading, resume
from vaelab.runs.folder import COMPOSED, read_config
from vaelab.training.callbacks.checkpoint import load as load_checkpoint


def load(folder: str | Path, checkpoint: str = "best") -> tuple[ELBO, Images]:
    """The model, in evaluation mode, and the data of a finished run.

    Args:
        folder: The run folder, of one's own: what its configuration names is imported and called.
        checkpoint: `best` or `last`.

    Raises:
        UserError: If this is no run folder, or its checkpoint is damaged.
    """
    if loading.is_exported(Path(folder)):
        raise UserError(
            f"{folder} is an exported model, without its images, which are needed here; give the "
            "run folder"
        )
    model = loading.trained(Path(folder), checkpoint, trust=True)
    _, data = loading.composed(Path(folder))
    return model, instantiate(data, _convert_="all")


def under(folders: Iterable[str]) -> list[Path]:
    """The run and exported folders among these and, where one is neither, the runs below it.

    Raises:
        UserError: If one neither is a run folder nor holds any, or nothing is named.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        itself = is_run(folder) or loading.is_exported(folder)
        below = [folder] if itself else sorted(filter(is_run, folder.glob("**/")))
        if not below:
            raise UserError(f"{folder} is no run folder, and there is none in it")
        found += below
    if not found:
        raise UserError("run=[] names no run")
    return list(dict.fromkeys(found))


def unfinished(folder: Path) -> str | None:
    """How far a run is that was not trained to its end, in words; None of one that was."""
    last = folder / "checkpoints" / "last.ckpt"
    if resume.result(folder) is not None or not last.exists():
        return None
    state = load_checkpoint(last)
    trainer: Any = OmegaConf.select(read_config(folder), "trainer") or {}
    epochs, steps = trainer.get("max_epochs", -1), trainer.get("max_steps", -1)
    if epochs and epochs > 0:
        return f"epoch {state['epoch'] + 1} of {epochs}"
    return f"step {state['global_step']:,}" + (f" of {steps:,}" if steps > 0 else "")


def is_run(folder: Path) -> bool:
    return (folder / COMPOSED).exists()


def device(choice: str) -> torch.device:
    """The device of that name, or the fastest there is for `auto`.

    Raises:
        UserError: If this machine has no such device.
    """
    if choice == "auto":
        choice = next(
            (kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available()), "cpu"
        )
    try:
        torch.empty(0, device=choice)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={choice}: this machine has no such device") from error
    return torch.device(choice)
