"""A mixture of posteriors of images that are learned.

Shapes: M components, B labels, Y label width, C x H x W pixels.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution

from vaelab.conditions import one_label
from vaelab.distributions.precision import undiminished
from vaelab.errors import UserError
from vaelab.parts import TrainingImages
from vaelab.priors.mixture import Mixture
from vaelab.randomness import generator

Encode = Callable[[Tensor, Tensor], Distribution]


class Vamp(nn.Module):
    """VampPrior: p(z) = (1/M) sum_m q(z | u_m), by the model's own encoder, of learned images u_m.

    Tomczak & Welling (2018), arXiv:1705.07120, eq. 9. Where the model sees labels, each u_m
    has one, c_m, and p(z | y) is the mean of q(z | u_m, c_m) over the components whose label is
    y: equation 9 within each class, as the best prior p(z | y) is the mean of q(z | x, y) over the
    images of y. Labels go round, c_m = m mod Y, and are not learned, so that each class has
    M / Y components and the encoder sees none but the labels it was trained on.

    The pixels of u_m are in [0, 1], kept there by projected gradients.

    Args:
        components: M, at least one for each label.
        start: `images`: u_m are training images k / 255, drawn by the seed of the data, of their
            label; where these are too few they come again. `random`: uniform noise.
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
        """Takes the model's (x, y) -> q(z | x, y), which is no part of this.

        Raises:
            UserError: If the model sees something else of an image than one label, or there are
                fewer components than labels.
        """
        if model.context_dim and not one_label(model.condition, model.classes):
            raise UserError(
                "prior=vamp of a conditional model takes one label, condition=one_hot and one of "
                "data.columns; other conditions go with prior=flow"
            )
        if self.components < model.context_dim:
            raise UserError(
                f"model.prior.components={self.components}: prior=vamp of a conditional model "
                f"needs at least one for each of the {model.context_dim} labels"
            )
        self.pseudo_inputs = nn.Parameter(torch.rand(self.components, *model.x_shape))
        self.encode: Encode = model.encode

    @torch.no_grad()
    def initialise(self, data: TrainingImages) -> None:
        """Makes the pseudo-inputs training images."""
        if self.start != "images":
            return
        images, _, rows = data.stored("train")
        order = torch.randperm(len(rows), generator=generator("pseudo-inputs", data.seed))
        rows = rows.cpu()[order]
        classes = self.labels.shape[1]
        labels = data.labels("train")[rows].argmax(1) if classes else torch.zeros(len(rows))
        for label in range(max(1, classes)):
            fitting = rows[labels == label]
            places = torch.arange(label, self.components, max(1, classes))
            if len(fitting):
                chosen = fitting[torch.arange(len(places)) % len(fitting)]
                found = images[chosen.to(images.device)]
                self.pseudo_inputs[places] = found.to(self.pseudo_inputs) / 255

    def forward(self, y: Tensor) -> Distribution:
        inputs: Any = Projected.apply(self.pseudo_inputs)

        def chosen(which: Tensor) -> Distribution:
            return self.encode(inputs[which], self.labels[which])

        return Mixture(self.log_weights(y), self.encode(inputs, self.labels), chosen)

    def log_weights(self, y: Tensor) -> Tensor:
        """The log w_m(y): minus log M [M] or, for those of label y, log of how many are [B, M]."""
        if not self.labels.shape[1]:
            return self.labels.new_full((self.components,), -math.log(self.components))
        with undiminished(y):
            return ((y / self.labels.sum(0)) @ self.labels.T).log()


class Projected(torch.autograd.Function):
    """Clamps to [0, 1]; the gradient passes but where a step against it would lead outside."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        outward = ((values <= 0) & (gradient > 0)) | ((values >= 1) & (gradient < 0))
        return gradient.masked_fill(outward, 0)
