"""Progress of a loop: a progress bar in a terminal, or a line every 30 seconds elsewhere."""

from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

T = TypeVar("T")
EVERY = 30.0
"""Seconds between two lines."""


def track(work: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yields the items of `work` and shows a progress bar; a line every 30 s if no terminal.

    Args:
        work: The items.
        description: What is done, as a noun.
        total: Their number; default: the length of `work`, if it has one.
    """
    if total is None and isinstance(work, Sized):
        total = len(work)
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        yield from bar(work, description, total, console=console)
        return
    began = last = monotonic()
    for done, item in enumerate(work):
        if (now := monotonic()) - last >= EVERY:
            last = now
            console.print(f"{description}  {progress_text(done, total, now - began)}")
        yield item


def progress_text(done: int, total: int | None, seconds: float) -> str:
    """Returns the percentage done and the time left; only the count if the total is not known."""
    if not total:
        return f"{done:,} done"
    left = seconds * (total - done) / done if done else None
    ends = f", about {timedelta(seconds=round(left))} left" if left is not None else ""
    return f"{done / total:.0%}{ends}"
