"""Progress of long work: a bar in a terminal, and a line now and then in a file."""

from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

T = TypeVar("T")
EVERY = 30.0
"""Seconds between two lines."""


def track(work: Iterable[T], description: str) -> Iterator[T]:
    """Shows how far the work is while it is gone through."""
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        yield from bar(work, description, console=console)
        return
    total = len(work) if isinstance(work, Sized) else None
    began = last = monotonic()
    for done, item in enumerate(work):
        if (now := monotonic()) - last >= EVERY:
            last = now
            console.print(f"{description}  {share(done, total, now - began)}")
        yield item


def share(done: int, total: int | None, seconds: float) -> str:
    """How much is done after some time, and how much time is left."""
    if not total:
        return f"{done:,} done"
    left = seconds * (total - done) / done if done else None
    ends = f", about {timedelta(seconds=round(left))} left" if left is not None else ""
    return f"{done / total:.0%}{ends}"
