"""Tests of `vaelab.evaluation.record`, the estimates of a run in its folder."""

import math

from vaelab.evaluation.record import Record, evaluation_table
from vaelab.training.json_files import read_json


def test_record_keeps_what_another_process_adds(tmp_path):
    (tmp_path / ".hydra").mkdir()
    records = [Record(tmp_path, 3), Record(tmp_path, 3)]
    for record, name in zip(records, ("nll", "mse"), strict=True):
        record.add(name, {"seed": 0}, {name: {"value": 1.0, "se": None}}, "evaluate.py")
    found = read_json(tmp_path / "evaluation.json")
    assert {"nll", "mse"} <= found.keys()
    assert found["settings"] == {"nll": {"seed": 0}, "mse": {"seed": 0}}
    assert records[1].has("nll", {"seed": 0})
    other = Record(tmp_path, 4)
    other.add("mse", {}, {"mse": {"value": 2.0, "se": None}}, "evaluate.py")
    assert "nll" not in read_json(tmp_path / "evaluation.json")


def test_estimate_that_is_not_finite_has_a_reason(tmp_path):
    (tmp_path / ".hydra").mkdir()
    record = Record(tmp_path, 3)
    found = {"nll": {"value": -math.inf, "se": math.nan}, "mse": {"value": 1.0, "se": math.nan}}
    record.add("likelihood", {}, found | {"cells": {"value": [math.nan, 1.0]}}, "evaluate.py")
    read = Record(tmp_path, 3)
    assert read.reasons() == record.reasons() == {"it is -inf": ["nll"]}
    assert read.content["mse"] == {"value": 1.0, "se": None}
    assert read.content["cells"] == {"value": [None, 1.0]}


def test_table_of_many_runs_has_what_was_measured(tmp_path):
    measured = {}
    for i in range(7):
        (tmp_path / str(i) / ".hydra").mkdir(parents=True)
        measured[tmp_path / str(i)] = Record(tmp_path / str(i), 3)
        measured[tmp_path / str(i)].add("x", {}, {"mse": {"value": 1.0, "se": None}}, "evaluate.py")
    assert [str(column.header) for column in evaluation_table(measured).columns] == ["run", "mse"]
