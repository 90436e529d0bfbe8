"""`lazy`, a cached property that torch.compile can trace."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801
    """A property computed at first access and then kept, without a lock, as a plain attribute.

    Like functools.cached_property, which in Python 3.11 takes a lock: that breaks a graph of
    torch.compile. Also works on frozen dataclasses.
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
        object.__setattr__(instance, self.name, value)  # found before this descriptor from now on
        return value
