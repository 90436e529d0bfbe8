"""Tests of training and testing by a user's own DataLoader and stock Trainer."""

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
