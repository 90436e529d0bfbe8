"""Finding runs in folders, loading the model and data of a run, and choosing a device."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from vaelab.data import Images, Numbers
from vaelab.data.sources import WritesFile
from vaelab.elbo import ELBO
from vaelab.errors import DamagedFileError, UserError
from vaelab.runs import loading, resume
from vaelab.runs.folder import COMPOSED, read_config
from vaelab.runs.safe_targets import check_safe_targets
from vaelab.runs.shared_data import SharedData
from vaelab.training.callbacks.checkpoint import load_checkpoint


def load_run(
    folder: str | Path,
    checkpoint: str = "best",
    *,
    trust: bool = False,
    data_folder: Path | None = None,
    cfg: DictConfig | None = None,
    shared: SharedData | None = None,
) -> tuple[ELBO, Images]:
    """Loads a run's model, in evaluation mode, and data; runs code of its own only if `trust`.

    Args:
        folder: The run folder.
        checkpoint: `best` or `last`; without a best checkpoint the last is loaded.
        trust: Whether its configuration may name code outside vaelab, and where data are written.
        data_folder: Where data sets are downloaded and prepared unless the run is trusted; default:
            the variable VAELAB_DATA, else `data`.
        cfg: The configuration to build from, which is trusted; default: that in the folder.
        shared: The images of the run loaded before, which are taken over if they are the same.

    Raises:
        UserError: If this is no run folder, or an export, or its checkpoint is damaged, or if it is
            not trusted and names code outside vaelab.
    """
    folder = Path(folder)
    data_folder = data_folder or Path(os.environ.get("VAELAB_DATA", "data"))
    if loading.is_exported(folder):
        raise UserError(
            f"{folder} is an exported model, without its images, which are needed here; give the "
            "run folder"
        )
    trust = trust or cfg is not None
    cfg = cfg or loading.read_run_config(folder, trust, data_folder)
    nodes = {name: loading.resolve_node(folder, cfg, name) for name in ("model", "data")}
    if not trust:
        check_safe_targets(nodes)  # both, before one of them is built
    settings = loading.earlier_scale(cfg) | nodes["model"]
    model = loading.load_checkpoint_model(folder, checkpoint, settings, trust)
    data = loading.build_part(Images, folder / COMPOSED, "data", nodes["data"], trust)
    if not trust and isinstance(data.source, WritesFile) and not data.source.is_prepared():
        data.source = data.source.moved_to(data_folder)
    if isinstance(data, Numbers) and model.units is not None:
        data.units = model.units  # those of the training, also if the file has grown
    if shared is not None:
        shared.connect(data, nodes["data"])
    return model, data


def find_runs(folders: Iterable[str]) -> list[Path]:
    """Returns each folder that is a run or export, or else, sorted, the runs below; no duplicates.

    The name of a model that comes with vaelab stands for its folder.

    Raises:
        UserError: If a folder is no run and holds none, or no folder is given.
    """
    found: list[Path] = []
    for folder in map(loading.find_model_folder, map(Path, folders)):
        itself = is_run(folder) or loading.is_exported(folder)
        below = [folder] if itself else sorted(filter(is_run, folder.glob("**/")))
        if not below:
            raise UserError(f"{folder} is no run folder, and there is none in it")
        found += below
    if not found:
        raise UserError("run=[] names no run")
    return list(dict.fromkeys(found))


def unfinished_progress(folder: Path) -> str | None:
    """Returns how far an unfinished run is, `epoch 3 of 30`; None if finished or no checkpoint."""
    last = folder / "checkpoints" / "last.ckpt"
    if resume.finished_elbo(folder) is not None or not last.exists():
        return None
    try:
        state = load_checkpoint(last)
    except DamagedFileError:
        return "and its last checkpoint is damaged"
    trainer: Any = OmegaConf.select(read_config(folder), "trainer") or {}
    epochs, steps = trainer.get("max_epochs", -1), trainer.get("max_steps", -1)
    if epochs and epochs > 0:
        return f"epoch {state['epoch'] + 1} of {epochs}"
    return f"step {state['global_step']:,}" + (f" of {steps:,}" if steps > 0 else "")


def is_run(folder: Path) -> bool:
    """Returns whether a folder holds a composed configuration, .hydra/config.yaml."""
    return (folder / COMPOSED).exists()


def select_device(choice: str) -> torch.device:
    """Returns the device by name after a trial allocation; `auto`: CUDA, else MPS, else the CPU.

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
