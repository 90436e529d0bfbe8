"""The model card of an exported folder: what it is and how to use it, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from vaelab.elbo import ELBO
from vaelab.evaluation.record import figures
from vaelab.export.onnx_files import COMPARED, TOLERANCE, Graph
from vaelab.version import __version__

PIXELS = {  # see vaelab.data.pixels
    "binary": "0 or 1; where k of 0 to 255 is stored, it is 1 with probability k / 255",
    "dequantized": "(k + u) / 256 where k of 0 to 255 is stored, with u uniform on [0, 1)",
    "grey": "k / 255 where k of 0 to 255 is stored",
}


def card(model: ELBO, content: Mapping[str, Any], loadable: bool, graphs: Sequence[Graph]) -> str:
    """The whole card.

    Args:
        model: The model.
        content: That of the folder's `config.json`.
        loadable: Whether the weights are there.
        graphs: The ONNX files that are there.
    """
    sections = [
        introduction(model),
        in_pytorch(model) if loadable else "",
        in_onnx(graphs) if graphs else "",
        measured(content["results"], content["evaluation"]),
    ]
    return "\n".join(section for section in sections if section)


def introduction(model: ELBO) -> str:
    channels, height, width = model.x_shape
    labels = f"\n\n{of_labels(model)}" if model.context_dim else ""
    parts = (model.encoder, model.posterior, model.prior, model.decoder, model.likelihood)
    return f"""\
---
library_name: vaelab
tags: [variational-autoencoder]
---

# {type(model).__name__} of {height} x {width} x {channels} images, {model.latent_dim} latents

Trained for {model.step:,} steps; exported by vaelab {__version__}. Made of
{", ".join(type(part).__name__ for part in parts)}; `config.json` has the settings.

`x` is an image [batch, {channels}, {height}, {width}] whose pixel is
{PIXELS[model.pixels]}.{labels}
"""


def of_labels(model: ELBO) -> str:
    """What y is."""
    classes = [f"{name}, one-hot of {count} classes" for name, count in model.classes.items()]
    numbers = [f"{name}, {width} numbers" for name, width in model.numbers.items()]
    return f"`y` [batch, {model.y_dim}] is {'; then '.join(classes + numbers)}."


def in_pytorch(model: ELBO) -> str:
    labels = "torch.zeros(8, 0)"
    if model.context_dim:
        only = len(model.classes) == 1 and not model.numbers
        labels = f"torch.eye({model.y_dim})" if only else f"torch.zeros(8, {model.y_dim})"
    return f"""\
## PyTorch

```python
import torch
import vaelab

model = vaelab.load("FOLDER")  # this one, or "user/name" on the Hugging Face hub
images = model.sample({labels})
```
"""


def in_onnx(graphs: Sequence[Graph]) -> str:
    rows = "\n".join(
        f"| `{graph.path.name}` | {arrays(graph.inputs)} | {arrays(graph.outputs)} |"
        for graph in graphs
    )
    return f"""\
## ONNX

| file | inputs | outputs |
|---|---|---|
{rows}

float32. The encoder gives the mean and the other parameters of q(z | x, y), the decoder of
p(x | z, y), and the prior, which has a file only if it depends on y, of p(z | y). Compared with
PyTorch for batches of {" and ".join(map(str, COMPARED))}: within {TOLERANCE:g} of max(1, |value|).
"""


def arrays(named: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(f"`{name}` [{', '.join(map(str, shape))}]" for name, shape in named.items())


def measured(results: Mapping[str, float], evaluation: Mapping[str, Mapping[str, float]]) -> str:
    rows = [f"| {name} | {value:.3f} | |" for name, value in results.items()]
    estimates = {name: figures(e["value"], e["se"]) for name, e in evaluation.items()}
    rows += [f"| {name} | {value} | {error} |" for name, (value, error) in estimates.items()]
    table = "\n".join(["| metric | value | standard error |", "|---|---|---|", *rows])
    return f"## Test images, in nats per image\n\n{table}\n" if rows else ""
