"""Commands on a user's own images: from a folder of files to pictures by the names of classes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support import programs
from support.commands import run_command
from support.image_folders import noise, save_image

import vaelab
from vaelab.commands import evaluate, export, generate, train
from vaelab.evaluation import classifier

ROOT = Path(__file__).parents[2]
SMALL = [
    *("model=cvae", "network=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"),
    *("model.latent_dim=2", "data.test_size=12", "data.batch_size=10"),
    *("trainer.max_epochs=2", "logger=none"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with 40 colour images of two classes, in several sizes, one with a broken file."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    for i in range(40):
        save_image(folder / ("cat", "dog")[i % 2] / f"{i}.png", noise(i, (10 + i % 3, 12, 3)))
    (folder / "dog" / "99.png").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def settings(photos):
    """The settings of these images, prepared beside them."""
    source = [f"data.source.{s}" for s in (f"path={photos}", "size=8", "fit=crop", "broken=skip")]
    return ["data=folder", *source, f"paths.data={photos.parent}/data"]


@pytest.fixture(scope="module")
def run_folder(photos, settings):
    """The folder of a run on them."""
    run_command(train, *SMALL, *settings, f"hydra.run.dir={photos.parent}/run")
    return photos.parent / "run"


def test_run_on_a_folder_of_images_is_evaluated_generated_and_exported(run_folder, monkeypatch):
    prepared = run_folder.parent / "data"
    monkeypatch.setenv("VAELAB_DATA", str(prepared))
    monkeypatch.setattr(classifier, "STEPS", 20)
    what = "what=[likelihood,samples,conditional]"
    run_command(evaluate, f"run={run_folder}", what, "num_samples=2", "metrics.samples.count=20")
    found = (run_folder / "evaluation.json").read_text()
    assert all(name in found for name in ("nll", "copied", "agreement", "frechet_classifier"))
    run_command(generate, f"run={run_folder}", "what=samples", "label=dog", "count=4")
    (path,) = (run_folder / "generated").glob("samples*.npz")
    with np.load(path) as file:
        assert file["images"].shape == (4, 3, 8, 8)
    run_command(export, f"run={run_folder}", "what=safetensors")
    assert vaelab.load(run_folder / "export").class_names["label"] == ["cat", "dog"]
    assert len(list(prepared.glob("photos_*.safetensors"))) == 1


def test_run_on_a_folder_resumes_to_the_same_bits(run_folder, settings, tmp_path):
    first = [*SMALL, *settings, f"hydra.run.dir={tmp_path}"]
    run_command(train, *first, "trainer.max_epochs=1")
    run_command(train, *first, "ckpt=last")
    paths = [folder / "checkpoints" / "last.ckpt" for folder in (run_folder, tmp_path)]
    whole, resumed = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_images_of_a_folder_from_others_are_prepared_in_the_own_data_folder(
    run_folder, monkeypatch, tmp_path, photos, capsys
):
    """That there are more images than in the training is told, for other ones are tested on."""
    before = sorted((run_folder.parent / "data").iterdir())
    save_image(photos / "cat" / "more.png", noise(50, (12, 12, 3)))
    monkeypatch.setenv("VAELAB_DATA", str(tmp_path))
    run_command(evaluate, f"run={run_folder}", "what=reconstruction", "rerun=true")
    said = capsys.readouterr()
    assert "images when this model was trained, and are" in said.out + said.err
    (photos / "cat" / "more.png").unlink()
    assert len(list(tmp_path.glob("photos_*.safetensors"))) == 1
    assert sorted((run_folder.parent / "data").iterdir()) == before


def test_jobs_of_a_sweep_share_the_prepared_file(photos, settings, tmp_path):
    command = [sys.executable, "train.py", "-m", *SMALL, *settings, f"paths.data={tmp_path}/data"]
    command += ["seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep", "hydra.launcher.n_jobs=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    programs.run(command, cwd=ROOT, env=environment, check=True, timeout=500)
    assert len(list((tmp_path / "sweep").glob("*/results.json"))) == 2
    assert len(list((tmp_path / "data").glob("*.safetensors"))) == 1


def workers_of(process):
    """Returns the ids of the workers that read images for a process."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process.pid and "image_decoding" in (path / "cmdline").read_text():
                found.add(int(path.name))
        except OSError:  # ended meanwhile
            continue
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_while_decoding_ends_all_processes_and_leaves_no_file(tmp_path, number, code):
    path = save_image(tmp_path / "photos" / "0.png", noise(0, (900, 900)))
    for i in range(1, 400):
        path.with_name(f"{i}.png").hardlink_to(path)
    settings = [f"data.source.path={tmp_path}/photos", "data.source.size=8"]
    settings += [f"paths.data={tmp_path}/data", f"hydra.run.dir={tmp_path}/run"]
    process = programs.start(
        [sys.executable, "train.py", "data=folder", *settings],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 200
    while not (workers := workers_of(process)) and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(1)
    os.killpg(process.pid, number)  # as a terminal does for Ctrl-C, to the workers too
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "stopped; go on with" in out
    assert "Traceback" not in err
    until = time.monotonic() + 10
    while (left := [p for p in workers if is_alive(p)]) and time.monotonic() < until:
        time.sleep(0.1)
    assert workers
    assert not left
    assert not [path for path in (tmp_path / "data").iterdir() if path.suffix != ".lock"]


def is_alive(number):
    """Returns whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
