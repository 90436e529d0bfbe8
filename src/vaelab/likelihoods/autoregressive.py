"""`Autoregressive`, the likelihood of binary pixels that each depend on the pixels before them."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn.functional import binary_cross_entropy_with_logits, linear, pad, relu
from torch.types import _size

from vaelab.distributions.precision import without_autocast
from vaelab.errors import UserError
from vaelab.observations import x_text


class Autoregressive(nn.Module):
    """The autoregressive likelihood p(x | z, y) = prod_i p(x_i | x_<i, z, y) of pixels in {0, 1}.

    Pixels are in the order of reading, row by row. A masked convolution reads those before a pixel
    (van den Oord et al., 2016, arXiv:1601.06759, section 3.4), and dense layers make its logits of
    that and of what the decoder gives for the pixel. Channels of a pixel are independent.

    Args:
        reach: The convolution reads so many rows above a pixel, and columns on either side.
        hidden: Widths of the dense layers.
        given: P, the numbers that the decoder gives for each pixel.
    """

    pixels: ClassVar[dict[str, float | None]] = {"binary": 0.0}
    mask: Tensor

    def __init__(
        self,
        *,
        reach: PositiveInt,
        hidden: Annotated[list[PositiveInt], Field(min_length=1)],
        given: PositiveInt,
    ) -> None:
        super().__init__()
        self.reach, self.hidden, self.given = reach, hidden, given

    def channels(self, image_channels: int) -> int:
        """P, the decoder's output channels: `given`, for any number of image channels."""
        return self.given

    def connect(self, model: Any) -> None:
        """Makes the layers for the channels of the images; called by the model's constructor.

        Raises:
            UserError: If x are no images.
        """
        if len(model.x_shape) != 3:
            raise UserError(
                f"likelihood=autoregressive takes images, and not {x_text(model.x_shape)}; "
                "use likelihood=bernoulli"
            )
        image_channels, reach, widths = model.x_shape[0], self.reach, [*self.hidden]
        self.before = nn.Conv2d(image_channels, widths[0], (reach + 1, 2 * reach + 1))
        mask = torch.ones(reach + 1, 2 * reach + 1)
        mask[-1, reach:] = 0  # the pixel itself and those after it
        self.register_buffer("mask", mask, persistent=False)
        self.lift = nn.Linear(self.given, widths[0], bias=False)
        sizes = zip(widths, [*widths[1:], image_channels], strict=True)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)

    def forward(self, params: Tensor) -> Distribution:
        """p(x | z, y), batch [...], event [C, H, W], of params [..., P, H, W]."""
        return AutoregressiveImage(self, params)

    def padded(self, x: Tensor) -> Tensor:
        """Returns images [..., H, W] with zeros where the convolution reads beyond their edges."""
        return pad(x, (self.reach, self.reach, self.reach, 0))

    @property
    def kernel(self) -> Tensor:
        """The masked kernel of the convolution, [F, C, reach + 1, 2 reach + 1]."""
        return self.before.weight * self.mask

    def read_before(self, x: Tensor) -> Tensor:
        """Returns what is read before each pixel of images [N, C, H, W], as [N, H, W, F]."""
        read = nn.functional.conv2d(self.padded(x), self.kernel, self.before.bias)
        return read.movedim(1, -1)

    def logits(self, read: Tensor, params: Tensor) -> Tensor:
        """Returns logits [..., C] of pixels, of what was read [..., F] and params [..., P]."""
        h = read + self.lift(params)
        for layer in self.layers:
            h = layer(relu(h))
        return h


class AutoregressiveImage(Distribution):
    """The distribution of images whose pixels depend on z and on the pixels before them.

    Args:
        network: The likelihood's layers.
        params: What the decoder gives, [..., P, H, W].
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.boolean, 3)
    has_rsample = False

    def __init__(self, network: Autoregressive, params: Tensor) -> None:
        self.network, self.params = network, params
        event = torch.Size([network.before.in_channels, *params.shape[-2:]])
        super().__init__(params.shape[:-3], event, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-mass [...] of images [..., C, H, W], all pixels at once.

        The samples of a batch [K, B] are taken one after the other: the hidden layers of one need
        as much memory as hundreds of images.
        """
        with without_autocast(value):
            flat = value.reshape(-1, *self.event_shape)
            read = self.network.read_before(flat)
            read = read.reshape(*value.shape[:-3], *read.shape[1:])
            params = self.params.movedim(-3, -1)
            if params.dim() == read.dim() + 1:
                return torch.stack([self.log_masses(value, read, part) for part in params])
            return self.log_masses(value, read, params)

    def log_masses(self, value: Tensor, read: Tensor, params: Tensor) -> Tensor:
        """Returns log-masses [...] of images, of what was read and params [..., H, W, P]."""
        logits = self.network.logits(read, params).movedim(-1, -3)
        logits, value = torch.broadcast_tensors(logits, value)
        loss = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -loss.flatten(-3).sum(-1)

    @torch.no_grad()
    def fill(self, shape: _size, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns images [*shape, C, H, W], pixel by pixel, each chosen by its probability.

        Args:
            shape: The batch shape, to which params are expanded.
            choose: From probabilities [N, C] of a pixel, given those before it, to its values.
        """
        network, (_, height, width) = self.network, self.event_shape
        params = self.params.expand(*shape, *self.params.shape[-3:])
        params = params.reshape(-1, *self.params.shape[-3:])
        with without_autocast(params):
            x = network.padded(params.new_zeros(len(params), *self.event_shape))
            kernel, reach = network.kernel.flatten(1), network.reach
            for row in range(height):
                for column in range(width):
                    patch = x[:, :, row : row + reach + 1, column : column + 2 * reach + 1]
                    read = linear(patch.flatten(1), kernel, network.before.bias)
                    logits = network.logits(read, params[..., row, column])
                    x[:, :, row + reach, column + reach] = choose(logits.sigmoid())
        return x[:, :, reach:, reach:-reach].reshape(*shape, *self.event_shape)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Samples [*sample_shape, ..., C, H, W], pixel by pixel, without gradients."""
        return self.fill(torch.Size([*sample_shape, *self.batch_shape]), torch.bernoulli)

    @property
    def mean(self) -> Tensor:
        """The approximate mean [..., C, H, W]: of each pixel given the means of those before it.

        Made pixel by pixel, without gradients. It is exact for the first pixel, and where the
        pixels before do not matter.
        """
        return self.fill(self.batch_shape, lambda probabilities: probabilities)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "AutoregressiveImage":
        """Returns the distribution with its batch shape expanded."""
        shape = torch.Size([*batch_shape, *self.params.shape[-3:]])
        return AutoregressiveImage(self.network, self.params.expand(shape))
