"""Tests of training and testing by a user's own DataLoader and stock Trainer."""

import re
from pathlib import Path

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import vaelab
from vaelab.errors import UserError

SMALL = ["model.latent_dim=2", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
LABELS = torch.arange(40) % 3


@pytest.fixture
def trainer(tmp_path):
    """A stock trainer of two epochs."""
    return lightning.Trainer(
        max_epochs=2,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        ("vae", TensorDataset(IMAGES, LABELS)),
        ("vae", TensorDataset(IMAGES)),
        ("vae", list(IMAGES / 255)),
        ("cvae", TensorDataset(IMAGES, LABELS)),
        ("cvae", TensorDataset(IMAGES.float() / 255, torch.eye(3)[LABELS])),
        ("factor_vae", list(IMAGES)),
    ],
    ids=["pairs", "tuples of one", "images", "conditional", "one-hot", "two optimizers"],
)
def test_stock_trainer_trains_on_a_dataloader(trainer, model, dataset):
    made = vaelab.build(model, x_shape=(1, 8, 8), classes=3, overrides=SMALL)
    before = [parameter.detach().clone() for parameter in made.parameters()]
    loader = DataLoader(dataset, batch_size=10)
    trainer.fit(made, loader, loader)
    assert any(not torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    (found,) = trainer.test(made, loader, verbose=False)
    assert found["test/elbo"] == pytest.approx(-(found["test/distortion"] + found["test/rate"]))


def test_training_draws_new_bits_and_validation_the_same(trainer):
    made = vaelab.build("vae", x_shape=(1, 8, 8), overrides=SMALL)
    made.trainer = trainer
    made.train()
    drawn = [made.on_before_batch_transfer(IMAGES, 0)[0] for _ in range(2)]
    assert not torch.equal(*drawn)
    made.eval()
    drawn = [made.on_before_batch_transfer(IMAGES, 0)[0] for _ in range(2)]
    assert torch.equal(*drawn)


def test_loop_of_the_guide_trains_with_new_noise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Lightning logs there
    text = (Path(__file__).parents[2] / "docs" / "guide" / "python.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "model.loss" in b]
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)
    names = {"vaelab": vaelab, "torch": torch, "lightning": lightning}
    names["loader"] = DataLoader(TensorDataset(images, torch.arange(12)), batch_size=6)
    exec(block, names)
    model, x = names["model"], names["x"]
    assert names["loss"].isfinite()
    assert not torch.equal(model.inputs(images)[0], model.inputs(images)[0])
    assert x.shape == (6, 3, 32, 32)
    assert [*names["codes"][0]] == ["mean", "scale"]


def test_predict_gives_the_posterior_of_each_image(trainer):
    made = vaelab.build("cvae", x_shape=(1, 8, 8), classes=3, overrides=SMALL)
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=15)
    found = trainer.predict(made, loader)
    assert [len(batch["mean"]) for batch in found] == [15, 15, 10]
    made.eval()
    parts = [made.encode(IMAGES[i], LABELS[i]) for i in torch.arange(40).split(15)]
    for name, attribute in (("mean", "mean"), ("scale", "stddev")):
        mine = torch.cat([batch[name] for batch in found])
        assert torch.allclose(mine, torch.cat([getattr(q, attribute) for q in parts]))
        assert mine.shape == (40, 2)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (IMAGES.numpy(), LABELS.numpy(), r"x should be float32 \[B, 1, 8, 8\], not a ndarray"),
        (IMAGES, torch.eye(3)[LABELS], r"x should be float32 .*, not uint8 \[40, 1, 8, 8\]"),
        (IMAGES.double(), torch.eye(3)[LABELS], "x should be float32 .*, not float64"),
        (IMAGES[:, 0] / 255, torch.eye(3)[LABELS], r"x should be .*, not float32 \[40, 8, 8\]"),
        (IMAGES / 255, LABELS, r"y should be float32 \[40, 3\], not int64 \[40\]"),
        (IMAGES / 255, None, r"y should be float32 \[40, 3\], not a NoneType"),
        (IMAGES / 255, torch.eye(3)[LABELS[:9]], r"y should be .*, not float32 \[9, 3\]"),
        (IMAGES.float(), torch.eye(3)[LABELS], r"x are pixels in \[0, 1\], and these are 0 to 255"),
        (IMAGES / 0.0, torch.eye(3)[LABELS], r"x are pixels in \[0, 1\], and these are nan"),
    ],
)
@pytest.mark.parametrize("model", ["cvae", "factor_vae"])
def test_wrong_x_and_y_of_a_loop_are_refused_in_one_sentence(model, x, y, said):
    made = vaelab.build(model, x_shape=(1, 8, 8), classes=3, condition="one_hot", overrides=SMALL)
    for call in (made.loss, lambda *batch: made.training_step(batch, 0)):
        with pytest.raises(UserError, match=said) as error:
            call(x, y)
        assert "\n" not in str(error.value)
        assert "x, y = model.inputs(images, labels) makes them" in str(error.value)


def test_batches_that_are_no_pair_are_refused(trainer):
    made = vaelab.build("vae", x_shape=(1, 8, 8), overrides=SMALL)
    for step in (made.training_step, made.validation_step, made.predict_step):
        with pytest.raises(UserError, match=r"a batch should be a pair \(x, y\)"):
            step(IMAGES / 255, 0)
    with pytest.raises(UserError, match="a batch should be images, or a pair"):
        trainer.fit(made, DataLoader([{"image": image} for image in IMAGES]))


def test_values_of_x_are_read_in_the_first_training_batch_alone():
    made = vaelab.build("vae", x_shape=(1, 8, 8), overrides=SMALL)
    x, y = made.inputs(IMAGES)
    made.loss(x, y)
    made.loss(2 * x, y)
    assert made.has_seen_x


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (list(IMAGES), "give labels"),
        (TensorDataset(IMAGES, LABELS + 1), "3: the classes of label are 0, 1, 2"),
        (TensorDataset(IMAGES.float(), LABELS), r"pixels of floats are in \[0, 1\]"),
        (TensorDataset(IMAGES[..., :7], LABELS), r"images are \[B, 1, 8, 8\], and these"),
    ],
    ids=["no labels", "unknown label", "bytes as floats", "another size"],
)
def test_unfit_batches_of_a_dataloader_are_refused(trainer, dataset, said):
    made = vaelab.build("cvae", x_shape=(1, 8, 8), classes=3, overrides=SMALL)
    with pytest.raises(UserError, match=said):
        trainer.fit(made, DataLoader(dataset, batch_size=10))
