"""Names of run and sweep folders, from overrides, and quoting of overrides for Hydra.

Does not import torch.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha1

FREE = (
    *("ckpt", "rerun", "paths", "logger", "compile", "data.in_memory"),
    *("callbacks.progress", "callbacks.board", "callbacks.pruning"),
)
"""Settings that may change when the same run or sweep is started again."""
QUIET = (
    *("ckpt", "rerun", "compile", "logger", "paths", "trainer", "callbacks", "hydra"),
    *("model", "evaluate", "metrics"),
)
"""Settings that a folder's name omits; settings inside the model, `model.*`, are not omitted."""
LONGEST = 80  # letters of overrides in a folder's name
OTHERS = re.compile(
    r"null|true|false|[+-]?(inf|infinity|nan|[0-9_.]+(e[+-]?[0-9_]+)?)", re.IGNORECASE
)
"""Texts that Hydra parses as null, a boolean or a number."""
SWEPT = ("hydra.sweeper.params", "hydra.sweeper.objectives", "hydra/sweeper")
"""Settings of Hydra that determine the jobs of a sweep."""


def run_name(overrides: Sequence[str]) -> str:
    """Returns the end of a run folder's name, `_beta-4`; with a hash if it omits overrides.

    Omits the `QUIET` settings. If anything but the choice of `model` is omitted, shortened or
    replaced, six hexadecimal digits follow, a hash of all overrides.
    """
    told = named_overrides(overrides)
    name = overrides_label(told)[:LONGEST]
    hidden = [o for o in overrides if o not in told and setting_name(o) != "model"]
    ends = (f"{setting_name(o).rpartition('.')[2]}-{o.partition('=')[2]}" for o in told)
    if hidden or "_".join(ends) != name:
        name = f"{name}_{overrides_digest(overrides)}".lstrip("_")
    return f"_{name}" if name else ""


def sweep_name(overrides: Sequence[str], hydra_overrides: Sequence[str]) -> str:
    """Returns a sweep folder's name: models, settings and a hash; `FREE` settings do not count."""
    kept = [override for override in overrides if not is_free(setting_name(override))]
    kept += [override for override in hydra_overrides if setting_name(override).startswith(SWEPT)]
    models = [
        overrides_label([override]).partition("-")[2]
        for override in kept
        if setting_name(override) == "model"
    ]
    return "_".join(
        filter(
            None,
            [*models, overrides_label(named_overrides(kept))[:LONGEST], overrides_digest(kept)],
        )
    )


def named_overrides(overrides: Iterable[str]) -> list[str]:
    """Returns the overrides that appear in a folder's name; omits those of `QUIET` settings."""
    found = []
    for override in overrides:
        top, *rest = setting_name(override).split(".")
        if top not in QUIET or (top == "model" and rest):
            found.append(override)
    return found


def overrides_label(overrides: Iterable[str]) -> str:
    """Returns overrides as part of a file name: `beta-4_latent_dim-8`.

    It has no `=`, which an override of the folder's name could not hold unquoted.
    """
    parts = (f"{setting_name(o).split('.')[-1]}-{o.partition('=')[2]}" for o in overrides)
    return "_".join(map(filename_text, parts))


def filename_text(text: str) -> str:
    """Returns a text with each run of letters unfit for a file name as one `-`; none at the end.

    Fit are A-Z, a-z, 0-9, `_`, `.` and `-`. Removes every `-` at the end.
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).rstrip("-")


def short_number(value: str) -> str:
    """Returns a decimal number with four significant digits; integers and other texts as is."""
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value


def overrides_digest(overrides: Iterable[str]) -> str:
    """Returns the first six hexadecimal digits of the SHA-1 hash of overrides, in this order."""
    return sha1("\n".join(overrides).encode()).hexdigest()[:6]


def setting_name(override: str) -> str:
    """Returns the name of the setting that an override changes, without `+` and `~`."""
    return override.lstrip("+~").partition("=")[0]


def is_free(name: str) -> bool:
    """Returns whether a setting is, or is below, one of `FREE`, which may change at a new start."""
    return any(name == free or name.startswith(f"{free}.") for free in FREE)


def quote(text: str) -> str:
    """Returns any text in single quotes, escaped for Hydra's command line.

    OmegaConf interpolates `${` unless a backslash precedes it.
    """
    return quote_raw(re.sub(r"(?<!\\)(\\*)(?=\$\{)", r"\1\1\\", text))


def quote_raw(text: str, mark: str = "'") -> str:
    """Returns a text in quotes for Hydra's command line, in which `${` still interpolates.

    Hydra reads backslashes in quotes literally, except before a quote.
    """
    escaped = re.sub(rf"(\\*)({mark}|$)", lambda m: 2 * m[1] + (f"\\{mark}" if m[2] else ""), text)
    return f"{mark}{escaped}{mark}"


def quote_if_needed(text: str) -> str:
    """Returns a text as Hydra's command line takes it, in quotes only if it needs them."""
    plain = re.fullmatch(r"[A-Za-z0-9_./@%+-]+", text) and re.search(r"[A-Za-z_/]", text)
    return text if plain and not OTHERS.fullmatch(text) else quote(text)
