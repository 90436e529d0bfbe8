"""Shell completion of settings and their values: the scripts, and the words for TAB.

Does not import torch.
"""

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vaelab.commands import arguments, earlier_settings
from vaelab.commands.help_text import compose_config, default_groups, setting_items
from vaelab.commands.main import COMMANDS
from vaelab.commands.setting_comments import setting_meanings
from vaelab.errors import UserError

FLAGS = ("-m", "--help", "--cfg", "--config-dir")
"""Flags of `train`, the first of which no other command has."""
FOLDERS = ("run", "sweep", "from")
"""Settings whose values are run folders or sweep folders."""
PATHS = (
    "ckpt",
    "to",
    "images",
    "data.source.path",
    "paths.data",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
BASH = """
_vaelab() {
    local line=${COMP_LINE:0:$COMP_POINT} word=${COMP_WORDS[COMP_CWORD]} IFS=$'\\n'
    COMPREPLY=()
    if [[ ${COMP_WORDS[0]##*/} == vaelab ]]; then
        if (( COMP_CWORD == 1 )); then
            COMPREPLY=($(compgen -W "COMMANDS" -- "$word"))
            COMPREPLY=("${COMPREPLY[@]/%/ }")
            return
        fi
    else
        grep -qs '^from vaelab.commands' "${COMP_WORDS[1]}" || return
    fi
    COMPREPLY=($(COMP_LINE=$line "${COMP_WORDS[0]}" "${COMP_WORDS[1]}" -sc query=lines 2>/dev/null))
    # Where = parts words, what is before it stays on the line.
    if [[ $COMP_WORDBREAKS == *=* && ${line##* } == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#*=}")
    fi
}
complete -o nospace -o default -F _vaelab python python3 vaelab
"""
ZSH = f"autoload -U +X bashcompinit && bashcompinit\n{BASH.strip()}"
FISH = """
function __vaelab
    set -l words (commandline -opc)
    set -lx COMP_LINE (commandline -cp)
    $words[1] $words[2] -sc query=lines 2>/dev/null
end
function __vaelab_asked
    set -l words (commandline -opc)
    test (count $words) -gt 1; or return
    test (path basename $words[1]) = vaelab; or grep -qs '^from vaelab.commands' $words[2]
end
complete -c vaelab -n 'test (count (commandline -opc)) -eq 1' -f -a 'COMMANDS'
for command in python python3 vaelab
    complete -c $command -n __vaelab_asked -f -a '(__vaelab)'
end
"""
INSTALLED = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def shell_completion(asked: Sequence[str], folder: Path, name: str, lists: Sequence[str]) -> str:
    """Returns the output of the flag `-sc`: a completion script, or completions of COMP_LINE.

    Args:
        asked: The words after it: `install=SHELL`, or `query=lines` for the line in COMP_LINE.
        folder: The folder of the configurations.
        name: The command's configuration file, without `.yaml`.
        lists: Settings whose values are lists, with commas between them.

    Raises:
        UserError: If it is neither of them.
    """
    what, _, shell = (asked[0] if asked else "").partition("=")
    if what == "query":
        return "\n".join(completions(os.environ.get("COMP_LINE", ""), folder, name, lists))
    if what != "install" or shell not in INSTALLED:
        raise UserError(f"-sc: possible are {', '.join(f'install={name}' for name in INSTALLED)}")
    return INSTALLED[shell].strip().replace("COMMANDS", " ".join(COMMANDS))


def completions(line: str, folder: Path, name: str, lists: Sequence[str] = ()) -> list[str]:
    """Returns the possible completions of the last word of a command line.

    Args:
        line: The line as far as the cursor.
        folder: See `shell_completion`.
        name: See `shell_completion`.
        lists: See `shell_completion`.
    """
    word = re.split(r"\s", line)[-1]
    before = words_after_program(line[: len(line) - len(word)])
    if word.startswith("-"):
        possible = FLAGS if name == "train" else FLAGS[1:]
        return [flag for flag in possible if flag.startswith(word)]
    flags = [flag for flag in before if flag.startswith("-")]
    folders = [*arguments.config_dirs(before), folder]
    typed = [w for w in before if "=" in w and w not in flags]
    with suppress(UserError):  # an earlier run that is not there
        typed = earlier_settings.expand_from(typed, folders) if name == "train" else typed
    cfg = compose_typed(folders, name, typed)
    groups = dict(default_groups(folders, name))
    key, equals, value = word.partition("=")
    if not equals:
        found = [name for name in setting_names(cfg, groups) if name.startswith(word)]
        return sorted({name[: name.find(".", len(word)) + 1] or name for name in found})
    several = key in lists or bool({"-m", "--multirun"} & set(flags))
    first, comma, last = value.rpartition(",") if several else ("", "", value)
    kept = f"{key}={first}{comma}"
    words = setting_meanings(folders, name, cfg.hydra.runtime.choices)
    values = groups.get(key) or setting_values(cfg, key, last, words.get(key, ""))
    return [f"{kept}{found}" for found in values if found.startswith(last)]


def words_after_program(line: str) -> list[str]:
    """Returns the words of a line after its first `.py` script, or after its first word."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote is open
        words = line.split()
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    return words[scripts[0] + 1 if scripts else 1 :]


def compose_typed(folders: Sequence[Path], name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration from the overrides typed so far; drops those that sweep or fail.

    If it cannot be composed, drops all overrides with a dot in their names, then all others.
    """
    single = [word for word in overrides if not arguments.is_swept(word)]
    for lines in (single, [word for word in single if "." not in word.partition("=")[0]], []):
        try:
            return compose_config(folders, name, lines)
        except (HydraException, ValueError):
            continue
    raise AssertionError(name)


def setting_names(cfg: DictConfig, groups: Collection[str]) -> list[str]:
    """Returns groups and settings to type, sorted, each with `=`; skips references to others."""
    sweeps = "hydra/launcher" in groups
    paths = [path for path, _ in setting_items(cfg, {}, sweeps=sweeps)]
    return sorted({f"{path}=" for path in [*paths, *groups, *(["from"] if sweeps else [])]})


def setting_values(cfg: DictConfig, key: str, begun: str, meaning: str) -> Iterator[str]:
    """Yields values of a setting, not filtered by what is begun: paths, names, or its own value.

    Names are those in its comment. Yields nothing for null, a list or a dictionary.
    """
    if key in FOLDERS or key in PATHS:
        yield from path_completions(begun, folders=key in FOLDERS)
        return
    if listed := re.search(r"\b(all)\b.*\bor (?:some|one) of ([\w, ]+)", meaning):
        yield from (listed[1], *re.findall(r"\w+", listed[2]))
        return
    value = OmegaConf.select(cfg, key)
    if isinstance(value, bool):
        yield from ("false", "true")
    elif isinstance(value, (int, float, str)):
        yield str(value)


def path_completions(begun: str, folders: bool) -> Iterator[str]:
    """Yields all entries beside a partial path, not filtered by it; skips hidden and `_` names.

    Folders end in `/`, but not run folders. Yields nothing if there is no such folder.

    Args:
        begun: The partial path; one that ends in `/` is the folder.
        folders: Whether to yield folders only.
    """
    parent = Path(begun) if begun.endswith("/") else Path(begun).parent
    before = begun[: begun.rfind("/") + 1]
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        if path.name.startswith((".", "_")) or (folders and not path.is_dir()):
            continue
        whole = not path.is_dir() or (path / ".hydra").is_dir()
        yield f"{before}{path.name}" if whole else f"{before}{path.name}/"
