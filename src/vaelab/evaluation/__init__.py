"""The numbers of a finished run, with their standard errors.

Each metric is a function of a `Subject` whose keywords are its settings in conf/evaluate.yaml.
"""

from vaelab.errors import NotApplicable
from vaelab.evaluation.conditional import conditional
from vaelab.evaluation.disentanglement import disentanglement
from vaelab.evaluation.latents import latents
from vaelab.evaluation.likelihood import ais, likelihood, reconstruction
from vaelab.evaluation.plan import Plan
from vaelab.evaluation.record import Record, table
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
    "inception",
    "latents",
    "likelihood",
    "reconstruction",
    "samples",
    "table",
]
