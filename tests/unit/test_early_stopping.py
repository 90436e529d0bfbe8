"""`EarlyStopping`: what counts, and the decision of runs that are resumed."""

import pytest
import torch
from lightning import Callback

from vaelab.training.callbacks import Annealing, Checkpoint, EarlyStopping, Seeding
from vaelab.training.schedules import linear

NEVER_BETTER = 1e6
"""A `min_delta` by which no validation but the first is a new best."""


class Stop(Callback):
    """Raises an error before a batch."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, *_):
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise ConnectionAbortedError


@pytest.fixture
def train(fit, tmp_path):
    """Returns a function that trains into a folder, from its last checkpoint if it has one."""

    def train_run(name, *callbacks, patience=2, **options):
        torch.manual_seed(0)
        last = tmp_path / name / "last.ckpt"
        stopping = EarlyStopping(patience, NEVER_BETTER)
        trainer, model = fit(
            *(Seeding(0), *callbacks, stopping, Checkpoint(str(last.parent))),
            ckpt_path=last if last.exists() else None,
            **{"max_epochs": 8} | options,
        )
        return trainer, model, stopping

    return train_run


def test_training_stops_after_validations_without_a_new_best(train):
    trainer, _, stopping = train("run")
    assert trainer.current_epoch == 3
    assert stopping.monitor == "val/loss"
    assert stopping.mode == "min"
    assert "did not improve in the last 2 records" in stopping.stopping_reason_message


def test_validations_within_an_epoch_count(train):
    trainer, _, _ = train("run", val_check_interval=2)
    assert trainer.global_step == 5 + 2  # validations after steps 2, 4 and 7
    assert trainer.current_epoch == 2


def test_validations_while_a_weight_is_annealed_do_not_count(train):
    trainer, _, _ = train("run", Annealing("beta", linear, 3, "epochs"))
    assert trainer.current_epoch == 6  # 4 to 6 count


def test_resumed_run_stops_where_it_would_have_stopped(train):
    _, expected, _ = train("whole")
    with pytest.raises(ConnectionAbortedError):
        train("run", Stop(12))
    trainer, found, _ = train("run")
    assert trainer.current_epoch == 3
    for name, weight in found.state_dict().items():
        assert torch.equal(weight, expected.state_dict()[name])


def test_run_that_was_stopped_trains_no_more_unless_it_is_more_patient(train):
    train("run")
    trainer, _, stopping = train("run")
    assert (trainer.current_epoch, trainer.global_step) == (3, 15)
    assert stopping.stopping_reason_message
    trainer, _, stopping = train("run", patience=4)
    assert trainer.current_epoch == 5
    assert stopping.patience == 4
    trainer, _, stopping = train("run", patience=50)
    assert trainer.current_epoch == 8
    assert stopping.stopping_reason_message is None
