"""Tests of vaelab from Python: `fit`, `build`, `compose` and `Run`, against the command line."""

import random
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vaelab
from vaelab.api import arrays as given
from vaelab.api.overrides import keyword_overrides
from vaelab.commands import evaluate, train
from vaelab.commands.arguments import choices_in
from vaelab.commands.config_folders import CONF
from vaelab.errors import UserError
from vaelab.evaluation.encoding import encode_images
from vaelab.observations import PixelScale
from vaelab.runs.loading import earlier_scale
from vaelab.training.callbacks.checkpoint import load_checkpoint

VARIANTS = choices_in(CONF / "model")
NARROW = {
    "network": "mlp",
    "latent_dim": 4,
    "encoder": {"hidden": [8]},
    "decoder": {"hidden": [8]},
}
QUICK = {**NARROW, "epochs": 1, "batch_size": 20, "logger": "none", "likelihood": "bernoulli"}
IMAGES = np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8)
LABELS = np.arange(90) % 3


@pytest.fixture(autouse=True)
def in_new_folder(tmp_path, monkeypatch):
    """Works in a new folder, with its own folder of data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAELAB_DATA", str(tmp_path / "data"))


def quick(model, **settings):
    """Returns the settings of a quick run of a variant."""
    narrow = {"model.posterior.width=2"} if model == "vq_vae" else set()
    return QUICK | {"model": model, "overrides": [*narrow], "evaluate": []} | settings


@pytest.mark.parametrize("model", VARIANTS)
def test_five_lines_work_for_every_variant(model, tmp_path):
    run = vaelab.fit(IMAGES, LABELS, folder="run", **quick(model))
    assert run.folder.resolve() == tmp_path / "run"
    made, some = run.model, (IMAGES[:6], LABELS[:6])
    assert made.sample(5).shape == (5, 1, 8, 8)
    if model == "cvae":
        assert made.sample(5, label=2).shape == (5, 1, 8, 8)
    assert made.encode(*some).mean.shape == (6, made.latent_dim)
    assert made.reconstruct(*some).shape == (6, 1, 8, 8)
    if model in ("ae", "rae", "wae"):
        with pytest.raises(UserError, match="no density"):
            made.log_evidence(*some)
    else:
        assert made.log_evidence(*some, num_samples=10).isfinite().all()
    assert {"reconstructions", "samples"} <= run.figures().keys()
    assert run.figures()._repr_html_().count("<img") == len(run.figures())
    assert run.evaluate("reconstruction")["mse"]["value"] > 0
    loaded = vaelab.load(run)
    assert all(torch.equal(a, loaded.state_dict()[n]) for n, a in made.state_dict().items())


def test_fit_is_the_run_of_the_command_line(monkeypatch, tmp_path):
    np.savez("mine.npz", train_images=IMAGES, train_labels=LABELS)
    run = vaelab.fit(IMAGES, LABELS, folder="a", **quick("cvae", seed=3))
    words = "model=cvae network=mlp likelihood=bernoulli model.latent_dim=4 data.batch_size=20"
    words += " model.encoder.hidden=[8] model.decoder.hidden=[8] logger=none trainer.max_epochs=1"
    words += " data=arrays data.source.path=mine.npz seed=3 hydra.run.dir=b"
    monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])
    train.main()
    other = vaelab.Run("b")
    metrics = [name for name in run.results if name.startswith(("val/", "test/"))]
    assert len(metrics) > 5
    assert all(run.results[name] == other.results[name] for name in metrics)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "run=b", "what=likelihood", "num_samples=5"])
    evaluate.main()
    assert run.evaluate("likelihood", num_samples=5) == other.evaluate("likelihood", num_samples=5)


def test_second_fit_in_a_folder_returns_the_finished_run(capsys):
    first = vaelab.fit(IMAGES, folder="run", **quick("vae"))
    capsys.readouterr()
    again = vaelab.fit(IMAGES, folder="run", **quick("vae"))
    assert "is finished" in capsys.readouterr().out
    assert again.results == first.results
    with pytest.raises(UserError, match=r'holds a run with data=\{"source": \{"path": '):
        vaelab.fit(IMAGES[:50], folder="run", **quick("vae"))


def test_fit_leaves_random_states_and_working_folder(tmp_path):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    vaelab.fit(IMAGES, **quick("vae"))
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(2) == expected[1]).all()  # noqa: NPY002
    assert random.random() == expected[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "outputs"]
    with pytest.raises(ValueError, match="scale"):  # torch.distributions checks again
        torch.distributions.Normal(0.0, -1.0)


class Pairs(Dataset):
    """Images as floats with names as labels."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        return torch.from_numpy(IMAGES[i]).float()[None] / 255, ["cat", "dog", "cow"][LABELS[i]]


SOURCES = {
    "numpy": (IMAGES, LABELS),
    "floats": (IMAGES / 255, LABELS),
    "signed floats": (torch.from_numpy(IMAGES) / 127.5 - 1, LABELS),
    "torch": (torch.from_numpy(IMAGES)[:, None], torch.from_numpy(LABELS)),
    "lists": ([*IMAGES], LABELS.tolist()),
    "names": (IMAGES, [f"class {i}" for i in LABELS]),
    "pandas": (IMAGES, pd.Series([f"class {i}" for i in LABELS])),
    "one-hot": (IMAGES, np.eye(3)[LABELS]),
    "dataset of pairs": (Pairs(), None),
    "tensor dataset": (TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS)), None),
    "dictionary": ({"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:9],
                    "test_labels": LABELS[:9]}, None),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_images_and_labels_in_every_form_are_the_same_data(source):
    run = vaelab.fit(*SOURCES[source], folder="run", **quick("cvae"))
    splits = run.data.splits
    assert torch.equal(splits.train_images, torch.from_numpy(IMAGES)[:, None])
    names = splits.column("label").class_names
    classes = [names[i] for i in splits.train_labels[:6].tolist()]
    assert len(set(classes[:3])) == 3
    assert classes[:3] == classes[3:]
    assert run.model.sample(2, label=classes[0]).shape == (2, 1, 8, 8)


class Normalised(Pairs):
    """Images as floats from -1 to 1, as after torchvision's Normalize(0.5, 0.5)."""

    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image * 2 - 1, label


SCALES = {  # images, their range if it has to be given, and how the same images are later given
    "[0, 1]": (IMAGES / 255, None, IMAGES / 255),
    "[-1, 1]": (IMAGES / 127.5 - 1, None, IMAGES / 127.5 - 1),
    "floats to 255": (IMAGES.astype(np.float32), None, IMAGES.astype(np.float32)),
    "data set": (Normalised(), None, np.float32(IMAGES)[:, None] / 127.5 - 1),
    "16 bits": (IMAGES.astype(np.uint16) * 257, "[0,65535]", IMAGES.astype(np.uint16) * 257),
    "digits": (IMAGES / 255 * 16, "[0,16]", IMAGES / 255 * 16),
    "channels last": (IMAGES[..., None] / 127.5 - 1, None, IMAGES[..., None] / 127.5 - 1),
}


@pytest.mark.parametrize("case", SCALES)
def test_images_mean_the_same_to_fit_model_and_encode(case):
    images, span, later = SCALES[case]
    more = [f"data.source.range={span}"] if span else []
    settings = quick("vae", likelihood="gaussian", overrides=["data.pixels=grey", *more])
    run = vaelab.fit(images, folder="run", **settings)
    bytes_ = torch.from_numpy(IMAGES)[:, None]
    assert torch.equal(run.data.splits.train_images, bytes_)
    for model in (run.model, vaelab.load("run"), vaelab.load("run", checkpoint="last")):
        found = model.inputs(later)[0]
        assert torch.allclose(found, bytes_ / 255, atol=1e-6)
        dark = later.min() + (later[:5] - later.min()) * 0.02  # read alone as among others
        alone, among = model.inputs(dark)[0], model.inputs(np.concatenate([dark, later]))[0]
        assert torch.equal(alone, among[:5])
        assert alone.max() < 0.03
    rows = encode_images(run.model, later, num_samples=0)
    wanted = run.model.encode(later).mean
    assert np.allclose(rows["mean"], wanted, atol=1e-5)
    darker = encode_images(run.model, dark.astype(later.dtype), num_samples=0)
    wanted = run.model.encode(dark.astype(later.dtype)).mean  # unrounded, of floats in [0, 1]
    assert np.allclose(darker["mean"], wanted, atol=0.02)
    again = vaelab.fit(run.data, folder="again", **settings | {"overrides": ["data.pixels=grey"]})
    assert again.model.pixel_scale == run.model.pixel_scale
    assert again.results["test/elbo"] == run.results["test/elbo"]
    (returned,) = [vaelab.fit(images, folder="run", **settings)]  # it is finished
    assert returned.results == run.results
    restored = run.model.reconstruct(later)
    white, black = run.model.pixel_scale.floats[1], run.model.pixel_scale.floats[0]
    x = run.model(later)
    assert torch.allclose(restored, black + x * (white - black), rtol=1e-4, atol=1e-4)


def test_earlier_run_reads_images_by_the_range_of_its_configuration(monkeypatch):
    settings = quick("vae", overrides=["data.source.range=[-1,1]"])
    with monkeypatch.context() as patch:
        patch.setattr(PixelScale, "is_default", True)  # so that no checkpoint has the scale
        vaelab.fit(IMAGES / 127.5 - 1, folder="run", **settings)
    assert (
        "pixel_scale" not in load_checkpoint(Path("run/checkpoints/last.ckpt"))["vaelab"]["shapes"]
    )
    for model in (vaelab.load("run"), vaelab.Run("run").model):
        assert model.pixel_scale == PixelScale(floats=(-1, 1))
        assert model.encode(IMAGES[:3] / 127.5 - 1).mean.shape == (3, 4)


@pytest.mark.parametrize("span", ["abc", [1], ["b", "c"], [1, 0], {"a": 1}, None, "${oc.env:HOME}"])
def test_configuration_without_a_range_says_nothing_of_the_scale(span):
    source = {"_target_": "vaelab.data.Arrays", "range": span}
    assert earlier_scale(OmegaConf.create({"data": {"source": source}})) == {}
    assert earlier_scale(OmegaConf.create({"data": 3})) == {}


def test_doubtful_range_is_advised_as_an_argument_of_fit():
    with pytest.raises(UserError) as error:
        vaelab.fit(IMAGES / 255 * 16, **quick("vae"))
    assert 'data={"source": {"range": [0, 16]}}' in str(error.value)
    with pytest.raises(UserError, match="its transform should scale images to") as error:
        vaelab.fit(TensorDataset(torch.from_numpy(IMAGES) / 255 * 16), **quick("vae"))
    assert "data.source" not in str(error.value)


def test_fit_takes_a_name_a_path_and_a_data_module(tmp_path):
    np.savez("mine.npz", train_images=IMAGES, train_labels=LABELS)
    run = vaelab.fit("mine.npz", folder="a", **quick("cvae"))
    assert len(run.data.splits.train_images) == 90
    again = vaelab.fit(run.data, folder="b", **quick("cvae"))
    names = [name for name in run.results if name.startswith("test/")]
    assert all(run.results[name] == again.results[name] for name in names)
    assert given.named_data_overrides("mnist") == ["data=mnist"]


@pytest.mark.parametrize("data", ["vectors", "signals"])
def test_fit_takes_vectors_and_signals(data):
    rows = np.random.default_rng(0).normal(5, 2, (90, 3, 8) if data == "signals" else (90, 3))
    run = vaelab.fit(rows, LABELS, **quick("vae", likelihood="gaussian", data=data))
    assert run.model.x_shape == rows.shape[1:]
    assert run.model.encode(rows[:4]).mean.shape == (4, 4)
    assert np.allclose(run.model.in_units(run.model.inputs(rows[:4])[0]), rows[:4])


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("nowhere.npz",), {}, "nowhere.npz: there is no such file, and no such data"),
        (("mnits",), {}, "did you mean mnist"),
        (("mnist", LABELS), {}, "labels: they are in the file or data set of images already"),
        ((IMAGES, LABELS[:5]), {}, r"there are 90 images, and labels are \[5\]"),
        ((IMAGES * 1000.0,), {}, r'data=\{"source": \{"range": \[0, 255000\]\}\}'),
        ((IMAGES,), {"size": 32}, "^size: there is no such setting; possible are condition, "),
        ((IMAGES,), {"range": [0, 9]}, r'mean data=\{"source": \{"range": \[0, 9\]\}\}\?'),
        ((IMAGES,), {"val_size": 5}, r'^val_size: .* did you mean data=\{"val_size": 5\}\?'),
        ((IMAGES,), {"devices": 1}, r'^devices: .* did you mean trainer=\{"devices": 1\}\?'),
        ((IMAGES,), {"trainer": {"devises": 1}}, r"mean trainer.devices\? \(trainer.x is trainer="),
        ((IMAGES,), {"data": {"shift": 9}}, r'^data=\{"shift": 9\}: the images have 8 x 8'),
        ((IMAGES,), {"data": "mnist"}, '^data="mnist": the images are given already, as an array'),
        (
            ("mnist",),
            {"data": "folder"},
            "^data=\"folder\": the images are given already, as 'mnist'",
        ),
        ((IMAGES,), {"scheduler": {"warmup": 2}}, r'as in scheduler=\{"name": "cosine", \.\.\.\}'),
        ((IMAGES,), {"scheduler": {"name": "cosin"}}, '^scheduler="cosin": there is no such'),
        ((IMAGES,), {"encoder": {"hiden": [1]}}, r"mean encoder.hidden\? \(encoder.x is encoder="),
        ((IMAGES,), {"prior": "conditional_normal"}, 'use model="cvae" or condition="one_hot"'),
        ((IMAGES,), {"ckpt": "last"}, '^ckpt="last": .* goes on with folder="FOLDER"'),
        ((IMAGES,), {"like": "nowhere"}, '^like="nowhere": is no run folder'),
        ((IMAGES,), {"like": 3}, "^like: a int is no path of a run folder"),
        ((IMAGES,), {"folder": 3}, "^folder: a int is no path of a run folder"),
        ((IMAGES,), {"overrides": None}, "^overrides: give a list of texts"),
        ((IMAGES, np.zeros((90, 2, 2))), {}, r"^images: train_labels have shape \(90, 2, 2\)"),
        ((object(),), {}, "images: a object is no array"),
        ((IMAGES.reshape(90, 64),), {}, r"images: \[90, 64\] are rows of numbers; give data="),
        ((IMAGES[:, :4, :4],), {}, "^images: train_images are too small: 4 x 4"),
        (((IMAGES, LABELS),), {}, "images: a pair; give two arguments"),
        ((DataLoader(Pairs()),), {}, "images: a DataLoader; give its data set"),
        ((IMAGES,), {"model": torch.nn.Identity()}, "model: a Identity is no name of a variant"),
        ((IMAGES,), {"overrides": "seed=1"}, r'overrides: one text; give a list, .*\["seed=1"\]'),
        ((IMAGES,), {"epoch": 2}, "^epoch: there is no such setting; did you mean epochs"),
        ((IMAGES,), {"max_epochs": 2}, r"^max_epochs: .* did you mean epochs=2\?"),
        ((IMAGES,), {"lr": 0.1}, r'^lr: .* did you mean optimizer=\{"lr": 0.1\}\?'),
        ((IMAGES,), {"dropout": 0.1}, r'^dropout: .* such as .* optimizer=\{"lr": 0.001\}'),
        (([IMAGES[0], IMAGES[0, :5]],), {}, "one shape for all"),
        ((IMAGES,), {"model": "cave"}, 'model="cave": there is no such model'),
        ((IMAGES,), {"betta": 4, "model": "beta_vae"}, r"^betta: .* did you mean beta\?"),
        ((IMAGES,), {"latent_dim": "x"}, '^latent_dim="x": should be a valid integer'),
        ((IMAGES,), {"latent_dim": object()}, "latent_dim: a object is no setting"),
        ((IMAGES,), {"epochs": 0}, "^epochs=0: should be"),
        ((IMAGES,), {"model": "cvae"}, r"labels, .* give them, as in vaelab.fit\(images, labels\)"),
        ((IMAGES,), {"overrides": ["model.latent_dim=2,4"]}, "several values are several runs"),
    ],
)
def test_wrong_calls_of_fit_are_refused_in_one_sentence(arguments, settings, said, tmp_path):
    given_settings = quick("vae") | {"folder": "new/run"} | settings
    with pytest.raises(UserError, match=said) as error:
        vaelab.fit(*arguments, **given_settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new" / "run").exists()


def test_images_that_are_refused_leave_no_file_of_data(tmp_path):
    with pytest.raises(UserError, match="too small"):
        vaelab.fit(IMAGES[:, :4, :4], **quick("vae"))
    assert not list((tmp_path / "data").iterdir())


def test_settings_of_a_part_of_the_model_are_a_dictionary():
    run = vaelab.fit(IMAGES, **quick("vae", optimizer={"lr": 0.5}))
    assert run.results["config"]["model"]["optimizer"]["lr"] == 0.5


def test_fit_takes_rows_of_numbers_and_tables():
    rows = np.random.default_rng(0).normal(size=(50, 3))
    settings = quick("vae", likelihood="gaussian")
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    table.to_csv("table.csv", index=False)
    found = [
        vaelab.fit(rows, data="vectors", folder="rows", **settings),
        vaelab.fit("table.csv", folder="table", **settings),
    ]
    assert [run.data.splits.train_images.shape for run in found] == [(50, 3), (50, 3)]
    found.append(vaelab.fit(found[0].data, folder="module", **settings))
    bounds = [run.results["test/elbo"] for run in found]
    assert bounds == pytest.approx([bounds[0]] * 3)


def test_data_module_keeps_its_settings():
    own = ["data.balance=true", "data.flip=true", "data.shift=1", "data.columns=[label]"]
    run = vaelab.fit(IMAGES, LABELS, folder="a", **quick("cvae", overrides=own))
    again = vaelab.fit(run.data, folder="b", **quick("cvae"))
    names = ("balance", "flip", "shift", "columns", "pixels", "batch_size")
    first, second = ([getattr(each.data, n) for n in names] for each in (run, again))
    assert first == second
    assert again.results["test/elbo"] == run.results["test/elbo"]


def test_ctrl_c_in_fit_keeps_a_checkpoint_and_the_same_call_goes_on(capsys):
    settings = quick("vae", epochs=3)
    whole = vaelab.fit(IMAGES, folder="whole", **settings)
    stop = {"_target_": "support.faults.Stop", "number": int(signal.SIGINT), "step": 5}
    stop = [f"+callbacks.stop.{name}={value}" for name, value in stop.items()]
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        vaelab.fit(IMAGES, folder="run", **settings | {"overrides": stop})
    assert signal.getsignal(signal.SIGINT) is handler
    kept = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 6
    with pytest.raises(UserError, match=r'holds a run with callbacks=\{"stop": '):
        vaelab.fit(IMAGES, folder="run", **settings)
    vaelab.fit(IMAGES, folder="run", **settings | {"ckpt": "last"})
    ends = [
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "run")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert whole.folder.name == "whole"


def test_keywords_are_groups_settings_and_the_models():
    given_settings = {
        "network": "conv",
        "seed": 1,
        "epochs": 3,
        "beta": 4.0,
        "evaluate": ["likelihood", "latents"],
        "encoder": {"hidden": (8, 4)},
        "trainer": {"precision": "bf16", "max_steps": np.int64(5)},
        "ckpt": None,
        "compile": True,
    }
    assert [*keyword_overrides(given_settings)] == [
        *("network=conv", "seed=1", "trainer.max_epochs=3", "model.beta=4.0"),
        *("evaluate=[likelihood,latents]", "model.encoder.hidden=[8,4]"),
        *("trainer.precision=bf16", "trainer.max_steps=5", "ckpt=null", "compile=true"),
    ]


@pytest.mark.parametrize("model", VARIANTS)
def test_build_makes_every_variant_untrained(model):
    overrides = ["model.posterior.width=2"] if model == "vq_vae" else []
    made = vaelab.build(model, x_shape=(1, 8, 8), classes=["a", "b"], overrides=overrides, **NARROW)
    assert made.fresh
    assert made.sample(3).shape == (3, 1, 8, 8)
    assert made.class_names == {"label": ["a", "b"]}


def test_build_refuses_wrong_settings():
    with pytest.raises(UserError, match=r"did you mean beta\?"):
        vaelab.build("beta_vae", x_shape=(1, 8, 8), betta=3)
    with pytest.raises(UserError, match="x_shape"):
        vaelab.build("vae", x_shape=(1, 2, 28, 28))
    with pytest.raises(UserError, match="x_shape=28: an image is"):
        vaelab.build("vae", x_shape=28)
    with pytest.raises(UserError, match=r"the channels come first, as in \(1, 28, 28\)"):
        vaelab.build("vae", x_shape=(28, 28, 1))
    with pytest.raises(UserError, match="epochs: is a setting of training"):
        vaelab.build("vae", x_shape=(1, 28, 28), epochs=3)
    with pytest.raises(UserError, match=r"^condition=.* needs labels, .* give classes=10$"):
        vaelab.build("cvae", x_shape=(1, 28, 28))
    for shape in ((1, 28.5, 28), (1, 0, 28), None, ()):
        with pytest.raises(UserError, match=r"^x_shape="):
            vaelab.build("vae", x_shape=shape)
    for wrong in ({"classes": "ab"}, {"classes": -1}, {"numbers": 3}, {"numbers": {"x": 0}}):
        with pytest.raises(UserError, match=f"^{next(iter(wrong))}="):
            vaelab.build("cvae", x_shape=(1, 28, 28), **wrong)
    assert vaelab.build("vae", x_shape=(5,), data="vectors").sample(2).shape == (2, 5)


def test_compose_gives_model_data_and_trainer_of_the_command_line():
    model, data, trainer = vaelab.compose("model=beta_vae", "model.beta=4", "trainer=fast")
    assert (type(model).__name__, model.beta.item()) == ("BetaVAE", 4)
    assert data.sizes["train"] == 4000
    trainer.fit(model, data)
    assert trainer.global_step > 0
    with pytest.raises(UserError, match=r"did you mean model\?"):
        vaelab.compose("modle=vae")
    with pytest.raises(UserError, match="compose: give texts"):
        vaelab.compose(["model=vae"])


@pytest.mark.parametrize("channels", [2, 3])
def test_build_has_the_parts_of_fit_for_images_of_several_channels(channels):
    images = np.random.default_rng(0).integers(0, 256, (60, channels, 8, 8), np.uint8)
    small = {"latent_dim": 2, "encoder": {"channels": [4]}, "decoder": {"channels": [4]}}
    fitted = vaelab.fit(images, epochs=1, logger="none", **small).model
    made = vaelab.build("vae", x_shape=(channels, 8, 8), **small)
    assert str(made) == str(fitted)
    assert made.pixels == fitted.pixels
    assert type(vaelab.build("vae", x_shape=(1, 8, 8)).likelihood).__name__ == "Bernoulli"
    chosen = vaelab.build("vae", x_shape=(3, 8, 8), network="mlp", data="mnist")
    assert (chosen.pixels, type(chosen.encoder).__name__) == ("binary", "MLPEncoder")


def test_dictionaries_of_every_part_are_settings():
    run = vaelab.fit(
        IMAGES / 255,
        LABELS,
        data={"source": {"range": [0, 1]}, "val_size": 5, "pixels": "binary"},
        paths={"data": "elsewhere"},
        trainer={"deterministic": True},
        optimizer={"name": "adamw", "weight_decay": 0.1},
        scheduler={"name": "cosine", "warmup": 2},
        ema={"decay": 0.5},
        callbacks={"board": {"every_n_epochs": 10}},
        metrics={"samples": {"count": 10}},
        **quick("vae"),
    )
    config = run.results["config"]
    assert config["data"]["val_size"] == 5
    assert config["trainer"]["deterministic"] is True
    assert config["model"]["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert config["model"]["scheduler"]["warmup"] == 2
    assert config["ema"]["decay"] == 0.5
    assert config["metrics"]["samples"]["count"] == 10
    assert [path.suffix for path in (run.folder.parents[2] / "elsewhere").iterdir()]


def test_fit_like_another_run_takes_its_settings():
    first = vaelab.fit(IMAGES / 255, LABELS, **quick("cvae", optimizer={"lr": 0.5}))
    again = vaelab.fit(IMAGES, LABELS, like=first, seed=2)
    same = vaelab.fit(IMAGES, LABELS, **quick("cvae", optimizer={"lr": 0.5}, seed=2))
    assert again.results["test/elbo"] == same.results["test/elbo"]
    assert again.folder != first.folder
    model, _, _ = vaelab.compose(f"from={first.folder}", "model.latent_dim=3")
    assert (model.latent_dim, model.context_dim) == (3, 3)


def test_evaluate_refuses_wrong_settings_in_one_sentence():
    run = vaelab.fit(IMAGES, **quick("vae"))
    for what, settings, said in (
        (["likelihood"], {"num_samples": 0}, "^num_samples=0: should be greater than 0"),
        (["likelihood"], {"num_samples": "a"}, '^num_samples="a": should be a valid integer'),
        (["likelihood"], {"metrics": {"samples": {"count": -1}}}, r'^metrics=\{"samples": '),
        ([["likelihood", 1]], {}, "^evaluate: give names, as in run.evaluate"),
        (["likelyhood"], {}, "^likelyhood: there is no such metric"),
    ):
        with pytest.raises(UserError, match=said):
            run.evaluate(*what, **settings)


def test_load_takes_a_checkpoint_of_a_run(tmp_path, monkeypatch):
    run = vaelab.Run(vaelab.fit(IMAGES, **quick("vae", epochs=2)).folder.absolute())
    last = run.folder / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    state["state_dict"] = {name: 2 * value for name, value in state["state_dict"].items()}
    torch.save(state, last.with_name("twice.ckpt"))
    (run.folder / "other").mkdir()
    for place in ("other/twice.ckpt", "../twice.ckpt"):
        torch.save(state, run.folder / place)
        with pytest.raises(UserError, match=r"twice.ckpt is a file; give the folder of a run"):
            vaelab.load(run.folder / place)
    assert all(torch.equal(a, b) for a, b in same_weights(vaelab.load(last), run, "last"))
    with pytest.raises(UserError, match=r"there is no foo.ckpt; it has best and last and twice"):
        vaelab.load(run, checkpoint="foo")
    monkeypatch.chdir(last.parent)
    assert all(torch.equal(a, b) for a, b in same_weights(vaelab.load("last.ckpt"), run, "last"))
    with pytest.raises(UserError, match="a NoneType is no folder of a model"):
        vaelab.load(None)


def same_weights(model, run, checkpoint):
    """Yields the weights of a model beside those of a checkpoint of a run."""
    other = torch.load(run.folder / "checkpoints" / f"{checkpoint}.ckpt")["state_dict"]
    return [(weight, other[name]) for name, weight in model.state_dict().items()]


def test_show_takes_images_in_every_form():
    grey = vaelab.show(IMAGES[:6])
    for images in (IMAGES[:6, None], IMAGES[:6] / 255, torch.from_numpy(IMAGES[:6])[..., None]):
        assert vaelab.show(images).tobytes() == grey.tobytes()
    assert vaelab.show(torch.rand(5, 3, 8, 8)).mode == "RGB"
    assert vaelab.show(IMAGES[0]).mode == "L"
    for wrong in (torch.rand(5), torch.rand(0, 1, 8, 8), "photos", None):
        with pytest.raises(UserError, match=r"^images: "):
            vaelab.show(wrong)


def test_run_refuses_another_folder():
    with pytest.raises(UserError, match="nowhere is no run folder"):
        vaelab.Run("nowhere")


TABLES = {key: QUICK[key] for key in QUICK if key not in ("likelihood", "data")}
"""Settings of a quick run on a table."""


@pytest.fixture
def people():
    """A DataFrame of 60 rows: income, age and sex."""
    random = np.random.default_rng(0)
    numbers = {"income": random.normal(5e4, 1e4, 60), "age": random.integers(20, 80, 60)}
    return pd.DataFrame(numbers | {"sex": random.choice(["f", "m"], 60)}, index=range(7, 67))


def test_dataframe_keeps_its_names(tmp_path, people):
    columns = {"columns": ["sex"]}
    run = vaelab.fit(people, folder=tmp_path / "a", condition="one_hot", data=columns, **TABLES)
    assert run.model.units.names == ("income", "age")
    assert run.model.sample(4, label="m").shape == (4, 2)
    codes = run.model.encode(people, people["sex"]).mean
    shuffled = people[["sex", "age", "income"]]
    assert torch.equal(run.model.encode(shuffled, people["sex"]).mean, codes)
    assert torch.equal(run.model.encode(shuffled).mean, codes)  # it is told the column sex
    mixed = people.assign(age=people["age"].astype(object))
    assert torch.equal(run.model.encode(mixed).mean, codes)
    with pytest.raises(UserError, match="there is no column age; this model takes them"):
        run.model.encode(people[["income"]], people["sex"])


def test_labels_of_a_dataframe_are_the_label(tmp_path, people):
    numbers, sex = people[["income", "age"]], people["sex"]
    run = vaelab.fit(numbers, sex, model="cvae", folder=tmp_path / "a", **TABLES)
    assert run.model.class_names == {"label": ["f", "m"]}
    with pytest.raises(UserError, match="labels: there are 60 rows, and 59 labels"):
        vaelab.fit(numbers, sex[1:], model="cvae")
    with pytest.raises(UserError, match="labels: they are in the column label"):
        vaelab.fit(numbers.assign(label=sex), sex, model="cvae")
    with pytest.raises(UserError, match=r"column sex, row 1: '[fm]' is no number"):
        vaelab.fit(people)


def test_pictures_of_another_scale_are_shown_between_their_ends():
    assert vaelab.show(IMAGES[:6].astype(float)).tobytes() == vaelab.show(IMAGES[:6]).tobytes()
    digits = torch.linspace(-0.8, 15, 64).reshape(1, 1, 8, 8)
    assert np.ptp(np.asarray(vaelab.show(digits))) == 255
    near = torch.linspace(-0.1, 1.1, 64).reshape(1, 1, 8, 8)  # of a model of [0, 1]: clipped
    assert np.array_equal(vaelab.show(near), vaelab.show(near.clamp(0, 1)))


def test_data_and_metrics_may_be_left_to_an_earlier_run(tmp_path):
    first = vaelab.fit(IMAGES, LABELS, folder=tmp_path / "a", **quick("vae"))
    run = vaelab.fit(like=first, seed=2, folder=tmp_path / "b")
    assert torch.equal(run.data.splits.train_images, first.data.splits.train_images)
    both = run.evaluate(["likelihood", "reconstruction"], num_samples=2)
    assert {"nll", "mse"} <= both.keys()
    other = vaelab.fit("mnist_5k", like=first, folder=tmp_path / "c", trainer={"max_steps": 1})
    assert other.model.x_shape == (1, 28, 28)
    with pytest.raises(UserError, match="images: give them, as in"):
        vaelab.fit()


class Clothes(Dataset):
    """A data set whose classes are not in alphabetical order."""

    classes = ("shirt", "trouser", "bag")

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return IMAGES[index], int(LABELS[index])


def test_classes_of_a_data_set_keep_their_order():
    run = vaelab.fit(Clothes(), folder="a", **quick("cvae"))
    assert run.model.class_names == {"label": [*Clothes.classes]}
    assert run.data.splits.train_labels.tolist() == LABELS.tolist()
    again = vaelab.fit(run.data, folder="b", **quick("cvae"))
    assert again.model.class_names == run.model.class_names
    assert again.data.splits.train_labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda table: (table, np.eye(2)[np.arange(60) % 2]), None),
        (lambda table: (table, 3), "there are 60 rows, and 1 labels"),
        (lambda table: (pd.concat([table, table], axis=1), None), "several columns income"),
        (lambda table: (table.assign(age=[1, "a"] * 30), None), "^images: "),
        (lambda table: (table.assign(age=1j), None), "^images: the table cannot be kept"),
        (lambda table: (table, ["a", float("nan"), "b"] * 20), r"labels\[1\] is nan among texts"),
    ],
)
def test_odd_tables_are_taken_or_refused_in_one_sentence(tmp_path, people, make, said):
    table, labels = make(people[["income", "age"]])
    call = {"folder": tmp_path / "a", "model": "cvae", **TABLES}
    if said is None:
        assert vaelab.fit(table, labels, **call).model.class_names == {"label": ["0", "1"]}
        return
    with pytest.raises(UserError, match=said) as error:
        vaelab.fit(table, labels, **call)
    assert "\n" not in str(error.value)


def test_array_called_file_is_no_argument_of_a_writer():
    run = vaelab.fit({"train_images": IMAGES, "file": LABELS}, folder="a", **quick("vae"))
    assert run.data.splits.unused == ("file",)


@pytest.mark.parametrize(
    "change",
    [lambda x: x[:, ::-1], lambda x: (x / 255).astype(">f4"), lambda x: (x / 255).astype("g")],
    ids=["flipped", "big-endian", "long double"],
)
def test_arrays_of_any_strides_and_byte_order_are_encoded(change):
    model = vaelab.build("vae", x_shape=(1, 8, 8), **NARROW).eval()
    given = change(IMAGES)
    usual = np.ascontiguousarray(given if given.dtype == np.uint8 else given.astype(np.float32))
    assert torch.equal(model.encode(given).mean, model.encode(usual).mean)
    found = encode_images(model, given, num_samples=0)["mean"]
    np.testing.assert_array_equal(found, encode_images(model, usual, num_samples=0)["mean"])
    assert vaelab.show(given[:4]).tobytes() == vaelab.show(usual[:4]).tobytes()


def test_whole_number_is_the_class_of_that_name_where_others_are_words():
    model = vaelab.build("cvae", x_shape=(1, 8, 8), classes=["1", "2", "cat"], **NARROW)
    assert model.label_rows([1, 2], 2).tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(UserError, match="0: the classes of label are 1, 2, cat"):
        model.label_rows([0, 1], 2)
