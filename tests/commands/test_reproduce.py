"""Tests of `reproduce`: a protocol from its runs to the table of published figures."""

import json
import re

import pytest
import yaml
from support.commands import run_command

from vaelab.commands import config_folders, report, reproduce

TRIAL = {
    "paper": "Somebody 2020",
    "about": "A trial.",
    "settings": [
        *("data=mnist_5k", "trainer.max_epochs=2", "+trainer.limit_train_batches=2"),
        *("+trainer.limit_test_batches=1", "logger=csv"),
        *("evaluate=[likelihood]", "metrics.likelihood.num_samples=3", "model.encoder.hidden=[8]"),
    ],
    "runs": {"vae": ["model=vae"], "iwae": ["model=iwae", "model.num_samples=2"]},
    "seeds": [1, 2],
    "figures": [
        {"of": "vae", "metric": "nll", "published": 9999, "source": "p. 1", "tolerance": 1},
        {
            "of": "vae",
            "metric": "nll",
            "minus": "iwae",
            "published": 0.0,
            "tolerance": 9999,
            "source": "p. 2",
            "better": "equal",
            "short": 9999,
        },
    ],
    "short": {"settings": ["trainer.max_epochs=1"]},
}


@pytest.fixture
def protocols(tmp_path, monkeypatch):
    """The folder of a protocol `trial`; the working folder is a new one."""
    folder = tmp_path / "conf" / "reproduce"
    folder.mkdir(parents=True)
    (folder / "trial.yaml").write_text(yaml.safe_dump(TRIAL))
    monkeypatch.setattr(reproduce, "PROTOCOLS", folder)
    monkeypatch.setattr(report, "PROTOCOLS", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
def test_protocol_is_trained_measured_kept_and_compared(protocols, tmp_path, capfd):
    run_command(reproduce, "trial", "--short")
    said = capfd.readouterr().out
    assert "Somebody 2020\nA trial." in said
    assert "vae: nll - nll of iwae" in said
    kept = tmp_path / "results" / "reproductions" / "trial" / "vae_short"
    record = json.loads((kept / "record.json").read_text())
    assert record["seeds"].keys() == {"1"}
    assert record["seeds"]["1"]["epochs"] == 1
    assert {"nll", "val/elbo", "test/rate"} <= record["seeds"]["1"]["metrics"].keys()
    assert {"curves.csv", "samples.png", "reconstructions.png"} <= {p.name for p in kept.iterdir()}
    assert sum(path.stat().st_size for path in kept.iterdir()) < 1e6

    run_command(reproduce, "trial/vae", "seed=1")  # the whole form of one run, with two seeds
    said = capfd.readouterr().out
    assert "vae: nll - nll of iwae" not in said
    record = json.loads((kept.parent / "vae" / "record.json").read_text())
    assert record["seeds"].keys() == {"1", "2"}
    assert record["command"] == "vaelab reproduce trial/vae seed=1"

    run_command(report, "reproductions")
    table = (tmp_path / "results" / "reproductions" / "README.md").read_text()
    assert table.count("| trial | vae: nll | 9999 (≤ 10000) |") == 1
    assert table.count("| trial, short | vae: nll - nll of iwae | 0 (gate ±9999) |") == 1


@pytest.mark.slow
def test_finished_runs_are_not_made_again_and_a_missed_figure_exits_with_1(protocols, capfd):
    missed = TRIAL | {"figures": [TRIAL["figures"][0] | {"published": 1, "short": 1}]}
    (protocols / "trial.yaml").write_text(yaml.safe_dump(missed))
    for times in range(2):
        with pytest.raises(SystemExit) as end:
            run_command(reproduce, "trial/vae", "--short")
        assert end.value.code == 1
        assert ("epoch 1/1" in capfd.readouterr().out) == (times == 0)


@pytest.mark.slow
def test_failed_run_ends_the_reproduction_with_its_code(protocols, tmp_path, capfd):
    with pytest.raises(SystemExit) as end:
        run_command(reproduce, "trial/vae", "--short", "model.latent_dim=0")
    assert end.value.code == 2
    assert "model.latent_dim" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["a/b"], ["name=a/b"]),
        (["a", "--short", "trainer=gpu"], ["name=a", "short=true", "settings=['trainer=gpu']"]),
        (["name=a", "to=x", "--cfg"], ["name=a", "to=x", "--cfg"]),
        (["a", "--cfg", "job", "--short"], ["name=a", "--cfg", "job", "short=true"]),
        (["a", "x=[1,2]", "y='q'"], ["name=a", r"settings=['x=[1,2]','y=\'q\'']"]),
    ],
)
def test_words_are_settings(words, settings):
    assert reproduce.named_words(words) == settings


def test_without_a_name_the_protocols_are_listed(protocols, capfd):
    run_command(reproduce)
    said = capfd.readouterr().out
    assert re.search(r"trial +│ Somebody 2020 +│ iwae, vae +│ 0 of 2 +│ 0 of 1 ", said)
    assert "vaelab reproduce PROTOCOL" in said


def test_runs_text_says_how_to_make_fewer():
    several = reproduce.runs_text("a", ["x", "y"], False)
    assert several == "2 runs: x, y; a/x makes one, and --short the short form"
    assert reproduce.runs_text("a", ["x"], True) == "run x"


def test_protocols_are_those_of_the_configuration():
    assert config_folders.CONF / "reproduce" == reproduce.PROTOCOLS
