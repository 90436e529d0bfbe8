"""`VQVAE` with its codebook and prior against loops over positions and sums over all codes.

Also tests which parameters get a gradient from which term, the pictures and the commands.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from support.commands import run_command
from torch.testing import assert_close

import vaelab
from vaelab import pictures
from vaelab.commands import evaluate, export, generate, train
from vaelab.errors import UserError
from vaelab.metrics.aggregate import elbo_surgery
from vaelab.metrics.evidence import evidence_estimates
from vaelab.models.vq_vae import CodeTotals
from vaelab.pictures import Request

SHAPE, CLASSES = (1, 8, 8), 3
SMALL = "model=vq_vae network=mlp model.encoder.hidden=[12] model.decoder.hidden=[12]"
SMALL += (
    " model.latent_dim=6 model.posterior.codes=4 model.posterior.width=2 model.prior.hidden=[9]"
)
CODES, WIDTH, POSITIONS = 4, 2, 3


@pytest.fixture
def build_fresh(build):
    """(*overrides) -> a small fresh model in double precision, as at the start of training."""
    shapes = {"x_shape": SHAPE, "num_classes": CLASSES}
    return lambda *overrides: build(*" ".join([SMALL, *overrides]).split(), **shapes).double()


@pytest.fixture
def build_randomized(build_fresh):
    """(*overrides) -> a model of `build_fresh` with noise added to all weights."""

    def build_model(*overrides):
        model = build_fresh(*overrides)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.5 * torch.randn_like(parameter)
        return model

    return build_model


def batch(count=6):
    """Random binary images [B, 1, 8, 8] and one-hot labels [B, Y] in turn, in double precision."""
    x = torch.rand(count, *SHAPE).double().round()
    return x, torch.eye(CLASSES).double()[torch.arange(count) % CLASSES]


def all_code_sequences():
    """All M^N = 64 sequences of codes, [64, N]."""
    return torch.tensor([*itertools.product(range(CODES), repeat=POSITIONS)])


def log_prior_by_hand(model, codes, context):
    """Log p(codes | context) of one image, with the later codes of each position set to zero.

    Codes are [N], the context is [C].
    """
    total = 0.0
    for position, code in enumerate(codes):
        inputs = np.zeros((POSITIONS, CODES))
        for before in range(position):
            inputs[before, codes[before]] = 1.0
        h = np.concatenate([context, inputs.ravel()])
        for i, layer in enumerate(model.prior.layers):
            weight, bias = (layer.get_parameter(n).detach().numpy() for n in ("weight", "bias"))
            h = weight * layer.mask.numpy() @ h + bias
            if i + 1 < len(model.prior.layers):
                h = h / (1 + np.exp(-h))
        logits = h.reshape(POSITIONS, CODES)[position]
        total += logits[code] - np.log(np.exp(logits).sum())
    return total


@pytest.mark.parametrize("condition", ["none", "one_hot"])
@pytest.mark.parametrize("commitment", [0.0, 0.25, 3.0])
def test_vq_loss_and_elbo_match_loops_over_positions(build_randomized, commitment, condition):
    """Equation 3 of van den Oord et al. (2017), plus the rate of the learned prior."""
    model = build_randomized(f"model.commitment={commitment} condition={condition}")
    x, y = batch()
    context = y if condition == "one_hot" else y[:, :0]
    encoded = model.posterior.params(model.encoder(x, context)).detach().numpy()
    vectors = model.posterior.vectors.detach().numpy()
    losses, elbos, all_codes = [], [], []
    for i in range(len(x)):
        places = encoded[i].reshape(POSITIONS, WIDTH)
        codes = [int(np.argmin([((e - v) ** 2).sum() for v in vectors])) for e in places]
        z = torch.tensor(np.concatenate([vectors[c] for c in codes]))[None]
        probabilities = torch.sigmoid(model.decoder(z, context[i : i + 1])).detach()[0]
        distortion = -torch.where(x[i] == 1, probabilities, 1 - probabilities).log().sum().item()
        rate = -log_prior_by_hand(model, codes, context[i].numpy())
        error = np.mean([((e - vectors[c]) ** 2).sum() for e, c in zip(places, codes, strict=True)])
        losses.append(distortion + rate + error + commitment * error)
        elbos.append(-(distortion + rate))
        all_codes.append(codes)
    terms = model.terms(x, y)
    assert terms.q.codes.tolist() == all_codes
    assert len({tuple(codes) for codes in all_codes}) > 1
    assert_close(terms.elbo, torch.tensor(elbos).double(), rtol=0, atol=1e-9)
    assert_close(terms.log_weights[0], terms.elbo)
    assert_close(model.loss(x, y)[0].item(), float(np.mean(losses)), rtol=0, atol=1e-6)


# The prior, and the bound.


@pytest.mark.parametrize("hidden", ["[9]", "[]", "[7,2]"])
@pytest.mark.parametrize("condition", ["none", "one_hot"])
def test_codes_prior_sums_to_one_and_matches_samples(build_randomized, condition, hidden):
    model = build_randomized(f"condition={condition} model.prior.hidden={hidden}")
    y = batch(CLASSES)[1]
    prior, codes = model.latent_prior(y), all_code_sequences()
    assert prior.batch_shape == ((CLASSES,) if condition == "one_hot" else ())
    masses = prior.expand([CLASSES]).log_mass(codes[:, None]).exp()
    assert_close(masses.sum(0), torch.ones(CLASSES).double())
    assert (masses[:, 0] != masses[:, 1]).any() == (condition == "one_hot")
    assert (masses - 1 / len(codes)).abs().max() > 0.01
    z = model.posterior.code_vectors(codes)
    assert_close(prior.expand([CLASSES]).log_prob(z[:, None]).exp(), masses)
    drawn = prior.expand([CLASSES]).sample((20_000,))
    found = (model.posterior.nearest_codes(drawn)[:, :, None] == codes).all(-1).double().mean(0).T
    assert_close(found, masses, atol=5 * 0.5 / math.sqrt(20_000), rtol=0)


def test_codes_prior_at_temperature_zero_draws_likeliest_codes(build_randomized):
    model = build_randomized()
    cold = model.latent_prior(batch()[1]).with_temperature(0.0).sample((5,))
    codes = []
    for position in range(POSITIONS):
        inputs = torch.tensor([*codes, *[0] * (POSITIONS - position)])
        logits = model.prior.logits(inputs, torch.zeros(0).double())
        codes.append(int(logits[position].argmax()))
    assert_close(cold, model.posterior.code_vectors(torch.tensor(codes)).expand(5, -1))


def test_fresh_codes_prior_is_uniform(build_fresh):
    terms = build_fresh().terms(*batch())
    assert_close(terms.rate, torch.full((6,), POSITIONS * math.log(CODES)).double())
    one = build_fresh("model.posterior.codes=1").terms(*batch())  # one code has no information
    assert_close(one.rate, torch.zeros(6).double())
    assert_close(one.p.mean[0, 0], one.p.mean[0, 1])


def test_vq_elbo_is_below_evidence_summed_over_codes(build_randomized):
    """The bound is the joint density of one code sequence, so more samples do not tighten it."""
    model = build_randomized()
    x, y = batch()
    codes = all_code_sequences()
    log_joint = torch.stack(
        [
            model.latent_prior(y).log_mass(c)
            + model.image_likelihood(model.posterior.code_vectors(c)[None], y[:1]).log_prob(x)
            for c in codes
        ]
    )
    terms = model.terms(x, y, num_samples=4)
    assert (terms.elbo < log_joint.logsumexp(0)).all()
    assert all(
        e in log_joint[:, i].round(decimals=6)
        for i, e in enumerate(terms.elbo.detach().round(decimals=6))
    )
    few, many = evidence_estimates(model, x, y, 1), evidence_estimates(model, x, y, 500)
    for name in ("nll", "elbo", "rate"):
        assert torch.equal(few[name], many[name])
    assert_close(few["nll"], -terms.elbo)


def test_vq_posterior_has_all_mass_on_nearest_codes(build_randomized):
    model = build_randomized()
    x, y = batch()
    q = model.latent_posterior(x, y)
    z = model.posterior.code_vectors(all_code_sequences())
    assert_close(q.log_prob(z[:, None]).exp().sum(0), torch.ones(6).double())
    assert (q.log_prob(q.sample((3,))) == 0).all()
    assert torch.equal(q.mean, model.posterior.code_vectors(q.codes))  # bit for bit


def test_vector_of_every_code_is_that_code_in_single_precision(build):
    codes = ["model.posterior.codes=4096", "model.posterior.width=1", "model.latent_dim=8"]
    model = build("model=vq_vae", "network=mlp", *codes, x_shape=SHAPE, num_classes=CLASSES)
    every = torch.arange(4096).reshape(-1, 8)
    z = model.posterior.code_vectors(every).detach()
    again = model.posterior.code_vectors(model.posterior.nearest_codes(z)).detach()
    assert torch.equal(again, z)
    x, y = (part.float() for part in batch())
    terms = model.terms(x, y)
    assert_close(terms.log_weights[0], terms.elbo)


def test_vq_mutual_information_is_entropy_of_codes(build_randomized):
    model = build_randomized()
    x, y = batch(40)
    found = elbo_surgery(model, x, y)
    codes = [tuple(c) for c in model.latent_posterior(x, y).codes.tolist()]
    shares = torch.tensor([codes.count(c) / 40 for c in codes]).double()
    assert 1 < len(set(codes)) < 40
    assert_close(found["mutual_information"], -shares.log())
    total = (found["mutual_information"] + found["marginal_kl"]).mean()
    assert_close(total, model.terms(x, y).rate.mean().detach())


# Gradients.


def gradients_by_part(model, loss):
    """The gradients of the loss [] to the parameters of encoder, codebook, decoder and prior."""
    parts = {"encoder": [*model.encoder.parameters(), *model.posterior.params.parameters()]}
    parts |= {"codebook": [model.posterior.vectors]}
    parts |= {"decoder": [*model.decoder.parameters()], "prior": [*model.prior.parameters()]}
    names = [name for name, values in parts.items() for _ in values]
    values = [value for part in parts.values() for value in part]
    found = torch.autograd.grad(loss, values, allow_unused=True, retain_graph=True)
    return {name: [g for n, g in zip(names, found, strict=True) if n == name] for name in parts}


def parts_with_gradient(model, loss):
    """The names of the parts that the loss has a nonzero gradient to."""
    found = gradients_by_part(model, loss)
    return {name for name in found if any(g is not None and g.any() for g in found[name])}


def test_vq_loss_terms_have_gradients_to_intended_parts_only(build_randomized):
    model = build_randomized("model.commitment=0")
    x, y = batch()
    terms = model.terms(x, y)
    assert parts_with_gradient(model, terms.distortion.sum()) == {"encoder", "decoder"}
    assert parts_with_gradient(model, terms.rate.sum()) == {"prior"}
    errors = model.objective(terms) - terms.distortion.mean() - terms.rate.mean()
    assert parts_with_gradient(model, errors) == {"codebook"}
    model.commitment.fill_(0.5)
    errors = model.objective(terms) - terms.distortion.mean() - terms.rate.mean()
    assert parts_with_gradient(model, errors) == {"encoder", "codebook"}
    codebook = (terms.q.encoded.detach() - model.posterior.code_vectors(terms.q.codes)).square()
    expected = torch.autograd.grad(codebook.sum() / 6 / POSITIONS, model.posterior.vectors)[0]
    assert_close(gradients_by_part(model, model.objective(terms))["codebook"][0], expected)


def test_vq_encoder_gradient_is_straight_through(build_randomized):
    """The encoder gets the gradient at the codes' vectors, as if these were its output."""
    model = build_randomized("model.commitment=0.5")
    x, y = batch()
    terms = model.terms(x, y)
    z = terms.q.quantized.detach().requires_grad_()
    slope = torch.autograd.grad(-model.image_likelihood(z[None], y).log_prob(x).mean(), z)[0]
    slope = slope + 0.5 * 2 * (terms.q.encoded - z).detach() / POSITIONS / len(x)
    through = torch.autograd.grad(
        terms.q.encoded, [*model.encoder.parameters()], slope, retain_graph=True
    )
    found = torch.autograd.grad(model.objective(terms), [*model.encoder.parameters()])
    assert_close(found, through)


def test_vq_training_raises_elbo_and_lowers_rate(build_fresh):
    model = build_fresh("condition=one_hot")
    x, y = batch(30)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    before = model.terms(x, y).elbo.mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(x, y)[0]
        loss.backward()
        optimizer.step()
    terms = model.terms(x, y)
    assert terms.elbo.mean() > before + 1
    assert terms.rate.mean() < POSITIONS * math.log(CODES) - 0.2
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


# Metrics, pictures and refusals.


def test_code_totals_count_codes_and_perplexity(build_randomized):
    model = build_randomized()
    totals = CodeTotals(CODES)
    codes = []
    for count in (6, 3):
        terms = model.terms(*batch(count))
        codes += terms.q.codes.flatten().tolist()
        totals.add(terms, model.objective(terms))
    values, _ = totals.compute_means()
    shares = np.bincount(codes) / len(codes)
    shares = shares[shares > 0]
    assert values["codes_used"] == len(shares)
    assert values["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert 1 < values["perplexity"] < CODES


def test_vq_draw_in_two_processes_returns_posterior_mean(build_randomized, monkeypatch):
    model = build_randomized()
    x, y = batch()
    monkeypatch.setattr("vaelab.distributed.rank_and_world_size", lambda: (1, 2))
    q = model.latent_posterior(x, y)
    assert_close(model.draw(q, 2), q.mean.expand(2, -1, -1))


@pytest.mark.parametrize("condition", ["none", "one_hot"])
def test_vq_pictures_exclude_continuous_latents_and_samples_are_codes(build_randomized, condition):
    model = build_randomized(f"condition={condition}").eval().float()
    x, y = (part.float() for part in batch(20))
    expected = {"reconstructions", "samples"} | (
        {"class_grid"} if condition == "one_hot" else set()
    )
    assert {*pictures.draw_overview(model, x, y)} == expected
    request = Request(x, y, CLASSES)
    for name in ("traversal", "interpolation", "manifold", "arithmetic"):
        assert pictures.obstacle(name, model, request).endswith("those of this model are codes")
    arrays = pictures.draw("samples", model, request).arrays
    z = arrays["z"].unflatten(-1, (POSITIONS, WIDTH))
    distances = (z[:, :, None] - model.posterior.vectors).abs().sum(-1).amin(-1)
    assert_close(distances, torch.zeros_like(distances))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("model.posterior.width=4", "model.posterior.width=4 does not divide the 6 latents"),
        ("prior=standard_normal", "takes prior=codes"),
        ("prior=vamp", "takes prior=codes"),
        ("posterior=gaussian", "takes posterior=codebook"),
    ],
)
def test_invalid_vq_settings_are_refused(build, overrides, message):
    part = overrides.partition("=")[0]
    words = [w for w in SMALL.split() if "." in part or not w.startswith(f"model.{part}.")]
    with pytest.raises(InstantiationException) as error:
        build(*words, *overrides.split(), x_shape=SHAPE)
    assert isinstance(error.value.__cause__, UserError)
    assert message in str(error.value.__cause__)


def test_other_models_refuse_codes_prior_and_codebook_posterior(build):
    with pytest.raises(InstantiationException, match="prior=codes is that of model=vq_vae"):
        build("model=vae", "prior=codes", "posterior=codebook", x_shape=SHAPE)
    model = build("model=vae", "posterior=codebook", x_shape=SHAPE)
    with pytest.raises(UserError, match="posterior=codebook is that of model=vq_vae"):
        model.loss(torch.rand(3, *SHAPE).round(), torch.zeros(3, 10))


# From the command line.


def test_vq_train_evaluate_generate_export_and_load(tmp_path, capsys):
    digits, folder = f"paths.data={tmp_path}/digits", tmp_path / "run"
    few = "trainer.max_epochs=2 logger=csv data.batch_size=500"
    run_command(train, *SMALL.split(), *few.split(), digits, f"hydra.run.dir={folder}")
    results = vaelab.training.json_files.read_json(folder / "results.json")
    assert 1 <= results["test/perplexity"] <= CODES
    assert results["test/elbo"] == pytest.approx(-results["test/rate"] - results["test/distortion"])
    assert {p.stem for p in (folder / "figures").iterdir()} == {"reconstructions", "samples"}
    run_command(evaluate, f"run={folder}", "what=[likelihood,latents]", "num_samples=5000", digits)
    found = vaelab.training.json_files.read_json(folder / "evaluation.json")
    assert found["nll"]["value"] == pytest.approx(-results["test/elbo"], rel=1e-5)
    run_command(generate, f"run={folder}", "what=samples", "temperature=0.5")
    assert (folder / "generated" / "samples_temperature-0.5.png").exists()
    for words, reason in (
        ((generate, "what=traversal"), "those of this model are codes"),
        ((evaluate, "what=ais", digits), "those of this model are codes"),
        ((export, "what=onnx"), "what=safetensors exports the model"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            run_command(words[0], f"run={folder}", *words[1:])
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert reason in line
    run_command(export, f"run={folder}", "what=safetensors")
    x = torch.rand(4, 1, 28, 28).round()
    terms = [
        vaelab.load(where).terms(x, torch.zeros(4, 10)) for where in (folder, folder / "export")
    ]
    assert torch.equal(*(t.elbo for t in terms))
