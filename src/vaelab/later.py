"""Modules that others import in passing, put off until someone uses them."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

USED = ("__all__", "__path__")  # by imports; the others are asked of every module, as by inspect
PICKLED = "torch"  # as pickle asks of every module for torch.compile


class Later(ModuleType):
    """Stands for a module in `sys.modules`, and makes way for it at the first use."""

    def __getattr__(self, name: str) -> Any:
        if name == PICKLED or (name.startswith("__") and name not in USED):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def put_off(name: str, **known: Any) -> None:
    """Lets a module be imported when one of its attributes is used, the known ones excepted."""
    package = name.partition(".")[0]
    if package not in sys.modules and find_spec(package) is not None:
        later = Later(name)
        vars(later).update(known)
        sys.modules[name] = later
