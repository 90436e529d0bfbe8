"""Whether lower or higher is better, by a metric's name without what stands in front of it."""

from typing import Literal

from vaelab.report.units import plain_name

Direction = Literal["lower", "higher", "none"]

LOWER = (
    *("loss", "rate", "distortion", "bits_per_dim", "nll_bits_per_dim", "mse", "seconds"),
    *("nll", "nll_ais", "nll_marginal", "nll_given_label", "pca_nll", "neighbours_nll"),
    *("marginal_kl", "frechet_classifier", "fid", "copied"),
)
HIGHER = (
    *("elbo", "importance_weighted_elbo", "active_units", "codes_used", "perplexity"),
    *("images_per_second", "psnr", "ssim", "mutual_information"),
    *("precision", "recall", "density", "coverage", "agreement", "label_accuracy"),
    *("mig", "mig_chen", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap"),
    *("beta_vae_score", "factor_vae_score", "modularity", "explicitness", "irs"),
)
BETTER: dict[str, Direction] = {
    **dict.fromkeys(LOWER, "lower"),
    **dict.fromkeys(HIGHER, "higher"),
    "divergence": "none",  # and no unit, so that it stands in neither table
}
"""Directions by a metric's plain name, as in docs/glossary.md; others, in `UNITS`, have none."""


def better_direction(metric: str) -> Direction:
    """Returns which is better, `lower` or `higher`; `none` if neither is, or nothing is known."""
    return BETTER.get(plain_name(metric), "none")
