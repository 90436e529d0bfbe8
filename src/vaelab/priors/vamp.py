"""`Vamp`, the VampPrior: a mixture of the posteriors of learned images (pseudo-inputs).

Shapes: M components, B labels, Y label width, C x H x W pixels.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.conditions import is_one_hot_label
from vaelab.distributions.precision import without_autocast
from vaelab.distributions.projection import project
from vaelab.errors import UserError
from vaelab.parts import TrainingImages
from vaelab.priors.mixture import Mixture
from vaelab.randomness import seeded_generator

Encode = Callable[[Tensor, Tensor], Distribution]


class Vamp(nn.Module):
    """The VampPrior p(z) = (1/M) sum_m q(z | u_m), by the model's encoder of learned images u_m.

    Tomczak & Welling (2018), arXiv:1705.07120, eq. 9. If the model sees labels, each u_m has one,
    c_m, and p(z | y) is the mean of q(z | u_m, c_m) over the components whose label is y: equation
    9 within each class, as the best prior p(z | y) is the mean of q(z | x, y) over the images of y.
    Labels are assigned in turn, c_m = m mod Y, and are not learned, so that each class has M / Y
    components and the encoder sees none but the labels it was trained on.

    The pixels of u_m are in [0, 1], kept there by projected gradients. If x are real numbers, the
    u_m have no bounds.

    Args:
        components: M, at least one for each label.
        start: `images`: u_m are training images k / 255 of their label, or real numbers, drawn by
            the seed of the data, and repeated if there are too few. `random`: uniform noise, or of
            real numbers normal noise.
    """

    pseudo_inputs: Tensor
    labels: Tensor

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        *,
        components: PositiveInt,
        start: Literal["images", "random"],
    ) -> None:
        super().__init__()
        self.components, self.start = components, start
        turn = torch.arange(components)[:, None] % max(1, context_dim)
        labels = (turn == torch.arange(context_dim)).float()  # [M, Y]
        self.register_buffer("labels", labels, persistent=False)

    def connect(self, model: Any) -> None:
        """Keeps the model's encoder and makes random pseudo-inputs; may raise UserError.

        Called by the constructor of `AutoEncoder`. The encoder does not become a part of this
        module.

        Raises:
            UserError: If the context is something else than one label, or there are fewer
                components than labels.
        """
        if model.context_dim and not is_one_hot_label(model.condition, model.classes):
            raise UserError(
                "prior=vamp of a conditional model takes one label, condition=one_hot and one of "
                "data.columns; other conditions go with prior=flow"
            )
        if self.components < model.context_dim:
            raise UserError(
                f"model.prior.components={self.components}: prior=vamp of a conditional model "
                f"needs at least one for each of the {model.context_dim} labels"
            )
        self.is_real = model.pixels == "real"
        draw = torch.randn if self.is_real else torch.rand
        self.pseudo_inputs = nn.Parameter(draw(self.components, *model.x_shape))
        self.encode: Encode = model.encode_for_prior

    @torch.no_grad()
    def initialise(self, data: TrainingImages) -> None:
        """If start=images, sets the pseudo-inputs in place to training images of their labels.

        Called by `ELBO.setup` before a new training. Labels without images keep random
        pseudo-inputs.
        """
        if self.start != "images":
            return
        images, _, rows = data.stored("train")
        order = torch.randperm(len(rows), generator=seeded_generator("pseudo-inputs", data.seed))
        rows = rows.cpu()[order]
        classes = self.labels.shape[1]
        labels = data.labels("train")[rows].argmax(1) if classes else torch.zeros(len(rows))
        for label in range(max(1, classes)):
            fitting = rows[labels == label]
            places = torch.arange(label, self.components, max(1, classes))
            if len(fitting):
                chosen = fitting[torch.arange(len(places)) % len(fitting)]
                found = images[chosen.to(images.device)]
                white = 1 if self.is_real else 255
                self.pseudo_inputs[places] = found.to(self.pseudo_inputs) / white

    def forward(self, y: Tensor) -> Distribution:
        """Returns p(z | y), batch [B], or [] without labels; runs the encoder on all u_m."""
        inputs: Any = self.pseudo_inputs
        if not self.is_real:
            inputs = project(inputs, 0, 1)

        def select(which: Tensor) -> Distribution:
            """Returns the posteriors of the u_m of given indices; `Mixture` calls it to draw."""
            return self.encode(inputs[which], self.labels[which])

        return Mixture(self.log_weights(y), self.encode(inputs, self.labels), select)

    def log_weights(self, y: Tensor) -> Tensor:
        """Returns log w_m(y): -log M, [M], without labels; else [B, M], -inf for other labels.

        Components of the label y have minus the log of their number.
        """
        if not self.labels.shape[1]:
            return self.labels.new_full((self.components,), -math.log(self.components))
        with without_autocast(y):
            return ((y / self.labels.sum(0)) @ self.labels.T).log()
