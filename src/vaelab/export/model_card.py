"""The model card of an exported folder: a README in Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vaelab.elbo import ELBO
from vaelab.evaluation.record import rounded_estimate
from vaelab.export.onnx_files import COMPARED, TOLERANCE, OnnxFile
from vaelab.observations import kind_text, x_text
from vaelab.version import __version__

PIXELS = {  # see vaelab.data.pixels
    "binary": "0 or 1; where k of 0 to 255 is stored, it is 1 with probability k / 255",
    "dequantized": "(k + u) / 256 where k of 0 to 255 is stored, with u uniform on [0, 1)",
    "grey": "k / 255 where k of 0 to 255 is stored",
}


def model_card(
    model: ELBO, content: Mapping[str, Any], loadable: bool, onnx_files: Sequence[OnnxFile]
) -> str:
    """Returns the model card: description, use in PyTorch and ONNX, and results, in Markdown.

    Args:
        model: The model.
        content: Content of the folder's `config.json`.
        loadable: Whether the folder has the weights; without them the PyTorch section is omitted.
        onnx_files: The folder's ONNX files; without them the ONNX section is omitted.
    """
    sections = [
        introduction_section(model),
        pytorch_section(model) if loadable else "",
        onnx_section(onnx_files) if onnx_files else "",
        results_section(content["results"], content["evaluation"]),
    ]
    return "\n".join(section for section in sections if section)


def introduction_section(model: ELBO) -> str:
    """Returns the metadata for the hub, the title, the model's parts and what x and y are."""
    labels = f"\n\n{label_description(model)}" if model.context_dim else ""
    parts = (model.encoder, model.posterior, model.prior, model.decoder, model.likelihood)
    return f"""\
---
library_name: vaelab
tags: [variational-autoencoder]
---

# {type(model).__name__} of {x_text(model.x_shape)}, {model.latent_dim} latents

Trained for {model.step:,} steps; exported by vaelab {__version__}. Made of
{", ".join(type(part).__name__ for part in parts)}; `config.json` has the settings.

{x_description(model)}{labels}
"""


def x_description(model: ELBO) -> str:
    """Returns a sentence on the shape of x, and on what its pixels or numbers are."""
    shape = ", ".join(map(str, model.x_shape))
    if model.units is None:
        black, white = model.pixel_scale.floats
        scale = f"Its `encode`, `reconstruct` and `sample` have black {black:g}, white {white:g}."
        stated = f"`x` is an image [batch, {shape}] whose pixel is\n{PIXELS[model.pixels]}."
        return stated if model.pixel_scale.is_default else f"{stated} {scale}"
    kind = kind_text(model.x_shape)
    stated = f"`x` are {kind} [batch, {shape}] of numbers"
    if model.pixels == "binary":
        names = ", ".join(map(escaped_markdown, model.units.names))
        return f"{stated} 0 and 1: {names}."
    units = zip(model.units.names, model.units.mean, model.units.scale, strict=True)
    rows = [f"| {escaped_markdown(name)} | {mean!r} | {scale!r} |" for name, mean, scale in units]
    table = "\n".join(rows)
    return (
        f"{stated}, each less the mean and divided by the scale of its row in this table;\n"
        f"`model.in_units(x)` is the reverse.\n\n| name | mean | scale |\n|---|---|---|\n{table}\n"
    )


def label_description(model: ELBO) -> str:
    """Returns a sentence on the columns of y: classes with their names, then numbers."""
    classes = [
        f"{n}, one-hot of {', '.join(map(repr, model.class_names[n]))}" for n in model.classes
    ]
    classes = [escaped_markdown(text) for text in classes]
    numbers = [f"{escaped_markdown(n)}, {width} numbers" for n, width in model.numbers.items()]
    return f"`y` [batch, {model.y_dim}] is {'; then '.join(classes + numbers)}."


def pytorch_section(model: ELBO) -> str:
    """Returns the section with code that loads the model and samples from it."""
    labels = "torch.zeros(8, 0)"
    if model.context_dim:
        first = [f"torch.eye({count})[:1]" for count in model.classes.values()]
        first += [f"torch.zeros(1, {width})" for width in model.numbers.values()]
        only = len(first) == 1 and model.classes
        labels = f"torch.eye({model.y_dim})" if only else f"torch.cat([{', '.join(first)}], 1)"
    return f"""\
## PyTorch

```python
import torch
import vaelab

model = vaelab.load("FOLDER")  # this one, or "user/name" on the Hugging Face hub
images = model.sample({labels})
```
"""


def onnx_section(onnx_files: Sequence[OnnxFile]) -> str:
    """Returns the section with a table of the ONNX files, their inputs and outputs."""
    rows = "\n".join(
        f"| `{file.path.name}` | {shape_list(file.inputs)} | {shape_list(file.outputs)} |"
        for file in onnx_files
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


def shape_list(named: Mapping[str, Sequence[Any]]) -> str:
    """Returns names with their shapes, with commas between them: `x` [batch, 1, 28, 28]."""
    return ", ".join(f"`{name}` [{', '.join(map(str, shape))}]" for name, shape in named.items())


def escaped_markdown(text: str) -> str:
    """Returns a text of one line in which Markdown reads no HTML, link, picture, code or table."""
    return re.sub(r"([\\`*\[\]<>()|!#&~])", r"\\\1", " ".join(text.split()))


def results_section(
    results: Mapping[str, float], evaluation: Mapping[str, Mapping[str, float]]
) -> str:
    """Returns the table of test metrics and evaluated metrics; empty if there are none."""
    rows = [f"| {escaped_markdown(name)} | {value:.3f} | |" for name, value in results.items()]
    estimates = {
        escaped_markdown(name): rounded_estimate(e["value"], e["se"])
        for name, e in evaluation.items()
    }
    rows += [f"| {name} | {value} | {error} |" for name, (value, error) in estimates.items()]
    table = "\n".join(["| metric | value | standard error |", "|---|---|---|", *rows])
    return f"## Test images, in nats per image\n\n{table}\n" if rows else ""
