"""A model's distributions as ONNX graphs, each compared with PyTorch before it is kept."""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.nn.functional import one_hot

from vaelab.distributions.argument_checks import no_checks
from vaelab.distributions.flows import Pushforward
from vaelab.distributions.hierarchy import Hierarchy
from vaelab.elbo import ELBO
from vaelab.errors import UserError, causes, first_line
from vaelab.posteriors import PointMass
from vaelab.priors import CodeSequence
from vaelab.priors.mixture import Mixture

TOLERANCE = 1e-4  # of max(1, |value|): float32, summed in another order
COMPARED = (1, 7)  # batch sizes
COMPOSITE = (Pushforward, Mixture, Hierarchy, PointMass, CodeSequence)
DISTRIBUTIONS: dict[str, Callable[[ELBO, dict[str, Tensor]], Distribution]] = {
    "encoder": lambda model, given: model.encode(given["x"], given["y"]),
    "decoder": lambda model, given: model.decode(given["z"], given["y"]),
    "prior": lambda model, given: model.latent_prior(given["y"]),
}


@dataclass(frozen=True)
class Graph:
    """An ONNX file: what goes in and comes out, and how far it is from PyTorch at most."""

    path: Path
    inputs: dict[str, list[Any]]  # name -> shape, with a word for the batch
    outputs: dict[str, list[Any]]
    deviation: float  # of max(1, |value|)


class Function(nn.Module):
    """One of a model's distributions as a function from tensors to its parameters.

    Args:
        model: The model.
        name: Of the distribution.
        inputs: Names of its arguments; where y is none of them, the model sees no labels.
    """

    def __init__(self, model: ELBO, name: str, inputs: list[str]) -> None:
        super().__init__()
        self.model, self.name, self.inputs = model, name, inputs

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        given = {"y": tensors[0].new_zeros(len(tensors[0]), 0)}
        given |= dict(zip(self.inputs, tensors, strict=True))
        return parameters(DISTRIBUTIONS[self.name](self.model, given))


def parameters(distribution: Distribution) -> dict[str, Tensor]:
    """The mean, and every parameter that is another tensor: a scale, logits."""
    if isinstance(distribution, COMPOSITE):
        raise UserError(
            "what=onnx: the distribution of a flow, a mixture, a hierarchy or codes has no graph "
            "of its parameters; what=safetensors exports the model"
        )
    inner = distribution.base_dist if isinstance(distribution, Independent) else distribution
    mean = inner.mean
    found = {name: getattr(inner, name) for name in inner.arg_constraints}
    return {"mean": mean} | {name: value for name, value in found.items() if value is not mean}


def functions(model: ELBO) -> list[Function]:
    """Encoder and decoder, and the prior where it depends on the label."""
    labels = ["y"] if model.context_dim else []
    found = [Function(model, "encoder", ["x", *labels]), Function(model, "decoder", ["z", *labels])]
    if model.latent_prior(torch.zeros(1, model.y_dim)).batch_shape:
        found.append(Function(model, "prior", ["y"]))
    return found


def examples(function: Function, count: int) -> tuple[Tensor, ...]:
    """`count` random images, latents or labels for each argument of a function."""
    model = function.model
    random = torch.Generator().manual_seed(count)
    drawn = {
        "x": torch.rand(count, *model.x_shape, generator=random),
        "z": torch.randn(count, model.latent_dim, generator=random),
    }
    classes = [
        one_hot(torch.randint(size, (count,), generator=random), size).float()
        for size in model.classes.values()
    ]
    numbers = torch.randn(count, sum(model.numbers.values()), generator=random)
    drawn["y"] = torch.cat([*classes, numbers], 1)
    return tuple(drawn[name] for name in function.inputs)


def write(model: ELBO, folder: Path) -> list[Graph]:
    """Writes `encoder.onnx`, `decoder.onnx` and perhaps `prior.onnx`, for batches of any size.

    Raises:
        UserError: If a package is missing, a network has no translation, or ONNX's result
            is not PyTorch's; what fails is not kept.
    """
    check_packages()
    with quiet(), no_checks(), torch.no_grad():
        return [graph(function, folder / f"{function.name}.onnx") for function in functions(model)]


def check(model: ELBO) -> None:
    """Raises UserError if one of a model's distributions has no graph."""
    with no_checks(), torch.no_grad():
        for function in functions(model):
            function(*examples(function, 2))


def check_packages() -> None:
    """Raises UserError if the packages for ONNX are not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise UserError(
                f'what=onnx needs {name}: pip install "vaelab[onnx]"; what=safetensors does not'
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's diary of rewritings and warnings about itself from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def graph(function: Function, path: Path) -> Graph:
    """Writes one function as a file, whole and compared or not at all."""
    example = examples(function, 2)
    try:
        program = torch.onnx.export(
            function,
            example,
            dynamo=True,
            verbose=False,
            input_names=function.inputs,
            output_names=list(function(*example)),
            dynamic_shapes=(tuple({0: "batch"} for _ in example),),
        )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line([*causes(error)][-1])
        raise UserError(f"{path}: ONNX cannot express this ({reason})") from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    partial = path.with_suffix(".partial")
    try:
        program.save(partial, external_data=False)
        found = compared(function, partial, path)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return found


def compared(function: Function, written: Path, path: Path) -> Graph:
    """The graph in a file, as it will be at `path`, if it gives what the function does."""
    import onnxruntime

    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    deviation = 0.0
    for count in COMPARED:
        tensors = examples(function, count)
        arrays = {n: t.numpy() for n, t in zip(function.inputs, tensors, strict=True)}
        expected = function(*tensors)
        found = session.run(list(expected), arrays)
        for name, array in zip(expected, found, strict=True):
            worst = distance(torch.from_numpy(array), expected[name])
            if not worst <= TOLERANCE:  # nor is NaN
                raise UserError(
                    f"{path}: onnxruntime gives another {name} than PyTorch for a batch of "
                    f"{count}, by {worst:.1e}; not kept"
                )
            deviation = max(deviation, worst)
    sides = (session.get_inputs(), session.get_outputs())
    inputs, outputs = ({node.name: node.shape for node in side} for side in sides)
    return Graph(path, inputs, outputs, deviation)


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, of max(1, |value|)."""
    if found.shape != expected.shape:
        return math.inf
    return float(((found - expected).abs() / expected.abs().clamp(min=1)).max())
