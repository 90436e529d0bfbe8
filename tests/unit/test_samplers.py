"""Samplers, which fit priors to the codes of a model, against scikit-learn and exact densities."""

import copy
import math

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.testing import assert_close

from vaelab.data import Images
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.evaluation.samplers import GMM, FittedFlow, FittedMixture, Flow, Own, sample_codes
from vaelab.evaluation.samples import sampler_metric_name

SMALL_NETWORK = ["model.latent_dim=2", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]


def label_row_splits():
    """Returns 300 black images with one white row: row 0, 1 or 2, which is the label."""
    labels = torch.arange(300) % 3
    images = torch.zeros(300, 1, 8, 8).byte()
    images[torch.arange(300), 0, labels] = 255
    return Splits(images, labels, images[:0], labels[:0], 3)


@pytest.fixture
def data():
    """Returns the data module of `label_row_splits`, with 200 training images."""
    return Images(source=label_row_splits, batch_size=20, val_size=50, test_size=50, pixels="grey")


@pytest.fixture
def build_model(compose, data):
    """Returns a function (*overrides) -> untrained model whose codes differ clearly by label."""

    def make(*overrides):
        cfg = compose(*SMALL_NETWORK, *overrides, "likelihood=bernoulli", "data.pixels=binary")
        shapes = data.shapes | {"pixels": "binary"}
        made = instantiate(cfg.model, _convert_="all", **shapes).eval()
        with torch.no_grad():
            made.encoder.layers.layers[0].weight.mul_(20)
            made.posterior.params.weight[:2].mul_(5)
            made.posterior.params.bias[2:] -= 2
        return made

    return make


def test_sample_codes_sees_training_images_neither_balanced_nor_moved(build_model, data):
    made = build_model("model=cvae")
    changes = {"balance": True, "flip": True, "shift": 2}
    settings = {"batch_size": 20, "val_size": 50, "test_size": 50, "pixels": "grey"}
    changed = Images(source=label_row_splits, **settings, **changes)
    for found, expected in zip(
        sample_codes(made, changed, 50), sample_codes(made, data, 50), strict=True
    ):
        assert torch.equal(found, expected)


def test_own_sampler_returns_the_model(build_model, data):
    made = build_model()
    assert Own()(made, data) is made


def test_sample_codes_draws_from_posterior_of_training_images(build_model, data):
    made = build_model("model=cvae")
    z, y = sample_codes(made, data, 1000)
    assert z.shape == (200, 2)
    assert len(sample_codes(made, data, 30)[0]) == 30
    with torch.no_grad():
        x = torch.zeros(3, 1, 8, 8)
        x[torch.arange(3), 0, torch.arange(3)] = 1
        q = made.latent_posterior(x, torch.eye(3))
    for label in range(3):
        error = (z[y[:, label] == 1] - q.mean[label]) / q.stddev[label]
        assert 50 < len(error) < 80
        assert error.mean().abs() < 4 / math.sqrt(2 * len(error))
        assert error.std() == pytest.approx(1, abs=0.25)
    assert torch.equal(z, sample_codes(made, data, 1000)[0])  # the seed is fixed


@pytest.mark.parametrize("overrides", [[], ["model=cvae"]])
def test_gmm_density_equals_scikit_learn(build_model, data, overrides):
    made = build_model(*overrides)
    z, y = sample_codes(made, data, 1000)
    fitted = GMM(components=2, images=1000)(made, data)
    points = torch.randn(5, 2)
    for label in range(3):
        of_label = z[y[:, label] == 1] if overrides else z
        expected = GaussianMixture(2, random_state=0).fit(of_label.double().numpy())
        given = torch.eye(3)[label].expand(5, -1)
        found = fitted.latent_prior(given).expand((5,)).log_prob(points)
        assert_close(
            found.double(), torch.from_numpy(expected.score_samples(points)), rtol=1e-3, atol=1e-3
        )


def test_fitted_mixture_equals_torch_mixture_distribution():
    weights, means = torch.tensor([[0.2, 0.8], [0.5, 0.5]]), torch.randn(2, 2, 3).double() * 3
    factors = torch.randn(2, 2, 3, 3).double()
    covariances = factors @ factors.mT + 0.1 * torch.eye(3)
    prior = FittedMixture(weights.double(), means, covariances)
    y = torch.eye(2)[torch.arange(40_000) % 2]
    z = prior(y).sample()
    for label in range(2):
        components = MultivariateNormal(means[label].float(), covariances[label].float())
        expected = MixtureSameFamily(Categorical(weights[label]), components)
        drawn = z[label::2]
        assert_close(drawn.mean(0), expected.mean, atol=0.1, rtol=0)
        assert_close(drawn.var(0), expected.variance, atol=0.3, rtol=0.05)
        assert_close(prior(y).log_prob(z)[label::2], expected.log_prob(drawn), atol=1e-3, rtol=1e-4)
        assert_close(prior(y[label : label + 1]).mean[0], expected.mean, atol=1e-5, rtol=1e-5)


def test_flow_fit_reaches_entropy_of_known_density():
    """Codes scatter about one of two lines, by label: their entropy is reached to 0.1 nats."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) % 2
    context = torch.eye(2)[labels]
    noise = torch.randn(4000, 2, generator=generator)
    slope = (2 * labels - 1).float()
    z = torch.stack([3 + noise[:, 0], 10 * slope * noise[:, 0] + noise[:, 1]], 1)
    entropy = 2 * 0.5 * math.log(2 * math.pi * math.e)  # a shear keeps volume
    flow = Flow(transforms=4, hidden=[32], images=1, steps=600, batch_size=256, lr=5e-3)
    fitted = FittedFlow(z, 2, transforms=4, hidden=[32])
    before = -fitted(context).log_prob(z).mean()
    flow.fit(fitted, z, context)
    after = -fitted(context).log_prob(z).mean().detach()
    assert before > entropy + 1
    assert float(after) == pytest.approx(entropy, abs=0.1)
    drawn = fitted(torch.eye(2)[[1] * 4000]).sample()
    assert np.corrcoef(drawn.T)[0, 1] > 0.95


@pytest.mark.parametrize("sampler", [GMM(2, 1000), Flow(2, [8], 1000, 50, 20, 1e-2)])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=cvae"],
        ["prior=vamp", "model.prior.components=5"],
        ["model=ladder_vae", "model.above=[2]", "model.hidden=8", "condition=one_hot"],
    ],
)
def test_sampler_fits_codes_without_changing_the_model(build_model, data, sampler, overrides):
    made = build_model(*overrides)
    before = copy.deepcopy(made.state_dict())
    state = torch.get_rng_state()
    other = sampler(made, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert other.decoder is made.decoder
    assert other.prior is not made.prior
    assert all(torch.equal(w, before[n]) for n, w in made.state_dict().items())
    y = torch.eye(3)[[0, 1, 2, 0]]
    assert other.sample_means(y).shape == (4, 1, 8, 8)
    z, given = sample_codes(made, data, 1000)
    with torch.no_grad():
        better = other.latent_prior(given).expand((len(z),)).log_prob(z).mean()
        assert better > made.latent_prior(given).expand((len(z),)).log_prob(z).mean()


@pytest.mark.parametrize(("components", "name"), [(1, "gaussian_fid"), (10, "gmm_fid")])
def test_metrics_of_a_mixture_of_one_are_those_of_a_gaussian(components, name):
    assert sampler_metric_name("fid", GMM(components, 100)) == name


def test_gmm_rejects_few_images_and_embedding_condition(build_model, data):
    with pytest.raises(UserError, match=r"=500: the number of images is 200, and at least 500"):
        GMM(500, 1000)(build_model(), data)
    with pytest.raises(UserError, match=r"the number of images of label 0 is \d+, and at"):
        GMM(100, 1000)(build_model("model=cvae"), data)
    with pytest.raises(UserError, match="sampler=flow takes any"):
        GMM(2, 1000)(build_model("condition=embedding"), data)
    Flow(2, [8], 1000, 5, 20, 1e-2)(build_model("condition=embedding"), data)


@pytest.mark.parametrize(("count", "expected"), [(1000, 200), (190, 190), (150, 150)])
def test_sample_codes_takes_images_that_an_epoch_drops(build_model, data, count, expected):
    data.batch_size = 60  # of 200 images an epoch drops 20
    z, y = sample_codes(build_model("model=cvae"), data, count)
    assert len(z) == len(y) == expected
    if expected == 200:
        labels = data.splits.train_labels[data.rows["train"]]
        assert torch.equal(y.argmax(1), labels)


def test_gmm_needs_two_images_of_a_class(build_model, data):
    data.rows["train"] = torch.cat(
        [
            data.rows["train"][data.splits.train_labels[data.rows["train"]] != 2],
            (data.splits.train_labels == 2).nonzero()[:1, 0],
        ]
    )
    with pytest.raises(UserError, match="images of label 2 is 1, and at least 2 are needed"):
        GMM(1, 1000)(build_model("model=cvae"), data)
