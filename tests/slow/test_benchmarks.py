"""Tests of the benchmark scripts, against the loss of vaelab's model and against autograd.

The training benchmark itself runs for a few steps on random images. Its times are not judged.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vaelab

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CONTENDERS = ROOT / "benchmarks" / "contenders"
FILES_OF_EXPORT = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture
def contenders_on_path(monkeypatch):
    """Adds benchmarks/contenders to `sys.path`, where its scripts find their modules."""
    monkeypatch.syspath_prepend(str(CONTENDERS))


@pytest.mark.parametrize(
    ("name", "shape", "overrides"),
    [
        ("mlp", (1, 28, 28), ["model.encoder.hidden=[50]", "model.decoder.hidden=[50]"]),
        ("conv", (3, 32, 32), []),
        ("resnet", (3, 32, 32), []),
    ],
    ids=["mlp", "conv", "resnet"],
)
def test_contender_bound_equals_loss_of_vaelab_network(
    build, contenders_on_path, name, shape, overrides
):
    from networks import bound, network

    model = build(f"network={name}", "model.latent_dim=5", *overrides, x_shape=shape)
    encoder, decoder = network({"network": name, "latents": 5, "hidden": 50}, shape)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    with torch.no_grad():
        for parameter, ours in zip(parameters, model.parameters(), strict=True):
            assert parameter.shape == ours.shape
            parameter.copy_(ours)
    x, y = torch.rand(4, *shape).bernoulli(), torch.zeros(4, 10)
    torch.manual_seed(1)
    _, distortion, rate = model.loss(x, y)
    torch.manual_seed(1)
    expected = [distortion.mean(), rate.mean()]
    torch.testing.assert_close(bound(encoder, decoder, x), tuple(expected))


def test_write_gradient_equals_autograd(contenders_on_path):
    from gradient import write_gradient
    from networks import bound

    encoder = nn.Sequential(nn.Linear(12, 7), nn.SiLU(), nn.Linear(7, 6)).double()
    decoder = nn.Sequential(nn.Linear(3, 7), nn.SiLU(), nn.Linear(7, 12)).double()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    x = torch.rand(5, 12).bernoulli().double()
    torch.manual_seed(1)
    expected = torch.autograd.grad(sum(bound(encoder, decoder, x)), parameters)

    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, torch.nan)
    torch.manual_seed(1)
    noise = torch.randn(5, 3, dtype=torch.double)
    with torch.no_grad():
        write_gradient((encoder[0], encoder[2], decoder[0], decoder[2]), x, noise)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def run_benchmark(name: str, *options: str) -> str:
    """Runs a benchmark script with one thread and returns what it prints to stdout."""
    return subprocess.run(
        [sys.executable, f"benchmarks/{name}", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=480,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ).stdout


def test_training_benchmark_table_shows_speeds_and_failed_contender():
    """The command `false` in place of pythae's Python makes one contender fail."""
    few = ["--images", "600", "--batch", "128", "--rounds", "1", "--starts", "2", "--steps", "2"]
    names = ["by_hand", "written_out", "lightning", "vaelab"]
    options = [*few, "--markdown", "--pythae", "false", "--only", *names, "pythae"]
    output = run_benchmark("training.py", *options)
    table = {
        row[0]: row[1:] for row in re.findall(r"^\| (\w+) \|" + r" ([^|]*) \|" * 5, output, re.M)
    }
    for name in names:
        speed, ratio, _, cpu_ratio, memory = table[name]
        values = [float(text.replace(",", "")) for text in (speed, ratio, cpu_ratio, memory)]
        assert all(value > 0 for value in values), output
    assert table["by_hand"][1] == "1.00"
    assert table["pythae"][0] == "failed"
    assert "pythae failed: ended with code 1" in output


def test_on_gpu_dry_run_on_a_cpu_fills_every_table(tmp_path):
    before = {path: path.stat().st_mtime for path in (ROOT / "results").iterdir()}
    output = run_benchmark("on_gpu", "--device", "cpu", "--dry", "--to", str(tmp_path))
    assert (tmp_path / "gpu.md").read_text() in output
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["machine"]["device"] == "CPU"
    sections = found["sections"]
    assert {name: section["status"] for name, section in sections.items()} == dict.fromkeys(
        ["gpu_tests", "speed", "log_evidence", "sweep", "stacked"], "done"
    ), output
    rows = {
        cells[""]: cells
        for section in sections.values()
        for table in section["tables"].values()
        for cells in table.values()
    }
    for name in ("by_hand", "compiled", "vaelab"):
        assert rows[name]["images/s"] > 0
        assert rows[name]["first step, s"] > 0
    for name in ("mlp 784-400-20, 4 samples", "resnet 3,072-128, 4 samples"):
        assert rows[name]["latents/s"] > rows[name]["images/s"] > 0
    assert rows["1 job, 2 at once"]["jobs a minute"] > 0
    assert rows["1 job, 1 at once"]["images/s, all jobs together"] > 0
    assert rows["2 models"]["times one by one"] > 0
    tests = [cells for name, cells in rows.items() if name.startswith("test_")]
    assert len(tests) == 6
    assert not any(cells["failed"] for cells in tests)
    assert {path: path.stat().st_mtime for path in (ROOT / "results").iterdir()} == before


TELL_A_ROW = """
import json, os, time
with open(json.loads(os.environ["ON_GPU"])["rows"], "w") as file:
    file.write(json.dumps({"table": "", "cells": {"": "measured", "value": 1.5}}) + "\\n")
"""


def test_on_gpu_keeps_rows_of_sections_that_fail_or_take_too_long(tmp_path, monkeypatch):
    """The section after them is run all the same."""
    place = ROOT / "benchmarks" / "on_gpu" / "__main__.py"
    spec = importlib.util.spec_from_file_location("on_gpu_script", place)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "on_gpu_script", script)  # where dataclasses look
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec.loader.exec_module(script)
    more = {"machine": "", "fails": "raise ValueError('no luck')", "hangs": "time.sleep(99)"}
    for name, ending in {**more, "works": ""}.items():
        (tmp_path / f"{name}.py").write_text(TELL_A_ROW + ending)
    monkeypatch.setattr(script, "HERE", tmp_path)
    monkeypatch.setattr(script, "SECTIONS", dict.fromkeys(more, ("A", 8)) | {"works": ("A", 8)})
    monkeypatch.setattr(script, "DRY_SECONDS", 8)
    names = ["fails", "hangs", "works"]
    options = {"device": "cpu", "dry": True, "minutes": 9, "only": names, "to": tmp_path}
    monkeypatch.setattr(script, "parse", lambda: argparse.Namespace(**options))
    assert script.main() == 1
    sections = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    statuses = {name: section["status"] for name, section in sections.items()}
    assert statuses == {"fails": "failed", "hangs": "out of time", "works": "done"}
    assert sections["fails"]["notes"] == ["fails.py failed: ValueError: no luck"]
    assert (tmp_path / "gpu.md").read_text().count("| measured | 1.5 |") == 3


def test_stacked_models_have_the_losses_and_gradients_of_each_alone(
    contenders_on_path, monkeypatch, tmp_path
):
    """Without noise in z."""
    told = {"device": "cpu", "dry": True, "rows": str(tmp_path / "rows"), "folder": str(tmp_path)}
    monkeypatch.setenv("ON_GPU", json.dumps(told))
    for folder in (ROOT / "benchmarks", ROOT / "benchmarks" / "on_gpu"):
        monkeypatch.syspath_prepend(str(folder))
    from networks import network
    from stacked import Bound, Stacked

    np.savez(tmp_path / "x.npz", train_images=np.zeros((20, 1, 4, 4), np.uint8))
    settings = {"network": "mlp", "hidden": 5, "latents": 2, "batch_size": 4, "device": "cpu"}
    stacked = Stacked(settings | {"images": str(tmp_path / "x.npz")}, 3)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    x = torch.rand(12, 1, 4, 4).bernoulli()
    losses = stacked.losses(x)
    losses.sum().backward()
    for i, images in enumerate(x.split(4)):
        alone = Bound(*network(settings, (1, 4, 4)))
        alone.load_state_dict({name: weight[i] for name, weight in stacked.weights.items()})
        loss = alone(images)
        torch.testing.assert_close(losses[i], loss)
        loss.backward()
        for name, weight in alone.named_parameters():
            torch.testing.assert_close(stacked.weights[name].grad[i], weight.grad)


def test_soak_prints_figures_of_training_and_of_sweep():
    output = run_benchmark("soak.py", "--epochs", "200", "--jobs", "2")
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    names = [row[0] for row in rows]
    assert names[0] == "epochs"
    assert "jobs done" in names
    figures = [row for row in rows if row[0].isdigit()]
    assert all(float(row[2]) > 10 and int(row[3]) > 0 for row in figures)  # memory, handles
    assert "2 of 2 done" in output


def test_bigger_than_memory_prints_speed_and_memory_of_both(tmp_path):
    few = ["--gigabytes", "0.02", "--part", "0.01", "--batches", "4"]
    output = run_benchmark("bigger_than_memory.py", *few, "--markdown", "--folder", str(tmp_path))
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    found = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in rows[2:]}
    assert list(found) == ["a part, in memory", "all, in windows"]
    for _, speed, held, own in found.values():
        assert speed > 0
        assert held > own > 100  # MB
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "costs"),
    [
        ("images", ["start, s", "first epoch, us per image", "memory, MB"]),
        ("latents", ["step, ms", "log evidence, ms per image"]),
        ("width", ["step, ms"]),
        ("jobs", ["launcher, s", "launcher, MB"]),
        ("runs", ["report, s", "report, MB", "page, MB"]),
        ("seeds", ["report, s", "report, MB", "page, MB"]),
        ("epochs", ["scalars, kB", "pictures, kB"]),
    ],
)
def test_growth_prints_costs_and_slopes_and_keeps_those_of_other_parts(tmp_path, part, costs):
    kept = {"images": {"1": dict.fromkeys(("start, s", "first epoch, us per image"), 1.0)}}
    kept["images"]["1"]["memory, MB"] = 1.0
    kept["images"]["2"] = kept["images"]["1"]
    (tmp_path / "growth.json").write_text(json.dumps(kept))
    (tmp_path / "growth.md").write_text("# Of ours\n\n## Figures\n\nold\n")
    output = run_benchmark("growth.py", part, "--quick", "--to", str(tmp_path))
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == costs
    assert all(float(cell.replace(",", "")) > 0 for row in rows[2:] for cell in row[1:3])
    page = (tmp_path / "growth.md").read_text()
    assert page.startswith("# Of ours\n\n## Figures\n")
    assert "old" not in page
    assert all(f"| {cost} |" in page for cost in [*costs, *kept["images"]["1"]])
    assert 1_000 < (tmp_path / "growth.png").stat().st_size < 200_000


def test_growth_calls_a_cost_too_steep(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from growth import Growth, Part

    costs = {"flat": 0, "steady": 1, "square": 1}
    part = Part("sizes", (1, 10, 100), (1,), costs, lambda folder, size: {})
    found = Growth(
        part,
        {n: {"flat": 5.0, "steady": 900.0 + n, "square": 900.0 + n**2 / 10} for n in part.sizes},
    )
    assert found.slope("flat") == pytest.approx(0, abs=1e-9)
    assert found.slope("square", last=2) < 1  # what is always there hides it
    assert found.added_slope("square") == pytest.approx(2, abs=0.01)
    assert found.is_right("flat")
    assert found.is_right("steady")
    assert not found.is_right("square")


def test_gallery_keeps_figures_curves_and_pictures(tmp_path):
    output = run_benchmark("gallery.py", "beta_vae", "vq_vae", "--short", "--to", str(tmp_path))
    for name in ("beta_vae", "vq_vae"):
        assert f"{name}: results/gallery/{name}_short" in output
        kept = tmp_path / "results" / "gallery" / f"{name}_short"
        names = {"record.json", "curves.csv", "samples.png", "reconstructions.png"}
        assert {path.name for path in kept.iterdir()} == names
        assert f"model={name}" in (kept / "record.json").read_text()


def test_pretrained_writes_models_with_cards(tmp_path):
    names = ["mnist_cvae", "cifar10_vae"]
    output = run_benchmark("pretrained.py", str(tmp_path / "release"), *names, "--short")
    for name in names:
        assert f"{name}: " in output
        folder = tmp_path / "release" / name
        assert sorted(path.name for path in folder.iterdir()) == FILES_OF_EXPORT
        card = (folder / "README.md").read_text()
        assert f'vaelab.load("{name}")' in card
        assert "Data: `mnist_5k`" in card
        assert "python train.py" in card
        assert vaelab.load(folder).x_shape == (1, 28, 28)


def test_pretrained_models_are_of_the_size_that_is_allowed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import pretrained

    shapes = {"cifar10": (3, 32, 32), "sprites": (1, 32, 32)}
    for name in pretrained.MODELS:
        words = dict(word.split("=", 1) for word in pretrained.overrides(name, short=False))
        kept = [f"{key}={value}" for key, value in words.items() if key != "model"]
        shape = shapes.get(words["data"], (1, 28, 28))
        model = vaelab.build(words["model"], x_shape=shape, classes=10, overrides=kept)
        assert sum(t.nbytes for t in model.state_dict().values()) < pretrained.MOST - 1e5, name
