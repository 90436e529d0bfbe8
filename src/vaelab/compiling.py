"""What lets the training loss be one graph for torch.compile."""

import linecache
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor

T = TypeVar("T")
Loss = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # of x [B, C, H, W] and y [B, Y]


def compiled(loss: Loss) -> Loss:
    """The loss, compiled at its first call, with the noise that it draws uncompiled.

    It is called as it is once before, without a trace in the random state, for what is made at
    the first call only, such as the table of the KL divergences in closed form, breaks a graph.
    The sources that importing and compiling torch's parts read, 8 MB of lines, are not kept.
    """
    fast: Loss | None = None

    def compiled_loss(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        nonlocal fast
        if fast is not None:
            return fast(x, y)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            loss(x, y)
        linecache.clearcache()
        try:
            fast = torch.compile(loss, options={"fallback_random": True})
            return fast(x, y)
        finally:
            linecache.clearcache()

    return compiled_loss


class lazy(Generic[T]):  # noqa: N801
    """A property that is computed once, as functools.cached_property.

    That of Python 3.11 takes a lock, which breaks a graph.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "lazy[T]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> "lazy[T] | T":
        if instance is None:
            return self
        value = self.function(instance)
        object.__setattr__(instance, self.name, value)  # from now on found before this
        return value
