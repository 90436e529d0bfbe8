"""Small models built from the real configuration, batches for them, and their gradients."""

import pytest
import torch

from vaelab import likelihoods

SHAPE, CLASSES, LATENTS = (1, 8, 8), 5, 4

NETWORKS = {
    "mlp": "network=mlp model.encoder.hidden=[12,10] model.decoder.hidden=[10,12]",
    "conv": "network=conv model.encoder.channels=[4,6] model.encoder.features=10 "
    "model.decoder.channels=[4,6] model.decoder.features=10",
}


def batch(model, count=10):
    """Returns x [B, C, H, W], random, and one-hot y [B, Y], which runs through all classes.

    Pixels are 0 or 1 for a Bernoulli likelihood, otherwise uniform on [0, 1).
    """
    x = torch.rand(count, *model.x_shape)
    y = torch.eye(model.num_classes)[torch.arange(count) % model.num_classes]
    return (x.round() if isinstance(model.likelihood, likelihoods.Bernoulli) else x), y


def assert_gradients_are_differences(model, loss):
    """Asserts that gradients of `loss()`, a scalar, are central differences.

    Compares the largest element of each parameter's gradient. Every call of `loss` has to draw the
    same noise.
    """
    loss().backward()
    step = 1e-5
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        values, index = parameter.data.view(-1), parameter.grad.abs().argmax()
        values[index] += step
        above = loss().item()
        values[index] -= 2 * step
        below = loss().item()
        values[index] += step
        expected = pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-6)
        assert parameter.grad.view(-1)[index].item() == expected, name


IMAGES = 500  # N, size of the training set, as set in models


def small(build, *overrides):
    """Builds a small MLP model in double precision, with weights disturbed by noise, seed 0.

    Sets the number of training images to `IMAGES` where the model has one.

    Args:
        build: The fixture that builds a model from overrides.
        overrides: Further overrides, several in a string or one each.
    """
    words = " ".join([f"model.latent_dim={LATENTS}", NETWORKS["mlp"], *overrides]).split()
    torch.manual_seed(0)
    model = build(*words, x_shape=SHAPE, num_classes=CLASSES).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter) * parameter.requires_grad
    if hasattr(model, "num_images"):
        model.num_images = IMAGES
    return model


def images(model, count=10):
    """Returns the x and y of `batch` in double precision."""
    x, y = batch(model, count)
    return x.double(), y.double()


def objective(model, x, y):
    """Returns the training objective of a batch; seeds torch with 1 first."""
    torch.manual_seed(1)
    return model.objective(model.terms(x, y))


def gradients(model, loss):
    """Returns gradients of a loss by parameter name; None if the loss does not depend on it."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    return dict(zip(learned, found, strict=True))
