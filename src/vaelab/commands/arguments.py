"""The words of a command line, before Hydra reads them: put in order, quoted, and checked.

Free of torch.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from vaelab.errors import UserError
from vaelab.runs import naming

FLAGS = {
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"), 0),
    **dict.fromkeys(("--multirun", "-m", "--shell-completion", "-sc"), 0),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-path", "-cp"), 1),
    **dict.fromkeys(("--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun"), 1),
}
"""Hydra's flags, and how many words follow each."""
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""What may follow --info."""
NAMELESS = ("logger.name", "logger.version")
"""Settings that may be empty texts: folders that are left out."""
KEY = re.compile(r"[~+]*[A-Za-z_][\w.@:/$-]*", re.ASCII)
CLOSING = {"[": "]", "{": "}", "(": ")"}


def parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags among arguments, with the words that belong to them, and all others.

    Raises:
        UserError: For a flag that there is not.
    """
    flags: list[str] = []
    others: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word in ("--info", "-i"):
            flags.append(f"--info={words.pop(0) if words and words[0] in INFO else 'all'}")
        elif word.startswith("-"):
            flag = word.partition("=")[0]
            if flag not in FLAGS and flag != "--info":
                raise UserError(
                    f"{word}: there is no such flag; settings are given as name=value, and --help "
                    "lists them"
                )
            flags.append(word)
            flags += [words.pop(0) for _ in range(FLAGS.get(word, 0)) if words]
        else:
            others.append(word)
    return flags, others


def quoted(argument: str, lists: Iterable[str]) -> str:
    """An argument with its value in quotes where Hydra would not read it as it is meant.

    `run=a,b c` becomes `run=['a','b c']` for the settings in `lists`, and `ckpt=a=b` becomes
    `ckpt='a=b'` for any, if Hydra can make nothing of it.
    """
    key, _, value = argument.partition("=")
    if not value or not KEY.fullmatch(key) or value[0] in "['\"{":
        return argument
    if key in lists:
        return f"{key}=[{','.join(map(naming.quote, value.split(',')))}]"
    return argument if read(argument) else f"{key}={naming.quote(value)}"


def read(argument: str) -> Override | None:
    """What Hydra makes of an argument, None if nothing."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def is_swept(argument: str) -> bool:
    """Whether an argument has several values, of which each is a run of a sweep."""
    override = read(argument)
    return override is not None and override.is_sweep_override()


def folders(flags: Sequence[str]) -> list[Path]:
    """The user's own folders of configurations, among flags."""
    found = []
    for flag, after in zip(flags, [*flags[1:], ""], strict=False):
        name, equals, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(Path(value if equals else after))
    return found


def check(overrides: Sequence[str], sweeping: bool, folder: Path) -> None:
    """Checks that Hydra can read the overrides, and that they can be meant.

    Args:
        overrides: Quoted.
        sweeping: Whether several values are several runs.
        folder: That of the configurations.

    Raises:
        UserError: For the first that it cannot; says what to type.
    """
    for i in range(len(overrides)):
        check_blanks(overrides, i)
    for word in overrides:
        override = read(word)
        if override is None or not KEY.fullmatch(word.partition("=")[0]):
            raise UserError(misread(word))
        if is_swept(word) and not sweeping:
            raise UserError(several(word))
        choices = choices_in(folder / override.key_or_group)
        if override.is_delete() and choices:
            raise UserError(needed(word, choices))
        if not (override.is_delete() or choices or override.key_or_group in NAMELESS):
            check_filled(word, override)


def check_filled(word: str, override: Override) -> None:
    """Raises UserError for an empty text, alone or in a list: as a path it would be any folder."""
    value = None if override.is_sweep_override() else override.value()
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str) and not part.strip():
            raise UserError(f"{word}: the value is empty")


def check_blanks(words: Sequence[str], at: int) -> None:
    """Raises UserError if there are blanks about the equals sign of a word."""
    word = words[at]
    if not (word.startswith("=") or word.endswith("=")):
        return
    before = words[at - 1] if at and word.startswith("=") and "=" not in words[at - 1] else ""
    after = words[at + 1] if word.endswith("=") and at + 1 < len(words) else ""
    if before or (after and "=" not in after):
        raise UserError(f"{before} {word} {after}".strip() + f": write {before}{word}{after}")


def misread(word: str) -> str:
    """What is wrong with an argument that Hydra cannot read, and what to type."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{word}: settings are given as name=value"
    if key != key.strip() or value != value.strip():
        return f"{word}: write {key.strip()}={value.strip()}, without blanks about ="
    if not KEY.fullmatch(key):
        return f"{word}: settings have names of plain letters, and {key or 'nothing'} is none"
    opened = open_ended(value)
    if opened:
        return (
            f"{word}: {opened} is not closed; in a shell what has blanks, brackets or quotes in it "
            f"stands in quotes, as in '{key}=...'"
        )
    whole = shlex.quote(f"{key}={naming.quote(value)}")
    return f"{word}: Hydra cannot read this; as a text it is {whole}"


def open_ended(value: str) -> str:
    """The bracket or quote that is not closed, if there is one."""
    waiting: list[str] = []
    quote = ""
    for letter in value:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in CLOSING:
            waiting.append(letter)
        elif waiting and letter == CLOSING[waiting[-1]]:
            waiting.pop()
    return quote or "".join(waiting[-1:])


def several(word: str) -> str:
    """What to type instead of several values for one run."""
    key, _, value = word.partition("=")
    is_list = "." in key and "," in value and "(" not in value
    listed = f"; a list is {shlex.quote(f'{key}=[{value}]')}" if is_list else ""
    return f"{word}: several values are several runs, of a sweep: add -m{listed}"


def choices_in(group: Path) -> list[str]:
    """The choices of a group of configurations; none if there is no such group."""
    return sorted(path.stem for path in group.glob("[!_]*.yaml"))


def needed(word: str, choices: Sequence[str]) -> str:
    """What to type instead of taking away a part."""
    group = word.lstrip("~")
    if "none" in choices:
        return f"{word}: give {group}=none"
    return f"{word}: there is one in any case; possible are {', '.join(choices)}"
