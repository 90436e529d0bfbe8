"""Where half precision ends."""

import torch
from torch import Tensor


def full_precision(params: Tensor) -> Tensor:
    """Distribution parameters in float32 or better, shape kept.

    Sums over thousands of pixels, and the KL, lose 0.1 to 1 nat in half precision.
    """
    return params.to(torch.promote_types(params.dtype, torch.float32))


def undiminished(like: Tensor) -> torch.autocast:
    """A context in which products of matrices on that tensor's device keep their precision."""
    return torch.autocast(like.device.type, enabled=False)
