"""Curves of stopped and resumed trainings, point by point against trainings that never stopped."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from support.logged_curves import assert_same_curves
from tensorboard.summary.writer import event_file_writer

from vaelab.errors import NotFiniteError
from vaelab.training.callbacks import Annealing, Checkpoint, Seeding, Speed, step_scalars
from vaelab.training.csv_logger import CSVLogger
from vaelab.training.schedules import linear
from vaelab.training.tensorboard import TensorBoardLogger


class Stop(Callback):
    """Stops the training before a batch, in a validation, or after the last epoch."""

    def __init__(self, batch=None, validation=None, number=None, at_end=False):
        self.batch, self.validation, self.at_end = batch, validation, at_end
        self.number = number  # of a signal; None raises an error
        self.validations = 0

    def stop(self):
        """Sends the signal to this process, or raises an error."""
        if self.number is None:
            raise ConnectionAbortedError
        os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *_):
        if trainer.fit_loop.total_batch_idx == self.batch:
            self.stop()

    def on_validation_batch_start(self, trainer, *_):
        self.validations += 1
        if self.validations == self.validation:
            self.stop()

    def on_train_end(self, *_):
        if self.at_end:
            self.stop()


def build_loggers(kind, folder):
    """Builds new loggers into a folder: `tensorboard`, `csv` or `both`."""
    board = TensorBoardLogger(folder, name="", version="")
    table = CSVLogger(folder, name="", version="")
    return {"tensorboard": [board], "csv": [table], "both": [board, table]}[kind]


@pytest.fixture
def train(fit, tmp_path):
    """Returns a function that trains into a folder, from its last checkpoint if it has one."""

    def train_run(name, kind, *callbacks, **options):
        folder = tmp_path / name
        torch.manual_seed(0)
        last = folder / "checkpoints" / "last.ckpt"
        usual = [Seeding(0), Annealing("beta", linear, 8, "steps"), Speed()]
        fit(
            *usual,
            Checkpoint(str(last.parent)),
            *callbacks,
            logger=build_loggers(kind, folder),
            ckpt_path=last if last.exists() else None,
            **{"max_epochs": 4, "log_every_n_steps": 3} | options,
        )

    return train_run


OPTIONS = {
    "plain": {},
    "val_check_interval": {"val_check_interval": 2},
    "accumulation": {"accumulate_grad_batches": 2},
    "accumulation of 3, validation every 2 batches": {
        "accumulate_grad_batches": 3,
        "val_check_interval": 2,
    },
    "validation at every batch of two": {"accumulate_grad_batches": 2, "val_check_interval": 1},
    "check_val_every_n_epoch": {"check_val_every_n_epoch": 2},
    "validation across epochs": {"check_val_every_n_epoch": None, "val_check_interval": 3},
    "max_steps": {"max_steps": 17},
    "max_steps, val_check_interval": {"max_steps": 17, "val_check_interval": 2},
    "rare points": {"log_every_n_steps": 7},
}
STOPS = {
    "killed": {"batch": 13},
    "killed before an epoch's last batch": {"batch": 14},
    "killed before an epoch's first batch": {"batch": 10},
    "killed in a validation": {"validation": 2},
    "killed after the last epoch": {"at_end": True},
    "terminated": {"batch": 12, "number": signal.SIGTERM},
    "terminated in a validation": {"validation": 2, "number": signal.SIGTERM},
}


FAST = {
    ("plain", "killed"),
    ("val_check_interval", "killed"),
    ("accumulation", "terminated"),
    ("accumulation of 3, validation every 2 batches", "killed"),
    ("max_steps", "killed"),
}
"""Pairs of options and stop in the fast lane; the other ones are slow."""
PAIRS = [
    pytest.param(options, stop, marks=[] if (options, stop) in FAST else pytest.mark.slow)
    for options in OPTIONS
    for stop in STOPS
]


@pytest.mark.parametrize(("options", "stop"), PAIRS)
def test_resumed_run_has_the_curves_of_one_never_stopped(train, tmp_path, options, stop):
    train("whole", "both", **OPTIONS[options])
    with pytest.raises((ConnectionAbortedError, SystemExit)):
        train("stopped", "both", Stop(**STOPS[stop]), **OPTIONS[options])
    train("stopped", "both", **OPTIONS[options])
    assert_same_curves(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("kind", ["tensorboard", "csv"])
def test_longer_training_of_a_finished_run_has_the_curves_of_one_training(train, tmp_path, kind):
    train("whole", kind, max_epochs=4)
    train("extended", kind, max_epochs=2)
    train("extended", kind, max_epochs=4)
    assert_same_curves(tmp_path / "extended", tmp_path / "whole")


def test_checkpoint_of_two_processes_restores_the_points_of_each(monkeypatch):
    rows = torch.arange(12.0).reshape(2, 2, 3)
    for rank in (0, 1):
        monkeypatch.setattr(step_scalars, "rank_and_world_size", lambda rank=rank: (rank, 2))
        callback = step_scalars.StepScalars()
        callback.load_state_dict({"rows": rows, "ahead": []})
        assert torch.equal(callback.window.all_rows(), rows[rank])
    monkeypatch.undo()
    callback.load_state_dict({"rows": rows, "ahead": []})  # in one process
    assert torch.equal(callback.window.all_rows(), rows.mean(0))


def test_loss_that_is_not_finite_in_one_process_ends_all():
    """At the same step; else the others would wait for it, and tell of a lost process."""
    decisions = []

    def decide(is_finite):
        """The decision of two processes, the other of which has a loss that is not finite."""
        decisions.append(is_finite)
        return False

    trainer = SimpleNamespace(
        strategy=SimpleNamespace(reduce_boolean_decision=decide),
        fit_loop=SimpleNamespace(total_batch_idx=7),
    )
    callback = step_scalars.StepScalars()
    callback.check_finite(trainer)  # there is no batch in any
    callback.window.append(torch.ones(2), torch.ones(2), torch.tensor(2.0))
    with pytest.raises(NotFiniteError, match="not finite in another process"):
        callback.check_finite(trainer)
    callback.window.append(torch.ones(2), torch.ones(2), torch.tensor(torch.nan))
    with pytest.raises(NotFiniteError, match="the loss became nan at training step 7"):
        callback.check_finite(trainer)
    assert decisions == [True, False]


def test_file_of_a_later_start_in_the_same_second_is_read_later(train, tmp_path, monkeypatch):
    counts = iter([8, 9, 10, 99, 100])
    monkeypatch.setattr(event_file_writer._global_uid, "get", lambda: next(counts))
    train("whole", "tensorboard")
    with pytest.raises(ConnectionAbortedError):
        train("stopped", "tensorboard", Stop(batch=13))
    train("stopped", "tensorboard")
    assert_same_curves(tmp_path / "stopped", tmp_path / "whole")
