"""Pages of every group and setting, from the comments in conf/*.yaml and annotated signatures."""

import re
from functools import cache
from importlib import import_module
from typing import Any

import yaml
from docstrings import quote_commands, to_markdown
from omegaconf import OmegaConf
from type_words import type_text

from vaelab.commands import train
from vaelab.commands.config_folders import CONF, compose_config
from vaelab.commands.help_text import leaves, value_text
from vaelab.commands.setting_comments import file_comments, setting_meanings
from vaelab.errors import UserError
from vaelab.runs.targets import import_target
from vaelab.runs.validation import parameters

GROUPS = {
    "model": "The variant: what is minimised.",
    "data": "Images, or numbers, and how they are divided and put into batches.",
    "network": "The layers of encoder and decoder.",
    "likelihood": "The likelihood p(x | z, y): what a pixel is, and its noise.",
    "prior": "The prior p(z | y).",
    "posterior": "The posterior q(z | x, y).",
    "condition": "What the networks see of a label.",
    "annealing": "How a weight of the loss rises in training.",
    "optimizer": "The optimizer.",
    "scheduler": "How the learning rate changes in training.",
    "early_stopping": "Whether a training ends when its validation loss has stopped falling.",
    "ema": "Whether the weights of a model are averages over training.",
    "trainer": "Devices and length of a training, and any argument of Lightning's Trainer.",
    "logger": "Where the curves of a training are written.",
    "callbacks": "What happens during a training beside it.",
    "metrics": "How an evaluation measures.",
    "sampler": "What latents are drawn from, in `vaelab generate` and `vaelab evaluate`.",
    "experiment": "Whole experiments in a file.",
    "hydra/launcher": "What runs the jobs of a sweep, `-m`.",
    "hydra/sweeper": "Which jobs a sweep has.",
}
"""The groups of conf/, with the first sentence of their pages; `reproduce` is none."""
COMMANDS = ("train", "evaluate", "generate", "encode", "export", "report", "reproduce")
PLACES = {"data": "data.source", "network": "model.encoder", "annealing": "annealing.schedule"}
PLACES |= {part: f"model.{part}" for part in ("likelihood", "prior", "posterior", "condition")}
PLACES |= {"scheduler": "model.scheduler", "optimizer": "model.optimizer", "sampler": "sampler"}
"""Where the class is named that a choice of a group stands for."""
UNSET = {"posterior=codebook": ["model=vq_vae"], "prior=codes": ["model=vq_vae"]}
"""Overrides without which a choice makes no sense, by the choice."""


def write_settings(to):
    """Writes a page for each group and each command, and their index, into a folder."""
    check_groups()
    to.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        write_page(to / f"command_{command}.md", command_page(command))
    for group, title in GROUPS.items():
        write_page(to / f"{file_name(group)}.md", group_page(group, title))


def check_groups():
    """Raises UserError if a folder of conf/ has no page here."""
    folders = {str(path.parent.relative_to(CONF)) for path in CONF.rglob("[!_]*.yaml")}
    groups = {name for name in folders if not name.rpartition("/")[2].startswith("_")}
    if missing := groups - GROUPS.keys() - {".", "reproduce"}:
        raise UserError(f"conf/{min(missing)} has no page: name it in docs/settings.py")


def file_name(group):
    """Returns the name of a group's page, without `.md`."""
    return group.replace("/", "_")


def write_page(path, lines):
    """Writes lines to a file, unless it holds them already: Sphinx reads changed files again."""
    text = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# The pages.


def group_page(group, title):
    """Yields the lines of the page of a group: a section and a table for each of its choices."""
    yield from [f"# `{group}=`", "", title, ""]
    for path in sorted((CONF / group).glob("_*.yaml")):
        yield from ["## Of every choice", ""]
        yield from setting_table(base_rows(group, path.stem))
    for choice in choices_of(group):
        yield from [f"## `{group}={choice}`", ""]
        yield from choice_section(group, choice)


def choice_section(group, choice):
    """Yields the lines on one choice of a group: comment, docstring, what it chooses, settings."""
    if group == "model":
        yield from [f"Formula, paper and settings: {{doc}}`/gallery/{choice}`", ""]
        return
    yield from leading_comment(CONF / group / f"{choice}.yaml")
    if group == "experiment":
        text = (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8")
        yield from ["```yaml", re.sub(r"\A(#.*\n)+", "", text).strip(), "```", ""]
        return
    cfg = composed_choice(group, choice)
    if own := target_of(cfg, group):
        yield from [f"`{own.rpartition('.')[2]}`: {first_line(own)}", ""]
    if also := [f"`{name}={value}`" for name, value in chosen_groups(f"{group}/{choice}")]:
        yield from [f"Also chooses {', '.join(also)}.", ""]
    bases = [f"`{group}={name}`" for name in bases_of(f"{group}/{choice}") if name[0] != "_"]
    if bases:
        yield from [f"As {', '.join(bases)}, with:", ""]
    yield from setting_table(setting_rows(cfg, group, choice, inherited=False))


def base_rows(group, base):
    """Returns the rows of the settings in a base file, as its first user has them.

    Settings that every choice gives itself are left out.
    """
    choice = next(name for name in choices_of(group) if base in bases_of(f"{group}/{name}"))
    cfg, place = composed_choice(group, choice), group.replace("/", ".")
    names = file_settings(f"{group}/{base}", place, set())
    found = [(name, raw_value(cfg, name), setting_type(cfg, name)) for name in names]
    words = dict(file_comments([CONF], f"{group}/{base}", place))
    return [(*row, words[row[0]]) for row in found if row[0] in words]


def command_page(command):
    """Yields the lines of the page of a command: its purpose and its own settings."""
    module = import_module(f"vaelab.commands.{command}")
    yield from [f"# `vaelab {command}`", "", to_markdown(quote_commands(module.__doc__ or "")), ""]
    cfg = compose_config([CONF], command, [])
    words = dict(file_comments([CONF], command, ""))
    types_of = parameters(module.settings_schema)[0]
    yield from setting_table(
        [
            (name, raw_value(cfg, name), type_text(types_of.get(name, Any)), meaning)
            for name, meaning in words.items()
            if not name.startswith(("hydra.callbacks", "defaults"))
        ]
    )
    if command == "reproduce":
        for path in sorted((CONF / "reproduce").glob("*.yaml")):
            yield from protocol_section(path)


def protocol_section(path):
    """Yields the lines on a protocol of `reproduce`: the paper, what it is, published figures."""
    protocol = yaml_of(f"reproduce/{path.stem}")
    yield from [f"## `reproduce {path.stem}`", "", to_markdown(protocol["paper"]), ""]
    yield from [to_markdown(protocol["about"]), ""]
    yield from ["| run | number | published | tolerance | source |", "|---|---|---|---|---|"]
    for figure in protocol["figures"]:
        run = figure["of"] + (f" minus {figure['minus']}" if "minus" in figure else "")
        cells = run, figure["metric"], figure["published"], figure["tolerance"], figure["source"]
        yield f"| {' | '.join(cell(to_markdown(str(each))) for each in cells)} |"
    yield ""


def setting_table(rows):
    """Yields the lines of a table of settings: name, default, type, meaning."""
    if not rows:
        return
    yield from ["| setting | default | type | meaning |", "|---|---|---|---|"]
    for name, value, kind, meaning in rows:
        shown = f"`{cell(value)}`" if value else ""
        yield f"| `{name}` | {shown} | {cell(kind)} | {cell(to_markdown(meaning))} |"
    yield ""


def cell(text):
    """Returns a text as the cell of a Markdown table."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


# What the files and signatures say.


def choices_of(group):
    """Returns the names of the choices of a group, sorted, `none` first."""
    names = sorted(p.stem for p in (CONF / group).glob("[!_]*.yaml"))
    return sorted(names, key=lambda name: name != "none")


@cache
def composed_choice(group, choice):
    """Returns the configuration of the first command that has a group, with a choice of it."""
    command = "evaluate" if group == "sampler" else "train"
    words = [f"{group}={choice}"]
    return compose_config([CONF], command, [*words, *UNSET.get(words[0], [])])


def leading_comment(path):
    """Yields the comment at the head of a file, commands in it as blocks."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    if lines:
        yield from [to_markdown(quote_commands("\n".join(lines))), ""]


def bases_of(file):
    """Returns the names of the files of its own group that a file includes."""
    entries = yaml_of(file).get("defaults", [])
    return [e.partition("@")[0] for e in entries if isinstance(e, str) and e != "_self_"]


def chosen_groups(file):
    """Yields (group, choice) that a file and its bases choose in other groups."""
    for entry in yaml_of(file).get("defaults", []):
        if isinstance(entry, dict):
            ((name, choice),) = entry.items()
            if name.startswith("override /"):
                yield name.removeprefix("override /").partition("@")[0], choice
        elif entry != "_self_":
            yield from chosen_groups(f"{file.rpartition('/')[0]}/{entry.partition('@')[0]}")


def yaml_of(file):
    """Returns the content of a file in conf/, named without `.yaml`."""
    return yaml.safe_load((CONF / f"{file}.yaml").read_text(encoding="utf-8")) or {}


def setting_rows(cfg, group, choice, inherited=True):
    """Returns (name, default, type, meaning) of each setting in a choice's file, and in its bases.

    Without the bases if `inherited` is False, and always without references to other settings.
    """
    words = setting_meanings([CONF], "train", dict(cfg.hydra.runtime.choices))
    place = group.replace("/", ".")
    words |= dict(file_comments([CONF], f"{group}/{choice}", place))
    rows = {}
    for name in file_settings(f"{group}/{choice}", place, words, inherited):
        value = raw_value(cfg, name)
        if name in words or not re.fullmatch(r"\$\{.*\}|\.\.\.|\{.*\}", value):
            rows[name] = (name, value, setting_type(cfg, name), words.get(name, ""))
    return list(rows.values())


def file_settings(file, package, words, inherited=True):
    """Yields the dotted names of the settings in a file, those of its bases first."""
    text = (CONF / f"{file}.yaml").read_text(encoding="utf-8")
    if given := re.match(r"#\s*@package\s+(\S+)", text):
        package = "" if given[1] == "_global_" else given[1]
    content = yaml_of(file)
    for entry in content.pop("defaults", []):
        if inherited and isinstance(entry, str) and entry != "_self_":
            before, _, place = entry.partition("@")
            base = f"{file.rpartition('/')[0]}/{before}"
            yield from file_settings(base, place or package, words)
    for name, _ in leaves(content, {word.removeprefix(f"{package}.") for word in words}):
        if name:
            yield f"{package}.{name}".lstrip(".")


def raw_value(cfg, name):
    """Returns the default of a setting as --help shows it; empty if the setting is not there."""
    node = OmegaConf.to_container(cfg, resolve=False)
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return ""
        node = node[part]
    return "null" if node is None else value_text(node)


def setting_type(cfg, name):
    """Returns the type of a setting in words, from the signature of the target it goes to."""
    path, _, last = name.rpartition(".")
    if not path:
        return type_text(parameters(train.settings_schema)[0].get(last, Any))
    owner = OmegaConf.select(cfg, path, throw_on_missing=False)
    if owner is None or "_target_" not in owner or OmegaConf.is_missing(owner, "_target_"):
        return ""
    return type_text(parameters(reader_of(owner))[0].get(last, Any))


def reader_of(owner):
    """Returns the class or function that the settings beside a `_target_` go to."""
    name = str(owner.get("engine") or owner["_target_"])
    if name.startswith("hydra_plugins."):  # which Hydra imports, and no package holds
        module, _, last = name.rpartition(".")
        return getattr(import_module(module), last)
    return import_target(name)


def target_of(cfg, group):
    """Returns the dotted name of the one class that a choice stands for, or None."""
    path = PLACES.get(group)
    node = OmegaConf.select(cfg, path, throw_on_missing=False) if path else None
    if node is None or OmegaConf.is_missing(node, "_target_"):
        return None
    return str(node["_target_"])


def first_line(target):
    """Returns the first line of a target's docstring as Markdown."""
    return to_markdown((import_target(target).__doc__ or "").strip().partition("\n")[0])
