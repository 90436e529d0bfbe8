"""CUDA graphs for the CPU: the operations of a piece of work, done again on the same tensors.

They keep what a graph keeps, tensors by their place in memory and all else by its value, and
refuse what a capture refuses: to wait for the device, and to bring it numbers of the host's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda")
aten = torch.ops.aten
WAITS = (aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero)
BRINGS = (aten.lift_fresh, aten.lift)  # of torch.tensor(...)


class Recording(TorchDispatchMode):
    """Notes what is done in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in WAITS + BRINGS:
            raise RuntimeError(f"{func} while a stream is capturing")
        given = tree_map(lambda leaf: leaf, (args, kwargs or {}))  # lists are their caller's
        result = func(*args, **kwargs or {})
        self.done.append((func, *given, result))
        return result


class Graph:
    """Stands for torch.cuda.CUDAGraph; what it captures is done, which its first replay is for."""

    made: list["Graph"]

    def __init__(self) -> None:
        self.made.append(self)
        self.recording = Recording()
        self.replays = 0

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, result in self.recording.done if self.replays > 1 else ():
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextmanager
def capturing(graph: Graph, stream: Any) -> Iterator[None]:
    """Stands for torch.cuda.graph; optimizers find that a stream is capturing."""
    stream.is_capturing = lambda: True
    found = {"current_accelerator": lambda **_: CUDA, "current_stream": lambda: stream}
    with patch.multiple(torch.accelerator, **found), graph.recording:
        yield


def on_the_cpu(monkeypatch: Any) -> list[Graph]:
    """Has torch.cuda's graphs be these, and gives those that are made from now on."""
    Graph.made = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    for name in ("Stream", "current_stream", "stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    return Graph.made
