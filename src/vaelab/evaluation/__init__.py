"""Metrics of finished runs with their standard errors, and the plan and record of an evaluation.

A metric is a function of a `Subject` whose keywords are its settings in conf/metrics. It returns
estimates by name, or raises NotApplicable if it is undefined for the model or the data.
"""

from vaelab.errors import NotApplicable
from vaelab.evaluation.conditional import conditional
from vaelab.evaluation.disentanglement import disentanglement
from vaelab.evaluation.latents import latents
from vaelab.evaluation.likelihood import ais, likelihood, reconstruction
from vaelab.evaluation.neighbours import neighbours
from vaelab.evaluation.pca import pca
from vaelab.evaluation.plan import Plan
from vaelab.evaluation.record import Record, evaluation_table, main_figures
from vaelab.evaluation.samples import inception, samples
from vaelab.evaluation.subject import Subject

__all__ = [
    "NotApplicable",
    "Plan",
    "Record",
    "Subject",
    "ais",
    "conditional",
    "disentanglement",
    "evaluation_table",
    "inception",
    "latents",
    "likelihood",
    "main_figures",
    "neighbours",
    "pca",
    "reconstruction",
    "samples",
]
