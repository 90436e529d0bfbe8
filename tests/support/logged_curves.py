"""Reading of what loggers wrote of a run, by each kind of reader, to compare two run folders."""

import csv

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as ServedEvents,
)

from vaelab.report.curves import read_curves

MEASURED = "train/images_per_second"
"""The only curve whose values differ from run to run."""


def read_rows(folder):
    """Returns the rows of metrics.csv as dicts, without the speed's values; [] without a file."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != MEASURED} for row in csv.DictReader(file)]


def read_events(folder):
    """Returns the points (step, value) of each tag in TensorBoard's files; {} without files.

    The speed's values are left out, and NaN is a text. Asserts that the old reader and that of
    TensorBoard's server agree. Of histograms and images there is (step,).
    """
    sizes = {"scalars": 0, "images": 0, "histograms": 0}
    board = EventAccumulator(str(folder), size_guidance=sizes).Reload()
    served = ServedEvents(str(folder), tensor_size_guidance=sizes).Reload()
    found = {}
    for tag in board.Tags()["scalars"]:
        found[tag] = [
            (e.step, *([repr(e.value)] if tag != MEASURED else [])) for e in board.Scalars(tag)
        ]
        assert [e.step for e in served.Tensors(tag)] == [e.step for e in board.Scalars(tag)], tag
    for tag in board.Tags()["images"]:
        found[tag] = [(e.step,) for e in board.Images(tag)]
    for tag in board.Tags()["histograms"]:
        found[tag] = [(e.step,) for e in board.Histograms(tag)]
    return {tag: points for tag, points in found.items() if points}


def assert_same_curves(found, expected):
    """Asserts that two run folders have the same points in the same order, for every reader."""
    events, wanted = read_events(found), read_events(expected)
    assert events.keys() == wanted.keys()
    for tag in events:
        assert events[tag] == wanted[tag], tag
    assert read_rows(found) == read_rows(expected)
    curves, wanted = read_curves(found), read_curves(expected)
    assert curves.keys() == wanted.keys()
    for tag in curves:
        assert curves[tag].index.tolist() == wanted[tag].index.tolist(), tag
        assert tag == MEASURED or curves[tag].tolist() == wanted[tag].tolist(), tag
    assert curves
