"""Parsing, quoting and checking of command-line words before Hydra reads them.

Does not import torch.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from vaelab.errors import UserError, spelling_hint
from vaelab.runs import naming

FLAGS = {
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"), 0),
    **dict.fromkeys(("--multirun", "-m", "--shell-completion", "-sc"), 0),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-path", "-cp"), 1),
    **dict.fromkeys(("--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun"), 1),
}
"""Hydra's flags, and how many words follow each."""
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""Values that --info may have."""
NAMELESS = re.compile(r"logger\.\w+\.(name|version)")
"""Settings that may be empty texts: each is a folder that is then left out."""
OUTPUT_SUBDIR = "hydra.output_subdir"
"""Hydra would write there before anything is checked, and leave it when the run is refused."""
KEY = re.compile(r"[~+]*[A-Za-z_][\w.@:/$-]*", re.ASCII)
CLOSING = {"[": "]", "{": "}", "(": ")"}


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits words into Hydra's flags, with their values, and others; UserError for unknown flags.

    Raises:
        UserError: For an unknown flag.
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


def quote_argument(argument: str, lists: Iterable[str]) -> str:
    """Returns `key=value`, in brackets for `lists`, otherwise quoted if Hydra cannot parse it.

    `run=a,b c` becomes `run=['a','b c']` for the settings in `lists`. `ckpt=a=b` becomes
    `ckpt='a=b'` for any other setting. A value that begins with a quote or bracket stays.
    """
    key, _, value = argument.partition("=")
    if not value or not KEY.fullmatch(key) or value[0] in "['\"{":
        return argument
    if key in lists:
        return f"{key}=[{','.join(map(naming.quote, value.split(',')))}]"
    return argument if parse_override(argument) else f"{key}={naming.quote(value)}"


def parse_override(argument: str) -> Override | None:
    """Returns Hydra's parse of an override, or None if Hydra cannot parse it."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def is_swept(argument: str) -> bool:
    """Returns whether an override has values for a sweep; False if Hydra cannot parse it."""
    override = parse_override(argument)
    return override is not None and override.is_sweep_override()


def config_dirs(flags: Sequence[str]) -> list[Path]:
    """Returns the folders that `--config-dir` or `-cd` name; they need not exist."""
    found = []
    for flag, after in zip(flags, [*flags[1:], ""], strict=False):
        name, equals, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(Path(value if equals else after))
    return found


def refuse_words_of_training(overrides: Sequence[str], sweeping: bool) -> None:
    """Raises UserError for words of sweeps and run folders, in commands that make neither."""
    if sweeping:
        raise UserError("-m: only train makes sweeps")
    for word in overrides:
        if word.lstrip("+~").startswith(("hydra.run.", "hydra.sweep.")):
            raise UserError(f"{word}: only train makes such a folder; --help has what is possible")


def check_overrides(
    overrides: Sequence[str], sweeping: bool, folders: Sequence[Path], can_sweep: bool = True
) -> None:
    """Raises UserError for the first override that Hydra cannot read or that makes no sense.

    These make no sense: blanks around `=`, several values without a sweep, a deleted part, a group
    that is given no name of a file, an empty text (but of `NAMELESS` settings), and a folder for
    Hydra's own files.

    Args:
        overrides: The overrides, quoted by `quote_argument`.
        sweeping: Whether several values are several runs.
        folders: The folders of the configurations.
        can_sweep: Whether the command makes sweeps, so that a message may say how.

    Raises:
        UserError: With what to type instead.
    """
    for i in range(len(overrides)):
        check_blanks(overrides, i)
    for word in overrides:
        override = parse_override(word)
        if override is None or not KEY.fullmatch(word.partition("=")[0]):
            raise UserError(syntax_error_message(word))
        if is_swept(word) and not sweeping:
            raise UserError(multirun_message(word, can_sweep))
        group = override.key_or_group
        if (
            group == OUTPUT_SUBDIR and override.value() is not None
        ):  # Lightning's launcher gives null
            raise UserError(f"{word}: a run writes its configuration to .hydra, by itself")
        choices = sorted({name for folder in folders for name in choices_in(folder / group)})
        if override.is_delete():
            if choices:
                raise UserError(deletion_message(word, choices))
        elif choices or "/" in group:
            check_choice(word, override, choices)
        elif not NAMELESS.fullmatch(group):
            check_not_empty(word, override)


def check_choice(word: str, override: Override, choices: Sequence[str]) -> None:
    """Raises UserError unless a group's value is a name, several names in a list, or a sweep of it.

    Hydra ends in an error of its own otherwise, and says of names in a list not which there are.
    Skips sweeps by `glob`.
    """
    if isinstance(override.value(), Glob):
        return
    values = [override.value()]
    if override.is_sweep_override():
        values = list(override.sweep_iterator()) if override.is_discrete_sweep() else [None]
    for value in values:
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            possible = f"possible are {', '.join(choices)}" if choices else "it takes a name"
            raise UserError(f"{word}: there is no such {override.key_or_group}; {possible}")
        if isinstance(value, list) and (unknown := sorted({*names} - {*choices})):
            raise UserError(
                f"{word}: {unknown[0]}: there is no such {override.key_or_group}; "
                f"{spelling_hint(unknown[0], choices)}"
            )


def check_not_empty(word: str, override: Override) -> None:
    """Raises UserError if a value, or a part of a list, is an empty or blank text; skips sweeps.

    As a path, an empty text would be any folder.
    """
    value = None if override.is_sweep_override() else override.value()
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str) and not part.strip():
            raise UserError(f"{word}: the value is empty")


def check_blanks(words: Sequence[str], at: int) -> None:
    """Raises UserError if a blank is before or after the equals sign of the word at this index."""
    word = words[at]
    if not (word.startswith("=") or word.endswith("=")):
        return
    before = words[at - 1] if at and word.startswith("=") and "=" not in words[at - 1] else ""
    after = words[at + 1] if word.endswith("=") and at + 1 < len(words) else ""
    if before or (after and "=" not in after):
        raise UserError(f"{before} {word} {after}".strip() + f": write {before}{word}{after}")


def syntax_error_message(word: str) -> str:
    """Returns the error message for an override that Hydra cannot parse, with what is wrong."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{word}: settings are given as name=value"
    if key != key.strip() or value != value.strip():
        return f"{word}: write {key.strip()}={value.strip()}, without blanks about ="
    if not KEY.fullmatch(key):
        return f"{word}: settings have names of plain letters, and {key or 'nothing'} is none"
    opened = unclosed_bracket(value)
    if opened:
        return (
            f"{word}: {opened} is not closed; in a shell what has blanks, brackets or quotes in it "
            f"stands in quotes, as in '{key}=...'"
        )
    whole = shlex.quote(f"{key}={naming.quote(value)}")
    return f"{word}: Hydra cannot read this; as a text it is {whole}"


def unclosed_bracket(value: str) -> str:
    """Returns the last quote or bracket that is not closed; an empty text if there is none."""
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


def multirun_message(word: str, can_sweep: bool) -> str:
    """Returns the error message for an override with several values outside a sweep."""
    key, _, value = word.partition("=")
    is_list = "." in key and "," in value and "(" not in value
    listed = f"; a list is {shlex.quote(f'{key}=[{value}]')}" if is_list else ""
    if not can_sweep:
        return f"{word}: several values are several commands, one each{listed}"
    return f"{word}: several values are several runs, of a sweep: add -m{listed}"


def choices_in(group: Path) -> list[str]:
    """Returns the sorted names of a group's YAML files but those with `_` first; empty if none."""
    return sorted(path.stem for path in group.glob("[!_]*.yaml"))


def deletion_message(word: str, choices: Sequence[str]) -> str:
    """Returns the error message for a `~group` override, with what to type instead."""
    group = word.lstrip("~").partition("=")[0]
    if "none" in choices:
        return f"{word}: give {group}=none"
    return f"{word}: there is one in any case; possible are {', '.join(choices)}"
