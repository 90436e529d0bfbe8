"""Tests of `reproduce`: a protocol from its runs to the table of published figures."""

import json
import re
import shlex
import signal
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from support.commands import run_command

from vaelab.commands import config_folders, report, reproduce
from vaelab.commands.arguments import parse_override

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

    run_command(reproduce, "trial/vae")  # the whole form of one run, with two seeds
    said = capfd.readouterr().out
    assert "vae: nll - nll of iwae" not in said
    record = json.loads((kept.parent / "vae" / "record.json").read_text())
    assert record["seeds"].keys() == {"1", "2"}
    assert record["command"] == "vaelab reproduce trial/vae"

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
        said = capfd.readouterr().out
        assert ("epoch 1/1" in said) == (times == 0)
        assert "go on" not in said  # with more epochs it would not be this protocol


@pytest.mark.slow
def test_failed_run_ends_the_reproduction_with_its_code(protocols, tmp_path, capfd):
    with pytest.raises(SystemExit) as end:
        run_command(reproduce, "trial/vae", "--short", "model.latent_dim=0")
    assert end.value.code == 2
    assert "model.latent_dim" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_stopped_run_goes_on_by_the_same_reproduce(protocols, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    stop = f"+callbacks.stop={{_target_:support.faults.Stop,number:{signal.SIGTERM:d},step:1}}"
    with pytest.raises(SystemExit) as end:
        run_command(reproduce, "trial/vae", "--short", stop)
    assert end.value.code == 143
    last = capfd.readouterr().out.strip().splitlines()[-1]
    words = shlex.split(last.removeprefix("stopped; go on with  "))
    assert words[-3:] == ["trial/vae", "--short", stop]
    assert any("reproduce" in word for word in words[:-3])


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["a/b"], ["name=a/b"]),
        (["a", "--short", "trainer=gpu"], ["name=a", "short=true", "settings=['trainer=gpu']"]),
        (["name=a", "to=x", "--cfg"], ["name=a", "to=x", "--cfg"]),
        (["a", "--cfg", "job", "--short"], ["name=a", "--cfg", "job", "short=true"]),
        (["a", "x=[1,2]", "y='q'"], ["name=a", r"settings=['x=[1,2]','y=\'q\'']"]),
        (["a", "to=out,2", "kept=it's [a]"], ["name=a", "to='out,2'", r"kept='it\'s [a]'"]),
        (["a", "to='out,2'", "kept=${to}/ö"], ["name=a", "to='out,2'", "kept='${to}/ö'"]),
        (["a", "to=3", "kept="], ["name=a", "to='3'", "kept="]),
        (["a/b", "--short", "c"], ["name='a/b c'", "short=true"]),
    ],
)
def test_words_are_settings(words, settings):
    assert reproduce.named_words(words) == settings


def test_without_a_name_the_protocols_are_listed(protocols, capfd):
    run_command(reproduce)
    said = capfd.readouterr().out
    assert re.search(r"trial +│ Somebody 2020 +│ iwae, vae +│ 0 of 2 +│ 0 of 1 ", said)
    assert "vaelab reproduce PROTOCOL" in said


def test_several_values_are_refused_before_the_training(protocols, capfd):
    with pytest.raises(SystemExit):
        run_command(reproduce, "trial/vae", "--short", "model.optimizer.lr=1,2")
    said = capfd.readouterr().err
    assert "model.optimizer.lr=1,2: several values are several commands, one each" in said


def test_several_names_are_refused(protocols, capfd):
    with pytest.raises(SystemExit):
        run_command(reproduce, "trial/vae", "--short", "trial/iwae")
    assert "trial/vae, trial/iwae: several names; give one to each" in capfd.readouterr().err


def test_report_of_reproductions_writes_where_it_is_told(protocols, tmp_path, capfd):
    record = {"command": "c", "seeds": {"1": {"metrics": {"nll": {"value": 9.0}}, "seconds": 1}}}
    folder = tmp_path / "kept" / "trial" / "vae"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))
    run_command(report, f"sweep={tmp_path}/kept", f"to={tmp_path}/elsewhere")
    assert not (tmp_path / "kept" / "README.md").exists()
    run_command(report, f"sweep={tmp_path}/kept")
    tables = [(tmp_path / name / "README.md").read_text() for name in ("kept", "elsewhere")]
    assert tables[0] == tables[1]
    assert "vae: nll" in tables[0]


def test_runs_text_says_how_to_make_fewer():
    several = reproduce.runs_text("a", ["x", "y"], False)
    assert several == "2 runs: x, y; a/x makes one, and --short the short form"
    assert reproduce.runs_text("a", ["x"], True) == "run x"


def test_protocols_are_those_of_the_configuration():
    assert config_folders.CONF / "reproduce" == reproduce.PROTOCOLS


@pytest.fixture
def trained(protocols, monkeypatch):
    """Writes results in place of training, and returns the list of (overrides, folder) of runs."""
    made = []

    def train(overrides, folder):
        made.append((overrides, folder))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"seconds": 1.0, "test/elbo": -80.0}))

    figures = [
        {"of": "vae", "metric": "test/elbo", "published": -90, "source": "p. 1", "tolerance": 1},
        {"of": "iwae", "minus": "vae", "metric": "test/elbo", "published": 0, "source": "p. 2"},
    ]
    figures = [figure | {"better": "higher", "tolerance": 0} for figure in figures]
    (protocols / "trial.yaml").write_text(yaml.safe_dump(TRIAL | {"figures": figures}))
    monkeypatch.setattr(reproduce, "train", train)
    return made


def read_kept(folder, name):
    """Returns the record of a run of `trial`."""
    return json.loads((folder / "trial" / name / "record.json").read_text())


def test_seed_takes_the_place_of_the_protocols_seeds(trained, tmp_path, capfd):
    run_command(reproduce, "trial/vae", "seed=5", "kept=other")
    ((overrides, folder),) = trained
    assert folder.name == "vae_seed-5"
    assert [word for word in overrides if word.startswith("seed=")] == ["seed=5"]
    assert read_kept(tmp_path / "other", "vae")["seeds"].keys() == {"5"}
    with pytest.raises(SystemExit) as end:
        run_command(reproduce, "trial/vae", "seed=1,2", "kept=other")
    assert end.value.code == 2
    assert "error: seed=1,2: is one whole number" in capfd.readouterr().err


def test_folder_of_configurations_is_that_of_the_trainings(trained, tmp_path):
    (tmp_path / "mine").mkdir()
    run_command(reproduce, "trial/vae", "seed=5", "--config-dir", "mine", "kept=other")
    assert trained[0][0][:2] == ["--config-dir", str(tmp_path / "mine")]
    command = read_kept(tmp_path / "other", "vae")["command"]
    assert command == f"vaelab reproduce trial/vae --config-dir {tmp_path}/mine seed=5"


def test_further_settings_do_not_replace_the_protocols_record(trained, tmp_path, capfd):
    run_command(reproduce, "trial/vae")
    record = read_kept(tmp_path / "results" / "reproductions", "vae")
    made = len(trained)
    with pytest.raises(SystemExit) as end:
        run_command(reproduce, "trial", "trainer.max_epochs=1")
    assert end.value.code == 2
    said = capfd.readouterr().err
    assert said.startswith("error: results/reproductions/trial/vae: is the record of the protocol")
    assert said.count("\n") == 1
    assert len(trained) == made
    run_command(reproduce, "trial/vae", "trainer.max_epochs=1", "to=new", "kept=new")
    assert "further" in capfd.readouterr().out
    run_command(reproduce, "trial/vae", "trainer.accelerator=cpu")
    assert read_kept(tmp_path / "new", "vae")["further"] == ["trainer.max_epochs=1"]
    again = read_kept(tmp_path / "results" / "reproductions", "vae")
    assert again["further"] == ["trainer.accelerator=cpu"]
    assert again["seeds"] == record["seeds"]


def test_run_with_nothing_to_compare_says_so(trained, capfd):
    run_command(reproduce, "trial/iwae")
    said = capfd.readouterr().out
    assert "nothing to compare yet: each figure of iwae needs another run, of trial/vae" in said
    assert "published" not in said


def test_damaged_record_is_told_beside_the_table(trained, tmp_path, capfd):
    run_command(reproduce, "trial")
    kept = tmp_path / "results" / "reproductions" / "trial"
    (kept / "iwae" / "record.json").write_text("{}")
    for command, words in [(report, ["reproductions"]), (reproduce, ["trial/vae"])]:
        capfd.readouterr()
        run_command(command, *words)
        said = capfd.readouterr()
        assert "vae: test/elbo" in said.out
        assert said.err.count("\n") == 1
        assert "`vaelab reproduce trial/iwae` writes it anew" in said.err


def test_run_folder_may_have_any_letters(tmp_path, monkeypatch):
    class Child:
        def __init__(self, argv, **_):
            made.append(argv[-1])

        def wait(self):
            return 0

    made = []
    monkeypatch.setattr(reproduce.subprocess, "Popen", Child)
    folders = ["plain/vae_seed-1", "out,2", "it's", "ä b", "[a]", "a=b", "${x}", 'b"c']
    for folder in folders:
        reproduce.train([], Path(folder))
    parsed = [parse_override(word) for word in made]
    assert not any(each.is_sweep_override() for each in parsed)
    assert made[0] == "hydra.run.dir=plain/vae_seed-1"
    values = [OmegaConf.create({"x": 1, "dir": each.value()}).dir for each in parsed]
    assert values == folders
