"""The log evidence by importance sampling."""

import math

import pytest
import torch
from support.linear_gaussian import log_evidence, make_exact
from torch.testing import assert_close

from vaelab.chunking import entries_per_chunk, images_per_chunk
from vaelab.evaluation.likelihood import default_num_samples
from vaelab.metrics import evidence as evidence_module
from vaelab.metrics.evidence import evidence_estimates

SMALL = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "model.latent_dim=4"]


def test_with_the_exact_posterior_one_sample_is_enough(linear):
    make_exact(linear)
    x = torch.rand(6, 1, 8, 8).double()
    found = evidence_estimates(linear, x, x.new_zeros(6, 0), num_samples=1)
    assert_close(found["nll"], -log_evidence(linear, x).detach())


def test_it_tends_to_the_log_evidence_from_above(linear):
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


@pytest.mark.parametrize("rows", [1, 7, 64, 10_000])
def test_the_chunks_do_not_matter(build, monkeypatch, rows):
    """The same z in whatever portions: the sampler is replaced by a fixed list of them."""
    model = build(*SMALL, x_shape=(1, 8, 8), num_classes=0).eval()
    x, y = torch.rand(5, 1, 8, 8).round(), torch.zeros(5, 0)
    q = model.encode(x, y)
    z = q.sample((30,))
    given = iter(z)
    monkeypatch.setattr(evidence_module, "images_per_chunk", lambda *_: rows)
    monkeypatch.setattr(
        type(q), "sample", lambda self, shape: torch.stack([next(given) for _ in range(shape[0])])
    )
    found = evidence_estimates(model, x, y, 30)
    with torch.no_grad():
        log_p = model.decode(z, y).log_prob(x)
        log_weights = log_p + model.latent_prior(y).log_prob(z) - q.log_prob(z)
    assert_close(found["nll"], math.log(30) - log_weights.logsumexp(0))
    assert_close(found["distortion"], -log_p.mean(0))
    assert_close(found["elbo"], -found["distortion"] - found["rate"])
    assert_close(found["rate_per_latent"].sum(1), found["rate"])


def test_a_portion_is_of_equal_size_in_memory():
    cpu, cuda, other = (torch.device(name) for name in ("cpu", "cuda", "xpu"))
    small, large = images_per_chunk((1, 8, 8), cpu), images_per_chunk((3, 64, 64), cpu)
    assert small * 64 == pytest.approx(large * 3 * 64 * 64, rel=0.01)
    assert images_per_chunk((1, 1500, 1500), cpu) == 1
    assert images_per_chunk((3, 64, 64), cuda) > large == images_per_chunk((3, 64, 64), other)
    assert entries_per_chunk(cuda) > entries_per_chunk(cpu) == entries_per_chunk(other)


def test_dense_models_are_small_and_get_5000_samples(build):
    assert default_num_samples(build()) == 5_000
    assert default_num_samples(build("network=conv", x_shape=(3, 32, 32))) == 100
