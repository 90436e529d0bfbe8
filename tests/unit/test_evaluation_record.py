"""Tests of `vaelab.evaluation.record`, the estimates of a run in its folder."""

from vaelab.evaluation.record import Record
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
