"""Pages of the variants, from their docstrings, files in conf/model, and kept results."""

import inspect
import re
import shutil

from docstrings import LINKS, address_of, to_markdown
from settings import (
    cell,
    choices_of,
    chosen_groups,
    composed_choice,
    leading_comment,
    setting_rows,
    setting_table,
    write_page,
)

from vaelab.commands.config_folders import CONF
from vaelab.runs.targets import import_target
from vaelab.training.json_files import read_json

FIRST = ("vae", "beta_vae", "cvae")
"""Variants in front of the others, which are sorted by name."""
FIGURES = ("nll", "test/elbo", "test/rate", "test/distortion", "test/active_units", "psnr", "mse")
FIGURES += ("frechet_classifier", "precision", "recall")
"""Metrics on a page, as far as they were measured, in this order."""
LOSS_ENDS = r"\.\s|\.$|,?\s(?:with|by|without)\s|\s\([A-Z][a-z]|, the |\n\n|;|$"
"""What follows the formula of a loss in a docstring."""
PICTURES = ("samples", "reconstructions")


def write_gallery(to, results):
    """Writes a page for each variant and their index into a folder, and copies kept pictures."""
    to.mkdir(parents=True, exist_ok=True)
    names = [*FIRST, *(name for name in choices_of("model") if name not in FIRST)]
    write_page(to / "index.md", index_page(names))
    for name in names:
        write_page(to / f"{name}.md", variant_page(name, to, results / name))


def index_page(names):
    """Yields the lines of the index: a table of the variants with loss and paper."""
    yield from ["# Gallery", ""]
    yield from [
        "Every variant is one file in `src/vaelab/models/`, which holds its difference from the",
        "evidence lower bound alone. The distortion is $-\\mathbb{E}_q \\log p(x \\mid z)$, and",
        "the rate $\\mathrm{KL}(q(z \\mid x) \\,\\|\\, p(z))$; {doc}`/mathematics` derives both.",
        "",
        "| variant | loss | paper |",
        "|---|---|---|",
    ]
    for name in names:
        text = docstring_of(name)
        yield f"| {{doc}}`{name}` | {cell(f'`{loss_of(text)}`')} | {paper_of(name)} |"
    yield from ["", "```{toctree}", ":hidden:", "", *names, "```"]


def variant_page(name, to, kept):
    """Yields the lines of the page of a variant: command, formula, settings, kept results."""
    cfg = composed_choice("model", name)
    text = docstring_of(name)
    yield from [f"# {name}", "", f"**{to_markdown(title_of(text))}**", ""]
    yield from ["```bash", f"python train.py {command_of(name)}", "```", ""]
    yield from leading_comment(CONF / "model" / f"{name}.yaml")
    if also := [f"`{group}={choice}`" for group, choice in chosen_groups(f"model/{name}")]:
        yield from [f"It chooses {', '.join(also)}.", ""]
    yield from ["## What it is", "", *prose_of(text), ""]
    if (kept / "record.json").exists():
        yield from ["## What came of it", "", *result_lines(name, to, kept)]
    yield from ["## Settings", "", *setting_table(setting_rows(cfg, "model", name))]
    target = cfg.model._target_
    yield f"In Python: {{py:class}}`vaelab.models.{target.rpartition('.')[2]}`."


def result_lines(name, to, kept):
    """Yields the lines with a variant's kept pictures and figures; copies the pictures."""
    record = read_json(kept / "record.json")
    for picture in PICTURES:
        if (path := kept / f"{picture}.png").exists():
            shutil.copyfile(path, to / f"{name}_{picture}.png")
            yield from [f"![{picture}]({name}_{picture}.png){{width=24em}}", "", f"*{picture}*", ""]
    yield from ["Made by", "", "```bash", record["command"], "```", ""]
    yield from ["| number | value | standard error |", "|---|---|---|"]
    metrics = next(iter(record["seeds"].values()))["metrics"]
    for metric in FIGURES:
        if (found := metrics.get(metric)) and found.get("value") is not None:
            error = found.get("se")
            yield f"| {metric} | {found['value']:.3f} | {'' if error is None else f'{error:.3f}'} |"
    yield from ["", "{doc}`/glossary` says what the numbers are.", ""]


# What the docstrings and files say.


def docstring_of(name):
    """Returns the docstring of the class of a variant."""
    return inspect.getdoc(import_target(composed_choice("model", name).model._target_)) or ""


def command_of(name):
    """Returns the overrides of a variant's command: those its file begins with, or the variant."""
    text = (CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    given = re.search(r"^# python train\.py (.*)$", text, re.MULTILINE)
    return given[1] if given else f"model={name}"


def title_of(text):
    """Returns the first line of a docstring without its citation."""
    return text.partition("\n")[0]


def prose_of(text):
    """Yields the paragraphs of a docstring before its sections, the loss as a block."""
    before = re.split(r"\n\n(?:Args|Raises|Attributes|Returns):\n", text)[0]
    for paragraph in before.split("\n\n")[1:]:
        if " ".join(paragraph.split()) == f"loss = {loss_of(paragraph)}":
            yield from ["```text", paragraph, "```", ""]
        else:
            yield from [to_markdown(paragraph), ""]


def loss_of(text):
    """Returns the formula of the loss in a docstring, or its first line without the citation."""
    found = re.search(f"loss = (.+?)(?={LOSS_ENDS})", text, re.DOTALL)
    return " ".join(found[1].split()) if found else title_of(text)


def paper_of(name):
    """Returns the paper of a variant, as a link if it has an address: the first that is cited.

    A citation in the comment of its file stands for those of the docstring.
    """
    comment = "\n".join(leading_comment(CONF / "model" / f"{name}.yaml"))
    text = comment if re.search(r"\(\w+ et al\., \d{4}\)", comment) else docstring_of(name)
    cited = re.search(r"\(((?:van den )?[A-Z][^()]*?, \d{4})[^()]*\)", text)
    words = cited[1] if cited else ""
    near = text[cited.start() :].partition("\n\nArgs")[0] if cited else ""
    place = re.search("|".join(LINKS), near)
    return f"[{words}]({address_of(place[0])})" if place else words
