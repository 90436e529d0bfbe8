"""Laws of vectors and signals: densities over all axes, and probabilistic PCA at its optimum.

Shapes: N rows, D numbers, Q latents.
"""

import math

import pytest
import torch
from support.linear_gaussian import build_linear, log_evidence, make_exact
from torch.distributions import Bernoulli, Laplace, Normal
from torch.testing import assert_close

from vaelab import likelihoods
from vaelab.autoencoder import check_pixels
from vaelab.errors import UserError
from vaelab.metrics.evidence import evidence_estimates

D, Q = 5, 2
SHAPES = [(5,), (1, 9), (2, 9)]


@pytest.fixture(scope="module")
def rows():
    """Gaussian vectors [200, 5] with two directions of large variance, in double precision."""
    random = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=random).double() * torch.tensor([3, 2, 0.5, 0.4, 0.3])
    return torch.randn(200, D, generator=random).double() @ mix.T + torch.arange(D).double()


def pca_optimum(rows):
    """Probabilistic PCA of maximum likelihood as an exact linear VAE; and its log evidence.

    Tipping & Bishop (1999): the variance is the mean of the D - Q smallest eigenvalues of the
    covariance S, and the mean log evidence is -1/2 (D log 2 pi + log |C| + tr(C^-1 S)).
    """
    mean, covariance = rows.mean(0), rows.T.cov(correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    variance = values[:-Q].mean()
    loadings = vectors[:, -Q:] * (values[-Q:] - variance).sqrt()
    model = build_linear(
        x_shape=(D,), latent_dim=Q, pixels="real", likelihood=likelihoods.Gaussian("learned")
    )
    with torch.no_grad():
        model.decoder.out.weight.copy_(loadings)
        model.decoder.out.bias.copy_(mean)
        model.likelihood.log_scale.fill_(0.5 * variance.log())
    make_exact(model)
    full = loadings @ loadings.T + variance * torch.eye(D)
    trace = torch.linalg.solve(full, covariance).trace()
    return model, -0.5 * (D * math.log(2 * math.pi) + torch.logdet(full) + trace)


def test_elbo_of_vectors_reaches_log_evidence_of_probabilistic_pca(rows):
    model, exact = pca_optimum(rows)
    found = evidence_estimates(model, rows, rows.new_zeros(len(rows), 0), num_samples=1)
    assert_close(log_evidence(model, rows).mean(), exact)
    assert_close(-found["nll"], log_evidence(model, rows))  # of one sample: all weights are equal
    # The mean over x of the closed form, for the distortion of one sample has an error of its own.
    noise = torch.distributions.kl_divergence
    q = model.latent_posterior(rows, rows.new_zeros(len(rows), 0))
    z = torch.stack([q.mean + q.stddev * step for step in (-1, 1)])  # the same mean and variance
    p = model.image_likelihood(z, rows.new_zeros(len(rows), 0))
    assert p.batch_shape == (2, len(rows))
    assert p.event_shape == (D,)
    squares = (rows - p.mean).square().sum(-1).mean(0)
    across = expected_squares(model, q, rows)
    variance = model.likelihood.log_scale.mul(2).exp()
    assert squares.shape == across.shape
    distortion = 0.5 * (across / variance + D * (2 * math.pi * variance).log())
    rate = noise(q, model.latent_prior(rows.new_zeros(len(rows), 0)).expand((len(rows),)))
    assert_close(-(distortion + rate).mean(), exact)


def expected_squares(model, q, rows):
    """E_q |x - W z - mu|^2 in closed form, [N]: the square at the mean, and tr(W' W cov z)."""
    loadings = model.decoder.out.weight
    at_mean = (rows - q.mean @ loadings.T - model.decoder.out.bias).square().sum(1)
    return at_mean + (loadings.square().sum(0) * q.variance).sum(1)


def test_gradient_of_elbo_of_vectors_is_zero_at_probabilistic_pca(rows):
    model, _ = pca_optimum(rows)
    y = rows.new_zeros(len(rows), 0)
    model.num_samples = 400
    torch.manual_seed(0)
    terms = model.terms(rows, y)
    (terms.distortion + terms.rate).mean().backward()
    at_optimum = torch.cat([p.grad.flatten() for p in model.parameters()]).abs().max()
    with torch.no_grad():
        model.decoder.out.weight.mul_(1.2)
    model.zero_grad()
    terms = model.terms(rows, y)
    (terms.distortion + terms.rate).mean().backward()
    elsewhere = torch.cat([p.grad.flatten() for p in model.parameters()]).abs().max()
    assert at_optimum < 0.05 < elsewhere


def test_importance_sampling_of_vectors_agrees_with_exact_evidence(rows):
    model, exact = pca_optimum(rows)
    with torch.no_grad():
        model.posterior.params.bias[Q:] += 0.3  # a posterior that is too wide
    torch.manual_seed(0)
    y = rows.new_zeros(len(rows), 0)
    found = [evidence_estimates(model, rows, y, count)["nll"].mean() for count in (1, 10, 2000)]
    assert found[0] > found[1] > found[2]
    assert_close(found[2], -exact, atol=0.01, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", ["learned", "per_pixel", "optimal", "per_column", 0.7])
@pytest.mark.parametrize("name", ["Gaussian", "Laplace", "Bernoulli"])
def test_likelihoods_sum_over_all_axes_of_numbers(name, scale, shape):
    if (name == "Laplace" and scale in ("optimal", "per_column")) or (
        name == "Bernoulli" and scale != 0.7
    ):
        pytest.skip("has no such scale")
    settings = {} if name == "Bernoulli" else {"scale": scale}
    likelihood = getattr(likelihoods, name)(**settings).double()
    pixels = "binary" if name == "Bernoulli" else "real"
    model = build_linear(x_shape=shape, latent_dim=Q, pixels=pixels, likelihood=likelihood).eval()
    outputs = likelihood.channels(shape[0])
    params = torch.randn(3, 4, outputs, *shape[1:]).double()
    x = torch.randn(4, *shape).double()
    x = (x > 0).double() if name == "Bernoulli" else x
    p = model.likelihood(params)
    assert (p.batch_shape, p.event_shape) == ((3, 4), shape)
    loc, *by_pixel = params.chunk(outputs // shape[0], dim=2)
    width = by_pixel[0].exp() if by_pixel else {0.7: 0.7}.get(scale, 1.0)
    kinds = {"Gaussian": Normal, "Laplace": Laplace}
    each = Bernoulli(logits=loc) if name == "Bernoulli" else kinds[name](loc, width)
    expected = each.log_prob(x)
    assert_close(p.log_prob(x), expected.flatten(2).sum(-1))
    assert p.sample().shape == (3, 4, *shape)


def test_optimal_variance_of_vectors_is_their_mean_squared_error():
    likelihood = likelihoods.Gaussian("optimal").double()
    model = build_linear(x_shape=(D,), latent_dim=Q, pixels="real", likelihood=likelihood).train()
    params, x = torch.randn(7, D).double(), torch.randn(7, D).double()
    found = model.likelihood(params).log_prob(x)
    error = (x - params).square().mean().sqrt()
    assert_close(found, Normal(params, error).log_prob(x).sum(1))
    assert_close(likelihood.variance, error.square())


@pytest.mark.parametrize("shape", SHAPES)
def test_variance_per_column_is_the_mean_squared_error_of_each(shape):
    likelihood = likelihoods.Gaussian("per_column").double()
    model = build_linear(x_shape=shape, latent_dim=Q, pixels="real", likelihood=likelihood).train()
    params, x = torch.randn(2, 7, *shape).double(), 3 * torch.randn(7, *shape).double()
    found = model.likelihood(params).log_prob(x)
    errors = (x - params).square().movedim(2, 0).flatten(1).mean(1)
    wide = errors.sqrt().view(-1, *[1] * (len(shape) - 1))
    assert_close(found, Normal(params, wide).log_prob(x).flatten(2).sum(-1))
    assert_close(likelihood.variance, errors)
    fixed = model.eval().likelihood(params)
    assert_close(fixed.log_prob(x), found)
    assert fixed.sample().shape == params.shape


def test_scale_per_column_is_right_after_few_batches():
    """A learned scale has left its start, 1, by a tenth after 90 batches, as of a small table."""
    errors = torch.tensor([0.1, 0.4])
    found = {}
    for scale in ("learned", "per_column"):
        likelihood = likelihoods.Gaussian(scale)
        build_linear(x_shape=(2,), latent_dim=Q, pixels="real", likelihood=likelihood)
        likelihood.float().train()
        optimizer = torch.optim.Adam(likelihood.parameters(), lr=1e-3)
        torch.manual_seed(0)
        for _ in range(90):
            loss = -likelihood(torch.zeros(100, 2)).log_prob(errors * torch.randn(100, 2)).mean()
            if loss.requires_grad:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        found[scale] = likelihood.eval()(torch.zeros(1, 2)).stddev[0]
    assert (found["learned"] > 0.9).all()
    assert_close(found["per_column"], errors, rtol=0.05, atol=0)


@pytest.mark.parametrize("pixels", ["grey", "dequantized"])
def test_likelihoods_of_images_start_as_before(pixels):
    model = build_linear(pixels=pixels, likelihood=likelihoods.Gaussian("learned"))
    assert model.likelihood.centre == 0.5
    assert_close(model.likelihood.log_scale.exp().item(), 0.25)


def test_likelihoods_of_pixels_refuse_numbers():
    refused = ["Categorical", "ContinuousBernoulli", "DiscretizedLogistic"]
    for name in [*refused, "DiscretizedLogisticMixture"]:
        with pytest.raises(UserError, match="numbers take likelihood=gaussian or laplace"):
            check_pixels("real", getattr(likelihoods, name)(), (5,))
    with pytest.raises(UserError, match=r"takes data.pixels=binary$"):
        check_pixels("real", likelihoods.Bernoulli(), (5,))
    with pytest.raises(UserError, match=r"takes data.pixels=real$"):
        check_pixels("binary", likelihoods.Gaussian(), (2, 9))
    with pytest.raises(UserError, match=r"takes data.pixels=dequantized or data.pixels=grey$"):
        check_pixels("binary", likelihoods.Gaussian(), (1, 8, 8))
