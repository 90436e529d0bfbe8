"""A training on images that stay in their file, and what is done with the run, in-process."""

import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from vaelab.commands import evaluate, generate, train
from vaelab.training.json_files import read_json

SMALL = [
    "network=mlp",
    "model.encoder.hidden=[8]",
    "model.decoder.hidden=[8]",
    "model.latent_dim=2",
]


@pytest.fixture
def call(monkeypatch):
    """Returns a function (command, *overrides) that calls a command as its script would."""

    def call_main(command, *overrides):
        name = command.__name__.rpartition(".")[2]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *overrides])
        return command.main()

    return call_main


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of 400 images of three classes, 340 of them of the first, which counts as large."""
    monkeypatch.setattr("vaelab.data.on_disk.LARGE", 1000)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 3, 16, 16), dtype=np.uint8)
    labels = np.maximum(np.arange(400) // 30 - 10, 0).clip(max=2)
    save_file({"train_images": images, "train_labels": labels}, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


@pytest.mark.slow
def test_run_on_a_large_file_is_measured_drawn_and_resumed(call, file, tmp_path, capsys):
    data = ["data=arrays", f"data.source.path={file}", "data.batch_size=16", "model=cvae"]
    changes = ["data.balance=true", "data.flip=true", "data.shift=2", "evaluate=[likelihood]"]
    fixed = [*data, *SMALL, *changes, "metrics.likelihood.num_samples=2", "logger=none"]
    given = [*fixed, f"paths.data={tmp_path}", "trainer.accelerator=cpu"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    call(train, *given, "trainer.max_epochs=2", f"hydra.run.dir={whole}")
    said = capsys.readouterr().out
    assert "classes of label drawn equally often" in said
    assert "GB in a file, shuffled 256 MB at a time" in said
    results = read_json(whole / "results.json")
    assert results["steps"] == 40
    assert read_json(whole / "evaluation.json")["nll"]["value"] > -1e6

    call(train, *given, "trainer.max_epochs=1", f"hydra.run.dir={parts}")
    resumed = ["trainer.max_epochs=2", "ckpt=last", "data.in_memory=all"]
    call(train, *given, *resumed, f"hydra.run.dir={parts}")
    one, other = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, parts)
    )
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())

    call(evaluate, f"run={whole}", "what=latents,reconstruction", f"paths.data={tmp_path}")
    call(generate, f"run={whole}", "what=reconstructions,nearest", f"paths.data={tmp_path}")
    assert (whole / "generated" / "nearest.png").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.balance=true", "data=arrays"], "data.balance=true: these images have no labels"),
        (["data.balance=angle"], "data.balance=angle: these images have no such column of classes"),
        (["data.shift=28"], "data.shift=28: the images have 28 x 28 pixels"),
        (["data.shift=-1"], "data.shift=-1: should be greater than or equal to 0"),
        (["data.flip=2"], "data.flip=2: should be a valid boolean"),
        (["data.in_memory=some"], "data.in_memory=some: should be 'auto', 'all' or 'window'"),
        (["data.window=0"], "data.window=0: should be greater than 0"),
    ],
)
def test_wrong_settings_of_the_training_draw_are_refused(
    call, tmp_path, tmp_path_factory, capsys, overrides, message
):
    np.save(tmp_path / "bare.npy", np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8))
    data = tmp_path_factory.getbasetemp() / "digits"
    paths = [f"paths.data={data}", f"hydra.run.dir={tmp_path / 'run'}"]
    if "data=arrays" in overrides:
        paths.append(f"data.source.path={tmp_path / 'bare.npy'}")
    with pytest.raises(SystemExit) as ended:
        call(train, *SMALL, *paths, *overrides)
    assert ended.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
