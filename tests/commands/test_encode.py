"""Tests of `encode.py`, against the model, the data and the evaluation of runs."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from support.commands import run_command
from support.image_folders import noise, save_image

import vaelab
from vaelab.commands import encode, evaluate, export, train
from vaelab.runs import finished

DATA = Path(os.environ.get("VAELAB_DATA", "data"))
CLOTHES = DATA / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
BOUNDS = ["distortion", "rate", "elbo", "nll"]
KINDS = {
    "vae": ["model=vae", "likelihood=bernoulli"],
    "cvae": ["model=cvae", "likelihood=bernoulli"],
    "gaussian": ["model=vae", "likelihood=gaussian"],
    "ae": ["model=ae", "likelihood=bernoulli"],
}


@pytest.fixture(scope="module")
def get_run(tmp_path_factory):
    """(kind) -> the folder of its run, trained at the first call on bits of classes a, b and c."""
    folder = tmp_path_factory.mktemp("runs")
    bits = np.random.default_rng(0).integers(0, 2, (260, 8, 8), np.uint8) * 255
    labels = np.array(["a", "b", "c"])[np.arange(260) % 3]
    np.savez(folder / "mine.npz", train_images=bits, train_labels=labels)

    def train_run(kind):
        if not (folder / kind).exists():
            run_command(
                train, *KINDS[kind], "data=arrays", f"data.source.path={folder}/mine.npz",
                "data.val_size=30", "data.test_size=130", "data.batch_size=10", "network=mlp",
                "model.latent_dim=2", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]",
                "trainer.max_epochs=1", "logger=none", f"hydra.run.dir={folder}/{kind}",
            )  # fmt: skip
        return folder / kind

    return train_run


def encoded(run, *settings):
    """Encodes images of a run to its encoded.npz, and returns the arrays of that."""
    run_command(encode, f"run={run}", *settings)
    with np.load(run / "encoded.npz", allow_pickle=False) as file:
        return dict(file)


def mine(run):
    """The images and labels that the runs were trained on."""
    with np.load(run.parent / "mine.npz") as file:
        return file["train_images"], file["train_labels"]


@pytest.mark.parametrize("kind", ["cvae", "gaussian"])
def test_means_of_encoded_test_images_are_those_of_evaluate(get_run, kind):
    run = get_run(kind)
    found = encoded(run, "num_samples=7", "seed=3")
    run_command(evaluate, f"run={run}", "what=likelihood", "num_samples=7", "seed=3")
    measured = json.loads((run / "evaluation.json").read_text())
    assert len(found["nll"]) == 130
    for name in BOUNDS:
        assert found[name].astype(np.float64).mean() == measured[name]["value"]
    rates = found["mean"].var(0)
    assert rates.shape == (2,)


def test_encode_describes_what_it_wrote(get_run, capsys):
    capsys.readouterr()
    found = encoded(get_run("cvae"), "num_samples=2")
    names = ["index", "label", "mean", "scale", *BOUNDS, "score", "quantile", "settings"]
    assert [*found] == names
    said = capsys.readouterr().out
    assert "encoded.npz  130 images: index, label, mean (2), scale (2), distortion" in said
    assert said.endswith("score is nll\n")
    settings = json.loads(str(found["settings"]))
    assert settings["images"] == "test"
    assert (settings["score"], settings["num_samples"], settings["seed"]) == ("nll", 2, 0)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_index_says_which_image_of_the_data_a_row_is(get_run, part):
    run = get_run("cvae")
    found = encoded(run, f"images={part}", "num_samples=1", "reference=0")
    images, labels = mine(run)
    assert (labels[found["index"]] == found["label"]).all()
    model, data = finished.load_run(run)
    assert sorted(found["index"]) == sorted(data.rows[part].tolist())
    y = torch.eye(3)[[model.label_names.index(name) for name in found["label"]]]
    x = torch.from_numpy(images[found["index"], None]).float() / 255  # bits, and so not random
    with torch.no_grad():
        q = model.latent_posterior(x, y)
    np.testing.assert_allclose(found["mean"], q.mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["scale"], q.stddev.numpy(), atol=1e-5)


def test_same_command_writes_the_same_bytes(get_run):
    run = get_run("gaussian")
    before = {path: path.read_bytes() for path in run.rglob("*.ckpt")}
    encoded(run, "num_samples=3")
    first = (run / "encoded.npz").read_bytes()
    encoded(run, "num_samples=3")
    assert (run / "encoded.npz").read_bytes() == first
    assert before == {path: path.read_bytes() for path in run.rglob("*.ckpt")}


def test_score_and_quantile_among_validation_images(get_run):
    run = get_run("vae")
    found = encoded(run, "images=test", "num_samples=0", "score=rate", "reference=all")
    of_val = encoded(run, "images=val", "num_samples=0", "reference=0")
    assert "quantile" not in of_val
    assert (of_val["score"] == -of_val["elbo"]).all()
    assert (found["score"] == found["rate"]).all()
    shares = (of_val["rate"][None] <= found["rate"][:, None] + 1e-6).mean(1)
    np.testing.assert_allclose(found["quantile"], shares, atol=1 / 30 + 1e-6)
    few = encoded(run, "images=test", "num_samples=0", "score=rate", "reference=4")
    assert {*np.unique(few["quantile"])} <= {0, 0.25, 0.5, 0.75, 1}


def test_encode_file_of_images_with_labels(get_run, tmp_path):
    run = get_run("cvae")
    images, labels = mine(run)
    every = encoded(run, f"images={run.parent}/mine.npz", "num_samples=1")
    assert every["label"].tolist() == labels.tolist()
    of_test = encoded(run, "images=test", "num_samples=1")
    np.testing.assert_allclose(every["mean"][of_test["index"]], of_test["mean"], atol=1e-5)
    np.save(tmp_path / "mine.npy", images / 255.0)
    path = f"images={tmp_path}/mine.npy"
    told = encoded(run, path, "range=[0,1]", "label=b", "num_samples=1")
    assert {*told["label"]} == {"b"}
    same = labels == "b"
    np.testing.assert_allclose(told["mean"][same], every["mean"][same], atol=1e-5)
    assert not np.isclose(told["mean"][~same], every["mean"][~same]).all()


def test_label_is_told_in_place_of_test_labels(get_run):
    run = get_run("cvae")
    own, told = (encoded(run, "num_samples=1", *label) for label in ([], ["label=b"]))
    same = own["label"] == "b"
    assert {*told["label"]} == {"b"}
    np.testing.assert_allclose(told["mean"][same], own["mean"][same], atol=1e-5)
    assert not np.isclose(told["mean"][~same], own["mean"][~same]).all(1).any()


def test_encode_folder_of_images(get_run, tmp_path):
    run = get_run("cvae")
    images, labels = mine(run)
    for i in range(6):
        path = tmp_path / "photos" / labels[i] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(path)
    run_command(encode, f"run={run}", f"images={tmp_path}/photos", f"to={tmp_path}/new/x.csv")
    table = pd.read_csv(tmp_path / "new" / "x.csv")
    files = [f"{name}/{i}.png" for name, first in zip("abc", range(3), strict=True)
             for i in (first, first + 3)]  # fmt: skip
    assert [*table.columns[:4]] == ["index", "file", "label", "mean_0"]
    assert table["file"].tolist() == files
    assert table["label"].tolist() == [*"aabbcc"]
    every = encoded(run, f"images={run.parent}/mine.npz", "num_samples=1")
    np.testing.assert_allclose(table["mean_1"], every["mean"][[0, 3, 1, 4, 2, 5], 1], atol=1e-5)
    run_command(encode, f"run={run}", f"images={tmp_path}/photos/a/0.png", "label=a")
    with np.load(run / "encoded.npz") as file:
        np.testing.assert_allclose(file["mean"][0], every["mean"][0], atol=1e-5)


def test_each_of_several_runs_has_its_own_file(get_run, capsys):
    runs = [get_run(kind) for kind in ("vae", "ae")]
    asked = f"run={runs[0]},{runs[1]}"
    capsys.readouterr()
    run_command(encode, asked, "num_samples=1", "to=z.parquet")
    said = capsys.readouterr().out
    assert "scale, rate, elbo and nll left out: its latents are points" in said
    tables = [pd.read_parquet(run / "z.parquet") for run in runs]
    assert "nll" in tables[0]
    assert (tables[1]["score"] == tables[1]["distortion"]).all()
    with pytest.raises(SystemExit) as error:
        run_command(encode, asked, "score=rate", "to=y.npz")
    assert error.value.code == 2
    assert f"error: {runs[1]}: score=rate: takes a density of latents" in capsys.readouterr().err
    assert (runs[0] / "y.npz").exists()
    assert not (runs[1] / "y.npz").exists()


def test_exported_model_encodes_images_of_ones_own(get_run, tmp_path, capsys):
    run = get_run("cvae")
    run_command(export, f"run={run}", f"to={tmp_path}/model", "what=safetensors")
    given = [f"images={run.parent}/mine.npz", "num_samples=2"]
    expected, found = (encoded(folder, *given) for folder in (run, tmp_path / "model"))
    assert "quantile left out: an export has no validation images" in capsys.readouterr().out
    for name in ("mean", "nll", "score"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    assert "quantile" not in found
    with pytest.raises(SystemExit):
        run_command(encode, f"run={tmp_path}/model")
    assert "images=test: an exported model is without its images" in capsys.readouterr().err


@pytest.fixture(scope="module")
def number_runs(tmp_path_factory):
    """The folder of runs `vectors` and `signals`, and of the files that they were trained on."""
    folder = tmp_path_factory.mktemp("numbers")
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        random.normal([5, -3000, 0.01], [2, 100, 0.001], (60, 3)), columns=[*"abc"]
    )
    table["kind"] = np.array(["x", "y"])[np.arange(60) % 2]
    table["id"] = [f"row {i}" for i in range(60)]
    table.to_csv(folder / "table.csv", index=False)
    np.save(folder / "signals.npy", random.normal(3, 2, (60, 2, 16)).astype(np.float32))
    common = ["network=mlp", "model.latent_dim=2", "model.encoder.hidden=[8]", "logger=none",
              "model.decoder.hidden=[8]", "data.batch_size=10", "trainer.max_epochs=1"]  # fmt: skip
    run_command(
        train, "model=cvae", "data=vectors", f"data.source.path={folder}/table.csv", *common,
        "data.source.label=kind", "data.source.leave_out=[id]", f"hydra.run.dir={folder}/vectors",
    )  # fmt: skip
    run_command(
        train, "data=signals", f"data.source.path={folder}/signals.npy", *common,
        f"hydra.run.dir={folder}/signals",
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".npy", ".npz"])
def test_encode_vectors_by_the_names_of_their_columns(number_runs, tmp_path, suffix, capsys):
    run, table = number_runs / "vectors", pd.read_csv(number_runs / "table.csv")
    path, x = tmp_path / f"mine{suffix}", table[[*"abc"]].to_numpy()
    shuffled = table[["kind", "c", "id", "a", "b"]]
    more = []
    if suffix == ".parquet":
        shuffled.to_parquet(path)
    elif suffix in (".csv", ".tsv"):
        shuffled.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    elif suffix == ".npz":
        np.savez(path, test_x=x, test_labels=table["kind"].to_numpy(str))
    else:
        np.save(path, x)
        more = ["label=x"]
    capsys.readouterr()
    found = encoded(run, f"images={path}", "num_samples=2", *more)
    told = capsys.readouterr().out
    assert ("not used: id" in told) == (suffix in (".csv", ".tsv", ".parquet"))
    assert "60 vectors: " in told
    labels = ["x"] * 60 if more else table["kind"].tolist()
    assert found["label"].tolist() == labels
    model = vaelab.load(run)
    np.testing.assert_allclose(found["mean"], model.encode(x, labels).mean, atol=1e-5)
    of_test = encoded(run, "images=test", "num_samples=2")
    if not more:
        here = found["mean"][of_test["index"]]
        np.testing.assert_allclose(here, of_test["mean"], atol=1e-5)


def test_encode_signals(number_runs, tmp_path):
    run, x = number_runs / "signals", np.load(number_runs / "signals.npy")
    found = encoded(run, f"images={number_runs}/signals.npy", "num_samples=2")
    of_test = encoded(run, "images=test", "num_samples=2")
    np.testing.assert_allclose(found["mean"][of_test["index"]], of_test["mean"], atol=1e-5)
    np.testing.assert_allclose(found["mean"], vaelab.load(run).encode(x).mean, atol=1e-5)
    np.savez(tmp_path / "mine.npz", x=x[:5], y=np.arange(5))
    some = encoded(run, f"images={tmp_path}/mine.npz", "num_samples=2")
    np.testing.assert_allclose(some["mean"], found["mean"][:5], atol=1e-5)


WRONG_NUMBERS = {
    "vectors images=no_column.csv": "has no column b, as the training had; its columns are a, c",
    "vectors images=missing.csv": "column b, row 2: is empty",
    "vectors images=text.csv": "column a, row 1: 'one' is no number",
    "vectors images=class.csv": "z: the classes of label are x, y",
    "vectors images=unlabelled.csv": "this model is told the label of each image",
    "vectors images=wide.npy label=x": "have shape (3, 4), and this model takes vectors",
    "vectors images=nan.npy label=x": "the numbers[1], b, is nan",
    "vectors images=wide.npy label=x range=[0,1]": "range is for images",
    "vectors images=photos label=x": "photos: is a folder; this model takes vectors of 3",
    "signals images=wide.npy": "this model takes signals of 16 steps x 2",
    "signals images=class.csv": "is a table; this model takes signals of 16 steps x 2",
}


@pytest.mark.parametrize("case", WRONG_NUMBERS)
def test_encode_refuses_wrong_numbers_in_one_line(number_runs, tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "no_column": "a,c,kind\n1,2,x\n",
        "missing": "a,b,c,kind\n1,2,3,x\n1,,3,x\n",
        "text": "a,b,c,kind\none,2,3,x\n",
        "class": "a,b,c,kind\n1,2,3,z\n",
        "unlabelled": "a,b,c\n1,2,3\n",
    }.items():
        Path(f"{name}.csv").write_text(text)
    np.save("wide.npy", np.zeros((3, 4)))
    np.save("nan.npy", np.where(np.arange(9) == 4, np.nan, 1.0).reshape(3, 3))
    Path("photos").mkdir()
    run, *words = case.split()
    with pytest.raises(SystemExit) as error:
        run_command(encode, f"run={number_runs / run}", "num_samples=1", *words)
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert WRONG_NUMBERS[case] in line
    assert "data.source" not in line


def test_encode_passes_over_broken_files_if_told(get_run, tmp_path, capsys):
    run, (images, _) = get_run("vae"), mine(get_run("vae"))
    for i in range(4):
        Image.fromarray(images[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    broken = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(broken[: len(broken) // 2])
    with pytest.raises(SystemExit):
        run_command(encode, f"run={run}", f"images={tmp_path}", "num_samples=1")
    assert "1.png: cannot be read" in capsys.readouterr().err
    found = encoded(run, f"images={tmp_path}", "num_samples=1", "broken=skip")
    assert found["file"].tolist() == ["0.png", "3.png"]
    assert "broken files passed over: 2 (1.png, 2.png)" in capsys.readouterr().out
    whole = encoded(run, f"images={run.parent}/mine.npz", "num_samples=1")
    np.testing.assert_allclose(found["mean"], whole["mean"][[0, 3]], atol=1e-5)
    for i in (0, 3):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(SystemExit):
        run_command(encode, f"run={run}", f"images={tmp_path}", "num_samples=1", "broken=skip")
    assert "none of 2 images can be decoded" in capsys.readouterr().err


def test_run_and_export_read_files_on_the_scale_of_the_training(get_run, tmp_path, capsys):
    images, _ = mine(get_run("vae"))
    signed = images / 127.5 - 1
    signed[:100] *= 0.3  # greys
    np.save(tmp_path / "mine.npy", signed)
    run = tmp_path / "run"
    run_command(
        train, "model=vae", "data=arrays", f"data.source.path={tmp_path}/mine.npy", "network=mlp",
        "data.pixels=grey", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]",
        "trainer.max_epochs=1", "logger=none", f"hydra.run.dir={run}",
    )  # fmt: skip
    run_command(export, f"run={run}", f"to={tmp_path}/export", "what=safetensors")
    assert "have black -1, white 1" in (tmp_path / "export" / "README.md").read_text()
    of_test = encoded(run, "images=test", "num_samples=0")
    np.save(tmp_path / "greys.npy", signed[:100])  # alone they would look as if from -0.3 to 0.3
    np.save(tmp_path / "bytes.npy", np.rint((signed + 1) * 127.5).astype(np.uint8))
    capsys.readouterr()
    for folder in (run, tmp_path / "export"):
        every = encoded(folder, f"images={tmp_path}/mine.npy", "num_samples=0")
        here = every["mean"][of_test["index"]]
        np.testing.assert_allclose(here, of_test["mean"], atol=1e-5)
        for name in ("greys", "bytes"):
            found = encoded(folder, f"images={tmp_path}/{name}.npy", "num_samples=0")
            np.testing.assert_allclose(found["mean"][:100], every["mean"][:100], atol=1e-5)
        model = vaelab.load(folder)
        np.testing.assert_allclose(model.encode(signed).mean, every["mean"], atol=1e-5)
    np.save(tmp_path / "outside.npy", signed * 2)
    with pytest.raises(SystemExit):
        run_command(encode, f"run={run}", f"images={tmp_path}/outside.npy", "num_samples=0")
    assert "floats are in [-1, 1], and these are -2 to 2; give" in capsys.readouterr().err


@pytest.mark.parametrize(
    "make", [np.array, lambda x: x / 255, lambda x: x > 0, lambda x: x / 255.0]
)
def test_encode_channels_last_and_floats_as_data_arrays_does(get_run, tmp_path, capsys, make):
    run, (images, _) = get_run("vae"), mine(get_run("vae"))
    np.save(tmp_path / "mine.npy", make(images)[..., None])
    found = encoded(run, f"images={tmp_path}/mine.npy", "num_samples=1")
    assert "channels last, as images of shape (260, 8, 8, 1) say" in capsys.readouterr().out
    whole = encoded(run, f"images={run.parent}/mine.npz", "num_samples=1")
    assert (found["mean"] == whole["mean"]).all()


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """A run of images of 12 bits in classes and parts, and the folder `photos` beside it."""
    folder = tmp_path_factory.mktemp("folder")
    for number in range(24):
        part = "train" if number < 18 else "test"
        path = folder / "photos" / part / "ab"[number % 2] / f"{number:02}.pgm"
        save_image(path, noise(number, (8, 8), np.uint16) >> 4)
    run_command(
        train, "model=cvae", "data=folder", f"data.source.path={folder}/photos", "network=mlp",
        "data.source.range=[0,4095]", "data.val_size=6", "model.latent_dim=2", "data.pixels=grey",
        "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "trainer.max_epochs=1",
        "logger=none", f"paths.data={folder}/data", f"hydra.run.dir={folder}/run",
    )  # fmt: skip
    return folder


def test_encode_reads_the_folder_of_the_training_as_the_training_did(folder_run, tmp_path, capsys):
    run, given = folder_run / "run", ["num_samples=0", f"paths.data={folder_run}/data"]
    capsys.readouterr()
    found = encoded(run, f"images={folder_run}/photos", *given)
    assert "photos: all images scaled from more than 8 bits to 8" in capsys.readouterr().out
    assert found["label"].tolist() == [name.split("/")[1] for name in found["file"]]
    of_test = encoded(run, "images=test", *given)
    at_test = [name.startswith("test/") for name in found["file"]]
    np.testing.assert_allclose(found["mean"][at_test], of_test["mean"], atol=1e-5)
    run_command(export, f"run={run}", f"to={tmp_path}/export", "what=safetensors")
    of_export = encoded(tmp_path / "export", f"images={folder_run}/photos", *given)
    np.testing.assert_array_equal(of_export["mean"], found["mean"])
    single = next((folder_run / "photos" / "test").rglob("*.pgm"))
    alone = encoded(run, f"images={single}", "label=a", *given)
    assert len(alone["mean"]) == 1
    for name in ("1", "2"):
        (tmp_path / "few" / "a" / name).mkdir(parents=True)
        shutil.copy(single, tmp_path / "few" / "a" / name)
    assert encoded(run, f"images={tmp_path}/few", *given)["label"].tolist() == ["a", "a"]


def test_range_of_encode_is_that_of_image_files(get_run, tmp_path, capsys):
    run, (images, _) = get_run("vae"), mine(get_run("vae"))
    save_image(tmp_path / "a.png", images[0].astype(np.uint16) // 255 * 4095)
    found = encoded(run, f"images={tmp_path}/a.png", "num_samples=0", "range=[0,4095]")
    whole = encoded(run, f"images={run.parent}/mine.npz", "num_samples=0")
    np.testing.assert_allclose(found["mean"][0], whole["mean"][0], atol=1e-5)
    capsys.readouterr()
    for wrong, said in (("[0,100]", "beyond range=[0,100]"), ("[1,0]", "range=[1,0] should rise")):
        with pytest.raises(SystemExit):
            run_command(encode, f"run={run}", f"images={tmp_path}/a.png", f"range={wrong}")
        assert f" {said}" in capsys.readouterr().err


REFUSED = {
    "vae": {
        ("to=x.txt",): "to=x.txt: should end in .npz, .csv, .parquet",
        ("label=a",): "label=a: this model is told no labels",
        ("images=nowhere",): "images=nowhere: there is no such file or folder; it may also be tr",
        ("num_samples=0", "score=nll"): "score=nll: takes num_samples of 1 or more",
        ("num_samples=-1",): "num_samples",
        ("score=best",): "score",
        ("images={}/rgb.npz",): "the images are 3 x 8 x 8, and this model takes 1 x 8 x 8",
        ("images={}/floats.npy",): "say which values are black and white: range=[0,3]",
        ("images={}/floats.npy", "range=[1,0]"): "range=[1,0] should rise",
        ("images={}/photos",): "is 9 x 7 pixels, and this model takes 8 x 8; resize=true",
        ("images={}/both.npz",): "has test_images, val_images; say which, as in array=val_images",
    },
    "cvae": {
        ("label=d",): "label=d: the classes of label are a, b, c",
        ("images={}/photos", "resize=true"): "this model is told the label of each image; give la",
        ("images={}/labels.npz",): "d: the classes of label are a, b, c",
    },
}


@pytest.mark.parametrize(("kind", "given"), [(k, given) for k in REFUSED for given in REFUSED[k]])
def test_encode_refuses_in_one_line_and_writes_nothing(get_run, tmp_path, capsys, kind, given):
    run = Path(shutil.copytree(get_run(kind), tmp_path / "run"))
    (run / "encoded.npz").unlink(missing_ok=True)
    bits = np.random.default_rng(1).integers(0, 2, (2, 8, 8), np.uint8) * 255
    np.savez(tmp_path / "rgb.npz", images=np.stack([bits] * 3, 1))
    np.save(tmp_path / "floats.npy", bits / 85.0)
    np.savez(tmp_path / "both.npz", test_images=bits, val_images=bits)
    np.savez(tmp_path / "labels.npz", images=bits, labels=np.array(["a", "d"]))
    (tmp_path / "photos").mkdir()
    Image.new("L", (9, 7), 255).save(tmp_path / "photos" / "x.png")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        run_command(encode, f"run={run}", *(word.format(tmp_path) for word in given))
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert REFUSED[kind][given] in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.skipif(not CLOTHES.exists(), reason="needs Fashion-MNIST")
def test_scores_of_digits_model_find_clothes(tmp_path):
    run = tmp_path / "digits"
    run_command(
        train, "model=vae", "network=mlp", "model.encoder.hidden=[64]", "model.latent_dim=8",
        "model.decoder.hidden=[64]", "trainer.max_epochs=5", "logger=none", f"hydra.run.dir={run}",
    )  # fmt: skip
    few = ["num_samples=10", "reference=200"]
    digits = encoded(run, *few)
    clothes = np.frombuffer(CLOTHES.read_bytes(), np.uint8, 300 * 28 * 28, offset=16)
    np.savez(tmp_path / "clothes.npz", images=clothes.reshape(300, 28, 28))
    strange = encoded(run, f"images={tmp_path}/clothes.npz", *few)
    truth = np.repeat([0, 1], [len(digits["score"]), len(strange["score"])])
    scores = np.concatenate([digits["score"], strange["score"]])
    assert roc_auc_score(truth, scores) > 0.95
    assert np.median(strange["quantile"]) > 0.99
    assert 0.3 < np.median(digits["quantile"]) < 0.7
    assert vaelab.load(run).x_shape == (1, 28, 28)


def test_encode_finds_the_labels_that_the_training_found(get_run, tmp_path):
    images, labels = mine(get_run("cvae"))
    small = ["network=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "logger=none"]
    small += ["trainer.max_epochs=1", "likelihood=bernoulli"]
    np.savez(tmp_path / "mine.npz", X=images, y=labels)
    source = ["data=arrays", f"data.source.path={tmp_path}/mine.npz"]
    run_command(train, "model=cvae", *source, *small, f"hydra.run.dir={tmp_path}/run")
    found = encoded(tmp_path / "run", f"images={tmp_path}/mine.npz", "num_samples=0")
    assert found["label"].tolist() == labels.tolist()

    table = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    table["kind"] = ["u", "v"] * 30
    table.to_csv(tmp_path / "mine.csv", index=False)
    source = ["data=vectors", f"data.source.path={tmp_path}/mine.csv", "data.source.label=kind"]
    run_command(train, "model=cvae", *source, *small[1:5], f"hydra.run.dir={tmp_path}/table")
    run_command(export, f"run={tmp_path}/table", f"to={tmp_path}/export", "what=safetensors")
    for folder in ("table", "export"):
        found = encoded(tmp_path / folder, f"images={tmp_path}/mine.csv", "num_samples=0")
        assert found["label"].tolist() == table["kind"].tolist()


@pytest.mark.parametrize(
    "make", [lambda k: np.eye(3)[k], lambda k: np.array([b"x", b"y", b"z"])[k]]
)
def test_labels_that_no_model_knows_may_be_one_hot_or_bytes(get_run, tmp_path, make):
    run, kinds = get_run("vae"), np.arange(12) % 3
    images = mine(run)[0][:12]
    np.savez(tmp_path / "mine.npz", test_images=images, test_labels=make(kinds))
    found = encoded(run, f"images={tmp_path}/mine.npz", "num_samples=0")["label"]
    assert found.tolist() in (kinds.tolist(), [["x", "y", "z"][k] for k in kinds])
