"""Optuna's study of a search, in one file that launchers and their jobs all write."""

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

from vaelab.errors import DamagedFileError
from vaelab.files.atomic import explain_write_errors
from vaelab.sweeps.job import INDEX
from vaelab.training.json_files import read_json

FILE = "study.journal"
STUDY = "vaelab"
TRIAL = "VAELAB_TRIAL"
"""Environment variable that names the trial of a job: `NUMBER:FILE`."""


def silence_optuna() -> None:
    """Limits Optuna's logging to errors and ignores ExperimentalWarning, process-wide."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_storage(path: Path) -> JournalStorage:
    """Opens the storage in a journal file, created if missing; silences Optuna in the process.

    Raises:
        DamagedFileError: If the file is damaged.
    """
    silence_optuna()
    path = path.absolute()
    lock = JournalFileOpenLock(str(path))  # Optuna's symlink lock breaks when the folder is moved
    try:
        return JournalStorage(WholeLines(str(path), lock_obj=lock))
    except OSError:
        raise
    except Exception as error:  # Optuna raises many types for lines that it did not write
        raise DamagedFileError(f"{path}: damaged, so that its search cannot go on") from error


class WholeLines(JournalFileBackend):
    """Optuna's journal file, without the half of a line that a full disk leaves.

    The next line, of this or another process, would be joined to it, and the file damaged.
    """

    def __init__(self, file_path: str, lock_obj: JournalFileOpenLock) -> None:
        super().__init__(file_path, lock_obj=lock_obj)
        self.path = Path(file_path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Called by Optuna: appends lines; if that fails, drops half a line, raises WriteError."""
        with explain_write_errors(self.path):
            try:
                super().append_logs(logs)
            except OSError:
                drop_partial_line(self.path)
                raise


def drop_partial_line(path: Path) -> None:
    """Truncates the journal after its last whole line, under its file lock, if it exists.

    A full disk can leave half a line, which the next line would be joined to.
    """
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


def check_not_emptied(path: Path) -> None:
    """Raises DamagedFileError if a journal exists and is empty, although its search has jobs."""
    if path.exists() and not path.stat().st_size and read_json(path.with_name(INDEX)).get("jobs"):
        raise DamagedFileError(
            f"{path}: damaged, for it is empty, so that its search cannot go on; "
            "hydra.sweep.dir=FOLDER begins anew in another folder"
        )


def trial_id(store: JournalStorage, number: int) -> int:
    """Returns the id in the storage of the trial with this number."""
    return store.get_trial_id_from_study_id_trial_number(
        store.get_study_id_from_name(STUDY), number
    )


def load_trial(path: Path, number: int) -> optuna.Trial:
    """Loads a trial by number from a journal file, with its study's pruner; silences Optuna."""
    store = open_storage(path)
    study = optuna.load_study(study_name=STUDY, storage=store, sampler=RandomSampler())
    study.pruner = build_from_settings(study.user_attrs["pruner"]) or optuna.pruners.NopPruner()
    return optuna.Trial(study, trial_id(store, number))


def build_from_settings(settings: dict[str, Any] | None) -> Any:
    """Instantiates a sampler or a pruner from settings with `_target_`; None without settings."""
    return instantiate(settings, _convert_="all") if settings else None


def build_sampler(settings: Mapping[str, Any], number: int) -> Any:
    """Instantiates a trial's sampler; mixes the number into its seed, except for QMCSampler.

    With one seed in every process, a search that is continued, or a second launcher, would propose
    the same points again. A sampler without a seed, and QMCSampler, is built as it is.
    """
    seed = settings.get("seed")
    # QMCSampler gives all trials successive points of one sequence, which its seed determines
    if seed is None or str(settings["_target_"]).endswith("QMCSampler"):
        return build_from_settings(dict(settings))
    mixed = int.from_bytes(sha1(f"{seed} {number}".encode()).digest()[:4], "little")
    return build_from_settings({**settings, "seed": mixed})
