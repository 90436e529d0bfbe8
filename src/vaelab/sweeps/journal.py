"""Optuna's study of a search: one file, which launchers and their jobs all write."""

import os
import warnings
from collections.abc import Mapping
from hashlib import sha1
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from vaelab.errors import UserError

FILE = "study.journal"
STUDY = "vaelab"
TRIAL = "VAELAB_TRIAL"
"""Variable that tells a job which trial it is: `NUMBER:FILE`."""


def quieten() -> None:
    """Leaves what Optuna has to say to errors."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def storage(path: Path) -> JournalStorage:
    """The storage in a file, which is made if there is none.

    Raises:
        UserError: If the file is damaged.
    """
    quieten()
    path = path.absolute()
    lock = JournalFileOpenLock(str(path))  # Optuna's other kind dangles where folders are moved
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except ValueError as error:
        raise UserError(f"{path}: damaged, so that its search cannot go on") from error


def mend(path: Path) -> None:
    """Takes away half a line at the end, as a full disk leaves it: the next one would join it."""
    if not path.exists():
        return
    lock = JournalFileOpenLock(str(path.absolute()))
    lock.acquire()
    try:
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def trial_id(store: JournalStorage, number: int) -> int:
    return store.get_trial_id_from_study_id_trial_number(
        store.get_study_id_from_name(STUDY), number
    )


def trial(path: Path, number: int) -> optuna.Trial:
    """A trial that was asked for by another process, with the pruner of its study."""
    store = storage(path)
    study = optuna.load_study(study_name=STUDY, storage=store, sampler=RandomSampler())
    study.pruner = made(study.user_attrs["pruner"]) or optuna.pruners.NopPruner()
    return optuna.Trial(study, trial_id(store, number))


def made(settings: dict[str, Any] | None) -> Any:
    """A sampler or a pruner of its settings."""
    return instantiate(settings, _convert_="all") if settings else None


def sampler(settings: Mapping[str, Any], number: int) -> Any:
    """A sampler for the trial after so many.

    With the same seed in every process, a search that goes on, or a launcher beside this one,
    would propose the very points that were proposed at the beginning.
    """
    seed = settings.get("seed")
    if seed is None or str(settings["_target_"]).endswith("QMCSampler"):  # one sequence for all
        return made(dict(settings))
    mixed = int.from_bytes(sha1(f"{seed} {number}".encode()).digest()[:4], "little")
    return made({**settings, "seed": mixed})
