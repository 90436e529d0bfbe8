"""torch's optimizers, with less to do around the arithmetic of a small step."""

from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """torch.optim.Adam, to the same bits, which keeps the lists that it makes of its state.

    Making them at every step takes as long as a third of the arithmetic of 650,000 weights. They
    hold for as long as every parameter has a gradient and the state that it had.
    """

    gathered: dict[Tensor, tuple[Any, ...]] | None = None  # by the first parameter of a group

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        *others: list[Tensor],
    ) -> Any:
        if not group["params"]:
            return super()._init_group(group, params, grads, *others)
        if self.gathered is None:
            self.gathered = {}
        first = group["params"][0]
        found = [parameter.grad for parameter in group["params"]]
        complete = all(gradient is not None for gradient in found)
        state, kept, answer = self.gathered.get(first, (None, (), None))
        if complete and state is not None and state is self.state.get(first):
            params += group["params"]
            grads += found
            for tensors, those in zip(others, kept, strict=True):
                tensors += those
            return answer
        answer = super()._init_group(group, params, grads, *others)
        if complete:
            self.gathered[first] = self.state[first], [list(each) for each in others], answer
        return answer


class AdamW(Adam, torch.optim.AdamW):
    """torch.optim.AdamW in the same way."""
