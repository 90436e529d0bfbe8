"""Choices of the groups in conf, and the other parts that some of them need."""

from collections.abc import Iterable

from vaelab.commands.config_folders import CONF

NEEDED_PARTS = {
    "posterior=codebook": ["model=vq_vae"],
    "posterior=deterministic": ["model=ae"],
    "prior=codes": ["model=vq_vae"],
    "prior=conditional_normal": ["model=cvae"],
}


def choices_of(groups: Iterable[str]) -> list[str]:
    """Returns `group=name` of each file of these groups, without the bases of other files."""
    return [
        f"{group}={path.stem}"
        for group in groups
        for path in sorted((CONF / group).glob("[!_]*.yaml"))
    ]
