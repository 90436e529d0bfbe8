"""Names of run and sweep folders, from overrides of the command line; no torch."""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha1

FREE = (
    *("ckpt", "rerun", "paths", "logger", "compile"),
    *("callbacks.progress", "callbacks.board", "callbacks.pruning"),
)
"""Settings that may be others when the same run, or sweep, is started again."""
QUIET = (
    *("ckpt", "rerun", "compile", "logger", "paths", "trainer", "callbacks", "hydra"),
    *("model", "evaluate", "metrics"),
)
"""Settings that a run's name leaves out; but settings of the model are told."""
LONGEST = 80  # letters of overrides in a folder's name
OTHERS = re.compile(
    r"null|true|false|[+-]?(inf|infinity|nan|[0-9_.]+(e[+-]?[0-9_]+)?)", re.IGNORECASE
)
"""Texts that Hydra takes for something else."""
SWEPT = ("hydra.sweeper.params", "hydra.sweeper.objectives", "hydra/sweeper")
"""Settings of Hydra that say which jobs a sweep has."""


def run_name(overrides: Sequence[str]) -> str:
    """Overrides as the end of a folder's name: `_beta-4_latent_dim-8` for what tells runs apart.

    Where that leaves something out, six letters follow that differ if any override does.
    """
    told = telling(overrides)
    name = label(told)[:LONGEST]
    hidden = [o for o in overrides if o not in told and key(o) != "model"]
    ends = (f"{key(o).rpartition('.')[2]}-{o.partition('=')[2]}" for o in told)
    if hidden or "_".join(ends) != name:
        name = f"{name}_{digest(overrides)}".lstrip("_")
    return f"_{name}" if name else ""


def sweep_name(overrides: Sequence[str], hydra_overrides: Sequence[str]) -> str:
    """The folder of a sweep: the same for the same command, whatever runs its jobs."""
    kept = [override for override in overrides if not is_free(key(override))]
    kept += [override for override in hydra_overrides if key(override).startswith(SWEPT)]
    models = [label([override]).partition("-")[2] for override in kept if key(override) == "model"]
    return "_".join(filter(None, [*models, label(telling(kept))[:LONGEST], digest(kept)]))


def telling(overrides: Iterable[str]) -> list[str]:
    """The overrides that a folder's name tells."""
    found = []
    for override in overrides:
        top, *rest = key(override).split(".")
        if top not in QUIET or (top == "model" and rest):
            found.append(override)
    return found


def label(overrides: Iterable[str]) -> str:
    """Overrides as part of a file name: `beta-4_latent_dim-8`.

    No `=`, which a command line that names the folder could not hold.
    """
    parts = (f"{key(o).split('.')[-1]}-{o.partition('=')[2]}" for o in overrides)
    return "_".join(map(plain, parts))


def plain(text: str) -> str:
    """A text as part of a file name, in letters, digits, `_`, `-` and dots."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).rstrip("-")


def short(value: str) -> str:
    """A real number in four digits, and anything else as it is."""
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value


def digest(overrides: Iterable[str]) -> str:
    """Six letters that differ where overrides do."""
    return sha1("\n".join(overrides).encode()).hexdigest()[:6]


def key(override: str) -> str:
    """The setting that an override is of."""
    return override.lstrip("+~").partition("=")[0]


def is_free(name: str) -> bool:
    """Whether a setting may be another one when a run is started again."""
    return any(name == free or name.startswith(f"{free}.") for free in FREE)


def quote(text: str) -> str:
    """A text as Hydra's command line takes it, whatever is in it.

    In Hydra's quotes a backslash is one but before a quote; OmegaConf reads `${` where it is not
    behind a backslash.
    """
    escaped = re.sub(r"(?<!\\)(\\*)(?=\$\{)", r"\1\1\\", text)
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), escaped)
    return f"'{escaped}'"


def value(text: str) -> str:
    """The same, without quotes where Hydra needs none to take it for a text."""
    plain = re.fullmatch(r"[A-Za-z0-9_./@%+-]+", text) and re.search(r"[A-Za-z_/]", text)
    return text if plain and not OTHERS.fullmatch(text) else quote(text)
