"""Every model, posterior, prior and condition takes vectors and signals: loss and samples."""

import pytest
import torch
from support.models import CLASSES, IMAGES

from vaelab.commands.config_folders import CONF

SHAPES = {"vectors": (5,), "signals": (2, 9)}
DENSE = ["network=mlp", "model.encoder.hidden=[12]", "model.decoder.hidden=[12]"]
CONV = ["network=conv", "model.encoder.channels=[4,6]", "model.decoder.channels=[4,6]"]
CONV += ["model.encoder.features=12", "model.decoder.features=12"]
NETWORKS = {"vectors": DENSE, "signals": CONV}
REQUIRED = {
    "posterior=codebook": ["model=vq_vae"],
    "prior=codes": ["model=vq_vae"],
    "posterior=deterministic": ["model=ae"],
    "prior=conditional_normal": ["model=cvae"],
    "prior=vamp": ["model.prior.components=6"],
}
CHOICES = [
    f"{group}={path.stem}"
    for group in ("model", "posterior", "prior", "condition")
    for path in sorted((CONF / group).glob("[a-z]*.yaml"))
    if path.stem != "continuous"  # columns of numbers, not x
]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_takes_numbers(build, choice, kind):
    real = ["likelihood=gaussian", "data.pixels=real", *NETWORKS[kind], *REQUIRED.get(choice, [])]
    model = build(choice, *real, x_shape=SHAPES[kind], num_classes=CLASSES).eval()
    if hasattr(model, "num_images"):
        model.num_images = IMAGES
    x = torch.randn(10, *SHAPES[kind])
    y = torch.eye(CLASSES)[torch.arange(10) % CLASSES]
    terms = model.terms(x, y)
    assert terms.distortion.shape == (10,)
    model.objective(terms).backward()
    assert any(p.grad is not None and p.grad.any() for p in model.encoder.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.decoder.parameters())
    assert model.mean_reconstruction(x, y).shape == x.shape
    assert model.sample_means(y).shape == x.shape
    assert model.in_units(x).shape == x.shape
