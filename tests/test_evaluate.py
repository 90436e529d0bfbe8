"""The evidence of a model, and the command that measures a finished run."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from test_elbo import linear, log_evidence, make_exact  # noqa: F401
from torch.testing import assert_close

import vaelab
from vaelab import evaluation
from vaelab.cli import CONF
from vaelab.errors import UserError
from vaelab.metrics import evidence as evidence_module
from vaelab.metrics.evidence import evidence

sys.path.insert(0, str(CONF.parent))

import evaluate
import train

SMALL = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "model.latent_dim=4"]


def test_with_the_exact_posterior_one_sample_is_enough(linear):  # noqa: F811
    make_exact(linear)
    x = torch.rand(6, 1, 8, 8).double()
    found = evidence(linear, x, x.new_zeros(6, 0), num_samples=1)
    assert_close(found["nll"], -log_evidence(linear, x).detach())


def test_it_tends_to_the_log_evidence_from_above(linear):  # noqa: F811
    make_exact(linear)
    with torch.no_grad():
        linear.posterior.params.bias[4:] += 0.3
    x = torch.rand(50, 1, 8, 8).double()
    exact = -log_evidence(linear, x).detach().mean()
    gaps = []
    for samples in (1, 10, 100, 5000):
        torch.manual_seed(0)
        found = evidence(linear, x, x.new_zeros(50, 0), samples)
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
    monkeypatch.setattr(evidence_module, "ROWS", rows)
    monkeypatch.setattr(
        type(q), "sample", lambda self, shape: torch.stack([next(given) for _ in range(shape[0])])
    )
    found = evidence(model, x, y, 30)
    with torch.no_grad():
        log_p = model.decode(z, y).log_prob(x)
        log_weights = log_p + model.latent_prior(y).log_prob(z) - q.log_prob(z)
    assert_close(found["nll"], math.log(30) - log_weights.logsumexp(0))
    assert_close(found["distortion"], -log_p.mean(0))
    assert_close(found["elbo"], -found["distortion"] - found["rate"])


def test_estimates_are_means_with_their_errors():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0]).double()
    found = evaluation.estimate(values)
    assert found["value"] == 3.0
    assert found["se"] == pytest.approx(math.sqrt(14 / 3) / 2)


def test_active_units_doubts_those_near_the_threshold():
    codes = torch.randn(1000, 4).double()
    codes = (codes - codes.mean(0)) / codes.std(0, correction=0)
    means = codes * torch.tensor([0.0, 0.05, 0.1001, 1.0]).double()  # active above 0.1
    assert evaluation.active_units(means) == {"value": 2.0, "se": 1.0}


def run(monkeypatch, command, *overrides):
    monkeypatch.setattr(sys, "argv", [f"{command.__name__}.py", *overrides])
    command.main()


@pytest.fixture
def finished(monkeypatch, tmp_path) -> Path:
    paths = [f"hydra.run.dir={tmp_path}/run", f"paths.data={tmp_path}/data", "logger=none"]
    run(monkeypatch, train, *SMALL, *paths, "model=cvae", "trainer.max_epochs=2")
    return tmp_path / "run"


def test_a_finished_run_is_measured_once_and_loads(finished, monkeypatch):
    def measured(*overrides):
        run(monkeypatch, evaluate, f"run={finished}", *overrides)
        return json.loads((finished / "evaluation.json").read_text())

    few, many = measured("num_samples=5"), measured("num_samples=50")
    assert -few["elbo"]["value"] >= few["nll"]["value"] >= many["nll"]["value"]
    tested = json.loads((finished / "results.json").read_text())
    assert few["rate"]["value"] == pytest.approx(tested["test/rate"], rel=1e-4)
    assert few["elbo"]["value"] == pytest.approx(tested["test/elbo"], abs=1.0)
    assert many["num_samples"] == 50

    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("measured again"))
    assert measured("num_samples=50") == many
    monkeypatch.undo()
    again = measured("num_samples=50", "seed=1")
    error = many["nll"]["se"]
    assert again["nll"]["value"] == pytest.approx(many["nll"]["value"], abs=error)

    model = vaelab.load(finished)
    assert not model.training
    assert model.sample(torch.eye(10)).shape == (10, 1, 28, 28)
    best = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(best[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "run has no value"),
        (["run=nowhere"], "nowhere is no run folder"),
        (["run=nowhere", "num_samples=0"], "num_samples=0: should be greater than 0"),
        (["run=nowhere", "num_sample=1"], "did you mean num_samples?"),
    ],
)
def test_refuses(monkeypatch, capsys, overrides, message):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, evaluate, *overrides)
    assert exit_.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert message in said


def test_load_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        vaelab.load(tmp_path)
