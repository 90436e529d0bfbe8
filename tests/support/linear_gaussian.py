"""A linear-Gaussian model, whose log evidence and posterior are known exactly.

p(z) = N(0, I) and p(x | z) = N(W z + mu, s^2 I): W is the weight of the decoder's output layer.
"""

import math

import torch
from torch import nn
from torch.distributions import MultivariateNormal

from support.models import LATENTS, SHAPE
from vaelab import likelihoods, posteriors
from vaelab.conditions import Unconditional
from vaelab.models import VAE
from vaelab.priors import StandardNormal


class PixelsAsFeatures(nn.Module):
    """Encoder network without parameters: flattens x [B, C, H, W] and appends y."""

    def __init__(self, x_shape, context_dim):
        super().__init__()
        self.features = math.prod(x_shape) + context_dim

    def forward(self, x, y):
        return torch.cat([x.flatten(1), y], 1)


class LinearDecoder(nn.Module):
    """Decoder of one linear layer, from z and y to [B, *out_shape]."""

    def __init__(self, latent_dim, context_dim, out_shape):
        super().__init__()
        self.out_shape = out_shape
        self.out = nn.Linear(latent_dim + context_dim, math.prod(out_shape))

    def forward(self, z, y):
        return self.out(torch.cat([z, y], 1)).unflatten(1, self.out_shape)


def make_exact(model):
    """Sets the encoder's weights, in place, so that q(z | x) is the exact posterior.

    It has precision M / s^2 and mean M^-1 W'(x - mu), M = W'W + s^2, which has to be diagonal.
    """
    loadings, offset = model.decoder.out.weight, model.decoder.out.bias + model.likelihood.centre
    variance = model.likelihood.log_scale.mul(2).exp()
    precision = loadings.square().sum(0) + variance
    mean = loadings.T / precision[:, None]
    params = model.posterior.params
    with torch.no_grad():
        params.weight.copy_(torch.cat([mean, torch.zeros_like(mean)]))
        params.bias.copy_(torch.cat([-mean @ offset, 0.5 * (variance / precision).log()]))


def log_evidence(model, x):
    """Returns log N(x; mu, W W' + s^2 I), [B], of images or vectors x [B, *x_shape]."""
    loadings, offset = model.decoder.out.weight, model.decoder.out.bias + model.likelihood.centre
    variance = model.likelihood.log_scale.mul(2).exp()
    noise = variance * torch.eye(len(offset)).double()
    return MultivariateNormal(offset, loadings @ loadings.T + noise).log_prob(x.flatten(1))


def build_linear(kind=VAE, **settings):
    """Returns a linear VAE in double precision, unconditional by default, of SHAPE by default."""
    parts = {
        "x_shape": SHAPE,
        "classes": {},
        "condition": Unconditional,
        "latent_dim": LATENTS,
        "prior": StandardNormal,
        "likelihood": likelihoods.Gaussian(scale=0.3),
        "pixels": "grey",
    }
    return kind(
        **parts | settings,
        numbers={},
        encoder=PixelsAsFeatures,
        posterior=posteriors.Gaussian,
        decoder=LinearDecoder,
        optimizer=torch.optim.Adam,
    ).double()


def principal_components(kind=VAE, **settings):
    """Returns probabilistic PCA with random orthogonal loadings W, as an unconditional model.

    Then p(z | x) is a diagonal Gaussian. The encoder is not exact yet, see `make_exact`. The
    loadings are drawn from torch's global random state.
    """
    model = build_linear(kind, **settings)
    orthogonal = torch.linalg.qr(torch.randn(64, LATENTS).double())[0]
    with torch.no_grad():
        model.decoder.out.weight.copy_(orthogonal * torch.tensor([2.0, 1.0, 0.5, 0.1]))
    return model
