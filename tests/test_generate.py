"""The command that draws pictures of a finished run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaelab
from vaelab import pictures
from vaelab.cli import CONF
from vaelab.errors import UserError
from vaelab.pictures import gallery
from vaelab.pictures.image_files import read_image

sys.path.insert(0, str(CONF.parent))

import generate
import train


def run(command, *arguments):
    """What `python train.py ...` or `python generate.py ...` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{command.__name__}.py", *map(str, arguments)])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        patch.delenv("VAELAB_SHORT_ERROR", raising=False)
        command.main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(model) -> the folder of a run of it on images of class 0, 1 and 2, with none of class 3."""
    folder = tmp_path_factory.mktemp("runs")
    bits = np.random.default_rng(0).integers(0, 2, (90, 8, 8), np.uint8) * 255
    labels = np.arange(90) % 3
    np.savez(folder / "mine.npz", train_images=bits, train_labels=labels)

    def train_model(model):
        if not (folder / model).exists():
            run(
                train, f"model={model}", "data=arrays", f"data.source.path={folder}/mine.npz",
                "data.source.num_classes=4", "data.val_size=10", "data.test_size=30",
                "data.batch_size=10", "network=mlp", "likelihood=bernoulli", "model.latent_dim=2",
                "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "trainer.max_epochs=1",
                "logger=none", f"hydra.run.dir={folder}/{model}",
            )  # fmt: skip
        return folder / model

    return train_model


@pytest.fixture
def files(tmp_path):
    """Two image files, of other shapes and colours than the images of the run."""
    paths = [tmp_path / "one, two.png", tmp_path / "three.png"]
    for path, size in zip(paths, [(30, 20), (8, 8)], strict=True):
        pixels = np.random.default_rng(1).integers(0, 2, (*size, 3), np.uint8) * 255
        Image.fromarray(pixels).save(path)
    return paths


def arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_every_picture_that_makes_sense_is_drawn(trained, capsys, model):
    folder = trained(model) / "generated"
    capsys.readouterr()
    run(generate, f"run={trained(model)}")
    assert set(map(Path, capsys.readouterr().out.split())) == set(folder.iterdir())
    names = set(pictures.KINDS) - ({"class_grid"} if model == "vae" else set())
    moving = {"traversal", "interpolation", "arithmetic"}
    assert {path.stem for path in folder.glob("*.png")} == names
    assert {path.stem for path in folder.glob("*.npz")} == names
    assert {path.stem for path in folder.glob("*.gif")} == moving


def test_several_runs_are_drawn_each_in_its_folder(trained, capsys):
    runs = [trained(model) for model in ("vae", "cvae")]
    run(generate, f"run={runs[0]},{runs[1]}", "what=samples", "count=2")
    for folder in runs:
        assert len(arrays(folder / "generated" / "samples.npz")["images"]) == 2
    with pytest.raises(SystemExit):
        run(generate, f"run={runs[0]},{runs[1]}", "what=class_grid", "count=2")
    assert len(arrays(runs[1] / "generated" / "class_grid.npz")["images"][0]) == 2
    assert f"error: {runs[0]}: what=class_grid needs" in capsys.readouterr().err


def test_settings_reach_the_pictures_and_the_file(trained, tmp_path):
    given = ["what=[samples,class_grid]", "label=[3,1]", "count=5", "temperature=0", "seed=7"]
    run(generate, f"run={trained('cvae')}", f"to={tmp_path}/here", *given)
    found = arrays(tmp_path / "here" / "samples.npz")
    assert found["y"].tolist() == np.eye(4)[[3, 1, 3, 1, 3]].tolist()
    assert not found["z"].any()
    assert json.loads(str(found["settings"])) == {
        "run": str(trained("cvae")), "what": "samples", "count": 5, "label": [3, 1],
        "given": {}, "temperature": 0.0, "images": [], "seed": 7, "sampler": "prior",
    }  # fmt: skip
    model = vaelab.load(trained("cvae"))
    with torch.no_grad():
        images = model.decode(torch.zeros(2, 2), torch.eye(4)[[3, 1]]).mean
    assert found["images"][:2] == pytest.approx(images.numpy(), abs=1e-6)
    assert arrays(tmp_path / "here" / "class_grid.npz")["labels"].tolist() == [3, 1]


def test_the_images_are_those_of_the_test_part(trained, tmp_path):
    run(generate, f"run={trained('vae')}", "what=reconstructions", f"to={tmp_path}", "label=1")
    found = arrays(tmp_path / "reconstructions.npz")
    with np.load(trained("vae").parent / "mine.npz") as file:
        images, labels = file["train_images"], file["train_labels"]
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert {known[(255 * x).astype(np.uint8).tobytes()] for x in found["x"]} == {1}


def test_the_seed_decides(trained, tmp_path):
    what = "what=[samples,traversal,interpolation]"
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(generate, f"run={trained('cvae')}", what, f"to={tmp_path}/{folder}", f"seed={seed}")
    first, again, other = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in "abc"
    )
    assert len(first) == 8
    assert first == again
    assert first["samples.png"] != other["samples.png"]
    assert first["interpolation.gif"] == other["interpolation.gif"]


def test_images_of_the_user_are_interpolated(trained, files, tmp_path):
    given = ["what=interpolation", f"to={tmp_path}", f"images=['{files[0]}','{files[1]}']"]
    run(generate, f"run={trained('cvae')}", *given, "label=[2,3]")
    found = arrays(tmp_path / "interpolation.npz")
    assert found["images"].shape == (1, 21, 1, 8, 8)
    assert found["y"][0, [0, -1]].tolist() == np.eye(4)[[2, 3]].tolist()
    x = torch.from_numpy(found["x"][0])
    assert set(x.unique().tolist()) == {0.0, 1.0}  # as the model was trained on
    model = vaelab.load(trained("cvae"))
    with torch.no_grad():
        ends = model(x, torch.eye(4)[[2, 3]])
    assert found["images"][0, [0, -1]] == pytest.approx(ends.numpy(), abs=1e-6)
    run(generate, f"run={trained('cvae')}", *given, "label=[2,3]", "seed=1")
    assert not np.array_equal(arrays(tmp_path / "interpolation.npz")["x"], found["x"])


REFUSED = [
    ("vae", "run=nowhere", "nowhere is no run folder"),
    ("vae", "what=sample", "what=sample: there is no such picture; did you mean samples?"),
    ("vae", "what=xyz", "possible are all, arithmetic, gaps, interpolation, latents"),
    ("vae", "what=class_grid", "what=class_grid needs a conditional model, such as model=cvae"),
    ("vae", "what=samples label=1", "what=samples of an unconditional model takes no label"),
    ("vae", "what=manifold label=1", "what=manifold of an unconditional model takes no label"),
    ("cvae", "what=manifold label=[0,1]", "what=manifold takes one label"),
    ("cvae", "what=arithmetic label=1", "takes two labels, as in label=[3,8]"),
    ("cvae", "label=12", "label=12: the run knows labels 0 to 3"),
    ("cvae", "label=[0,-1]", "label=-1: the run knows labels 0 to 3"),
    ("cvae", "label=three", "label=three: should be"),
    ("cvae", "what=traversal label=3", "there is none of [3]"),
    ("vae", "count=0", "count=0: should be greater than 0"),
    ("vae", "temperature=-1", "temperature=-1: should be greater than or equal to 0"),
    ("vae", "images=one.png", "images=one.png: should be two files, and not 1"),
    ("vae", "images=one.png,two.png", "images=one.png: cannot be read (No such file"),
    ("vae", "images=README.md,two.png", "images=README.md: cannot be read (this is no image"),
    ("vae", "what=samples images=F", "what=interpolation is not asked for"),
    ("vae", "what=interpolation label=1 images=F", "of an unconditional model takes no label"),
    ("cvae", "what=interpolation images=F", "what=interpolation between files of a conditional"),
    ("cvae", "images=F", "what=interpolation between files of a conditional model needs label="),
    ("vae", "device=abacus", "device=abacus"),
    ("vae", "wat=samples", "did you mean what?"),
]


@pytest.mark.parametrize(("model", "given", "message"), REFUSED)
def test_refuses(trained, files, capsys, monkeypatch, tmp_path, model, given, message):
    monkeypatch.chdir(CONF.parent)
    two = f"['{files[0]}','{files[1]}']"
    overrides = [override.replace("=F", f"={two}") for override in given.split()]
    with pytest.raises(SystemExit) as exit_:
        run(generate, f"run={trained(model)}", f"to={tmp_path}/to", *overrides)
    assert exit_.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "to").exists()


def test_images_without_labels_have_none_to_ask_for():
    with pytest.raises(UserError, match="label=1: the images of this run have no labels"):
        gallery.check_labels([1], num_classes=0)


def test_no_file_has_five_channels(files):
    with pytest.raises(UserError, match="no image file has the 5 channels"):
        read_image(files[0], (5, 8, 8))


def test_pictures_of_several_runs_beside_each_other(trained, tmp_path, capsys):
    folders = [trained("vae"), trained("cvae")]
    capsys.readouterr()
    given = ["what=[samples,gaps]", "count=4", f"to={tmp_path}/both"]
    run(generate, f"run={folders[0]},{folders[1]}", *given)
    assert f"{tmp_path}/both/samples.png" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"samples.png", "gaps.png"}
    whole = np.asarray(Image.open(tmp_path / "both" / "gaps.png"))
    for folder in folders:
        part = np.asarray(Image.open(folder / "generated" / "gaps.png").convert("RGB"))
        windows = np.lib.stride_tricks.sliding_window_view(whole[-part.shape[0] :], part.shape)
        assert (windows == part).all((-3, -2, -1)).any()
