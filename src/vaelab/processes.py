"""Batches that several processes share."""

import torch
from torch import Tensor, distributed


def whole(share: Tensor, dim: int = 0) -> Tensor:
    """The whole batch's tensor, of this process's share of it along `dim`, with gradients.

    For what is no mean over images, such as a covariance, and in training alone: there the shares
    are equal, and the mean over processes of the gradient is that of one process with it all.
    In an evaluation each process's share stands for itself.
    """
    if not (
        torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized()
    ):
        return share
    from torch.distributed.nn.functional import all_gather  # not everywhere to be had

    return torch.cat(all_gather(share), dim)
