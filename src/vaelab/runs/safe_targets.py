"""Which code a configuration of unknown origin may name, so that its folder runs no other.

Only the model and the data of a run folder are ever built; its callbacks, loggers and trainer are
not, so they may name anything.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vaelab.errors import UserError
from vaelab.runs.targets import import_target

MODEL_PACKAGES = tuple(
    f"vaelab.{name}."
    for name in ("conditions", "likelihoods", "models", "networks", "posteriors", "priors")
)
"""Where the parts of a model are; every module class in them may be built."""
DATA_PARTS = {
    f"vaelab.data.{name}"
    for name in (
        *("Arrays", "DSprites", "Digits", "Folder", "HuggingFace", "Images", "Numbers"),
        *("Quadrants", "Signals", "Sprites", "Torchvision", "TorchvisionDataset", "Vectors"),
    )
}
"""The data module and its sources; what these write is kept in the command's own data folder."""
LAYERS = (
    *("BatchNorm1d", "BatchNorm2d", "GroupNorm", "InstanceNorm2d", "LayerNorm", "RMSNorm"),
    *("CELU", "ELU", "GELU", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "Mish", "PReLU"),
    *("ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Softmax"),
    *("AvgPool2d", "MaxPool2d", "AdaptiveAvgPool2d", "Upsample", "PixelShuffle", "PixelUnshuffle"),
    *("Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Linear", "Bilinear", "Embedding"),
    *("Dropout", "Dropout2d", "Flatten", "Unflatten", "Sequential", "ModuleList", "ModuleDict"),
    *("GRU", "LSTM", "RNN", "MultiheadAttention", "TransformerEncoderLayer"),
)
OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
)
SCHEDULERS = (
    *("ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR"),
    *("ExponentialLR", "LinearLR", "MultiStepLR", "OneCycleLR", "PolynomialLR"),
    *("ReduceLROnPlateau", "StepLR"),
)
SCHEDULES = ("Cosine", "Plateau", "Step", "Warmup")
FLOWS = ("BPF", "CNF", "GF", "MAF", "NAF", "NCSF", "NICE", "NSF", "RealNVP", "SOSPF", "UNAF")
OTHERS = {
    *(f"torch.nn.{name}" for name in LAYERS),
    *(f"torch.optim.{name}" for name in OPTIMIZERS),
    *(f"torch.optim.lr_scheduler.{name}" for name in SCHEDULERS),
    *(f"vaelab.training.learning_rates.{name}" for name in SCHEDULES),
    *(f"torchvision.ops.{name}" for name in ("MLP", "Permute", "SqueezeExcitation")),
    *(f"zuko.flows.{name}" for name in FLOWS),
}
"""Other classes that compute and do nothing else, by the names that may stand in a
configuration. A function is in no list: torch.load is one."""
REFERENCE = re.compile(r"\$\{\.*[\w-]+(?:[.\[\]]+[\w-]+)*\]?\}")
"""An interpolation that is the name of another setting, and calls no resolver."""


def check_safe_targets(nodes: Mapping[str, Any]) -> None:
    """Raises UserError if nodes name code that is not known to be harmless, or hold any `${`.

    Args:
        nodes: The nodes by their paths in the configuration, resolved, as plain values. What
            begins with `data` may name data and sources, all others the parts of a model.

    Raises:
        UserError: With all such names, and what to type where the folder is trusted.
    """
    unsafe = [text for path, node in nodes.items() for text in unsafe_settings(path, node)]
    if unsafe:
        count = "is no part" if len(unsafe) == 1 else "are no parts"
        raise UserError(
            f"{', '.join(unsafe)} {count} of vaelab's, and code from elsewhere is not run; where "
            "you trust this folder, give trust=true, in Python vaelab.load(..., trust=True)"
        )


def unsafe_settings(path: str, node: Any) -> Iterator[str]:
    """Yields `path=value` of each unsafe target, and of each text that Hydra would interpolate.

    A text with `${` is unsafe, for `oc.env` reads a variable of the environment and `oc.create` can
    make a `_target_`. May import modules of vaelab.
    """
    if isinstance(node, Mapping):
        if "_target_" in node and not is_safe_target(path, node["_target_"]):
            yield f"{path}._target_={node['_target_']}"
        for key, value in node.items():
            if key != "_target_":
                yield from unsafe_settings(f"{path}.{key}", value)
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from unsafe_settings(f"{path}.{i}", value)
    elif isinstance(node, str) and "${" in node:
        yield f"{path}={node}"


def is_safe_target(path: str, target: Any) -> bool:
    """Returns whether the node at a path may name this target; may import a module of vaelab.

    Names of other packages are looked up in a fixed list, before anything is imported. A class of
    vaelab must be defined in a package of parts, as `vaelab.networks.mlp.nn.Linear` is not.
    """
    if not isinstance(target, str):
        return False
    if path.partition(".")[0] == "data":
        return target in DATA_PARTS
    if target in OTHERS:
        return True
    if not target.startswith(MODEL_PACKAGES):
        return False  # before it is looked up, which imports it
    from torch import nn  # slow to import, and needed only for this

    try:
        found = import_target(target)
    except Exception:  # a module that is not there, a name that is none
        return False
    return (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and f"{found.__module__}.".startswith(MODEL_PACKAGES)
    )


def without_resolvers(node: Any) -> Any:
    """Returns a copy of nested dicts and lists in which no text calls a resolver when it is read.

    References to other settings, such as `${seed}`, stay. In every other text with `${` that is
    escaped, so that it stands for itself: `${oc.env:HOME}` reads no variable.
    """
    if isinstance(node, Mapping):
        return {key: without_resolvers(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [without_resolvers(value) for value in node]
    if isinstance(node, str) and "${" in REFERENCE.sub("", node):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", node)
    return node
