"""A linear VAE, trained to the optimum, against probabilistic principal component analysis (PCA).

Tipping & Bishop (1999), equations 7 and 8, give the log-evidence of PCA at its optimum. Lucas et
al. (2019), arXiv:1911.02469, show that the ELBO of a linear VAE reaches it, has no other optimum,
and prunes only the latents for which the data have no direction.
"""

import math
from pathlib import Path

import pytest
import torch
from support.linear_gaussian import build_linear
from torch.testing import assert_close

from vaelab import evaluation, likelihoods
from vaelab.data import Images
from vaelab.data.splits import Splits
from vaelab.errors import NotApplicable
from vaelab.evaluation.pca import pca_obstacle
from vaelab.evaluation.subject import Subject
from vaelab.metrics.evidence import evidence_estimates
from vaelab.metrics.principal_components import PrincipalComponents
from vaelab.networks import LinearDecoder, LinearEncoder

SHAPE, LATENTS, IMAGES = (1, 2, 5), 5, 60
NOISE = 0.05  # standard deviation of the noise, equal in all directions
SIGNAL = [0.5, 0.3, 0.15]  # standard deviations of the signal directions
SURPLUS = LATENTS - len(SIGNAL)  # latents without a signal direction


def sigma_points(q, num_samples):
    """Returns 2D points z of q, [2D, B, D]; `num_samples` is ignored.

    Their means and mean squares are those of q, so the loss of a linear decoder is exact.
    """
    steps = math.sqrt(LATENTS) * torch.eye(LATENTS).to(q.mean)
    return q.mean + q.stddev * torch.cat([steps, -steps])[:, None]


@pytest.fixture(scope="module")
def data():
    """Images [N, C, H, W], and the eigenvalues and eigenvectors of their sample covariance.

    The eigenvalues are exactly those of the signal and the noise.
    """
    torch.manual_seed(0)
    size = math.prod(SHAPE)
    spread = torch.tensor(SIGNAL + [0.0] * (size - len(SIGNAL))).double()
    eigenvalues = spread.square() + NOISE**2
    directions = torch.linalg.qr(torch.randn(size, size).double())[0]
    noise = torch.randn(IMAGES, size).double()
    white = math.sqrt(IMAGES) * torch.linalg.qr(noise - noise.mean(0))[0]
    x = torch.rand(size).double() + white * eigenvalues.sqrt() @ directions.T
    return x.view(-1, *SHAPE), eigenvalues, directions


@pytest.fixture(scope="module")
def trained(data):
    """(model, terms) of a linear VAE, trained by its own loss with exact expectations."""
    torch.manual_seed(1)
    likelihood = likelihoods.Gaussian("learned")
    model = build_linear(x_shape=SHAPE, latent_dim=LATENTS, likelihood=likelihood)
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
    del model.draw  # from here on samples are random
    return model, terms


def log_evidence(eigenvalues):
    """Returns the mean log-evidence [] of probabilistic PCA at its optimum, in nats per image."""
    kept, discarded = eigenvalues[:LATENTS], eigenvalues[LATENTS:]
    log_det = kept.log().sum() + len(discarded) * discarded.mean().log()
    return -0.5 * (len(eigenvalues) * (math.log(2 * math.pi) + 1) + log_det)


@pytest.mark.slow
def test_linear_vae_elbo_reaches_log_evidence_of_pca(data, trained):
    expected = log_evidence(data[1])
    assert_close(trained[1].elbo.mean(), expected, atol=1e-3, rtol=0)


def test_linear_vae_learned_variance_is_mean_discarded_eigenvalue(data, trained):
    found = trained[0].likelihood.log_scale.exp()
    assert_close(found.square(), data[1][LATENTS:].mean(), rtol=1e-3, atol=0)


def test_linear_vae_prunes_only_surplus_latents(data, trained):
    """The rate of latent i is half the log of eigenvalue i over the variance of the noise."""
    found = trained[1].rate_per_latent.mean(0).sort(descending=True).values
    expected = 0.5 * (data[1][:LATENTS] / NOISE**2).log()
    assert (found[-SURPLUS:] < 0.01).all()
    assert (found[:-SURPLUS] > 0.01).all()
    assert_close(found, expected, atol=0.01, rtol=0)


def test_linear_vae_decoder_columns_are_principal_directions(data, trained):
    """W W' = U (Lambda - s^2) U', and each column of W is along one eigenvector."""
    _, eigenvalues, directions = data
    loadings = trained[0].decoder.out.weight
    order = loadings.norm(dim=0).argsort(descending=True)
    along = (directions.T @ loadings[:, order])[:LATENTS].abs()
    assert_close(along, (eigenvalues[:LATENTS] - NOISE**2).sqrt().diag(), atol=0.01, rtol=0)


def test_linear_vae_log_weights_equal_elbo_for_every_sample(data, trained):
    (model, terms), x = trained, data[0]
    weights = model.terms(x, x.new_zeros(len(x), 0), num_samples=50).log_weights
    assert_close(weights, terms.elbo.expand(50, -1), atol=0.02, rtol=0)


@pytest.mark.parametrize("latents", [1, 3, 6])
def test_principal_components_give_the_density_at_the_optimum(data, latents):
    """The NLL against the covariance written out, and its mean against that of the eigenvalues."""
    x, eigenvalues, directions = data
    fitted = PrincipalComponents.fit(x.split(7), latents)
    kept = torch.cat([eigenvalues[:latents], eigenvalues[latents:].mean().expand(10 - latents)])
    covariance = directions @ kept.diag() @ directions.T
    p = torch.distributions.MultivariateNormal(x.flatten(1).mean(0), covariance)
    assert_close(fitted.nll(x), -p.log_prob(x.flatten(1)), rtol=1e-6, atol=1e-6)
    expected = 0.5 * (10 * (math.log(2 * math.pi) + 1) + kept.log().sum())
    assert_close(fitted.nll(x).mean(), expected)


def test_principal_components_of_too_few_directions_are_not_applicable():
    x = torch.randn(50, 2) @ torch.randn(2, 8)
    with pytest.raises(NotApplicable, match="no more than 2 directions"):
        PrincipalComponents.fit([x], 2)
    assert PrincipalComponents.fit([x], 1).nll(x).isfinite().all()


def test_trained_linear_vae_has_the_nll_of_principal_components(data, trained):
    x = data[0]
    found = evidence_estimates(trained[0], x, x.new_zeros(len(x), 0), 200)["nll"]
    assert_close(found, PrincipalComponents.fit([x], LATENTS).nll(x), atol=0.02, rtol=0)


def test_pca_metric_measures_test_images_by_training_images(build):
    images = torch.randint(256, (60, 1, 3, 3), dtype=torch.uint8)
    splits = Splits(images, torch.zeros(60).long(), images[:7], torch.zeros(7).long(), 0)
    data = Images(source=lambda: splits, batch_size=10, val_size=20, pixels="grey")
    parts = ["network=linear", "likelihood=gaussian", "data.pixels=grey", "model.latent_dim=2"]
    model = build(*parts, x_shape=(1, 3, 3), num_classes=0)
    subject = Subject(model.eval(), data, Path(), track=lambda items, _: items)
    fitted = PrincipalComponents.fit([images[data.rows["train"]] / 255], 2)
    found = evaluation.pca(subject)["pca_nll"]["value"]
    assert found == pytest.approx(fitted.nll(images[:7] / 255).mean().item(), abs=1e-4)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ("", "one scale"),
        ("likelihood=laplace data.pixels=grey", "one scale"),
        ("likelihood=gaussian model.likelihood.scale=per_pixel", "one scale"),
        ("likelihood=gaussian model.likelihood.scale=per_column", "one scale"),
        ("likelihood=gaussian model=cvae", "no labels"),
        ("likelihood=gaussian model.latent_dim=16", "more numbers in x than latents"),
        ("likelihood=gaussian model.likelihood.scale=optimal model.latent_dim=15", None),
    ],
)
def test_pca_says_why_it_is_not_applicable(build, parts, reason):
    model = build(*parts.split(), "network=mlp", x_shape=(1, 4, 4))
    found = pca_obstacle(model, None)
    assert reason in found if reason else found is None


def test_linear_networks_have_no_hidden_layer():
    encoder, decoder = LinearEncoder((1, 2, 3), 4), LinearDecoder(5, 4, (2, 2, 3))
    x, y, z = torch.randn(7, 1, 2, 3), torch.randn(7, 4), torch.randn(7, 5)
    assert torch.equal(encoder(x, y), torch.cat([x.flatten(1), y], 1))
    assert encoder.features == 10
    assert decoder(z, y).shape == (7, 2, 2, 3)
    both = decoder(z, y) + decoder(-z, -y)  # an affine map
    assert_close(both, 2 * decoder(0 * z, 0 * y))
