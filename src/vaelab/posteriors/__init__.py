"""Posteriors q(z | x, y): modules from encoder features [B, F] to a distribution of latents [D]."""

from vaelab.posteriors.codebook import Codebook, PointMass
from vaelab.posteriors.deterministic import Deterministic, Point
from vaelab.posteriors.flow import InverseAutoregressiveFlow, SplineFlow
from vaelab.posteriors.normal import CholeskyNormal, FullGaussian, Gaussian

__all__ = [
    "CholeskyNormal",
    "Codebook",
    "Deterministic",
    "FullGaussian",
    "Gaussian",
    "InverseAutoregressiveFlow",
    "Point",
    "PointMass",
    "SplineFlow",
]
