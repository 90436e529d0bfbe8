"""Tests of the commands with vectors and signals: train, resume, evaluate, generate, export.

The model that is loaded knows the units of the file.
"""

import csv
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import programs
from support.commands import run_command
from torch.testing import assert_close

import vaelab
from vaelab.commands import encode, evaluate, export, generate, train
from vaelab.commands.config_folders import CONF
from vaelab.runs import finished

ROOT = CONF.parent
NAMES = ["income", "age", "score"]
COMMON = ["data.batch_size=20", "model.latent_dim=2", "logger=none", "model.optimizer.lr=0.01"]
DENSE = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "network=mlp"]
CONV = ["model.encoder.channels=[4,6]", "model.decoder.channels=[4,6]"]
CONV += ["model.encoder.features=10", "model.decoder.features=10"]


def get_error(capsys, *overrides):
    """Runs `train`, checks for exit code 2, and returns its error message of one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run_command(train, *overrides)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with table.csv of three columns and a label, signals.npz and bits.npy."""
    to, random = tmp_path_factory.mktemp("numbers"), np.random.default_rng(0)
    values = random.normal(size=(120, 3)) * [12000, 10, 1] + [50000, 40, 0]
    values[:, 2] = values[:, 1] / 10 + 0.1 * values[:, 2]
    with (to / "table.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow([*NAMES, "kind"])
        writer.writerows([*row, ["red", "blue"][i % 2]] for i, row in enumerate(values))
    steps = np.linspace(0, 9, 37)
    signals = np.sin(steps + random.uniform(0, 6, (120, 2, 1))) * [[5], [1]] + [[100], [0]]
    np.savez(to / "signals.npz", train_x=signals, train_labels=np.arange(120) % 2)
    np.save(to / "bits.npy", random.integers(0, 2, (120, 7)))
    return to


def settings(folder, kind):
    """The settings of a training on vectors, signals, binary vectors, or vectors given a number."""
    files = {"signals": "signals.npz", "binary": "bits.npy"}
    given = ["data=signals" if kind == "signals" else "data=vectors", *COMMON]
    given += [f"data.source.path={folder / files.get(kind, 'table.csv')}"]
    given += CONV if kind == "signals" else DENSE
    if kind == "vectors":
        given += ["data.source.label=kind"]
    if kind == "told":
        return [*given, "condition=continuous", "data.columns=[kind,age]"]
    if kind == "binary":
        return [*given, "data.pixels=binary", "likelihood=bernoulli"]
    return [*given, "model=cvae"]


@pytest.fixture(scope="module")
def get_run(folder):
    """(kind) -> folder of its run, trained at the first call."""

    def train_kind(kind):
        to = folder / f"run_{kind}"
        if not to.exists():
            epochs = "trainer.max_epochs=4"
            run_command(train, *settings(folder, kind), epochs, f"hydra.run.dir={to}")
        return to

    return train_kind


KINDS = ["vectors", "signals", "binary"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_commands_take_numbers(get_run, folder, capsys, kind):
    run = get_run(kind)
    what = "likelihood,reconstruction,latents"
    run_command(evaluate, f"run={run}", f"what={what}", "num_samples=20")
    said = capsys.readouterr().out
    found = json.loads((run / "evaluation.json").read_text())
    assert np.isfinite(found["nll"]["value"])
    assert found["psnr"]["value"] is None
    assert "they are of images, and these are" in said

    run_command(generate, f"run={run}", "count=2")
    drawn = {path.name for path in (run / "generated").iterdir()}
    assert {"samples.png", "reconstructions.png", "traversal.png"} <= drawn
    assert ("samples.csv" in drawn) == (kind != "signals")

    run_command(export, f"run={run}")
    card = (run / "export" / "README.md").read_text()
    sizes = {"signals": "signals of 37 steps x 2", "vectors": "vectors of 3 numbers"}
    assert f"# VAE of {sizes.get(kind, 'vectors of 7 numbers')}" in card
    assert ("| income | " in card) == (kind == "vectors")
    model, exported = vaelab.load(run), vaelab.load(run / "export")
    assert model.units == exported.units
    y = torch.eye(2)[:, : model.context_dim]
    torch.manual_seed(0)
    expected = model.sample(y)
    torch.manual_seed(0)
    assert torch.equal(exported.sample(y), expected)
    assert len(expected[0].shape) == (2 if kind == "signals" else 1)


@pytest.mark.slow
def test_generated_table_is_in_the_units_of_the_file(get_run):
    run = get_run("vectors")
    run_command(generate, f"run={run}", "what=samples", "count=500", "seed=1")
    with (run / "generated" / "samples_seed-1.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == [*NAMES, "label"]
    numbers = np.array([[float(cell) for cell in row[:3]] for row in rows])
    assert numbers.shape == (500, 3)
    assert 40_000 < numbers[:, 0].mean() < 60_000
    assert 5_000 < numbers[:, 0].std() < 20_000
    assert {row[3] for row in rows} == {"red", "blue"}


@pytest.mark.slow
def test_commands_take_a_column_of_a_table_to_condition_on(get_run, folder, capsys):
    run = get_run("told")
    with (folder / "table.csv").open() as file:
        ages = torch.tensor([[float(row["age"])] for row in csv.DictReader(file)])
    model, data = finished.load_run(run)
    assert model.units.names == ("income", "score")
    assert (model.classes, model.numbers) == ({"kind": 2}, {"age": 1})
    rows = data.rows["train"]
    assert_close(data.labels("train")[rows][:, 2:], ages[rows])
    assert_close(model.condition.mean[2], ages[rows].mean())  # standardised by the training rows
    assert_close(model.condition.scale[2], ages[rows].std(correction=0))

    run_command(evaluate, f"run={run}", "what=likelihood,conditional", "num_samples=20")
    assert "conditional left out" in capsys.readouterr().out
    given = "given={age:40.5,kind:red}"
    run_command(generate, f"run={run}", "what=samples,class_grid", "count=3", given)
    (table,) = (run / "generated").glob("samples*.csv")
    rows = [*csv.DictReader(table.open())]
    assert [*rows[0]] == ["income", "score", "kind", "age"]
    assert [(row["kind"], row["age"]) for row in rows] == [("red", "40.5")] * 3
    run_command(encode, f"run={run}", "images=test", "num_samples=5", f"to={folder}/codes.csv")
    assert len([*csv.DictReader((folder / "codes.csv").open())]) == data.sizes["test"]
    own = [f"images={folder}/table.csv", "num_samples=0", f"to={folder}/own.csv"]
    run_command(encode, f"run={run}", *own)
    assert "not used" not in capsys.readouterr().out
    with (folder / "table.csv").open() as file:
        table = [*csv.DictReader(file)]
    told = {"age": [[float(row["age"])] for row in table], "kind": [row["kind"] for row in table]}
    x = [[float(row[name]) for name in ("income", "score")] for row in table]
    codes = [float(row["mean_0"]) for row in csv.DictReader((folder / "own.csv").open())]
    assert_close(
        torch.tensor(codes), vaelab.load(run).encode(x, told).mean[:, 0], atol=1e-4, rtol=0
    )

    run_command(export, f"run={run}")
    asked = {"age": 40, "kind": "blue"}
    samples = [vaelab.load(f).sample(16, label=asked, seed=0) for f in (run, run / "export")]
    assert samples[0].shape == (16, 2)
    assert torch.equal(*samples)
    other = vaelab.load(run).sample(16, label=asked | {"age": 60}, seed=0)
    assert not torch.equal(samples[0], other)


@pytest.mark.slow
def test_columns_to_condition_on_may_be_given_as_arrays(folder, tmp_path):
    random = np.random.default_rng(0)
    arrays = {"train_x": random.normal(size=(60, 3)), "train_age": random.uniform(20, 80, 60)}
    parts = {"latent_dim": 2, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}}
    settings = {"condition": "continuous", "epochs": 1, "logger": "none", **parts}
    paths = [f"paths.data={tmp_path}"]
    run = vaelab.fit(arrays, data="vectors", folder=tmp_path / "a", overrides=paths, **settings)
    assert run.model.numbers == {"age": 1}
    assert run.model.sample(4, label={"age": 40}).shape == (4, 3)
    paths.append("data.columns=[age,kind]")
    table = folder / "table.csv"
    run = vaelab.fit(table, folder=tmp_path / "b", overrides=paths, **settings)
    assert run.model.columns_text == "kind (2 classes) and age (1 number)"


@pytest.mark.slow
def test_loaded_model_restores_the_rows_of_the_file(get_run, folder):
    run = get_run("vectors")
    model, data = finished.load_run(run)
    x = torch.cat([x for x, _ in data.batches("test")])
    with (folder / "table.csv").open() as file:
        stored = torch.tensor([[float(c) for c in row[:3]] for row in list(csv.reader(file))[1:]])
    assert_close(model.in_units(x).float(), stored[data.rows["test"]], rtol=1e-5, atol=1e-5)
    assert model.units.names == tuple(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "signals", "told"])
def test_resume_mid_epoch_is_bit_exact(get_run, folder, tmp_path, kind):
    stop = ["_target_=support.faults.Stop", f"number={int(signal.SIGTERM)}", "step=7"]
    given = [*settings(folder, kind), "trainer.max_epochs=4", f"hydra.run.dir={tmp_path}/run"]
    words = [*given, *(f"+callbacks.stop.{setting}" for setting in stop)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    options = {"cwd": ROOT, "env": environment, "timeout": 300}
    assert programs.run([sys.executable, "train.py", *words], **options).returncode == 143
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 8
    run_command(train, *given, "ckpt=last")
    resumed, whole = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (tmp_path / "run", get_run(kind))
    )
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


REFUSED = {
    "data=vectors": "data.source.path has no value",
    "data=vectors likelihood=bernoulli": "which takes data.pixels=binary",
    "data=vectors likelihood=categorical": "numbers take likelihood=gaussian or laplace",
    "data=vectors data.pixels=binary": "is not 0 or 1, as data.pixels=binary takes; data.pixels=",
    "data=vectors data.pixels=grey": "data.pixels=grey: should be 'real' or 'binary'",
    "data=vectors data.pixels=binary likelihood=bernoulli": "income of train row 0: ",
    "data=vectors network=conv": "network=conv takes images and signals, and not vectors of 3",
    "data=vectors network=resnet": "network=resnet takes images, and not vectors of 3 numbers",
    "data=vectors data.source.label=sort": "data.source.label=sort: is no column",
    "data=vectors data.standardize=maybe": "data.standardize=maybe: should be a valid boolean",
    "data=vectors model.units={}": "model.units: there is no such setting",
    "data=mnist_5k data.pixels=real": "should be 'binary', 'dequantized' or 'grey'",
    "data=vectors data.columns=[kind,agee]": "data.columns=agee: is no column; did you mean age?",
    "data=vectors condition=one_hot data.columns=[kind,age]": "use condition=continuous",
    "data=vectors data.source.leave_out=kin": "data.source.leave_out=kin: is no column; did you",
    "data=vectors data.flip=true": "data.flip and data.shift are for images",
    "data=signals": "a table has no signals; data=vectors reads it",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(folder, tmp_path, capsys, words):
    given = words.split()
    if "has no value" not in REFUSED[words] and "mnist" not in words:
        given += [f"data.source.path={folder}/table.csv"]
        if "signals" not in words and "label" not in words and "kind" not in words:
            given += ["data.source.label=kind"]
    assert REFUSED[words] in get_error(capsys, *given, f"hydra.run.dir={tmp_path}/run")
    assert not Path(tmp_path / "run").exists()


@pytest.mark.slow
def test_foreign_run_folder_of_numbers_is_safe_to_load(get_run, tmp_path):
    copy = shutil.copytree(get_run("vectors"), tmp_path / "copy")
    assert vaelab.load(copy).units.names == tuple(NAMES)
