"""Log evidence by importance sampling, against exact log evidences; chunk and sample sizes."""

import math

import pytest
import torch
from support.linear_gaussian import log_evidence, make_exact
from torch.testing import assert_close

from vaelab import evaluation
from vaelab.data import Images
from vaelab.data.splits import Splits
from vaelab.evaluation import Subject
from vaelab.evaluation.likelihood import default_num_samples
from vaelab.metrics import evidence as evidence_module
from vaelab.metrics.chunking import entries_per_chunk, images_per_chunk
from vaelab.metrics.evidence import evidence_estimates

SMALL = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "model.latent_dim=4"]


def test_evidence_is_exact_with_one_sample_of_exact_posterior(linear):
    make_exact(linear)
    x = torch.rand(6, 1, 8, 8).double()
    found = evidence_estimates(linear, x, x.new_zeros(6, 0), num_samples=1)
    assert_close(found["nll"], -log_evidence(linear, x).detach())


def test_evidence_nll_falls_to_exact_nll_with_more_samples(linear):
    make_exact(linear)
    with torch.no_grad():
        linear.posterior.params.bias[4:] += 0.3
    x = torch.rand(50, 1, 8, 8).double()
    exact = -log_evidence(linear, x).detach().mean()
    gaps = []
    for samples in (1, 10, 100, 5000):
        torch.manual_seed(0)
        found = evidence_estimates(linear, x, x.new_zeros(50, 0), samples)
        gaps.append(float(found["nll"].mean() - exact))
    assert gaps == sorted(gaps, reverse=True)
    assert abs(gaps[-1]) < 0.01 < gaps[0]


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 10_000])
def test_evidence_estimates_do_not_depend_on_chunk_size(build, monkeypatch, chunk_size):
    """A replaced `sample` gives the same z for every chunk size."""
    model = build(*SMALL, x_shape=(1, 8, 8), num_classes=0).eval()
    x, y = torch.rand(5, 1, 8, 8).round(), torch.zeros(5, 0)
    q = model.latent_posterior(x, y)
    z = q.sample((30,))
    remaining = iter(z)
    monkeypatch.setattr(evidence_module, "images_per_chunk", lambda *_: chunk_size)
    monkeypatch.setattr(
        type(q),
        "sample",
        lambda self, shape: torch.stack([next(remaining) for _ in range(shape[0])]),
    )
    found = evidence_estimates(model, x, y, 30)
    with torch.no_grad():
        log_p = model.image_likelihood(z, y).log_prob(x)
        log_weights = log_p + model.latent_prior(y).log_prob(z) - q.log_prob(z)
    assert_close(found["nll"], math.log(30) - log_weights.logsumexp(0))
    assert_close(found["distortion"], -log_p.mean(0))
    assert_close(found["elbo"], -found["distortion"] - found["rate"])
    assert_close(found["rate_per_latent"].sum(1), found["rate"])


def test_chunk_sizes_by_image_shape_and_device():
    cpu, cuda, other = (torch.device(name) for name in ("cpu", "cuda", "xpu"))
    small, large = images_per_chunk((1, 8, 8), cpu), images_per_chunk((3, 64, 64), cpu)
    assert small * 64 == pytest.approx(large * 3 * 64 * 64, rel=0.01)
    assert images_per_chunk((1, 1500, 1500), cpu) == 1
    assert images_per_chunk((3, 64, 64), cuda) > large == images_per_chunk((3, 64, 64), other)
    assert entries_per_chunk(cuda) > entries_per_chunk(cpu) == entries_per_chunk(other)


def test_default_num_samples_is_5000_for_dense_and_100_for_conv(build):
    assert default_num_samples(build()) == 5_000
    assert default_num_samples(build("network=conv", x_shape=(3, 32, 32))) == 100


@pytest.mark.parametrize(("variant", "expected"), [("vae", 7), ("vq_vae", 1)])
def test_likelihood_says_how_many_samples_it_took(build, variant, expected, tmp_path):
    images, labels = torch.randint(256, (30, 1, 28, 28)).byte(), torch.zeros(30).long()
    splits = Splits(images, labels, images[:5], labels[:5], 10)
    data = Images(source=lambda: splits, batch_size=5, val_size=5, pixels="binary")
    subject = Subject(build(f"model={variant}").eval(), data, tmp_path)
    assert evaluation.likelihood(subject, num_samples=7)["num_samples"] == expected
