"""A linear VAE trained to the end is probabilistic principal component analysis.

Tipping & Bishop (1999), equations 7 and 8, tell the evidence at its optimum; Lucas et al.
(2019), arXiv:1911.02469, that the bound reaches it, has no other optimum, and switches off those
latents alone that the data have no direction for.
"""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vaelab import likelihoods, posteriors
from vaelab.conditions import Unconditional
from vaelab.models import VAE
from vaelab.priors import StandardNormal

SHAPE, LATENTS, IMAGES = (1, 2, 5), 5, 60
NOISE = 0.05  # standard deviation of what is the same in every direction
CLEAR = [0.5, 0.3, 0.15]  # and of the directions beside it
SURPLUS = LATENTS - len(CLEAR)


class PixelsAsFeatures(nn.Module):
    def __init__(self, x_shape, context_dim):
        super().__init__()
        self.features = math.prod(x_shape)

    def forward(self, x, y):
        return x.flatten(1)


class LinearDecoder(nn.Module):
    def __init__(self, latent_dim, context_dim, out_shape):
        super().__init__()
        self.out_shape = out_shape
        self.layer = nn.Linear(latent_dim, math.prod(out_shape))

    def forward(self, z, y):
        return self.layer(z).unflatten(1, self.out_shape)


def sigma_points(q, num_samples):
    """2D points z of q, of whose squares the mean is that of q: exact for a linear decoder."""
    steps = math.sqrt(LATENTS) * torch.eye(LATENTS).to(q.mean)
    return q.mean + q.stddev * torch.cat([steps, -steps])[:, None]


@pytest.fixture(scope="module")
def data():
    """Images whose own covariance has exactly the chosen eigenvalues."""
    torch.manual_seed(0)
    size = math.prod(SHAPE)
    spread = torch.tensor(CLEAR + [0.0] * (size - len(CLEAR))).double()
    eigenvalues = spread.square() + NOISE**2
    directions = torch.linalg.qr(torch.randn(size, size).double())[0]
    noise = torch.randn(IMAGES, size).double()
    white = math.sqrt(IMAGES) * torch.linalg.qr(noise - noise.mean(0))[0]
    x = torch.rand(size).double() + white * eigenvalues.sqrt() @ directions.T
    return x.view(-1, *SHAPE), eigenvalues, directions


@pytest.fixture(scope="module")
def trained(data):
    """A linear VAE after training by its own loss, whose expectations are exact."""
    torch.manual_seed(1)
    model = VAE(
        x_shape=SHAPE,
        classes={},
        numbers={},
        condition=Unconditional,
        pixels="grey",
        latent_dim=LATENTS,
        encoder=PixelsAsFeatures,
        posterior=posteriors.Gaussian,
        prior=StandardNormal,
        decoder=LinearDecoder,
        likelihood=likelihoods.Gaussian("learned"),
        optimizer=torch.optim.Adam,
    ).double()
    x = data[0]
    y = x.new_zeros(len(x), 0)
    model.draw = sigma_points
    settings = {"max_iter": 2_000, "max_eval": 10_000, "history_size": 50}
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", **settings)

    def closure():
        optimizer.zero_grad()
        loss, _, _ = model.loss(x, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        terms = model.terms(x, y)
    del model.draw  # random from here on
    return model, terms


def log_evidence(eigenvalues):
    """The mean log-evidence of probabilistic PCA at its optimum, in nats per image."""
    kept, discarded = eigenvalues[:LATENTS], eigenvalues[LATENTS:]
    log_det = kept.log().sum() + len(discarded) * discarded.mean().log()
    return -0.5 * (len(eigenvalues) * (math.log(2 * math.pi) + 1) + log_det)


@pytest.mark.slow
def test_the_bound_reaches_the_evidence_of_principal_components(data, trained):
    expected = log_evidence(data[1])
    assert_close(trained[1].elbo.mean(), expected, atol=1e-3, rtol=0)


def test_the_scale_is_that_of_the_discarded_directions(data, trained):
    found = trained[0].likelihood.log_scale.exp()
    assert_close(found.square(), data[1][LATENTS:].mean(), rtol=1e-3, atol=0)


def test_the_surplus_latents_alone_are_pruned(data, trained):
    """Of latent i the rate is half the log of eigenvalue i over the variance of the noise."""
    found = trained[1].rate_per_latent.mean(0).sort(descending=True).values
    expected = 0.5 * (data[1][:LATENTS] / NOISE**2).log()
    assert (found[-SURPLUS:] < 0.01).all()
    assert (found[:-SURPLUS] > 0.01).all()
    assert_close(found, expected, atol=0.01, rtol=0)


def test_the_decoder_has_the_principal_directions(data, trained):
    """W W' = U (Lambda - s^2) U', and each column of W is one direction: latents are aligned."""
    _, eigenvalues, directions = data
    loadings = trained[0].decoder.layer.weight
    order = loadings.norm(dim=0).argsort(descending=True)
    along = (directions.T @ loadings[:, order])[:LATENTS].abs()
    assert_close(along, (eigenvalues[:LATENTS] - NOISE**2).sqrt().diag(), atol=0.01, rtol=0)


def test_every_sample_of_the_exact_posterior_has_the_weight_of_the_evidence(data, trained):
    (model, terms), x = trained, data[0]
    weights = model.terms(x, x.new_zeros(len(x), 0), num_samples=50).log_weights
    assert_close(weights, terms.elbo.expand(50, -1), atol=0.02, rtol=0)
