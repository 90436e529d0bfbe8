"""What an earlier start of a run left in its folder, so that its command can be given again."""

import shutil
from math import inf
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vaelab.errors import UserError
from vaelab.runs.folder import COMPOSED, EVALUATION, PROGRESS, flat, read_config
from vaelab.runs.naming import is_free
from vaelab.training.json_files import read_json

UNMEASURED = "unmeasured"


def result(folder: Path) -> float | None:
    """`val/elbo` of a run that came to its end; `results.json` is written then, and whole.

    It is minus infinity where there is none, as of an auto-encoder.
    """
    found = read_json(folder / "results.json")
    if "val/elbo" not in found:
        return None
    return -inf if found["val/elbo"] is None else found["val/elbo"]


def unmeasured(folder: Path) -> list[str]:
    """What of `evaluate` is to be measured yet of a run that came to its end."""
    return read_json(folder / "results.json").get(UNMEASURED, [])


def started(folder: Path) -> bool:
    """Whether the folder holds a run, at its end or not, whose configuration is known."""
    begun = (folder / "checkpoints" / "last.ckpt").exists() or result(folder) is not None
    return begun and (folder / COMPOSED).exists()


def check(folder: Path, shown: Path, cfg: DictConfig) -> None:
    """Checks that what is in the folder was started with this configuration.

    Args:
        folder: The run folder.
        shown: The same as the user would type it.
        cfg: The composed configuration.

    Raises:
        UserError: With the first setting that is another.
    """
    before = settings(read_config(folder)) if (folder / COMPOSED).exists() else {}
    now = settings(cfg)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise UserError(
                f"{shown} holds a run with {name}={before.get(name, 'nothing')}, not "
                f"{now.get(name, 'nothing')}; "
                "ckpt=last goes on all the same, rerun=true starts over, and "
                "hydra.run.dir=FOLDER names another folder"
            )


def settings(cfg: DictConfig) -> dict[str, object]:
    """What makes a run this one, by dotted names; interpolations as they stand."""
    plain = flat(OmegaConf.to_container(cfg, resolve=False))
    return {name: value for name, value in plain.items() if not is_free(name)}


def clear(folder: Path) -> None:
    """Takes away what a run wrote, and leaves what it did not."""
    for name in ("checkpoints", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for pattern in ("results.json", EVALUATION, PROGRESS, "events.out.*", "metrics.csv"):
        for path in folder.glob(pattern):
            path.unlink()
