"""ONNX files of a model's distributions, each compared with PyTorch before it is kept.

Shapes: B images, D latents, Y width of the labels.
"""

import logging
import math
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

from vaelab.distributions.argument_checks import disable_argument_checks
from vaelab.distributions.flows import Pushforward
from vaelab.distributions.hierarchy import Hierarchy
from vaelab.elbo import ELBO
from vaelab.errors import UserError, exception_chain, first_line
from vaelab.files.atomic import atomic_file
from vaelab.likelihoods.autoregressive import AutoregressiveImage
from vaelab.posteriors import PointMass
from vaelab.priors import CodeSequence
from vaelab.priors.mixture import Mixture

TOLERANCE = 1e-4  # times max(1, |value|); float32 sums differ by their order
COMPARED = (1, 7)  # batch sizes at which a file is compared with PyTorch
COMPOSITE = (Pushforward, Mixture, Hierarchy, PointMass, CodeSequence, AutoregressiveImage)
DISTRIBUTIONS: dict[str, Callable[[ELBO, dict[str, Tensor]], Distribution]] = {
    "encoder": lambda model, given: model.latent_posterior(given["x"], given["y"]),
    "decoder": lambda model, given: model.image_likelihood(given["z"], given["y"]),
    "prior": lambda model, given: model.latent_prior(given["y"]),
}


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file: its inputs, its outputs, and its largest deviation from PyTorch."""

    path: Path
    inputs: dict[str, list[Any]]  # name -> shape, with a word for the batch size
    outputs: dict[str, list[Any]]
    deviation: float  # |difference| / max(1, |value|)


class DistributionModule(nn.Module):
    """A module that computes the parameters of one of a model's distributions, for the exporter.

    Args:
        model: The model.
        name: `encoder`, `decoder` or `prior`.
        inputs: Names of its arguments, of x, y and z. Without y the model must be unconditional.
    """

    def __init__(self, model: ELBO, name: str, inputs: list[str]) -> None:
        super().__init__()
        self.model, self.name, self.inputs = model, name, inputs

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Returns the distribution's parameters by name; takes tensors in the order of `inputs`."""
        given = {"y": tensors[0].new_zeros(len(tensors[0]), 0)}
        given |= dict(zip(self.inputs, tensors, strict=True))
        return distribution_parameters(DISTRIBUTIONS[self.name](self.model, given))


def distribution_parameters(distribution: Distribution) -> dict[str, Tensor]:
    """Returns the mean and other parameters of a distribution; raises UserError if it is composite.

    A parameter that is the mean itself is not repeated. Composite are a flow, mixture, hierarchy,
    point mass, codes and autoregressive pixels, which have no such parameters.
    """
    if isinstance(distribution, COMPOSITE):
        raise UserError(
            "what=onnx: the distribution of a flow, a mixture, a hierarchy, codes or "
            "autoregressive pixels has no graph of its parameters; what=safetensors exports "
            "the model"
        )
    inner = distribution.base_dist if isinstance(distribution, Independent) else distribution
    mean = inner.mean
    found = {name: getattr(inner, name) for name in inner.arg_constraints}
    return {"mean": mean} | {name: value for name, value in found.items() if value is not mean}


def exported_distributions(model: ELBO) -> list[DistributionModule]:
    """Returns modules of encoder and decoder, and of the prior only if it depends on y."""
    labels = ["y"] if model.context_dim else []
    found = [
        DistributionModule(model, "encoder", ["x", *labels]),
        DistributionModule(model, "decoder", ["z", *labels]),
    ]
    if model.latent_prior(torch.zeros(1, model.y_dim)).batch_shape:
        found.append(DistributionModule(model, "prior", ["y"]))
    return found


def random_inputs(module: DistributionModule, count: int) -> tuple[Tensor, ...]:
    """Returns random inputs with batch size `count` for a module, always the same for a count."""
    model = module.model
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
    return tuple(drawn[name] for name in module.inputs)


def write_onnx_files(model: ELBO, folder: Path) -> list[OnnxFile]:
    """Writes ONNX files of encoder, decoder and, only if it depends on y, prior; checks each.

    They take any batch size, and each is compared with PyTorch. Meanwhile logging, warnings and
    argument validation of torch.distributions are off in the whole process.

    Raises:
        UserError: If a package is missing, a network cannot be translated, or onnxruntime's
            results deviate from PyTorch's; the file that fails is not kept.
    """
    check_packages()
    with silence_exporter(), disable_argument_checks(), torch.no_grad():
        return [
            write_onnx_file(module, folder / f"{module.name}.onnx")
            for module in exported_distributions(model)
        ]


def check_exportable(model: ELBO) -> None:
    """Raises UserError if encoder, decoder or label-dependent prior has no parameters to export.

    Writes nothing.
    """
    with disable_argument_checks(), torch.no_grad():
        for module in exported_distributions(model):
            module(*random_inputs(module, 2))


def check_packages() -> None:
    """Raises UserError if onnx, onnxscript or onnxruntime is not installed; imports none."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise UserError(
                f'what=onnx needs {name}: pip install "vaelab[onnx]"; what=safetensors does not'
            )


@contextmanager
def silence_exporter() -> Iterator[None]:
    """Context manager that turns off log messages up to WARNING and all warnings, process-wide."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def write_onnx_file(module: DistributionModule, path: Path) -> OnnxFile:
    """Exports one module to `path`; keeps the file only if its results agree with PyTorch.

    The file appears as a whole, and without the stack traces that the exporter adds.

    Raises:
        UserError: If ONNX cannot express the module, or the results deviate.
    """
    example = random_inputs(module, 2)
    try:
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            verbose=False,
            input_names=module.inputs,
            output_names=list(module(*example)),
            dynamic_shapes=(tuple({0: "batch"} for _ in example),),
        )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line([*exception_chain(error)][-1])
        raise UserError(f"{path}: ONNX cannot express this ({reason})") from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with paths of this machine
    with atomic_file(path) as file:
        file.write(program.model_proto.SerializeToString())
        file.flush()
        return compare_with_pytorch(module, Path(file.name), path)


def compare_with_pytorch(module: DistributionModule, written: Path, path: Path) -> OnnxFile:
    """Runs a written file by onnxruntime, and raises UserError if it deviates from PyTorch.

    Args:
        module: The module that was exported.
        written: The file to run.
        path: The final path of the file, for the result and for messages.

    Returns:
        The description of the file, with its largest deviation.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    deviation = 0.0
    for count in COMPARED:
        tensors = random_inputs(module, count)
        arrays = {n: t.numpy() for n, t in zip(module.inputs, tensors, strict=True)}
        expected = module(*tensors)
        found = session.run(list(expected), arrays)
        for name, array in zip(expected, found, strict=True):
            worst = max_deviation(torch.from_numpy(array), expected[name])
            if not worst <= TOLERANCE:  # also if it is NaN
                raise UserError(
                    f"{path}: onnxruntime gives another {name} than PyTorch for a batch of "
                    f"{count}, by {worst:.1e}; not kept"
                )
            deviation = max(deviation, worst)
    sides = (session.get_inputs(), session.get_outputs())
    inputs, outputs = ({node.name: node.shape for node in side} for side in sides)
    return OnnxFile(path, inputs, outputs, deviation)


def max_deviation(found: Tensor, expected: Tensor) -> float:
    """Returns the largest |found - expected| / max(1, |expected|); infinite if shapes differ."""
    if found.shape != expected.shape:
        return math.inf
    return float(((found - expected).abs() / expected.abs().clamp(min=1)).max())
