"""A step of training that is recorded once, as a CUDA graph, and then replayed.

A small step is a hundred kernels, which the host takes longer to launch than a GPU to run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaelab.errors import UserError

WARM_UP = 3  # steps, in which is made what a graph cannot: state, workspaces, compiled code
NEEDED = (
    "a captured step takes a fused optimizer, one device, and nobody who looks on at a batch or "
    "between a loss and its update: no such callback, clipping, accumulation or scheduler"
)
Step = Callable[[Tensor, Tensor], Tensor]  # of x [B, C, H, W] and y [B, Y]


class Captured:
    """A step that is the same work on the device for every batch.

    Its graph keeps what the host knew when it was captured: the addresses of tensors, and numbers
    that are no tensors. So weights and schedules are changed in place, and the graph is captured
    anew for batches of another shape or other options of the optimizer.

    Args:
        step: Changes the weights, and gives what came of it as one tensor. It must not wait for
            the device, nor bring it numbers of the host's.
        optimizer: That of the step, which is `capturable`.

    Raises:
        UserError: When it is called, if the step cannot be captured.
    """

    def __init__(self, step: Step, optimizer: Optimizer) -> None:
        self.step, self.optimizer = step, optimizer
        self.stream = torch.cuda.Stream()  # of the steps before too, which autograd may remember
        self.steps_before = 0
        self.known: Any = None  # when it was captured
        self.x: Tensor
        self.y: Tensor
        self.result: Tensor
        self.replay: Callable[[], None]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        known = x.shape, [{**group, "params": None} for group in self.optimizer.param_groups]
        if known == self.known:
            self.x.copy_(x)
            self.y.copy_(y)
        elif self.steps_before < WARM_UP:
            self.steps_before += 1
            with on(self.stream):
                return self.step(x, y)
        else:
            self.x, self.y = x.clone(), y.clone()
            self.replay, self.known = capture(self.work, self.stream), known
        self.replay()
        return self.result.clone()

    def work(self) -> None:
        """What the graph holds; nothing is done while it is captured."""
        groups = self.optimizer.param_groups
        configured = [group["capturable"] for group in groups]
        for group in groups:
            group["capturable"] = True  # or it refuses; fused, it does the same either way
        try:
            self.result = self.step(self.x, self.y)
        finally:
            for group, value in zip(groups, configured, strict=True):
                group["capturable"] = value


def capturable(optimizer: Optimizer) -> bool:
    """Whether all that the optimizer does is on the device, as what a fused Adam does."""
    return all(g.get("fused") and "capturable" in g for g in optimizer.param_groups)


def capture(work: Callable[[], None], stream: torch.cuda.Stream) -> Callable[[], None]:
    """What does the work again, on the same tensors, with one launch.

    Raises:
        UserError: If the work cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            work()
    except RuntimeError as error:
        raise UserError(f"graph=true: this training step is no CUDA graph: {error}") from error
    return graph.replay


@contextmanager
def on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Has the device work on a stream, after what came before and before what comes after."""
    here = torch.cuda.current_stream()
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        yield
    here.wait_stream(stream)
