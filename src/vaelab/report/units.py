"""Units of metrics, by a metric's name without what stands in front of it."""

import re

NATS = {
    *("loss", "elbo", "rate", "rate_per_latent", "distortion", "importance_weighted_elbo"),
    "penalty",
    *("nll", "nll_ais", "nll_minus_ais", "nll_marginal", "nll_given_label", "pca_nll"),
    "neighbours_nll",
    *("label_information", "wrong_label_cost"),
    *("mutual_information", "marginal_kl", "total_correlation", "discriminated_total_correlation"),
    *("minibatch_mutual_information", "minibatch_total_correlation", "minibatch_dimension_wise_kl"),
}
SHARES = {
    *("agreement", "agreement_per_class", "precision", "recall", "coverage", "copied"),
    *("classifier_accuracy", "label_accuracy", "probe", "probe_chance", "ais_acceptance"),
}
OTHERS = {
    "bits_per_dim": "bits per dimension",
    "nll_bits_per_dim": "bits per dimension",
    "active_units": "number of latents",
    "codes_used": "number of codes",
    "perplexity": "number of codes",
    "mse": "squared units of x",
    "psnr": "decibels",
    "seconds": "s",
    "images_per_second": "images/s",
    "learning_rate": "per optimizer step",
}
UNITS = dict.fromkeys(NATS, "nats per image") | dict.fromkeys(SHARES, "share") | OTHERS
"""Units by a metric's plain name, of `rate_1`, `rate_2` and so on without the number."""
OF_SAMPLES = "frechet_classifier|precision|recall|density|coverage|copied|fid"
"""Metrics that have the name of a sampler in front, if it is not the model's own prior."""


def plain_name(metric: str) -> str:
    """Returns a metric's name without `val/`, `test/` or the name of a sampler in front of it."""
    last = metric.rpartition("/")[2]
    sampled = re.fullmatch(rf".+_({OF_SAMPLES})", last)
    return sampled[1] if sampled and last not in UNITS else last


def unit(metric: str) -> str:
    """Returns the unit of a metric by its plain name; empty if none is known."""
    return UNITS.get(re.sub(r"^rate_\d+$", "rate", plain_name(metric)), "")


def axis_title(metric: str) -> str:
    """Returns a metric's name, and its unit if any, as the title of an axis."""
    return ", ".join(filter(None, (metric, unit(metric))))
