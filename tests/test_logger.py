"""What is logged reaches TensorBoard as by Lightning's own logger, once."""

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_stepping import ours
from torch.utils.tensorboard import SummaryWriter

from vaelab.training import tensorboard as module
from vaelab.training.tensorboard import TensorBoard

SPEED = "train/images_per_second"


def scalars(folder):
    """The steps and values of each curve."""
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def test_curves_are_those_of_lightnings_logger(fit, tmp_path):
    found = {}
    for kind in (TensorBoard, TensorBoardLogger):
        torch.manual_seed(0)
        logger = kind(tmp_path, name=kind.__name__, version="")
        fit(*ours(), logger=logger, log_every_n_steps=2)
        found[kind] = scalars(tmp_path / kind.__name__)
    own, theirs = found.values()
    assert [step for step, _ in own.pop(SPEED)] == [step for step, _ in theirs.pop(SPEED)]
    epochs = own.pop("epoch"), theirs.pop("epoch")  # by all who log at a step
    assert set(epochs[0]) == set(epochs[1])
    assert len(epochs[0]) < len(epochs[1])
    assert own == theirs
    assert [step for step, _ in own["train/loss"]] == [1, 3, 5, 7, 9]
    assert len(own["val/elbo"]) == 2


def test_whatever_is_no_number_is_logged_as_by_lightning(tmp_path):
    for kind in (TensorBoard, TensorBoardLogger):
        logger = kind(tmp_path, name=kind.__name__, version="", prefix="run")
        logger.log_metrics({"loss": torch.tensor(2.0), "epoch": 1}, step=3)
        logger.log_metrics({"several": {"one": 1.0, "other": 2.0}}, step=4)
        logger.finalize("success")
    folders = [tmp_path / kind.__name__ for kind in (TensorBoard, TensorBoardLogger)]
    assert (
        scalars(folders[0]) == scalars(folders[1]) == {"run-loss": [(3, 2)], "run-epoch": [(3, 1)]}
    )
    parts = [sorted(p.name for p in f.iterdir() if p.is_dir()) for f in folders]
    assert parts[0] == parts[1] == ["run-several_one", "run-several_other"]


def test_the_scalars_of_a_step_are_one_record(tmp_path):
    logger = TensorBoard(tmp_path, name="", version="")
    for step in (1, 2):
        logger.log_metrics({"one": step}, step)
        logger.log_metrics({"other": torch.tensor(-step)}, step)
    logger.finalize("failed")
    records = list(EventAccumulator(str(tmp_path))._generator.Load())
    assert [[v.tag for v in r.summary.value] for r in records if r.summary.value] == [
        ["one", "other"],
        ["one", "other"],
    ]


@pytest.mark.parametrize(("seconds", "flushes"), [(0, 3), (60, 1)])
def test_the_file_is_flushed_now_and_then(tmp_path, monkeypatch, seconds, flushes):
    flushed = []
    monkeypatch.setattr(module, "FLUSH", seconds)
    monkeypatch.setattr(SummaryWriter, "flush", lambda self: flushed.append(self))
    logger = TensorBoard(tmp_path, name="", version="")
    for step in range(3):
        logger.log_metrics({"one": step}, step)
        logger.save()
    assert len(flushed) == flushes


def test_what_is_logged_after_the_file_was_closed_is_in_another(tmp_path):
    logger = TensorBoard(tmp_path, name="", version="")
    for step in (1, 2):
        logger.log_metrics({"one": step}, step)
        logger.finalize("success")
    assert sorted(scalars(tmp_path)["one"]) == [(1, 1), (2, 2)]
