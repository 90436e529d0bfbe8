"""What to draw latents from, in place of a model's own prior: fits to the codes it gives images.

A sampler is called with a trained model and its data and returns the model with another p(z | y).
Its codes are samples of q(z | x, y), one for each training image: of the aggregate posterior,
which a regularised auto-encoder has no prior for, and which the prior of any other model may miss
(Ghosh et al., 2020, arXiv:1903.12436, section 4). The bound is of the model's own prior still.

Shapes: N images, D latents, Y width of the labels, M components.
"""

import copy
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.conditions import one_label
from vaelab.data import Images
from vaelab.distributions.flows import Pushforward, followed
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.posteriors import CholeskyNormal
from vaelab.priors.flow import CouplingFlow
from vaelab.priors.mixture import Mixture
from vaelab.randomness import stream


class Own:
    """The model's own prior."""

    name: ClassVar = "prior"

    def __call__(self, model: ELBO, data: Images) -> ELBO:
        return model


class GMM:
    """A Gaussian mixture with full covariances, by scikit-learn; one for each label of a model
    that sees one.

    Args:
        components: M, of each mixture.
        images: Training images to fit it to, the most.
    """

    name: ClassVar = "gmm"

    def __init__(self, components: PositiveInt, images: PositiveInt) -> None:
        self.components, self.images = components, images

    def __call__(self, model: ELBO, data: Images) -> ELBO:
        from sklearn.mixture import GaussianMixture  # slow to import

        if model.context_dim and not one_label(model.condition, model.classes):
            raise UserError(
                "sampler=gmm of a conditional model takes one label and condition=one_hot; "
                "sampler=flow takes any"
            )
        z, y = codes(model, data, self.images)
        labels = y.argmax(1) if model.context_dim else torch.zeros(len(z)).long()
        found = []
        for label in range(max(1, model.context_dim)):
            of_label = z[labels == label]
            if len(of_label) < self.components:
                raise UserError(
                    f"sampler.components={self.components}: there are {len(of_label)} images"
                    + (f" of label {label}" if model.context_dim else "")
                )
            fit = GaussianMixture(self.components, random_state=0).fit(of_label.double().numpy())
            found.append(
                [torch.from_numpy(a) for a in (fit.weights_, fit.means_, fit.covariances_)]
            )
        return replaced(model, FittedMixture(*map(torch.stack, zip(*found, strict=True))))


class FittedMixture(nn.Module):
    """Gaussian mixtures, each p(z | y) of one label.

    Args:
        weights: [Y, M], or [1, M] for any label.
        means: [Y, M, D].
        covariances: [Y, M, D, D].
    """

    means: Tensor
    weights: Tensor
    scale_tril: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.conditional = len(weights) > 1
        self.register_buffer("weights", torch.block_diag(*weights[:, None]).float())  # [Y, Y * M]
        self.register_buffer("means", means.flatten(0, 1).float())
        lower = torch.linalg.cholesky(covariances.double())
        self.register_buffer("scale_tril", lower.flatten(0, 1).float())

    def forward(self, y: Tensor) -> Distribution:
        weights = y @ self.weights if self.conditional else self.weights[0]

        def chosen(which: Tensor) -> Distribution:
            return CholeskyNormal(self.means[which], scale_tril=self.scale_tril[which])

        components = CholeskyNormal(self.means, scale_tril=self.scale_tril)
        return Mixture(weights.log(), components, chosen)


class Flow:
    """A normalizing flow of couplings, see `vaelab.priors.CouplingFlow`, of any condition.

    Args:
        transforms: Steps of the flow.
        hidden: Widths of each step's network.
        images: Training images to fit it to, the most.
        steps: Of Adam, with a learning rate that ends at zero.
        batch_size: Codes in a step.
        lr: The learning rate at the start.
    """

    name: ClassVar = "flow"

    def __init__(
        self,
        transforms: PositiveInt,
        hidden: list[PositiveInt],
        images: PositiveInt,
        steps: PositiveInt,
        batch_size: PositiveInt,
        lr: PositiveFloat,
    ) -> None:
        self.transforms, self.hidden, self.images = transforms, hidden, images
        self.steps, self.batch_size, self.lr = steps, batch_size, lr

    def __call__(self, model: ELBO, data: Images) -> ELBO:
        z, y = codes(model, data, self.images)
        z, y = z.to(model.device), y.to(model.device)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(stream("sampler"))
            fitted = FittedFlow(
                z, model.context_dim, transforms=self.transforms, hidden=self.hidden
            )
            self.fit(fitted.to(z.device), z, model.context(y).detach())
        return replaced(model, fitted)

    def fit(self, fitted: "FittedFlow", z: Tensor, context: Tensor) -> None:
        """Maximises the likelihood of codes [N, D]."""
        optimizer = torch.optim.Adam(fitted.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for _ in range(self.steps):
            rows = torch.randint(len(z), (self.batch_size,)).to(z.device)
            loss = -fitted(context[rows]).log_prob(z[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


class FittedFlow(nn.Module):
    """A flow of codes [N, D] that are standardised first.

    Args:
        z: The codes.
        context_dim: Width of the context.
        transforms: Steps.
        hidden: Widths of each step's network.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, z: Tensor, context_dim: int, *, transforms: int, hidden: list[int]) -> None:
        super().__init__()
        self.register_buffer("mean", z.mean(0))
        self.register_buffer("scale", z.std(0).clamp(min=1e-6))
        self.flow = CouplingFlow(z.shape[1], context_dim, transforms=transforms, hidden=hidden)

    def forward(self, y: Tensor) -> Distribution:
        inner = self.flow(y)
        return Pushforward(followed(inner.transform, self.mean, self.scale), inner.base)


@torch.no_grad()
def codes(model: ELBO, data: Images, count: int) -> tuple[Tensor, Tensor]:
    """Samples z [N, D] of q(z | x, y) for at most `count` training images, and y [N, Y]."""
    found: list[tuple[Tensor, Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(stream("codes"))
        for x, y in data.batches("train"):
            found.append((model.encode(x, y).sample().cpu(), y.cpu()))
            if sum(len(z) for z, _ in found) >= count:
                break
    z, y = (torch.cat(part)[:count] for part in zip(*found, strict=True))
    return z, y


def replaced(model: ELBO, prior: nn.Module) -> ELBO:
    """The same model, sharing all weights, with another prior."""
    shared = {id(part): part for part in model.children()}
    other = copy.deepcopy(model, shared)
    other.prior = prior.to(model.device).eval()
    return other
