"""`LadderVAE` and `Hierarchy` against the formulas of the paper, `VAE` and an equivalent Gaussian.

The model's latents z are the paper's v, standardised by their prior.
"""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.errors import InstantiationException
from support.commands import run_command
from support.models import assert_gradients_are_differences
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

import vaelab
from vaelab import pictures
from vaelab.commands import evaluate, export, train
from vaelab.data.batches import Batches
from vaelab.distributions.hierarchy import Hierarchy
from vaelab.errors import UserError
from vaelab.metrics.aggregate import elbo_surgery
from vaelab.metrics.evidence import evidence_estimates
from vaelab.models import VAE, LadderVAE
from vaelab.models.ladder_vae import precision_weighted_posterior
from vaelab.pictures import Request
from vaelab.runs import validation

SHAPE, CLASSES = (1, 8, 8), 3
SMALL = "model.latent_dim=4 network=mlp model.encoder.hidden=[12] model.decoder.hidden=[12]"
LADDER = "model=ladder_vae model.above=[3,2] model.hidden=7"
WIDTHS = [2, 3, 4]  # from the top down


@pytest.fixture
def build_randomized(build):
    """(*overrides) -> a small model in double precision with noise added to all weights.

    The statistics that standardise the features of a ladder are random too.
    """

    def build_model(*overrides):
        words = " ".join([SMALL, *overrides]).split()
        model = build(*words, x_shape=SHAPE, num_classes=CLASSES).double()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
            for told in getattr(model, "evidence", []):
                told.mean.normal_()
                told.scale.uniform_(0.5, 2.0)
        return model

    return build_model


@pytest.fixture
def build_ladder(build_randomized):
    """(*overrides) -> a small ladder VAE with three levels, by `build_randomized`."""
    return partial(build_randomized, LADDER)


def batch(count=6):
    """Random binary images [B, 1, 8, 8] and one-hot labels [B, Y] in turn, in double precision."""
    x = torch.rand(count, *SHAPE).double().round()
    return x, torch.eye(CLASSES).double()[torch.arange(count) % CLASSES]


# The bound.


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    "parts",
    [
        "",
        "condition=one_hot prior=conditional_normal",
        "prior=mixture",
        "prior=vamp",
        "posterior=full_gaussian",
        "posterior=iaf prior=flow",
    ],
)
def test_ladder_with_one_level_equals_vae(build_randomized, parts, samples):
    """Compares values, gradients and samples, with the same weights and the same noise."""
    parts = f"{parts} model.num_samples={samples} model.free_bits=0"
    parts += " model.prior.components=6" if "mixture" in parts or "vamp" in parts else ""
    vae, one = (
        build_randomized(parts),
        build_randomized("model=ladder_vae model.above=[] model.hidden=7", parts),
    )
    assert isinstance(one, LadderVAE)
    assert type(vae) is VAE
    one.load_state_dict(vae.state_dict())
    x, y = batch()
    found = []
    for model in (vae, one):
        torch.manual_seed(2)
        terms = model.terms(x, y)
        loss = model.objective(terms)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        torch.manual_seed(3)
        sampled = model.sample_means(y)
        bounds = [
            loss,
            terms.elbo,
            terms.rate_per_latent,
            terms.log_weights,
            model.mean_reconstruction(x, y),
        ]
        found.append([*bounds, sampled, *gradients])
    assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def bound_by_hand(model, x, y, z):
    """The terms of the bound of one image from one z, by the paper's v and full covariances.

    Args:
        model: The model.
        x: One image [1, C, H, W].
        y: Its label [1, Y].
        z: Its latents [D].

    Returns:
        The log-likelihood, the rate of each level from the top down, and log q(v | x) - log p(v).
    """
    context = y[:, : model.context_dim]
    d, told = model.encoder(x, context), []
    for up, linear in zip(model.up, model.evidence, strict=True):
        features = (d - linear.mean) / linear.scale
        if linear.limit:
            square = features.square().mean()
            features = features * linear.limit / (linear.limit**2 + square).sqrt()
        told.insert(0, linear.params(features))
        d = up(torch.cat([d, context], 1), context)
    top, *rest = z.split(WIDTHS)
    mean, log_scale = model.posterior.params(d).chunk(2, 1)
    q = MultivariateNormal(mean[0], log_scale[0].mul(2).exp().diag())
    p = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    if model.context_dim:
        mean, log_scale = model.prior.params(context).chunk(2, 1)
        p = MultivariateNormal(mean[0], log_scale[0].mul(2).exp().diag())
    v = top
    rates, ratio = [kl_divergence(q, p)], q.log_prob(v) - p.log_prob(v)
    for down, linear, latents in zip(model.down, told, rest, strict=True):
        h = down.layers(torch.cat([v[None], context], 1), context)
        m_p, scale = down.params(h)[0].chunk(2)
        m_hat, low = linear[0].chunk(2)
        var_p = (1 + scale.exp()).log() if down.scale == "softplus" else (2 * scale).exp()
        var_hat = (1 + low.exp()).log()
        var_q = 1 / (1 / var_hat + 1 / var_p)  # in the symbols of the paper
        m_q = (m_hat / var_hat + m_p / var_p) / (1 / var_hat + 1 / var_p)
        q, p = MultivariateNormal(m_q, var_q.diag()), MultivariateNormal(m_p, var_p.diag())
        v = m_p + var_p.sqrt() * latents
        rates.append(kl_divergence(q, p))
        ratio = ratio + q.log_prob(v) - p.log_prob(v)
    logits = model.decoder(v[None], context)
    likelihood = -torch.nn.functional.softplus(torch.where(x == 1, -logits, logits)).sum()
    return likelihood, torch.stack(rates), ratio


@pytest.mark.parametrize(
    "parts",
    [
        "model.prior_scale=softplus",
        "model.prior_scale=exp",
        "model.feature_limit=null",
        "model.feature_limit=0.5",
        "condition=one_hot prior=conditional_normal",
    ],
)
def test_ladder_bound_matches_formula_of_paper(build_ladder, parts):
    model = build_ladder(parts, "model.num_samples=2")
    x, y = batch()
    torch.manual_seed(2)
    terms = model.terms(x, y)
    torch.manual_seed(2)
    loss, distortion, rate = model.loss(x, y)
    assert terms.z.shape == (2, 6, 9)
    found = [
        [bound_by_hand(model, x[i : i + 1], y[i : i + 1], terms.z[k, i]) for i in range(len(x))]
        for k in range(2)
    ]
    likelihoods, rates, ratios = (
        torch.stack([torch.stack([image[part] for image in row]) for row in found])
        for part in range(3)
    )
    assert_close(terms.log_likelihood, likelihoods, rtol=0, atol=1e-9)
    levels = torch.stack([r.sum(1) for r in terms.rate_per_latent.split(WIDTHS, 1)], 1)
    assert_close(levels, rates.mean(0), rtol=0, atol=1e-9)
    assert_close(terms.log_weights, likelihoods - ratios, rtol=0, atol=1e-9)
    assert_close(loss, (rates.sum(2) - likelihoods).mean(), rtol=0, atol=1e-9)
    assert_close([distortion, rate], [-likelihoods.mean(0), rates.sum(2).mean(0)])
    assert (levels > 0.01).all()  # the comparison would say nothing of a level without a rate


def test_features_that_grow_without_end_leave_the_likelihood_of_a_level_finite(build_ladder):
    """Without a limit log b falls with them, and training diverges."""
    level = build_ladder().evidence[0]
    deviations = torch.randn(5, len(level.mean)).double()
    deviations = deviations / deviations.square().mean(-1, keepdim=True).sqrt()
    direction = level.params(10 * deviations)
    for size in (1e4, 1e8):
        a, log_b = level(level.mean + size * deviations * level.scale)
        assert_close(a, direction[:, : a.shape[1]], rtol=1e-6, atol=1e-6)
        assert log_b.min() > 0.5 * direction.min() - 1
    small = level.params(deviations / 100)
    a, _ = level(level.mean + deviations / 100 * level.scale)
    assert_close(a, small[:, : a.shape[1]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", ["", "posterior=full_gaussian", "prior=mixture", "posterior=iaf"])
def test_ladder_rate_matches_monte_carlo_estimate(build_ladder, parts):
    """The KL of the joint distributions of all levels, and of each level where the rate splits."""
    model = build_ladder(parts)
    x, y = batch(3)
    with torch.no_grad():
        terms = model.terms(x, y, num_samples=20_000)
        ratio = terms.q.log_prob(terms.z) - terms.prior.log_prob(terms.z)
        levels = zip(terms.q.levels_given(terms.z), terms.prior.levels_given(terms.z), strict=True)
        parts = terms.q.split(terms.z)
        ratios = [q.log_prob(z) - p.log_prob(z) for (q, p), z in zip(levels, parts, strict=True)]
    assert_close(sum(ratios), ratio)
    rates = terms.rate_per_latent
    if rates.shape[1] == 9:
        rates = torch.stack([r.sum(1) for r in rates.split(WIDTHS, 1)])
        for level, log_ratio in zip(rates, ratios, strict=True):
            error = log_ratio.std(0) / math.sqrt(20_000)
            assert ((log_ratio.mean(0) - level).abs() < 5 * error).all()
    error = ratio.std(0) / math.sqrt(20_000)
    assert ((ratio.mean(0) - terms.rate).abs() < 5 * error).all()
    assert (error < 0.05 * terms.rate).all()


def test_level_rate_varies_less_than_sampled_log_ratio(build_ladder):
    """This is the reason for a closed form given the levels above; at the top it is constant."""
    model = build_ladder()
    x, y = batch(2)
    with torch.no_grad():
        terms = model.terms(x, y, num_samples=500)
        levels = zip(terms.q.levels_given(terms.z), terms.prior.levels_given(terms.z), strict=True)
        for (q, p), z in zip(levels, terms.q.split(terms.z), strict=True):
            ratio = q.log_prob(z) - p.log_prob(z)
            rate = kl_divergence(q, p).expand(500, 2)
            assert (rate.std(0) < 0.9 * ratio.std(0)).all()


def test_ladder_importance_weighted_bound_tightens_with_more_samples(build_ladder):
    model = build_ladder()
    x, y = batch(20)
    with torch.no_grad():
        terms = model.terms(x, y, num_samples=2_000)
    weights = terms.log_weights
    error = (weights + terms.rate - terms.log_likelihood).std(0) / math.sqrt(len(weights))
    assert ((weights.mean(0) - terms.elbo).abs() < 5 * error).all()
    groups = [weights.unflatten(0, (-1, k)).logsumexp(1) - math.log(k) for k in (5, 50, 500)]
    bounds = [terms.elbo.mean(), *(group.mean() for group in groups)]
    assert bounds == sorted(bounds)
    assert bounds[1] - bounds[0] > 0.05
    found = evidence_estimates(model, x, y, 500)
    assert (found["nll"].mean() < -found["elbo"].mean() - 0.05).all()
    assert found["rate_per_latent"].shape == (20, 9)


def test_precision_weighted_posterior_tends_to_prior_or_likelihood():
    """It tends to the prior for a flat likelihood, and to the likelihood for a sharp one."""
    mean, log_scale, a = torch.randn(3, 5, 4).double().unbind(0)

    def posterior_and_moments(log_b):
        """The posterior of z, and mean and standard deviation of v, for a likelihood's log b."""
        level, follow = precision_weighted_posterior(lambda _: (mean, log_scale), a, log_b, mean)
        return level, follow(level.mean), follow(level.mean + level.stddev) - follow(level.mean)

    level, expected, spread = posterior_and_moments(torch.full_like(a, 40.0))
    assert_close(expected, mean)
    assert_close(spread, log_scale.exp())
    assert_close(level.mean, torch.zeros_like(mean))
    assert_close(level.stddev, torch.ones_like(mean))
    _, believed, spread = posterior_and_moments(torch.full_like(a, -20.0))
    assert_close(believed, a)
    assert_close(spread, torch.full_like(a, math.exp(-20.0)))


def test_precision_weighted_posterior_is_prior_where_its_scale_is_0_in_float32():
    mean, a = torch.randn(2, 5, 4).requires_grad_().unbind(0)
    log_scale = torch.full((5, 4), -200.0, requires_grad=True)
    level, follow = precision_weighted_posterior(
        lambda _: (mean, log_scale), a, torch.zeros(5, 4), mean
    )
    assert_close(level.mean, torch.zeros(5, 4))
    assert_close(level.stddev, torch.ones(5, 4))
    assert_close(follow(level.mean), mean)
    (level.rsample() + follow(level.rsample())).sum().backward()
    assert log_scale.grad.isfinite().all()


def test_ladder_gradients_match_finite_differences(build_ladder):
    model = build_ladder("condition=one_hot prior=conditional_normal model.num_samples=2")
    x, y = batch()

    def loss():
        torch.manual_seed(1)
        return model.loss(x, y)[0]

    assert_gradients_are_differences(model, loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name


def test_ladder_objective_applies_beta_and_free_bits(build_ladder):
    model = build_ladder("model.free_bits=1.0 model.free_bits_group=3")
    model.beta.fill_(0.5)
    terms = model.terms(*batch())
    groups = terms.rate_per_latent.mean(0).unflatten(0, (3, 3)).sum(1)
    free = groups.detach().median()
    model.free_bits = float(free)
    expected = terms.distortion.mean() + 0.5 * groups.clamp(min=free).sum()
    assert (groups < free).any()
    assert_close(model.objective(terms), expected)


# Distributions over levels.


def linear_hierarchy_and_gaussian():
    """A `Hierarchy` of three levels with linear means, and the MultivariateNormal equal to it."""
    torch.manual_seed(4)
    down = [0.7 * torch.randn(b, a).double() for a, b in ((2, 3), (3, 4))]
    scales = [torch.rand(width).double() + 0.5 for width in WIDTHS]
    means = [torch.randn(width).double() for width in WIDTHS]

    def linear_step(weight, mean, scale, above):
        """A step of `Hierarchy`: a normal distribution with a mean linear in `above`."""
        return Independent(Normal(above @ weight.T + mean, scale), 1), lambda z: z

    steps = [
        partial(linear_step, w, m, s) for w, m, s in zip(down, means[1:], scales[1:], strict=True)
    ]
    hierarchy = Hierarchy(Independent(Normal(means[0], scales[0]), 1), steps, WIDTHS)
    # z = mix @ e, with independent e.
    first, second = down
    mix = torch.eye(9).double()
    mix[2:5, :2], mix[5:, 2:5], mix[5:, :2] = first, second, second @ first
    mean = mix @ torch.cat(means)
    covariance = mix @ torch.cat(scales).square().diag() @ mix.T
    return hierarchy, MultivariateNormal(mean, covariance)


def test_linear_hierarchy_equals_multivariate_normal():
    hierarchy, gaussian = linear_hierarchy_and_gaussian()
    z = 2 * torch.randn(5, 6, 9).double()
    assert_close(hierarchy.log_prob(z), gaussian.log_prob(z))
    assert_close(hierarchy.mean, gaussian.mean)
    drawn = hierarchy.expand([2]).sample((100_000,)).flatten(0, 1)
    assert_close(drawn.mean(0), gaussian.mean, atol=0.05, rtol=0)
    assert_close(drawn.T.cov(), gaussian.covariance_matrix, atol=0.25, rtol=0.02)
    assert hierarchy.rsample((3,)).shape == (3, 9)
    assert hierarchy.variance.shape == (9,)


def test_ladder_draw_in_two_processes_matches_one_process(build_ladder, monkeypatch):
    model = build_ladder("condition=one_hot")
    x, y = batch(6)
    torch.manual_seed(2)
    whole = model.draw(model.latent_posterior(x, y), 2)
    for rank in range(2):
        monkeypatch.setattr("vaelab.distributed.rank_and_world_size", lambda rank=rank: (rank, 2))
        part = slice(3 * rank, 3 * rank + 3)
        torch.manual_seed(2)
        assert_close(model.draw(model.latent_posterior(x[part], y[part]), 2), whole[:, part])


def test_ladder_latents_are_standardised_by_their_prior(build_ladder):
    """The prior of z is N(0, I); the latents of the paper are v = m + s z, and give the images."""
    model = build_ladder()
    y = batch(4)[1]
    prior = model.latent_prior(y)
    assert prior.batch_shape == ()
    assert_close(prior.mean, torch.zeros(9).double())
    assert_close(prior.stddev, torch.ones(9).double())
    assert_close(prior.log_prob(z := prior.expand([4]).sample()), Normal(0, 1).log_prob(z).sum(1))
    v = model.level_latents(z, y)
    for down, above, below, latents in zip(
        model.down, v[:-1], v[1:], z.split(WIDTHS, 1)[1:], strict=True
    ):
        mean, log_scale = down(above, y[:, :0])
        assert_close(below, mean + log_scale.exp() * latents)
    assert_close(model.image_likelihood(z, y).mean, torch.sigmoid(model.decoder(v[-1], y[:, :0])))


@pytest.mark.parametrize("parts", ["", "condition=one_hot prior=conditional_normal"])
def test_ladder_log_prob_broadcasts_points_against_images(build_ladder, parts):
    """Points on one axis and images on another, as `elbo_surgery` uses them."""
    model = build_ladder(parts)
    x, y = batch(5)
    with torch.no_grad():
        q, z = model.latent_posterior(x, y), torch.randn(7, 9).double()
        table = q.log_prob(z[:, None])
        assert table.shape == (7, 5)
        for i in range(5):
            one = model.latent_posterior(x[i : i + 1], y[i : i + 1])
            assert_close(table[:, i], one.log_prob(z[:, None])[:, 0])
        found = elbo_surgery(model, x, y)
    assert (found["mutual_information"] <= math.log(5) + 1e-9).all()


# Labels.


def test_label_reaches_every_layer_between_levels(build_ladder):
    """One layer is enough: the label is removed from all other layers and inputs."""
    model = build_ladder("condition=one_hot")
    x, y = batch()
    z = torch.randn(6, 9).double()

    def label_effects():
        """Whether another label changes the mean of q, and the latents of the lowest level."""
        q, other = model.latent_posterior(x, y), model.latent_posterior(x, y.roll(1, 0))
        v, others = model.level_latents(z, y)[-1], model.level_latents(z, y.roll(1, 0))[-1]
        return (q.mean != other.mean).any(), (v != others).any()

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("table"):
                parameter.zero_()
            elif name.endswith("layers.0.weight"):
                parameter[:, -CLASSES:] = 0
        assert not any(label_effects())
        for stack, down in ((model.up, False), (model.down, True)):
            for layer in stack:
                layers = layer.layers if down else layer
                for weights in (layers.modulations[0].table, layers.layers[0].weight[:, -CLASSES:]):
                    weights.normal_()
                    assert label_effects() == (True, down)
                    weights.zero_()


# Vamp prior, initialisation and refusals.


def test_ladder_vamp_prior_is_mixture_of_top_level_posteriors(build_ladder):
    model = build_ladder("prior=vamp model.prior.components=6 condition=one_hot")
    x, y = batch()
    terms = model.terms(x, y)
    components = model.encode_for_prior(model.prior.pseudo_inputs.clamp(0, 1), model.prior.labels)
    own = torch.stack([components.log_prob(z) for z in terms.z[0, :, :2]])  # [B, M]
    same = y @ model.prior.labels.T > 0
    expected = own.masked_fill(~same, -torch.inf).logsumexp(1) - math.log(2)
    assert_close(terms.prior.levels_given(terms.z)[0].log_prob(terms.z[0, :, :2]), expected)
    model.objective(terms).backward()
    assert model.prior.pseudo_inputs.grad.any()


def test_setup_standardises_ladder_features_by_first_batch(build, compose):
    """Only for `fit` of a fresh model. Each process uses the whole batch, not its share of it."""
    model = build(*SMALL.split(), *LADDER.split(), num_classes=0)
    x = torch.rand(50, 1, 28, 28)
    images = (255 * x).byte()
    settings = {"pixels": "grey", "batch_size": 50, "seed": 0, "shuffle": False}
    share = Batches(images, torch.zeros(50, 0), torch.arange(50), **settings, rank=1, world_size=2)
    data = SimpleNamespace(batches=lambda part: share)
    x = images / 255
    told = {"datamodule": data, "callbacks": model.configure_callbacks()}
    model._trainer = SimpleNamespace(global_rank=0, world_size=1, **told)
    model.setup("validate")
    assert not any(told.mean.any() for told in model.evidence)
    model.setup("fit")
    h, context = model.encoder(x, x.new_zeros(50, 0)), x.new_zeros(50, 0)
    for up, told in zip(model.up, model.evidence, strict=True):
        standardised = (h - told.mean) / told.scale
        assert_close(standardised.mean(0), torch.zeros(h.shape[1]), atol=1e-4, rtol=0)
        large = h.std(0) > 0.2 * h.std(0).mean()
        assert large.sum() > 3
        assert_close(standardised.std(0, correction=0)[large], torch.ones(int(large.sum())))
        h = up(h, context)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images.zero_()
    model.setup("fit")
    assert_close(model.state_dict(), before)


@pytest.mark.parametrize("overrides", ["model.above=[0]", "model.hidden=0", "model.above=3"])
def test_invalid_ladder_settings_are_refused(compose, overrides):
    with pytest.raises((UserError, InstantiationException), match=overrides.partition("=")[0]):
        validation.check_config(compose("model=ladder_vae", overrides), train.settings_schema)


# Pictures.


def test_traversal_varies_latents_of_all_ladder_levels(build_ladder):
    model = build_ladder().eval().float()
    x, y = (part.float() for part in batch(20))
    found = pictures.draw("traversal", model, Request(x, y, CLASSES, count=9)).arrays
    assert sorted(found["latents"].tolist()) == [*range(9)]
    assert_close(found["rates"], found["rates"].sort(descending=True).values)
    changes = (found["images"][:, 0] - found["images"][:, -1]).abs().flatten(1).amax(1)
    assert (changes > 1e-3).all()
    middle = found["images"].shape[1] // 2
    assert_close(
        found["images"][:, middle], model.mean_reconstruction(x, y)[:1].expand(9, -1, -1, -1)
    )


def test_ladder_overview_pictures_and_samples_at_temperature_zero(build_ladder):
    model = build_ladder("condition=one_hot").eval().float()
    x, y = (part.float() for part in batch(20))
    names = {*pictures.draw_overview(model, x, y)}
    assert names == {"reconstructions", "samples", "class_grid", "traversal", "interpolation"}
    cold = pictures.draw("samples", model, Request(x, y, CLASSES, count=3, temperature=0.0))
    prior = model.latent_prior(y[:3]).mean
    assert_close(cold.arrays["images"], model.image_likelihood(prior.expand(3, -1), y[:3]).mean)


# From the command line.


def test_ladder_train_evaluate_export_and_load(tmp_path):
    digits = f"paths.data={tmp_path}/digits"
    words = f"{LADDER} {SMALL} {digits} trainer.max_epochs=2 logger=csv data.batch_size=500"
    run_command(
        train, *words.split(), f"hydra.run.dir={tmp_path}/run", f"logger.csv.save_dir={tmp_path}"
    )
    (log,) = Path(tmp_path).rglob("metrics.csv")
    assert "val/rate_1,val/rate_2,val/rate_3" in log.read_text()
    results = vaelab.training.json_files.read_json(tmp_path / "run" / "results.json")
    levels = [results[f"test/rate_{level}"] for level in (1, 2, 3)]
    assert sum(levels) == pytest.approx(results["test/rate"], rel=1e-5)
    run_command(evaluate, f"run={tmp_path}/run", "what=[likelihood]", "num_samples=20", digits)
    found = vaelab.training.json_files.read_json(tmp_path / "run" / "evaluation.json")
    assert found["nll"]["value"] < -results["test/elbo"] + 1.0
    run_command(export, f"run={tmp_path}/run", "what=safetensors")
    models = [vaelab.load(tmp_path / "run"), vaelab.load(tmp_path / "run" / "export")]
    x = torch.rand(4, 1, 28, 28).round()
    pair = []
    for model in models:
        torch.manual_seed(0)
        pair.append(model.terms(x, torch.zeros(4, 10)).elbo)
    assert torch.equal(*pair)
