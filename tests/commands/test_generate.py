"""Tests of `generate.py`, against images decoded by the model and the data of the run.

Also tests `read_image`, against exact pixels.
"""

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import run_command
from support.image_folders import noise, save_image

import vaelab
from vaelab import pictures
from vaelab.commands import evaluate, export, generate, train
from vaelab.commands.config_folders import CONF
from vaelab.data import Folder
from vaelab.data.image_settings import ImageSettings
from vaelab.errors import UserError
from vaelab.pictures import gallery
from vaelab.pictures.image_files import read_image


@pytest.mark.parametrize("overrides", [["run=nowhere"], ["run=null", "images=[]"], []])
def test_refused_generate_leaves_no_folder(overrides, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(generate, f"hydra.run.dir={tmp_path}/a/b", *overrides)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def get_run(tmp_path_factory):
    """(model) -> the folder of its run, trained at the first call; class 3 of 4 has no images."""
    folder = tmp_path_factory.mktemp("runs")
    bits = np.random.default_rng(0).integers(0, 2, (90, 8, 8), np.uint8) * 255
    labels = np.arange(90) % 3
    np.savez(folder / "mine.npz", train_images=bits, train_labels=labels)

    def train_model(model):
        if not (folder / model).exists():
            run_command(
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
    """Paths of two colour images; the first is larger than the images of the runs."""
    paths = [tmp_path / "one, two.png", tmp_path / "three.png"]
    for path, size in zip(paths, [(30, 20), (8, 8)], strict=True):
        pixels = np.random.default_rng(1).integers(0, 2, (*size, 3), np.uint8) * 255
        Image.fromarray(pixels).save(path)
    return paths


def arrays(path):
    """The arrays of an npz file, by name."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_generate_draws_every_kind_applicable_to_model(get_run, capsys, model):
    folder = get_run(model) / "generated"
    capsys.readouterr()
    run_command(generate, f"run={get_run(model)}")
    assert set(map(Path, capsys.readouterr().out.split())) == set(folder.iterdir())
    names = set(pictures.KINDS) - ({"class_grid"} if model == "vae" else set())
    moving = {"traversal", "interpolation", "arithmetic"}
    assert {path.stem for path in folder.glob("*.png")} == names
    assert {path.stem for path in folder.glob("*.npz")} == names
    assert {path.stem for path in folder.glob("*.gif")} == moving


def test_generate_writes_several_runs_to_their_own_folders(get_run, capsys):
    runs = [get_run(model) for model in ("vae", "cvae")]
    run_command(generate, f"run={runs[0]},{runs[1]}", "what=samples", "count=2")
    for folder in runs:
        assert len(arrays(folder / "generated" / "samples.npz")["images"]) == 2
    with pytest.raises(SystemExit):
        run_command(generate, f"run={runs[0]},{runs[1]}", "what=class_grid", "count=2")
    assert len(arrays(runs[1] / "generated" / "class_grid.npz")["images"][0]) == 2
    assert f"error: {runs[0]}: what=class_grid needs" in capsys.readouterr().err


def test_generate_applies_and_stores_settings(get_run, tmp_path):
    given = ["what=[samples,class_grid]", "label=[3,1]", "count=5", "temperature=0", "seed=7"]
    run_command(generate, f"run={get_run('cvae')}", f"to={tmp_path}/here", *given)
    end = "_label-3-1_temperature-0_seed-7.npz"
    found = arrays(tmp_path / "here" / f"samples{end}")
    assert found["y"].tolist() == np.eye(4)[[3, 1, 3, 1, 3]].tolist()
    assert not found["z"].any()
    assert json.loads(str(found["settings"])) == {
        "run": str(get_run("cvae")), "what": "samples", "count": 5, "label": [3, 1],
        "given": {}, "temperature": 0.0, "images": [], "seed": 7, "sampler": "prior",
    }  # fmt: skip
    model = vaelab.load(get_run("cvae"))
    with torch.no_grad():
        images = model.image_likelihood(torch.zeros(2, 2), torch.eye(4)[[3, 1]]).mean
    assert found["images"][:2] == pytest.approx(images.numpy(), abs=1e-6)
    assert arrays(tmp_path / "here" / f"class_grid{end}")["labels"].tolist() == [3, 1]


def test_settings_suffix_differs_for_different_settings():
    usual = {"count": None, "label": [], "given": {}, "sampler": "prior", "temperature": 1.0}
    usual |= {"images": [], "seed": 0}
    others: list[dict] = [
        {"label": [3, 8]}, {"label": ["3-8"]}, {"label": ["a-b", "c"]}, {"label": ["a", "b-c"]},
        {"label": ["ä"]}, {"label": ["ö"]}, {"temperature": 0.5}, {"seed": 1}, {"sampler": "gmm"},
        {"given": {"shape": 1}}, {"given": {"shape": 2}}, {"images": ["a.png", "b.png"]},
    ]  # fmt: skip
    ends = [gallery.settings_suffix(usual | other) for other in others]
    assert len(set(ends)) == len(others)
    assert ends[0] == "_label-3-8"
    assert gallery.settings_suffix(usual) == gallery.settings_suffix(usual | {"count": 3}) == ""


def test_generate_label_selects_images_of_that_class(get_run, tmp_path):
    run_command(
        generate, f"run={get_run('vae')}", "what=reconstructions", f"to={tmp_path}", "label=1"
    )
    found = arrays(tmp_path / "reconstructions_label-1.npz")
    with np.load(get_run("vae").parent / "mine.npz") as file:
        images, labels = file["train_images"], file["train_labels"]
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert {known[(255 * x).astype(np.uint8).tobytes()] for x in found["x"]} == {1}


@pytest.mark.slow
def test_generate_files_are_determined_by_seed(get_run, tmp_path):
    what = "what=[samples,traversal,interpolation]"
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_command(
            generate, f"run={get_run('cvae')}", what, f"to={tmp_path}/{folder}", f"seed={seed}"
        )
    first, again, other = (
        {path.name.replace("_seed-1", ""): path.read_bytes() for path in there.iterdir()}
        for there in (tmp_path / folder for folder in "abc")
    )
    assert len(first) == 8
    assert first == again
    assert first["samples.png"] != other["samples.png"]
    assert first["interpolation.gif"] == other["interpolation.gif"]


def test_generate_interpolates_between_image_files(get_run, files, tmp_path):
    given = ["what=interpolation", f"to={tmp_path}", f"images=['{files[0]}','{files[1]}']"]
    run_command(generate, f"run={get_run('cvae')}", *given, "label=[2,3]")
    (file,) = tmp_path.glob("interpolation*.npz")
    found = arrays(file)
    assert found["images"].shape == (1, 21, 1, 8, 8)
    assert found["y"][0, [0, -1]].tolist() == np.eye(4)[[2, 3]].tolist()
    x = torch.from_numpy(found["x"][0])
    assert set(x.unique().tolist()) == {0.0, 1.0}  # binarized as in training
    model = vaelab.load(get_run("cvae"))
    with torch.no_grad():
        ends = model(x, torch.eye(4)[[2, 3]])
    assert found["images"][0, [0, -1]] == pytest.approx(ends.numpy(), abs=1e-6)
    run_command(generate, f"run={get_run('cvae')}", *given, "label=[2,3]", "seed=1")
    (other,) = {*tmp_path.glob("interpolation*.npz")} - {file}
    assert not np.array_equal(arrays(other)["x"], found["x"])


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_generate_reads_image_files_as_the_training_did(tmp_path, fit):
    photos = tmp_path / "photos"
    for number in range(4):
        clear = noise(number, (12, 20, 4))
        clear[..., 3] = np.where(np.arange(20) < 10, 255, 0)
        save_image(photos / f"{number}.png", clear)
    run_command(
        train, "model=vae", "data=folder", f"data.source.path={photos}", "data.source.size=8",
        f"data.source.fit={fit}", "data.pixels=grey", "data.val_size=1", "data.test_size=1",
        "network=mlp", "model.latent_dim=2", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]",
        "trainer.max_epochs=1", "logger=none", f"paths.data={tmp_path}/data",
        f"hydra.run.dir={tmp_path}/run",
    )  # fmt: skip
    given = [f"images=['{photos}/2.png','{photos}/1.png']", f"paths.data={tmp_path}/data"]
    run_command(export, f"run={tmp_path}/run", f"to={tmp_path}/export", "what=safetensors")
    source = Folder(str(photos), str(tmp_path / "data"), size=8, fit=fit)
    expected = source().train_images[[2, 1]].numpy()
    for name in ("run", "export"):
        run_command(generate, f"run={tmp_path}/{name}", "what=interpolation", *given)
        (file,) = (tmp_path / name / "generated").glob("*.npz")
        assert np.rint(arrays(file)["x"][0] * 255) == pytest.approx(expected)


def test_ends_are_read_by_the_range_of_the_training(tmp_path):
    model = SimpleNamespace(x_shape=(1, 8, 8), pixels="grey", device="cpu")
    pixels = noise(0, (8, 8), np.uint16) >> 4
    paths = [str(save_image(tmp_path / f"{i}.png", pixels)) for i in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gallery.read_ends(paths, model, 0, ImageSettings(span=(0, 4095)))
    assert (found[1, 0] * 255).round().tolist() == np.rint(pixels * (255 / 4095)).tolist()
    for settings in (None, ImageSettings()):
        with pytest.warns(UserWarning, match="no pixel is above 4095, nearly black if 65535 is"):
            gallery.read_ends(paths, model, 0, settings)


@pytest.mark.parametrize(
    ("fit", "verb"), [("resize", "stretched"), ("crop", "cropped and resized")]
)
def test_ends_of_another_size_than_that_of_the_training_are_told(tmp_path, fit, verb):
    model = SimpleNamespace(x_shape=(1, 8, 8), pixels="grey", device="cpu")
    paths = [str(save_image(tmp_path / f"{i}.png", noise(i, (12, 20)))) for i in range(2)]
    with pytest.warns(UserWarning, match=f"{verb}, from 20 x 12 pixels to 8 x 8"):
        found = gallery.read_ends(paths, model, 0, ImageSettings(fit=fit))
    assert found.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"no image", "a.png: cannot be read .no image of a known format"),
        ("a.tif", None, "a.tif: cannot be read .numbers of 32 bits"),
        ("b.png", b"", "a.png: there is no such file"),
    ],
)
def test_read_ends_refuses_unfit_files_in_one_line(tmp_path, name, content, said):
    model = SimpleNamespace(x_shape=(1, 8, 8), pixels="grey", device="cpu")
    if content is None:
        save_image(tmp_path / name, noise(0, (8, 8)).astype(np.float32))
    else:
        (tmp_path / name).write_bytes(content)
    path = str(tmp_path / name.replace("b", "a"))
    with pytest.raises(UserError, match=said):
        gallery.read_ends([path, path], model, 0, ImageSettings())


INVALID_SETTINGS = [  # model, overrides (F: two image files), part of the error message
    ("vae", "run=nowhere", "nowhere is no run folder"),
    ("vae", "what=sample", "what=sample: there is no such picture; did you mean samples?"),
    ("vae", "what=xyz", "possible are all, arithmetic, gaps, interpolation, latents"),
    ("vae", "what=class_grid", "what=class_grid needs a conditional model, such as model=cvae"),
    ("vae", "what=samples label=1", "what=samples of an unconditional model takes no label"),
    ("vae", "what=manifold label=1", "what=manifold of an unconditional model takes no label"),
    ("cvae", "what=manifold label=[0,1]", "what=manifold takes one label"),
    ("cvae", "what=arithmetic label=1", "takes two labels, as in label=[3,8]"),
    ("cvae", "label=12", "label=12: the classes of label are 0, 1, 2, 3"),
    ("cvae", "label=[0,-1]", "label=-1: the classes of label are"),
    ("cvae", "label=three", "label=three: the classes of label are 0, 1"),
    ("cvae", "what=traversal label=3", "there is none of 3"),
    ("vae", "count=0", "count=0: should be greater than 0"),
    ("vae", "temperature=-1", "temperature=-1: should be greater than or equal to 0"),
    ("vae", "images=one.png", "images=one.png: should be two files, and not 1"),
    ("vae", "images=one.png,two.png", "images=one.png: there is no such file"),
    ("vae", "images=README.md,two.png", "images=README.md: cannot be read (this is no image"),
    ("vae", "what=samples images=F", "what=interpolation is not asked for"),
    ("vae", "what=interpolation label=1 images=F", "of an unconditional model takes no label"),
    ("cvae", "what=interpolation images=F", "what=interpolation between files of a conditional"),
    ("cvae", "images=F", "what=interpolation between files of a conditional model needs label="),
    ("vae", "device=abacus", "device=abacus"),
    ("vae", "wat=samples", "did you mean what?"),
]


@pytest.mark.parametrize(("model", "given", "message"), INVALID_SETTINGS)
def test_generate_refuses_invalid_settings(
    get_run, files, capsys, monkeypatch, tmp_path, model, given, message
):
    monkeypatch.chdir(CONF.parent)
    two = f"['{files[0]}','{files[1]}']"
    overrides = [override.replace("=F", f"={two}") for override in given.split()]
    with pytest.raises(SystemExit) as exit_:
        run_command(generate, f"run={get_run(model)}", f"to={tmp_path}/to", *overrides)
    assert exit_.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "to").exists()


def test_label_index_refuses_images_without_labels():
    with pytest.raises(UserError, match="label=1: this run has no labels"):
        gallery.label_index(SimpleNamespace(classes={}), 1)


def test_read_image_refuses_five_channels(files):
    with pytest.raises(UserError, match="no image file has the 5 channels"):
        read_image(files[0], (5, 8, 8))


@pytest.fixture
def export_run(get_run, tmp_path):
    """(model) -> the folder of its export, without images."""

    def export_model(model):
        run_command(export, f"run={get_run(model)}", f"to={tmp_path}/model", "what=safetensors")
        return tmp_path / "model"

    return export_model


@pytest.mark.parametrize(
    ("model", "what"),
    [("vae", {"samples", "manifold"}), ("cvae", {"samples", "class_grid", "manifold"})],
)
def test_generate_of_export_draws_only_kinds_without_images(export_run, tmp_path, model, what):
    folder = export_run(model)
    run_command(generate, f"run={folder}", "what=all", "count=4", f"to={tmp_path}/drawn")
    assert {path.stem for path in (tmp_path / "drawn").glob("*.png")} == what
    found = arrays(tmp_path / "drawn" / "samples.npz")
    assert found["images"].shape == (4, 1, 8, 8)
    if model == "cvae":
        assert found["y"].tolist() == np.eye(4).tolist()
        run_command(
            generate, f"run={folder}", "what=samples", "label=2", "count=3", f"to={tmp_path}/two"
        )
        assert arrays(tmp_path / "two" / "samples_label-2.npz")["y"].argmax(1).tolist() == [2, 2, 2]


@pytest.mark.slow
def test_generate_of_export_interpolates_between_image_files(export_run, files, tmp_path):
    given = ["what=interpolation", f"images=['{files[0]}','{files[1]}']", f"to={tmp_path}/drawn"]
    run_command(generate, f"run={export_run('vae')}", *given)
    (file,) = (tmp_path / "drawn").glob("interpolation*.npz")
    assert arrays(file)["images"].shape == (1, 21, 1, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        (generate, "what=reconstructions", "needs images, and an exported model has none"),
        (generate, "what=nearest", "needs the training images"),
        (generate, "sampler=gmm", "an exported model is without the images"),
        (evaluate, "what=samples", "is an exported model, without its images"),
    ],
)
def test_settings_that_need_images_are_refused_for_export(export_run, capsys, command, given, said):
    with pytest.raises(SystemExit) as exit_:
        run_command(command, f"run={export_run('vae')}", given)
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_commands_print_note_on_unfinished_run(get_run, tmp_path, capsys):
    folder = shutil.copytree(get_run("vae"), tmp_path / "run")
    (folder / "results.json").unlink()
    composed = folder / ".hydra" / "config.yaml"
    composed.write_text(composed.read_text().replace("max_epochs: 1", "max_epochs: 6"))
    for command, given in (
        (generate, "what=samples"),
        (evaluate, "what=reconstruction"),
        (export, "what=safetensors"),
    ):
        capsys.readouterr()
        run_command(command, f"run={folder}", given)
        assert f"{folder}: not finished, epoch 1 of 6" in capsys.readouterr().out
    capsys.readouterr()
    run_command(generate, f"run={get_run('vae')}", "what=samples", f"to={tmp_path}/drawn")
    assert "not finished" not in capsys.readouterr().out


RAMP = np.arange(256).reshape(16, 16)
WHITE_SQUARE = np.zeros((16, 16, 4), np.uint8)  # RGBA, transparent around the square
WHITE_SQUARE[4:12, 4:12] = 255


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", RAMP.astype(np.uint8)),
        ("a.png", (RAMP * 257).astype(np.uint16)),
        ("a.tiff", (RAMP * 257).astype(np.uint16)),
        ("a.tiff", (RAMP * 257).astype(np.int32)),
        ("a.tiff", (RAMP / 255).astype(np.float32)),
        ("a.tiff", (RAMP * (2**31 // 255)).astype(np.int32)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_read_image_scales_any_bit_depth_to_8_bits(tmp_path, name, pixels, channels):
    path = tmp_path / name
    Image.fromarray(pixels).save(path)
    found = read_image(path, (channels, 16, 16))
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.from_numpy(RAMP).byte().expand(channels, 16, 16))


@pytest.mark.parametrize("low_high", [(-0.5, 1.0), (0.0, 255.0), (0.0, np.nan)])
def test_read_image_refuses_floats_outside_0_to_1(tmp_path, low_high):
    pixels = np.linspace(*low_high, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    with pytest.raises(
        UserError, match=r"a.tiff: its pixels reach from .*, and should from 0 to 1"
    ):
        read_image(tmp_path / "a.tiff", (1, 16, 16))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_read_image_makes_transparent_pixels_black(tmp_path, mode):
    image = Image.fromarray(WHITE_SQUARE, "RGBA")
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = image.quantize(2)
    image.save(tmp_path / "a.png")
    for channels in (1, 3):
        found = read_image(tmp_path / "a.png", (channels, 16, 16))
        assert torch.equal(found[0], torch.from_numpy(WHITE_SQUARE[..., 3]))
    kept = read_image(tmp_path / "a.png", (4, 16, 16))
    assert torch.equal(kept[3], torch.from_numpy(WHITE_SQUARE[..., 3]))


def test_read_image_warns_if_image_is_made_smaller(tmp_path):
    Image.new("L", (1400, 900)).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="a.png: made smaller, from 1400 x 900 pixels to 28 x 28"):
        read_image(tmp_path / "a.png", (1, 28, 28))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(tmp_path / "a.png", (1, 900, 1400))
        read_image(tmp_path / "a.png", (1, 1000, 1000))


def test_generate_to_folder_joins_pictures_of_several_runs(get_run, tmp_path, capsys):
    folders = [get_run("vae"), get_run("cvae")]
    capsys.readouterr()
    given = ["what=[samples,gaps]", "count=4", f"to={tmp_path}/both"]
    run_command(generate, f"run={folders[0]},{folders[1]}", *given)
    assert f"{tmp_path}/both/samples.png" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"samples.png", "gaps.png"}
    whole = np.asarray(Image.open(tmp_path / "both" / "gaps.png"))
    for folder in folders:
        part = np.asarray(Image.open(folder / "generated" / "gaps.png").convert("RGB"))
        windows = np.lib.stride_tricks.sliding_window_view(whole[-part.shape[0] :], part.shape)
        assert (windows == part).all((-3, -2, -1)).any()
