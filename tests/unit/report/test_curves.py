"""Tests of `vaelab.report.curves` against TensorBoard's reader and exact values."""

import math
import os
import struct
import tracemalloc

import pandas as pd
import pytest
from support.sweep_folders import write_event_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard import SummaryWriter

from vaelab.report import curves


def test_read_curves_agrees_with_tensorboard_and_stops_at_damage(tmp_path):
    values = {step: math.sin(step) for step in range(0, 300, 7)}
    path = write_event_file(
        tmp_path, {"val/elbo": values, "hp/val_elbo": {0: 1.0}, "train/loss": {3: 2.0}}
    )
    image = Summary.Value(tag="samples", image=Summary.Image(encoded_image_string=b"x" * 50_000))
    writer = EventFileWriter(str(tmp_path))
    writer.add_event(Event(step=300, summary=Summary(value=[image])))
    after = Summary.Value(tag="val/elbo", simple_value=5.0)
    writer.add_event(Event(step=301, summary=Summary(value=[after])))
    writer.close()
    found = curves.read_curves(tmp_path)
    assert found.keys() == {"val/elbo", "train/loss"}
    board = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    expected = {event.step: event.value for event in board.Scalars("val/elbo")}
    assert found["val/elbo"].to_dict() == expected
    assert found["val/elbo"][301] == 5.0
    # An incomplete file is read up to its end
    whole = path.read_bytes()
    for end in (len(whole) - 1, len(whole) - 20, 30, 5, 0):
        path.write_bytes(whole[:end])
        assert len(dict.fromkeys(step for _, step, _ in curves.read_scalars(path))) <= len(values)
    path.write_bytes(whole[:-1])
    assert len(list(curves.read_scalars(path))) == len(values)


def test_pictures_in_event_file_are_not_read(tmp_path):
    path = write_event_file(tmp_path, {"val/elbo": {1: 2.0}})
    scalar = path.read_bytes()
    large = 64_000_000
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<Q", large) + bytes(4))
        file.seek(large + 4, os.SEEK_CUR)  # a hole, which takes no room on the disk
        file.write(scalar)
    tracemalloc.start()
    records = list(curves.read_small_records(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(records) == 2 * len(set(records)) > 0
    assert peak < 1_000_000


def test_read_curves_of_resumed_run_prefers_later_files(tmp_path):
    write_event_file(tmp_path, {"val/elbo": {10: 1.0, 20: 2.0, 30: 3.0}}, second=100)
    write_event_file(tmp_path, {"val/elbo": {30: 33.0, 40: 4.0}}, second=1000, number=10)
    write_event_file(tmp_path, {"val/elbo": {40: -4.0}}, second=1000, number=9)
    write_event_file(tmp_path, {"val/elbo": {5: 0.5, 10: 0.0}}, second=99)
    assert curves.read_curves(tmp_path)["val/elbo"].to_dict() == {
        5: 0.5,
        10: 1,
        20: 2,
        30: 33,
        40: 4,
    }


def test_read_curves_omits_points_that_a_resumed_run_voids(tmp_path):
    write_event_file(tmp_path, {"val/elbo": {10: 1.0, 20: 2.0}, "train/loss": {15: 3.0}}, -(10**8))
    with SummaryWriter(tmp_path, purge_step=15) as board:  # torch's own mark, and a later file
        board.add_scalar("val/elbo", 4.0, 25)
    assert {n: c.to_dict() for n, c in curves.read_curves(tmp_path).items()} == {
        "val/elbo": {10: 1.0, 25: 4.0}
    }


def test_read_curves_of_csv_logger(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss,val/elbo,test/elbo\n0,9,5.0,,\n0,9,,-3.0,\n1,19,,-2.0,\n1,20,,,1.0\n"
    )
    found = curves.read_curves(tmp_path)
    assert found["val/elbo"].to_dict() == {9: -3.0, 19: -2.0}
    assert found["train/loss"].to_dict() == {9: 5.0}
    assert found.keys() == {"val/elbo", "train/loss"}


def test_mean_curve_and_thinned():
    a, b = pd.Series({1: 1.0, 2: 4.0, 3: 9.0}), pd.Series({1: 3.0, 2: math.inf})
    table = curves.mean_curve([a, b])
    assert table["mean"].tolist() == [2.0, 4.0, 9.0]
    assert table["sd"][1] == pytest.approx(math.sqrt(2))
    assert table["sd"][[2, 3]].isna().all()
    long = curves.thinned(curves.mean_curve([pd.Series(range(1000))]), 100)
    assert len(long) == 100
    assert (long.index[0], long.index[-1]) == (0, 999)
