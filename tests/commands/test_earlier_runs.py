"""Tests that a run folder and an export of version 0.1.0 still work, against their stored results.

Their `_target_` names are those of modules that have been moved since.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from support.commands import run_command

import vaelab
from vaelab.commands import train
from vaelab.runs import finished
from vaelab.runs.targets import IMPLIED, RENAMED, update_config
from vaelab.training.json_files import read_json

OLD_FILES = Path(__file__).parent / "earlier" / "before_floors"


@pytest.fixture
def run_copy(tmp_path):
    """A copy of the run folder, which a test may change."""
    return Path(shutil.copytree(OLD_FILES / "run", tmp_path / "run"))


def test_every_new_target_name_can_be_imported():
    from hydra.utils import get_object

    assert all(callable(get_object(name)) for name in [*RENAMED.values(), *IMPLIED])


def test_update_config_replaces_only_old_target_names():
    node = {"a": [{"_target_": "vaelab.optimizers.Adam", "lr": 0.1}], "_target_": "mine.VAE"}
    renamed = {"a": [{"_target_": "torch.optim.Adam", "lr": 0.1}], "_target_": "mine.VAE"}
    assert update_config(node) == renamed


def test_run_without_settings_of_today_is_what_it_was(tmp_path, capsys):
    """A ladder had other scales before `prior_scale`, and other features before `feature_limit`."""
    run = tmp_path / "run"
    given = ["model=ladder_vae", "network=mlp", "logger=none", f"hydra.run.dir={run}"]
    given += [
        "trainer.max_epochs=1",
        "data.batch_size=500",
        "model.encoder.hidden=[3]",
        "model.decoder.hidden=[3]",
    ]
    before = ["model.prior_scale=exp", "model.feature_limit=null"]
    run_command(train, *given, *before)
    config = run / ".hydra" / "config.yaml"
    text = config.read_text().replace("  prior_scale: exp\n", "")
    config.write_text(text.replace("  feature_limit: null\n", ""))
    assert not {"prior_scale", "feature_limit"} & {*re.findall(r"\w+", config.read_text())}
    model = vaelab.load(run)
    assert [level.scale for level in model.down] == ["exp", "exp"]
    assert [level.limit for level in model.evidence] == [None, None]
    with pytest.raises(SystemExit):
        run_command(train, *given)
    said = capsys.readouterr().err
    cure = "model.feature_limit=null model.prior_scale=exp goes on with it"
    assert f"holds a run with model.feature_limit=nothing, not 10; {cure}" in said
    with pytest.raises(SystemExit):
        run_command(train, *given, "ckpt=last", "trainer.max_epochs=2")
    said = capsys.readouterr().err
    assert "last.ckpt is of model." in said
    assert f"; {cure}" in said
    run_command(train, *given, *before)
    assert "run is finished, with val/elbo" in capsys.readouterr().out


def test_old_run_and_export_load_same_weights(run_copy):
    of_run, exported = vaelab.load(run_copy), vaelab.load(OLD_FILES / "export")
    assert of_run.step == exported.step == 16
    for name, weight in of_run.state_dict().items():
        assert torch.equal(weight, exported.state_dict()[name])


def test_old_run_reproduces_stored_distortion(run_copy):
    model, data = finished.load_run(run_copy)
    data.setup("test")
    torch.manual_seed(0)
    with torch.no_grad():
        terms = [model.terms(x, y) for x, y in data.test]
    distortion = torch.cat([t.distortion for t in terms]).mean()
    found = read_json(run_copy / "evaluation.json")["distortion"]
    assert float(distortion) == pytest.approx(found["value"], abs=0.2)


@pytest.mark.slow
def test_old_run_resumes_with_its_own_overrides(run_copy, monkeypatch, capsys):
    overrides = (
        (run_copy / ".hydra" / "overrides.yaml").read_text().replace("- ", "").split("\n")[:-1]
    )
    longer = [*overrides, "trainer.max_epochs=3", "ckpt=last", f"hydra.run.dir={run_copy}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *longer, "logger=none"])
    train.main()
    assert read_json(run_copy / "results.json")["steps"] == 24
