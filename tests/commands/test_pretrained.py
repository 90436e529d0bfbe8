"""Models that come with vaelab: `vaelab.load("mnist_cvae")`, offline, and in the commands."""

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import vaelab
from vaelab.commands import encode, evaluate, generate
from vaelab.data import Digits
from vaelab.errors import DamagedFileError, UserError
from vaelab.runs import loading

ROOT = Path(__file__).parents[2]
SHIPPED = loading.SHIPPED / "mnist_cvae"
WEIGHTS = "acd93ec59dcadbd4bbc6dd5ba849e7a94eec2eec9cf50df3af0902f90d611b73"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Fails every connection, and works in an empty folder."""

    def refuse(*_):
        raise AssertionError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The 5,000 MNIST digits: x [N, 1, 28, 28] in [0, 1], and labels [N]."""
    splits = Digits(str(tmp_path_factory.mktemp("data")))()
    return splits.train_images.float() / 255, splits.train_labels


def test_shipped_weights_are_those_that_were_measured():
    weights = (SHIPPED / loading.WEIGHTS).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == WEIGHTS
    assert len(weights) < 1.01e6
    content = json.loads((SHIPPED / loading.CONFIG).read_text())
    assert content[loading.WEIGHTS_CHECKSUM] == WEIGHTS
    assert content["evaluation"]["agreement"]["value"] > 0.96


def test_shipped_card_says_data_command_and_test_figures():
    card = (SHIPPED / "README.md").read_text()
    assert 'vaelab.load("mnist_cvae")' in card
    assert "Data: `mnist`" in card
    assert "python train.py" in card
    assert "| nll | 96.673 | 0.318 |" in card


def test_shipped_model_draws_the_digits_that_are_asked_for(digits):
    model = vaelab.load("mnist_cvae")
    x, y = digits
    classifier = KNeighborsClassifier(3).fit(x.flatten(1).numpy(), y.numpy())
    labels = torch.arange(10).repeat_interleave(50)
    drawn = torch.cat([model.sample(50, label=digit) for digit in range(10)])
    found = torch.from_numpy(classifier.predict(drawn.flatten(1).numpy()))
    assert (found == labels).double().mean() > 0.85  # of real digits 0.94
    for digit in range(10):
        assert (found[labels == digit] == digit).double().mean() > 0.5


def test_shipped_model_finds_digits_likelier_with_their_labels(digits):
    model = vaelab.load("mnist_cvae")
    x, y = digits[0][::100].round(), digits[1][::100]
    right = model.log_evidence(x, y, num_samples=10)
    wrong = model.log_evidence(x, (y + 1) % 10, num_samples=10)
    assert right.mean() > -110
    assert (right > wrong).double().mean() > 0.9


def test_unknown_name_lists_the_shipped_models():
    with pytest.raises(UserError, match=r"mnist_vcae is no run folder .*; mnist_cvae comes with"):
        vaelab.load("mnist_vcae")


def test_own_folder_of_the_name_goes_before_the_shipped_model():
    Path("mnist_cvae").mkdir()
    assert vaelab.load("mnist_cvae").latent_dim == 8  # there is no model in it
    shutil.copytree(SHIPPED, "mnist_cvae", dirs_exist_ok=True)
    path = Path("mnist_cvae", loading.WEIGHTS)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="checksum"):
        vaelab.load("mnist_cvae")
    assert vaelab.load(SHIPPED).latent_dim == 8


def run_command(monkeypatch, module, *words: str) -> int:
    """Runs a command in this process; returns its exit code."""
    name = module.__name__.rpartition(".")[2]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    try:
        module.main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_commands_take_the_name_and_write_into_outputs(monkeypatch, capsys, digits):
    before = sorted(SHIPPED.rglob("*"))
    words = ("run=mnist_cvae", "what=class_grid", "count=2")
    assert run_command(monkeypatch, generate, *words) == 0
    assert Path("outputs/mnist_cvae/generated/class_grid.png").exists()
    np.savez("mine.npz", images=(digits[0][:5] * 255).byte().numpy())
    given = ("images=mine.npz", "label=3", "num_samples=2")
    assert run_command(monkeypatch, encode, "run=mnist_cvae", *given) == 0
    assert Path("outputs/mnist_cvae/encoded.npz").exists()
    capsys.readouterr()
    assert run_command(monkeypatch, evaluate, "run=mnist_cvae", "what=latents") == 2
    assert "without its images" in capsys.readouterr().err
    assert sorted(SHIPPED.rglob("*")) == before


@pytest.mark.slow
def test_wheel_has_the_shipped_models(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-w", str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True)
    if done.returncode and re.search("No module named pip|hatchling", done.stdout + done.stderr):
        pytest.skip("there is no pip, or hatchling could not be downloaded")
    assert not done.returncode, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        weights = archive.read("vaelab/pretrained/mnist_cvae/model.safetensors")
        assert hashlib.sha256(weights).hexdigest() == WEIGHTS
        assert "vaelab/pretrained/mnist_cvae/config.json" in archive.namelist()
