"""A run folder and an export of version 0.1.0, before modules were moved to their floors."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

import vaelab
from vaelab.commands import train
from vaelab.runs import finished
from vaelab.runs.targets import RENAMED, rename_targets
from vaelab.training.json_files import read_json

EARLIER = Path(__file__).parent / "earlier" / "before_floors"


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(EARLIER / "run", tmp_path / "run"))


def test_every_new_name_is_there():
    from hydra.utils import get_object

    assert all(callable(get_object(name)) for name in RENAMED.values())


def test_rename_targets_keeps_everything_else():
    node = {"a": [{"_target_": "vaelab.optimizers.Adam", "lr": 0.1}], "_target_": "mine.VAE"}
    renamed = {"a": [{"_target_": "torch.optim.Adam", "lr": 0.1}], "_target_": "mine.VAE"}
    assert rename_targets(node) == renamed


def test_a_run_folder_and_an_export_load_to_the_same_model(run):
    of_run, exported = vaelab.load(run), vaelab.load(EARLIER / "export")
    assert of_run.step == exported.step == 16
    for name, weight in of_run.state_dict().items():
        assert torch.equal(weight, exported.state_dict()[name])


def test_a_run_folder_is_measured_to_the_figures_it_had(run):
    model, data = finished.load_run(run)
    data.setup("test")
    torch.manual_seed(0)
    with torch.no_grad():
        terms = [model.terms(x, y) for x, y in data.test]
    distortion = torch.cat([t.distortion for t in terms]).mean()
    found = read_json(run / "evaluation.json")["distortion"]
    assert float(distortion) == pytest.approx(found["value"], abs=0.2)


@pytest.mark.slow
def test_its_command_continues_a_run(run, monkeypatch, capsys):
    overrides = (run / ".hydra" / "overrides.yaml").read_text().replace("- ", "").split("\n")[:-1]
    longer = [*overrides, "trainer.max_epochs=3", "ckpt=last", f"hydra.run.dir={run}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *longer, "logger=none"])
    train.main()
    assert read_json(run / "results.json")["steps"] == 24
