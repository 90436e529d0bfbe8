"""Metrics of how a conditional model depends on labels, against independent computations."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot
from torch.testing import assert_close

from vaelab.metrics import conditional
from vaelab.metrics.conditional import label_agreement, label_metrics, linear_probe, nll_by_label


class LabelPainter(nn.Module):
    """A conditional model whose images are one pixel with the number of the label."""

    num_classes = 3
    x_shape = (1, 1, 1)
    device = torch.device("cpu")

    def sample_means(self, y):
        return y.argmax(1).float().view(-1, 1, 1, 1)


class InaccurateClassifier(nn.Module):
    """A classifier that reads the label from the pixel, but takes every second 2 for 0."""

    def __init__(self):
        super().__init__()
        self.twos = 0

    def logits(self, x):
        seen = x.flatten().long()
        for i in (seen == 2).nonzero().flatten().tolist():
            self.twos += 1
            seen[i] = 2 * (self.twos % 2)
        return one_hot(seen, 3).float()


def test_label_agreement_is_exact_in_total_and_per_class(monkeypatch):
    monkeypatch.setattr(conditional, "images_per_chunk", lambda *_: 7)
    found = label_agreement(LabelPainter(), InaccurateClassifier(), per_class=10)
    assert found["agreement"]["value"] == pytest.approx(25 / 30)
    assert found["agreement"]["se"] == pytest.approx(math.sqrt(25 / 30 * 5 / 30 / 29))
    assert found["agreement_per_class"]["value"] == [1, 1, 0.5]
    assert found["agreement_per_class"]["se"] == pytest.approx([0, 0, math.sqrt(0.25 / 9)])


def test_nll_by_label_matches_numerical_integration_over_z(build):
    """With one latent, p(x | y) is a sum of p(z | y) p(x | z, y) over a fine grid of z."""
    small = ["model.latent_dim=1", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
    overrides = ["model=cvae", "prior=conditional_normal", *small]
    model = build(*overrides, x_shape=(1, 8, 8), num_classes=3).eval()
    with torch.no_grad():
        model.prior.params.weight.copy_(torch.tensor([[0.5, -0.5, 0.0], [0.2, 0.0, -0.3]]))
        model.decoder.layers.layers[0].weight.mul_(3)
    x, labels = torch.rand(5, 1, 8, 8).round(), torch.tensor([2, 0, 1, 1, 0])
    batches = zip(x.split(2), one_hot(labels, 3).float().split(2), strict=True)
    table, found = nll_by_label(model, batches, num_samples=4000)
    assert torch.equal(found, labels)

    z = torch.linspace(-8, 8, 2001)[:, None, None]
    for column, y in zip(table.T, torch.eye(3), strict=True):
        with torch.no_grad():
            log_p = model.image_likelihood(z.expand(-1, 5, -1), y.expand(5, -1)).log_prob(x)
            log_p += model.latent_prior(y.expand(5, -1)).log_prob(z)
        exact = -(log_p.logsumexp(0) + math.log(16 / 2000))
        assert_close(column, exact, atol=0.05, rtol=0)
    assert (table.std(1) > 0.1).all()  # the label matters


def test_label_metrics_match_hand_computed_values():
    """p(x | y) are 1/2, 1/4, 1/8 for the first image and 1/8, 1/8, 1 for the second."""
    nll = -torch.tensor([[0.5, 0.25, 0.125], [0.125, 0.125, 1.0]]).double().log()
    frequencies = torch.tensor([0.2, 0.6, 0.2]).double()
    found = label_metrics(nll, torch.tensor([0, 2]), frequencies)
    marginals = [0.1 + 0.15 + 0.025, 0.025 + 0.075 + 0.2]
    expected = {
        "nll_given_label": [math.log(2), 0.0],
        "nll_marginal": [-math.log(p) for p in marginals],
        "label_information": [math.log(0.5 / marginals[0]), math.log(1 / marginals[1])],
        "wrong_label_cost": [1.5 * math.log(2), 3 * math.log(2)],
        "label_accuracy": [False, True],  # label 1, the most frequent, is likelier than label 0
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert_close(found[name], torch.tensor(values).to(found[name].dtype))


def test_label_information_is_at_most_negative_log_frequency():
    nll, labels = 50 * torch.rand(4000, 4).double(), torch.arange(4000) % 4
    frequencies = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    gained = label_metrics(nll, labels, frequencies)["label_information"]
    assert (gained <= 1e-12 - frequencies.log()[labels]).all()
    nll[torch.arange(4000), labels] = -1000.0  # the right label is certain
    gained = label_metrics(nll, labels, frequencies)["label_information"]
    assert_close(gained, -frequencies.log()[labels])


def test_label_metrics_ignore_labels_of_zero_frequency():
    found = label_metrics(torch.ones(1, 2), torch.tensor([0]), torch.tensor([1.0, 0.0]))
    assert found["label_information"].item() == 0
    assert found["label_accuracy"].item()


@pytest.mark.slow
def test_linear_probe_finds_signal_and_is_at_chance_on_noise():
    labels = torch.arange(1000).remainder(5).sort().values  # sorted, as in some data files
    codes = 1e-3 * torch.randn(1000, 3)
    codes[:, 1] += 1e3 + labels.eq(0)
    codes[:, 2] += labels.clamp(max=1) * labels
    assert linear_probe(1e-3 * codes, labels)["probe"]["value"] > 0.95  # for any scale of codes

    noise = torch.randn(1000, 200)  # enough columns to overfit the training folds
    found = linear_probe(noise, labels)
    assert found["probe"]["value"] == pytest.approx(0.2, abs=5 * found["probe"]["se"])
    assert found["probe"]["se"] == pytest.approx(math.sqrt(0.16 / 1000), rel=0.15)
    assert found["probe_chance"]["value"] == 0.2

    uneven = linear_probe(noise[:400], torch.tensor([0] * 300 + [1] * 100))
    assert uneven["probe_chance"]["value"] == 0.75
