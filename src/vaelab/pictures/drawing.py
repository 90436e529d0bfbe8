"""The table of all kinds of pictures, why one cannot be drawn, and drawing."""

import torch

from vaelab.elbo import ELBO
from vaelab.pictures import kinds
from vaelab.pictures.picture import Grid, Picture
from vaelab.pictures.plots import NumberPicture, Plots
from vaelab.pictures.request import Request
from vaelab.randomness import stream_seed

OVERVIEW = {
    "reconstructions": kinds.reconstructions,
    "samples": kinds.samples,
    "class_grid": kinds.class_grid,
    "traversal": kinds.traversal,
    "interpolation": kinds.interpolation,
    "manifold": kinds.manifold,
}  # kinds that are drawn during training, from few images
KINDS = OVERVIEW | {
    "latents": kinds.latents,
    "arithmetic": kinds.arithmetic,
    "gaps": kinds.gaps,
    "nearest": kinds.nearest,
}


def obstacle(name: str, model: ELBO, request: Request) -> str | None:
    """Returns why a kind of picture cannot be drawn, worded to follow its name, or None."""
    labels, conditional = request.labels, model.context_dim > 0
    asked = bool(labels) or bool(request.given)
    unseen = asked and not conditional, "of an unconditional model takes no label"
    absent = [model.label_names[label] for label in labels if label not in request.present]
    without = bool(absent), f"needs images of every label, and there is none of {', '.join(absent)}"
    codes = (
        not model.has_continuous_latents,
        "needs latents that can be moved, and those of this model are codes",
    )
    nothing = not len(request.x), "needs images, and an exported model has none"
    reasons = {
        "reconstructions": [nothing, without],
        "samples": [unseen],
        "class_grid": [
            (not conditional, "needs a conditional model, such as model=cvae"),
            (not model.num_classes, "needs classes, and this model is given numbers alone"),
        ],
        "traversal": [codes, nothing, without],
        "interpolation": [codes, nothing, without],
        "manifold": [
            codes,
            (model.latent_dim != 2, f"needs two latents, and this model has {model.latent_dim}"),
            unseen,
            (len(labels) > 1, "takes one label"),
        ],
        "latents": [
            nothing,
            (model.latent_dim < 2, "needs two latents or more"),
            (len(request.x) < 2, "needs two images or more"),
            without,
        ],
        "arithmetic": [
            codes,
            nothing,
            (len(request.present) < 2, "needs images of two classes"),
            (len(labels) not in (0, 2), "takes two labels, as in label=[3,8]"),
            without,
        ],
        "gaps": [nothing, (len(request.x) < 2, "needs two images or more")],
        "nearest": [(request.training is None, "needs the training images"), unseen],
    }
    if request.ends is not None:
        needed = conditional and not asked, "between files of a conditional model needs label="
        reasons["interpolation"] = [codes, unseen, needed]
    return next((reason for holds, reason in reasons[name] if holds), None)


@torch.no_grad()
def draw(name: str, model: ELBO, request: Request, seed: int = 0) -> Picture:
    """Draws one kind of picture in evaluation mode; the same for the same seed.

    Restores the model's mode and the global random state. Raises KeyError for an unknown name.
    """
    device = request.x.device
    training = model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed("pictures", seed))
        picture = KINDS[name](model.eval(), request)
    model.train(training)
    if isinstance(picture, Grid) and model.units:
        picture = Plots.from_grid(picture, len(model.x_shape), model.units)
    return picture.in_units() if isinstance(picture, NumberPicture) else picture


def draw_overview(model: ELBO, x: torch.Tensor, y: torch.Tensor) -> dict[str, Picture]:
    """Draws the kinds in `OVERVIEW` from images x and labels y, by name; omits impossible ones."""
    request = Request(x, y, model.num_classes)
    return {n: draw(n, model, request) for n in OVERVIEW if not obstacle(n, model, request)}
