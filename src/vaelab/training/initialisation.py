"""Initialisation of a new model's parts from training images."""

from typing import Any

from vaelab.autoencoder import AutoEncoder
from vaelab.parts import Initialised, TrainingImages


def initialise_parts(model: AutoEncoder, data: TrainingImages) -> None:
    """Calls `initialise` of condition, prior and the model itself, if they have it.

    They set their first weights from training images, in place. Called by `ELBO.setup` for a model
    that was neither trained nor loaded.
    """
    parts: list[Any] = [model.condition, model.prior, model]
    for part in parts:
        if isinstance(part, Initialised):
            part.initialise(data)
