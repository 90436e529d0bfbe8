"""Commands, Python blocks and options in the Markdown pages for users, and shorter forms of them.

A comment in the source of a page, in the line before a block, says what is done with the block:
`<!-- not run: REASON -->`, or `<!-- file: mine.py -->` of a file that the reader writes.
"""

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
"""Pages of reference, whose commands go on from each other's."""
PAGES = [
    README,
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    *GUIDE,
]
COMMANDS = ("train", "evaluate", "generate", "encode", "export", "report", "reproduce")
OTHER_PROGRAMS = ("pip", "pytest", "tensorboard", "eval", "export", "#")
"""Words that begin lines which are not run: they install, do not end, or are for one shell."""
FLAGS = {"-m": 0, "--multirun": 0, "--help": 0, "--short": 0, "--cfg": 1, "-sc": 1}
FLAGS |= {"--config-dir": 1}
"""Flags of commands, and how many words follow each."""
FEW_IMAGES = [
    "metrics.samples.count=100",
    "metrics.samples.looked_up=20",
    "metrics.conditional.per_class=10",
    "metrics.conditional.images=20",
    "metrics.conditional.num_samples=4",
    "metrics.disentanglement.images=300",
    "metrics.disentanglement.points=300",
    "metrics.disentanglement.repeats=2",
]
"""Settings of an evaluation that is over soon."""
FEW_BATCHES = [
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=2",
    "+trainer.limit_test_batches=2",
    "callbacks.board.projector_images=20",
]
"""Settings of a training that is over soon; the same for all, so that a run goes on."""
FEWER = {
    "train": FEW_BATCHES,
    "evaluate": ["num_samples=4", *FEW_IMAGES],
    "encode": ["num_samples=4"],
}
"""Settings by command that stand in for those of a page, or are added."""
ONE_MORE_EPOCH = ["trainer.max_epochs=2"]
"""Settings of a run that goes on after its end."""
TWO_TRIALS = ["hydra.sweeper.n_trials=2"]
"""Settings of a search that is over soon."""
FEW_SPRITES = [
    "data.source.size=16",
    "data.source.orientations=4",
    "data.source.positions=8",
    "data.val_size=200",
    "data.test_size=200",
]
"""Settings of a small set of sprites."""
DIGITS = ("mnist", "fashion_mnist", "cifar10")
"""Data sets in whose place mnist_5k is taken, which is not downloaded."""


PYTHON_NAMES = {"like", "folder", "epochs", "classes", "x_shape"}
"""Arguments of `vaelab.fit` and `build` that are no settings."""


@dataclass(frozen=True)
class Block:
    """A block of code of a page: its first line there, language, text and marker comment."""

    line: int
    language: str
    text: str
    marker: str

    @property
    def file(self) -> str | None:
        """The file that the reader writes, by the marker, or None."""
        found = re.fullmatch(r"file: (\S+)", self.marker)
        return found[1] if found else None

    @property
    def is_run(self) -> bool:
        """Whether a test runs it: no marker says otherwise, and it is shell or Python."""
        return self.language in ("bash", "python") and not self.marker

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of vaelab in it, `VARIABLE=value` first where there are any.

        Raises:
            ValueError: For a line of a program that is neither ours nor one that is left out, and
                for braces and parentheses without quotes.
        """
        if self.language != "bash":
            return []
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        parts = [part for line in lines for part in re.split(r" && ", line) if part.strip()]
        found = []
        for part in parts:
            if part.split()[0].startswith(OTHER_PROGRAMS):
                continue
            if re.search(r"\{[^}]*,|\(", re.sub(r"'[^']*'|\"[^\"]*\"| #.*", "", part)):
                raise ValueError(
                    f"line {self.line}: the shell takes it apart without quotes: {part}"
                )
            words = shlex.split(part, comments=True)
            if not command_name(words):
                raise ValueError(f"line {self.line}: no command of vaelab: {part}")
            found.append(words)
        return found


def blocks_of(page: Path) -> list[Block]:
    """Returns the blocks of code of a page, in order: fenced ones, and indented commands."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    i = 0
    while i < len(lines):
        before = next((lines[j] for j in range(i - 1, -1, -1) if lines[j].strip()), "")
        marker = re.fullmatch(r"<!-- (.*) -->", before)
        said = marker[1] if marker else ""
        start = i
        if fence := re.fullmatch(r"```(\w*)", lines[i]):
            i = lines.index("```", i + 1)
            text = "\n".join(lines[start + 1 : i])
            found.append(Block(start + 1, fence[1], text, said))
        elif lines[i].startswith("    ") and (i == 0 or not lines[i - 1].strip()):
            while i + 1 < len(lines) and lines[i + 1].startswith("    "):
                i += 1
            text = "\n".join(line[4:] for line in lines[start : i + 1])
            is_shell = re.match(r"(PYTHONPATH=\S+ )?(python \w+\.py|vaelab|pip) ", text)
            found.append(Block(start + 1, "bash" if is_shell else "text", text, said))
        i += 1
    return found


def command_name(words: list[str]) -> str | None:
    """Returns which command of vaelab these words start: train, evaluate, ...; else None."""
    words = after_variables(words)
    script = re.fullmatch(r"python (\w+)\.py|vaelab (\w+)", " ".join(words[:2]))
    name = script and (script[1] or script[2])
    return name if name in COMMANDS else None


def after_variables(words: list[str]) -> list[str]:
    """Returns the words behind `VARIABLE=value` at the start of a command."""
    return words[1:] if re.match(r"[A-Z_]+=", words[0]) else words


def split_flags(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns the flags of a command, with their values, and its settings."""
    flags, settings = [], []
    rest = after_variables(words)[2:]
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            flags += [word, *(rest.pop(0) for _ in range(FLAGS[word]))]
        else:
            settings.append(word)
    return flags, settings


def shorten(words: list[str]) -> list[str]:
    """Returns the words of a command that does the same in little time; runs it with few images.

    Of a sweep each setting keeps its first value, and the first of them two.
    """
    name = command_name(words)
    flags, settings = split_flags(words)
    fewer = FEWER.get(str(name), [])
    settings = without(settings, fewer) + fewer
    if name == "train":
        settings = [shorter_data(word) for word in settings]
        if {"-m", "--multirun"} & set(flags):
            settings = first_values(settings)
        if any(word.startswith("evaluate=") for word in settings):
            settings = without(settings, FEW_IMAGES) + FEW_IMAGES
        if "ckpt=last" in settings:
            settings = [*without(settings, ONE_MORE_EPOCH), *ONE_MORE_EPOCH]
        if "hydra/sweeper=optuna" in settings:
            settings = [*without(settings, TWO_TRIALS), *TWO_TRIALS]
        if "data=sprites" in settings:
            settings = without(settings, FEW_SPRITES) + FEW_SPRITES
        if swept := experiment_values(settings):
            flags, settings = ["-m", *flags], [*swept, *settings]
    start = words[: len(words) - len(after_variables(words))]
    return [*start, "vaelab", str(name), *flags, *settings]


def shorter_data(word: str) -> str:
    """Returns a setting with the small data set in place of one that would be downloaded."""
    key, _, value = word.partition("=")
    return "data=mnist_5k" if key == "data" and value in DIGITS else word


def first_values(settings: list[str]) -> list[str]:
    """Returns settings of a sweep with one value each, of the first that has several two."""
    found, count = [], 2
    for word in settings:
        key, _, value = word.partition("=")
        values = value.split(",")
        if len(values) > 1 and not set("[({") & set(value):
            word, count = f"{key}={','.join(values[:count])}", 1
        found.append(word)
    return found


def experiment_values(settings: list[str]) -> list[str]:
    """Returns settings that leave the sweep of an `experiment=` one value each, of one two.

    Its data are the small set, too.
    """
    chosen = [word.partition("=")[2] for word in settings if word.startswith("experiment=")]
    found: list[str] = []
    for file in (CONF / "experiment" / f"{name}.yaml" for name in chosen):
        if file.exists():
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            params = content["hydra"]["sweeper"]["params"]
            found += first_values([f"{key}={value}" for key, value in params.items()])
            data = [each.get("override /data") for each in content["defaults"]]
            found += [shorter_data(f"data={name}") for name in data if name]
    return found


def without(settings: list[str], others: list[str]) -> list[str]:
    """Returns the settings whose keys are not among those of other settings."""
    keys = {word.partition("=")[0].lstrip("+") for word in others}
    return [word for word in settings if word.partition("=")[0].lstrip("+") not in keys]


def inline_options(page: Path) -> Iterator[tuple[str, str]]:
    """Yields (key, value) of each option between backticks in a page's prose; skips `+key=`."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        for word in code.split():
            found = re.fullmatch(r"'?([a-z_]+(?:[./][a-z_]+)*)=([^'\"]*)'?", word)
            if found and not code.startswith(("eval ", "source ")) and "install=" not in word:
                yield found[1], found[2]


@cache
def known_options() -> tuple[frozenset[str], frozenset[str]]:
    """Returns the settings of all files in conf/, by their whole names, and `group=choice`."""
    keys, choices = set(), set()
    for file in CONF.rglob("*.yaml"):
        group = file.parent.relative_to(CONF).as_posix()
        text = file.read_text(encoding="utf-8")
        package = re.search(r"^# @package (\S+)", text, re.M)
        prefix = package[1].replace("_global_", "") if package else group.replace(".", "")
        keys |= set(flat_keys(yaml.safe_load(text) or {}, prefix.replace("/", ".")))
        choices.add(f"{group}={file.stem}")
    return frozenset(keys | {"from"}), frozenset(choices)  # from= is read before Hydra


def flat_keys(node: object, prefix: str) -> Iterator[str]:
    """Yields the names of all settings in nested dictionaries, with those of the nodes."""
    if prefix:
        yield prefix
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat_keys(value, f"{prefix}.{key}" if prefix else str(key))


def own_options(page: Path) -> set[str]:
    """Returns the settings in the files of settings that a page has the reader write."""
    found: set[str] = set()
    for block in blocks_of(page):
        if block.language == "yaml" and block.file:
            group = "" if "_global_" in block.text else Path(block.file).parent.name
            found |= set(flat_keys(yaml.safe_load(block.text), group))
    return found


def is_known_option(key: str, value: str, own: Collection[str] = ()) -> bool:
    """Returns whether files in conf/ have a setting, or a group this choice; `...` is any choice.

    A name without a dot may also be the last part of a setting, as it is in Python.

    Args:
        key: The setting or group.
        value: Its value, or choices in brackets.
        own: Settings that the reader has written.
    """
    keys, choices = known_options()
    keys = keys.union(own)
    if any(choice.startswith(f"{key}=") for choice in choices):
        names = re.sub(r"^\[|\]$", "", value).split(",")
        return value in ("", "...") or all(f"{key}={name}" in choices for name in names)
    last_parts = {known.rpartition(".")[2] for known in keys}
    return key in keys or ("." not in key and key in last_parts | PYTHON_NAMES)
