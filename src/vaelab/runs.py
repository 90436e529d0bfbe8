"""Finished runs: which there are, and the model and the data of one."""

from collections.abc import Iterable
from pathlib import Path

import torch
from hydra.utils import instantiate

from vaelab import loading
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.records import COMPOSED


def load(folder: str | Path, checkpoint: str = "best") -> tuple[ELBO, Images]:
    """The model, in evaluation mode, and the data of a finished run.

    Args:
        folder: The run folder, of one's own: what its configuration names is imported and called.
        checkpoint: `best` or `last`.

    Raises:
        UserError: If this is no run folder, or its checkpoint is damaged.
    """
    model = loading.trained(Path(folder), checkpoint, trust=True)
    _, data = loading.composed(Path(folder))
    return model, instantiate(data, _convert_="all")


def under(folders: Iterable[str]) -> list[Path]:
    """The run folders among these and, where one is none itself, below it.

    Raises:
        UserError: If one neither is a run folder nor holds any.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        below = [folder] if is_run(folder) else sorted(filter(is_run, folder.glob("**/")))
        if not below:
            raise UserError(f"{folder} is no run folder, and there is none in it")
        found += below
    return list(dict.fromkeys(found))


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
