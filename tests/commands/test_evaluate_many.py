"""Tests of `evaluate.py` with a folder of runs: same numbers as alone, shared data, failures."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from support import programs
from support.commands import run_command

from vaelab import evaluation
from vaelab.commands import encode, evaluate, generate, train
from vaelab.data import Arrays, Images
from vaelab.evaluation import classifier
from vaelab.runs import finished
from vaelab.runs.shared_data import SharedData

ROOT = Path(__file__).parents[2]
TINY = [
    *("data=arrays", "data.val_size=20", "data.test_size=40", "data.batch_size=20"),
    *("network=mlp", "model.encoder.hidden=[16]", "model.decoder.hidden=[16]"),
    *("model.latent_dim=2", "trainer.max_epochs=1", "logger=none"),
]
RUNS = {
    "a": ("one", ["model=beta_vae", "model.beta=1"]),
    "b": ("two", ["model=beta_vae", "model.beta=1"]),
    "c": ("one", ["model=beta_vae", "model.beta=4", "seed=1", "data.batch_size=10"]),
    "d": ("one", ["model=cvae"]),
}
"""Name of the file of the data, and the settings, of each run."""
FEW = [
    *("num_samples=3", "metrics.samples.count=40", "metrics.samples.looked_up=20"),
    *("metrics.conditional.images=20", "metrics.conditional.per_class=5"),
    *("metrics.conditional.num_samples=2", "what=[likelihood,latents,samples]"),
]


@pytest.fixture(autouse=True)
def few_training_steps(monkeypatch):
    """Limits the training of classifiers to 10 steps."""
    monkeypatch.setattr(classifier, "STEPS", 10)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the finished `RUNS` in `sweep`, and their data."""
    folder = tmp_path_factory.mktemp("many")
    for number, name in enumerate(("one", "two")):
        rng = np.random.default_rng(number)
        images = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", train_images=images, train_labels=np.arange(120) % 2)
    for name, (data, settings) in RUNS.items():
        run_command(
            train,
            *TINY,
            *settings,
            f"data.source.path={folder}/{data}.npz",
            f"hydra.run.dir={folder}/sweep/{name}",
            f"paths.data={folder}/data",
        )
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of the folder of runs, and `data` beside it, without evaluations."""
    shutil.copytree(trained / "sweep", tmp_path / "sweep")
    return tmp_path / "sweep"


def evaluate_runs(folder: Path, names: str, *settings: str) -> dict[str, dict]:
    """Evaluates runs by one command; returns each evaluation.json by name, without the command."""
    runs = ",".join(f"{folder}/{name}" for name in names)
    run_command(evaluate, f"run={runs}", f"paths.data={folder.parent}/data", *FEW, *settings)
    return {name: read_evaluation(folder / name) for name in names}


def read_evaluation(run: Path) -> dict:
    """Returns a run's evaluation.json without the command that made it."""
    return json.loads((run / "evaluation.json").read_text()) | {"command": None}


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        ("ac", ["sampler=gmm", "sampler.components=1"]),
        ("ca", ["sampler=gmm", "sampler.components=1"]),
        pytest.param(
            *("dac", ["what=[conditional,samples,likelihood,reconstruction,latents]"]),
            marks=pytest.mark.slow,
        ),
        pytest.param("bdca", ["what=[samples,latents]"], marks=pytest.mark.slow),
    ],
)
def test_runs_measured_together_have_the_numbers_of_each_alone(folder, names, settings):
    if "what" in settings[0] and "d" in names:
        settings = [*settings, "metrics.latents.images=all"]
    together = evaluate_runs(folder, names, *settings)
    for name in names:
        (folder / name / "evaluation.json").unlink()
        assert evaluate_runs(folder, name, *settings)[name] == together[name]


@pytest.mark.slow
def test_runs_measured_together_have_the_numbers_of_processes_of_their_own(folder):
    """Three commands, each in a process: both runs, and each alone."""

    def measure(*names: str) -> dict[str, dict]:
        runs = ",".join(f"{folder}/{name}" for name in names)
        where = f"paths.data={folder.parent}/data"
        command = [sys.executable, "evaluate.py", f"run={runs}", where, *FEW, "rerun=true"]
        programs.run(command, cwd=ROOT, check=True, timeout=200)
        return {name: read_evaluation(folder / name) for name in names}

    together = measure("c", "a")
    assert measure("a") | measure("c") == together


def test_data_and_classifier_are_read_once_for_runs_with_the_same_data(folder, monkeypatch, capsys):
    read, loaded = [], []
    call, load = Arrays.__call__, classifier.load_classifier
    monkeypatch.setattr(Arrays, "__call__", lambda self: read.append(self.path.stem) or call(self))
    monkeypatch.setattr(
        classifier, "load_classifier", lambda *given: loaded.append(1) or load(*given)
    )
    where = f"paths.data={folder.parent}/data"
    run_command(evaluate, f"run={folder}", where, *FEW)
    assert read == ["one", "two"]
    assert len(loaded) == 4  # before and in the lock, of two data sets
    lines = [line for line in capsys.readouterr().out.splitlines() if line[1:3] == "/4"]
    assert [line.split()[1] for line in lines] == ["a", "c", "d", "b"]
    assert "beta=4" in lines[1]
    assert "nll=" in lines[1]
    run_command(evaluate, f"run={folder}", where, *FEW)
    assert read == ["one", "two"]  # nothing was to be measured


def test_pictures_of_runs_with_the_same_data_read_it_once(folder, monkeypatch):
    read = []
    call = Arrays.__call__
    monkeypatch.setattr(Arrays, "__call__", lambda self: read.append(self.path.stem) or call(self))
    run_command(generate, f"run={folder}/a,{folder}/c", "what=reconstructions", "count=4")
    assert read == ["one"]


def test_table_of_runs_of_different_data_says_which_compare(folder, capsys):
    evaluate_runs(folder, "ab", "what=likelihood")
    said = capsys.readouterr().out
    assert "nats compare only within each of: one.npz (1 run); two.npz (1 run)" in said
    evaluate_runs(folder, "ac", "what=likelihood")
    assert "compare only" not in capsys.readouterr().out


def test_runs_that_fail_are_told_in_a_line_and_others_are_measured(folder, monkeypatch, capsys):
    (folder / "a" / "checkpoints" / "best.ckpt").write_bytes(b"PK")
    (folder / "c" / "results.json").unlink()
    shutil.rmtree(folder / "b" / "checkpoints")
    settings = [f"paths.data={folder.parent}/data", *FEW, "what=likelihood"]
    with pytest.raises(SystemExit) as exit_:
        run_command(evaluate, f"run={folder}", *settings)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    for name, reason in (("a", "truncated"), ("b", "no checkpoint yet"), ("c", "epoch 1 of 1")):
        (line,) = [line for line in out.splitlines() if f"/4  {name} " in line]
        assert "failed: " in line
        assert reason in line
        assert f"{folder}/{name}: " in err
        assert not (folder / name / "evaluation.json").exists()
    assert "nll" in read_evaluation(folder / "d")
    assert "nll" in evaluate_runs(folder, "c", "what=likelihood")["c"]  # named itself


def test_program_fault_in_a_run_is_raised_after_others_are_measured(folder, monkeypatch):
    measure = evaluation.latents

    def fail_once(subject, **settings):
        monkeypatch.setattr(evaluation, "latents", measure)
        raise AssertionError("a fault")

    monkeypatch.setattr(evaluation, "latents", fail_once)
    with pytest.raises(AssertionError, match="a fault"):
        evaluate_runs(folder, "ac", "what=latents")
    assert not (folder / "a" / "evaluation.json").exists()
    assert "active_units" in read_evaluation(folder / "c")


@pytest.mark.parametrize(
    ("command", "settings", "written"),
    [(encode, [], "encoded.npz"), (generate, ["what=samples", "count=4"], "generated/samples.png")],
    ids=["encode", "generate"],
)
def test_program_fault_in_a_run_leaves_the_files_of_the_others(
    folder, monkeypatch, command, settings, written
):
    load = finished.load_run

    def fail_once(*args, **kwargs):
        monkeypatch.setattr(finished, "load_run", load)
        raise AssertionError("a fault")

    monkeypatch.setattr(finished, "load_run", fail_once)
    with pytest.raises(AssertionError, match="a fault") as raised:
        run_command(command, f"run={folder}/a,{folder}/c", *settings)
    assert raised.value.__notes__ == [f"{folder}/a: AssertionError: a fault"]
    assert not (folder / "a" / written).exists()
    assert (folder / "c" / written).exists()


def test_pictures_are_compared_of_runs_that_did_not_fail(folder, tmp_path, capsys):
    (folder / "b" / "checkpoints" / "best.ckpt").write_bytes(b"PK")
    runs, to = ",".join(f"{folder}/{name}" for name in "abc"), tmp_path / "beside"
    with pytest.raises(SystemExit):
        run_command(generate, f"run={runs}", "what=samples", "count=4", f"to={to}")
    assert [path.name for path in to.iterdir()] == ["samples.png"]
    assert f"error: {folder}/b: " in capsys.readouterr().err


def test_folder_without_runs_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as exit_:
        run_command(evaluate, f"run={tmp_path}/empty")
    assert exit_.value.code == 2
    assert "empty is no run folder, and there is none in it" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_keeps_runs_that_are_measured_and_the_same_command_goes_on(folder):
    command = [sys.executable, "-u", "evaluate.py", f"run={folder}", *FEW, "what=likelihood"]
    command += [f"paths.data={folder.parent}/data", "num_samples=20000"]  # some seconds each
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("1/4"))
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "stopped; go on with  python evaluate.py" in rest
    assert "nll=" in line
    before = read_evaluation(folder / "a")
    assert not (folder / "b" / "evaluation.json").exists()
    done = programs.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment, timeout=200
    )
    assert done.returncode == 0
    assert line in done.stdout
    assert read_evaluation(folder / "a") == before
    assert all("nll" in read_evaluation(folder / name) for name in "abcd")


def images_of(number: int) -> Images:
    """Returns unread data of 20 images."""
    images = torch.full((20, 1, 8, 8), number, dtype=torch.uint8)
    images[..., 0, :2] = torch.tensor([0, 255])  # so that they are known to be bytes
    return Images(source=list(images), batch_size=4, val_size=4, test_size=4, pixels="grey")


def test_shared_data_keep_the_images_of_one_data_set_alone():
    shared = SharedData()
    first, second, other = images_of(1), images_of(2), images_of(3)
    shared.connect(first, {"source": "a", "seed": 0, "batch_size": 4})
    images = first.splits.train_images
    assert shared.once("made", lambda: 1) == shared.once("made", lambda: 2) == 1
    shared.connect(second, {"source": "a", "seed": 1, "batch_size": 8})
    assert second.splits.train_images is images
    assert shared.once("made", lambda: 3) == 1
    shared.connect(other, {"source": "b", "seed": 1, "batch_size": 8})
    held = weakref.ref(images)
    del first, second, images
    gc.collect()
    assert held() is None
    assert shared.once("made", lambda: 4) == 4
    assert other.splits.train_images.unique().tolist() == [0, 3, 255]


@pytest.mark.parametrize("name", ["split_seed", "val_size", "test_size", "pixels", "columns"])
def test_data_with_other_settings_are_not_shared(name):
    shared, first, second = SharedData(), images_of(1), images_of(2)
    shared.connect(first, {"source": "a", name: 1})
    first.splits  # noqa: B018  (read on first use)
    shared.connect(second, {"source": "a", name: 2})
    assert second.splits is not first.splits


def test_own_class_of_data_is_shared_only_with_all_settings_the_same():
    class Mine(Images):
        """A data module whose images may depend on any of its settings."""

    shared, found = SharedData(), []
    for seed in (0, 1, 1):
        data = images_of(seed)
        data.__class__ = Mine
        shared.connect(data, {"source": "a", "seed": seed})
        found.append(data.splits)
    assert found[0] is not found[1]
    assert found[1] is found[2]


def test_load_run_takes_over_images_of_the_run_before(trained):
    shared = SharedData()
    loaded = [finished.load_run(trained / "sweep" / name, shared=shared)[1] for name in "ac"]
    assert loaded[0].splits is not loaded[1].splits  # the first was not read when the second came
    third = finished.load_run(trained / "sweep" / "d", shared=shared)[1]
    assert third.splits is loaded[1].splits
