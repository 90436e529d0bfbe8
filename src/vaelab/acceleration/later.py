"""Modules that others import in passing, put off until someone uses them."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
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
        return getattr(make_way(self), name)


def make_way(later: Later) -> ModuleType:
    """The module that it stands for."""
    if sys.modules.get(later.__name__) is later:
        del sys.modules[later.__name__]
    return import_module(later.__name__)


def lighten_lightning() -> None:
    """Puts off what `import lightning` brings, and few use.

    That is Triton, where there is no GPU, and by way of torchmetrics scipy.signal, asked whether
    it lacks a window function, matplotlib and torchvision: 170 MB, and half the time that it takes
    after torch.
    """
    if "lightning" not in sys.modules:
        sys.meta_path.insert(0, WithoutTriton())
    put_off("scipy.signal", hamming=None)
    put_off(
        "torchmetrics.utilities.plot",
        functions=("plot_confusion_matrix", "plot_curve", "plot_single_or_multi_val"),
        **dict.fromkeys(("_AX_TYPE", "_CMAP_TYPE", "_PLOT_OUT_TYPE"), object),
        __path__=(),
    )
    put_off(
        "torchmetrics.functional.image.arniqa",
        functions=("_ARNIQA", "_NoTrainArniqa", "_arniqa_compute", "_arniqa_update", "arniqa"),
        _TYPE_REGRESSOR_DATASET=str,
        __path__=(),
    )
    put_off(
        "torchmetrics.functional.image.dists",
        functions=("_dists_update", "deep_image_structure_and_texture_similarity"),
        __path__=(),
    )


def put_off(name: str, functions: Iterable[str] = (), **known: Any) -> None:
    """Lets a module be imported when one of its attributes is used.

    Args:
        name: Of the module.
        functions: Those that may be imported from it, and are used when they are called.
        known: Attributes that are no use of it, and what they are. One with a `__path__` of () has
            no modules in it.
    """
    package = name.partition(".")[0]
    if package not in sys.modules and find_spec(package) is not None:
        later = Later(name)
        vars(later).update(known, **{each: called_later(later, each) for each in functions})
        sys.modules[name] = later


def called_later(later: Later, name: str) -> Callable[..., Any]:
    def function(*args: Any, **options: Any) -> Any:
        return getattr(make_way(later), name)(*args, **options)

    return function


class WithoutTriton(MetaPathFinder):
    """Has `import lightning`, which brings torch's compiler, be `without_triton`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "lightning" else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with without_triton():
                    execute(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def without_triton() -> Iterator[None]:
    """Has torch import no Triton, 67 MB, on a machine without a GPU for which to write kernels.

    It is then as the torch for CPUs, which comes without Triton.
    """
    import torch

    hidden = "triton" not in sys.modules
    hidden = hidden and not torch.cuda.device_count() and not torch.xpu.device_count()
    if hidden:
        sys.modules["triton"] = None  # type: ignore[assignment]
        logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # would tell
    try:
        yield
    finally:
        if hidden:
            del sys.modules["triton"]
